"""Deconvolved mixtures: against the formula, scikit-learn, a planted population, and draws that must have its
moments."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from jaxspec.populations.mixture import (
    Mixture,
    arrange,
    climb,
    fit_path,
    posterior_draws,
    responsibilities,
)
from jaxspec.populations.stars import Scale, Stars
from tests.populations.galaxy import CENTRES, SPREAD, two_discs

TRUE = Mixture(np.array([0.7, 0.3]), CENTRES, np.stack([np.diag(s**2) for s in SPREAD]))


def test_memberships_are_bayes_theorem(rng):
    """With correlated errors, missing labels and an error of zero, against scipy's densities."""
    values = CENTRES[0] + 0.2 * rng.standard_normal((4, 3))
    root = 0.05 * rng.standard_normal((4, 3, 3))
    covariance = root @ root.swapaxes(1, 2)
    covariance[1] = 0.0
    values[2, 1] = values[3, 0] = values[3, 2] = np.nan
    share, total, distance = responsibilities(TRUE, values, covariance)
    for i, (x, s) in enumerate(zip(values, covariance, strict=True)):
        there = ~np.isnan(x)
        density = [
            w * multivariate_normal(m[there], (v + s)[np.ix_(there, there)]).pdf(x[there])
            for w, m, v in zip(*TRUE, strict=True)
        ]
        np.testing.assert_allclose(share[i], np.array(density) / sum(density), rtol=1e-8)
        np.testing.assert_allclose(total[i], np.log(sum(density)), rtol=1e-8)
        d = (x - CENTRES[0])[there]
        expected = d @ np.linalg.solve((TRUE.covariance[0] + s)[np.ix_(there, there)], d)
        np.testing.assert_allclose(distance[i, 0], expected, rtol=1e-8)


def test_without_errors_it_is_a_plain_mixture():
    """scikit-learn's from the same start ends at the same likelihood."""
    sklearn = pytest.importorskip("sklearn.mixture")
    stars, truth = two_discs(250, 5)
    values, _ = Scale.of(stars).apply(stars)
    mean = np.stack([values[truth == c].mean(0) for c in (0, 1)])
    start = Mixture(np.array([0.5, 0.5]), mean, np.stack([0.5 * np.eye(3)] * 2))
    data = arrange(values, np.zeros((250, 3, 3)))
    mine, total = climb(start, data, 1e-6 * np.eye(3), 600)
    theirs = sklearn.GaussianMixture(
        2, means_init=start.mean, weights_init=start.weight, precisions_init=start.covariance, tol=1e-7,
        max_iter=1000,
    ).fit(values)  # fmt: skip
    assert abs(total / 250 - theirs.score(values)) < 1e-2
    np.testing.assert_allclose(mine.mean, theirs.means_, atol=0.15)


def test_a_planted_population_is_found_behind_the_errors():
    """Two components by the criterion, with their means and their spread, narrower than that of the data."""
    stars, _ = two_discs(1000, 1, error=0.06)
    scale = Scale.of(stars)
    path = fit_path(arrange(*scale.apply(stars)), 4)
    criteria = [step[1] for step in path]
    assert int(np.argmin(criteria)) == 1
    mixture = path[1][0]
    order = np.argsort(-np.asarray(mixture.weight))
    mean = (mixture.mean * scale.unit + scale.shift)[order]
    spread = np.sqrt(np.diagonal(mixture.covariance, axis1=1, axis2=2))[order] * scale.unit
    np.testing.assert_allclose(mixture.weight[order], [0.7, 0.3], atol=0.05)
    np.testing.assert_allclose(mean, CENTRES, atol=0.04)
    np.testing.assert_allclose(spread[0], SPREAD[0], rtol=0.3)
    assert spread[0, 1] < 0.045  # the data scatter by 0.07


def test_draws_are_of_the_posterior(rng):
    """Over many stars of the population, draws given noisy data have the population's moments; where the
    error is zero they are the data."""
    n = 4000
    single = Mixture(np.ones(1), CENTRES[:1], TRUE.covariance[:1])
    truth = CENTRES[0] + SPREAD[0] * rng.standard_normal((n, 3))
    covariance = np.broadcast_to(0.05**2 * np.eye(3), (n, 3, 3)).copy()
    values = truth + 0.05 * rng.standard_normal((n, 3))
    covariance[0], values[0] = 0.0, truth[0]
    values[1:400, 1] = np.nan
    draws = posterior_draws(single, values, covariance, rng, 2)
    np.testing.assert_allclose(draws[:, 0], np.broadcast_to(truth[0], (2, 3)), atol=1e-7)
    np.testing.assert_allclose(draws.reshape(-1, 3).mean(0), CENTRES[0], atol=0.01)
    np.testing.assert_allclose(draws.reshape(-1, 3).std(0), SPREAD[0], rtol=0.05)
    assert np.corrcoef(draws[0, 1:, 0], truth[1:, 0])[0, 1] > 0.9


def test_shapes_of_stars(rng):
    stars = Stars.with_errors(("fe_h",), rng.standard_normal((70, 1)), np.full((70, 1), 0.1))
    share, total, _ = responsibilities(
        Mixture(np.ones(1), np.zeros((1, 1)), np.ones((1, 1, 1))), *Scale.of(stars).apply(stars)
    )
    assert share.shape == (70, 1) and np.allclose(share, 1.0) and total.shape == (70,)
