"""Best fits of spectra: of a model that is linear in its parameters they are the least-squares solution, by
algebra of its own; fits of the toy find what was simulated."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspec.fitting.likelihood import VSINI, LikelihoodConfig, spectrum_at
from jaxspec.fitting.modes import Fit, fit_modes, positive, scaled_inverse
from jaxspec.instruments import Arm, Instrument
from jaxspec.labels import NINE_LABELS, LabelSet
from jaxspec.physics.forward import Nuisances
from jaxspec.simulation.nuisances import PURE

CONFIG = LikelihoodConfig()
UNITS = NINE_LABELS.step
N_LABELS, N = 9, 14
SMALL = Instrument("small", (Arm("blue", 5000.0, 5006.0, 0.05, 2e4), Arm("red", 6000.0, 6008.0, 0.1, 2e4)))
# One Gaussian of velocities, so that its prior is known in closed form.
LINEAR = LikelihoodConfig(
    dataclasses.replace(PURE, velocity_tail_error=PURE.velocity_error), continuum_degree=2, steps=9
)
START = np.array([5500.0, 4.0] + 7 * [-0.2])


class LinearModel(eqx.Module):
    """Flux linear in the labels, the velocity, the resolving power and the square of vsini."""

    label_set: LabelSet = eqx.field(static=True)
    instrument: Instrument = eqx.field(static=True)
    approximation = "LTE"
    columns: np.ndarray

    def __init__(self):
        self.label_set, self.instrument = NINE_LABELS, SMALL
        rng = np.random.default_rng(4)
        self.columns = rng.normal(0.0, 0.01, (SMALL.n_pixels, 12)).astype(np.float32)

    def __call__(self, labels, nuisances: Nuisances):
        steps = (labels - jnp.asarray(START, labels.dtype)) / jnp.asarray(UNITS)
        speed = (nuisances.vsini / PURE.vsini_scale) ** 2
        rest = jnp.stack(
            [nuisances.velocity / PURE.velocity_error, (nuisances.resolution - 1.0) / 0.05, speed]
        )
        return 0.7 + self.columns @ jnp.concatenate([steps, rest])


@pytest.fixture(scope="module")
def linear():
    """The model, and spectra of four stars at S/N 300 with noise of at most two errors, so no outliers."""
    model, rng = LinearModel(), np.random.default_rng(5)
    truth = np.zeros((4, N))
    truth[:, :N_LABELS] = rng.uniform(-1.0, 1.0, (4, N_LABELS))
    truth[:, N + VSINI] = [1.0, 1.5, 2.0, 0.8]
    flux = jax.vmap(lambda u: model(*spectrum_at(u, jnp.asarray(START), NINE_LABELS, LINEAR)))(
        jnp.asarray(truth, jnp.float32)
    )
    noise = np.clip(rng.normal(size=flux.shape), -2.0, 2.0) / 300.0
    ivar = np.where(rng.random(flux.shape) < 0.1, 0.0, 300.0**2)
    return model, (np.asarray(flux) + noise).astype(np.float32), ivar.astype(np.float32)


def least_squares(model, flux, ivar, seen):
    """Mean and covariance of all parameters, the square of vsini among them, by the textbook: priors count
    as data, and continuum and scattered light are further unknowns."""
    n_arm = LINEAR.continuum_degree + 2
    design = np.zeros((len(flux), N + 2 * n_arm))
    design[:, :N_LABELS] = model.columns[:, :N_LABELS]
    velocity, resolution, square = N - 2, N - 1, N + VSINI
    design[:, velocity], design[:, resolution], design[:, square] = model.columns[:, N_LABELS:].T
    precision, right = np.zeros((design.shape[1],) * 2), np.zeros(design.shape[1])
    # Labels: weak ones on Teff, log g and [Fe/H] by themselves, 0.3 dex on each [X/Fe]; nuisances: their own
    # scatter, and on vsini^2 next to nothing.
    precision[0, 0] = precision[1, 1] = 1e-3
    precision[2, 2] = 1e-2
    for i in range(3, N_LABELS):
        row = np.zeros(len(right))
        row[i], row[2] = UNITS[i] / 0.3, -UNITS[2] / 0.3
        precision += np.outer(row, row)
    for i in range(N_LABELS, N):
        precision[i, i] = 1.0
    precision[square, square] = (PURE.vsini_scale / PURE.vsini_max) ** 4
    light = PURE.scattered_light / (1.0 + PURE.scattered_light)
    for i, where in enumerate(SMALL.slices.values()):
        at = slice(N + i * n_arm, N + (i + 1) * n_arm)
        x = np.linspace(-1.0, 1.0, where.stop - where.start)
        design[where, at] = np.column_stack(
            [
                seen[where, None] * np.polynomial.chebyshev.chebvander(x, LINEAR.continuum_degree),
                1.0 - seen[where],
            ]
        )
        width = np.array([LINEAR.continuum_scatter] * (n_arm - 1) + [light / np.sqrt(12.0)])
        mean = np.zeros(n_arm)
        mean[0], mean[-1] = 1.0, 0.5 * light
        precision[at, at] += np.diag(width**-2.0)
        right[at] += mean / width**2
    # Linearised about what is seen: the design's product with the solution is the flux itself, but for 0.7.
    baseline = 0.7 - seen
    precision += (design * ivar[:, None]).T @ design
    right += design.T @ (ivar * (flux - baseline))
    covariance = np.linalg.inv(precision)
    return (covariance @ right)[:N], covariance[:N, :N]


def test_of_a_linear_model_the_peak_is_the_least_squares_solution(linear):
    model, flux, ivar = linear
    start = np.tile(START, (4, 1)).astype(np.float32)
    mode = fit_modes(model, start, flux, ivar, LINEAR)
    for i in range(4):
        labels, nuisances = spectrum_at(jnp.asarray(mode.u[i]), jnp.asarray(start[i]), NINE_LABELS, LINEAR)
        seen = np.asarray(model(labels, nuisances), float)
        mean, covariance = least_squares(model, flux[i], np.asarray(mode.ivar[i], float), seen)
        sigma = np.sqrt(np.diag(covariance))
        np.testing.assert_allclose(np.sqrt(np.diag(mode.covariance[i])), sigma, rtol=0.02)
        np.testing.assert_allclose(
            mode.covariance[i] / np.outer(sigma, sigma), covariance / np.outer(sigma, sigma), atol=0.02
        )
        # The solution is taken about a continuum of one; what noise makes of it is of second order.
        np.testing.assert_allclose(mode.centre[i] / sigma, mean / sigma, atol=0.1)


def test_steps_settle_and_stay_within_the_limits(linear):
    model, flux, ivar = linear
    start = jnp.asarray(START, jnp.float32)

    def fit(flux):
        return Fit(model, start, flux, jnp.asarray(ivar[0]), LINEAR)

    step = jax.jit(lambda flux, state: fit(flux).step(state))
    good = fit(jnp.asarray(flux[0]))
    state = good.centre, good.mean
    for _ in range(6):
        state = step(good.flux, state)
    np.testing.assert_allclose(step(good.flux, state)[0], state[0], atol=2e-3)
    # However far away the flux.
    u, _ = step(5.0 * good.flux, (good.high, good.mean))
    assert (u >= good.low).all() and (u <= good.high).all()


def test_matrices_of_any_scale_are_inverted(rng):
    root, scale = rng.normal(size=(8, 20)), 10.0 ** np.linspace(-2.0, 5.0, 8)
    matrix = (root @ root.T) * np.outer(scale, scale)
    found = np.asarray(scaled_inverse(jnp.asarray(matrix, jnp.float32)), float)
    expected = np.linalg.inv(matrix)
    sigma = np.sqrt(np.diag(expected))
    np.testing.assert_allclose(found / np.outer(sigma, sigma), expected / np.outer(sigma, sigma), atol=1e-4)


def test_covariances_are_made_positive_and_good_ones_left_alone(rng):
    root, scale = rng.normal(size=(5, 20)), np.array([100.0, 0.1, 0.05, 3.0, 1e-2])
    good = (root @ root.T) * np.outer(scale, scale)
    # Correlations of 0.9, 0.9 and -0.9 cannot be: the smallest eigenvalue is -0.8.
    correlation = np.eye(5)
    correlation[0, 1] = correlation[0, 2] = 0.9
    correlation[1, 2] = -0.9
    bad = (correlation + correlation.T - np.eye(5)) * np.outer(scale, scale)
    missing = np.full((5, 5), np.nan)
    skew = good + np.triu(1e-3 * np.outer(scale, scale), 1)
    found = positive(np.stack([good, bad, missing, skew]))
    np.testing.assert_allclose(found[0], good, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found, np.swapaxes(found, 1, 2), rtol=1e-12)
    for matrix in found:
        np.linalg.cholesky(matrix)
    # The nearest in correlations: that of the eigenvalues that are positive.
    value, vector = np.linalg.eigh(bad / np.outer(scale, scale))
    nearest = (vector * np.maximum(value, 1e-5)) @ vector.T
    np.testing.assert_allclose(found[1] / np.outer(scale, scale), nearest, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found[3], 0.5 * (skew + skew.T), rtol=1e-9, atol=1e-12)


def test_best_fits_are_those_of_the_truth(toy, bright):
    """64 stars at S/N 300, starting 80 K, 0.1 and 0.05 dex off: errors as stated."""
    offset = jnp.asarray([80.0, 0.1] + 7 * [0.05])
    mode = fit_modes(toy, bright.labels + offset, bright.flux, bright.ivar, CONFIG)
    labels = np.asarray(jax.vmap(lambda u, s: spectrum_at(u, s, NINE_LABELS, CONFIG)[0])(mode.u, mode.start))
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
