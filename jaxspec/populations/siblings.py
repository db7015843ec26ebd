"""Stars of one cluster among field stars: how many clusters chemistry alone gives back, and how often two
field stars are as alike as two siblings.

Both depend on a distance. Here it counts in measurement errors: stars are whitened by the typical covariance
of an error, correlations included, so that siblings scatter alike in all directions.
"""

from __future__ import annotations

import warnings

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment

from jaxspec.populations.comparators import HDBSCAN_SIZES
from jaxspec.populations.extras import scikit_learn
from jaxspec.populations.stars import Scale, Stars

SHARE = 0.5  # purity and completeness of a cluster that counts as recovered
SIZE = 5  # smallest cluster that is looked for
PAIRS = 200_000


def whitened(stars: Stars) -> Float[np.ndarray, "n l"]:
    """Labels in which the median error of a star is the unit matrix; missing labels become the median."""
    filled = np.where(stars.measured, stars.values, np.nanmedian(stars.values, axis=0))
    covariance = np.nanmedian(stars.covariance, axis=0)
    value, vector = np.linalg.eigh(0.5 * (covariance + covariance.T))
    floor = max(1e-9, 1e-6 * float(value[-1]))  # of labels without errors
    return (filled - filled.mean(0)) @ vector / np.sqrt(np.maximum(value, floor))


def recovered(group: Int[np.ndarray, " n"], truth: Int[np.ndarray, " n"]) -> int:
    """Number of clusters (`truth` >= 0) that a group matches with a purity and a completeness of `SHARE`."""
    mine, theirs = int(group.max()) + 1, int(truth.max()) + 1
    if mine <= 0 or theirs <= 0:
        return 0
    shared = np.zeros((theirs, mine))
    both = (group >= 0) & (truth >= 0)
    np.add.at(shared, (truth[both], group[both]), 1.0)
    completeness = shared / np.maximum(np.bincount(truth[truth >= 0], minlength=theirs), 1)[:, None]
    purity = shared / np.maximum(np.bincount(group[group >= 0], minlength=mine), 1)
    good = (completeness >= SHARE) & (purity >= SHARE)
    rows, columns = linear_sum_assignment(-good.astype(float))
    return int(good[rows, columns].sum())


def recovery(stars: Stars, truth: Int[np.ndarray, " n"]) -> dict[str, dict[str, float]]:
    """Clusters that HDBSCAN recovers with stars whitened by their errors and one setting, and at its best
    setting with point values scaled by their spread, with and without field stars.

    Raises: InputError without scikit-learn.
    """
    cluster = scikit_learn("cluster")
    total = len(np.unique(truth[truth >= 0]))
    out: dict[str, dict[str, float]] = {}
    for where, rows in (("with field", np.ones(len(truth), bool)), ("without field", truth >= 0)):
        some, known = stars.rows(rows), truth[rows]
        points = {
            "error-scaled": whitened(some),
            "point values": np.nan_to_num(Scale.of(some).apply(some)[0]),
        }
        for name, x in points.items():
            found = {}
            for size in (SIZE,) if name == "error-scaled" else HDBSCAN_SIZES:
                for selection in ("leaf",) if name == "error-scaled" else ("leaf", "eom"):
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        model = cluster.HDBSCAN(
                            min_cluster_size=size,
                            min_samples=3,
                            cluster_selection_method=selection,
                            copy=True,
                        )
                        group = model.fit_predict(x)
                    found[size, selection] = (recovered(group, known), int(group.max()) + 1)
            best = max(found.values())
            out[f"{name}, {where}"] = {"recovered": best[0], "groups": best[1], "clusters": total}
    return out


def alike(stars: Stars, truth: Int[np.ndarray, " n"], seed: int = 1) -> float:
    """Share of pairs of field stars that are at least as alike as the median pair of siblings (the rate of
    doppelgangers of Ness et al. 2018, ApJ 853, 198; de Mijolla & Ness 2022, ApJ 926, 193)."""
    points, rng = whitened(stars), np.random.default_rng(seed)
    siblings = []
    for c in np.unique(truth[truth >= 0]):
        x = points[truth == c]
        i, j = np.triu_indices(len(x), 1)
        siblings.append(((x[i] - x[j]) ** 2).sum(1))
    limit = np.median(np.concatenate(siblings))
    field = points[truth < 0]
    i, j = rng.integers(len(field), size=(2, PAIRS))
    distance = ((field[i] - field[j]) ** 2).sum(1)[i != j]
    return float((distance <= limit).mean())
