"""Differences planted in spectra come out of the shipped flow as the offsets that a fit finds: one small
sky."""

import json

import numpy as np
import pytest
from astropy.table import Table

from experiments import calibrate
from tests.experiments.conftest import configured

SMALL = (
    "spectra.n_skies=1",
    "spectra.n_stars=64",
    "spectra.n_reference=128",
    "spectra.n_draws=100",
    "spectra.anchors=0.3",
    "+model.components=1",
    "+model.trend=linear",
    "draws=300",
)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spectra")
    cfg = configured("calibrate", "surveys=spectra", f"output='{folder}'", *SMALL)
    calibrate.run(cfg, folder)
    return folder


def test_offsets_of_spectra_are_found(results):
    table = Table.read(results / "recovery.ecsv")
    error = np.hypot(table["error"], table["planted_error"])
    z = (table["inferred"] - table["planted"]) / error
    assert len(z) == 2 * 4 * 9 and np.abs(z).max() < 4.5 and np.sqrt(np.mean(z**2)) < 1.8
    # What is planted matters: in dwarfs many times its error; without it the flow is right.
    dwarf = table["star"] == "dwarf"
    planted, nominal = (table[dwarf & (table["survey"] == name)] for name in ("planted", "nominal"))
    shift = np.abs(planted["inferred"] - nominal["inferred"]) / planted["error"]
    assert (shift > 4).sum() >= 2
    assert np.abs(nominal["planted"][0]) < 15.0 and np.abs(nominal["planted"][2]) < 0.02


def test_metrics_say_how_well(results):
    metrics = json.loads((results / "metrics.json").read_text())
    assert np.shape(metrics["z"]) == (1, 2, 4, 9) and 0.7 <= metrics["coverage_90"] <= 1.0
    assert set(metrics["by_star"]) == {"dwarf", "poor dwarf", "subgiant", "giant"}
    assert all(0.2 < x < 2.5 for x in metrics["reference"]["nominal"]["label_chi2"].values())
