"""The exact posterior of one star, up to its evidence: the forward model's likelihood times explicit priors.

Beside the labels a spectrum depends on five nuisances (vmic, vmac, vsini, velocity, resolution), whose
densities are those that simulations draw them from, and on the continuum and the scattered light of each
arm, in which it is linear: those are integrated out analytically. Pixels that no model explains (cosmic rays)
are taken out first, and the noise of each arm is scaled to what is left, as stated errors may be wrong by a
factor.

Parameters `u` of a star are its labels relative to a starting point, in units of `UNITS`, then its nuisances
relative to their expectation at these labels, in units of their scatter.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float

from jaxspec.errors import InputError
from jaxspec.linear import inverse, inverse_and_log_det
from jaxspec.physics import turbulence
from jaxspec.physics.forward import Nuisances
from jaxspec.posterior.check import in_batches
from jaxspec.posterior.nuisances import PURE, NuisanceConfig
from jaxspec.posterior.prior import StellarPrior
from jaxspec.posterior.simulator import SpectrumModel

# Steps in labels are taken in these units (K, then dex).
UNITS = (100.0, 0.1) + (0.05,) * 7
N_NUISANCES = len(Nuisances._fields)
# Place of vsini among the nuisances, from the end: also that in `u`.
VSINI = Nuisances._fields.index("vsini") - N_NUISANCES
# vsini that the second fit starts from, in units of its scale.
FAST = 5.0
LOG_2PI = float(np.log(2.0 * np.pi))


@dataclass(frozen=True)
class LikelihoodConfig:
    """What is assumed beside the forward model.

    Attributes:
        nuisances: how nuisances, scattered light and errors of stated noise are distributed.
        continuum_degree: of the Chebyshev continuum of each arm.
        continuum_scatter: prior standard deviation of its coefficients, about a continuum of one.
        clip: pixels that the best fit misses by more than so many errors are not used.
        steps: Gauss-Newton steps to the best fit.
    """

    nuisances: NuisanceConfig = PURE
    continuum_degree: int = 5
    continuum_scatter: float = 0.05
    clip: float = 5.0
    steps: int = 12

    def __post_init__(self):
        for name in ("continuum_scatter", "clip"):
            if not getattr(self, name) > 0.0:
                raise InputError(
                    f"likelihood.{name}", f"{getattr(self, name)}", "a positive number", "mend it"
                )


class Mode(NamedTuple):
    """The best fit of each star: `start [n, l]`, the labels that `u` is relative to; `u [n, d]` there with
    its `covariance [n, d, d]` as curvature has it; and the inverse variance `ivar [n, p]` of the pixels that
    count, with the noise that is found."""

    start: Float[np.ndarray, "n l"]
    u: Float[np.ndarray, "n d"]
    covariance: Float[np.ndarray, "n d d"]
    ivar: Float[np.ndarray, "n p"]


def spectrum_at(
    u: Float[Array, " d"], start: Float[Array, " l"], config: LikelihoodConfig
) -> tuple[Float[Array, " l"], Nuisances]:
    """Labels and nuisances of parameters `u`."""
    n_label = start.size
    labels = start + jnp.asarray(UNITS[:n_label]) * u[:n_label]
    vmic, vmac = turbulence.vmic_calibration(*labels[:3]), turbulence.vmac_calibration(*labels[:3])
    scatter = nuisance_scale(config)
    centre = jnp.stack(
        [vmic, vmac, jnp.zeros(()), jnp.zeros(()), jnp.full((), config.nuisances.resolution_mean)]
    )
    return labels, Nuisances(*(centre + scatter * u[n_label:]))


def nuisance_scale(config: LikelihoodConfig) -> Float[np.ndarray, " 5"]:
    """Units of the nuisances in `u`."""
    c = config.nuisances
    return np.array([c.vmic_scatter, c.vmac_scatter, c.vsini_scale, c.velocity_error, c.resolution_scatter])


def log_prior_nuisances(
    u: Float[Array, " 5"], nuisances: Nuisances, config: NuisanceConfig
) -> Float[Array, ""]:
    """Log-density of the nuisances' part of `u`, as `draw_nuisances` draws them; minus infinity where it
    clips."""
    normal = -0.5 * jnp.square(u) - 0.5 * LOG_2PI
    speed = jnp.abs(u[VSINI])
    slow = jnp.log1p(-config.vsini_fast) - speed
    fast = jnp.where(
        speed * config.vsini_scale < config.vsini_max,
        jnp.log(config.vsini_fast * config.vsini_scale / config.vsini_max),
        -jnp.inf,
    )
    vsini = jnp.where(u[VSINI] >= 0.0, jnp.logaddexp(slow, fast), -jnp.inf)
    wide = config.velocity_error / config.velocity_tail_error
    velocity = logsumexp(
        jnp.stack(
            [
                jnp.log1p(-config.velocity_tail) + normal[3],
                jnp.log(config.velocity_tail * wide) - 0.5 * jnp.square(u[3] * wide) - 0.5 * LOG_2PI,
            ]
        )
    )
    inside = (speed * config.vsini_scale <= config.vsini_max) & (jnp.abs(nuisances.resolution - 1.0) <= 0.3)
    for value, (low, high) in ((nuisances.vmic, config.vmic_range), (nuisances.vmac, config.vmac_range)):
        inside &= (value >= low) & (value <= high)
    return jnp.where(inside, normal[0] + normal[1] + vsini + velocity + normal[4], -jnp.inf)


def log_likelihood(
    model: Float[Array, " p"],
    flux: Float[Array, " p"],
    ivar: Float[Array, " p"],
    forward: SpectrumModel,
    config: LikelihoodConfig,
) -> Float[Array, ""]:
    """Log-likelihood of a spectrum given the model, continuum and scattered light of each arm integrated
    out; less the constant `sum ln(ivar / 2 pi) / 2 - n / 2` of its n used pixels, which float32 would not
    carry."""
    good = ivar > 0.0
    flux = jnp.where(good, flux, 1.0)
    total = jnp.zeros(())
    for where, (columns, mean, width) in zip(
        forward.instrument.slices.values(), _arms(forward, config), strict=True
    ):
        m, w = model[where], ivar[where]
        design = jnp.concatenate([m * columns, (1.0 - m)[None]])
        r = flux[where] - mean @ design
        scaled = design * width[:, None]
        matrix = (scaled * w) @ scaled.T + jnp.eye(len(width))
        right = (scaled * w) @ r
        solved, log_det = inverse_and_log_det(matrix)
        # One taken off each pixel: the sum then stays of the size of its own scatter.
        total += -0.5 * jnp.sum(jnp.where(good[where], w * r**2 - 1.0, 0.0))
        total += 0.5 * (right @ solved @ right) - 0.5 * log_det
    return total


def _arms(forward, config):
    """Of each arm the continuum's columns, and prior means and widths of these and of the scattered light.
    Light `s` of the continuum makes (model + s) / (1 + s), linear in s / (1 + s)."""
    most = config.nuisances.scattered_light / (1.0 + config.nuisances.scattered_light)
    for where in forward.instrument.slices.values():
        x = np.linspace(-1.0, 1.0, where.stop - where.start)
        columns = np.polynomial.chebyshev.chebvander(x, config.continuum_degree).T
        mean = np.zeros(len(columns) + 1)
        mean[0], mean[-1] = 1.0, 0.5 * most
        width = np.append(np.full(len(columns), config.continuum_scatter), max(most / np.sqrt(12.0), 1e-6))
        yield (
            jnp.asarray(columns, jnp.float32),
            jnp.asarray(mean, jnp.float32),
            jnp.asarray(width, jnp.float32),
        )


def log_density(
    forward: SpectrumModel,
    prior: StellarPrior,
    config: LikelihoodConfig,
    u: Float[Array, " d"],
    start: Float[Array, " l"],
    flux: Float[Array, " p"],
    ivar: Float[Array, " p"],
) -> Float[Array, ""]:
    """Log of prior times likelihood at `u`, a density per unit of all labels and of the nuisances in `u`,
    less the constant of `log_likelihood`; minus infinity outside the prior."""
    labels, nuisances = spectrum_at(u, start, config)
    before = prior.log_prob(labels) + log_prior_nuisances(u[start.size :], nuisances, config.nuisances)
    # The model is asked about possible stars only: elsewhere it may have no finite answer.
    inside = jnp.isfinite(before)
    safe, known = spectrum_at(jnp.where(inside, u, 0.0), start, config)
    model = forward(safe, known)
    return jnp.where(inside, before + log_likelihood(model, flux, ivar, forward, config), -jnp.inf)


@eqx.filter_jit
def log_density_of_draws(
    forward: SpectrumModel,
    prior: StellarPrior,
    config: LikelihoodConfig,
    u: Float[Array, "n s d"],
    start: Float[Array, "n l"],
    flux: Float[Array, "n p"],
    ivar: Float[Array, "n p"],
) -> Float[Array, "n s"]:
    """`log_density` of `s` draws for each of `n` stars, a star at a time."""

    def star(x):
        u, *rest = x
        return jax.vmap(lambda one: log_density(forward, prior, config, one, *rest))(u)

    return jax.lax.map(star, (u, start, flux, ivar))


def fit_modes(
    forward: SpectrumModel,
    labels: Float[Array | np.ndarray, "n l"],
    flux: Float[Array | np.ndarray, "n p"],
    ivar: Float[Array | np.ndarray, "n p"],
    config: LikelihoodConfig = LikelihoodConfig(),
    batch: int = 8,
) -> Mode:
    """Best fits of normalised spectra from starting labels: Gauss-Newton on a robust likelihood with Gaussian
    stand-ins for the priors."""
    return in_batches(partial(_fit_batch, forward, config=config), batch, labels, flux, ivar)


@eqx.filter_jit
def _fit_batch(forward, labels, flux, ivar, config):
    return jax.vmap(partial(_fit_star, forward, config=config))(labels, flux, ivar)


def _fit_star(forward, start, flux, ivar, config):
    instrument, n_label = forward.instrument, start.size
    d = n_label + N_NUISANCES
    flux = jnp.where(ivar > 0.0, flux, 1.0)
    slices, arms = tuple(instrument.slices.values()), tuple(_arms(forward, config))
    k = len(arms[0][1])
    margin = 0.01 * (forward.label_set.high - forward.label_set.low)
    unit = jnp.asarray(UNITS[:n_label], start.dtype)
    low = jnp.concatenate([(forward.label_set.low + margin - start) / unit, jnp.full(N_NUISANCES, -4.0)])
    high = jnp.concatenate([(forward.label_set.high - margin - start) / unit, jnp.full(N_NUISANCES, 4.0)])
    # vsini between 0.2 and 12 of its scale: at zero its derivative vanishes.
    low, high = low.at[VSINI].set(0.2), high.at[VSINI].set(12.0)
    # What stands for the priors: of each [X/Fe], and of the nuisances (vsini: about its mean, as wide).
    prior = jnp.zeros((d, d)).at[:3, :3].set(jnp.diag(jnp.asarray([1e-3, 1e-3, 1e-2])))
    rows = jnp.zeros((n_label - 3, d)).at[:, 3:n_label].set(jnp.diag(unit[3:])).at[:, 2].set(-unit[2]) / 0.3
    width = jnp.ones(N_NUISANCES).at[VSINI].set(2.0)
    prior = prior + rows.T @ rows + jnp.diag(jnp.concatenate([jnp.zeros(n_label), width**-2.0]))
    centre = jnp.zeros(d).at[VSINI].set(1.0)

    def spectrum(u):
        return forward(*spectrum_at(u, start, config))

    def columns(model):
        blocks = []
        for i, (where, (basis, _, _)) in enumerate(zip(slices, arms, strict=True)):
            m = model[where]
            block = jnp.concatenate([m * basis, (1.0 - m)[None]])
            blocks.append(jnp.zeros((k * len(slices), block.shape[1])).at[i * k : (i + 1) * k].set(block))
        return jnp.concatenate(blocks, axis=1)

    mean = jnp.concatenate([arm[1] for arm in arms])
    ridge = jnp.concatenate([arm[2] for arm in arms]) ** -2.0

    def noise(r):
        """What each pixel's inverse variance is, given residuals: as stated, times a factor for each arm."""
        parts = []
        for where in slices:
            z = jnp.where(ivar[where] > 0.0, jnp.abs(r[where]) * jnp.sqrt(ivar[where]), jnp.nan)
            scale = jnp.clip(1.4826 * jnp.nanmedian(z), 0.5, 3.0)
            parts.append(ivar[where] / jnp.where(jnp.isfinite(scale), scale, 1.0) ** 2)
        return jnp.concatenate(parts)

    def system(u, linear):
        model, push = jax.linearize(spectrum, u)
        design = columns(model)
        shape = linear @ design / jnp.maximum(model, 0.05)
        tangents = jax.vmap(push)(jnp.eye(d)) * shape
        r = flux - linear @ design
        w = noise(r)
        weight = w * jnp.minimum(1.0, 3.0 / jnp.maximum(jnp.abs(r) * jnp.sqrt(w), 1e-6))
        full = jnp.concatenate([tangents, design])
        normal = (full * weight) @ full.T
        normal = normal.at[:d, :d].add(prior) + jnp.diag(jnp.concatenate([jnp.zeros(d), ridge]))
        right = (full * weight) @ r
        right = right.at[:d].add(prior @ (centre - u)).at[d:].add(ridge * (mean - linear))
        return normal, right, r

    def scaled_inverse(normal):
        scale = jax.lax.rsqrt(jnp.maximum(jnp.diag(normal), 1e-6))
        return inverse(normal * jnp.outer(scale, scale)) * jnp.outer(scale, scale)

    def step(_, state):
        u, linear = state
        normal, right, _ = system(u, linear)
        change = scaled_inverse(normal) @ right
        largest = jnp.concatenate([jnp.full(n_label, 3.0), jnp.ones(N_NUISANCES)]).at[VSINI].set(2.0)
        return jnp.clip(u + jnp.clip(change[:d], -largest, largest), low, high), linear + change[d:]

    def loss(u, linear):
        _, _, r = system(u, linear)
        z = jnp.minimum(r**2 * ivar, config.clip**2)
        return jnp.sum(z) + (u - centre) @ prior @ (u - centre)

    # Slow and fast rotation each have a best fit of their own, where the other is far.
    starts = jnp.stack([centre, centre.at[VSINI].set(FAST)])
    ends = jax.vmap(lambda u: jax.lax.fori_loop(0, config.steps, step, (u, mean)))(starts)
    better = jnp.argmin(jax.vmap(loss)(*ends))
    u, linear = jax.tree.map(lambda x: x[better], ends)
    normal, _, r = system(u, linear)
    w = noise(r)
    keep = jnp.abs(r) * jnp.sqrt(w) < config.clip
    return Mode(start, u, scaled_inverse(normal)[:d, :d], jnp.where(keep, w, 0.0))
