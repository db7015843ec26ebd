"""Spectra as measurements: flow posteriors and fits of the forward model, beside catalogues.

The survey model wants the likelihood of a star's labels, not a posterior: a network's training prior would
otherwise enter once per star and survey. Here it is divided out, and what remains is summarised by the
Gaussian with the same first two moments.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxspec.errors import InputError
from jaxspec.posterior.results import Posterior
from jaxspec.surveys.observations import Survey

# A direction in which the posterior is at least this fraction of the prior's variance says nothing.
UNINFORMED = 0.98
LEAST_ESS = 50.0


def divide_out(
    mean: Float[np.ndarray, "n l"],
    covariance: Float[np.ndarray, "n l l"],
    prior_mean: Float[np.ndarray, " l"],
    prior_covariance: Float[np.ndarray, "l l"],
) -> tuple[Float[np.ndarray, "n l"], Float[np.ndarray, "n l l"]]:
    """Mean and covariance of Gaussian likelihoods whose products with a Gaussian prior have given moments.

    Exact for Gaussians: precisions subtract. In directions in which a posterior is not narrower than the
    prior the likelihood is flat: its variance is then 50 times the prior's.
    """
    root = np.linalg.cholesky(prior_covariance)
    inverse = np.linalg.inv(root)
    # In the prior's own coordinates, posterior variances lie between 0 and 1, axis by axis.
    value, vector = np.linalg.eigh(inverse @ covariance @ inverse.T)
    value = np.clip(value, 1e-12, UNINFORMED)
    likelihood = value / (1.0 - value)
    shift = np.einsum("nji,nj->ni", vector, (mean - prior_mean) @ inverse.T)
    shift = shift / (1.0 - value)
    axes = np.einsum("ij,njk->nik", root, vector)
    new_mean = prior_mean + np.einsum("nij,nj->ni", axes, shift)
    return new_mean, np.einsum("nij,nj,nkj->nik", axes, likelihood, axes)


def weighted_moments(
    draws: Float[np.ndarray, "d n l"], log_weight: Float[np.ndarray, "d n"]
) -> tuple[Float[np.ndarray, "n l"], Float[np.ndarray, "n l l"], Float[np.ndarray, " n"]]:
    """Mean, covariance and effective number of weighted draws of each star."""
    weight = np.exp(log_weight - log_weight.max(axis=0))
    weight /= weight.sum(axis=0)
    mean = np.einsum("dn,dnl->nl", weight, draws)
    d = draws - mean
    return mean, np.einsum("dn,dni,dnj->nij", weight, d, d), 1.0 / np.sum(weight**2, axis=0)


def from_posterior(
    name: str,
    posterior: Posterior,
    star: Int[np.ndarray, " n"],
    prior_draws: Float[np.ndarray, "k l"] | None = None,
    log_prior: Callable | None = None,
    flagged: Bool[np.ndarray, " n"] | None = None,
) -> Survey:
    """A survey of flow posteriors, one spectrum a row, with the training prior divided out.

    Give `prior_draws`, labels drawn from the prior that the flow was trained on (`StellarPrior.sample`): its
    Gaussian is divided out exactly. Or give `log_prior`, a function of labels `[..., l]` to its log-density:
    draws are then weighted by its inverse, which suits priors that bend over the width of a posterior; stars
    whose weights are too uneven to be trusted are flagged. With neither, the posterior is taken to be a
    likelihood already: draws of `refine_posterior` are.

    `flagged` adds to stars that have `posterior.flags`. Raises `InputError` if both priors are given, or for
    a star whose draws do not vary.
    """
    if prior_draws is not None and log_prior is not None:
        raise InputError("from_posterior", "prior_draws and log_prior", "one of them", "leave one out")
    draws = np.asarray(posterior.draws, float)
    if len(draws) <= 2 * draws.shape[2]:
        raise InputError(
            "posterior.draws",
            f"{len(draws)} draws",
            f"more than {2 * draws.shape[2]}",
            "draw more: a covariance is made of them",
        )
    suspect = np.asarray(posterior.flags != 0)
    log_weight = np.zeros(draws.shape[:2])
    if log_prior is not None:
        log_weight = -np.asarray(log_prior(jnp.asarray(draws)), float)
        log_weight = np.where(np.isfinite(log_weight), log_weight, -np.inf)
    mean, covariance, ess = weighted_moments(draws, log_weight)
    suspect = suspect | (ess < LEAST_ESS)
    if prior_draws is not None:
        prior = np.asarray(prior_draws, float)
        mean, covariance = divide_out(mean, covariance, prior.mean(axis=0), np.cov(prior.T))
    variance = np.diagonal(covariance, axis1=1, axis2=2)
    if not (np.isfinite(variance) & (variance > 0)).all():
        which = int(np.argwhere(~(np.isfinite(variance) & (variance > 0)))[0, 0])
        raise InputError(
            f"posterior of {posterior.names[which]}",
            "draws that do not vary, or are not finite",
            "draws of a posterior",
            "leave the star out",
        )
    if flagged is not None:
        suspect = suspect | flagged
    return Survey(name, np.asarray(star), mean, covariance, suspect)
