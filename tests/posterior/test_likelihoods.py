"""A posterior with its prior divided out is the likelihood it came from."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.labels import NINE_LABELS, label_set
from jaxspec.posterior.flags import Flag
from jaxspec.posterior.likelihoods import divide_out, likelihoods
from jaxspec.posterior.results import Posterior
from jaxspec.simulation.prior import StellarPrior

LABELS = label_set("teff", "logg", "fe_h")
PRIOR_MEAN = np.array([5500.0, 3.5, -0.5])
PRIOR_COVARIANCE = np.diag([800.0, 1.0, 0.6]) ** 2
PRIOR_COVARIANCE[0, 1] = PRIOR_COVARIANCE[1, 0] = 300.0


def gaussian_problem(rng, n=5):
    """Likelihoods, and the posteriors that they make with the prior."""
    root = rng.normal(size=(n, 3, 3)) * np.array([150.0, 0.2, 0.1])[:, None]
    covariance = root @ np.swapaxes(root, 1, 2) + np.diag([60.0, 0.1, 0.05]) ** 2
    mean = PRIOR_MEAN + rng.normal(size=(n, 3)) * np.array([400.0, 0.5, 0.3])
    precision = np.linalg.inv(covariance)
    posterior = np.linalg.inv(precision + np.linalg.inv(PRIOR_COVARIANCE))
    rhs = np.einsum("nij,nj->ni", precision, mean) + np.linalg.solve(PRIOR_COVARIANCE, PRIOR_MEAN)
    return mean, covariance, np.einsum("nij,nj->ni", posterior, rhs), posterior


def as_posterior(draws):
    n = draws.shape[1]
    return Posterior(
        draws,
        np.zeros(draws.shape[:2]),
        LABELS,
        tuple(f"star {i}" for i in range(n)),
        np.full(n, 50.0),
        np.ones(n),
        np.arange(n) % 2,
    )


def test_gaussians_divide_exactly(rng):
    mean, covariance, posterior_mean, posterior_covariance = gaussian_problem(rng)
    found_mean, found = divide_out(posterior_mean, posterior_covariance, PRIOR_MEAN, PRIOR_COVARIANCE)
    np.testing.assert_allclose(found_mean, mean, rtol=1e-8)
    np.testing.assert_allclose(found, covariance, rtol=1e-6, atol=1e-9)


def test_a_posterior_that_is_the_prior_says_nothing():
    mean, covariance = divide_out(PRIOR_MEAN[None], PRIOR_COVARIANCE[None], PRIOR_MEAN, PRIOR_COVARIANCE)
    np.testing.assert_allclose(mean[0], PRIOR_MEAN)
    assert (np.diag(covariance[0]) > 20 * np.diag(PRIOR_COVARIANCE)).all()


@pytest.mark.parametrize("way", ["draws", "density"])
def test_from_draws(rng, way):
    mean, covariance, posterior_mean, posterior_covariance = gaussian_problem(rng)
    root = np.linalg.cholesky(posterior_covariance)
    draws = posterior_mean + np.einsum("nij,dnj->dni", root, rng.normal(size=(20_000, 5, 3)))
    if way == "draws":
        more = {"prior_draws": rng.multivariate_normal(PRIOR_MEAN, PRIOR_COVARIANCE, 50_000)}
    else:
        inverse = np.linalg.inv(PRIOR_COVARIANCE)
        more = {"log_prior": lambda x: -0.5 * ((x - PRIOR_MEAN) @ inverse * (x - PRIOR_MEAN)).sum(-1)}
    result = likelihoods(as_posterior(draws), **more)
    error = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    assert (np.abs(result.values - mean) / error).max() < 0.1
    found = np.sqrt(np.diagonal(result.covariance, axis1=1, axis2=2))
    np.testing.assert_allclose(found, error, rtol=0.06)
    assert result.suspect.tolist() == [False, True, False, True, False]


def test_refused():
    draws = np.random.default_rng(0).normal(size=(100, 2, 3)) + PRIOR_MEAN
    with pytest.raises(InputError, match="one of them"):
        likelihoods(as_posterior(draws), prior_draws=draws[:, 0], log_prior=lambda x: x[..., 0])
    with pytest.raises(InputError, match="draw more"):
        likelihoods(as_posterior(draws[:5]))
    draws[:, 1] = PRIOR_MEAN
    with pytest.raises(InputError, match="star 1: found draws that do not vary"):
        likelihoods(as_posterior(draws))


PRIOR = StellarPrior()
SOLAR_LIKE = np.array([5600.0, 4.3, -0.3, -0.2, -0.15, -0.2, -0.3, -0.2, -0.2])
WIDTH = np.array([60.0, 0.12, 0.05] + [0.08] * 6)


def bent(rng, n=6):
    """Gaussian likelihoods of nine labels, and draws of what they make with the training prior."""
    correlation = 0.3 + 0.7 * np.eye(9)
    covariance = np.outer(WIDTH, WIDTH) * correlation
    mean = SOLAR_LIKE + rng.multivariate_normal(np.zeros(9), covariance, n)
    draws = np.empty((4000, n, 9))
    for i in range(n):
        wide = rng.multivariate_normal(mean[i], covariance, 100_000)
        weight = np.exp(np.asarray(PRIOR.log_prob(jnp.asarray(wide, jnp.float32)), float))
        draws[:, i] = wide[rng.choice(len(wide), 4000, p=weight / weight.sum())]
    return mean, draws


def test_a_prior_that_bends_is_divided_out(rng):
    mean, draws = bent(rng)
    n = draws.shape[1]
    posterior = Posterior(
        *(
            draws,
            np.zeros(draws.shape[:2]),
            NINE_LABELS,
            tuple("abcdef"),
            np.full(n, 20.0),
            np.full(n, np.nan),
        ),
        np.full(n, int(Flag.NOT_CHECKED | Flag.LOW_SNR)),
        {"refined": np.arange(n) == 0},
        PRIOR,
    )
    result = likelihoods(posterior)
    own = draws.mean(axis=0)
    np.testing.assert_allclose(result.values[0], own[0], rtol=1e-6)  # refined: a likelihood already
    before, after = (np.abs((x - mean)[1:] / WIDTH)[:, 3:].mean() for x in (own, result.values))
    assert after < 0.6 * before and after < 0.25
    error = np.sqrt(np.diagonal(result.covariance[1:], axis1=1, axis2=2))
    assert np.all(error > draws[:, 1:].std(axis=0))
    np.testing.assert_allclose(np.median(error, axis=0), WIDTH, rtol=0.3)
    assert not result.suspect.any()  # wide is not wrong


def test_a_stored_prior_of_other_labels_is_refused(rng):
    draws = rng.normal(size=(100, 2, 3)) + PRIOR_MEAN
    with pytest.raises(InputError, match=r"posterior\.prior: found a density of teff"):
        likelihoods(dataclasses.replace(as_posterior(draws), prior=PRIOR))
