"""Spectra as measurements of a survey: flow posteriors and fits of the forward model, beside catalogues."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxspec.posterior.likelihoods import likelihoods
from jaxspec.posterior.results import Posterior
from jaxspec.surveys.observations import Survey


def from_posterior(
    name: str,
    posterior: Posterior,
    star: Int[np.ndarray, " n"],
    prior_draws: Float[np.ndarray, "k l"] | None = None,
    log_prior: Callable | None = None,
    flagged: Bool[np.ndarray, " n"] | None = None,
) -> Survey:
    """A survey of flow posteriors, one spectrum a row, with the training prior divided out.

    `star [n]` is the index of each row's star. `prior_draws` and `log_prior` say which prior to divide out
    (see `jaxspec.posterior.likelihoods`). `flagged [n]` adds to the stars whose likelihoods are suspect.

    Raises `InputError` if both priors are given, for a prior of other labels, and for a star whose draws do
    not vary.
    """
    values, covariance, suspect = likelihoods(posterior, prior_draws, log_prior)
    if flagged is not None:
        suspect = suspect | flagged
    return Survey(name, np.asarray(star), values, covariance, suspect)
