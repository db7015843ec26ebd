"""Tempered populations have the density that they were led to and its evidence, or say that they have not."""

import numpy as np
import pytest
from scipy import stats

from jaxspec.fitting.tempered import temper

D, N = 4, 600
EXACT = np.eye(D) + 0.5 * (np.ones((D, D)) - np.eye(D))


def led(log_density, n=1, mean=0.3, scale=1.0, seed=0, mirrored=None):
    rng = np.random.default_rng(seed)
    return temper(rng, log_density, np.full((n, D), mean), np.tile(scale * EXACT, (n, 1, 1)), N, mirrored)


def test_a_corner_of_a_gaussian():
    """Two walls through a correlated Gaussian, as a prior's limits are: a sixth of it by Sheppard's theorem
    is where one parameter is negative and another positive. Three stars of other evidences."""
    normal = stats.multivariate_normal(np.zeros(D), EXACT)

    def log_density(u):
        inside = (u[..., 0] > 0.0) & (u[..., 1] < 0.0)
        return np.where(inside, normal.logpdf(u), -np.inf) + np.array([0.0, 5.0, -700.0])[:, None]

    found = led(log_density, 3)
    np.testing.assert_allclose(found.log_evidence, np.log(1 / 6) + np.array([0.0, 5.0, -700.0]), atol=0.25)
    assert (found.r_hat < 1.05).all() and (found.efficiency > 0.02).all()
    many = np.random.default_rng(1).multivariate_normal(np.zeros(D), EXACT, 400_000)
    many = many[(many[:, 0] > 0.0) & (many[:, 1] < 0.0)]
    for u in found.u:
        z = (u.mean(axis=0) - many.mean(axis=0)) / many.std(axis=0)
        assert np.abs(z).max() < 0.25
        np.testing.assert_allclose(u.std(axis=0), many.std(axis=0), rtol=0.15)


def test_a_bent_density_from_a_bad_beginning():
    """A banana, from a Gaussian that is elsewhere: moments known exactly."""

    def log_density(u):
        z = u.copy()
        z[..., 1] = u[..., 1] - u[..., 0] ** 2
        return stats.norm.logpdf(z).sum(axis=-1)

    found = led(log_density, 1, mean=2.5, scale=0.2, seed=3)
    u = found.u[0]
    np.testing.assert_allclose(found.log_evidence, 0.0, atol=0.4)
    np.testing.assert_allclose(u.mean(axis=0), [0.0, 1.0, 0.0, 0.0], atol=0.3)
    np.testing.assert_allclose(u.std(axis=0), [1.0, 3.0**0.5, 1.0, 1.0], rtol=0.2)


def test_one_parameter_is_mirrored_at_zero():
    """A half of a Gaussian about zero, with nothing below it."""

    def log_density(u):
        assert (u[..., 2] >= 0.0).all()
        return stats.norm.logpdf(u).sum(axis=-1)

    found = led(log_density, mean=0.0, mirrored=2)
    np.testing.assert_allclose(found.log_evidence, np.log(0.5), atol=0.2)
    np.testing.assert_allclose(found.u[0].mean(axis=0), [0.0, 0.0, (2 / np.pi) ** 0.5, 0.0], atol=0.2)


@pytest.mark.parametrize("distance", [12.0, None])
def test_what_does_not_arrive_says_so(distance):
    """Two far peaks of which a population sees one or the other, and a density that is nowhere."""

    def log_density(u):
        if distance is None:
            return np.full(u.shape[:2], -np.inf)
        first, second = (
            stats.norm.logpdf(u - np.array([s * distance, 0, 0, 0])).sum(axis=-1) for s in (-1, 1)
        )
        return np.logaddexp(first, second)

    found = [led(log_density, mean=0.0, seed=seed) for seed in range(4)]
    assert max(one.r_hat[0] for one in found) > 1.05
    if distance is None:
        assert all(np.isinf(one.r_hat[0]) for one in found)
