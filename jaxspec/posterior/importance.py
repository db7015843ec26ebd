"""Refinement by importance: an amortised posterior's own draws, weighted so that they are those of the exact
posterior of each star (see `likelihood`), with numbers that say whether that worked.

A draw's weight is exact density over the density that proposed it. The first proposal is the network's
labels, with nuisances drawn given the labels as curvature at the best fit has them. Where its weights are
bad, a Student's t about the best fit is next, then one about the weighted draws so far (population Monte
Carlo, Cappe et al. 2004, J. Comput. Graph. Stat. 13, 907). A star keeps the best of them. Large weights are
smoothed by a fit to their tail, whose shape k says whether they can be trusted (Vehtari et al. 2024, JMLR 25,
72).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from scipy import stats
from scipy.special import gammaln, logsumexp

from jaxspec.errors import InputError
from jaxspec.posterior.likelihood import (
    LOG_2PI,
    N_NUISANCES,
    UNITS,
    VSINI,
    LikelihoodConfig,
    Mode,
    fit_modes,
    log_density_of_draws,
)
from jaxspec.posterior.results import Posterior
from jaxspec.posterior.simulator import SpectrumModel

# Above it weights cannot be trusted (Vehtari et al. 2024, section 3.2.4, for some hundred draws and more).
BAD_K = 0.7
NETWORK, MODE, ADAPTED = 0, 1, 2


@dataclass(frozen=True)
class ImportanceConfig:
    """How draws are weighted.

    Attributes:
        likelihood: what is assumed beside the forward model.
        n_draws: draws of a star that each proposal makes.
        efficiency: a star whose draws are worth less, as a fraction of their number, gets further proposals.
        rounds: how many more at most: about the best fit, then about the weighted draws.
        freedom: degrees of freedom of the Student's t.
        batch: stars per compiled call.
    """

    likelihood: LikelihoodConfig = field(default_factory=LikelihoodConfig)
    n_draws: int = 200
    efficiency: float = 0.2
    rounds: int = 3
    freedom: float = 20.0
    batch: int = 16

    def __post_init__(self):
        if self.n_draws < 25:
            raise InputError("importance.n_draws", f"{self.n_draws}", "25 or more", "draw more")


class Weighted(NamedTuple):
    """Draws of one proposal: `u [n, s, d]` with smoothed, normalised log weights `[n, s]`, and by star the
    share of draws that they are worth, the tail's shape `k` and the log evidence."""

    u: Float[np.ndarray, "n s d"]
    log_weight: Float[np.ndarray, "n s"]
    efficiency: Float[np.ndarray, " n"]
    k: Float[np.ndarray, " n"]
    log_evidence: Float[np.ndarray, " n"]


def importance_sample(
    key: PRNGKeyArray,
    forward: SpectrumModel,
    posterior: Posterior,
    flux: Float[Array | np.ndarray, "n p"],
    ivar: Float[Array | np.ndarray, "n p"],
    config: ImportanceConfig = ImportanceConfig(),
) -> Posterior:
    """The posterior with draws of the exact one, resampled by weight to as many as there were.

    `stats` gains `efficiency` (the effective sample size over the number of weighted draws), `pareto_k`,
    `log_evidence` (natural log, of the pixels that count, given forward model, prior and nuisances) and
    `proposal` (0 the network's, 1 about the best fit, 2 adapted). `log_prob` becomes that of the Gaussian
    with the draws' moments. A star whose `pareto_k` is not below `BAD_K` keeps the network's draws, as does
    one without pixels (efficiency 1, k NaN).

    Args:
        posterior: of these spectra by a network, with its training prior.
        flux, ivar: normalised.

    Raises: `InputError` without a prior, or with fewer draws than are to be weighted.
    """
    if posterior.prior is None:
        raise InputError(
            "posterior.prior", "none", "the prior of the training set", "use weights that were trained on one"
        )
    if len(posterior.draws) < config.n_draws:
        raise InputError(
            "posterior.draws", f"{len(posterior.draws)} draws", f"{config.n_draws} or more", "draw more"
        )
    flux, ivar = np.asarray(flux, np.float32), np.asarray(ivar, np.float32)
    mode = fit_modes(forward, posterior.median.astype(np.float32), flux, ivar, config.likelihood)
    mode = mode._replace(covariance=_positive(mode.covariance))
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())

    def weigh(which, u, log_q):
        return _weighted(u, _density(forward, posterior, mode, flux, which, u, config) - log_q)

    seen = (mode.ivar > 0.0).any(axis=1)
    everyone = np.flatnonzero(seen)
    best = weigh(everyone, *_from_network(rng, posterior, mode, everyone, config))
    proposal = np.zeros(len(everyone), int)
    for number in range(1, config.rounds + 1):
        poor = np.flatnonzero(~((best.efficiency >= config.efficiency) & (best.k < BAD_K)))
        if not len(poor):
            break
        which = everyone[poor]
        if number == MODE:
            centre, spread = mode.u[which].astype(float), mode.covariance[which].astype(float)
        else:
            centre, spread = _moments(best, poor, mode.covariance[which])
        again = weigh(which, *_student(rng, centre, spread, config))
        better = _score(again) > _score(Weighted(*(x[poor] for x in best)))
        rows = poor[better]
        for old, new in zip(best, again, strict=True):
            old[rows] = new[better]
        proposal[rows] = min(number, ADAPTED)
    return _resampled(rng, posterior, mode, everyone, best, proposal)


def _density(forward, posterior, mode: Mode, flux, which, u, config) -> Float[np.ndarray, "n s"]:
    """Exact log-densities of draws of some of the stars, in batches of one shape."""
    out = np.empty(u.shape[:2])
    size = min(config.batch, max(len(which), 1))
    for begin in range(0, len(which), size):
        rows = np.minimum(np.arange(begin, begin + size), len(which) - 1)
        found = log_density_of_draws(
            forward,
            posterior.prior,
            config.likelihood,
            *(
                jnp.asarray(x, jnp.float32)
                for x in (u[rows], mode.start[which[rows]], flux[which[rows]], mode.ivar[which[rows]])
            ),
        )
        out[rows] = np.asarray(found)
    return np.where(np.isnan(out), -np.inf, out)


def _from_network(rng, posterior: Posterior, mode: Mode, which, config) -> tuple[np.ndarray, np.ndarray]:
    """The network's labels, nuisances given them, and the log-density of both."""
    n_label = posterior.draws.shape[2]
    labels = np.swapaxes(posterior.draws[: config.n_draws, which], 0, 1).astype(float)
    log_q = posterior.log_prob[: config.n_draws, which].T.astype(float)
    about = (labels - mode.start[which, None]) / np.array(UNITS[:n_label])
    covariance = mode.covariance[which].astype(float)
    a, b, c = (
        covariance[:, :n_label, :n_label],
        covariance[:, n_label:, :n_label],
        covariance[:, n_label:, n_label:],
    )
    slope = np.swapaxes(np.linalg.solve(a, np.swapaxes(b, 1, 2)), 1, 2)
    centre = mode.u[which, None, n_label:] + np.einsum(
        "nij,nsj->nsi", slope, about - mode.u[which, None, :n_label]
    )
    nuisances, log_t = _t_draws(rng, centre, _positive(c - slope @ np.swapaxes(b, 1, 2)), config.freedom)
    return np.concatenate([about, nuisances], axis=2), log_q + log_t


def _student(rng, centre, spread, config) -> tuple[np.ndarray, np.ndarray]:
    """Draws of a Student's t in all parameters and their log-density, per unit of labels and nuisances."""
    many = np.broadcast_to(centre[:, None], (len(centre), config.n_draws, centre.shape[1]))
    u, log_q = _t_draws(rng, many, spread, config.freedom)
    return u, log_q - np.sum(np.log(UNITS[: centre.shape[1] - N_NUISANCES]))


def _t_draws(rng, centre: Float[np.ndarray, "n s d"], covariance: Float[np.ndarray, "n d d"], freedom: float):
    """Multivariate Student's t with the covariance given (not the scale), vsini folded to positive values,
    and its log-density."""
    d = centre.shape[2]
    root = np.linalg.cholesky(covariance * (freedom - 2.0) / freedom)
    log_det = np.sum(np.log(np.diagonal(root, axis1=1, axis2=2)), axis=1)[:, None]
    constant = gammaln(0.5 * (freedom + d)) - gammaln(0.5 * freedom) - 0.5 * d * np.log(freedom * np.pi)

    def log_t(u):
        z = np.linalg.solve(root, np.swapaxes(u - centre, 1, 2))
        return constant - log_det - 0.5 * (freedom + d) * np.log1p(np.sum(z**2, axis=1) / freedom)

    stretch = np.sqrt(freedom / rng.chisquare(freedom, centre.shape[:2]))[:, :, None]
    u = centre + np.einsum("nij,nsj->nsi", root, rng.normal(size=centre.shape)) * stretch
    mirror = u.copy()
    mirror[:, :, VSINI] *= -1.0
    density = np.logaddexp(log_t(u), log_t(mirror))
    u[:, :, VSINI] = np.abs(u[:, :, VSINI])
    return u, density


def _weighted(u, log_ratio: Float[np.ndarray, "n s"]) -> Weighted:
    smooth, k = np.empty_like(log_ratio), np.empty(len(log_ratio))
    for i, one in enumerate(log_ratio):
        smooth[i], k[i] = pareto_smooth(one)
    total = logsumexp(smooth, axis=1, keepdims=True)
    log_weight = smooth - np.where(np.isfinite(total), total, 0.0)
    effective = np.exp(-logsumexp(2.0 * log_weight, axis=1))
    efficiency = np.where(np.isfinite(total[:, 0]), effective / u.shape[1], 0.0)
    return Weighted(u, log_weight, efficiency, k, total[:, 0] - np.log(u.shape[1]))


def _score(x: Weighted) -> np.ndarray:
    """How good weights are: their worth, but never those that cannot be trusted before those that can."""
    return x.efficiency + (x.k < BAD_K)


def pareto_smooth(log_ratio: Float[np.ndarray, " s"]) -> tuple[Float[np.ndarray, " s"], float]:
    """Log weights with the largest replaced by quantiles of a generalised Pareto distribution fitted to them,
    and its shape k (Vehtari et al. 2024, JMLR 25, 72, algorithm 1; the fit is that of Zhang & Stephens 2009,
    Technometrics 51, 316, with the prior on k of the former's appendix). k is infinite where fewer than five
    draws have any weight.
    """
    log_ratio = np.asarray(log_ratio, float)
    n = len(log_ratio)
    n_tail = int(min(0.2 * n, 3.0 * np.sqrt(n)))
    order = np.argsort(log_ratio)
    tail = order[-n_tail:]
    top = log_ratio[order[-1]]
    cutoff = log_ratio[order[-n_tail - 1]]
    if n_tail < 5 or not np.isfinite(cutoff) or not np.isfinite(top):
        return log_ratio, np.inf
    above = np.exp(log_ratio[tail] - top) - np.exp(cutoff - top)
    if above[-1] <= 1e-12:
        return log_ratio, -np.inf  # all weights are the same
    k, sigma = _fit_pareto(np.maximum(above, 1e-300))
    quantile = (np.arange(n_tail) + 0.5) / n_tail
    smooth = log_ratio.copy()
    value = stats.genpareto.ppf(quantile, k, scale=sigma) + np.exp(cutoff - top)
    smooth[tail] = np.minimum(np.log(value), 0.0) + top
    return smooth, float(k)


def _fit_pareto(x: Float[np.ndarray, " m"]) -> tuple[float, float]:
    """Shape and scale of a generalised Pareto distribution of the sorted exceedances `x`."""
    m = len(x)
    grid = 30 + int(np.sqrt(m))
    b = 1.0 / x[-1] + (1.0 - np.sqrt(grid / (np.arange(1, grid + 1) - 0.5))) / (3.0 * x[int(m / 4 + 0.5) - 1])
    k = np.mean(np.log1p(-b[:, None] * x), axis=1)
    profile = m * (np.log(-b / k) - k - 1.0)
    weight = 1.0 / np.sum(np.exp(profile - profile[:, None]), axis=1)
    b = np.sum(b * weight)
    k = np.mean(np.log1p(-b * x))
    # A weak prior: ten observations of k = 1/2.
    return (m * k + 5.0) / (m + 10.0), -k / b


def _moments(best: Weighted, rows, fallback) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean and covariance of draws, widened by the curvature's where few of them count."""
    weight = np.exp(best.log_weight[rows])
    weight = np.where(np.isfinite(weight), weight, 0.0)
    mean = np.einsum("ns,nsi->ni", weight, best.u[rows])
    d = best.u[rows] - mean[:, None]
    spread = np.einsum("ns,nsi,nsj->nij", weight, d, d)
    count = best.efficiency[rows] * best.u.shape[1]
    trust = (count / (count + 2.0 * mean.shape[1]))[:, None, None]
    return mean, _positive(trust * spread + (1.0 - trust) * fallback)


def _positive(covariance: Float[np.ndarray, "n d d"]) -> Float[np.ndarray, "n d d"]:
    """Symmetric, with no correlation beyond what float32 can tell."""
    covariance = np.asarray(covariance, float)
    size = np.sqrt(np.maximum(np.diagonal(covariance, axis1=1, axis2=2), 1e-8))
    value, vector = np.linalg.eigh(
        np.nan_to_num(0.5 * (covariance + np.swapaxes(covariance, 1, 2)) / size[:, :, None] / size[:, None])
    )
    value = np.maximum(value, 1e-5)
    matrix = np.einsum("nik,nk,njk->nij", vector, value, vector)
    return matrix * size[:, :, None] * size[:, None]


def _resampled(rng, posterior: Posterior, mode: Mode, which, best: Weighted, proposal) -> Posterior:
    n_draws, n, n_label = posterior.draws.shape
    draws, log_prob = posterior.draws.copy(), posterior.log_prob.copy()
    stat = {
        name: np.full(n, default)
        for name, default in (("efficiency", 1.0), ("pareto_k", np.nan), ("log_evidence", np.nan))
    } | {"proposal": np.zeros(n)}
    for i, star in enumerate(which):
        weight = np.exp(best.log_weight[i])
        stat["efficiency"][star], stat["pareto_k"][star] = best.efficiency[i], best.k[i]
        if not best.k[i] < BAD_K:
            continue
        # Systematic: of one draw with a share of the weight there are that share of copies, give or take one.
        place = (np.arange(n_draws) + rng.random()) / n_draws
        chosen = np.searchsorted(np.cumsum(weight), place * weight.sum()).clip(0, len(weight) - 1)
        chosen = rng.permutation(chosen)
        draws[:, star] = mode.start[star] + np.array(UNITS[:n_label]) * best.u[i, chosen, :n_label]
        good = mode.ivar[star] > 0.0
        constant = 0.5 * np.sum(np.log(mode.ivar[star][good].astype(float)) - LOG_2PI - 1.0)
        stat["log_evidence"][star] = best.log_evidence[i] + constant
        stat["proposal"][star] = proposal[i]
        log_prob[:, star] = _gaussian(draws[:, star].astype(float))
    return dataclasses.replace(posterior, draws=draws, log_prob=log_prob, stats={**posterior.stats, **stat})


def _gaussian(draws: Float[np.ndarray, "s l"]) -> Float[np.ndarray, " s"]:
    """Log-density of draws under the Gaussian with their moments."""
    size = np.maximum(draws.std(axis=0), 1e-6)
    z = (draws - draws.mean(axis=0)) / size
    normal = stats.multivariate_normal(np.zeros(len(size)), _positive(np.cov(z.T)[None])[0])
    return normal.logpdf(z) - np.sum(np.log(size))
