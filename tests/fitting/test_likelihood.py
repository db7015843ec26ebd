"""The exact density of a star is the integral that it claims to be."""

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
)
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


def test_wrong_settings_are_refused():
    with pytest.raises(InputError, match="clip"):
        dataclasses.replace(CONFIG, clip=0.0)
