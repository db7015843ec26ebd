"""Spectra for a table of labels: layout, checks of the rows, noise, and a kill in the middle."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from astropy.table import Table

from experiments import bound, synthesize
from experiments.common import ROOT
from jaxspec.errors import InputError
from jaxspec.labels import NINE_LABELS
from tests.experiments.conftest import configured

SUN = {"teff": 5772.0, "logg": 4.44, **dict.fromkeys(NINE_LABELS.names[2:], 0.0)}
TOY = ["engine=emulator", "instrument=toy", "forward=tests.experiments.toys.forward", "progress=false"]


def table(path, rows):
    Table(rows=[{**SUN, **row} for row in rows]).write(path, overwrite=True)
    return path


def settings(labels, output, *more):
    return configured("synthesize", f"labels='{labels}'", f"output='{output}'", *more)


@pytest.mark.parametrize("suffix", [".csv", ".ecsv", ".fits"])
def test_store_has_the_promised_layout(tmp_path, suffix):
    rows = [{"snr": 50.0, "vsini": 3.0}, {"teff": 5000.0, "snr": np.nan, "vsini": 12.0}]
    labels = table(tmp_path / f"stars{suffix}", rows)
    synthesize.run(settings(labels, tmp_path / "out.h5", *TOY), tmp_path)
    with h5py.File(tmp_path / "out.h5") as file:
        n_pixels = len(file["wavelength"])
        assert file["flux"].shape == file["ivar"].shape == (2, n_pixels)
        assert set(file["labels"]) == set(NINE_LABELS.names)
        np.testing.assert_allclose(file["labels/teff"][:], [5772.0, 5000.0])
        np.testing.assert_allclose(file["columns/vsini"][:], [3.0, 12.0])
        np.testing.assert_allclose(file["ivar"][:, 0], [50.0**2, 1e8])


def test_noise_is_as_asked_for_and_belongs_to_the_row(tmp_path):
    noisy = table(tmp_path / "noisy.csv", [{"snr": 40.0}, {"snr": 40.0}])
    clean = table(tmp_path / "clean.csv", [{}])
    for path in (noisy, clean):
        synthesize.run(settings(path, path.with_suffix(".h5"), *TOY), tmp_path)
    with h5py.File(tmp_path / "noisy.h5") as a, h5py.File(tmp_path / "clean.h5") as b:
        noise = (a["flux"][:] - b["flux"][0]) * 40.0
    # 1,100 pixels: the standard deviation is known to 2 %.
    assert noise.std(axis=1) == pytest.approx([1.0, 1.0], abs=0.1)
    assert abs(np.corrcoef(noise)[0, 1]) < 0.12


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"teff": 9000.0}, "column teff row 1"),
        ({"logg": -1.0}, "column logg row 1"),
        ({"logg": 5.1}, "column logg row 1.*model atmospheres"),
        ({"fe_h": -1.5}, r"column al_h row 1.*\[X/H\], not \[X/Fe\]"),
        ({"vmic": -2.0}, "column vmic row 1"),
        ({"vsini": 900.0}, "column vsini row 1"),
        ({"snr": 0.0}, "column snr row 1"),
    ],
)
def test_rows_out_of_range_are_named(tmp_path, row, named):
    labels = table(tmp_path / "stars.csv", [{**dict.fromkeys(row, np.nan), **SUN}, row])
    if next(iter(row)) in ("vmic", "vsini", "snr"):
        labels = table(tmp_path / "stars.csv", [{next(iter(row)): 1.0}, row])
    with pytest.raises(InputError, match=named):
        synthesize.run(settings(labels, tmp_path / "out.h5", *TOY), tmp_path)
    assert not (tmp_path / "out.h5").exists()


def test_missing_column_is_named(tmp_path):
    Table({"teff": [5772.0]}).write(tmp_path / "stars.csv")
    with pytest.raises(InputError, match="logg"):
        synthesize.run(settings(tmp_path / "stars.csv", tmp_path / "out.h5", *TOY), tmp_path)


@pytest.mark.slow
def test_native_spectra_are_the_synthesis_itself(tmp_path):
    labels = table(
        tmp_path / "stars.csv", [{}, {"fe_h": -0.5, "vmic": 2.0, **{n: -0.5 for n in NINE_LABELS.names[3:]}}]
    )
    window = "windows=[[5369.0, 5373.0]]"
    cfg = settings(labels, tmp_path / "out.h5", "instrument=native", window, "step=0.01", "progress=false")
    synthesize.run(cfg, tmp_path)
    with h5py.File(tmp_path / "out.h5") as file:
        wavelength, flux = file["wavelength"][:], file["flux"][:]
        np.testing.assert_allclose(file["columns/vmic"][1], 2.0)
    np.testing.assert_allclose(np.diff(wavelength), 0.01, rtol=1e-6)
    # Fe I 5371.49 A is the strongest line here, and the metal-poor star has less of everything.
    assert abs(wavelength[np.argmin(flux[0])] - 5371.49) < 0.02
    assert 0.0 < flux[0].min() < 0.25 and flux.max() <= 1.0 + 1e-5
    assert (1 - flux[1]).sum() < (1 - flux[0]).sum()


# Three lines of Ca I and Fe I about 6103 A, in Turbospectrum's format (Gaia-ESO v6).
RED_LINES = """'  20.000            '    1         1
'Ca I    LTE'
  6102.723  1.879 -0.793 2042.250    3.0  9.60E+07 'p' 's'   0.0    1.0 'Ca I'
'  26.000            '    1         2
'Fe I    LTE'
  6102.171  4.835 -0.516 1034.285    7.0  2.61E+08 'p' 'd'   0.0    1.0 'Fe I'
  6103.186  4.835 -0.771 1034.285    5.0  2.63E+08 'p' 'd'   0.0    1.0 'Fe I'
"""
RED = "arms: [{name: red, low: 6101.0, high: 6104.5, step: 0.05, resolving_power: 20000}]"


@pytest.fixture
def red(tmp_path):
    """The file of an instrument far from every emulator, and lines there."""
    (tmp_path / "my_red.yaml").write_text(RED)
    (tmp_path / "red_lines.txt").write_text(RED_LINES)
    return [f"instrument='{tmp_path}/my_red.yaml'"], [f"lines='{tmp_path}/red_lines.txt'"]


def test_another_window_needs_lines_and_no_emulator(tmp_path, red):
    """An own instrument at 6101-6104.5 A: spectra have the lines where they are."""
    instrument, lines = red
    labels = table(tmp_path / "stars.csv", [{"source": "Sun"}])
    with pytest.raises(InputError, match=r"engine=synthesis lines=FILE"):
        synthesize.run(settings(labels, tmp_path / "a.h5", *instrument), tmp_path)
    synthesize.run(settings(labels, tmp_path / "b.h5", *instrument, *lines, "progress=false"), tmp_path)
    with h5py.File(tmp_path / "b.h5") as file:
        wavelength, flux = file["wavelength"][:], file["flux"][0]
    assert len(wavelength) == 70
    for line in (6102.171, 6102.723):  # the third is in the wing of calcium
        near = np.abs(wavelength - line) < 0.11
        assert flux[near].min() < 0.85 and abs(wavelength[near][flux[near].argmin()] - line) < 0.06
    assert flux[wavelength > 6104.0].min() > 0.97


@pytest.mark.slow
def test_the_bound_of_another_window_needs_no_emulator(tmp_path, red):
    instrument, lines = red
    labels = table(tmp_path / "stars.csv", [{"source": "Sun"}])
    found = bound.run(
        configured("bound", f"labels='{labels}'", *instrument, *lines, "free=[ca_h,fe_h]", "unknown=nothing"),
        tmp_path / "bound",
    )
    assert found.meta["engine"] == "synthesis" and 0.001 < found["ca_h"][0] < 0.1
    checksums = json.loads((tmp_path / "bound" / "provenance.json").read_text())["checksums"]
    assert {Path(name).name for name in checksums} == {"stars.csv", "red_lines.txt", "my_red.yaml"}


def test_shipped_lines_are_not_taken_for_another_window(tmp_path, red):
    """They would leave it without any line, and the bound without any information."""
    instrument, lines = red
    labels = table(tmp_path / "stars.csv", [{}])
    for more in (["engine=synthesis"], [*lines, "engine=emulator"]):
        with pytest.raises(InputError, match=r"lines=FILE|engine=synthesis"):
            bound.run(configured("bound", f"labels='{labels}'", *instrument, *more), tmp_path)
    with pytest.raises(InputError, match=r"window 6100-6101 A.*lines=FILE"):
        native = ["instrument=native", "windows=[[6100.0,6101.0]]"]
        synthesize.run(settings(labels, tmp_path / "n.h5", *native), tmp_path)


def test_kill_in_the_middle_changes_nothing(tmp_path):
    rng = np.random.default_rng(1)
    labels = table(tmp_path / "stars.csv", [{"teff": t, "snr": 30.0} for t in rng.uniform(4500, 6500, 400)])
    killed, unbroken = tmp_path / "killed.h5", tmp_path / "unbroken.h5"
    command = [sys.executable, "-m", "experiments.synthesize", f"labels={labels}", f"output={killed}", *TOY]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None and not killed.exists():
        time.sleep(0.01)
    time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    with h5py.File(killed, locking=False) as file:
        assert file["n_written"][0] < 400
    for output in (killed, unbroken):
        synthesize.run(settings(labels, output, *TOY), tmp_path)
    with h5py.File(killed) as a, h5py.File(unbroken) as b:
        for name in ("flux", "ivar", "checksum", "labels/teff"):
            np.testing.assert_array_equal(a[name][:], b[name][:])


def test_store_of_other_settings_is_not_gone_on_with(tmp_path):
    labels = table(tmp_path / "stars.csv", [{}])
    synthesize.run(settings(labels, tmp_path / "out.h5", *TOY), tmp_path)
    with pytest.raises(InputError, match="provenance"):
        synthesize.run(settings(labels, tmp_path / "out.h5", *TOY, "seed=2"), tmp_path)
