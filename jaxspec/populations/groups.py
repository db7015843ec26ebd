"""Groups of mixture components: a population is rarely one Gaussian.

Components are merged two by two, those first between which stars are most often confused (Hennig 2010, Adv.
Data Anal. Classif. 4, 3, "directly estimated misclassification probabilities"), here of the stars as they
are, behind the errors.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import multivariate_normal

from jaxspec.populations.mixture import Mixture

# Groups between which more than this share of either's stars would be taken for the other's are one.
CONFUSED = 0.1
DRAWS = 2000


def merge(mixture: Mixture, groups: int | None, seed: int = 1) -> Int[np.ndarray, " k"]:
    """The group of each component, numbered by falling weight.

    Args:
        groups: how many; None: as many as are hardly confused with each other.
    """
    count = len(mixture.weight)
    confused = confusion(mixture, seed)
    members = [[k] for k in range(count)]
    while len(members) > 1:
        pairs = [(_worst(confused, np.asarray(mixture.weight), a, b), i, j) for i, a in enumerate(members)
                 for j, b in enumerate(members) if i < j]  # fmt: skip
        worst, i, j = max(pairs)
        if groups is None and worst < CONFUSED:
            break
        if groups is not None and len(members) <= groups:
            break
        members[i] += members.pop(j)
    members.sort(key=lambda group: -sum(mixture.weight[group]))
    group = np.zeros(count, int)
    for number, parts in enumerate(members):
        group[parts] = number
    return group


def confusion(mixture: Mixture, seed: int = 1) -> Float[np.ndarray, "k k"]:
    """Mean probability of component j of the stars that component i makes."""
    rng = np.random.default_rng(seed)
    count = len(mixture.weight)
    out = np.empty((count, count))
    densities = [
        multivariate_normal(mean, covariance, allow_singular=True)
        for mean, covariance in zip(mixture.mean, mixture.covariance, strict=True)
    ]
    with np.errstate(divide="ignore"):
        log_weight = np.log(mixture.weight)
    for i in range(count):
        x = rng.multivariate_normal(mixture.mean[i], mixture.covariance[i], DRAWS, check_valid="ignore")
        log_prob = log_weight + np.stack([density.logpdf(x) for density in densities], axis=-1)
        share = np.exp(log_prob - log_prob.max(1, keepdims=True))
        out[i] = (share / share.sum(1, keepdims=True)).mean(0)
    return out


def _worst(confused: np.ndarray, weight: np.ndarray, a: list[int], b: list[int]) -> float:
    """The larger share of one group's stars that is taken for the other's."""
    one = float(weight[a] @ confused[np.ix_(a, b)].sum(1) / weight[a].sum())
    other = float(weight[b] @ confused[np.ix_(b, a)].sum(1) / weight[b].sum())
    return max(one, other)
