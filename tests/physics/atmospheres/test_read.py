"""One atmosphere of the shipped grid through every format, and into the synthesis; and what no format is."""

import gzip

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.physics.atmosphere import AtmosphereGrid
from jaxspec.physics.atmospheres import read_atmosphere
from jaxspec.physics.chemistry import abundances
from jaxspec.physics.lines import LineList
from jaxspec.physics.synthesis import Window, chemistry_of, synthesize
from tests.physics.atmospheres.published import ATLAS_DWARF, atlas_file, marcs_file, moog_file

LOG_TAU = -6.875 + 0.125 * np.arange(72)
# Layout, and the half of the last printed digit of column mass and of pressure, relative.
LAYOUTS = {
    "marcs": (5e-7, 5e-5),
    "atlas": (1e-7, 5e-4),
    "KURUCZ": (1e-7, 1e-7),
    "KURTYPE": (1e-7, 1e-7),
    "WEB2MARC": (1e-7, 5e-7),
    # From P / g; the table's pressure has four digits.
    "WEBMARCS": (1e-3, 1e-7),
    "GENERIC": (1e-3, 1e-7),
}


@pytest.fixture(scope="module")
def node():
    """Column mass, T, P and electron density of a dwarf."""
    grid = AtmosphereGrid.load()
    i, j, k = (
        int(np.flatnonzero(n == v)[0]) for n, v in ((grid.teff, 5750), (grid.logg, 4.5), (grid.m_h, 0))
    )
    return 10.0 ** np.asarray(grid.log_structure[i, j, k], float).T


def content_of(layout: str, node) -> str:
    mass, temperature, pressure, electrons = node
    rank, electron_pressure = np.arange(72), electrons * 1.380649e-16 * temperature
    if layout == "marcs":
        return marcs_file(LOG_TAU, mass, temperature, electron_pressure, pressure)
    if layout == "atlas":
        return atlas_file(mass, temperature, pressure, electrons)
    columns = {
        "KURUCZ": [mass, temperature, pressure, electrons, electrons],
        "KURTYPE": [mass, temperature, pressure, electrons],
        "WEB2MARC": [
            rank, LOG_TAU, temperature, np.log10(electron_pressure), np.log10(pressure), mass
        ],
        "WEBMARCS": [rank, LOG_TAU, LOG_TAU, rank, temperature, electron_pressure, pressure],
        "GENERIC": [LOG_TAU, temperature, pressure, electrons],
    }[layout]  # fmt: skip
    return moog_file(layout, np.stack(columns, axis=1), wavelength=layout != "KURUCZ")


@pytest.fixture(scope="module")
def normalised_flux(atoms):
    window = Window(5402.0, 5407.0, 0.02)
    lines = LineList.load(window.low - 3.0, window.high + 3.0)

    @jax.jit
    def flux(atmosphere):
        state = chemistry_of(atoms, atmosphere, abundances(jnp.float32(0.0)))
        surface = synthesize(atoms, lines, window, atmosphere, state, jnp.float32(1.0))
        return surface.flux / surface.continuum

    return flux


@pytest.fixture(scope="module")
def flux_of_the_grid(normalised_flux):
    return normalised_flux(AtmosphereGrid.load()(jnp.float32(5750), jnp.float32(4.5), jnp.float32(0)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_round_trip_into_the_synthesis(layout, node, normalised_flux, flux_of_the_grid, tmp_path):
    path = tmp_path / "model"
    path.write_text(content_of(layout, node))
    model = read_atmosphere(path, logg=4.5)
    assert model.format == (layout if layout in ("marcs", "atlas") else "moog")
    of_mass, of_pressure = LAYOUTS[layout]
    float32 = 2e-7
    np.testing.assert_allclose(model.atmosphere.column_mass, node[0], rtol=of_mass + float32)
    np.testing.assert_allclose(model.atmosphere.temperature, node[1], rtol=float32, atol=0.0501)
    np.testing.assert_allclose(model.atmosphere.pressure, node[2], rtol=of_pressure + float32)
    flux = normalised_flux(model.atmosphere)
    assert float(jnp.min(flux)) < 0.5  # there are lines in it
    np.testing.assert_allclose(flux, flux_of_the_grid, atol=1e-3)


def test_compressed_files_are_read(tmp_path):
    path = tmp_path / "model.dat.gz"
    path.write_bytes(gzip.compress(ATLAS_DWARF.encode()))
    assert read_atmosphere(path).teff == 5750.0
    path.write_bytes(gzip.compress(ATLAS_DWARF.encode())[:-20])
    with pytest.raises(InputError, match=r"model.dat.gz: found damaged gzip data .*fetch the file again"):
        read_atmosphere(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "found an empty file; expected a model atmosphere"),
        (b" \n\n", "found an empty file; expected a model atmosphere"),
        (b"5330.0 1.0 0.1\n", "line 1: found '5330.0 1.0 0.1'; expected a model atmosphere of MARCS"),
        (b"SIMPLE  =\xff", "found byte 0xff at position 9; expected plain text"),
    ],
)
def test_other_files_are_refused(content, message, tmp_path):
    path = tmp_path / "model"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_atmosphere(path)


def test_formats_are_named(tmp_path):
    path = tmp_path / "model"
    path.write_text(ATLAS_DWARF)
    with pytest.raises(InputError, match="format: found 'phoenix'; expected marcs, atlas, moog"):
        read_atmosphere(path, format="phoenix")
    with pytest.raises(InputError, match=r"no line with .*Teff"):
        read_atmosphere(path, format="marcs")
