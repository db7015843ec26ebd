"""The benchmark of the grid's interpolation, on a grid whose errors are known."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import interpolation
from jaxspec.physics.atmosphere import AtmosphereGrid


@pytest.fixture
def made_up(monkeypatch):
    """log10 of every quantity is 3 plus a parabola in each dimension's rank, 0.001, 0.002 and 0.003 steep."""
    teff, logg, m_h = np.arange(3500.0, 7501.0, 250.0), np.arange(0.0, 5.01, 0.5), np.arange(-2.5, 0.51, 0.5)
    i, j, k = np.ogrid[: len(teff), : len(logg), : len(m_h)]
    structure = 3.0 + 0.001 * i**2 + 0.002 * j**2 + 0.003 * k**2
    structure = jnp.asarray(
        np.broadcast_to(structure[..., None, None], (*structure.shape, 72, 4)), jnp.float32
    )
    monkeypatch.setattr(AtmosphereGrid, "load", lambda: AtmosphereGrid(teff, logg, m_h, structure))


def test_nodes_have_models_around_them():
    filled = np.zeros((17, 11, 7), bool)
    filled[8:] = True
    nodes = interpolation.sample_nodes(9, filled)
    assert len(nodes) == len(set(nodes)) == 9
    for node in nodes:
        assert all(2 <= i < n - 2 for i, n in zip(node, filled.shape, strict=True))
        assert node[0] + 2 < 8


def test_parabolas_are_missed_by_their_curvature_and_by_cubics_not_at_all(made_up, tmp_path, capsys):
    """In the middle between neighbours one step away, a i^2 is missed by a."""
    output = tmp_path / "interpolation.json"
    report = interpolation.main(["--nodes", "3", "--no-flux", "--output", str(output)])
    assert len(report["rows"]) == 3 * 3 * 2
    for row in report["rows"]:
        curvature = {"teff": 0.001, "logg": 0.002, "m_h": 0.003}[row["dimension"]]
        expected = curvature if row["method"] == "linear" else 0.0
        for value in row["log_pressure"].values():
            assert value == pytest.approx(expected, abs=3e-6), row
    assert json.loads(output.read_text())["rows"] == report["rows"]
    assert "m_h, cubic" in capsys.readouterr().out
