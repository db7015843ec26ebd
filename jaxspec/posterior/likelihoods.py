"""Likelihoods of the labels from posteriors: the training prior divided out, summarised by Gaussians.

Whoever combines measurements of one star wants likelihoods, not posteriors: a network's training prior would
otherwise enter once per star and survey. What remains without it is summarised by the Gaussian with the same
first two moments.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from jaxspec.errors import InputError
from jaxspec.posterior.flags import Flag
from jaxspec.posterior.results import Posterior
from jaxspec.simulation.prior import StellarPrior

# A direction in which the posterior is at least this fraction of the prior's variance says nothing.
UNINFORMED = 0.98
LEAST_ESS = 50.0
# Of a posterior's precision, at least this part stays when a prior is divided out locally: chi-squares of
# true labels are then 1 at a signal-to-noise of 12; with less, single stars run away.
LEAST_LEFT = 0.2
# Draws of each star at which a prior's slopes are averaged, and stars at a time.
SLOPES, BATCH = 256, 64
# What spoils a likelihood. Low S/N or a missing arm merely widen it, as its covariance says.
SUSPECT = Flag.NEAR_BOUND | Flag.BAD_FIT | Flag.OUT_OF_RANGE | Flag.NO_DATA


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


def divide_out_locally(
    draws: Float[np.ndarray, "d n l"], prior: StellarPrior
) -> tuple[Float[np.ndarray, "n l"], Float[np.ndarray, "n l l"]]:
    """Mean and covariance of Gaussian likelihoods whose products with `prior` have these posterior draws.

    The posterior is matched by a Gaussian, and the prior by the quadratic that is closest to its logarithm
    where the posterior is: its mean gradient and Hessian over the draws (Opper & Archambeau 2009, Neural
    Computation 21, 786). Exact for Gaussians; it follows a prior that bends over the width of a posterior,
    and unlike weights it has no noise to speak of. A likelihood has at most five times its posterior's
    variance, in any direction. Edges of the prior are not undone.
    """
    mean, covariance, _ = weighted_moments(draws, np.zeros(draws.shape[:2]))
    root = np.linalg.cholesky(covariance)
    some = draws[np.linspace(0, len(draws) - 1, min(len(draws), SLOPES)).astype(int)]
    gradient, hessian = np.zeros(mean.shape), np.zeros(covariance.shape)
    for i in range(0, len(mean), BATCH):
        rows = np.resize(np.arange(i, min(i + BATCH, len(mean))), BATCH)  # one shape, one compilation
        g, h = _prior_slopes(prior, jnp.asarray(some[:, rows], jnp.float32))
        gradient[rows], hessian[rows] = np.asarray(g, float), np.asarray(h, float)
    # In each posterior's own coordinates, where it has zero mean and unit precision.
    slope = np.einsum("nji,nj->ni", root, gradient)
    value, vector = np.linalg.eigh(np.eye(mean.shape[1]) + np.swapaxes(root, 1, 2) @ hessian @ root)
    value = np.maximum(value, LEAST_LEFT)
    shift = np.einsum("nij,nj,nkj,nk->ni", vector, 1.0 / value, vector, -slope)
    axes = root @ vector
    new_mean = mean + np.einsum("nij,nj->ni", root, shift)
    return new_mean, np.einsum("nij,nj,nkj->nik", axes, 1.0 / value, axes)


@partial(jax.jit, static_argnums=0)
def _prior_slopes(prior, labels):
    """Mean gradient and Hessian of the log-density over the first axis."""
    flat = labels.reshape(-1, labels.shape[-1])
    gradient = jax.vmap(jax.grad(prior.log_prob))(flat).reshape(labels.shape)
    hessian = jax.vmap(jax.hessian(prior.log_prob))(flat).reshape(*labels.shape, labels.shape[-1])
    return gradient.mean(axis=0), hessian.mean(axis=0)


class Likelihoods(NamedTuple):
    """Gaussian likelihoods of n spectra: `values [n, l]` and `covariance [n, l, l]` in the units and
    the order of the posterior's labels. `suspect [n]`: the likelihood is not to be trusted."""

    values: Float[np.ndarray, "n l"]
    covariance: Float[np.ndarray, "n l l"]
    suspect: Bool[np.ndarray, " n"]


def likelihoods(
    posterior: Posterior,
    prior_draws: Float[np.ndarray, "k l"] | None = None,
    log_prior: Callable | None = None,
) -> Likelihoods:
    """Likelihoods of the spectra of flow posteriors, with the training prior divided out.

    Give `prior_draws`, labels drawn from the prior that the flow was trained on (`StellarPrior.sample`): its
    Gaussian is divided out exactly. Or give `log_prior`, a function of labels `[..., l]` to its log-density:
    draws are then weighted by its inverse, which suits priors that bend over the width of a posterior; stars
    whose weights are too uneven to be trusted are suspect. With neither, the prior that the posterior carries
    is divided out by `divide_out_locally`; a posterior without one is taken to be a likelihood already. So
    are the draws of `refine_posterior`, whatever is given.

    Stars whose `posterior.flags` have a bit of `SUSPECT` are suspect. Raises `InputError` if both priors are
    given, for a prior of other labels, and for a star whose draws do not vary.
    """
    if prior_draws is not None and log_prior is not None:
        raise InputError("likelihoods", "prior_draws and log_prior", "one of them", "leave one out")
    draws = np.asarray(posterior.draws, float)
    if len(draws) <= 2 * draws.shape[2]:
        raise InputError(
            "posterior.draws",
            f"{len(draws)} draws",
            f"more than {2 * draws.shape[2]}",
            "draw more: a covariance is made of them",
        )
    suspect = (np.asarray(posterior.flags) & int(SUSPECT)) != 0
    amortised = ~(np.asarray(posterior.stats.get("refined", np.zeros(len(posterior)))) > 0)
    log_weight = np.zeros(draws.shape[:2])
    if log_prior is not None:
        log_weight[:, amortised] = -np.asarray(log_prior(jnp.asarray(draws[:, amortised])), float)
        log_weight = np.where(np.isfinite(log_weight), log_weight, -np.inf)
    mean, covariance, ess = weighted_moments(draws, log_weight)
    suspect = suspect | (ess < LEAST_ESS)
    if prior_draws is not None:
        prior = np.asarray(prior_draws, float)
        moments = prior.mean(axis=0), np.cov(prior.T)
        mean[amortised], covariance[amortised] = divide_out(mean[amortised], covariance[amortised], *moments)
    _check_draws(posterior, covariance)
    if prior_draws is None and log_prior is None and posterior.prior is not None and amortised.any():
        if posterior.prior.names != posterior.label_set.names:
            raise InputError(
                "posterior.prior",
                f"a density of {', '.join(posterior.prior.names)}",
                f"one of {', '.join(posterior.label_set.names)}",
                "give prior_draws or log_prior",
            )
        found = divide_out_locally(draws[:, amortised], posterior.prior)
        mean[amortised], covariance[amortised] = found
    return Likelihoods(mean, covariance, suspect)


def _check_draws(posterior: Posterior, covariance: Float[np.ndarray, "n l l"]) -> None:
    variance = np.diagonal(covariance, axis1=1, axis2=2)
    if not (np.isfinite(variance) & (variance > 0)).all():
        which = int(np.argwhere(~(np.isfinite(variance) & (variance > 0)))[0, 0])
        raise InputError(
            f"posterior of {posterior.names[which]}",
            "draws that do not vary, or are not finite",
            "draws of a posterior",
            "leave the star out",
        )
