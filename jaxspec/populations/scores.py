"""How good memberships are where the truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment

from jaxspec.populations.extras import scikit_learn
from jaxspec.populations.members import Members

BINS = 10


class ClassScore(NamedTuple):
    """One true class against the group matched with it.

    Attributes:
        stars: in the class.
        purity, completeness: of the group's stars the share in the class, and of the class's stars the share
            in the group; each star in its most probable group.
        precision: area under the precision-recall curve of the group's probability.
        roc: area under the receiver operating characteristic.
        purity_at_90: purity of the most probable stars that hold 90 % of the class.
    """

    stars: int
    purity: float
    completeness: float
    precision: float
    roc: float
    purity_at_90: float


class Scores(NamedTuple):
    """All of a method on a set of stars.

    Attributes:
        rand: adjusted Rand index of most probable groups against classes.
        mutual: adjusted mutual information of the same.
        calibration: mean of |share that belongs - mean probability| over bins of stars with like probability
            of belonging to a class; 0 where probabilities hold.
        classes: by name.
    """

    rand: float
    mutual: float
    calibration: float
    classes: dict[str, ClassScore]


def score(members: Members, truth: Int[np.ndarray, " n"], names: Sequence[str]) -> Scores:
    """Scores of memberships against the class of each star.

    Args:
        truth: index into `names`; stars of -1 are of no known class and left out.

    Groups are matched with classes one to one, so that their stars agree most.
    """
    metrics = scikit_learn("metrics")
    known = truth >= 0
    truth, probability = truth[known], members.probability[known]
    group = members.group[known]
    matched = match_groups(probability, truth, len(names))
    classes, errors = {}, []
    for c, name in enumerate(names):
        mine = truth == c
        g = matched[c]
        p = probability[:, g] if g >= 0 else np.zeros(len(truth))
        chosen = group == g + 1 if g >= 0 else np.zeros(len(truth), bool)
        both, judged = float(np.count_nonzero(mine & chosen)), 0 < mine.sum() < len(mine)
        classes[name] = ClassScore(
            int(mine.sum()),
            both / max(1, int(chosen.sum())),
            both / max(1, int(mine.sum())),
            float(metrics.average_precision_score(mine, p)) if judged else float("nan"),
            float(metrics.roc_auc_score(mine, p)) if judged else float("nan"),
            purity_at(mine, p, 0.9),
        )
        errors.append(calibration_error(mine, p))
    return Scores(
        float(metrics.adjusted_rand_score(truth, group)),
        float(metrics.adjusted_mutual_info_score(truth, group)),
        float(np.mean(errors)),
        classes,
    )


def match_groups(
    probability: Float[np.ndarray, "n g"], truth: Int[np.ndarray, " n"], count: int
) -> Int[np.ndarray, " c"]:
    """The group of each class, -1 for classes that have none: one to one, by the stars expected in both,
    relative to their numbers (Jaccard)."""
    onehot = np.eye(count)[truth]
    both = onehot.T @ probability
    either = onehot.sum(0)[:, None] + probability.sum(0) - both
    rows, columns = linear_sum_assignment(-both / np.maximum(either, 1e-9))
    matched = np.full(count, -1)
    matched[rows] = columns
    return matched


def purity_at(mine: np.ndarray, probability: Float[np.ndarray, " n"], completeness: float) -> float:
    """Purity of the stars above the highest threshold that keeps this share of the class; stars of one
    probability are taken or left together."""
    if not mine.any():
        return float("nan")
    ranked = np.sort(probability[mine])[::-1]
    threshold = ranked[int(np.ceil(completeness * len(ranked))) - 1]
    return float(mine[probability >= threshold].mean())


def calibration_error(mine: np.ndarray, probability: Float[np.ndarray, " n"], bins: int = BINS) -> float:
    """Mean distance of frequency from probability over bins of equal width, weighted by their stars."""
    index = np.clip((probability * bins).astype(int), 0, bins - 1)
    count = np.bincount(index, minlength=bins)
    gap = np.bincount(index, mine - probability, minlength=bins)
    return float(np.abs(gap).sum() / max(1, count.sum()))
