"""The exact posterior of one star, up to its evidence: the forward model's likelihood times explicit priors.

Beside the labels a spectrum depends on five nuisances (vmic, vmac, vsini, velocity, resolution), whose
densities are those that simulations draw them from, and on the continuum and the scattered light of each
arm, in which it is linear: those are integrated out analytically. Pixels that no model explains (cosmic rays)
are taken out first, and the noise of each arm is scaled to what is left, as stated errors may be wrong by a
factor.

Parameters `u` of a star are its labels relative to a starting point, in units of `UNITS`, then its nuisances
relative to their expectation at these labels, in units of their scatter. Rotation broadens a line by the
square of vsini, so best fits and their covariance have that square in the place of vsini; it may be negative,
as a line may be narrower than the model's without rotation.

All that the likelihood takes from the pixels are weighted sums over them, polynomials of second degree in
the model. They are expanded once about a reference, the model of the best fit, so that a density costs two
products of a matrix with the model's difference from it, and float32 carries only what changes.
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
from jaxspec.instruments import Instrument
from jaxspec.linear import inverse, inverse_and_log_det
from jaxspec.physics import turbulence
from jaxspec.physics.forward import Nuisances
from jaxspec.posterior.check import in_batches
from jaxspec.posterior.nuisances import PURE, NuisanceConfig
from jaxspec.posterior.prior import StellarPrior
from jaxspec.posterior.simulator import CONTINUUM_DEGREE, SpectrumModel

# Steps in labels are taken in these units (K, then dex).
UNITS = (100.0, 0.1) + (0.05,) * 7
N_NUISANCES = len(Nuisances._fields)
# Place of vsini among the nuisances, from the end: also that in `u`.
VSINI = Nuisances._fields.index("vsini") - N_NUISANCES
# vsini that the two fits start from, in units of its scale: a start at 5 misses the fastest rotators.
SLOW, FAST = 1.0, 8.0
VELOCITY = Nuisances._fields.index("velocity") - N_NUISANCES
LOG_2PI = float(np.log(2.0 * np.pi))


@dataclass(frozen=True)
class LikelihoodConfig:
    """What is assumed beside the forward model.

    Attributes:
        nuisances: how nuisances, scattered light and errors of stated noise are distributed.
        continuum_degree: of the Chebyshev continuum of each arm. The quotient of an instrument's shape and
            the normaliser's curve is no polynomial of either's degree: with 5, errors at S/N 300 are a
            quarter too small.
        continuum_scatter: prior standard deviation of its coefficients, about a continuum of one; beyond the
            degree of the simulated shapes it falls with the third power of the degree.
        clip: pixels that the best fit misses by more than so many errors are not used.
        steps: Gauss-Newton steps to the best fit, a third of them from slow rotation, a third from fast and
            the rest from the better of both ends.
    """

    nuisances: NuisanceConfig = PURE
    continuum_degree: int = 10
    continuum_scatter: float = 0.05
    clip: float = 5.0
    steps: int = 18

    def __post_init__(self):
        for name in ("continuum_scatter", "clip"):
            if not getattr(self, name) > 0.0:
                raise InputError(
                    f"likelihood.{name}", f"{getattr(self, name)}", "a positive number", "mend it"
                )


class Mode(NamedTuple):
    """The best fit of each star.

    Attributes:
        start: labels that `u` is relative to.
        u: the best fit.
        centre: where the likelihood and all priors but that of rotation have their peak, to second order
            about the best fit, with the square of vsini (negative too) in its place.
        covariance: of the same, as curvature has it.
        ivar: inverse variance of the pixels that count, with the noise that is found, else 0.
    """

    start: Float[np.ndarray, "n l"]
    u: Float[np.ndarray, "n d"]
    centre: Float[np.ndarray, "n d"]
    covariance: Float[np.ndarray, "n d d"]
    ivar: Float[np.ndarray, "n p"]


class Observed(NamedTuple):
    """What the likelihood takes from a spectrum. For each arm the weighted products of its columns (those of
    the continuum, the scattered light and the residual) with each other: `constant [k, k]` at the reference
    model, and the matrices `[pairs, p]` that give their change linear in, and in the square of, a model's
    difference from it. The linear part has its best fit's continuum and light taken out; `prior [k - 1]` is
    where their prior has its centre, in units of its width."""

    reference: Float[Array, " p"]
    constant: tuple[Float[Array, "k k"], ...]
    linear: tuple[Float[Array, "pairs _"], ...]
    square: tuple[Float[Array, "pairs _"], ...]
    prior: tuple[Float[Array, " _"], ...]


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


def log_prior_vsini(speed: Float[Array, "*n"], config: NuisanceConfig) -> Float[Array, "*n"]:
    """Log-density of vsini in units of its scale, as `draw_nuisances` draws it."""
    slow = jnp.log1p(-config.vsini_fast) - speed
    fast = jnp.log(config.vsini_fast * config.vsini_scale / config.vsini_max)
    inside = (speed >= 0.0) & (speed * config.vsini_scale <= config.vsini_max)
    return jnp.where(inside, jnp.logaddexp(slow, fast), -jnp.inf)


def log_prior_nuisances(
    u: Float[Array, " 5"], nuisances: Nuisances, config: NuisanceConfig
) -> Float[Array, ""]:
    """Log-density of the nuisances' part of `u`, as `draw_nuisances` draws them; minus infinity where it
    clips."""
    normal = -0.5 * jnp.square(u) - 0.5 * LOG_2PI
    inside = jnp.abs(nuisances.resolution - 1.0) <= 0.3
    for value, (low, high) in ((nuisances.vmic, config.vmic_range), (nuisances.vmac, config.vmac_range)):
        inside &= (value >= low) & (value <= high)
    velocity = logsumexp(_velocities(u[VELOCITY], config))
    total = normal[0] + normal[1] + log_prior_vsini(u[VSINI], config) + velocity + normal[4]
    return jnp.where(inside, total, -jnp.inf)


def _velocities(u: Float[Array, ""], config: NuisanceConfig) -> Float[Array, " 2"]:
    """Log-densities of a velocity among the stars with the usual error and among those with the wider one,
    times their shares."""
    wide = config.velocity_error / config.velocity_tail_error
    return jnp.stack(
        [
            jnp.log1p(-config.velocity_tail) - 0.5 * jnp.square(u) - 0.5 * LOG_2PI,
            jnp.log(config.velocity_tail * wide) - 0.5 * jnp.square(u * wide) - 0.5 * LOG_2PI,
        ]
    )


def observe(
    reference: Float[Array, " p"],
    flux: Float[Array, " p"],
    ivar: Float[Array, " p"],
    forward: SpectrumModel,
    config: LikelihoodConfig,
) -> Observed:
    """Expand what `log_likelihood` needs of a spectrum about a reference model."""
    flux = jnp.where(ivar > 0.0, flux, 1.0)
    parts = []
    for where, (columns, mean, width) in zip(
        forward.instrument.slices.values(), _arms(forward, config), strict=True
    ):
        m, w, f = reference[where], ivar[where], flux[where]
        # Columns are m * slope + base.
        slope = width[:, None] * jnp.concatenate([columns, jnp.full((1, m.size), -1.0)])
        base = jnp.zeros_like(slope).at[-1].set(width[-1])
        design = m * slope + base
        matrix = (design * w) @ design.T + jnp.eye(len(width))
        best = inverse_and_log_det(matrix)[0] @ ((design * w) @ f + mean / width)
        slope = jnp.concatenate([slope, -(best @ slope)[None]])
        base = jnp.concatenate([base, (f - best @ base)[None]])
        full = m * slope + base
        i, j = np.triu_indices(len(full))
        # One taken off each pixel: the sum then stays of the size of its own scatter.
        last = jnp.sum(jnp.where(w > 0.0, w * full[-1] ** 2 - 1.0, 0.0))
        parts.append(
            (
                ((full * w) @ full.T).at[-1, -1].set(last),
                w * (full[i] * slope[j] + slope[i] * full[j]),
                w * slope[i] * slope[j],
                mean / width - best,
            )
        )
    return Observed(reference, *zip(*parts, strict=True))


def log_likelihood(model: Float[Array, " p"], observed: Observed, instrument: Instrument) -> Float[Array, ""]:
    """Log-likelihood of a spectrum given the model, continuum and scattered light of each arm integrated
    out; less the constant `sum ln(ivar / 2 pi) / 2 - n / 2` of its n used pixels, which float32 would not
    carry."""
    total = jnp.zeros(())
    change = model - observed.reference
    for where, constant, linear, square, prior in zip(instrument.slices.values(), *observed[1:], strict=True):
        k = len(constant)
        d = change[where]
        place = np.zeros((k, k), int)
        place[np.triu_indices(k)] = np.arange(k * (k + 1) // 2)
        place = np.maximum(place, place.T)
        products = constant + (linear @ d + square @ d**2)[place]
        solved, log_det = inverse_and_log_det(products[:-1, :-1] + jnp.eye(k - 1))
        right = products[:-1, -1] + prior
        total += -0.5 * (products[-1, -1] + prior @ prior) + 0.5 * (right @ solved @ right) - 0.5 * log_det
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
        taper = np.maximum(np.arange(len(columns)) / CONTINUUM_DEGREE, 1.0) ** -3.0
        width = np.append(config.continuum_scatter * taper, max(most / np.sqrt(12.0), 1e-6))
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
    observed: Observed,
) -> Float[Array, ""]:
    """Log of prior times likelihood at `u`, a density per unit of all labels and of the nuisances in `u`,
    less the constant of `log_likelihood`; minus infinity outside the prior."""
    labels, nuisances = spectrum_at(u, start, config)
    before = prior.log_prob(labels) + log_prior_nuisances(u[start.size :], nuisances, config.nuisances)
    # The model is asked about possible stars only: elsewhere it may have no finite answer.
    inside = jnp.isfinite(before)
    safe, known = spectrum_at(jnp.where(inside, u, 0.0), start, config)
    return jnp.where(
        inside, before + log_likelihood(forward(safe, known), observed, forward.instrument), -jnp.inf
    )


@eqx.filter_jit
def log_density_of_draws(
    forward: SpectrumModel,
    prior: StellarPrior,
    config: LikelihoodConfig,
    u: Float[Array, "s d"],
    mode: Mode,
    flux: Float[Array, " p"],
) -> Float[Array, " s"]:
    """`log_density` of draws for one star, with its best fit."""
    observed = observe_at(forward, config, mode, flux)
    return jax.vmap(lambda one: log_density(forward, prior, config, one, mode.start, observed))(u)


def observe_at(forward: SpectrumModel, config: LikelihoodConfig, mode: Mode, flux: Float[Array, " p"]):
    """`observe` of one star about its best fit."""
    reference = forward(*spectrum_at(mode.u, mode.start, config))
    return observe(reference, flux, mode.ivar, forward, config)


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
    # At zero the derivative with respect to vsini vanishes.
    fastest = config.nuisances.vsini_max / config.nuisances.vsini_scale
    low, high = low.at[VSINI].set(0.2), high.at[VSINI].set(fastest)
    tail = 4.0 * config.nuisances.velocity_tail_error / config.nuisances.velocity_error
    low, high = low.at[VELOCITY].set(-tail), high.at[VELOCITY].set(tail)
    # What stands for the priors: of each [X/Fe], and of the nuisances (vsini: about its mean, as wide).
    fixed = jnp.zeros((d, d)).at[:3, :3].set(jnp.diag(jnp.asarray([1e-3, 1e-3, 1e-2])))
    rows = jnp.zeros((n_label - 3, d)).at[:, 3:n_label].set(jnp.diag(unit[3:])).at[:, 2].set(-unit[2]) / 0.3
    width = jnp.ones(N_NUISANCES).at[VSINI].set(2.0)
    fixed = fixed + rows.T @ rows + jnp.diag(jnp.concatenate([jnp.zeros(n_label), width**-2.0]))
    centre = jnp.zeros(d).at[VSINI].set(1.0)

    def prior_at(u):
        """The velocity's two Gaussians count by which of them it is likely of."""
        share = jax.nn.softmax(_velocities(u[VELOCITY], config.nuisances))
        wide = config.nuisances.velocity_error / config.nuisances.velocity_tail_error
        return fixed.at[VELOCITY, VELOCITY].set(share[0] + share[1] * wide**2)

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
        prior = prior_at(u)
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
        priors = (u - centre) @ fixed.at[VELOCITY, VELOCITY].set(0.0) @ (u - centre)
        return jnp.sum(z) + priors - 2.0 * logsumexp(_velocities(u[VELOCITY], config.nuisances))

    # Slow and fast rotation each have a best fit of their own, where the other is far.
    starts = jnp.stack([centre.at[VSINI].set(speed) for speed in (SLOW, FAST)])
    third = config.steps // 3
    ends = jax.vmap(lambda u: jax.lax.fori_loop(0, third, step, (u, mean)))(starts)
    better = jnp.argmin(jax.vmap(loss)(*ends))
    best = jax.tree.map(lambda x: x[better], ends)
    u, linear = jax.lax.fori_loop(0, config.steps - 2 * third, step, best)
    normal, right, r = system(u, linear)
    w = noise(r)
    keep = jnp.abs(r) * jnp.sqrt(w) < config.clip
    # The same with the square of vsini as coordinate, and next to nothing said about it beforehand.
    place, speed, width = d + VSINI, u[VSINI], fastest**2
    normal = normal.at[place, place].add(-fixed[VSINI, VSINI])
    right = right.at[place].add(fixed[VSINI, VSINI] * (speed - centre[VSINI]))
    slope = jnp.ones(len(right)).at[place].set(0.5 / speed)
    normal, right = normal * jnp.outer(slope, slope), right * slope
    normal = normal.at[place, place].add(width**-2.0)
    covariance = scaled_inverse(normal)
    peak = u.at[VSINI].set(speed**2) + (covariance @ right.at[place].add(-((speed / width) ** 2)))[:d]
    return Mode(start, u, peak, covariance[:d, :d], jnp.where(keep, w, 0.0))


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
