"""`experiments.populations`: the configuration is the library's, and a small run scores what it fitted."""

import json

import numpy as np
import pytest

from experiments.common import settings
from jaxspec.commands import populations_truth
from jaxspec.errors import InputError
from jaxspec.populations.comparators import kmeans
from tests.experiments.conftest import configured

SMALL = (
    "+mock.thin=350", "+mock.thick=150", "+mock.bulge=0", "+mock.dwarf_a=120", "+mock.dwarf_b=0",
    "+mock.clusters=8", "+mock.members=10",
)  # fmt: skip


def test_defaults_are_the_librarys():
    assert settings(populations_truth.Settings, configured("populations")) == populations_truth.Settings()
    with pytest.raises(InputError, match="truth: found 'moon'"):
        settings(populations_truth.Settings, configured("populations", "truth=moon"))


def test_a_small_mock(tmp_path, capsys, monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.setattr(populations_truth, "available", lambda: {"k-means": kmeans})
    cfg = configured("populations", "methods=[two_process]", *SMALL)
    how = settings(populations_truth.Settings, cfg)
    table = populations_truth.run(how, tmp_path)
    rows = {(row["set"], row["method"]): row for row in table}
    ours = rows["mock discs", "two_process"]
    assert ours["rand"] > 0.7 and ours["rand"] > rows["mock discs", "k-means"]["rand"]
    assert rows["mock Galaxy", "two_process"]["purity dwarf_a"] > 0.8
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert found["clusters"]["error-scaled, without field"]["clusters"] == 8
    assert "Clusters" in (tmp_path / "report.html").read_text()
    assert "classes by the component" in capsys.readouterr().out
    # A second run reads what the first kept, and says the same.
    monkeypatch.setattr(populations_truth, "fit", lambda *_: pytest.fail("fitted again"))
    again = populations_truth.run(how, tmp_path)
    np.testing.assert_array_equal(again["rand"], table["rand"])
