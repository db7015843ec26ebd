"""`jaxspec populations`: a table in, memberships, a model for other stars, and a page out."""

import json

import numpy as np
import pytest
from astropy.table import Table

import jaxspec
from jaxspec.cli import main
from jaxspec.errors import InputError
from jaxspec.io.results import read_table
from tests.populations.galaxy import LABELS, two_discs


def write(path, n, seed):
    stars, truth = two_discs(n, seed)
    table = Table({"source": [f"star {i}" for i in range(n)]})
    for j, name in enumerate(LABELS):
        table[name], table[f"e_{name}"] = stars.values[:, j], stars.errors[:, j]
    table.write(path)
    return truth


def test_fit_then_apply_to_other_stars(tmp_path):
    truth = write(tmp_path / "a.fits", 900, 3)
    out = tmp_path / "out"
    asked = ["--labels", "fe_h,mg_fe,al_fe", "--groups", "2"]
    assert main(["populations", str(tmp_path / "a.fits"), *asked, "-o", str(out), "--no-cache"]) == 0
    table = read_table(out / "members.fits")
    assert table.colnames == ["source", "group", "p_1", "e_p_1", "p_2", "e_p_2", "novelty"]
    assert ((table["group"] == 2) == (truth == 1)).mean() > 0.96
    np.testing.assert_allclose(table["p_1"] + table["p_2"], 1.0, atol=1e-5)
    page = (out / "report.html").read_text()
    assert "900 stars in 2 groups" in page and "data:image/png" in page and "http://" not in page
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["stars"] == 900 and abs(metrics["groups"][1]["median"]["mg_fe"] - 0.28) < 0.04
    importance = metrics["importance"][0]
    assert importance["mg_fe"] > 1.5 * importance["fe_h"] and "Which labels decide" in page
    # The stored model says the same of the same stars, and may be given by the run's folder.
    members, _ = jaxspec.find_populations(
        tmp_path / "a.fits", tmp_path / "again", model=str(out), plots=False
    )
    np.testing.assert_allclose(members.probability[:, 0], table["p_1"], atol=1e-6)
    other = write(tmp_path / "b.ecsv", 1, 8)
    members, _ = jaxspec.find_populations(tmp_path / "b.ecsv", tmp_path / "one", model=str(out), plots=False)
    assert members.probability.shape == (1, 2) and members.group[0] == other[0] + 1
    with pytest.raises(InputError, match="stars: found 1"):
        jaxspec.find_populations(tmp_path / "b.ecsv", tmp_path / "none")
