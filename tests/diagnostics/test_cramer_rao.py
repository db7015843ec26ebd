"""Bounds against linear problems solved by hand, against brute force, and against what a fit really
reaches."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspec.diagnostics.cramer_rao import (
    LINE_ERROR_WIDTH,
    BoundConfig,
    cramer_rao,
    information_matrix,
    line_errors,
    marginal_covariance,
    prior_precision,
    with_residuals,
)
from jaxspec.errors import InputError
from jaxspec.physics import turbulence
from jaxspec.physics.forward import Nuisances
from jaxspec.simulation.nuisances import NuisanceConfig
from jaxspec.simulation.residuals import ResidualModel
from jaxspec.simulation.simulator import perturb, perturb_lines
from tests.toy import TOY_INSTRUMENT, ToyForwardModel

SUN = np.array([[5777.0, 4.44, 0.0, 0.05, 0.0, 0.0, -0.05, 0.0, 0.0]], np.float32)
QUIET = Nuisances(*(np.array([v], np.float32) for v in (1.1, 3.0, 4.0, 0.2, 1.0)))


@pytest.fixture(scope="module")
def forward():
    return ToyForwardModel()


def test_marginal_covariance_is_the_block_of_the_inverse(rng):
    j = rng.normal(size=(300, 12))
    information = j.T @ j
    np.testing.assert_allclose(
        marginal_covariance(information, 5), np.linalg.inv(information)[:5, :5], rtol=1e-9
    )


def test_badly_scaled_and_nearly_degenerate(rng):
    """Units of 1e3 and 1e-3 and a correlation of 0.99999 leave eight good digits."""
    j = rng.normal(size=(500, 6))
    j[:, 5] = j[:, 0] + 0.004 * j[:, 5]
    scale = 10.0 ** np.array([3, -3, 0, 2, -2, 1])
    covariance = marginal_covariance((j * scale).T @ (j * scale), 4)
    r = np.linalg.qr(j, mode="r")
    expected = np.linalg.inv(r) @ np.linalg.inv(r).T
    np.testing.assert_allclose(covariance, expected[:4, :4] / np.outer(scale[:4], scale[:4]), rtol=1e-6)


def test_linear_gaussian_posterior(rng):
    """With a Gaussian prior the bound is the exact posterior covariance of a linear model."""
    j, ivar = rng.normal(size=(80, 3)), rng.uniform(0.5, 2.0, 80)
    ivar[::7] = 0.0
    j[::7] = np.nan  # never read
    prior = np.diag([0.5, 2.0, 1.0])
    good = ivar > 0
    exact = np.linalg.inv(j[good].T @ (ivar[good, None] * j[good]) + prior)
    np.testing.assert_allclose(marginal_covariance(information_matrix(j, ivar) + prior, 3), exact, rtol=1e-9)


def test_label_without_a_line_is_unbounded():
    information = np.diag([4.0, 0.0, 1.0])
    covariance = marginal_covariance(information, 2)
    assert covariance[0, 0] == 0.25 and np.isinf(covariance[1, 1])


def test_against_brute_force(forward):
    """Finite differences in float64 on the host, all columns written out, one dense inverse."""
    ivar = np.full((1, TOY_INSTRUMENT.n_pixels), 100.0**2, np.float32)
    config = BoundConfig(continuum_degree=1)
    bound = cramer_rao(forward, SUN, QUIET, ivar, config)

    with jax.enable_x64(True):
        double = jax.tree.map(lambda x: x.astype(np.float64) if x.dtype == np.float32 else x, forward)
        labels, nuisances = SUN[0].astype(float), np.array([v[0] for v in QUIET], float)
        calibrations = [
            lambda t, f=f: float(f(*(jnp.asarray(v) for v in t[:3])))
            for f in (turbulence.vmic_calibration, turbulence.vmac_calibration)
        ]

        def spectrum(u):
            moved, n = labels + u[:9], nuisances + u[9:]
            n[0] += calibrations[0](moved) - calibrations[0](labels)
            n[1] += calibrations[1](moved) - calibrations[1](labels)
            return np.asarray(double(jnp.asarray(moved), Nuisances(*jnp.asarray(n))))

        steps = np.array([5.0] + [1e-3] * 8 + [1e-3] * 5)
        columns = [(spectrum(e) - spectrum(-e)) / (2 * np.abs(e).sum()) for e in np.diag(steps)]
        model = spectrum(np.zeros(14))
    for where in TOY_INSTRUMENT.slices.values():
        x = np.linspace(-1, 1, where.stop - where.start)
        for shape in (np.ones_like(x), x):
            columns.append(np.zeros(model.size))
            columns[-1][where] = model[where] * shape
        columns.append(np.zeros(model.size))
        columns[-1][where] = 1.0 - model[where]
    j = np.stack(columns, 1) * 100.0
    widths = [
        *config.nuisances,
        np.inf,
        np.inf,
        config.scattered_light,
        np.inf,
        np.inf,
        config.scattered_light,
    ]
    covariance = np.linalg.inv(j.T @ j + np.diag([0.0] * 9 + [w**-2 for w in widths]))
    np.testing.assert_allclose(bound.sigma[0], np.sqrt(np.diag(covariance))[:9], rtol=0.01)


def test_bound_scales_with_noise_and_priors(forward):
    ivar = np.full((2, TOY_INSTRUMENT.n_pixels), 1e4, np.float32)
    ivar[1] *= 4.0
    two = Nuisances(*(np.repeat(v, 2) for v in QUIET))
    tight = dataclasses.replace(BoundConfig(), nuisances=Nuisances(*[1e-4] * 5), scattered_light=1e-6)
    labels = np.repeat(SUN, 2, 0)
    free, fixed = cramer_rao(forward, labels, two, ivar), cramer_rao(forward, labels, two, ivar, tight)
    # Without nuisances to learn, four times the information halves the error; knowing nuisances helps.
    np.testing.assert_allclose(fixed.sigma[1], 0.5 * fixed.sigma[0], rtol=2e-3)
    assert (fixed.sigma < free.sigma).all() and (free.sigma[1] < free.sigma[0]).all()
    known = cramer_rao(forward, labels, two, ivar, prior_precision=np.diag([1e-4] + [400.0] * 8))
    assert (
        (known.sigma < free.sigma).all()
        and (known.sigma[:, 1:] < 0.05).all()
        and (known.sigma[:, 0] < 100.0).all()
    )


def test_missing_arm_and_no_data(forward):
    ivar = np.full((2, TOY_INSTRUMENT.n_pixels), 1e4, np.float32)
    both = cramer_rao(forward, SUN, QUIET, ivar[:1]).sigma
    ivar[0, TOY_INSTRUMENT.slices["red"]] = 0.0
    ivar[1] = 0.0
    two = Nuisances(*(np.repeat(v, 2) for v in QUIET))
    sigma = cramer_rao(forward, np.repeat(SUN, 2, 0), two, ivar).sigma
    assert (sigma[0] > both[0]).all() and np.isinf(sigma[1]).all()


def test_prior_precision(rng):
    draws = rng.multivariate_normal([0, 0], [[1.0, 0.8], [0.8, 1.0]], 50_000)
    np.testing.assert_allclose(np.linalg.inv(prior_precision(draws)), [[1.0, 0.8], [0.8, 1.0]], atol=0.03)
    with pytest.raises(InputError, match="prior_precision"):
        prior_precision(draws[:3])


def test_line_errors_are_those_of_the_simulations(forward):
    """Covariance of many perturbed spectra. Amplitudes between 0 and 1 have a mean square of 1/3, not 1/4,
    and the heavy tail of the fine errors a variance of 1."""
    model = forward(jnp.asarray(SUN[0]), jax.tree.map(lambda v: jnp.asarray(v[0]), QUIET))
    n, whole = 20_000, jax.jit(perturb_lines, static_argnums=(2, 3))
    for name, width in (("line_error", LINE_ERROR_WIDTH), ("core_error", 1.0)):
        config = NuisanceConfig(**{name: 0.1})
        made = whole(jax.random.key(1), jnp.tile(model, (n, 1)), TOY_INSTRUMENT, config)
        errors = line_errors(np.asarray(model, float), TOY_INSTRUMENT, config).toarray() / width
        expected = errors @ errors.T * (4.0 / 3.0)
        found = np.cov(np.asarray(made, float).T)
        # The scatter of a covariance of `n` draws, for tails of kurtosis 9/5 exp(1.44) 3 = 23.
        noise = np.sqrt(23.0 / n) * np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
        assert np.all(np.abs(found - expected) < 6.0 * noise + 1e-9)
        assert np.trace(found) == pytest.approx(np.trace(expected), rel=0.05)
    assert line_errors(np.asarray(model), TOY_INSTRUMENT, NuisanceConfig()) is None
    halved = line_errors(
        np.asarray(model, float), TOY_INSTRUMENT, dataclasses.replace(config, exact_model=0.5)
    )
    np.testing.assert_allclose(halved.toarray(), 0.5 * errors, rtol=1e-6)


def test_width_of_heavy_tailed_errors():
    """Fisher's information on the location of exp(0.6 a - 0.36) b, by quadrature."""
    a, weight = np.polynomial.hermite_e.hermegauss(60)
    scale, weight = np.exp(0.6 * a - 0.36), weight / weight.sum()
    x = np.linspace(-30.0, 30.0, 60_001)
    each = weight * np.exp(-0.5 * (x[:, None] / scale) ** 2) / (scale * np.sqrt(2.0 * np.pi))
    density, slope = each.sum(axis=1), (-x[:, None] / scale**2 * each).sum(axis=1)
    information = np.trapezoid(slope**2 / np.maximum(density, 1e-300), x)
    assert 1.0 / np.sqrt(information) == pytest.approx(LINE_ERROR_WIDTH, abs=2e-4)


def test_line_errors_are_marginalised(forward):
    """One dense inverse of the covariance of pixels; pixels that nobody observed stay out."""
    ivar = np.full(TOY_INSTRUMENT.n_pixels, 80.0**2)
    ivar[::7] = 0.0
    simulated = NuisanceConfig(line_error=0.1, core_error=0.2)
    model = np.asarray(forward(jnp.asarray(SUN[0]), jax.tree.map(lambda v: jnp.asarray(v[0]), QUIET)), float)
    design = np.random.default_rng(0).normal(size=(model.size, 4))
    errors = line_errors(model, TOY_INSTRUMENT, simulated)
    good = ivar > 0
    dense = errors.toarray()[good]
    covariance = np.diag(1.0 / ivar[good]) + dense @ dense.T
    expected = design[good].T @ np.linalg.solve(covariance, design[good])
    np.testing.assert_allclose(information_matrix(design, ivar, errors), expected, rtol=1e-8)

    full = np.full((1, TOY_INSTRUMENT.n_pixels), 100.0**2, np.float32)
    exact, more = (
        cramer_rao(forward, SUN, QUIET, full, simulated=config).sigma[0]
        for config in (NuisanceConfig(), simulated)
    )
    assert np.all(more > 1.05 * exact)


def test_learned_residuals_are_marginalised(forward):
    """The covariance of simulated spectra, lines wrong and residuals learned, inverted densely."""
    rng = np.random.default_rng(1)
    p = TOY_INSTRUMENT.n_pixels
    learned = ResidualModel(
        jnp.asarray(0.01 * rng.normal(size=(2, p)), jnp.float32),
        jnp.asarray(0.004 * rng.uniform(0.5, 1.5, p), jnp.float32),
    )
    quiet = NuisanceConfig()
    ivar = np.where(np.arange(p) % 7 == 0, 0.0, 200.0**2)
    left, errors = with_residuals(ivar, None, quiet, learned)
    flux = jnp.ones((20_000, p))
    found = np.cov(np.asarray(perturb(jax.random.key(0), flux, TOY_INSTRUMENT, quiet, learned), float).T)
    good = ivar > 0.0
    stated = 1.0 / ivar[good]
    shared = errors.toarray()[good]
    covariance = np.diag(1.0 / left[good]) + shared @ shared.T
    expected = found[np.ix_(good, good)] + np.diag(stated)
    scatter = np.sqrt(2.0 / 20_000 * np.outer(np.diag(expected), np.diag(expected)))
    assert np.all(np.abs(covariance - expected) < 6.0 * scatter)

    model = np.asarray(forward(jnp.asarray(SUN[0]), jax.tree.map(lambda v: jnp.asarray(v[0]), QUIET)), float)
    lines = line_errors(model, TOY_INSTRUMENT, NuisanceConfig(line_error=0.1))
    left, errors = with_residuals(ivar, lines, quiet, learned)
    covariance += lines.toarray()[good] @ lines.toarray()[good].T
    design = rng.normal(size=(p, 4))
    np.testing.assert_allclose(
        information_matrix(design, left, errors),
        design[good].T @ np.linalg.solve(covariance, design[good]),
        rtol=1e-8,
    )

    full = np.full((1, p), 200.0**2, np.float32)
    none, half, all_stars = (
        cramer_rao(
            forward, SUN, QUIET, full, simulated=NuisanceConfig(exact_model=share), residuals=learned
        ).sigma[0]
        for share in (1.0, 0.5, 0.0)
    )
    np.testing.assert_array_equal(none, cramer_rao(forward, SUN, QUIET, full).sigma[0])
    assert np.all(half > 1.02 * none) and np.all(all_stars > half)
