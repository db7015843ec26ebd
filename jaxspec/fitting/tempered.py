"""Tempered populations, for posteriors that no single proposal covers: bent, cut off by their priors, or of
several peaks.

A population of draws of a wide Gaussian is led to the posterior over densities gaussian^(1 - b) posterior^b:
b grows as far as leaves half of the effective sample size, draws are resampled by weight, and each takes
steps of a random walk that leave the density at b as it is (sequential Monte Carlo, Del Moral et al. 2006,
J. R. Stat. Soc. B 68, 411; b as Jasra et al. 2011, Scand. J. Stat. 38, 1). No gradient is asked for, so that
limits of a prior do no harm, and the evidence comes with it. Stars go side by side, two populations each:
where these differ, neither is to be believed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpyro.diagnostics import gelman_rubin
from scipy.special import logsumexp

N_POPULATIONS = 2
# The Gaussian at the beginning is as many times as wide as what it is made from.
WIDER = 1.5
# Steps of a random walk at each b, and at the end; how many are accepted after its length is adapted.
STEPS, LAST_STEPS = 5, 25
ACCEPTED = 0.25
# No more densities than this on the way: what needs more has no weight at all.
MAX_LEVELS = 40


class Tempered(NamedTuple):
    """Draws `u [n, s, d]` of both populations and by star the log evidence, per unit of `u`; the
    potential scale reduction of the worst parameter between the populations (Gelman & Rubin 1992, Stat. Sci.
    7, 457); and the share of the first draws that have descendants, a lower limit of what the last are
    worth. R-hat is infinite where a population did not arrive."""

    u: Float[np.ndarray, "n s d"]
    log_evidence: Float[np.ndarray, " n"]
    r_hat: Float[np.ndarray, " n"]
    efficiency: Float[np.ndarray, " n"]


def temper(
    rng: np.random.Generator,
    log_density: Callable[[Float[np.ndarray, "n s d"]], Float[np.ndarray, "n s"]],
    mean: Float[np.ndarray, "n d"],
    covariance: Float[np.ndarray, "n d d"],
    n_draws: int,
    mirrored: int | None = None,
) -> Tempered:
    """Draws of the densities of `n` stars, `n_draws` by each population.

    Args:
        log_density: of draws of all stars, in their order; minus infinity outside a prior.
        mean, covariance: roughly those of each density.
        mirrored: the parameter (of at least zero) that walks are mirrored in at zero.

    Raises: nothing; a star whose draws never have any weight has an infinite `r_hat`.
    """
    n, d = mean.shape
    base = _Gaussian(mean, WIDER**2 * covariance, mirrored)
    u = base.draw(rng, N_POPULATIONS * n_draws)
    before, after = base.log_density(u), log_density(u)
    # Populations are rows of their own from here on.
    shape = (n, N_POPULATIONS, n_draws)
    b, log_evidence = np.zeros(shape[:2]), np.zeros(shape[:2])
    ancestor = np.broadcast_to(np.arange(n_draws), shape).copy()
    u, before, after = u.reshape(*shape, d), before.reshape(shape), after.reshape(shape)
    length = np.full(shape[:2], 2.38 / np.sqrt(d))
    lost = np.zeros(shape[:2], bool)
    for _ in range(MAX_LEVELS):
        if np.all((b >= 1.0) | lost):
            break
        with np.errstate(invalid="ignore"):
            ratio = np.where(np.isfinite(after), after - before, -np.inf)
        lost |= ~np.isfinite(ratio).any(axis=-1)
        new = np.where(lost | (b >= 1.0), b, _next(ratio, b))
        step = np.where(new > b, new - b, 0.0)
        log_weight = np.where(
            step[..., None] > 0.0, step[..., None] * np.where(step[..., None] > 0, ratio, 0.0), 0.0
        )
        total = logsumexp(log_weight, axis=-1)
        log_evidence += total - np.log(n_draws)
        weight = np.exp(log_weight - total[..., None])
        spread = _moments(u, weight)
        chosen = np.array([[systematic(rng, one, n_draws) for one in star] for star in weight])
        u = np.take_along_axis(u, chosen[..., None], axis=2)
        before, after, ancestor = (np.take_along_axis(x, chosen, axis=2) for x in (before, after, ancestor))
        b = new
        for _ in range(LAST_STEPS if np.all((b >= 1.0) | lost) else STEPS):
            noise = np.einsum("ncij,ncsj->ncsi", spread, rng.normal(size=u.shape))
            there = u + length[..., None, None] * noise
            if mirrored is not None:
                there[..., mirrored] = np.abs(there[..., mirrored])
            flat = there.reshape(n, -1, d)
            there_before, there_after = (x(flat).reshape(shape) for x in (base.log_density, log_density))
            gain = _at(there_before, there_after, b) - _at(before, after, b)
            accept = np.log(rng.random(shape)) < gain
            u = np.where(accept[..., None], there, u)
            before, after = np.where(accept, there_before, before), np.where(accept, there_after, after)
            length *= np.exp(accept.mean(axis=-1) - ACCEPTED)
    lost |= b < 1.0
    r_hat = np.array([gelman_rubin(star).max() for star in u])
    worth = np.array([np.mean([len(set(one)) for one in star]) for star in ancestor]) / n_draws
    evidence = logsumexp(log_evidence, axis=1) - np.log(N_POPULATIONS)
    return Tempered(u.reshape(n, -1, d), evidence, np.where(lost.any(axis=1), np.inf, r_hat), worth)


class _Gaussian:
    """Gaussians of `n` stars, folded at zero of the mirrored parameter."""

    def __init__(self, mean, covariance, mirrored):
        self.mean, self.root, self.mirrored = mean, np.linalg.cholesky(covariance), mirrored
        self.inverse = np.linalg.inv(self.root)
        log_det = np.sum(np.log(np.diagonal(self.root, axis1=1, axis2=2)), axis=1)
        self.constant = -log_det - 0.5 * mean.shape[1] * np.log(2.0 * np.pi)

    def draw(self, rng, n_draws: int):
        z = rng.normal(size=(len(self.mean), n_draws, self.mean.shape[1]))
        return self._mirror(self.mean[:, None] + np.einsum("nij,nsj->nsi", self.root, z), np.abs)

    def log_density(self, u):
        here = self._one(u)
        return here if self.mirrored is None else np.logaddexp(here, self._one(self._mirror(u, np.negative)))

    def _one(self, u):
        z = np.einsum("nij,nsj->nsi", self.inverse, u - self.mean[:, None])
        return self.constant[:, None] - 0.5 * np.sum(z**2, axis=2)

    def _mirror(self, u, function):
        u = u.copy()
        if self.mirrored is not None:
            u[..., self.mirrored] = function(u[..., self.mirrored])
        return u


def _at(before, after, b):
    """Log-density on the way."""
    b = b[..., None]
    with np.errstate(invalid="ignore"):
        return (1.0 - b) * before + np.where(b > 0.0, b * after, 0.0)


def _next(ratio: Float[np.ndarray, "n c s"], b: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n c"]:
    """The largest b that leaves half of the draws' worth, by bisection."""
    possible = np.isfinite(ratio)
    ratio = np.where(possible, ratio, -np.inf)

    def worth(step):
        with np.errstate(invalid="ignore"):
            x = np.where(possible, step[..., None] * ratio, -np.inf)
            return np.exp(2.0 * logsumexp(x, axis=-1) - logsumexp(2.0 * x, axis=-1))

    # Draws without any weight are lost at the first step, however small.
    least = 0.5 * possible.sum(axis=-1)
    low, high = np.zeros(b.shape), 1.0 - b
    enough = worth(high) >= least
    for _ in range(40):
        middle = 0.5 * (low + high)
        good = worth(middle) >= least
        low, high = np.where(good, middle, low), np.where(good, high, middle)
    return np.where(enough, 1.0, b + low)


def _moments(u, weight):
    """Root of the weighted covariance of each population."""
    mean = np.einsum("ncs,ncsi->nci", weight, u)
    z = u - mean[:, :, None]
    covariance = np.einsum("ncs,ncsi,ncsj->ncij", weight, z, z)
    size = np.sqrt(np.maximum(np.diagonal(covariance, axis1=2, axis2=3), 1e-12))
    scaled = covariance / size[..., None] / size[..., None, :]
    # With few draws of weight the covariance has no full rank.
    return np.linalg.cholesky(0.95 * scaled + 0.05 * np.eye(u.shape[-1])) * size[..., None]


def systematic(rng: np.random.Generator, weight: Float[np.ndarray, " s"], n: int) -> np.ndarray:
    """Places of `n` draws: of one with a share of the weight there are that share of copies, give or take
    one."""
    total = np.cumsum(weight)
    place = (np.arange(n) + rng.random()) / n
    return np.searchsorted(total, place * total[-1]).clip(0, len(weight) - 1)
