"""How good labels of a survey are where they are known, and what alignment left of a difference."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from jaxspec.errors import InputError
from jaxspec.labels import LabelSet

RIDGE = 1e-3
FOLDS = 5


def score(
    truth: Float[np.ndarray, "n l"], draws: Float[np.ndarray, "d n l"], label_set: LabelSet
) -> dict[str, dict[str, float]]:
    """Per label the bias (median error of the posterior means), robust scatter (1.4826 times the median
    distance from it), RMSE, and the share of truths in the central 68 % and 95 % of the draws; in the label's
    unit."""
    mean = draws.mean(axis=0, dtype=np.float64)
    quantiles = np.quantile(draws, [0.025, 0.16, 0.84, 0.975], axis=0)
    out = {}
    for i, name in enumerate(label_set.names):
        error = mean[:, i] - truth[:, i]
        low95, low68, high68, high95 = quantiles[..., i]
        inside68 = (truth[:, i] >= low68) & (truth[:, i] <= high68)
        inside95 = (truth[:, i] >= low95) & (truth[:, i] <= high95)
        out[name] = {
            **errors(error),
            "coverage_68": float(np.mean(inside68)),
            "coverage_95": float(np.mean(inside95)),
        }
    return out


def errors(error: Float[np.ndarray, " n"]) -> dict[str, float]:
    """Bias, robust scatter and RMSE of errors."""
    bias = float(np.median(error))
    scatter = float(1.4826 * np.median(np.abs(error - bias)))
    return {"bias": bias, "scatter": scatter, "rmse": float(np.sqrt(np.mean(error**2)))}


def gap_closed(source_only: float, ceiling: float, method: float, least: float = 0.05) -> float | None:
    """The share of the gap between source-only and target-trained RMSE that a method closes: 1 all of it,
    below 0 harm. None where the gap is less than `least` of the source-only RMSE: nothing is to be closed."""
    if source_only - ceiling < least * source_only:
        return None
    return (source_only - method) / (source_only - ceiling)


def separability(
    a: Float[np.ndarray, "n c"],
    b: Float[np.ndarray, "m c"],
    weight: Float[np.ndarray, " n"] | None = None,
    seed: int = 0,
) -> float:
    """How well a fresh classifier tells two samples apart: the area under its ROC curve on stars that it did
    not see, 0.5 for not at all, 1 for always.

    The classifier is regularised least squares on the summaries and 300 random Fourier features of them; each
    fifth of the stars is judged by the other four. With a `weight`, stars of `a` count so much: then 0.5 says
    that the two differ by nothing else than the weights take out.

    Raises: InputError for fewer than 50 stars in either.
    """
    if min(len(a), len(b)) < 50:
        raise InputError("separability", f"{len(a)} and {len(b)} stars", "50 or more", "give more stars")
    rng = np.random.default_rng(seed)
    x = np.concatenate([a, b]).astype(np.float64)
    x = (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-9)
    # Directions of little variance would drown in those of much: whiten those that hold anything.
    _, size, axes = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    kept = size > 0.01 * size[0]
    x = (x @ axes[kept].T) / (size[kept] / np.sqrt(len(x)))
    d = x.shape[1]
    features = [np.ones((len(x), 1)), x]
    for width in (0.5, 1.5):
        frequency = rng.normal(size=(d, 150)) / (width * np.sqrt(d))
        features.append(np.sqrt(2.0 / 150) * np.cos(x @ frequency + rng.uniform(0, 2 * np.pi, 150)))
    f = np.concatenate(features, axis=1)
    answer = np.repeat([0.0, 1.0], [len(a), len(b)])
    w = np.ones(len(x))
    if weight is not None:
        w[: len(a)] = weight
    for half in (slice(0, len(a)), slice(len(a), None)):
        w[half] /= w[half].sum()
    fold = rng.permutation(len(x)) % FOLDS
    judged = np.empty(len(x))
    for i in range(FOLDS):
        train = fold != i
        g = f[train] * w[train][:, None]
        gram = g.T @ f[train]
        gram += RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
        judged[~train] = f[~train] @ np.linalg.solve(gram, g.T @ (answer[train] - 0.5))
    return weighted_auc(judged[: len(a)], judged[len(a) :], w[: len(a)])


def weighted_auc(
    low: Float[np.ndarray, " n"], high: Float[np.ndarray, " m"], weight: Float[np.ndarray, " n"] | None = None
) -> float:
    """Probability that one of `high` exceeds one of `low`, ties counted half; those of `low` weighted."""
    if weight is None:
        rank = rankdata(np.concatenate([low, high]))[len(low) :]
        return float((rank.sum() - len(high) * (len(high) + 1) / 2) / (len(low) * len(high)))
    ordered = np.sort(high)
    above = len(high) - np.searchsorted(ordered, low, side="right")
    equal = len(high) - np.searchsorted(ordered, low, side="left") - above
    return float(np.sum(weight * (above + 0.5 * equal)) / (np.sum(weight) * len(high)))


def probe(
    summary: Float[np.ndarray, "n c"], labels: Float[np.ndarray, "n l"], label_set: LabelSet
) -> dict[str, float]:
    """R^2 of each label from a ridge regression on the summaries, on stars that it did not see: how much of
    the labels the summary still holds."""
    fold = np.random.default_rng(0).permutation(len(summary)) % FOLDS
    guess = np.empty_like(labels, dtype=np.float64)
    for i in range(FOLDS):
        guess[fold == i] = ridge(summary[fold != i], labels[fold != i])(summary[fold == i])
    left = np.mean((labels - guess) ** 2, axis=0) / np.var(labels, axis=0)
    return dict(zip(label_set.names, (1.0 - left).tolist(), strict=True))


def ridge(
    x: Float[np.ndarray, "n c"], y: Float[np.ndarray, "n l"], weight: Float[np.ndarray, " n"] | None = None
) -> Any:
    """A linear regression with a small ridge on standardised features: the function from features to y."""
    w = np.ones(len(x)) if weight is None else np.asarray(weight, np.float64)
    w = w / w.sum()
    mean, scale = w @ x, np.maximum(x.std(axis=0), 1e-9)
    middle = w @ y
    z = (np.asarray(x, np.float64) - mean) / scale
    gram = (z * w[:, None]).T @ z + RIDGE * np.eye(x.shape[1])
    slope = np.linalg.solve(gram, (z * w[:, None]).T @ (y - middle))
    return lambda new: middle + (np.asarray(new, np.float64) - mean) / scale @ slope
