"""The usual way to put surveys on one scale, to compare with: polynomials of differences of common stars.

Each survey is fitted to a reference by least squares over the stars that both have, label by label, with the
survey's own Teff, log g and [Fe/H] as variables (Nandakumar et al. 2022, MNRAS 513, 232; Tsantaki et al.
2022, A&A 659, A95). Surveys that share too few stars with the reference go through the one that shares most.
"""

from itertools import combinations_with_replacement

import numpy as np
from jaxtyping import Float

from jaxspec.surveys.observations import Sky

CLIP = 4.0


def _features(stellar: tuple[np.ndarray, ...], degree: int) -> np.ndarray:
    """Powers of teff, logg and fe_h, about a typical star and in units of the usual spread."""
    u = (np.stack(stellar, axis=1) - [5300.0, 3.5, -0.3]) / [600.0, 0.9, 0.4]
    columns = [np.ones(len(u)), *u.T]
    if degree > 1:
        columns += [a * b for a, b in combinations_with_replacement(u.T, 2)]
    return np.column_stack(columns)


def _fit(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Least squares with three rounds of clipping."""
    keep = np.isfinite(y) & np.isfinite(x).all(axis=1)
    for _ in range(3):
        solution = np.linalg.lstsq(x[keep], y[keep], rcond=None)[0]
        residual = y - x @ solution
        scatter = 1.4826 * np.median(np.abs(residual[keep]))
        keep = np.isfinite(residual) & (np.abs(residual) < CLIP * scatter)
    return solution


def pairwise_labels(sky: Sky, degree: int = 1) -> list[Float[np.ndarray, "m l"]]:
    """Each survey's values on the scale of the first anchor (without anchors, of the largest survey), by
    polynomials of the given degree."""
    anchors = [i for i, survey in enumerate(sky.surveys) if survey.anchor]
    largest = int(np.argmax([len(survey) for survey in sky.surveys]))
    first = anchors[0] if anchors else largest
    n_terms = _features((np.zeros(1),) * 3, degree).shape[1]
    scaled: dict[int, np.ndarray] = {first: np.asarray(sky.surveys[first].values, float)}
    while len(scaled) < len(sky.surveys):
        best, pair = -1, (0, first)
        for s in set(range(len(sky.surveys))) - set(scaled):
            for r in scaled:
                common = len(np.intersect1d(sky.surveys[s].star, sky.surveys[r].star))
                if common > best:
                    best, pair = common, (s, r)
        s, r = pair
        survey, reference = sky.surveys[s], sky.surveys[r]
        _, i, j = np.intersect1d(survey.star, reference.star, return_indices=True)
        x = _features(sky.label_set.stellar(survey.values), degree)
        result = np.array(survey.values, float)
        for label in range(result.shape[1]):
            difference = survey.values[i, label] - scaled[r][j, label]
            usable = np.isfinite(difference) & np.isfinite(x[i]).all(axis=1)
            if usable.sum() > 2 * n_terms:
                result[:, label] -= x @ _fit(x[i], difference)
            elif usable.any():
                result[:, label] -= np.median(difference[usable])
        scaled[s] = result
    return [scaled[s] for s in range(len(sky.surveys))]
