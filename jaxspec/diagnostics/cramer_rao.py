"""The best possible errors: Cramer-Rao bounds from the forward model's Jacobian, nuisances marginalised.

For Gaussian noise of known inverse variance W the Fisher information is J^T W J, where J holds the
derivatives of the observed spectrum: by the labels and by everything else that the simulations vary, which is
vmic and vmac about their calibrations, vsini, velocity, resolution, scattered light, and a Chebyshev
continuum per arm. Priors of the nuisances add their precision to the diagonal, and inverting the whole matrix
marginalises them (the label block of the inverse is the inverse of the Schur complement). Derivatives are
taken by JAX in float32; the matrices are formed and inverted in float64 on the host, where their condition
number of 1e8 or more does no harm.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxspec.errors import InputError
from jaxspec.instruments import Instrument
from jaxspec.physics import turbulence
from jaxspec.physics.forward import Nuisances
from jaxspec.posterior.simulator import SpectrumModel


@dataclass(frozen=True)
class BoundConfig:
    """What is not known beforehand: standard deviations of the nuisances, as the default simulations draw
    them.

    Attributes:
        nuisances: prior standard deviation of each field of `Nuisances` (km/s; relative for the resolution);
            0 for what is known, infinite for what only the spectrum tells.
        scattered_light: prior standard deviation of the additive light of each arm; 0: there is none.
        continuum_degree: degree of each arm's free Chebyshev continuum (flat prior); -1: it is known.
    """

    nuisances: Nuisances = field(
        default_factory=lambda: Nuisances(vmic=0.2, vmac=1.0, vsini=4.0, velocity=0.6, resolution=0.05)
    )
    scattered_light: float = 0.006
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
) -> Bound:
    """Bounds for stars of given labels, nuisances (each field `[n]`) and inverse variance of the normalised
    flux.

    Args:
        prior_precision: inverse covariance of the labels' prior; adds what is known without a spectrum
            (without it a label that no line carries has an infinite bound).
        batch: stars per compiled call.
    """
    labels, n_label = np.asarray(labels), np.shape(labels)[-1]
    prior = np.zeros((n_label, n_label)) if prior_precision is None else np.asarray(prior_precision, float)
    covariance = []
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
            information = information_matrix(design, np.asarray(ivar[row])) + precision
            covariance.append(marginal_covariance(information, n_label))
    covariance = np.stack(covariance)
    return Bound(covariance, np.sqrt(np.diagonal(covariance, axis1=1, axis2=2)))


def information_matrix(
    design: Float[np.ndarray, "p k"], ivar: Float[np.ndarray, " p"]
) -> Float[np.ndarray, "k k"]:
    """J^T W J in float64 for derivatives J and independent Gaussian noise; pixels with `ivar == 0` are not
    read."""
    good = np.asarray(ivar) > 0.0
    weighted = np.asarray(design, np.float64)[good] * np.sqrt(np.asarray(ivar, np.float64)[good])[:, None]
    return weighted.T @ weighted


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

    def star(labels, nuisances):
        # The disc of a star that does not rotate has no derivative in vsini; half a km/s changes nothing
        # else.
        vsini, vmac = jnp.maximum(nuisances.vsini, 0.5), jnp.maximum(nuisances.vmac, 0.5)

        def spectrum(offset):
            moved = labels + offset[: labels.size]
            n = offset[labels.size :]
            # A star moves along the calibrations when its labels change, as simulated stars do.
            vmic = (
                nuisances.vmic
                + turbulence.vmic_calibration(*moved[:3])
                - turbulence.vmic_calibration(*labels[:3])
                + n[0]
            )
            turbulent = (
                vmac
                + turbulence.vmac_calibration(*moved[:3])
                - turbulence.vmac_calibration(*labels[:3])
                + n[1]
            )
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
