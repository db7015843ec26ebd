"""The one place where a star's flags are set: from its draws and its statistics as they are now."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxspec.instruments import Instrument
from jaxspec.labels import LabelSet
from jaxspec.posterior.flags import Flag
from jaxspec.posterior.limits import usable_arms
from jaxspec.posterior.results import Posterior
from jaxspec.simulation.prior import StellarPrior

LEAST_INSIDE = 0.05
"""A star with a smaller share of its draws inside the prior is flagged OUT_OF_RANGE (of the shipped weights'
stars as trained, one in a hundred)."""
EDGE = 0.01  # of the range of a label: draws so close to the edge of the prior count as near it
STARS = 1000  # at once, to bound memory
MOST_NEAR = 0.16
"""A star with a larger share of its draws near one edge is NEAR_BOUND: its 68 % interval reaches it."""


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
    checked = np.isfinite(posterior.chi2)
    conditions = {
        Flag.NEAR_BOUND: share_near_edge(posterior.draws, posterior.label_set, prior) > MOST_NEAR,
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


def share_near_edge(
    draws: Float[np.ndarray, "s n l"], label_set: LabelSet, prior: StellarPrior | None
) -> Float[np.ndarray, " n"]:
    """Share of each star's draws near the edge of the prior's support (of the label set's bounds, without a
    prior) that is nearest to most of them.

    A draw is near an edge if a step of `EDGE` of a label's range, up or down in that label, leads out. So
    slanted edges and those of [X/Fe], beyond which nothing was trained, count like the limits of single
    labels.
    """
    bounds = label_set if prior is None else prior
    step = EDGE * (bounds.high - bounds.low)
    share = np.zeros(draws.shape[1])
    for start in range(0, len(share), STARS):
        part = slice(start, start + STARS)
        for i in range(draws.shape[2]):
            for way in (-step[i], step[i]):
                moved = draws[:, part].copy()
                moved[..., i] += way
                if prior is None:
                    outside = ~np.all((moved > label_set.low) & (moved < label_set.high), axis=-1)
                else:
                    outside = ~np.asarray(prior.supports(jnp.asarray(moved)))
                share[part] = np.maximum(share[part], outside.mean(axis=0))
    return share
