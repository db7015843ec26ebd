"""The one place where a star's flags are set: from its draws and its statistics as they are now."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxspec.instruments import Instrument
from jaxspec.posterior.flags import Flag
from jaxspec.posterior.limits import usable_arms
from jaxspec.posterior.results import Posterior
from jaxspec.simulation.prior import StellarPrior

LEAST_INSIDE = 0.05
"""A star with a smaller share of its draws inside the prior is flagged OUT_OF_RANGE (of the shipped weights'
stars as trained, one in a hundred)."""
EDGE = 0.01  # of the range of a label: a 68 % interval that reaches so close is NEAR_BOUND


def flag_stars(
    posterior: Posterior,
    ivar: Float[Array | np.ndarray, "n p"],
    instrument: Instrument,
    prior: StellarPrior | None,
    snr_limit: float,
) -> Posterior:
    """`posterior` with all its flags set anew.

    `stats` are read where they are there: `outside_prior` (share of the network's draws outside of the prior;
    of a star that was `refined` it becomes that of the refined draws), `novelty` (above 1 is unlike the
    training set), `contradicts_prior`, `bad_fit` and `bad_errors` (1 or 0, of the check).

    Args:
        ivar: normalised, of the same stars.
        prior: of the training; None where the network was trained on a survey: then the label set's bounds
            count.
        snr_limit: S/N per pixel below which LOW_SNR is set.
    """

    def stat(name, default=0.0):
        return posterior.stats.get(name, np.full(len(posterior), default))

    outside, refined = stat("outside_prior").copy(), stat("refined") > 0
    if prior is not None and refined.any():
        inside = np.asarray(prior.supports(jnp.asarray(posterior.draws[:, refined])))
        outside[refined] = 1.0 - inside.mean(axis=0)
    bounds = posterior.label_set if prior is None else prior
    p16, p84 = np.quantile(posterior.draws, [0.16, 0.84], axis=0)
    margin = EDGE * (bounds.high - bounds.low)
    checked = np.isfinite(posterior.chi2)
    conditions = {
        Flag.NEAR_BOUND: np.any((p16 < bounds.low + margin) | (p84 > bounds.high - margin), axis=1),
        Flag.LOW_SNR: ~(posterior.snr >= snr_limit),
        Flag.ARM_MISSING: ~usable_arms(np.asarray(ivar), instrument).all(axis=1),
        Flag.BAD_FIT: stat("bad_fit") > 0,
        Flag.OUT_OF_RANGE: (stat("novelty") > 1.0)
        | (stat("contradicts_prior") > 0)
        | (outside > 1.0 - LEAST_INSIDE),
        Flag.NOT_CHECKED: ~checked,
        Flag.NO_DATA: ~(np.asarray(ivar) > 0.0).any(axis=1),
        Flag.BAD_ERRORS: stat("bad_errors") > 0,
    }
    flags = sum(int(flag) * where.astype(np.int64) for flag, where in conditions.items())
    return dataclasses.replace(posterior, flags=flags, stats={**posterior.stats, "outside_prior": outside})
