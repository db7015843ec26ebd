"""The best possible errors: Cramer-Rao bounds from the forward model's Jacobian, nuisances marginalised.

For Gaussian noise of known inverse variance W the Fisher information is J^T W J, where J holds the
derivatives of the observed spectrum: by the labels and by everything else that the simulations vary, which is
vmic and vmac about their calibrations, vsini, velocity, resolution, scattered light, and a Chebyshev
continuum per arm. Priors of the nuisances add their precision to the diagonal, and inverting the whole matrix
marginalises them (the label block of the inverse is the inverse of the Schur complement). Derivatives are
taken by JAX in float32; the matrices are formed and inverted in float64 on the host, where their condition
number of 1e8 or more does no harm. Errors of the lines themselves, which a network for real stars learns to
expect, are thousands of further nuisances, each of a few pixels: their sparse matrix is marginalised first.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.sparse import csc_array, diags_array, eye_array, hstack
from scipy.sparse.linalg import splu

from jaxspec.errors import InputError
from jaxspec.instruments import Instrument
from jaxspec.physics import turbulence
from jaxspec.physics.forward import Nuisances
from jaxspec.simulation.nuisances import PURE, TYPICAL, TYPICAL_LIGHT, NuisanceConfig
from jaxspec.simulation.residuals import ResidualModel
from jaxspec.simulation.simulator import SpectrumModel, knots_to_pixels

LINE_ERROR_WIDTH = 0.6927
"""1 / sqrt of the Fisher information that one draw of the simulated relative line error, exp(0.6 a - 0.36) b
with normal a and b, gives about its location: 0.69 of its standard deviation of 1, for its tails."""


@dataclass(frozen=True)
class BoundConfig:
    """Prior knowledge beside the labels: standard deviations of the nuisances, as the default simulations
    draw them.

    Attributes:
        nuisances: prior standard deviation of each field of `Nuisances` (km/s; relative for the resolution);
            0 for what is known, infinite for what only the spectrum tells.
        scattered_light: prior standard deviation of the additive light of each arm; 0: there is none.
        continuum_degree: degree of each arm's free Chebyshev continuum (flat prior); -1: it is known.
    """

    nuisances: Nuisances = TYPICAL
    scattered_light: float = TYPICAL_LIGHT
    continuum_degree: int = 5


class Bound(NamedTuple):
    """Covariance of the labels that no unbiased estimator beats (with `prior_precision`: of the best Gaussian
    posterior).

    Attributes:
        covariance: `[n, l, l]` in the labels' units.
        sigma: its diagonal's square root, `[n, l]`; infinite where the spectrum has no information.
    """

    covariance: Float[np.ndarray, "n l l"]
    sigma: Float[np.ndarray, "n l"]


def cramer_rao(
    forward: SpectrumModel,
    labels: Float[Array | np.ndarray, "n l"],
    nuisances: Nuisances,
    ivar: Float[Array | np.ndarray, "n p"],
    config: BoundConfig = BoundConfig(),
    prior_precision: Float[np.ndarray, "l l"] | None = None,
    batch: int = 8,
    simulated: NuisanceConfig = PURE,
    residuals: ResidualModel | None = None,
) -> Bound:
    """Bounds for stars of given labels, nuisances (each field `[n]`) and inverse variance of the normalised
    flux.

    Args:
        simulated: of its entries the errors of lines (`line_error`, `core_error`) at their mean amplitude.
            As the bound grows faster than the amplitude, this is less than the mean bound of stars that
            draw their amplitudes at random; `missing_lines` are left out, which lowers it further.
        residuals: errors of spectra learned from real ones that the simulations have too, at the mean
            amplitude of stars that have them and of the share `simulated.exact_model` that have none.
        prior_precision: inverse covariance of the labels' prior; adds what is known without a spectrum
            (without it a label that no line carries has an infinite bound).
        batch: stars per compiled call.
    """
    labels, n_label = np.asarray(labels), np.shape(labels)[-1]
    prior = np.zeros((n_label, n_label)) if prior_precision is None else np.asarray(prior_precision, float)
    covariances = []
    for start in range(0, len(labels), batch):
        rows = np.minimum(np.arange(start, start + batch), len(labels) - 1)
        model, columns = jacobian(
            forward, jnp.asarray(labels[rows]), jax.tree.map(lambda x, r=rows: jnp.asarray(x)[r], nuisances)
        )
        for i, row in enumerate(rows[: len(labels) - start]):
            design, precision = design_and_precision(
                np.asarray(model[i]), np.asarray(columns[i]), forward.instrument, config, n_label
            )
            precision[:n_label, :n_label] += prior
            errors = line_errors(np.asarray(model[i], float), forward.instrument, simulated)
            left, errors = with_residuals(np.asarray(ivar[row], float), errors, simulated, residuals)
            information = information_matrix(design, left, errors) + precision
            covariances.append(marginal_covariance(information, n_label))
    covariance = np.stack(covariances)
    return Bound(covariance, np.sqrt(np.diagonal(covariance, axis1=1, axis2=2)))


def information_matrix(
    design: Float[np.ndarray, "p k"], ivar: Float[np.ndarray, " p"], errors: csc_array | None = None
) -> Float[np.ndarray, "k k"]:
    """J^T C^-1 J in float64 for derivatives J and noise of covariance C: diagonal, and that of `errors`
    [p, m], the effects of errors of unit variance. Pixels with `ivar == 0` are not read."""
    good = np.asarray(ivar) > 0.0
    root = np.sqrt(np.asarray(ivar, np.float64)[good])
    weighted = np.asarray(design, np.float64)[good] * root[:, None]
    information = weighted.T @ weighted
    if errors is not None:
        # Woodbury's identity: of the thousands of errors few overlap, and their matrix stays sparse.
        columns = diags_array(root) @ errors[np.flatnonzero(good)]
        seen = columns.T @ weighted
        information -= seen.T @ splu((eye_array(errors.shape[1]) + columns.T @ columns).tocsc()).solve(seen)
    return information


def line_errors(
    model: Float[np.ndarray, " p"], instrument: Instrument, simulated: NuisanceConfig
) -> csc_array | None:
    """Effects on the spectrum of every simulated error of lines (see `simulator.perturb_lines`), each of the
    width that tells most of it at the mean amplitude, as columns `[p, m]`; None without errors."""
    kinds = (
        (simulated.line_error * LINE_ERROR_WIDTH, simulated.line_error_length, 1),
        (simulated.core_error, simulated.core_error_length, 2),
    )
    amplitude = 0.5 * (1.0 - min(simulated.exact_model, 1.0))
    columns = []
    for arm, where in zip(instrument.arms, instrument.slices.values(), strict=True):
        for width, length, power in kinds:
            if amplitude * width > 0.0:
                tents = _tents(length, arm.step, where.start, where.stop, model.size)
                columns.append(diags_array(amplitude * width * (1.0 - model) ** power) @ tents)
    return csc_array(hstack(columns)) if columns else None


def with_residuals(
    ivar: Float[np.ndarray, " p"],
    errors: csc_array | None,
    simulated: NuisanceConfig,
    residuals: ResidualModel | None,
) -> tuple[Float[np.ndarray, " p"], csc_array | None]:
    """Inverse variance of each pixel by itself and columns of all shared errors, learned ones included."""
    amplitude = 1.0 - min(simulated.exact_model, 1.0)
    if residuals is None or amplitude == 0.0:
        return ivar, errors
    ivar = ivar / (1.0 + np.square(amplitude * np.asarray(residuals.scatter, float)) * ivar)
    factors = csc_array(amplitude * np.asarray(residuals.components, float).T)
    return ivar, factors if errors is None else csc_array(hstack([errors, factors]))


@lru_cache(maxsize=16)
def _tents(length, step, start, stop, n_pixels):
    """Knots of an arm's random field as sparse columns over all pixels."""
    tents = knots_to_pixels(length, step, stop - start).T
    return csc_array(np.pad(tents, ((start, n_pixels - stop), (0, 0))))


def marginal_covariance(information: Float[np.ndarray, "k k"], n_label: int) -> Float[np.ndarray, "l l"]:
    """Covariance of the first `n_label` parameters when the others are marginalised, by the Schur complement.

    A label without any information gets an infinite variance, and the others are bounded as if it were known.
    """
    information = np.asarray(information, np.float64)
    a, b, c = (
        information[:n_label, :n_label],
        information[:n_label, n_label:],
        information[n_label:, n_label:],
    )
    if c.size:
        keep = np.diag(c) > 0.0
        b, c = b[:, keep], c[np.ix_(keep, keep)]
        scale = 1.0 / np.sqrt(np.diag(c))
        a = a - (b * scale) @ np.linalg.solve(c * np.outer(scale, scale), (b * scale).T)
    covariance = np.full((n_label, n_label), 0.0)
    known = np.diag(a) > 1e-9 * np.diag(information)[:n_label]
    scale = 1.0 / np.sqrt(np.diag(a)[known])
    # Pivots at rounding level mean a direction without information; the pseudo-inverse would call it
    # perfectly known.
    value, vector = np.linalg.eigh(a[np.ix_(known, known)] * np.outer(scale, scale))
    inverse = (vector / np.maximum(value, 1e-14)) @ vector.T
    covariance[np.ix_(known, known)] = inverse * np.outer(scale, scale)
    covariance[~known, ~known] = np.inf
    return covariance


def prior_precision(labels: Float[np.ndarray, "n l"]) -> Float[np.ndarray, "l l"]:
    """Inverse covariance of many draws of a prior: its best Gaussian stand-in."""
    labels = np.asarray(labels, np.float64)
    if labels.ndim != 2 or labels.shape[0] <= 2 * labels.shape[1]:
        raise InputError("prior_precision", f"shape {labels.shape}", "[many draws, n_label]", "draw more")
    return np.linalg.inv(np.cov(labels.T))


@eqx.filter_jit
def jacobian(forward, labels, nuisances):
    """Model `[n, p]` and its derivatives `[n, l + 5, p]` by labels and by what the nuisances are away from
    their calibrations."""
    label_set = forward.label_set

    def star(labels, nuisances):
        # The disc of a star that does not rotate has no derivative in vsini; half a km/s changes nothing
        # else.
        vsini, vmac = jnp.maximum(nuisances.vsini, 0.5), jnp.maximum(nuisances.vmac, 0.5)

        def spectrum(offset):
            moved = labels + offset[: labels.size]
            n = offset[labels.size :]
            here, there = label_set.stellar(labels), label_set.stellar(moved)
            # A star moves along the calibrations when its labels change, as simulated stars do.
            vmic = (
                nuisances.vmic
                + turbulence.vmic_calibration(*there)
                - turbulence.vmic_calibration(*here)
                + n[0]
            )
            turbulent = vmac + turbulence.vmac_calibration(*there) - turbulence.vmac_calibration(*here) + n[1]
            return forward(
                moved,
                Nuisances(
                    vmic, turbulent, vsini + n[2], nuisances.velocity + n[3], nuisances.resolution + n[4]
                ),
            )

        zero = jnp.zeros(labels.size + 5)
        directions = jnp.eye(zero.size)
        model, push = jax.linearize(spectrum, zero)
        return model, jax.vmap(push)(directions)

    return jax.vmap(star)(labels, nuisances)


def design_and_precision(
    model: np.ndarray, columns: np.ndarray, instrument: Instrument, config: BoundConfig, n_label: int
):
    """All columns `[p, k]` and the precision of their priors `[k, k]`; what is known has no column."""
    scale = [*[np.inf] * n_label, *np.asarray(config.nuisances, float)]
    blocks = [columns.T]
    for where in instrument.slices.values():
        n = config.continuum_degree + 1
        arm = np.zeros((model.size, n + 1))
        if n:
            x = np.linspace(-1, 1, where.stop - where.start)
            arm[where, :n] = model[where, None] * np.polynomial.chebyshev.chebvander(x, n - 1)
        arm[where, n] = 1.0 - model[where]
        blocks.append(arm)
        scale += [*[np.inf] * n, config.scattered_light]
    unknown = np.array(scale) > 0
    design = np.concatenate(blocks, axis=1).astype(np.float64)[:, unknown]
    return design, np.diag(1.0 / np.square(np.array(scale)[unknown]))
