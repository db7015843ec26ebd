"""Departure coefficients against LTE, against the formulae written out, and against a stronger line."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import constants

from jaxspec.errors import InputError
from jaxspec.physics.departures import ElementDepartures, LineDepartures, departures_of, with_departures
from jaxspec.physics.lines import LineList, line_strengths
from jaxspec.physics.model import StellarModel
from jaxspec.physics.synthesis import Window, optical_depth_5000, synthesize
from tests.physics.test_lines import one_line

VMIC = jnp.float32(1.0)
WINDOW = Window(5526.0, 5531.0, 0.02)
MAGNESIUM = 5528.405  # A, from 4.346 to 6.588 eV


@pytest.fixture(scope="module")
def lines():
    """Mg I 5528 and an iron line."""
    return one_line(
        [MAGNESIUM, 5529.5], element=np.array([12, 26]), energy=[4.346, 3.6], log_gf=[-0.5, -2.0], reach=2.0
    )


@pytest.fixture(scope="module")
def flux(atoms, sun, lines):
    """Surface flux with coefficients of the magnesium line's levels, or without any."""

    @jax.jit
    def with_coefficients(lower, upper, log_gf):
        chosen = eqx.tree_at(lambda x: x.log_gf, lines, log_gf)
        return synthesize(atoms, chosen, WINDOW, *sun, VMIC, LineDepartures(np.array([0]), lower, upper))

    @jax.jit
    def lte(log_gf):
        return synthesize(atoms, eqx.tree_at(lambda x: x.log_gf, lines, log_gf), WINDOW, *sun, VMIC)

    def call(lower=None, upper=None, log_gf=lines.log_gf):
        log_gf = jnp.asarray(log_gf)
        if lower is None:
            return np.asarray(lte(log_gf).flux)
        return np.asarray(with_coefficients(*(jnp.full((1, 72), b, jnp.float32) for b in (lower, upper)),
                                            log_gf).flux)  # fmt: skip

    return call


def test_coefficients_of_one_are_lte(flux):
    """To rounding: compilers contract the additional product differently."""
    np.testing.assert_allclose(flux(1.0, 1.0), flux(), rtol=4 * np.finfo(np.float32).eps)


def test_equal_coefficients_are_another_abundance(flux, lines):
    """b_l = b_u: the source function stays Planck's and the opacity grows by b, as with a larger gf."""
    changed = lines.log_gf + np.array([np.log10(0.6), 0.0], np.float32)
    np.testing.assert_allclose(flux(0.6, 0.6), flux(log_gf=changed), rtol=2e-5)
    assert np.abs(flux(0.6, 0.6) / flux() - 1).max() > 0.01


def test_an_underpopulated_upper_level_makes_the_line_darker(flux):
    """S is about b_u / b_l B: the core changes in proportion, the iron line beside it does not."""
    lte, dark = flux(), flux(1.0, 0.5)
    core, iron = (np.argmin(np.abs(WINDOW.wavelength - w)) for w in (MAGNESIUM, 5529.5))
    assert dark[core] / lte[core] == pytest.approx(0.5, abs=0.03)
    assert dark[iron] / lte[iron] > 0.97


def test_opacity_and_source_function_as_in_the_textbook(atoms, sun, lines):
    """Mihalas (1978), eqs. 4-13 and 4-14, in float64 on the host."""
    atmosphere, state = sun
    t = np.asarray(atmosphere.temperature, float)
    rng = np.random.default_rng(1)
    lower, upper = rng.uniform(0.3, 2.0, (2, 1, 72))
    strengths = line_strengths(lines, atoms, atmosphere.temperature, state, VMIC)
    changed, excess = with_departures(
        strengths,
        lines,
        LineDepartures(np.array([0]), *(jnp.asarray(b, jnp.float32) for b in (lower, upper))),
        atmosphere.temperature,
    )
    nu = constants.c / (MAGNESIUM * 1e-10)
    x = constants.h * nu / (constants.k * t)
    expected = lower[0] * (1 - upper[0] / lower[0] * np.exp(-x)) / (1 - np.exp(-x))
    lte = np.asarray(strengths.opacity, float)
    np.testing.assert_allclose(changed.opacity[0], lte[0] * expected, rtol=2e-5)
    np.testing.assert_array_equal(changed.opacity[1], strengths.opacity[1])
    source_over_planck = np.expm1(x) / (lower[0] / upper[0] * np.exp(x) - 1)
    ours = 1 + np.asarray(excess.opacity[0], float) / np.asarray(changed.opacity[0], float)
    np.testing.assert_allclose(ours, source_over_planck, rtol=2e-4)


def made_up_table(**changes) -> ElementDepartures:
    columns = {
        "element": 12, "stage": np.array([0, 0, 0, 1]), "energy": np.array([0.0, 4.346, 6.588, 4.346]),
        "log_tau": np.array([-4.0, -2.0, 0.0]),
        "coefficients": jnp.array([[1.0] * 3, [0.5, 0.8, 1.0], [0.25, 0.6, 1.0], [9.0] * 3]), **changes,
    }  # fmt: skip
    return ElementDepartures(**columns)


def test_levels_are_found_by_ion_and_energy(lines):
    found = departures_of(lines, (made_up_table(),), jnp.array([-5.0, -3.0, 0.0, 1.0]))
    np.testing.assert_array_equal(found.line, [0])
    np.testing.assert_allclose(found.lower[0], [0.5, np.sqrt(0.4), 1.0, 1.0], rtol=1e-5)
    np.testing.assert_allclose(found.upper[0], [0.25, np.sqrt(0.15), 1.0, 1.0], rtol=1e-5)
    assert departures_of(lines, (made_up_table(element=20),), jnp.zeros(4)) is None


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"log_tau": np.array([-4.0, 0.0, -2.0])}, "does not increase"), ({"energy": np.zeros(3)}, "shape")],
)
def test_malformed_tables_are_refused(changes, named):
    with pytest.raises(InputError, match=named):
        made_up_table(**changes)


def test_an_element_twice_is_refused(lines):
    with pytest.raises(InputError, match="each element once"):
        departures_of(lines, (made_up_table(), made_up_table()), jnp.zeros(4))


def test_every_model_says_what_it_is(lines):
    assert StellarModel.create((WINDOW,)).approximation == "LTE"
    assert StellarModel.create((WINDOW,), departures=(made_up_table(),)).approximation == "NLTE (Mg)"


def test_magnesium_of_the_shipped_list_is_found(sun):
    """And the depth scale it needs: empirical models of the Sun have T = Teff where tau is about 0.4."""
    atmosphere, state = sun
    tau = np.asarray(jax.jit(optical_depth_5000)(atmosphere, state))
    assert 0.3 < np.interp(5777.0, np.asarray(atmosphere.temperature), tau) < 0.55
    shipped = LineList.load(5526.0, 5531.0)
    found = departures_of(shipped, (made_up_table(),), jnp.log10(jnp.asarray(tau)))
    np.testing.assert_allclose(shipped.wavelength[found.line], MAGNESIUM, atol=0.01)
    assert len(found.line) >= 1 and np.all(shipped.element[found.line] == 11)
