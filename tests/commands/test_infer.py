"""What `jaxspec infer` writes beside the numbers: safe names, fresh folders, and refusals before the work."""

import io
import json
import sys

import numpy as np
import pytest

from jaxspec.commands.infer import (
    FAR_BELOW,
    SYSTEMATIC,
    Plots,
    Settings,
    _has_systematic,
    _plots,
    clear_plots,
    file_names,
    run,
    show,
)
from jaxspec.diagnostics.plots import plain_text
from jaxspec.errors import InputError
from jaxspec.io import Assume, read_spectra
from jaxspec.runs import check_folder
from tests.toy import TOY_INSTRUMENT


def test_names_of_plots_are_plain_and_differ():
    names = [
        "a/star.fits",
        "b/star.fits",
        "étoile.txt",
        "_toile.txt",
        "STAR.fits",
        "x" * 400,
        "old\udce9.txt",
    ]
    parts = file_names(names)
    assert len({part.lower() for part in parts}) == len(names) and all(part.isascii() for part in parts)
    assert parts[:2] == ("star.fits", "star.fits_2") and max(map(len, parts)) < 150


def test_an_earlier_runs_plots_go_and_other_files_stay(tmp_path):
    sources, config = ["a.txt", "b.txt"], Plots(spectra=5, corners=1)
    mine = _plots(config, file_names(sources), "")
    assert mine == ["spectrum_a.txt.png", "spectrum_b.txt.png", "corner_a.txt.png"]
    others = ["spectrum_mine.png", "notes.txt", "simulated_spectrum_a.txt.png"]
    for record in ({"plots": mine}, {}):  # the second: of a version that did not record them
        for name in (*mine, *others):
            (tmp_path / name).write_text("")
        rows = [{"source": name} for name in sources]
        (tmp_path / "metrics.json").write_text(json.dumps({"spectra": rows, **record}))
        clear_plots(tmp_path)
        assert sorted(p.name for p in tmp_path.glob("*.*") if p.name != "metrics.json") == sorted(others)
    (tmp_path / "metrics.json").write_text(
        json.dumps({"spectra": [], "plots": ["../notes.txt", "notes.txt"]})
    )
    clear_plots(tmp_path)
    assert (tmp_path / "notes.txt").exists()


def test_an_output_that_cannot_be_written_is_refused_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"output .*file: found a file"):
        run(Settings(str(tmp_path / "star.txt")), tmp_path / "file")
    with pytest.raises(InputError, match="output"):
        check_folder(tmp_path / "file" / "deeper")
    monkeypatch.setattr(
        "tempfile.TemporaryFile", lambda dir: (_ for _ in ()).throw(PermissionError(13, "no"))
    )
    with pytest.raises(InputError, match="cannot be written to"):
        check_folder(tmp_path / "new")


def test_refined_corners_say_how_they_were_widened():
    """The robust refinement adds systematic errors label by label; weighted and plain draws have none."""

    assert _has_systematic({"refined": np.array([1.0, 0.0])}, 0)
    assert not _has_systematic({"refined": np.array([1.0, 0.0])}, 1)
    assert not _has_systematic({"refined": np.ones(1), "efficiency": np.ones(1)}, 0)
    assert not _has_systematic({"novelty": np.ones(1)}, 0) and "correlations" in SYSTEMATIC


def test_a_resolving_power_far_below_is_told_by_name(tmp_path, caplog):
    """LAMOST's 1,800 where the arm has 21,500: in the log by the file's name, and in the notes of the row."""
    arm = TOY_INSTRUMENT.arms[0]
    path = tmp_path / "star.txt"
    flux = 1.0 + 0.01 * np.sin(np.arange(arm.n_pixels))
    np.savetxt(path, np.column_stack([arm.wavelength, flux, np.full(arm.n_pixels, 0.01)]))
    how = {"velocity": 0.0, "assume": Assume(medium="air", frame="barycentric")}
    spectra, _ = read_spectra([path], TOY_INSTRUMENT, resolving_power=1800.0, **how)
    (note,) = [note for note in spectra.meta[0]["notes"] if FAR_BELOW in note]
    assert "1800 is far below arm blue's 21500" in note and "17200 and more" in note
    assert f"{path}: {note}" in caplog.text
    spectra, _ = read_spectra([path], TOY_INSTRUMENT, resolving_power=19_000.0, **how)
    assert not any(FAR_BELOW in note for note in spectra.meta[0]["notes"])


def test_any_name_can_be_shown(monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    show("étoile \udce9")
    terminal.seek(0)
    assert terminal.read().strip() == r"\xe9toile \udce9"
    assert plain_text("$a^2$ \udce9") == r"\$a^2\$ ?"
    assert np.all([c.isprintable() for c in plain_text("a\nb")])
