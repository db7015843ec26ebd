from importlib import resources

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.physics.atmosphere import AtmosphereGrid, _cubic_weights
from jaxspec.physics.model import StellarModel
from jaxspec.physics.synthesis import Window


@pytest.fixture(scope="module")
def grid():
    return AtmosphereGrid.load("linear")


@pytest.fixture(scope="module")
def table():
    with resources.as_file(resources.files("jaxspec.physics.data") / "atlas9.npz") as path:
        return dict(np.load(path))


def at(grid, teff, logg, m_h):
    atmosphere = grid(jnp.float32(teff), jnp.float32(logg), jnp.float32(m_h))
    return np.log10(np.stack([atmosphere.column_mass, atmosphere.temperature, atmosphere.pressure], axis=-1))


def published(table, *node):
    """log10 of the structure of one node, [alpha, layers, 4]."""
    index = [
        int(np.flatnonzero(table[k] == v)[0]) for k, v in zip(("teff", "logg", "m_h"), node, strict=True)
    ]
    return table["log_structure"][tuple(index)]


@pytest.mark.parametrize(
    ("teff", "logg", "m_h", "alpha"),
    [(5750.0, 4.5, 0.0, 0), (4000.0, 0.5, -1.0, 1), (7000.0, 4.0, -2.5, 1), (4500.0, 2.0, 0.5, 0)],
)
def test_nodes_return_the_published_models(teff, logg, m_h, alpha, grid, table):
    """With the alpha enhancement that goes with the metallicity: 0.4 up to [M/H] = -1, none from 0."""
    node = tuple(
        int(np.flatnonzero(table[k] == v)[0]) for k, v in (("teff", teff), ("logg", logg), ("m_h", m_h))
    )
    expected = table["log_structure"][node + (alpha,)][:, :3]
    np.testing.assert_allclose(at(grid, teff, logg, m_h), expected, atol=3e-6)


def test_half_the_enhancement_at_half_a_dex_below_the_sun(grid, table):
    node = tuple(
        int(np.flatnonzero(table[k] == v)[0]) for k, v in (("teff", 5500), ("logg", 4.0), ("m_h", -0.5))
    )
    expected = table["log_structure"][node].mean(axis=0)[:, :3]
    np.testing.assert_allclose(at(grid, 5500, 4.0, -0.5), expected, atol=3e-6)


def test_between_nodes_it_is_linear_in_the_logarithms(grid):
    corners = [at(grid, t, g, m) for t in (5500, 5750) for g in (4.0, 4.5) for m in (-1.0, -0.5)]
    np.testing.assert_allclose(at(grid, 5625, 4.25, -0.75), np.mean(corners, axis=0), atol=5e-6)


def test_hydrostatic_equilibrium(grid):
    """Gas pressure is gravity times column mass where radiation and turbulence carry little: a dwarf's deep
    layers."""
    atmosphere = grid(jnp.float32(5777), jnp.float32(4.44), jnp.float32(0.0))
    deep = slice(30, 60)
    np.testing.assert_allclose(atmosphere.pressure[deep], 10**4.44 * atmosphere.column_mass[deep], rtol=0.02)


def test_effective_temperature_is_met_near_two_thirds(grid):
    """Layers lie at fixed Rosseland depth, log tau = -6.875 + k / 8; T(2/3) is Teff in gray gas
    (Eddington); lines block the flux and warm these layers by a few per cent, most in cool giants."""
    k = (np.log10(2 / 3) + 6.875) / 0.125
    for teff, logg in ((4000, 1.0), (5777, 4.44), (6500, 4.0)):
        temperature = grid(jnp.float32(teff), jnp.float32(logg), jnp.float32(0.0)).temperature
        assert 1.0 < np.interp(k, np.arange(72), temperature) / teff < 1.08


def test_outside_the_edge_is_held_and_said(grid):
    np.testing.assert_array_equal(at(grid, 9000, 4.0, 0.0), at(grid, 7500, 4.0, 0.0))
    teff = jnp.array([5777.0, 9000.0, 5777.0, 5777.0, 3500.0])
    logg = jnp.array([4.4, 4.0, 5.5, 4.0, 0.0])
    m_h = jnp.array([0.0, 0.0, 0.0, -3.0, 0.5])
    np.testing.assert_array_equal(grid.inside(teff, logg, m_h), [True, False, False, False, True])


def test_agrees_with_the_reference_codes_interpolation(grid, reference):
    """The same tables and rule, programmed by others: T within 0.1 %, pressure and column mass within 0.5
    %."""
    for i in range(0, len(reference["labels"]), 12):
        ours = grid(*(jnp.float32(x) for x in reference["labels"][i, :3]))
        theirs = reference["atm"][i]
        np.testing.assert_allclose(ours.temperature, theirs[:, 1], rtol=1e-3)
        np.testing.assert_allclose(ours.pressure, theirs[:, 2], rtol=5e-3)
        np.testing.assert_allclose(ours.column_mass, theirs[:, 0], rtol=5e-3)


@pytest.fixture(scope="module")
def cubic():
    return AtmosphereGrid.load("cubic")


def test_cubic_is_the_default():
    assert AtmosphereGrid.load().interpolation == "cubic"
    assert StellarModel.create((Window(5400.0, 5401.0, 0.1),)).grid.interpolation == "cubic"
    with pytest.raises(InputError, match="interpolation: found 'nearest'; expected linear or cubic"):
        AtmosphereGrid.load("nearest")


@pytest.mark.parametrize("node", [(5750.0, 4.5, 0.0), (3500.0, 0.0, -2.5), (7500.0, 5.0, 0.5), (4000, 5, -1)])
def test_cubic_returns_the_nodes(node, grid, cubic):
    np.testing.assert_allclose(at(cubic, *node), at(grid, *node), atol=3e-6)


def test_cubic_is_exact_for_parabolas():
    """Also in the cells at the ends."""
    nodes = np.arange(-2.5, 0.51, 0.5)
    for x in (-2.4, -1.9, -1.0, 0.1, 0.5):
        weights = np.asarray(_cubic_weights(jnp.float32(x), nodes))
        for power in (0, 1, 2):
            assert weights @ nodes**power == pytest.approx(x**power, abs=2e-6)


@pytest.mark.parametrize("dimension", range(3))
def test_cubic_has_continuous_derivatives_across_nodes(dimension, cubic, grid, x64):
    """Linear interpolation has none: its slopes jump by several per cent or more at the same node."""
    node = jnp.array([5750.0, 4.0, -0.5])
    step = jnp.zeros(3).at[dimension].set(1e-6 * (250.0, 0.5, 0.5)[dimension])

    def jump(grid):
        double = eqx.tree_at(lambda g: g.log_structure, grid, grid.log_structure.astype(jnp.float64))
        slope = jax.jacfwd(lambda x: jnp.log10(double(*x).temperature))
        below, above = (slope(node + sign * step)[:, dimension] for sign in (-1, 1))
        return float(jnp.max(jnp.abs(above - below)) / jnp.max(jnp.abs(above)))

    assert jump(cubic) < 1e-3
    assert jump(grid) > 0.03


def test_cubic_holds_the_edge_outside(cubic):
    np.testing.assert_array_equal(at(cubic, 9000, 4.0, 0.0), at(cubic, 7500, 4.0, 0.0))


def test_column_mass_grows_where_the_spline_overshoots(cubic):
    """At this place the cubic of the column mass itself has a layer above its neighbour."""
    overshooting = jnp.float32(5921.9863), jnp.float32(1.1180537), jnp.float32(-2.4640234)
    assert np.diff(np.asarray(cubic(*overshooting).column_mass)).min() > 0
