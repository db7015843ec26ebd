"""Are ranks uniform: bands that a whole empirical distribution stays within, and p-values that go with them.

A pointwise band is left somewhere by most curves that are fine. Here the coverage of each point is raised
until all of them together hold with the stated probability (Saeilynoja, Buerkner & Vehtari 2022, Stat.
Comput. 32, 32). That probability is computed exactly, not by their simulations: counts of n uniform numbers
are a Poisson process given that it ends at n, whose increments are independent, so that the probability to
stay inside goes from point to point by one convolution (Moscovich & Nadler 2017, Stat. Probab. Lett. 123,
177).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from jaxspec.errors import InputError

N_POINTS = 100
LEVEL = 0.99
TOO_SMALL = 1e-9
"""Probability of a point below which the chance to leave the band anywhere drowns in rounding."""


class Band(NamedTuple):
    """Where the empirical distribution function of uniform numbers lies, all points at once.

    Attributes:
        at: the exact distribution function at the points, `[k]`.
        low, high: edges of the band, fractions, `[k]`; on the edge is inside.
    """

    at: Float[np.ndarray, " k"]
    low: Float[np.ndarray, " k"]
    high: Float[np.ndarray, " k"]


def simultaneous_band(n: int, at: Float[np.ndarray, " k"], level: float = LEVEL) -> Band:
    """The band that the empirical distribution of `n` uniform numbers stays within at all points `at` with
    probability `level` or a little more (counts are whole).

    Args:
        at: distribution function at the points, ascending, inside (0, 1).

    Raises: InputError for points or a level outside (0, 1), or no star.
    """
    at = np.asarray(at, float)
    inside = at.size > 0 and np.all(np.diff(at, prepend=0.0, append=1.0) > 0.0)
    if n < 1 or not inside or not 0.0 < level < 1.0:
        raise InputError(
            "simultaneous_band",
            f"n = {n}, level = {level}, {at.size} points",
            "n >= 1, a level and ascending points between 0 and 1",
            "leave the ends 0 and 1 out, and give at least one star",
        )
    # Equal tails of probability tail / 2 at every point. At tail = (1 - level) / k Bonferroni holds already.
    wide, narrow = np.log((1.0 - level) / at.size), np.log(1.0 - level)
    for _ in range(30):
        middle = 0.5 * (wide + narrow)
        if stays_inside(n, at, *_counts(n, at, np.exp(middle))) >= level:
            wide = middle
        else:
            narrow = middle
    low, high = _counts(n, at, np.exp(wide))
    return Band(at, low / n, high / n)


def stays_inside(
    n: int, at: Float[np.ndarray, " k"], low: Int[np.ndarray, " k"], high: Int[np.ndarray, " k"]
) -> float:
    """Probability that of `n` uniform numbers between `low` and `high` (both included) lie below each of
    `at`."""
    state, start, where = np.ones(1), 0, 0.0
    for point, bottom, top in zip([*at, 1.0], [*low, n], [*high, n], strict=True):
        if top < bottom:
            return 0.0
        added = stats.poisson.pmf(np.arange(top - start + 1), n * (point - where))
        state = np.convolve(state, added)[bottom - start : top - start + 1]
        # Counts never fall: what lies above the band so far is gone, what lies below comes up.
        start, where = int(bottom), point
    return float(min(state[0] / stats.poisson.pmf(n, n), 1.0))


def rank_points(n_draws: int, n_points: int = N_POINTS) -> Int[np.ndarray, " k"]:
    """Whole ranks, at most `n_points`, spread evenly over 1 ... `n_draws`."""
    return np.unique(np.linspace(1, n_draws, min(n_points, n_draws)).round().astype(int))


def rank_distribution(
    rank: Int[np.ndarray, "n l"], points: Int[np.ndarray, " k"]
) -> Float[np.ndarray, "k l"]:
    """Fraction of stars whose rank is below each of `points`. For uniform ranks on 0 ... s it is
    `points / (s + 1)`."""
    ordered = np.sort(rank, axis=0)
    return np.stack([np.searchsorted(column, points) for column in ordered.T], axis=1) / len(rank)


def uniformity(rank: Int[np.ndarray, "n l"], n_draws: int) -> Float[np.ndarray, " l"]:
    """p-value that the ranks of each label are uniform on 0 ... `n_draws`.

    The statistic is the least likely point of the empirical distribution (its two-sided binomial
    probability); the p-value is the exact probability that uniform ranks have one as unlikely anywhere.
    p <= 0.01 and a curve that leaves its `simultaneous_band` of 99 % are the same thing, but for the rounding
    of counts. Where the least likely point has a probability below `TOO_SMALL`, the p-value is Bonferroni's:
    that probability times the number of points, which the exact one does not exceed.

    Raises: InputError for ranks outside of 0 ... `n_draws`, or none.
    """
    rank = np.asarray(rank)
    if rank.size == 0 or rank.min() < 0 or rank.max() > n_draws:
        found = "no rank" if rank.size == 0 else f"{rank.min()} ... {rank.max()}"
        raise InputError(
            "uniformity: rank", found, f"whole numbers in 0 ... {n_draws}", "count draws below the truth"
        )
    n, points = len(rank), rank_points(n_draws)
    at = points / (n_draws + 1)
    counts = np.round(rank_distribution(rank, points) * n).astype(int)
    out = np.empty(rank.shape[1])
    for i, count in enumerate(counts.T):
        tails = np.minimum(stats.binom.cdf(count, n, at), stats.binom.sf(count - 1, n, at))
        tail = min(2.0 * float(tails.min()), 1.0)
        if tail < TOO_SMALL:
            # Never 0: p-values are combined by their logarithms.
            out[i] = max(at.size * tail, np.finfo(float).tiny)
            continue
        # Counts exactly as unlikely as the one found must be outside.
        out[i] = max(1.0 - stays_inside(n, at, *_counts(n, at, tail * (1.0 + 1e-9))), 0.5 * tail)
    return out


def _counts(n, at, tail):
    """Smallest and largest counts whose own two-sided probability is `tail` or more, at each point."""
    # SciPy's quantile of a probability that underflows is -1.
    low = np.clip(stats.binom.ppf(0.5 * tail, n, at), 0, n)
    high = np.clip(stats.binom.isf(min(0.5 * tail, 1.0), n, at), 0, n)
    return low.astype(int), high.astype(int)
