"""Refinement: from a network's posterior to the maximum of the forward model's own likelihood, with honest
errors.

A network that has seen only simulations can be led astray by what they lack. Here the labels are fitted to
the spectrum itself, starting from the network's median: damped Gauss-Newton on a robust likelihood whose
error is the noise plus the model's stated error, over the labels, velocity, rotation, vmic, vmac and
resolution, and over scattered light and a Chebyshev continuum per arm; an arm that fits worse than stated
counts by how well it does fit. The errors come from the sandwich of curvature and scores (Huber 1967; White
1982, Econometrica 50, 1). Where the model fits to the noise, the scores are what that noise makes of them.
Where it is seen to miss, they are those found, summed over stretches wider than a line: what the model misses
in one line is missed in all its pixels at once, and counts once.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from jaxspec.fitting.check import (
    ADJUSTED,
    FitConfig,
    continuum_basis,
    in_batches,
    model_sigma,
    nuisance_prior,
)
from jaxspec.linear import inverse
from jaxspec.physics import turbulence
from jaxspec.physics.forward import Nuisances
from jaxspec.posterior.results import Posterior
from jaxspec.simulation.nuisances import FITTED, Stellar
from jaxspec.simulation.simulator import SpectrumModel

LAG = 2  # pixels, within a resolution element
# Labels move by at most this part of their `long_step` at a time, and nuisances of their prior's width.
LARGEST_STEP = 0.5


@dataclass(frozen=True)
class RefineConfig:
    """How labels are refined.

    Attributes:
        fit: stated model error, continuum degree and priors of the nuisances.
        vmac_prior: standard deviation [km/s] of the prior of vmac about its calibration.
        steps: Gauss-Newton steps.
        block: width [pixels] of the stretches over which errors are taken to be fully correlated.
        x_fe_mean, x_fe_scatter: weak Gaussian prior on each [X/Fe], for elements without a line.
        systematic: factor on each label's `systematic`, which is added to the covariance of a star whose
            spectrum the model misses by `misfit`, and in proportion where it misses by more or less.
        misfit: fraction of the continuum (see `model_misfit`). Spectra that the model fits to the noise have
            none. From half of it on, the scores found replace those expected from noise.
        depth: root mean square depth of the lines [of the continuum] below which the same misfit counts for
            more, up to twice: that of the Sun in HR10.
        snr_min: fainter stars keep the network's posterior: noise, not the model, limits them.
    """

    fit: FitConfig = field(default_factory=FitConfig)
    vmac_prior: float = FITTED["vmac"].sigma
    steps: int = 15
    block: int = 20
    x_fe_mean: float = 0.1
    x_fe_scatter: float = 0.35
    systematic: float = 1.0
    misfit: float = 0.006
    depth: float = 0.115
    snr_min: float = 30.0


class Refined(NamedTuple):
    """The optimum of each star: `labels [n, l]`, their `covariance [n, l, l]`, and the robust loss per pixel
    there and at the start."""

    labels: Float[np.ndarray, "n l"]
    covariance: Float[np.ndarray, "n l l"]
    loss: Float[np.ndarray, " n"]
    start_loss: Float[np.ndarray, " n"]


def refine_posterior(
    key: PRNGKeyArray,
    forward: SpectrumModel,
    posterior: Posterior,
    flux: Float[Array | np.ndarray, "n p"],
    ivar: Float[Array | np.ndarray, "n p"],
    config: RefineConfig = RefineConfig(),
) -> Posterior:
    """The posterior with its draws replaced by Gaussian ones about the refined labels, star by star.

    A star keeps the network's draws where it is too faint, where the fit did not improve on the network's
    median, or where its covariance is no covariance. `stats` gains `refined` (1 or 0). Draws are kept within
    the label set's bounds. The flags stay as they are until `AmortisedPosterior.flag` sets them anew.
    """
    forward.label_set.check_same(posterior.label_set.names, "labels of the posterior")
    found = refine_labels(forward, jnp.asarray(posterior.median, jnp.float32), flux, ivar, config)
    draws, log_prob = posterior.draws.copy(), posterior.log_prob.copy()
    label_set, refined = posterior.label_set, np.zeros(len(posterior))
    margin = 1e-4 * (label_set.high - label_set.low)
    for i in range(len(posterior)):
        covariance = found.covariance[i]
        usable = np.isfinite(covariance).all() and np.isfinite(found.labels[i]).all()
        if posterior.snr[i] < config.snr_min or not usable or not found.loss[i] < found.start_loss[i]:
            continue
        scale = np.sqrt(np.maximum(np.diag(covariance), 1e-12))
        value, vector = np.linalg.eigh(covariance / np.outer(scale, scale))
        root = scale[:, None] * vector * np.sqrt(np.maximum(value, 1e-9))
        z = np.asarray(jax.random.normal(jax.random.fold_in(key, i), (draws.shape[0], draws.shape[2])), float)
        values = found.labels[i] + z @ root.T
        draws[:, i] = np.clip(values, label_set.low + margin, label_set.high - margin)
        log_det = np.sum(np.log(scale)) + 0.5 * np.sum(np.log(np.maximum(value, 1e-9)))
        log_prob[:, i] = -0.5 * np.sum(z**2, axis=1) - log_det - 0.5 * z.shape[1] * np.log(2.0 * np.pi)
        refined[i] = 1.0
    return dataclasses.replace(
        posterior, draws=draws, log_prob=log_prob, stats={**posterior.stats, "refined": refined}
    )


def refine_labels(
    forward: SpectrumModel,
    labels: Float[Array | np.ndarray, "n l"],
    flux: Float[Array | np.ndarray, "n p"],
    ivar: Float[Array | np.ndarray, "n p"],
    config: RefineConfig = RefineConfig(),
    batch: int = 8,
) -> Refined:
    """Fit the labels of normalised spectra, in the order of the model's label set, from the given starting
    values."""
    return in_batches(partial(_refine_batch, forward, config=config), batch, labels, flux, ivar)


@eqx.filter_jit
def _refine_batch(forward, labels, flux, ivar, config):
    return jax.vmap(partial(_refine_star, forward, config=config))(labels, flux, ivar)


def model_misfit(
    residual: Float[Array, " p"], ivar: Float[Array, " p"], trust: Float[Array, " p"]
) -> Float[Array, ""]:
    """How far a model misses a spectrum beyond noise, as a fraction of the continuum.

    The noise of pixels is independent and a wrong line spans several, so the covariance of residuals `LAG`
    pixels apart is the model's; what noise makes of it in two standard errors is taken off. `trust` is the
    part of its weight with which a pixel counts.
    """
    sigma2 = jnp.where(ivar > 0.0, 1.0 / jnp.maximum(ivar, 1e-6), 0.0)
    limit = 5.0 * jnp.sqrt(sigma2 + 0.02**2)
    r = jnp.where(ivar > 0.0, jnp.clip(residual, -limit, limit), 0.0)
    pairs = jnp.sqrt(trust[:-LAG] * trust[LAG:]) * ((ivar[:-LAG] > 0.0) & (ivar[LAG:] > 0.0))
    total = jnp.maximum(jnp.sum(pairs), 1e-6)
    shared = jnp.sum(pairs * r[:-LAG] * r[LAG:]) / total
    by_chance = jnp.sqrt(jnp.sum(pairs**2 * sigma2[:-LAG] * sigma2[LAG:])) / total
    return jnp.sqrt(jnp.maximum(shared - 2.0 * by_chance, 0.0))


def nuisance_range(stellar: Stellar, n_arms: int, config: RefineConfig) -> Float[Array, "4 m"]:
    """Centres and widths of the Gaussian priors, and the limits, of what is fitted beside the labels of a
    star of given teff [K], logg and fe_h: velocity [km/s], vsini squared [km^2/s^2], vmic [km/s], resolution,
    vmac [km/s], and the scattered light of each arm.

    The square, because a spectrum is a smooth function of it down to no rotation at all, where its derivative
    by vsini vanishes and no step that follows it ever settles.
    """
    fit = config.fit
    (velocity, vsini, vmic, resolution), width = nuisance_prior(stellar, fit)
    vmac, scattered = turbulence.vmac_calibration(*stellar), FITTED["scattered_light"]
    light = [jnp.full((), scattered.mean)] * n_arms
    widths = [width[0], fit.vsini_prior**2, width[2], width[3], config.vmac_prior]

    def limits(end):
        low = {name: getattr(FITTED[name], end) for name in (*ADJUSTED, "vmac")}
        return jnp.asarray(
            [*(low | {"vsini": low["vsini"] ** 2}).values()] + [getattr(scattered, end)] * n_arms
        )

    return jnp.stack(
        [
            jnp.stack([velocity, vsini**2, vmic, resolution, vmac, *light]),
            jnp.asarray([*widths, *[scattered.sigma] * n_arms]),
            limits("low"),
            limits("high"),
        ]
    )


def _refine_star(forward, start, flux, ivar, config):
    fit, label_set = config.fit, forward.label_set
    arms = tuple(forward.instrument.slices.values())
    n_label, n_nuisance = start.size, 5 + len(arms)
    n_free = n_label + n_nuisance
    unit = jnp.asarray(label_set.per_label("long_step"))
    largest = jnp.full(n_free, LARGEST_STEP).at[n_label + 1].set(2.0)
    margin = 0.01 * (label_set.high - label_set.low)
    low, high = jnp.asarray(label_set.low + margin), jnp.asarray(label_set.high - margin)
    low, high = low.astype(start.dtype), high.astype(start.dtype)
    basis = jnp.asarray(continuum_basis(forward.instrument, fit.continuum_degree), flux.dtype)
    within = jnp.asarray(continuum_basis(forward.instrument, 0), flux.dtype)
    flat = jnp.zeros(basis.shape[0]).at[:: fit.continuum_degree + 1].set(1.0)
    observed = basis**2 @ ivar > 0.0
    flux = jnp.where(ivar > 0.0, flux, 1.0)

    def limits(u):
        stellar = label_set.stellar(start + unit * u[:n_label])
        centre, width, lowest, highest = nuisance_range(stellar, len(arms), config)
        return (
            jnp.concatenate([(low - start) / unit, (lowest - centre) / width]),
            jnp.concatenate([(high - start) / unit, (highest - centre) / width]),
        )

    def spectrum(u):
        labels = start + unit * u[:n_label]
        centre, width, _, _ = nuisance_range(label_set.stellar(labels), len(arms), config)
        velocity, vsini2, vmic, resolution, vmac, *light = centre + width * u[n_label:]
        light = jnp.stack(light) @ within
        model = forward(labels, Nuisances(vmic, vmac, jnp.sqrt(vsini2), velocity, resolution))
        return (model + light) / (1.0 + light)

    # Pseudo-observations of [X/Fe]: rows of the Jacobian and what they ought to be.
    x_fe = jnp.asarray(label_set.x_fe_matrix, unit.dtype)
    prior = jnp.zeros((len(x_fe), n_free)).at[:, :n_label].set(x_fe * unit) / config.x_fe_scatter

    def weights(model, r):
        stated = ivar / (1.0 + ivar * model_sigma(model, fit) ** 2)
        # An arm that fits worse than stated (fringes, sky, bad errors) counts by how well it does fit.
        z = jnp.where(ivar > 0.0, jnp.abs(r) * jnp.sqrt(stated), jnp.nan)
        scale = [jnp.full(z[arm].shape, 1.4826 * jnp.nanmedian(z[arm])) for arm in arms]
        weight = stated / jnp.fmax(jnp.concatenate(scale), 1.0) ** 2
        return weight * jnp.minimum(1.0, 2.0 / jnp.maximum(jnp.abs(r) * jnp.sqrt(weight), 1e-6)), stated

    def system(u, coefs):
        model, tangents = jax.vmap(lambda e: jax.jvp(spectrum, (u,), (e,)), out_axes=(None, 0))(
            jnp.eye(n_free)
        )
        r = flux - model * (coefs @ basis)
        weight, plain = weights(model, r)
        design = jnp.concatenate([tangents * (coefs @ basis), model * basis])
        labels = start + unit * u[:n_label]
        miss = (config.x_fe_mean - label_set.x_fe(labels)) / config.x_fe_scatter
        normal = (design * weight) @ design.T
        normal = normal.at[:n_free, :n_free].add(prior.T @ prior)
        normal = normal + jnp.diag(jnp.concatenate([jnp.zeros(n_label), jnp.ones(n_nuisance), 0.0 * flat]))
        right = (design @ (weight * r)).at[:n_free].add(prior.T @ miss).at[n_label:n_free].add(-u[n_label:])
        loss = jnp.sum(jnp.minimum(r**2 * plain, fit.clip**2)) / jnp.maximum(jnp.sum(ivar > 0.0), 1)
        variance = jnp.where(ivar > 0.0, 1.0 / jnp.maximum(ivar, 1e-6), 0.0)
        return normal, right, design * (weight * r), loss, (design * (weight**2 * variance)) @ design.T

    def scaled_inverse(normal):
        scale = jax.lax.rsqrt(jnp.maximum(jnp.diag(normal), 1e-6))
        unscaled = inverse(normal * jnp.outer(scale, scale) + 1e-6 * jnp.eye(normal.shape[0]))
        return unscaled * jnp.outer(scale, scale)

    def step(_, state):
        u, coefs = state
        normal, right, *_ = system(u, coefs)
        change = scaled_inverse(normal) @ right
        lowest, highest = limits(u)
        # What stands at a limit and would go beyond stays, and the others step without it.
        held = ((u <= lowest) & (change[:n_free] < 0.0)) | ((u >= highest) & (change[:n_free] > 0.0))
        held = jnp.concatenate([held, jnp.zeros(flat.size, bool)])
        change = scaled_inverse(normal + jnp.diag(jnp.where(held, 1e8 * jnp.diag(normal), 0.0))) @ right
        u = u + jnp.clip(jnp.where(held, 0.0, change)[:n_free], -largest, largest)
        u = u.at[:n_label].set(jnp.clip(u[:n_label], (low - start) / unit, (high - start) / unit))
        return jnp.clip(u, *limits(u)), jnp.where(observed, coefs + change[n_free:], flat)

    def fit_continuum(u, coefs):
        model = spectrum(u)
        weight, _ = weights(model, flux - model * (coefs @ basis))
        design = model * basis
        solved = scaled_inverse((design * weight) @ design.T) @ (design @ (weight * flux))
        return jnp.where(observed, solved, flat)

    begin = jnp.zeros(n_free)
    coefs = fit_continuum(begin, fit_continuum(begin, flat))
    start_loss = system(begin, coefs)[3]
    u, coefs = jax.lax.fori_loop(0, config.steps, step, (begin, coefs))
    normal, _, scores, loss, by_noise = system(u, coefs)
    pad = -scores.shape[1] % config.block
    blocks = jnp.pad(scores, ((0, 0), (0, pad))).reshape(scores.shape[0], -1, config.block).sum(-1)
    bread = scaled_inverse(normal)
    # The priors' own part of the scores' variance, so that what only a prior knows keeps the prior's width.
    known = jnp.zeros_like(normal).at[:n_free, :n_free].add(prior.T @ prior)
    known = known + jnp.diag(jnp.concatenate([jnp.zeros(n_label), jnp.ones(n_nuisance), 0.0 * flat]))
    found, expected = (
        (bread @ (x + known) @ bread)[:n_label, :n_label] for x in (blocks @ blocks.T, by_noise)
    )
    model = spectrum(u)
    residual = flux - model * (coefs @ basis)
    weight, stated = weights(model, residual)
    trust = weight / jnp.maximum(stated, 1e-6)
    misfit = model_misfit(residual, ivar, trust) / config.misfit
    more = jnp.diag(found) / jnp.maximum(jnp.diag(expected), 1e-12) - 1.0
    wider = jnp.sqrt(1.0 + jnp.minimum(2.0 * misfit, 1.0) * jnp.maximum(more, 0.0))
    covariance = expected * jnp.outer(wider, wider)
    # The same misfit is a larger error of weaker lines; twice at most, as some of it is no line's.
    depth = jnp.sqrt(jnp.sum(trust * (1.0 - model) ** 2) / jnp.maximum(jnp.sum(trust), 1e-6))
    weak = jnp.clip(config.depth / jnp.maximum(depth, 1e-3), 1.0, 2.0)
    systematic = config.systematic * label_set.per_label("systematic")
    systematic = jnp.square(weak * misfit * jnp.asarray(systematic))
    covariance = covariance * jnp.outer(unit, unit) + jnp.diag(systematic)
    return Refined(start + unit * u[:n_label], covariance, loss, start_loss)
