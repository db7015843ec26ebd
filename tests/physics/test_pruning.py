"""The shipped line list leaves out lines that never matter: the full list must give the same spectra."""

import shutil

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspec.physics.atmosphere import AtmosphereGrid
from jaxspec.physics.chemistry import abundances
from jaxspec.physics.data import build
from jaxspec.physics.lines import LineList
from jaxspec.physics.synthesis import Window, chemistry_of, synthesize

LIST = "linelists/ges_linelist_v6_turbospectrum.gz"
# Teff, log g, [Fe/H], [X/Fe] of the other labels, vmic: crowded, strong-lined, and pressure-broadened.
EXTREMES = ((4000.0, 0.5, 0.5, 0.8, 1.8), (4000.0, 4.5, 0.5, 0.0, 0.8), (5000.0, 2.5, 0.5, 0.8, 1.4))


def full_list(source, folder, monkeypatch) -> LineList:
    """The list as `build.build_lines` makes it, with nothing left out, in `folder`."""
    shutil.copy(build.HERE / "atoms.npz", folder)
    monkeypatch.setattr(build, "HERE", folder)
    monkeypatch.setattr(build, "SMALLEST_RATIO", -1.0)
    build.build_lines(source)
    with np.load(folder / "lines.npz") as file:
        data = dict(file)
    return LineList(
        data["wavelength"], data["species"] // 10 - 1, data["species"] % 10, data["energy"], data["log_gf"],
        data["damping"], data["gamma_rad"], data["reach"],
    )  # fmt: skip


def rows(lines: LineList) -> list[tuple]:
    columns = (
        lines.wavelength,
        lines.element,
        lines.stage,
        lines.energy,
        np.asarray(lines.log_gf),
        lines.gamma_rad,
    )
    return list(zip(*(c.tolist() for c in columns), strict=True))


def largest_change(full: LineList, shipped: LineList, window: Window, atoms, stars=EXTREMES) -> float:
    """The largest change of any pixel's normalised flux among `stars` when only shipped lines absorb."""
    grid = AtmosphereGrid.load()
    near = full[np.flatnonzero((full.wavelength > window.low - 3) & (full.wavelength < window.high + 3))]
    known = set(rows(shipped))
    log_gf = np.asarray(near.log_gf)
    pruned = np.where([row in known for row in rows(near)], log_gf, -99.0).astype(np.float32)

    @jax.jit
    def flux(log_gf, teff, logg, fe_h, x_fe, vmic):
        atmosphere = grid(teff, logg, fe_h)
        state = chemistry_of(
            atoms, atmosphere, abundances(fe_h, {z: fe_h + x_fe for z in (12, 13, 14, 20, 22, 28)})
        )
        lines = eqx.tree_at(lambda x: x.log_gf, near, log_gf)
        surface = synthesize(atoms, lines, window, atmosphere, state, vmic)
        return surface.flux / surface.continuum

    changes = []
    for star in stars:
        all_lines, some = (flux(jnp.asarray(x), *(jnp.float32(v) for v in star)) for x in (log_gf, pruned))
        changes.append(np.abs(np.asarray(all_lines) - np.asarray(some)).max())
    return float(max(changes))


@pytest.mark.parametrize(
    "window", [Window(5365.0, 5385.0, 0.02), Window(8670.0, 8690.0, 0.02)], ids=["HR10", "HR21"]
)
def test_pruned_lines_change_no_pixel_by_a_tenth_of_a_per_cent(window, data, atoms, tmp_path, monkeypatch):
    if not (data / LIST).exists():
        pytest.skip(f"needs the full line list: {LIST} in JAXSPEC_DATA")
    shipped = LineList.load()
    full = full_list(data / LIST, tmp_path, monkeypatch)
    assert set(rows(shipped)) < set(rows(full))  # the shipped list comes from this source, and is shorter
    assert largest_change(full, shipped, window, atoms) <= 1e-3
