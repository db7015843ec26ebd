"""Refinement by importance: an amortised posterior's own draws, weighted so that they are those of the exact
posterior of each star (see `likelihood`), with numbers that say whether that worked.

A draw's weight is exact density over the density that proposed it. The first proposal is the network's
labels, with nuisances drawn given the labels as curvature at the best fit has them. Where its weights are
bad, a Student's t about the best fit is next, then one about the weighted draws so far (population Monte
Carlo, Cappe et al. 2004, J. Comput. Graph. Stat. 13, 907). A star keeps the best of them. Large weights are
smoothed by a fit to their tail, whose shape k says whether they can be trusted (Vehtari et al. 2024, JMLR 25,
72). Stars whose weights cannot be get tempered populations (see `tempered`).

What a spectrum says of rotation is about Gaussian in the square of vsini, and for most stars cut off at zero:
every proposal draws vsini first, from its prior times the t of its square, and the rest given it.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray
from scipy import stats
from scipy.special import gammaln, logsumexp

from jaxspec.errors import InputError
from jaxspec.fitting.check import concurrently
from jaxspec.fitting.likelihood import (
    LOG_2PI,
    VSINI,
    LikelihoodConfig,
    Mode,
    log_density_of_draws,
    log_prior_vsini,
)
from jaxspec.fitting.modes import fit_modes, positive
from jaxspec.fitting.tempered import systematic, temper
from jaxspec.posterior.results import Posterior
from jaxspec.simulation.simulator import SpectrumModel

# Below it two populations agree: the means of 200 draws each are not 0.45 standard deviations apart.
AGREED = 1.05
NETWORK, MODE, ADAPTED, TEMPERED = 0, 1, 2, 3
# Cells of the table that vsini is drawn from.
CELLS = 400
# Spectra of one star that are computed at once, at most: more take memory.
AT_ONCE = 250


@dataclass(frozen=True)
class ImportanceConfig:
    """How draws are weighted.

    Attributes:
        likelihood: what is assumed beside the forward model.
        n_draws: draws of a star that each proposal makes, and each tempered population has; no more than the
            posterior has.
        efficiency: a star whose draws are worth less, as a fraction of their number, gets further proposals.
        rounds: how many more at most: about the best fit, then about the weighted draws.
        freedom: degrees of freedom of the Student's t.
    """

    likelihood: LikelihoodConfig = field(default_factory=LikelihoodConfig)
    n_draws: int = 500
    efficiency: float = 0.2
    rounds: int = 3
    freedom: float = 20.0

    def __post_init__(self):
        if self.n_draws < 25:
            raise InputError("importance.n_draws", f"{self.n_draws}", "25 or more", "draw more")


class Weighted(NamedTuple):
    """Draws of one proposal: `u [n, s, d]` with smoothed, normalised log weights `[n, s]`, and by star the
    share of draws that they are worth, the tail's shape `k`, what it must stay below to be trusted, and the
    log evidence."""

    u: Float[np.ndarray, "n s d"]
    log_weight: Float[np.ndarray, "n s"]
    efficiency: Float[np.ndarray, " n"]
    k: Float[np.ndarray, " n"]
    limit: Float[np.ndarray, " n"]
    log_evidence: Float[np.ndarray, " n"]

    @property
    def good(self) -> Bool[np.ndarray, " n"]:
        """Whose weights can be trusted; NaN is not."""
        return self.k < self.limit


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
    `log_evidence` (natural log, of the pixels that count, given forward model, prior and nuisances),
    `proposal` (0 the network's, 1 about the best fit, 2 adapted, 3 tempered populations) and `r_hat` (of
    these, else NaN). Stars whose `pareto_k` is not below `largest_k` get draws of tempered populations,
    unless these do not agree: then they keep the network's (see `trusted`). `log_prob` becomes that of the
    Gaussian with the draws' moments. A star without pixels keeps its draws (efficiency 1, k NaN).

    Args:
        posterior: of these spectra by a network, with its training prior.
        flux, ivar: normalised.

    Raises: `InputError` without a prior, or with fewer than 25 draws.
    """
    if posterior.prior is None:
        raise InputError(
            "posterior.prior", "none", "the prior of the training set", "use weights that were trained on one"
        )
    forward.label_set.check_same(posterior.label_set.names, "labels of the posterior")
    config = dataclasses.replace(config, n_draws=min(config.n_draws, len(posterior.draws)))
    flux, ivar = np.asarray(flux, np.float32), np.asarray(ivar, np.float32)
    mode = fit_modes(forward, posterior.median.astype(np.float32), flux, ivar, config.likelihood)
    mode = mode._replace(covariance=positive(mode.covariance))
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())

    def weigh(which, u, log_q):
        return _weighted(u, _density(forward, posterior, mode, flux, which, u, config) - log_q)

    everyone = np.flatnonzero((mode.ivar > 0.0).any(axis=1))
    best = weigh(everyone, *_from_network(rng, posterior, mode, everyone, config))
    proposal = np.zeros(len(everyone), int)
    for number in range(1, config.rounds + 1):
        poor = np.flatnonzero(~((best.efficiency >= config.efficiency) & best.good))
        if not len(poor):
            break
        which = everyone[poor]
        if number == MODE:
            centre, spread = mode.centre[which].astype(float), mode.covariance[which].astype(float)
        else:
            centre, spread = _moments(best, poor, mode.covariance[which])
        again = weigh(which, *_about(rng, centre, spread, posterior.label_set, config))
        better = _score(again) > _score(Weighted(*(x[poor] for x in best)))
        rows = poor[better]
        for old, new in zip(best, again, strict=True):
            old[rows] = new[better]
        proposal[rows] = min(number, ADAPTED)
    after = _resampled(rng, posterior, mode, everyone, best, proposal)
    bad = np.flatnonzero(~best.good)
    if not len(bad):
        return after
    which = everyone[bad]

    def density(u):
        return _density(forward, posterior, mode, flux, which, u, config)

    return _tempered(rng, density, after, mode, which, config)


def trusted(posterior: Posterior) -> np.ndarray:
    """Which stars `[n]` of an `importance_sample` have draws of their exact posterior."""
    k, r_hat = posterior.stats["pareto_k"], posterior.stats["r_hat"]
    # Populations were drawn only where the weights were bad.
    return np.where(np.isnan(r_hat), ~np.isnan(k), r_hat < AGREED)


def _density(forward, posterior, mode: Mode, flux, which, u, config) -> Float[np.ndarray, "n s"]:
    """Exact log-densities of draws of some of the stars, so many at once that one program serves them all."""
    out = np.empty(u.shape[:2])
    size = math.ceil(config.n_draws / math.ceil(config.n_draws / AT_ONCE))

    def fill(i):
        star = which[i]
        one, its_flux = _on_device((Mode(*(x[star] for x in mode)), flux[star]))
        for begin in range(0, u.shape[1], size):
            begin = min(begin, u.shape[1] - size)  # the last piece is as long as the others: no other program
            some = slice(begin, begin + size)
            draws = jnp.asarray(u[i, some], jnp.float32)
            found = log_density_of_draws(forward, posterior.prior, config.likelihood, draws, one, its_flux)
            out[i, some] = np.asarray(found)

    concurrently(fill, range(len(which)))
    return np.where(np.isnan(out), -np.inf, out)


def _on_device(tree):
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)


def _from_network(rng, posterior: Posterior, mode: Mode, which, config) -> tuple[np.ndarray, np.ndarray]:
    """The network's labels, nuisances given them, and the log-density of both."""
    n_label = posterior.draws.shape[2]
    labels = np.swapaxes(posterior.draws[: config.n_draws, which], 0, 1).astype(float)
    log_q = posterior.log_prob[: config.n_draws, which].T.astype(float)
    about = (labels - mode.start[which, None]) / posterior.label_set.step
    covariance = mode.covariance[which].astype(float)
    centre = np.broadcast_to(mode.centre[which, None].astype(float), (*about.shape[:2], covariance.shape[1]))
    known = np.arange(n_label)
    rest, left = _given(centre, covariance, known, about)
    nuisances, log_t = _draw(rng, rest, left, config)
    return np.concatenate([about, nuisances], axis=2), log_q + log_t


def _about(rng, centre, spread, label_set, config) -> tuple[np.ndarray, np.ndarray]:
    """Draws of a Student's t in all parameters and their log-density, per unit of labels and nuisances."""
    many = np.broadcast_to(centre[:, None], (len(centre), config.n_draws, centre.shape[1]))
    u, log_q = _draw(rng, many, spread, config)
    return u, log_q - np.sum(np.log(label_set.step))


def _given(centre: Float[np.ndarray, "n s d"], covariance: Float[np.ndarray, "n d d"], known, value):
    """Centres and covariance of the other parameters where those `known` have a `value [n, s, known]`."""
    other = np.setdiff1d(np.arange(centre.shape[2]), known)
    slope = np.linalg.solve(covariance[:, known][:, :, known], covariance[:, known][:, :, other]).swapaxes(
        1, 2
    )
    moved = centre[:, :, other] + np.einsum("nij,nsj->nsi", slope, value - centre[:, :, known])
    left = covariance[:, other][:, :, other] - slope @ covariance[:, known][:, :, other]
    return moved, positive(left)


def _draw(rng, centre: Float[np.ndarray, "n s d"], covariance: Float[np.ndarray, "n d d"], config):
    """Draws of parameters that end with the nuisances, and their log-density: vsini from its prior times the
    t of its square, the others from a t given it."""
    place = centre.shape[2] + VSINI
    speed, log_q = _draw_vsini(rng, centre[:, :, place], covariance[:, place, place], config)
    rest, left = _given(centre, covariance, np.array([place]), speed[:, :, None] ** 2)
    others, log_t = _draw_t(rng, rest, left, config.freedom)
    return np.insert(others, place, speed, axis=2), log_q + log_t


def _draw_vsini(rng, centre: Float[np.ndarray, "n s"], variance: Float[np.ndarray, " n"], config):
    """vsini in units of its scale, and its log-density."""
    nuisances = config.likelihood.nuisances
    fastest = nuisances.vsini_max / nuisances.vsini_scale
    # Cells grow with vsini, as do those of its square twice as fast.
    edges = fastest * np.linspace(0.0, 1.0, CELLS + 1) ** 1.5
    middle, width = 0.5 * (edges[1:] + edges[:-1]), np.diff(edges)
    before = np.asarray(log_prior_vsini(jnp.asarray(middle), nuisances)) + np.log(width)
    speed, log_q = np.empty(centre.shape), np.empty(centre.shape)
    for i, (at, sigma) in enumerate(zip(centre, np.sqrt(variance), strict=True)):
        z = (middle**2 - at[:, None]) / sigma
        table = before - 0.5 * (config.freedom + 1.0) * np.log1p(z**2 / config.freedom)
        table -= logsumexp(table, axis=1, keepdims=True)
        share = np.cumsum(np.exp(table), axis=1)
        cell = np.sum(share < rng.random(len(at))[:, None] * share[:, -1:], axis=1).clip(0, CELLS - 1)
        speed[i] = edges[cell] + width[cell] * rng.random(len(at))
        log_q[i] = table[np.arange(len(at)), cell] - np.log(width[cell])
    return speed, log_q


def _draw_t(rng, centre: Float[np.ndarray, "n s d"], covariance: Float[np.ndarray, "n d d"], freedom: float):
    """Multivariate Student's t with the covariance given (not the scale), and its log-density."""
    d = centre.shape[2]
    root = np.linalg.cholesky(covariance * (freedom - 2.0) / freedom)
    log_det = np.sum(np.log(np.diagonal(root, axis1=1, axis2=2)), axis=1)[:, None]
    constant = gammaln(0.5 * (freedom + d)) - gammaln(0.5 * freedom) - 0.5 * d * np.log(freedom * np.pi)
    z = (
        rng.normal(size=centre.shape)
        * np.sqrt(freedom / rng.chisquare(freedom, centre.shape[:2]))[:, :, None]
    )
    u = centre + np.einsum("nij,nsj->nsi", root, z)
    return u, constant - log_det - 0.5 * (freedom + d) * np.log1p(np.sum(z**2, axis=2) / freedom)


def _weighted(u, log_ratio: Float[np.ndarray, "n s"]) -> Weighted:
    smooth, k, limit = np.empty_like(log_ratio), np.empty(len(log_ratio)), np.empty(len(log_ratio))
    for i, one in enumerate(log_ratio):
        smooth[i], k[i] = pareto_smooth(one)
        limit[i] = largest_k(int(np.count_nonzero(one > -np.inf)))
    total = logsumexp(smooth, axis=1, keepdims=True)
    log_weight = smooth - np.where(np.isfinite(total), total, 0.0)
    effective = np.exp(-logsumexp(2.0 * log_weight, axis=1))
    efficiency = np.where(np.isfinite(total[:, 0]), effective / u.shape[1], 0.0)
    return Weighted(u, log_weight, efficiency, k, limit, total[:, 0] - np.log(u.shape[1]))


def _score(x: Weighted) -> np.ndarray:
    """How good weights are: their worth, but never those that cannot be trusted before those that can."""
    return x.efficiency + x.good


def largest_k(n: int) -> float:
    """Tail shapes below this can be trusted with `n` draws that have a weight: min(1 - 1 / log10 n, 0.7)
    (Vehtari et al. 2024, section 3.2.4); with ten or fewer, none."""
    return min(1.0 - 1.0 / np.log10(n), 0.7) if n > 10 else -np.inf


def pareto_smooth(log_ratio: Float[np.ndarray, " s"]) -> tuple[Float[np.ndarray, " s"], float]:
    """Log weights with the largest replaced by quantiles of a generalised Pareto distribution fitted to them,
    and its shape k (Vehtari et al. 2024, JMLR 25, 72, algorithm 1; the fit is that of Zhang & Stephens 2009,
    Technometrics 51, 316, with the prior on k of the former's appendix). Draws without any weight (outside
    the prior) are as if they had not been made. k is infinite where fewer than 25 have one: the tail is a
    fifth of them, five at least.
    """
    log_ratio = np.asarray(log_ratio, float)
    there = log_ratio > -np.inf
    if not there.all() and there.any():
        smooth = log_ratio.copy()
        smooth[there], k = pareto_smooth(log_ratio[there])
        return smooth, k
    n = len(log_ratio)
    n_tail = int(min(0.2 * n, 3.0 * np.sqrt(n)))
    if n_tail < 5:
        return log_ratio, np.inf
    order = np.argsort(log_ratio)
    tail = order[-n_tail:]
    top = log_ratio[order[-1]]
    cutoff = log_ratio[order[-n_tail - 1]]
    if not np.isfinite(cutoff) or not np.isfinite(top):
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
    """Weighted mean and covariance of draws with vsini squared, widened by the curvature's where few of them
    count."""
    weight = np.exp(best.log_weight[rows])
    weight = np.where(np.isfinite(weight), weight, 0.0)
    u = best.u[rows].copy()
    u[:, :, VSINI] **= 2
    mean = np.einsum("ns,nsi->ni", weight, u)
    d = u - mean[:, None]
    spread = np.einsum("ns,nsi,nsj->nij", weight, d, d)
    count = best.efficiency[rows] * best.u.shape[1]
    trust = (count / (count + 2.0 * mean.shape[1]))[:, None, None]
    return mean, positive(trust * spread + (1.0 - trust) * fallback)


def _resampled(rng, posterior: Posterior, mode: Mode, which, best: Weighted, proposal) -> Posterior:
    n_draws, n, _ = posterior.draws.shape
    stat = {name: np.full(n, np.nan) for name in ("pareto_k", "log_evidence", "r_hat")}
    stat |= {"efficiency": np.ones(n), "proposal": np.zeros(n)}
    stat["efficiency"][which], stat["pareto_k"][which] = best.efficiency, best.k
    good = np.flatnonzero(best.good)
    rows = which[good]
    stat["log_evidence"][rows] = best.log_evidence[good] + _constant(mode, rows)
    stat["proposal"][rows] = proposal[good]
    u = np.empty((len(good), n_draws, best.u.shape[2]))
    for i, (one, log_weight) in enumerate(zip(best.u[good], best.log_weight[good], strict=True)):
        chosen = systematic(rng, np.exp(log_weight), n_draws)
        u[i] = one[rng.permutation(chosen)]
    posterior = dataclasses.replace(posterior, stats={**posterior.stats, **stat})
    return _with_draws(posterior, mode, rows, u)


def _tempered(rng, density, posterior: Posterior, mode: Mode, which, config) -> Posterior:
    """Draws of tempered populations for stars whose weights cannot be trusted."""
    mean, covariance = mode.centre[which].astype(float), mode.covariance[which].astype(float)
    # From the square of vsini to vsini itself; at rest that is uncertain by the root of what its square is.
    square, sigma = np.maximum(mean[:, VSINI], 0.0), np.sqrt(covariance[:, VSINI, VSINI])
    slope = np.ones(mean.shape)
    slope[:, VSINI] = 1.0 / np.sqrt(4.0 * square + sigma)
    mean[:, VSINI] = np.sqrt(square)
    covariance *= slope[:, :, None] * slope[:, None]
    place = mean.shape[1] + VSINI
    found = temper(rng, density, mean, positive(covariance), config.n_draws, mirrored=place)
    stat = {name: values.copy() for name, values in posterior.stats.items()}
    stat["r_hat"][which] = np.where(np.isnan(found.r_hat), np.inf, found.r_hat)
    good = found.r_hat < AGREED
    rows = which[good]
    units = np.sum(np.log(posterior.label_set.step))
    stat["log_evidence"][rows] = found.log_evidence[good] + units + _constant(mode, rows)
    stat["efficiency"][rows], stat["proposal"][rows] = found.efficiency[good], TEMPERED
    n_draws, n_found = len(posterior.draws), found.u.shape[1]
    chosen = rng.permutation(np.linspace(0, n_found, n_draws, endpoint=False).astype(int))
    return _with_draws(dataclasses.replace(posterior, stats=stat), mode, rows, found.u[good][:, chosen])


def _constant(mode: Mode, rows) -> Float[np.ndarray, " n"]:
    """The part that the likelihood leaves out (see `log_likelihood`)."""
    ivar = mode.ivar[rows].astype(float)
    return 0.5 * np.sum(
        np.where(ivar > 0.0, np.log(np.where(ivar > 0.0, ivar, 1.0)) - LOG_2PI - 1.0, 0.0), axis=1
    )


def _with_draws(posterior: Posterior, mode: Mode, rows, u: Float[np.ndarray, "n s d"]) -> Posterior:
    """The posterior with draws `u` of some stars."""
    draws, log_prob = posterior.draws.copy(), posterior.log_prob.copy()
    n_label = draws.shape[2]
    for star, one in zip(rows, u, strict=True):
        draws[:, star] = mode.start[star] + posterior.label_set.step * one[:, :n_label]
        log_prob[:, star] = _gaussian(draws[:, star].astype(float))
    return dataclasses.replace(posterior, draws=draws, log_prob=log_prob)


def _gaussian(draws: Float[np.ndarray, "s l"]) -> Float[np.ndarray, " s"]:
    """Log-density of draws under the Gaussian with their moments."""
    size = np.maximum(draws.std(axis=0), 1e-6)
    z = (draws - draws.mean(axis=0)) / size
    normal = stats.multivariate_normal(np.zeros(len(size)), positive(np.cov(z.T)[None])[0])
    return normal.logpdf(z) - np.sum(np.log(size))
