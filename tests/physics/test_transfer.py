"""Formal solutions against atmospheres whose answer is known exactly."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import constants

from jaxspec.physics.transfer import (
    ANGLE_WEIGHTS,
    ANGLES,
    emergent_flux,
    emergent_intensity,
    mean_intensity_with_scattering,
    optical_depth,
    planck,
)

TAU = np.geomspace(1e-5, 60.0, 400)
STEPS = jnp.asarray(np.diff(TAU, prepend=0.0), jnp.float32)


def test_planck_is_the_planck_function():
    wavelength, temperature = np.array([3000.0, 5500.0, 8500.0]), np.array([[3000.0], [5777.0], [12000.0]])
    nu = constants.c / (wavelength * 1e-10)
    b_nu = 2 * constants.h * nu**3 / constants.c**2 / np.expm1(constants.h * nu / constants.k / temperature)
    # W m^-2 sr^-1 Hz^-1 to erg s^-1 cm^-2 sr^-1 A^-1.
    expected = b_nu * 1e3 * nu / wavelength
    ours = planck(jnp.asarray(wavelength, jnp.float32), jnp.asarray(temperature, jnp.float32))
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_planck_integrates_to_stefan_boltzmann(x64):
    wavelength = jnp.geomspace(100.0, 1e8, 20000)
    flux = np.pi * np.trapezoid(planck(wavelength, jnp.asarray(5777.0)), wavelength)
    assert flux == pytest.approx(constants.sigma * 1e3 * 5777.0**4, rel=1e-6)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.7, -0.4])
def test_optical_depth_of_a_power_law_is_exact(power):
    """Opacity m^p over column mass gives tau = m^(p+1) / (p+1); above the first layer it is constant by
    definition."""
    mass = np.geomspace(1e-3, 10.0, 40)
    steps = optical_depth(jnp.asarray(mass**power, jnp.float32), jnp.asarray(mass, jnp.float32))
    depth = np.cumsum(np.asarray(steps, float))
    top = mass[0] ** (power + 1)
    expected = top + (mass ** (power + 1) - top) / (power + 1)
    np.testing.assert_allclose(depth, expected, rtol=2e-5)


def test_angles_integrate_polynomials_exactly():
    for k in range(10):
        assert np.sum(ANGLE_WEIGHTS * ANGLES**k) == pytest.approx(1 / (k + 1), rel=1e-12)


def test_constant_source_leaves_as_it_is():
    source = jnp.full(TAU.shape, 3.0, jnp.float32)
    for angle in (0.05, 0.5, 1.0):
        assert emergent_intensity(STEPS, source, angle) == pytest.approx(3.0, rel=1e-5)
    assert emergent_flux(STEPS, source) == pytest.approx(3.0 * np.pi, rel=1e-5)


@pytest.mark.parametrize("angle", [0.1, 0.5, 1.0])
def test_linear_source_obeys_eddington_and_barbier(angle):
    """S = a + b tau gives I(mu) = a + b mu."""
    source = jnp.asarray(2.0 + 3.0 * TAU, jnp.float32)
    assert emergent_intensity(STEPS, source, angle) == pytest.approx(2.0 + 3.0 * angle, rel=2e-5)


def test_linear_source_gives_the_flux_of_two_thirds():
    """S = a + b tau gives F = pi (a + 2 b / 3)."""
    source = jnp.asarray(2.0 + 3.0 * TAU, jnp.float32)
    assert emergent_flux(STEPS, source) == pytest.approx(np.pi * 4.0, rel=2e-5)


def test_thin_bright_layer_over_darkness_gives_tau_over_mu():
    tau = 0.02
    steps = jnp.concatenate([jnp.full(20, tau / 20), jnp.array([1e-9, 5.0, 5.0])]).astype(jnp.float32)
    source = jnp.concatenate([jnp.ones(20), jnp.zeros(3)]).astype(jnp.float32)
    for angle in (0.2, 1.0):
        assert emergent_intensity(steps, source, angle) == pytest.approx(-np.expm1(-tau / angle), rel=5e-4)


@pytest.mark.parametrize("destruction", [0.5, 0.1, 0.01])
def test_scattering_in_an_isothermal_atmosphere(destruction):
    """S(0) = sqrt(epsilon) B at the surface of a semi-infinite isothermal atmosphere, exactly."""
    tau = np.geomspace(1e-5, 200.0, 280)
    steps = jnp.asarray(np.diff(tau, prepend=0.0), jnp.float32)
    albedo = jnp.full(tau.shape, 1 - destruction, jnp.float32)
    mean = mean_intensity_with_scattering(steps, jnp.ones(tau.size, jnp.float32), albedo)
    source = destruction + (1 - destruction) * mean
    assert source[0] == pytest.approx(np.sqrt(destruction), rel=8e-3)
    assert source[-1] == pytest.approx(1.0, rel=1e-4)


def test_conservative_scattering_conserves_flux_and_gives_hopfs_function():
    """Milne's problem: S = (3 F / 4 pi) (tau + q(tau)) with q(0) = 1 / sqrt(3), q(infinity) = 0.7104."""
    tau = np.geomspace(1e-4, 20.0, 160)
    steps = jnp.asarray(np.diff(tau, prepend=0.0), jnp.float32)
    albedo = jnp.ones(tau.size, jnp.float32).at[-1].set(0.0)
    mean = np.asarray(mean_intensity_with_scattering(steps, jnp.ones(tau.size, jnp.float32), albedo))
    flux = float(emergent_flux(steps, jnp.asarray(mean).at[-1].set(1.0)))
    hopf = mean * 4 * np.pi / (3 * flux) - tau
    assert hopf[0] == pytest.approx(1 / np.sqrt(3), rel=0.003)
    deep = np.argmin(np.abs(tau - 5.0))
    assert hopf[deep] == pytest.approx(0.7104, abs=0.01)


def test_without_scattering_the_mean_intensity_is_the_exponential_integral():
    """J(0) = (1/2) int S E1 dtau = 1/2 for S = 1, and a/2 + b/4 for S = a + b tau."""
    mean = mean_intensity_with_scattering(
        STEPS, jnp.asarray(2.0 + 3.0 * TAU, jnp.float32), jnp.zeros(TAU.size, jnp.float32)
    )
    assert mean[0] == pytest.approx(2.0 / 2 + 3.0 / 4, rel=2e-3)
