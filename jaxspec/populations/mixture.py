"""Gaussian mixtures of what stars are, behind the errors of what was measured.

Extreme deconvolution (Bovy, Hogg & Roweis 2011, Ann. Appl. Stat. 5, 1657): each star is a draw of one
component plus its own Gaussian error. Written with the covariance of the data, V + S, of the labels that a
star has, so an error of zero and a missing label are both exact. Stars stand on the last axis: the algebra of
small matrices then runs over all of them at once. Double precision.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

# The prior of a component's covariance: this share of the whole population's, worth this many stars.
PRIOR_SHARE, PRIOR_STARS = 1e-3, 3.0
MOST_STEPS, TOLERANCE = 150, 2e-5  # of a fit; gain of log-likelihood per star that ends it
TRIES, TRIAL_STEPS = 3, 8  # components that are tried for a split
BLOCK = 16_384  # stars at a time
SIZES = (64, 256, 1024, 2048, 4096, 8192, BLOCK)  # to which sets of stars are padded


class Mixture(NamedTuple):
    """Gaussian components: `weight [k]`, `mean [k, l]`, `covariance [k, l, l]`."""

    weight: Float[Array | np.ndarray, " k"]
    mean: Float[Array | np.ndarray, "k l"]
    covariance: Float[Array | np.ndarray, "k l l"]


class Data(NamedTuple):
    """Measurements with the stars last, 0 where missing: `values [l, n]`, `covariance [l, l, n]`, `there [l,
    n]`; `weight [n]` counts stars."""

    values: Float[Array | np.ndarray, "l n"]
    covariance: Float[Array | np.ndarray, "l l n"]
    there: Float[Array | np.ndarray, "l n"]
    weight: Float[Array | np.ndarray, " n"]


def arrange(values: Float[np.ndarray, "n l"], covariance: Float[np.ndarray, "n l l"]) -> Data:
    """The data of scaled values (NaN is missing) and covariances, padded with stars of weight 0 so that few
    different sizes are compiled."""
    n, count = values.shape
    size = next(s for s in SIZES if s >= n) if n <= SIZES[-1] else n
    there = np.zeros((count, size))
    there[:, :n] = ~np.isnan(values).T
    padded = np.zeros((count, size))
    padded[:, :n] = np.nan_to_num(values).T
    wide = np.zeros((count, count, size))
    wide[:, :, :n] = np.moveaxis(covariance, 0, -1)
    return Data(padded, wide * there * there[:, None], there, (np.arange(size) < n).astype(float))


def _decompose(matrix: Float[Array, "l l n"]) -> tuple[Float[Array, "l l n"], Float[Array, " n"]]:
    """Inverse of the Cholesky factor of many small matrices, and the logarithm of their determinants."""
    size, identity = matrix.shape[0], jnp.eye(matrix.shape[0])
    columns: list[Array] = []  # of the factor, from the diagonal down
    for j in range(size):
        rest = matrix[j:, j] - sum(one[j - k :] * one[j - k] for k, one in enumerate(columns))
        columns.append(rest / jnp.sqrt(rest[0]))
    rows: list[Array] = []  # of its inverse
    for i in range(size):
        row = identity[i][:, None] - sum(columns[k][i - k] * above for k, above in enumerate(rows))
        rows.append(row / columns[i][0])
    diagonal = jnp.stack([one[0] for one in columns])
    return jnp.stack(rows), 2.0 * jnp.sum(jnp.log(diagonal), axis=0)


def _component(mean, covariance, data: Data):
    """Log-density of each star under one component `[n]`, u = T^-1 (x - m) `[l, n]`, the root of T^-1 `[l, l,
    n]` and the squared distance `[n]`, where T is the covariance of the star's data."""
    both = data.there[:, None] * data.there
    # A missing label becomes one of unit variance at the mean: it says nothing.
    total = (covariance[:, :, None] + data.covariance) * both
    total = total + jnp.eye(len(mean))[:, :, None] * (1.0 - data.there)
    root, log_det = _decompose(total)
    white = jnp.einsum("ijn,jn->in", root, (data.values - mean[:, None]) * data.there)
    distance = jnp.sum(white**2, axis=0)
    normal = data.there.sum(axis=0) * jnp.log(2.0 * jnp.pi)
    u = jnp.einsum("jin,jn->in", root, white) * data.there
    return -0.5 * (distance + log_det + normal), u, root, distance


def _log_prob(mixture: Mixture, data: Data) -> tuple[Float[Array, "k n"], Float[Array, "k n"]]:
    def one(component):
        log_density, _, _, distance = _component(*component, data)
        return log_density, distance

    log_density, distance = jax.lax.map(one, (mixture.mean, mixture.covariance))
    return jnp.log(mixture.weight)[:, None] + log_density, distance


def _step(mixture: Mixture, data: Data, prior: Float[Array, "l l"]) -> tuple[Mixture, Array]:
    """One step of expectation-maximisation, and the log-likelihood before it."""
    log_prob, _ = _log_prob(mixture, data)
    total = jax.scipy.special.logsumexp(log_prob, axis=0)
    share = jnp.exp(log_prob - total) * data.weight

    def update(args):
        mean, covariance, r = args
        _, u, root, _ = _component(mean, covariance, data)
        count = r.sum() + 1e-9
        shift = covariance @ (u @ r) / count
        # Averages of u u' - T^-1 over the component's stars; missing labels have no part in T^-1.
        there = data.there
        outer = jnp.einsum("in,jn,n->ij", u, u, r)
        inverse = jnp.einsum("kin,kjn,in,jn,n->ij", root, root, there, there, r)
        moved = covariance + covariance @ (outer - inverse) @ covariance / count - jnp.outer(shift, shift)
        spread = (count * moved + PRIOR_STARS * prior) / (count + PRIOR_STARS)
        return mean + shift, 0.5 * (spread + spread.T), count

    mean, covariance, count = jax.lax.map(update, (mixture.mean, mixture.covariance, share))
    weight = jnp.where(mixture.weight > 0.0, count + 1.0, 0.0)
    return Mixture(weight / weight.sum(), mean, covariance), jnp.sum(total * data.weight)


@jax.jit
def _climb(mixture: Mixture, data: Data, prior: Float[Array, "l l"], steps: Int[Array, ""]):
    tolerance = TOLERANCE * data.weight.sum()

    def going(state):
        i, _, before, now = state
        return (i < steps) & ((i < 3) | (now - before > tolerance))

    def body(state):
        i, mixture, _, before = state
        mixture, now = _step(mixture, data, prior)
        return i + 1, mixture, before, now

    _, mixture, _, total = jax.lax.while_loop(going, body, (0, mixture, -jnp.inf, -jnp.inf))
    return mixture, total


def climb(
    mixture: Mixture, data: Data, prior: Float[np.ndarray, "l l"], steps: int = MOST_STEPS
) -> tuple[Mixture, float]:
    """The mixture after expectation-maximisation from `mixture` on, and its log-likelihood before the last
    step."""
    count = len(mixture.weight)
    with jax.enable_x64(True):
        found, total = _climb(_padded(mixture), data, jnp.asarray(prior), jnp.asarray(steps))
        return Mixture(*(np.asarray(x)[:count] for x in found)), float(total)


def _padded(mixture: Mixture) -> Mixture:
    """The mixture with components of weight 0, up to a multiple of 4: few sizes are then compiled."""
    count, size = np.shape(mixture.mean)
    more = -count % 4
    weight = np.append(mixture.weight, np.zeros(more))
    mean = np.vstack([mixture.mean, np.zeros((more, size))])
    covariance = np.concatenate([mixture.covariance, np.broadcast_to(np.eye(size), (more, size, size))])
    return Mixture(jnp.asarray(weight), jnp.asarray(mean), jnp.asarray(covariance))


def fit_path(data: Data, most: int, patience: int = 2, least: int = 1) -> list[tuple[Mixture, float]]:
    """Mixtures of 1, 2, ... components with their Bayesian information criteria, up to `most`, or until the
    criterion has not fallen for `patience` of them (but at least `least`).

    Each begins with the one before, a component split along its longest axis: the one of the few widest whose
    split gains most.
    """
    size = len(data.values)
    n = float(np.sum(data.weight))
    each = 1 + size + size * (size + 1) // 2
    wide = _moments(data)
    mixture, _ = climb(wide, data, 0.1 * np.asarray(wide.covariance[0]), 30)
    prior = PRIOR_SHARE * np.asarray(mixture.covariance[0]) + 1e-6 * np.eye(size)
    mixture, total = climb(mixture, data, prior)
    path = [(mixture, -2.0 * total + (each - 1) * np.log(n))]
    best = path[0][1]
    waited = 0
    while len(path) < most and n > 2 * each * (len(path) + 1) and (waited < patience or len(path) < least):
        trials = [climb(start, data, prior, TRIAL_STEPS) for start in splits(mixture)]
        start = max(trials, key=lambda trial: trial[1])[0]
        mixture, total = climb(start, data, prior)
        path.append((mixture, -2.0 * total + (each * len(mixture.weight) - 1) * np.log(n)))
        waited = 0 if path[-1][1] < best else waited + 1
        best = min(best, path[-1][1])
    return path


def _moments(data: Data) -> Mixture:
    """One component with the labels' means, and their variances less those of the errors."""
    counts = data.there * data.weight
    total = np.maximum(counts.sum(1), 1.0)
    mean = (data.values * counts).sum(1) / total
    variance = ((data.values - mean[:, None]) ** 2 * counts).sum(1) / total
    error = (np.einsum("iin->in", data.covariance) * counts).sum(1) / total
    start = np.maximum(variance - error, 0.05 * variance + 1e-4)
    return Mixture(np.ones(1), mean[None], np.diag(start)[None])


def splits(mixture: Mixture) -> list[Mixture]:
    """Mixtures of one more component: each of the few that are widest, for their weight, in two along its
    longest axis."""
    value, vector = np.linalg.eigh(np.asarray(mixture.covariance))
    order = np.argsort(-np.asarray(mixture.weight) * np.sqrt(value[:, -1]), kind="stable")
    starts = []
    for k in order[:TRIES]:
        shift = 0.85 * np.sqrt(value[k, -1]) * vector[k, :, -1]
        narrow = mixture.covariance[k] - 0.6 * np.outer(shift, shift)
        weight = np.append(mixture.weight, mixture.weight[k] / 2)
        weight[k] /= 2
        mean = np.vstack([mixture.mean, mixture.mean[k] - shift])
        mean[k] += shift
        covariance = np.concatenate([mixture.covariance, narrow[None]])
        covariance[k] = narrow
        starts.append(Mixture(weight, mean, covariance))
    return starts


@jax.jit
def _responsibilities(mixture: Mixture, data: Data):
    log_prob, distance = _log_prob(mixture, data)
    total = jax.scipy.special.logsumexp(log_prob, axis=0)
    return jnp.exp(log_prob - total), total, distance


def responsibilities(
    mixture: Mixture, values: Float[np.ndarray, "n l"], covariance: Float[np.ndarray, "n l l"]
) -> tuple[Float[np.ndarray, "n k"], Float[np.ndarray, " n"], Float[np.ndarray, "n k"]]:
    """Probability of each component for each star `[n, k]`, the log-density of the star's data `[n]`, and its
    squared distance from each component in units of the scatter of its data `[n, k]`. Blocks bound the
    memory for any number of stars."""
    parts = []
    with jax.enable_x64(True):
        moved = _padded(mixture)
        for first in range(0, len(values), BLOCK):
            some = slice(first, first + BLOCK)
            data = arrange(values[some], covariance[some])
            count = len(values[some])
            parts.append([np.asarray(x)[..., :count] for x in _responsibilities(moved, data)])
    share, total, distance = (np.concatenate(x, axis=-1) for x in zip(*parts, strict=True))
    k = len(mixture.weight)
    return share.T[:, :k], total, distance.T[:, :k]


def posterior_draws(
    mixture: Mixture,
    values: Float[np.ndarray, "n l"],
    covariance: Float[np.ndarray, "n l l"],
    rng: np.random.Generator,
    n_draws: int,
) -> Float[np.ndarray, "d n l"]:
    """Draws of what the stars are, given their data and the population: missing labels are drawn too."""
    share, _, _ = responsibilities(mixture, values, covariance)
    there = ~np.isnan(values)
    both = there[:, :, None] & there[:, None, :]
    n, size = values.shape
    draws = np.empty((n_draws, n, size))
    component = (share.cumsum(1)[None] < rng.random((n_draws, n, 1))).sum(2).clip(0, share.shape[1] - 1)
    for k in range(share.shape[1]):
        rows = np.flatnonzero((component == k).any(0))
        if not len(rows):
            continue
        own = mixture.covariance[k]
        total = np.where(both[rows], own + covariance[rows], np.eye(size))
        gain = np.linalg.solve(total, own * there[rows][:, :, None])  # of missing labels: zero rows
        step = np.nan_to_num(values[rows] - mixture.mean[k])
        mean = mixture.mean[k] + np.einsum("nij,ni->nj", gain, step)
        spread = own - np.einsum("nij,nik->njk", gain, own * there[rows][:, :, None])
        value, vector = np.linalg.eigh(0.5 * (spread + spread.swapaxes(1, 2)))
        root = vector * np.sqrt(np.maximum(value, 0.0))[:, None, :]
        noise = np.einsum("nij,dnj->dni", root, rng.standard_normal((n_draws, len(rows), size)))
        chosen = component[:, rows] == k
        block = draws[:, rows]
        block[chosen] = (mean + noise)[chosen]
        draws[:, rows] = block
    return draws
