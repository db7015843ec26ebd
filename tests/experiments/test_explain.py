"""Saliency maps, pictures and scores from the command's own function, of simulated stars."""

import numpy as np
import pytest
from astropy.table import Table

from experiments import explain
from jaxspec.commands import explain as commands
from jaxspec.errors import InputError
from jaxspec.labels import NINE_LABELS
from tests.experiments.conftest import configured

TOY = ["forward=tests.experiments.toys.forward", "n_stars=2", "n_draws=32", "n_steps=2", "step=0.1"]


def test_maps_and_scores_of_simulated_stars(trained, tmp_path, capsys):
    cfg = configured("explain", *TOY, f"checkpoint='{trained[1]}'", f"output='{tmp_path}'")
    explain.run(cfg, tmp_path)
    table = Table.read(tmp_path / "scores.ecsv")
    assert table.colnames == ["source", "label", "share", "chance", "filter"]
    assert len(table) == 2 * 7 and table.meta["method"] == "smooth"
    for name in ("share", "chance", "filter"):
        assert np.all((table[name] >= 0.0) & (table[name] <= 1.0))
    printed = capsys.readouterr().out
    assert all(name in printed for name in NINE_LABELS.names[2:])
    maps = sorted(tmp_path.glob("star_*_saliency.npz"))
    assert len(maps) == 2 == len(list(tmp_path.glob("star_*_saliency.png")))
    with np.load(maps[0]) as stored:
        assert stored["mean"].shape == stored["width"].shape == (9, len(stored["wavelength"]))
        assert tuple(stored["labels"]) == NINE_LABELS.names and np.any(stored["mean"] != 0.0)
    assert (tmp_path / "population.png").stat().st_size > 20_000
    assert (tmp_path / "population_width.png").exists()


def test_unknown_method_is_named(trained, tmp_path):
    cfg = configured("explain", *TOY, "method=lime", f"checkpoint='{trained[1]}'", f"output='{tmp_path}'")
    with pytest.raises(InputError, match="gradient, smooth, integrated"):
        explain.run(cfg, tmp_path)


def test_stars_that_cannot_be_used_are_named_and_the_others_go_on(trained, tmp_path, capsys, monkeypatch):
    """Two stars, of which the first has no pixels."""
    stars = commands.stars

    def blind(*arguments):
        names, flux, ivar, refused = stars(*arguments)
        return names, flux, np.where(np.arange(len(ivar))[:, None] == 0, 0.0, ivar), refused

    monkeypatch.setattr(commands, "stars", blind)
    cfg = configured("explain", *TOY, f"checkpoint='{trained[1]}'", f"output='{tmp_path}'")
    table = explain.run(cfg, tmp_path)
    assert len(set(table["source"])) == 1 and len(list(tmp_path.glob("star_*_saliency.png"))) == 1
    assert "refused: star_1" in capsys.readouterr().out
    cfg.n_stars = 1
    with pytest.raises(InputError, match="no star"):
        explain.run(cfg, tmp_path)
