"""Tables that hold the same measurements: one table under two names, or a compilation of another.

The survey model takes tables as independent. Measurements that are counted twice make every error too small,
and nothing in the fit shows it. Independent measurements differ by about their quoted errors; copies do not.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.stats import binom

from jaxspec.catalogues.catalogue import Catalogue
from jaxspec.catalogues.crossmatch import Match
from jaxspec.errors import InputError

# A star's label is a copy when both tables agree, but for a constant, to this share of the quoted errors;
# independent measurements do by chance in one of 25, or in one of five when errors are stated threefold and
# values are rounded.
SHARE, CHANCE = 0.05, 0.2
# Fewest copies that count, shares of the common stars from which on they are told (of several labels) and
# refused, false-alarm rate.
FEWEST, SOME, MOST, FALSE_ALARM = 5, 0.1, 0.5, 1e-6
# Labels whose differences scatter by less than this share of the quoted errors, over so many stars, were not
# measured twice.
SCATTER, MANY = 0.15, 10


class Copies(NamedTuple):
    """Of two catalogues by number: their common stars with shared labels, how many of them are copies in
    every label that both have, and by label the scatter of differences in units of the quoted errors."""

    a: int
    b: int
    common: int
    copied: int
    scatter: dict[str, float]


def find_copies(catalogues: Sequence[Catalogue], match: Match) -> list[Copies]:
    """All pairs of catalogues that share `FEWEST` stars and a label."""
    out = []
    for a in range(len(catalogues)):
        for b in range(a + 1, len(catalogues)):
            left, right = catalogues[a], catalogues[b]
            x, y = _nearest_rows(left, match.star[a], right, match.star[b])
            difference = right.labels[y] - left.labels[x]
            error = np.sqrt(left.errors[x] ** 2 + right.errors[y] ** 2)
            shared = np.isfinite(difference) & np.isfinite(error) & (error > 0)
            stars = shared.any(1)
            if stars.sum() < FEWEST:
                continue
            apart, scatter = np.full(difference.shape, np.inf), {}
            for j, label in enumerate(left.label_set.names):
                rows = shared[:, j]
                if rows.sum() < FEWEST:
                    continue
                # Solar scales and the like differ by a constant, the most frequent difference.
                z = difference[rows, j] / error[rows, j]
                centred = (difference[rows, j] - _mode(difference[rows, j])) / error[rows, j]
                apart[rows, j] = np.minimum(np.abs(z), np.abs(centred))
                scatter[label] = float(1.4826 * np.median(np.abs(z - np.median(z))))
            copied = (apart < SHARE) | ~shared
            out.append(Copies(a, b, int(stars.sum()), int((copied.all(1) & stars).sum()), scatter))
    return out


def check_copies(catalogues: Sequence[Catalogue], match: Match) -> list[str]:
    """Warnings of tables that share measurements, one sentence a pair.

    Raises `InputError` naming two tables of which half the common stars, or all that one label says, are the
    same measurements.
    """
    notes = []
    for pair in find_copies(catalogues, match):
        left, right = catalogues[pair.a].name, catalogues[pair.b].name
        chance = binom.sf(pair.copied - 1, pair.common, CHANCE ** min(2, max(1, len(pair.scatter))))
        # Errors that are stated too large make differences small, too, but not in every label of every star.
        if pair.copied >= FEWEST and pair.copied > MOST * pair.common and chance < FALSE_ALARM:
            raise InputError(
                f"tables {left} and {right}",
                f"the same measurements of {pair.copied} of {pair.common} common stars: they differ by less "
                f"than {SHARE:g} of their quoted errors",
                "tables that were measured independently",
                f"leave {right} out, or select: its rows of other sources",
            )
        some = SOME if len(pair.scatter) > 1 else MOST
        if pair.copied >= max(FEWEST, some * pair.common) and chance < FALSE_ALARM:
            notes.append(
                f"{left} and {right}: {pair.copied} of {pair.common} common stars have the same measurements "
                f"in both (a compilation?); they count twice, and errors come out too small"
            )
        small = [f"{label} {value:.2f}" for label, value in pair.scatter.items() if value < SCATTER]
        if small and pair.common >= MANY:
            notes.append(
                f"{left} and {right}: differences scatter by far less than the quoted errors "
                f"({', '.join(small)} of them): the same measurements, or errors that are far too large"
            )
    return notes


def _mode(difference: Float[np.ndarray, " n"]) -> float:
    """The most frequent difference: the middle of the shortest interval that holds half of them."""
    ordered = np.sort(difference)
    half = len(ordered) // 2 + 1
    width = ordered[half - 1 :] - ordered[: len(ordered) - half + 1]
    start = int(np.argmin(width))
    return float(np.median(ordered[start : start + half]))


def _nearest_rows(left: Catalogue, star_a: np.ndarray, right: Catalogue, star_b: np.ndarray):
    """Rows of both catalogues of each common star; of several rows of the second, the one that is most like
    the first's."""
    stars, first = np.unique(star_a, return_index=True)
    position = np.searchsorted(stars, star_b)
    common = (position < len(stars)) & (stars[np.minimum(position, len(stars) - 1)] == star_b)
    y = np.flatnonzero(common)
    x = first[position[y]]
    error = np.sqrt(left.errors[x] ** 2 + right.errors[y] ** 2)
    z = np.abs(right.labels[y] - left.labels[x]) / error
    size = np.where(np.isfinite(z), z, 0.0).max(axis=1, initial=0.0)
    order = np.lexsort((size, x))
    _, keep = np.unique(x[order], return_index=True)
    return x[order][keep], y[order][keep]
