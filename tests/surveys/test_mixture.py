"""Gaussian mixtures behind noise: posteriors by the textbook, and what deconvolution must end at."""

import numpy as np
from scipy import stats

from jaxspec.surveys.mixture import (
    Evidence,
    Mixture,
    choose_mixture,
    deconvolve,
    evidence_of,
    posterior,
)


def covariances(rng, n, size):
    root = rng.normal(size=(n, size, 2 * size))
    return root @ np.swapaxes(root, 1, 2) / (2 * size)


def planted(rng, n, mixture, noise):
    """Stars of a mixture, measured with one covariance of noise."""
    which = rng.choice(len(mixture.weight), n, p=mixture.weight)
    root = np.linalg.cholesky(mixture.covariance)
    truth = mixture.mean[which] + np.einsum("nij,nj->ni", root[which], rng.normal(size=(n, 2)))
    values = truth + rng.multivariate_normal(np.zeros(2), noise, n)
    return evidence_of(values, np.tile(noise, (n, 1, 1))), values


def test_missing_labels_are_directions_without_information(rng):
    values, covariance = rng.normal(size=(6, 3)), covariances(rng, 6, 3)
    values[1, 0] = values[2, 1] = values[3, 0] = values[3, 2] = np.nan
    values[4] = np.nan
    # What a covariance says of a label that is missing is not read.
    covariance[3, 0] = covariance[3, :, 0] = np.nan
    found = evidence_of(values, covariance)
    for i in range(6):
        there = np.flatnonzero(~np.isnan(values[i]))
        expected = np.zeros((3, 3))
        expected[np.ix_(there, there)] = np.linalg.inv(covariance[i][np.ix_(there, there)])
        np.testing.assert_allclose(found.information[i], expected, atol=1e-10)
        np.testing.assert_allclose(found.vector[i], expected @ np.nan_to_num(values[i]), atol=1e-10)


def test_posteriors_are_those_of_bayes(rng):
    """Against the density of the values and the regression of the truth on them, in another form."""
    mixture = Mixture(np.array([0.3, 0.7]), rng.normal(size=(2, 3)), covariances(rng, 2, 3))
    values, noise = rng.normal(0.0, 2.0, (5, 3)), covariances(rng, 5, 3)
    log_prob, mean, covariance = posterior(evidence_of(values, noise), mixture)
    for i in range(5):
        density = []
        for k in range(2):
            total = mixture.covariance[k] + noise[i]
            density.append(
                np.log(mixture.weight[k])
                + stats.multivariate_normal(mixture.mean[k], total).logpdf(values[i])
            )
            gain = mixture.covariance[k] @ np.linalg.inv(total)
            np.testing.assert_allclose(mean[i, k], mixture.mean[k] + gain @ (values[i] - mixture.mean[k]))
            np.testing.assert_allclose(covariance[i, k], mixture.covariance[k] - gain @ mixture.covariance[k])
        # Up to a constant of the star.
        np.testing.assert_allclose(log_prob[i, 1] - log_prob[i, 0], density[1] - density[0], rtol=1e-8)


def test_moments_of_a_mixture(rng):
    mixture = Mixture(np.array([0.25, 0.75]), np.array([[2.0, 0.0], [-1.0, 1.0]]), covariances(rng, 2, 2))
    mean, covariance = mixture.moments
    np.testing.assert_allclose(mean, [-0.25, 0.75])
    second = sum(
        w * (c + np.outer(m, m))
        for w, m, c in zip(mixture.weight, mixture.mean, mixture.covariance, strict=True)
    )
    np.testing.assert_allclose(covariance, second - np.outer(mean, mean))


def test_one_gaussian_is_the_sample_less_its_noise(rng):
    """The maximum of the likelihood, in closed form; a prior of three stars is a part in ten thousand."""
    noise = np.array([[0.5, 0.2], [0.2, 0.4]])
    truth = Mixture(np.ones(1), np.array([[1.0, -2.0]]), np.array([[[2.0, 0.8], [0.8, 1.0]]]))
    evidence, values = planted(rng, 20_000, truth, noise)
    start = Mixture(np.ones(1), np.zeros((1, 2)), 9.0 * np.eye(2)[None])
    found, _ = deconvolve(evidence, start, np.eye(2), steps=100)
    np.testing.assert_allclose(found.mean[0], values.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(found.covariance[0], np.cov(values.T) - noise, atol=2e-3)


def test_the_likelihood_grows_step_by_step(rng):
    truth = Mixture(np.array([0.5, 0.5]), np.array([[2.0, 0.0], [-2.0, 0.0]]), np.stack([np.eye(2)] * 2))
    evidence, _ = planted(rng, 2000, truth, 0.3 * np.eye(2))
    wide = np.stack([4.0 * np.eye(2)] * 2)
    mixture = Mixture(np.array([0.9, 0.1]), np.array([[0.5, 0.3], [-0.5, 0.0]]), wide)
    before = -np.inf
    for _ in range(80):
        mixture, total = deconvolve(evidence, mixture, np.eye(2), steps=1)
        assert total > before - 0.05
        before = total
    np.testing.assert_allclose(np.sort(mixture.mean[:, 0]), [-2.0, 2.0], atol=0.3)


def test_stars_of_no_weight_do_not_count(rng):
    noise = 0.1 * np.eye(2)
    truth = Mixture(np.ones(1), np.zeros((1, 2)), np.eye(2)[None])
    evidence, _ = planted(rng, 500, truth, noise)
    wild = evidence_of(np.full((100, 2), 30.0), np.tile(noise, (100, 1, 1)))
    both = Evidence(*(np.concatenate(x) for x in zip(evidence, wild, strict=True)))
    weight = np.repeat([1.0, 0.0], [500, 100])
    found, _ = deconvolve(both, truth, np.eye(2), 10, weight)
    expected, _ = deconvolve(evidence, truth, np.eye(2), 10)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)


def test_the_criterion_finds_how_many_there_are(rng):
    noise = 0.2 * np.eye(2)
    two = Mixture(np.array([0.4, 0.6]), np.array([[4.0, 0.0], [-3.0, 1.0]]), np.stack([np.eye(2)] * 2))
    one = Mixture(np.ones(1), np.zeros((1, 2)), np.array([[[4.0, 1.0], [1.0, 1.0]]]))
    found = choose_mixture(planted(rng, 800, two, noise)[0], 3, rng)
    order = np.argsort(found.mean[:, 0])[::-1]
    np.testing.assert_allclose(found.weight[order], two.weight, atol=0.06)
    np.testing.assert_allclose(found.mean[order], two.mean, atol=0.25)
    assert len(choose_mixture(planted(rng, 800, one, noise)[0], 3, rng).weight) == 1
    # Too few stars for a second component.
    assert len(choose_mixture(planted(rng, 20, two, noise)[0], 3, rng).weight) == 1
