"""Other people's methods, for the same table: they see point values in units of their spread.

Missing labels are replaced by the median, as these methods need a value. `pygmmis` alone uses the errors.
"""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Callable

import numpy as np

from jaxspec.populations.extras import optional, scikit_learn
from jaxspec.populations.members import Members
from jaxspec.populations.scores import score
from jaxspec.populations.stars import Scale, Stars

HDBSCAN_SIZES = (5, 10, 20, 40, 80, 160)


def _points(stars: Stars) -> np.ndarray:
    return np.nan_to_num(Scale.of(stars).apply(stars)[0])


def _members(probability: np.ndarray) -> Members:
    zero = np.zeros_like(probability)
    return Members(probability, zero, 1.0 - probability.sum(1))


def _hard(label: np.ndarray) -> Members:
    return _members(np.eye(max(1, int(label.max()) + 1))[label] * (label >= 0)[:, None])


def gmm(stars: Stars, groups: int, seed: int) -> Members:
    """scikit-learn's Gaussian mixture with a component for each group."""
    model = scikit_learn("mixture").GaussianMixture(groups, n_init=5, random_state=seed)
    points = _points(stars)
    return _members(model.fit(points).predict_proba(points))


def bayesian_gmm(stars: Stars, groups: int, seed: int) -> Members:
    """scikit-learn's variational mixture with a component for each group."""
    model = scikit_learn("mixture").BayesianGaussianMixture(
        n_components=groups, n_init=3, max_iter=500, random_state=seed
    )
    points = _points(stars)
    return _members(model.fit(points).predict_proba(points))


def kmeans(stars: Stars, groups: int, seed: int) -> Members:
    """k-means with as many groups as there are."""
    return _hard(
        scikit_learn("cluster").KMeans(groups, n_init=10, random_state=seed).fit_predict(_points(stars))
    )


def kmeans_eight(stars: Stars, groups: int, seed: int) -> Members:
    """k-means with eight groups, of which the best match counts."""
    return kmeans(stars, 8, seed)


def gmm_pygmmis(stars: Stars, groups: int, seed: int) -> Members:
    """pygmmis (Melchior & Goulding 2018): a mixture that takes each star's covariance, but no missing
    values: they get the median with a wide error."""
    pygmmis = optional("pygmmis", "pygmmis")
    logging.getLogger("pygmmis").setLevel(logging.WARNING)  # it reports every step
    scale = Scale.of(stars)
    values, covariance = scale.apply(stars)
    covariance = covariance + np.isnan(values)[:, :, None] * 25.0 * np.eye(values.shape[1])
    values = np.nan_to_num(values)
    best, highest = None, -np.inf
    for start in range(3):
        model = pygmmis.GMM(K=groups, D=values.shape[1])
        rng = np.random.RandomState(seed + start)
        total, _ = pygmmis.fit(model, values, covar=covariance, w=1e-3, tol=1e-5, rng=rng)
        if total > highest:
            best, highest = model, total
    assert best is not None  # a total that is no number would have raised
    log_prob = np.array([best.logL_k(k, values, covar=covariance) for k in range(groups)]).T
    share = np.exp(log_prob - log_prob.max(1, keepdims=True))
    return _members(share / share.sum(1, keepdims=True))


COMPARATORS: dict[str, Callable[[Stars, int, int], Members]] = {
    "GMM": gmm,
    "Bayesian GMM": bayesian_gmm,
    "k-means": kmeans,
    "k-means of 8": kmeans_eight,
    "pygmmis": gmm_pygmmis,
}


def available() -> dict[str, Callable[[Stars, int, int], Members]]:
    """The comparators whose package is installed."""
    missing = {"pygmmis"} - {name for name in ("pygmmis",) if importlib.util.find_spec(name)}
    return {name: method for name, method in COMPARATORS.items() if name not in missing}


def hdbscan_at_its_best(stars: Stars, truth: np.ndarray, names: tuple[str, ...]) -> tuple[Members, int]:
    """HDBSCAN on point values with the smallest size of a cluster for which its Rand index is highest: chosen
    with the truth, which no method can do that is used in earnest. Returns that size too."""
    points = _points(stars)
    best, highest, chosen = None, -np.inf, 0
    for size in HDBSCAN_SIZES:
        if size >= len(points):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = scikit_learn("cluster").HDBSCAN(min_cluster_size=size, copy=True).fit(points)
        members = _hard(model.labels_)
        rand = score(members, truth, names).rand
        if rand > highest:
            best, highest, chosen = members, rand, size
    assert best is not None  # there are more stars than the smallest size
    return best, chosen
