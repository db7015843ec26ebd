"""The comparison with another code, on a code that is ours with known faults."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import accuracy
from jaxspec.physics.model import StellarModel
from jaxspec.physics.synthesis import Window

WINDOWS = {"red": Window(8514.0, 8516.0, 0.02)}
NAMES = ("teff", "logg", "fe_h", "al_h", "mg_h", "ca_h", "ni_h", "ti_h", "si_h")
SUN = (5777.0, 4.44, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
OFFSET, DIMMER, STEEPER = 0.004, 1.02, 2.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files of a code that agrees with ours but for an offset, a dimmer continuum and twice the slope."""
    folder = tmp_path_factory.mktemp("reference")
    labels, vmic = jnp.asarray(SUN, jnp.float32), jnp.float32(1.0)
    stars = {"labels": np.array([SUN]), "vmic": np.array([1.0])}
    table = {"star": [], "parameter": [], "sign": [], "step": [], "labels": [], "vmic": []}
    for name in ("base", *NAMES, "vmic"):
        for sign in (0,) if name == "base" else (1, -1):
            step = {"teff": 20.0}.get(name, 0.02)
            row = {"star": "sun", "parameter": name, "sign": sign, "step": step, "labels": SUN, "vmic": 1.0}
            for key, value in row.items():
                table[key].append(value)
    for arm, window in WINDOWS.items():
        model = StellarModel.create((window,), interpolation="linear")
        slopes_at = jax.jit(lambda x, m=model: jax.jacfwd(lambda x: m(x[:-1], x[-1]))(x))
        surface = jax.jit(lambda m=model: m.surface_flux(labels, vmic))()
        flux = np.asarray(surface.flux / surface.continuum, float)
        stars[f"wavelength_{arm}"] = stars[f"continuum_wavelength_{arm}"] = window.wavelength
        stars[f"flux_{arm}"] = flux[None] + OFFSET
        stars[f"continuum_{arm}"] = np.asarray(surface.continuum)[None] / DIMMER
        changed = []
        for name, sign, step in zip(table["parameter"], table["sign"], table["step"], strict=True):
            j, at = [*NAMES, "vmic", "base"].index(name), np.append(SUN, 1.0)
            if name == "fe_h":  # a node: each side has its own slope
                at[j] += 0.5 * sign * step
            slopes = np.asarray(slopes_at(jnp.asarray(at, jnp.float32)))
            changed.append(flux + (0.0 if name == "base" else STEEPER * sign * step * slopes[:, j]))
        table[f"wavelength_{arm}"] = window.wavelength
        table[f"flux_{arm}"] = np.stack(changed)
    structure = model.grid(*labels[:3])
    stars["atm"] = np.stack([structure.column_mass, structure.temperature, structure.pressure], axis=1)[None]
    np.savez(folder / "stars.npz", **stars)
    np.savez(folder / "derivatives.npz", label_names=np.array(NAMES), **table)
    return folder


@pytest.mark.slow
def test_known_faults_are_found(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(accuracy, "ARMS", {arm: accuracy.ARMS[arm] for arm in WINDOWS})
    report = accuracy.main([str(folder), "--every", "1", "--output", str(tmp_path / "accuracy.json")])
    assert [(row["arm"], row["atmosphere"]) for row in report["flux"]] == [
        ("red", name) for name in ("theirs", "cubic", "linear")
    ]
    for row in report["flux"]:
        within = 0.1 if row["atmosphere"] == "cubic" else 0.02  # the other code here interpolates linearly
        assert row["rms"] == pytest.approx(OFFSET, rel=within)
        assert row["rms_giraffe"] == pytest.approx(OFFSET, rel=within)
        assert row["continuum"] == pytest.approx(DIMMER - 1.0, rel=within)
    # [M/H] = 0 is a node of the atmospheres, where the two sides are compared one by one.
    sides = [
        name
        for label in (*NAMES, "vmic")
        for name in ((f"{label}+", f"{label}-") if label == "fe_h" else (label,))
    ]
    assert [row["parameter"] for row in report["derivatives"]] == sides
    for row in report["derivatives"]:
        assert row["correlation"] > 0.999, row
        assert row["ratio"] == pytest.approx(1.0 / STEEPER, rel=0.01), row
    assert json.loads((tmp_path / "accuracy.json").read_text())["flux"] == report["flux"]
    assert "red, atmospheres cubic" in capsys.readouterr().out
