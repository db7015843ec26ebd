"""The exact density of a star is the integral that it claims to be, and fits find what was simulated."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from jaxspec.errors import InputError
from jaxspec.fitting.likelihood import (
    LOG_2PI,
    VSINI,
    LikelihoodConfig,
    log_density,
    log_likelihood,
    log_prior_nuisances,
    observe,
    spectrum_at,
)
from jaxspec.fitting.modes import fit_modes
from jaxspec.labels import NINE_LABELS
from jaxspec.physics.forward import Nuisances
from jaxspec.simulation.nuisances import PURE, draw_nuisances
from jaxspec.simulation.prior import StellarPrior

CONFIG = LikelihoodConfig()
SUN = jnp.asarray([5770.0, 4.4] + 7 * [0.0])
USUAL = Nuisances(1.0, 3.0, 3.0, 0.0, 1.0)


@pytest.fixture(scope="module")
def observed(toy):
    rng = np.random.default_rng(0)
    model = toy(SUN, USUAL)
    ivar = np.where(rng.random(model.size) < 0.1, 0.0, 2500.0 * rng.uniform(0.5, 2.0, model.size))
    flux = np.asarray(model) * (1.0 + 0.03 * np.linspace(-1, 1, model.size)) + 0.02 * rng.normal(
        size=model.size
    )
    return np.asarray(model, float), flux.astype(np.float32), ivar.astype(np.float32)


@pytest.mark.parametrize("difference", [0.0, 0.01, 0.2])
def test_continuum_and_scattered_light_are_integrated_out(toy, observed, difference):
    """Against the Gaussian of all pixels at once, whose covariance the two add to; the reference's lines are
    a part `difference` deeper or shallower."""
    model, flux, ivar = observed
    covariance, mean = np.zeros((model.size, model.size)), np.zeros(model.size)
    light = PURE.scattered_light / (1.0 + PURE.scattered_light)
    for where in toy.instrument.slices.values():
        n = where.stop - where.start
        columns = np.zeros((model.size, CONFIG.continuum_degree + 2))
        shape = np.polynomial.chebyshev.chebvander(np.linspace(-1, 1, n), CONFIG.continuum_degree)
        columns[where, :-1] = model[where, None] * shape
        columns[where, -1] = 1.0 - model[where]
        mean += columns[:, 0] + 0.5 * light * columns[:, -1]
        degree = np.arange(CONFIG.continuum_degree + 1)
        width = np.append(0.05 / np.maximum(degree / 5.0, 1.0) ** 3, light / np.sqrt(12))
        covariance += (columns * width**2) @ columns.T
    good = ivar > 0
    covariance = covariance[np.ix_(good, good)] + np.diag(1.0 / ivar[good].astype(float))
    expected = stats.multivariate_normal(mean[good], covariance).logpdf(flux[good].astype(float))
    shape = np.sin(np.arange(model.size))
    reference = jnp.asarray(1.0 - (1.0 - model) * (1.0 + difference * shape), jnp.float32)

    def likelihood(flux):
        known = observe(reference, jnp.asarray(flux), jnp.asarray(ivar), toy, CONFIG)
        return float(log_likelihood(jnp.asarray(model, jnp.float32), known, toy.instrument))

    found = likelihood(flux)
    constant = 0.5 * np.sum(np.log(ivar[good].astype(float)) - LOG_2PI - 1.0)
    assert abs(found + constant - expected) < 0.02
    # What stands in pixels that are not used does not matter.
    assert likelihood(np.where(good, flux, np.nan)) == found


def test_nuisances_have_a_density():
    """It integrates to one along vsini and velocity, and its mean rotation is that of the draws."""
    known = Nuisances(1.0, 3.0, 3.0, 0.0, 1.0)

    def density(place, x):
        u = jnp.zeros(5).at[place].set(x)
        return float(jnp.exp(log_prior_nuisances(u, known, PURE)))

    rest = np.exp(-0.5 * LOG_2PI)
    tail = PURE.velocity_error / PURE.velocity_tail_error
    velocity_at_0 = rest * (1 - PURE.velocity_tail + PURE.velocity_tail * tail)
    vsini_at_0 = 1 - PURE.vsini_fast + PURE.vsini_fast * PURE.vsini_scale / PURE.vsini_max
    end = PURE.vsini_max / PURE.vsini_scale
    along_vsini = integrate.quad(lambda x: density(2, x), 0, end, limit=100)[0]
    np.testing.assert_allclose(along_vsini / (rest**3 * velocity_at_0), 1.0, rtol=1e-3)
    along_velocity = integrate.quad(lambda x: density(3, x), -30, 30, limit=200)[0]
    np.testing.assert_allclose(along_velocity / (rest**3 * vsini_at_0), 1.0, rtol=1e-3)
    mean = integrate.quad(lambda x: x * density(2, x), 0, end, limit=100)[0] / along_vsini
    stellar = NINE_LABELS.stellar(jnp.tile(SUN, (20_000, 1)))
    calibration = lambda *x: 0.0 * x[0] + 2.0  # noqa: E731
    drawn = draw_nuisances(jax.random.key(0), stellar, PURE, calibration, calibration).vsini
    np.testing.assert_allclose(mean * PURE.vsini_scale, drawn.mean(), rtol=0.05)
    assert density(2, -0.1) == 0.0 and density(2, end + 0.1) == 0.0 and density(4, 7.0) > 0.0


def test_no_density_outside_the_prior(toy, observed):
    model, flux, ivar = observed
    known = observe(jnp.asarray(model, jnp.float32), jnp.asarray(flux), jnp.asarray(ivar), toy, CONFIG)

    def at(teff):
        start = SUN.at[0].set(teff)
        u = jnp.zeros(14).at[VSINI].set(1.0)
        return float(log_density(toy, StellarPrior(), CONFIG, u, start, known))

    assert np.isfinite(at(5770.0)) and at(9000.0) == -np.inf


def test_best_fits_are_those_of_the_truth(toy, bright):
    """64 stars at S/N 300, starting 80 K, 0.1 and 0.05 dex off: errors as stated."""
    offset = jnp.asarray([80.0, 0.1] + 7 * [0.05])
    mode = fit_modes(toy, bright.labels + offset, bright.flux, bright.ivar, CONFIG)
    labels = np.asarray(
        jax.vmap(lambda u, s: spectrum_at(u, s, toy.label_set, CONFIG)[0])(mode.u, mode.start)
    )
    sigma = np.sqrt(np.diagonal(mode.covariance, axis1=1, axis2=2))[:, :9] * np.asarray(
        [100, 0.1] + 7 * [0.05]
    )
    z = (labels - np.asarray(bright.labels)) / sigma
    # Robust, as fast rotators are no Gaussians; four standard deviations for 64 stars of nine labels.
    assert abs(np.median(np.abs(z)) / 0.6745 - 1.0) < 4 * 1.17 / np.sqrt(z.size)


@pytest.mark.parametrize("speed", [0.5, 24.0])
def test_rotation_is_found_from_either_start(toy, bright, speed):
    """16 stars at rest or near the fastest rotation there is, [km/s]: to five of their errors."""
    n, place = 16, VSINI + 14
    labels = bright.labels[:n]
    usual = Nuisances(*(jnp.full(n, value) for value in (1.2, 3.0, speed, 0.0, 1.0)))
    rng = np.random.default_rng(3)
    flux = np.asarray(jax.vmap(toy)(labels, usual)) + rng.normal(size=bright.flux[:n].shape) / 200.0
    mode = fit_modes(toy, labels, flux.astype(np.float32), np.full_like(flux, 200.0**2), CONFIG)
    z = mode.centre[:, place] - (speed / PURE.vsini_scale) ** 2
    z /= np.sqrt(mode.covariance[:, place, place])
    assert np.abs(z).max() < 5.0
    if speed > 5.0:
        np.testing.assert_allclose(mode.u[:, place] * PURE.vsini_scale, speed, rtol=0.2)
    else:
        # Of a star at rest the square scatters to both sides of zero.
        assert (mode.centre[:, place] < 0.1).any() and (mode.centre[:, place] > 0.0).any()


def test_spoiled_pixels_and_wrong_errors_are_found(toy, bright):
    flux, ivar = np.array(bright.flux[:4]), np.array(bright.ivar[:4])
    flux[0, 100] += 0.5
    ivar[1] *= 4.0  # stated errors are half of the true ones
    clean, found = (
        fit_modes(toy, bright.labels[:4], f, v, CONFIG).ivar
        for f, v in ((bright.flux[:4], bright.ivar[:4]), (flux, ivar))
    )
    assert found[0, 100] == 0.0 and (found[0] > 0).mean() > 0.95
    np.testing.assert_allclose(np.median(found[1]), np.median(clean[1]), rtol=0.03)
    np.testing.assert_allclose(np.median(found[2:]), np.median(clean[2:]), rtol=1e-3)


def test_wrong_settings_are_refused():
    with pytest.raises(InputError, match="clip"):
        dataclasses.replace(CONFIG, clip=0.0)
