"""The local classifier test on Gaussian posteriors that are exact, or wrong by construction."""

import numpy as np
import pytest

from jaxspec.diagnostics.bands import uniformity
from jaxspec.diagnostics.calibration import ranks
from jaxspec.diagnostics.classifier import ClassifierConfig, _kernel, local_test
from jaxspec.errors import InputError


def correlated(rng, shape, r):
    z = rng.normal(size=(*shape, 2))
    return np.stack([z[..., 0], r * z[..., 0] + np.sqrt(1 - r**2) * z[..., 1]], axis=-1)


def toy(rng, n, n_draws, correlation=0.6, stretch=1.0):
    """Truth and draws about an estimate; the truth's own correlation is 0.6."""
    estimate = 2.0 * rng.normal(size=(n, 2))
    noise = stretch * correlated(rng, (n_draws, n), correlation)
    return estimate + correlated(rng, (n,), 0.6), estimate + noise


def test_p_values_of_exact_posteriors_are_uniform(rng):
    """100 sets; the p-values are ranks among 20, so they can be held against the ranks' own test. With draws
    this few, one that had a part in its star's own moments would be told from the truth at once."""
    config = ClassifierConfig(n_null=19, n_draws=4)
    found = [local_test(*toy(rng, 60, 8), config, seed) for seed in range(100)]
    place = np.array([[round(20 * result.p_global) - 1] for result in found])
    assert uniformity(place, 19)[0] > 1e-3
    assert abs(np.mean([result.p.mean() for result in found]) - 0.525) < 0.1


def test_wrong_correlation_is_seen_though_each_label_alone_is_right(rng):
    truth, draws = toy(rng, 400, 100, correlation=-0.3)
    assert uniformity(ranks(truth, draws), 100).min() > 1e-3
    found = local_test(truth, draws)
    assert found.p_global == 1 / 200 and np.mean(found.p <= 0.05) > 0.5


def test_the_stars_that_are_wrong_are_found(rng):
    """Too narrow on one side of the first label, exact on the other."""
    truth, draws = toy(rng, 800, 100)
    centre = draws.mean(axis=0)
    wrong = centre[:, 0] > 0
    draws = np.where(wrong[:, None], centre + 0.5 * (draws - centre), draws)
    found = local_test(truth, draws)
    assert found.p_global == 1 / 200
    assert np.mean(found.p[wrong] <= 0.05) > 0.8
    far = np.abs(centre[:, 0]) > 1
    assert np.median(found.statistic[wrong & far]) > 3 * np.median(found.statistic[~wrong & far])


def test_kernel_is_of_the_features_that_it_names(rng):
    a, b = rng.normal(size=(5, 3)), rng.normal(size=(4, 3))

    def products(x):
        i, j = np.triu_indices(3)
        return x[:, i] * x[:, j] - (i == j)

    gaussian = np.exp(-0.5 * np.sum((a[:, None] - b) ** 2, axis=2) / 3)
    expected = (a @ b.T / 3 + products(a) @ products(b).T / 9 + gaussian) / 3
    np.testing.assert_allclose(_kernel(a, b), expected, rtol=1e-10)


def test_too_few_draws_are_refused(rng):
    truth, draws = toy(rng, 30, 7)
    with pytest.raises(InputError, match="draw more"):
        local_test(truth, draws)
