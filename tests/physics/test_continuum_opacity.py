"""Continuous opacity against published tables and classical limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import constants

from jaxspec.physics import continuum_opacity
from jaxspec.physics.continuum_opacity import occupation_probability
from tests.physics.gas import gas

K = constants.k * 1e7
BOHR = constants.physical_constants["Bohr radius"][0] * 1e2
THOMSON = constants.physical_constants["Thomson cross section"][0] * 1e4

# Bound-free cross-section of H-, 1e-18 cm^2 (Wishart 1979, MNRAS 187, 59P), where the free-free coefficient
# is also tabulated, 1e-26 cm^4 / dyn (Bell & Berrington 1987, J. Phys. B 20, 801).
H_MINUS = [
    # wavelength, theta, bound-free, free-free
    (5063.0, 0.8, 29.58, 0.157),
    (5063.0, 1.0, 29.58, 0.195),
    (5696.0, 1.2, 32.90, 0.288),
    (9113.0, 0.8, 39.64, 0.468),
    (9113.0, 1.0, 39.64, 0.576),
    (15189.0, 1.0, 6.10, 1.52),
    (18227.0, 0.8, 0.0, 1.77),
]  # fmt: skip


@pytest.mark.parametrize(("wavelength", "theta", "bound_free", "free_free"), H_MINUS)
def test_h_minus_as_published(wavelength, theta, bound_free, free_free):
    t = 5040.0 / theta
    kt = constants.k * t
    translation = (2 * np.pi * constants.m_e * kt) ** 1.5 / constants.h**3 * 1e-6
    ions = 1 / (4 * translation) * np.exp(0.754195 * constants.e / kt) / (K * t)  # n(H-) / (n(H) Pe)
    stimulated = -np.expm1(-constants.h * constants.c / (wavelength * 1e-10 * kt))
    expected = bound_free * 1e-18 * ions * stimulated + free_free * 1e-26
    state = gas(t, neutral=1e17, electrons=1e13)
    ours = continuum_opacity.h_minus(jnp.float32(wavelength), jnp.float32(t), state)
    assert ours / (1e17 * 1e13 * K * t) == pytest.approx(expected, rel=0.025)


def test_balmer_and_paschen_edges_are_thresholds_of_hydrogen():
    """The step at the edge of level n is its population times the threshold cross-section,
    1.38e-17 and 2.16e-17 cm^2 for n = 2 and 3 (exact Gaunt factors 0.876 and 0.91)."""
    t, state = jnp.float32(6000.0), gas(6000.0, neutral=1e8, electrons=1e4, ionised=1e-3)
    for n, threshold in ((2, 1.38e-17), (3, 2.16e-17)):
        edge = n**2 / 1.09678e-3
        below, above = (
            float(continuum_opacity.hydrogen(jnp.float32(edge * side), t, state)) for side in (0.999, 1.001)
        )
        kt = constants.k * 6000.0 / constants.e
        stimulated = -np.expm1(-1.43878e8 / edge / 6000.0)
        level = 1e8 * n**2 * np.exp(-13.598434 * (1 - 1 / n**2) / kt)
        assert below - above == pytest.approx(level * threshold * stimulated, rel=0.06)


def test_thomson_scattering_of_free_electrons():
    state = gas(0.0, electrons=1e14)
    for wavelength in (3000.0, 9000.0):
        assert continuum_opacity.scattering(jnp.float32(wavelength), state) == pytest.approx(
            1e14 * THOMSON, rel=1e-5
        )


@pytest.mark.parametrize(
    ("absorber", "polarisability", "tolerance"),
    # Static polarisabilities in Bohr radii cubed: exact for H; He and H2 (mean over orientations) as
    # measured.
    [("neutral", 4.5, 0.01), ("helium", 1.383, 0.01), ("molecules", 5.41, 0.05)],
)
def test_rayleigh_scattering_at_long_wavelengths(absorber, polarisability, tolerance):
    """sigma = (8 pi / 3) (2 pi / lambda)^4 alpha^2."""
    wavelength = 20_000.0
    expected = 8 * np.pi / 3 * (2 * np.pi / (wavelength * 1e-8)) ** 4 * (polarisability * BOHR**3) ** 2
    ours = continuum_opacity.scattering(jnp.float32(wavelength), gas(0.0, **{absorber: 1e17}))
    assert ours == pytest.approx(1e17 * expected, rel=tolerance)


def test_rayleigh_scattering_rises_towards_the_resonance_lines():
    ratio = [
        float(continuum_opacity.scattering(jnp.float32(w), gas(0.0, neutral=1e17))) * w**4 for w in (9e3, 3e3)
    ]
    # (1 - (1215.7 / lambda)^2)^-2 would hold if Lyman alpha were hydrogen's only line; its other lines weaken
    # it.
    alone = ((1 - (1215.7 / 9e3) ** 2) / (1 - (1215.7 / 3e3) ** 2)) ** 2
    assert 1.15 < ratio[1] / ratio[0] < alone


def test_levels_survive_in_thin_gas_and_dissolve_in_dense_gas():
    t = jnp.float32(6000.0)
    for n in (1.0, 2.0, 5.0, 10.0):
        assert occupation_probability(n, t, gas(t, electrons=1e8)) == pytest.approx(1.0, abs=1e-3)
    assert occupation_probability(20.0, t, gas(t, electrons=1e16)) < 1e-3
    grid = np.array([[float(occupation_probability(float(n), t, gas(t, electrons=e))) for n in range(1, 40)]
                     for e in (1e11, 1e13, 1e15)])  # fmt: skip
    assert ((grid >= 0) & (grid <= 1)).all()
    assert (np.diff(grid, axis=0) <= 0).all()  # more electrons, less room
    assert (np.diff(grid[:, 3:], axis=1) <= 0).all()  # higher levels are more fragile


def test_neutral_neighbours_leave_no_room_for_large_atoms():
    """Hard spheres: exp(-1) of level 15 is left where one atom sits in each of its volumes."""
    t = jnp.float32(6000.0)
    radius = 5.29177e-9 * (15 * np.sqrt((5 * 225 + 1) / 2) + np.sqrt(3))
    dense = gas(t, electrons=1e4, neutral=1 / (4 / 3 * np.pi * radius**3))
    assert occupation_probability(15.0, t, dense) == pytest.approx(np.exp(-1), rel=1e-3)
    assert occupation_probability(3.0, t, dense) > 0.99


@pytest.mark.parametrize("electrons", [1.0, 1e9, 1e17])
def test_levels_are_differentiable_in_single_precision(electrons):
    """Of thin and dense gas alike: powers of the field leave float32's range where electrons are few."""
    t = jnp.float32(5000.0)
    n = jnp.asarray([1.0, 2.0, 10.0, 30.0, 1000.0], jnp.float32)

    def alive(electrons):
        return occupation_probability(n, t, gas(t, neutral=1e17)._replace(electrons=electrons))

    value, slope = jax.jvp(alive, (jnp.float32(electrons),), (jnp.float32(electrons),))
    assert np.isfinite(value).all()
    assert np.isfinite(slope).all()


@pytest.mark.parametrize("electrons", [1e12, 1e14])
def test_the_last_surviving_level_is_that_of_inglis_and_teller(electrons):
    """log n_e = 23.26 - 7.5 log n_max for the last visible line (1939, ApJ 90, 439): half of it survives
    there."""
    n = np.arange(3.0, 80.0)
    t = jnp.float32(6000.0)
    alive = jax.vmap(lambda x: occupation_probability(x, t, gas(t, electrons=electrons)))(jnp.asarray(n))
    last = n[np.argmin(np.abs(np.asarray(alive) - 0.5))]
    assert last == pytest.approx(10 ** ((23.26 - np.log10(electrons)) / 7.5), rel=0.35)


def test_h_minus_rules_the_solar_photosphere_in_the_optical():
    """At tau = 1 of the Sun (6400 K, Pe about 60 dyn/cm^2, P about 1.2e5) H- gives over 90 % of the
    absorption."""
    t = 6400.0
    state = gas(t, neutral=1.2e17, ionised=5e13, electrons=6.5e13, helium=1e16, molecules=1e13)
    arguments = (jnp.float32(5500.0), jnp.float32(t), state)
    assert continuum_opacity.h_minus(*arguments) > 0.9 * continuum_opacity.absorption(*arguments)
