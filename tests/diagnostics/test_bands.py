"""Bands hold the stated share of uniform ranks, whole curves at once, and p-values are uniform."""

import itertools

import numpy as np
import pytest
from scipy import stats

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


@pytest.mark.parametrize("n", [50, 5000, 20_000, 100_000])
def test_gross_faults_are_never_passed(rng, n):
    """Their probability underflows, which once came out as a p-value of one."""
    z = rng.normal(size=n)
    wrong = {f"errors {s} of the right size": stats.norm.cdf(z / s) for s in (0.1, 0.3, 0.5)}
    wrong |= {
        "all at the bottom": np.zeros(n),
        "all at the top": np.ones(n),
        "all in the middle": 0.5 + 0 * z,
    }
    wrong["half and half"] = np.where(np.arange(n) < n // 2, 0.0, 1.0)
    for name, u in wrong.items():
        p = uniformity(np.round(500 * u).astype(int)[:, None], 500)[0]
        assert 0.0 < p < 1e-3, f"{name}: p = {p}"
    # Even a tenth too small is seen in many stars.
    slight = uniformity(np.round(500 * stats.norm.cdf(z / 0.9)).astype(int)[:, None], 500)[0]
    assert slight < 1e-3 or n < 5000
    right = uniformity(rng.integers(0, 501, (n, 3)), 500)
    assert np.all(right > 1e-4)


@pytest.mark.parametrize(("n", "sets"), [(50, 2000), (1000, 2000), (100_000, 200)])
def test_p_values_are_those_of_simulated_ranks(rng, n, sets):
    """Of simulated uniform ranks, the share whose least likely point is as unlikely is the p-value."""
    n_draws, points = 60, rank_points(60)
    uniform = rng.multinomial(n, np.full(n_draws + 1, 1.0 / (n_draws + 1)), sets)
    below = np.cumsum(uniform, axis=1)[:, points - 1]
    at = points / (n_draws + 1)
    tails = np.minimum(stats.binom.cdf(below, n, at), stats.binom.sf(below - 1, n, at)).min(axis=1)
    for level in (0.5, 0.1, 0.02):
        i = np.argsort(tails)[int(level * sets)]
        rank = np.repeat(np.arange(n_draws + 1), uniform[i])[:, None]
        p, simulated = uniformity(rank, n_draws)[0], np.mean(tails <= tails[i])
        assert abs(p - simulated) < 4.5 * np.sqrt(simulated * (1.0 - simulated) / sets) + 1e-3


def test_impossible_ranks_are_refused():
    for rank in (np.array([[-1]]), np.array([[501]]), np.zeros((0, 1), int)):
        with pytest.raises(InputError, match="uniformity: rank"):
            uniformity(rank, 500)
