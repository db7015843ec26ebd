"""Bands hold the stated share of uniform ranks, whole curves at once, and p-values are uniform."""

import itertools

import numpy as np
import pytest

from jaxspec.diagnostics.bands import (
    rank_distribution,
    rank_points,
    simultaneous_band,
    stays_inside,
    uniformity,
)
from jaxspec.errors import InputError


def inside(found, band):
    return np.all((found >= band.low[:, None] - 1e-12) & (found <= band.high[:, None] + 1e-12), axis=0)


def test_probability_to_stay_inside_by_counting_every_case():
    """Five stars, ranks 0 ... 3: all 1024 outcomes one by one."""
    at, low, high = np.array([0.25, 0.5, 0.75]), np.array([0, 1, 2]), np.array([2, 4, 5])
    outcomes = np.array(list(itertools.product(range(4), repeat=5)))
    counts = np.stack([(outcomes < j).sum(axis=1) for j in (1, 2, 3)], axis=1)
    share = np.mean(np.all((counts >= low) & (counts <= high), axis=1))
    assert stays_inside(5, at, low, high) == pytest.approx(share, rel=1e-12)
    assert stays_inside(5, at, high + 1, high) == 0.0


@pytest.mark.parametrize(("n", "n_draws", "level"), [(100, 60, 0.9), (1000, 500, 0.95), (1000, 99, 0.99)])
def test_uniform_ranks_stay_inside_at_the_stated_rate(rng, n, n_draws, level):
    """4000 sets: within four binomial sigma, and above by no more than counts being whole explains."""
    points = rank_points(n_draws)
    band = simultaneous_band(n, points / (n_draws + 1), level)
    found = rank_distribution(rng.integers(0, n_draws + 1, (n, 4000)), points)
    share, sigma = inside(found, band).mean(), np.sqrt(level * (1 - level) / 4000)
    assert level - 4 * sigma < share < level + 0.01 * (level < 0.98) + 4 * sigma
    # Each point by itself is held far more often: that is the price of all at once.
    alone = (found >= band.low[:, None] - 1e-12) & (found <= band.high[:, None] + 1e-12)
    assert alone.mean() > 1 - 0.25 * (1 - level)


@pytest.mark.parametrize(("stretch", "shift"), [(0.7, 0.0), (1.4, 0.0), (1.0, 0.3)])
def test_wrong_posteriors_leave_the_band(rng, stretch, shift):
    """Too narrow: the curve is above at low ranks and below at high ones; too wide the other way round."""
    truth = rng.normal(size=(800, 1))
    rank = np.sum(shift + stretch * rng.normal(size=(200, 800, 1)) < truth, axis=0)
    points = rank_points(200)
    band = simultaneous_band(800, points / 201, 0.99)
    found = rank_distribution(rank, points)[:, 0]
    above, below = found > band.high, found < band.low
    left, right = band.at < 0.5, band.at > 0.5
    assert (above[left].any() and below[right].any()) == (stretch < 1)
    assert (below[left].any() and above[right].any()) == (stretch > 1)
    assert (above.any() and not below.any()) == (shift > 0)
    assert uniformity(rank, 200)[0] < 1e-6


def test_p_values_are_uniform_and_agree_with_the_band(rng):
    n, n_draws = 300, 100
    rank = rng.integers(0, n_draws + 1, (n, 500))
    p = uniformity(rank, n_draws)
    # Never smaller than uniform, up to four binomial sigma, and not much larger.
    for level in (0.05, 0.2, 0.5):
        assert abs(np.mean(p <= level) - level) < 4 * np.sqrt(level * (1 - level) / 500) + 0.01
    points = rank_points(n_draws)
    outside = ~inside(rank_distribution(rank, points), simultaneous_band(n, points / (n_draws + 1), 0.9))
    np.testing.assert_array_equal(outside[p > 0.101], False)
    np.testing.assert_array_equal(outside[p < 0.09], True)


def test_few_draws_are_compared_at_every_rank():
    np.testing.assert_array_equal(rank_points(4), [1, 2, 3, 4])
    rank = np.array([[0], [1], [1], [4]])
    np.testing.assert_allclose(rank_distribution(rank, rank_points(4))[:, 0], [0.25, 0.75, 0.75, 0.75])


@pytest.mark.parametrize(("n", "at", "level"), [(0, [0.5], 0.9), (5, [0.0, 0.5], 0.9), (5, [0.5], 1.0)])
def test_impossible_bands_are_refused(n, at, level):
    with pytest.raises(InputError, match="simultaneous_band"):
        simultaneous_band(n, np.array(at), level)
