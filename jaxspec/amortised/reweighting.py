"""Posteriors under another prior than that of the training: what the stars of a survey are known to be."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from scipy.special import logsumexp

from jaxspec.errors import InputError
from jaxspec.fitting.importance import pareto_smooth
from jaxspec.fitting.tempered import systematic
from jaxspec.posterior.model import PosteriorModel
from jaxspec.posterior.results import Posterior
from jaxspec.simulation.prior import StellarPrior

# Draws that a posterior must be worth; fewer say that the star is none of the new prior's.
FEWEST = 30
# Draws to begin with for each one wanted: a prior half as wide in each label leaves one in dozens.
MORE = 4


def under_prior(
    key: PRNGKeyArray, posterior: Posterior, prior: StellarPrior, n: int | None = None
) -> Posterior:
    """The posteriors that the same spectra have under another prior: draws weighted by the ratio of the two
    densities, Pareto-smoothed, and drawn again.

    Args:
        posterior: under `posterior.prior`, with `MORE` draws for each one wanted, or more.
        prior: what is known of the stars, within the ranges of the old one: beyond them there are no draws.
        n: draws of the result; by default as many as there are.

    `stats` gains `prior_efficiency`, what share of the draws the weighted ones are worth, and
    `contradicts_prior`: 1 where that is fewer than `FEWEST` draws. Those stars keep the draws under the old
    prior, and `AmortisedPosterior.flag` flags them OUT_OF_RANGE.

    Raises: InputError when the old prior is not known (networks trained on a survey), and for a new one that
        reaches beyond it.
    """
    if posterior.prior is None:
        raise InputError(
            "posterior.prior",
            "none: trained on a survey",
            "the density to divide by",
            "use weights trained on simulations",
        )
    old = posterior.prior
    old.label_set.check_same(prior.names, "labels of the new prior")
    for edge, beyond in (("low", prior.low < old.low), ("high", prior.high > old.high)):
        if beyond.any():
            i = int(np.argmax(beyond))
            raise InputError(
                f"prior, {edge} end of {prior.names[i]}",
                f"{getattr(prior, edge)[i]:g}",
                f"{getattr(old, edge)[i]:g}, as in training, or inside of it",
                "choose a narrower prior",
            )
    draws = jnp.asarray(posterior.draws)
    before, after = (np.asarray(p.log_prob(draws), float) for p in (old, prior))
    # What a refinement puts outside the old prior has no weight in the new one.
    ratio = np.where(np.isfinite(before), after - np.where(np.isfinite(before), before, 0.0), -np.inf)
    return dataclasses.replace(resample(key, posterior, ratio, n), prior=prior)


def resample(
    key: PRNGKeyArray,
    posterior: Posterior,
    log_ratio: Float[np.ndarray, "d s"],
    n: int | None = None,
) -> Posterior:
    """The posteriors whose prior is the present one times a ratio, of which ln is given at every draw: that
    of two priors, or of the densities of labels in two surveys (`jaxspec.surveys.label_shift`).

    `stats` gains what `under_prior` says. Posterior densities are normalised with the draws' mean ratio.
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    n_draws, n_star, _ = posterior.draws.shape
    n = n_draws if n is None else n
    ratio = np.asarray(log_ratio, float)
    rows, log_prob = np.empty((n, n_star), int), posterior.log_prob.copy()
    efficiency = np.zeros(n_star)
    for i in range(n_star):
        smooth = pareto_smooth(ratio[:, i])[0]
        total = logsumexp(smooth)
        if np.isfinite(total):
            efficiency[i] = np.exp(2.0 * total - logsumexp(2.0 * smooth)) / n_draws
        if efficiency[i] * n_draws < FEWEST:
            rows[:, i] = rng.choice(n_draws, n, replace=n > n_draws)
            continue
        rows[:, i] = rng.permutation(systematic(rng, np.exp(smooth - total), n))
        log_prob[:, i] += ratio[:, i] - (total - np.log(n_draws))
    contradicts = efficiency * n_draws < FEWEST
    return dataclasses.replace(
        posterior,
        draws=np.take_along_axis(posterior.draws, rows[..., None], axis=0),
        log_prob=np.take_along_axis(log_prob, rows, axis=0),
        raw=None if posterior.raw is None else np.take_along_axis(posterior.raw, rows[..., None], axis=0),
        stats={
            **posterior.stats,
            "prior_efficiency": efficiency,
            "contradicts_prior": contradicts.astype(float),
        },
    )


def sample_under(
    prior: StellarPrior | None,
    posterior: PosteriorModel,
    key: PRNGKeyArray,
    flux: Float[Array | np.ndarray, "s p"],
    ivar: Float[Array | np.ndarray, "s p"],
    n: int,
    names: tuple[str, ...] | None = None,
) -> Posterior:
    """`n` draws for each normalised spectrum, under another prior if one is given."""
    if prior is None:
        return posterior.sample_normalised(key, flux, ivar, n, names=names)
    more = posterior.sample_normalised(key, flux, ivar, MORE * n, names=names)
    return posterior.flag(under_prior(jax.random.fold_in(key, 3), more, prior, n), np.asarray(ivar))
