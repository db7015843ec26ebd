"""The population of stars as a Gaussian mixture, deconvolved from the errors of its members.

Extreme deconvolution (Bovy, Hogg & Roweis 2011, Ann. Appl. Stat. 5, 1657) in information form, so that
missing labels are simply directions without information. It starts the survey model's own mixture, which is
then inferred with the offsets, and learns what the stars of each survey look like for `predict`.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

# Prior of every component's covariance, worth this many stars: keeps components of few stars regular.
PRIOR_STARS = 3.0


class Mixture(NamedTuple):
    """Gaussian components in model coordinates: `weight [k]`, `mean [k, l]`, `covariance [k, l, l]`."""

    weight: Float[np.ndarray, " k"]
    mean: Float[np.ndarray, "k l"]
    covariance: Float[np.ndarray, "k l l"]

    @property
    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance of the whole."""
        mean = self.weight @ self.mean
        d = self.mean - mean
        return mean, np.einsum("k,kij->ij", self.weight, self.covariance + d[:, :, None] * d[:, None])


class Evidence(NamedTuple):
    """Knowledge of each star: information `[n, l, l]`, information times value `[n, l]`."""

    information: Float[np.ndarray, "n l l"]
    vector: Float[np.ndarray, "n l"]


def evidence_of(values: Float[np.ndarray, "n l"], covariance: Float[np.ndarray, "n l l"]) -> Evidence:
    """Evidence of one measurement per star; NaN is missing."""
    there = ~np.isnan(values)
    pairs = there[:, :, None] & there[:, None, :]
    eye = np.eye(values.shape[1])
    inverse = np.linalg.inv(np.where(pairs, covariance, eye)) * pairs
    return Evidence(inverse, np.einsum("nij,nj->ni", inverse, np.nan_to_num(values)))


def posterior(evidence: Evidence, mixture: Mixture) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each star and component the log-evidence `[n, k]` (up to a constant of the star), and the mean
    `[n, k, l]` and covariance `[n, k, l, l]` of its labels."""
    precision = np.linalg.inv(mixture.covariance)
    log_prob, means, covariances = [], [], []
    for weight, mean, p in zip(mixture.weight, mixture.mean, precision, strict=True):
        total = evidence.information + p
        covariance = np.linalg.inv(total)
        rhs = evidence.vector + p @ mean
        solution = np.einsum("nij,nj->ni", covariance, rhs)
        _, log_det = np.linalg.slogdet(total)
        quadratic = np.einsum("ni,ni->n", rhs, solution) - mean @ p @ mean
        log_prob.append(np.log(weight) + 0.5 * (quadratic - log_det + np.linalg.slogdet(p)[1]))
        means.append(solution)
        covariances.append(covariance)
    return np.stack(log_prob, 1), np.stack(means, 1), np.stack(covariances, 1)


def deconvolve(
    evidence: Evidence,
    start: Mixture,
    prior_covariance: Float[np.ndarray, "l l"],
    steps: int = 40,
    weight: Float[np.ndarray, " n"] | None = None,
) -> tuple[Mixture, float]:
    """The mixture after `steps` of expectation-maximisation, and the log-likelihood before the last one (up
    to a constant). `weight` counts some stars less, such as probable outliers."""
    mixture, total = start, -np.inf
    weight = np.ones(len(evidence.vector)) if weight is None else weight
    for _ in range(steps):
        log_prob, mean, covariance = posterior(evidence, mixture)
        top = log_prob.max(axis=1, keepdims=True)
        share = np.exp(log_prob - top)
        norm = share.sum(axis=1, keepdims=True)
        total = float(np.sum(weight * (top + np.log(norm))[:, 0]))
        share = weight[:, None] * share / norm
        count = share.sum(axis=0)
        new_mean = np.einsum("nk,nkl->kl", share, mean) + 1e-3 * mixture.mean
        new_mean /= (count + 1e-3)[:, None]
        d = mean - new_mean
        scatter = np.einsum("nk,nkij->kij", share, covariance) + np.einsum("nk,nki,nkj->kij", share, d, d)
        new_covariance = (scatter + PRIOR_STARS * prior_covariance) / (count + PRIOR_STARS)[:, None, None]
        mixture = Mixture((count + 1.0) / (count + 1.0).sum(), new_mean, new_covariance)
    return mixture, total


def initial_mixture(
    evidence: Evidence, k: int, rng: np.random.Generator, steps: int = 60
) -> tuple[Mixture, float]:
    """A mixture of `k` components from nothing but the evidence: one Gaussian, then split along its longest
    axis as often as needed."""
    n_labels = evidence.vector.shape[1]
    wide = Mixture(np.ones(1), np.zeros((1, n_labels)), 25.0 * np.eye(n_labels)[None])
    mixture, total = deconvolve(evidence, wide, 0.25 * np.eye(n_labels), 30)
    prior = 0.1 * mixture.covariance[0] + 0.01 * np.eye(n_labels)
    while len(mixture.weight) < k:
        largest = int(np.argmax(mixture.weight))
        value, vector = np.linalg.eigh(mixture.covariance[largest])
        shift = np.sqrt(value[-1]) * vector[:, -1] * (0.8 + 0.1 * rng.random())
        weight = np.append(mixture.weight, mixture.weight[largest] / 2)
        weight[largest] /= 2
        mean = np.vstack([mixture.mean, mixture.mean[largest] - shift])
        mean[largest] += shift
        narrow = mixture.covariance[largest] - 0.6 * np.outer(shift, shift)
        covariance = np.concatenate([mixture.covariance, narrow[None]])
        covariance[largest] = narrow
        mixture, total = deconvolve(evidence, Mixture(weight, mean, covariance), prior, steps)
    return mixture, total


def choose_mixture(evidence: Evidence, most: int, rng: np.random.Generator) -> Mixture:
    """The mixture of 1 to `most` components with the lowest Bayesian information criterion."""
    n, n_labels = evidence.vector.shape
    per_component = 1 + n_labels + n_labels * (n_labels + 1) // 2
    best, lowest = None, np.inf
    for k in range(1, most + 1):
        if k > 1 and n < 2 * k * per_component:
            break
        mixture, total = initial_mixture(evidence, k, rng)
        criterion = -2.0 * total + k * per_component * np.log(n)
        if criterion < lowest:
            best, lowest = mixture, criterion
    assert best is not None  # there is always one component
    return best
