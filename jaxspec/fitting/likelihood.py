"""The exact posterior of one star, up to its evidence: the forward model's likelihood times explicit priors.

Beside the labels a spectrum depends on five nuisances (vmic, vmac, vsini, velocity, resolution), whose
densities are those that simulations draw them from, and on the continuum and the scattered light of each
arm, in which it is linear: those are integrated out analytically. Pixels that no model explains (cosmic rays)
are taken out first, and the noise of each arm is scaled to what is left, as stated errors may be wrong by a
factor.

Parameters `u` of a star are its labels relative to a starting point, in units of their `step`, then its
nuisances relative to their expectation at these labels, in units of their scatter. Rotation broadens a line
by the square of vsini, so best fits and their covariance have that square in the place of vsini; it may be
negative, as a line may be narrower than the model's without rotation.

All that the likelihood takes from the pixels are weighted sums over them, polynomials of second degree in
the model. They are expanded once about a reference, the model of the best fit, so that a density costs two
products of a matrix with the model's difference from it, and float32 carries only what changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float

from jaxspec.errors import InputError
from jaxspec.instruments import Instrument
from jaxspec.labels import LabelSet
from jaxspec.linear import inverse_and_log_det
from jaxspec.physics.forward import Nuisances
from jaxspec.simulation.nuisances import PURE, RESOLUTION_RANGE, NuisanceConfig, expected_nuisances
from jaxspec.simulation.prior import StellarPrior
from jaxspec.simulation.simulator import CONTINUUM_DEGREE, SpectrumModel

Arrays = Array | np.ndarray

N_NUISANCES = len(Nuisances._fields)
# Place of vsini among the nuisances, from the end: also that in `u`.
VSINI = Nuisances._fields.index("vsini") - N_NUISANCES
VELOCITY = Nuisances._fields.index("velocity") - N_NUISANCES
LOG_2PI = float(np.log(2.0 * np.pi))


@dataclass(frozen=True)
class LikelihoodConfig:
    """Assumptions of the likelihood beside the forward model.

    Attributes:
        nuisances: how nuisances, scattered light and errors of stated noise are distributed.
        continuum_degree: of the Chebyshev continuum of each arm. The quotient of an instrument's shape and
            the normaliser's curve is no polynomial of either's degree: with 5, errors at S/N 300 are a
            quarter too small.
        continuum_scatter: prior standard deviation of its coefficients, about a continuum of one; beyond the
            degree of the simulated shapes it falls with the third power of the degree.
        clip: pixels that the best fit misses by more than so many errors are not used.
        steps: Gauss-Newton steps to the best fit (see `jaxspec.fitting.modes`).
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
        if self.steps < 0:
            raise InputError("likelihood.steps", f"{self.steps}", "0 or more", "mend it")


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
    u: Float[Arrays, " d"], start: Float[Arrays, " l"], label_set: LabelSet, config: LikelihoodConfig
) -> tuple[Float[Array, " l"], Nuisances]:
    """Labels and nuisances of parameters `u`."""
    n_label = start.size
    labels = jnp.asarray(start) + jnp.asarray(label_set.step) * u[:n_label]
    centre = jnp.stack(expected_nuisances(label_set.stellar(labels), config.nuisances))
    return labels, Nuisances(*(centre + nuisance_scale(config) * u[n_label:]))


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
    inside = jnp.full((), True)
    for value, (low, high) in (
        (nuisances.resolution, RESOLUTION_RANGE),
        (nuisances.vmic, config.vmic_range),
        (nuisances.vmac, config.vmac_range),
    ):
        inside &= (value >= low) & (value <= high)
    velocity = logsumexp(log_prior_velocity(u[VELOCITY], config))
    total = normal[0] + normal[1] + log_prior_vsini(u[VSINI], config) + velocity + normal[4]
    return jnp.where(inside, total, -jnp.inf)


def log_prior_velocity(u: Float[Array, ""], config: NuisanceConfig) -> Float[Array, " 2"]:
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
    ivar: Float[Arrays, " p"],
    forward: SpectrumModel,
    config: LikelihoodConfig,
) -> Observed:
    """Expand what `log_likelihood` needs of a spectrum about a reference model."""
    flux = jnp.where(ivar > 0.0, flux, 1.0)
    parts = []
    for where, (columns, mean, width) in zip(
        forward.instrument.slices.values(), arm_columns(forward, config), strict=True
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


def arm_columns(forward, config):
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
            jnp.asarray(columns, float),
            jnp.asarray(mean, float),
            jnp.asarray(width, float),
        )


def log_density(
    forward: SpectrumModel,
    prior: StellarPrior,
    config: LikelihoodConfig,
    u: Float[Array, " d"],
    start: Float[Arrays, " l"],
    observed: Observed,
) -> Float[Array, ""]:
    """Log of prior times likelihood at `u`, a density per unit of all labels and of the nuisances in `u`,
    less the constant of `log_likelihood`; minus infinity outside the prior."""
    labels, nuisances = spectrum_at(u, start, forward.label_set, config)
    before = prior.log_prob(labels) + log_prior_nuisances(u[start.size :], nuisances, config.nuisances)
    # The model is asked about possible stars only: elsewhere it may have no finite answer.
    inside = jnp.isfinite(before)
    safe, known = spectrum_at(jnp.where(inside, u, 0.0), start, forward.label_set, config)
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
    reference = forward(*spectrum_at(mode.u, mode.start, forward.label_set, config))
    return observe(reference, flux, mode.ivar, forward, config)
