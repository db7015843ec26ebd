"""The demonstration: one call from nothing to a table of labels beside the truth."""

import json

import numpy as np
import pytest

from experiments import demo
from jaxspec.commands import demo as library
from jaxspec.io import read_table
from tests.experiments.conftest import configured
from tests.experiments.toys import TRAINING


# "dex" is the field's unit of abundances, though not one of the FITS standard.
def test_demo_ends_with_labels_beside_the_truth(tmp_path, capsys):
    cfg = configured("demo", *TRAINING, "shipped=false", "n_stars=3", "n_draws=100", "plots.spectra=1")
    demo.run(cfg, tmp_path)
    printed = capsys.readouterr().out
    assert printed.count("  truth") == 3 and "star_1_snr150" in printed
    table = read_table(tmp_path / "simulated_labels.fits")
    assert len(table) == 3 and (table["snr"][0] > table["snr"][2])
    metrics = json.loads((tmp_path / "simulated_metrics.json").read_text())
    assert metrics["truth"]["teff"]["n"] == 3
    assert {p.name for p in tmp_path.glob("*star_1*.png")} == {
        "simulated_corner_star_1_snr150.png",
        "simulated_spectrum_star_1_snr150.png",
    }


@pytest.mark.slow
def test_the_first_labels_are_the_shipped_weights(tmp_path, capsys, monkeypatch):
    """Before anything is trained, and within what the bound of such spectra allows."""

    def train(settings, folder):
        raise InterruptedError("the training comes after the labels")

    monkeypatch.setattr(library.train, "run", train)
    with pytest.raises(InterruptedError):
        demo.run(configured("demo", "n_stars=3", "plots.spectra=1"), tmp_path)
    assert capsys.readouterr().out.count("  truth") == 3
    table = read_table(tmp_path / "shipped_labels.fits")
    metrics = json.loads((tmp_path / "shipped_metrics.json").read_text())
    assert np.all(table["usable"]) and metrics["truth"]["fe_h"]["largest"] < 0.3
    assert (tmp_path / "shipped_spectrum_star_1_snr150.png").stat().st_size > 20_000
