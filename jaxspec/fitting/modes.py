"""Best fits of spectra and their curvature: Gauss-Newton on the likelihood, from any start or a good one.

Pixels weigh by what their arm is found to scatter by, as stated errors may be wrong by a factor, and less
where they are missed by three errors or more (Huber 1964); Gaussians stand in for the priors. Rotation
broadens a line by the square of vsini, so what comes out has that square in the place of vsini.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float

from jaxspec.fitting.check import in_batches
from jaxspec.fitting.likelihood import (
    N_NUISANCES,
    VELOCITY,
    VSINI,
    LikelihoodConfig,
    Mode,
    arm_columns,
    log_prior_velocity,
    spectrum_at,
)
from jaxspec.linear import inverse, median_of
from jaxspec.simulation.simulator import SpectrumModel

# vsini that the two fits start from, in units of its scale: a start at 5 misses the fastest rotators.
SLOW, FAST = 1.0, 8.0
# Standard deviation [dex] of the Gaussian that stands for the prior of each [X/Fe].
X_FE_SCATTER = 0.3
DEFAULT = LikelihoodConfig()


class System(NamedTuple):
    """One linearised fit, for the d parameters and the m coefficients of continuum and scattered light.

    Attributes:
        normal: of the normal equations, priors included.
        right: their right-hand side.
        residual: flux less model.
        ivar: inverse variance of the pixels with the noise that is found.
    """

    normal: Float[Array, "k k"]
    right: Float[Array, " k"]
    residual: Float[Array, " p"]
    ivar: Float[Array, " p"]


class Peak(NamedTuple):
    """Where the likelihood and all priors but that of rotation have their peak, to second order, with the
    square of vsini (negative too) in its place; and the curvature's covariance there."""

    centre: Float[Array, " d"]
    covariance: Float[Array, "d d"]


class Fit:
    """The fit of one spectrum, near labels `start`; parameters are those of
    `jaxspec.fitting.likelihood.spectrum_at`.

    Derivatives with respect to the flux are those of the linearised fit: models, weights and curvature count
    as constants, so that a peak moves as the best linear estimate does.
    """

    def __init__(
        self,
        forward: SpectrumModel,
        start: Float[Array, " l"],
        flux: Float[Array, " p"],
        ivar: Float[Array, " p"],
        config: LikelihoodConfig,
    ):
        start = jax.lax.stop_gradient(start)
        self.forward, self.start, self.ivar, self.config = forward, start, ivar, config
        self.flux = jnp.where(ivar > 0.0, flux, 1.0)
        self.slices, self.arms = (
            tuple(forward.instrument.slices.values()),
            tuple(arm_columns(forward, config)),
        )
        n_label = start.size
        self.d = d = n_label + N_NUISANCES
        label_set = forward.label_set
        margin = 0.01 * (label_set.high - label_set.low)
        unit = jnp.asarray(label_set.step, start.dtype)
        low = (label_set.low + margin - start) / unit
        high = (label_set.high - margin - start) / unit
        low = jnp.concatenate([low, jnp.full(N_NUISANCES, -4.0)])
        high = jnp.concatenate([high, jnp.full(N_NUISANCES, 4.0)])
        # At zero the derivative with respect to vsini vanishes.
        self.fastest = config.nuisances.vsini_max / config.nuisances.vsini_scale
        low, high = low.at[VSINI].set(0.2), high.at[VSINI].set(self.fastest)
        tail = 4.0 * config.nuisances.velocity_tail_error / config.nuisances.velocity_error
        self.low, self.high = low.at[VELOCITY].set(-tail), high.at[VELOCITY].set(tail)
        # What stands for the priors: of each [X/Fe], and of the nuisances (vsini: about its mean, as wide).
        ridge = jnp.diag(jnp.asarray(label_set.per_label("ridge")))
        fixed = jnp.zeros((d, d)).at[:n_label, :n_label].set(ridge)
        x_fe = jnp.asarray(label_set.x_fe_matrix, unit.dtype)
        rows = jnp.zeros((len(x_fe), d)).at[:, :n_label].set(x_fe * unit) / X_FE_SCATTER
        width = jnp.ones(N_NUISANCES).at[VSINI].set(2.0)
        self.fixed = fixed + rows.T @ rows + jnp.diag(jnp.concatenate([jnp.zeros(n_label), width**-2.0]))
        self.centre = jnp.zeros(d).at[VSINI].set(1.0)
        self.mean = jnp.concatenate([arm[1] for arm in self.arms])
        self.ridge = jnp.concatenate([arm[2] for arm in self.arms]) ** -2.0

    def model(self, u: Float[Array, " d"]) -> Float[Array, " p"]:
        """The noiseless spectrum at `u`."""
        return self.forward(*spectrum_at(u, self.start, self.forward.label_set, self.config))

    def prior(self, u: Float[Array, " d"]) -> Float[Array, "d d"]:
        """Precision of the priors: the velocity's two Gaussians count by which of them it is likely of."""
        share = jax.nn.softmax(log_prior_velocity(u[VELOCITY], self.config.nuisances))
        wide = self.config.nuisances.velocity_error / self.config.nuisances.velocity_tail_error
        return self.fixed.at[VELOCITY, VELOCITY].set(share[0] + share[1] * wide**2)

    def columns(self, model: Float[Array, " p"]) -> tuple[Float[Array, "k _"], ...]:
        """Columns in which continuum and scattered light are linear, for each arm."""
        return tuple(
            jnp.concatenate([model[where] * basis, (1.0 - model[where])[None]])
            for where, (basis, _, _) in zip(self.slices, self.arms, strict=True)
        )

    def seen(
        self, linear: Float[Array, " m"], columns: tuple[Float[Array, "k _"], ...]
    ) -> Float[Array, " p"]:
        """The model through continuum and light."""
        coefficients = jnp.split(linear, len(self.slices))
        return jnp.concatenate([c @ block for c, block in zip(coefficients, columns, strict=True)])

    def noise(self, residual: Float[Array, " p"]) -> Float[Array, " p"]:
        """Inverse variance of each pixel, given residuals: as stated, times a factor for each arm."""
        parts = []
        for where in self.slices:
            ivar = self.ivar[where]
            seen = ivar > 0.0
            typical = median_of(jnp.abs(residual[where]) * jnp.sqrt(ivar), seen)
            scale = jnp.where(jnp.any(seen), jnp.clip(1.4826 * typical, 0.5, 3.0), 1.0)
            parts.append(ivar / scale**2)
        return jnp.concatenate(parts)

    def system(self, u: Float[Array, " d"], linear: Float[Array, " m"]) -> System:
        """The fit linearised at `u` and at coefficients `linear` of continuum and light."""
        u, linear = jax.lax.stop_gradient((u, linear))
        model, push = jax.linearize(self.model, u)
        columns, d, k = self.columns(model), self.d, len(self.arms[0][1])
        seen = self.seen(linear, columns)
        tangents = jax.vmap(push)(jnp.eye(d)) * (seen / jnp.maximum(model, 0.05))
        r = self.flux - seen
        known = jax.lax.stop_gradient(r)
        w = self.noise(known)
        weight = w * jnp.minimum(1.0, 3.0 / jnp.maximum(jnp.abs(known) * jnp.sqrt(w), 1e-6))
        prior = self.prior(u)
        normal = jnp.diag(jnp.concatenate([jnp.zeros(d), self.ridge])).at[:d, :d].add(prior)
        right = jnp.concatenate([prior @ (self.centre - u), self.ridge * (self.mean - linear)])
        for i, (where, block) in enumerate(zip(self.slices, columns, strict=True)):
            place = np.append(np.arange(d), d + k * i + np.arange(k))
            design = jnp.concatenate([tangents[:, where], block])
            normal = normal.at[np.ix_(place, place)].add((design * weight[where]) @ design.T)
            right = right.at[place].add((design * weight[where]) @ r[where])
        return System(normal, right, r, w)

    def continuum(self, u: Float[Array, " d"]) -> Float[Array, " m"]:
        """Coefficients of continuum and light that fit best for the model at `u`."""
        found = []
        columns = self.columns(self.model(u))
        for where, block, (_, mean, width) in zip(self.slices, columns, self.arms, strict=True):
            weighted = block * self.ivar[where]
            right = weighted @ self.flux[where] + mean / width**2
            found.append(scaled_inverse(weighted @ block.T + jnp.diag(width**-2.0)) @ right)
        return jnp.concatenate(found)

    def step(self, state: tuple[Float[Array, " d"], Float[Array, " m"]]):
        """`(u, linear)` after one Gauss-Newton step, of limited length and within the limits."""
        u, linear = state
        found = self.system(u, linear)
        change = scaled_inverse(found.normal) @ found.right
        n_label = self.start.size
        largest = jnp.concatenate([jnp.full(n_label, 3.0), jnp.ones(N_NUISANCES)]).at[VSINI].set(2.0)
        moved = u + jnp.clip(change[: self.d], -largest, largest)
        return jnp.clip(moved, self.low, self.high), linear + change[self.d :]

    def loss(self, u: Float[Array, " d"], linear: Float[Array, " m"]) -> Float[Array, ""]:
        """-2 ln of what the fit maximises, pixels beyond `clip` errors counting as that many."""
        r = self.system(u, linear).residual
        z = jnp.minimum(r**2 * self.ivar, self.config.clip**2)
        fixed = self.fixed.at[VELOCITY, VELOCITY].set(0.0)
        priors = (u - self.centre) @ fixed @ (u - self.centre)
        return jnp.sum(z) + priors - 2.0 * logsumexp(log_prior_velocity(u[VELOCITY], self.config.nuisances))

    def peak(self, u: Float[Array, " d"], found: System) -> Peak:
        """The peak by the fit linearised at `u`, with next to nothing said beforehand about rotation."""
        d, speed, width = self.d, u[VSINI], self.fastest**2
        place = d + VSINI
        normal = found.normal.at[place, place].add(-self.fixed[VSINI, VSINI])
        right = found.right.at[place].add(self.fixed[VSINI, VSINI] * (speed - self.centre[VSINI]))
        slope = jnp.ones(len(right)).at[place].set(0.5 / speed)
        normal, right = normal * jnp.outer(slope, slope), right * slope
        normal = normal.at[place, place].add(width**-2.0)
        covariance = jax.lax.stop_gradient(scaled_inverse(normal))
        change = covariance @ right.at[place].add(-((speed / width) ** 2))
        return Peak(u.at[VSINI].set(speed**2) + change[:d], covariance[:d, :d])


def scaled_inverse(normal: Float[Array, "k k"]) -> Float[Array, "k k"]:
    """Inverse of a positive definite matrix whose rows differ by orders of magnitude."""
    scale = jax.lax.rsqrt(jnp.maximum(jnp.diag(normal), 1e-6))
    return inverse(normal * jnp.outer(scale, scale)) * jnp.outer(scale, scale)


def fit_modes(
    forward: SpectrumModel,
    labels: Float[Array | np.ndarray, "n l"],
    flux: Float[Array | np.ndarray, "n p"],
    ivar: Float[Array | np.ndarray, "n p"],
    config: LikelihoodConfig = DEFAULT,
    batch: int = 8,
) -> Mode:
    """Best fits of normalised spectra from starting labels that may be far away: a third of the steps from
    slow rotation, a third from fast, the rest from the better of both ends."""
    return in_batches(partial(_fit_batch, forward, config=config), batch, labels, flux, ivar)


@eqx.filter_jit
def _fit_batch(forward, labels, flux, ivar, config):
    return jax.vmap(partial(_fit_star, forward, config=config))(labels, flux, ivar)


def _fit_star(forward, start, flux, ivar, config):
    fit = Fit(forward, start, flux, ivar, config)
    # Slow and fast rotation each have a best fit of their own, where the other is far.
    starts = jnp.stack([fit.centre.at[VSINI].set(speed) for speed in (SLOW, FAST)])
    third = config.steps // 3

    def run(state, n):
        return jax.lax.fori_loop(0, n, lambda _, now: fit.step(now), state)

    ends = jax.vmap(lambda u: run((u, fit.mean), third))(starts)
    better = jnp.argmin(jax.vmap(fit.loss)(*ends))
    u, linear = run(jax.tree.map(lambda x: x[better], ends), config.steps - 2 * third)
    found = fit.system(u, linear)
    keep = jnp.abs(found.residual) * jnp.sqrt(found.ivar) < config.clip
    return Mode(start, u, *fit.peak(u, found), jnp.where(keep, found.ivar, 0.0))


def positive(covariance: Float[np.ndarray, "n d d"]) -> Float[np.ndarray, "n d d"]:
    """Symmetric, with no correlation beyond what float32 can tell."""
    covariance = np.asarray(covariance, float)
    size = np.sqrt(np.maximum(np.diagonal(covariance, axis1=1, axis2=2), 1e-8))
    value, vector = np.linalg.eigh(
        np.nan_to_num(0.5 * (covariance + np.swapaxes(covariance, 1, 2)) / size[:, :, None] / size[:, None])
    )
    value = np.maximum(value, 1e-5)
    matrix = np.einsum("nik,nk,njk->nij", vector, value, vector)
    return matrix * size[:, :, None] * size[:, None]
