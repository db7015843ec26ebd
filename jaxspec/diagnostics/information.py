"""Information in a spectrum: Fisher information by label and by pixel, and the bound that follows.

For any instrument, noise and subset of labels. The forward model is the emulator's (`load_forward_model`) or,
for any window and resolving power, the synthesis' (`ExactModel.for_instrument`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxspec.diagnostics.cramer_rao import (
    BoundConfig,
    design_and_precision,
    information_matrix,
    jacobian,
    marginal_covariance,
)
from jaxspec.errors import InputError
from jaxspec.labels import NINE_LABELS, LabelSet
from jaxspec.physics.forward import Nuisances
from jaxspec.simulation.nuisances import PURE, expected_nuisances
from jaxspec.simulation.simulator import SpectrumModel

USUAL = BoundConfig()
ONLY_VMIC = BoundConfig(Nuisances(np.inf, 0.0, 0.0, 0.0, 0.0), scattered_light=0.0, continuum_degree=-1)

NOTHING = BoundConfig(Nuisances(0.0, 0.0, 0.0, 0.0, 0.0), scattered_light=0.0, continuum_degree=-1)


class Information(NamedTuple):
    """Information of one star's spectrum on some labels; the other labels are taken as known.

    Attributes:
        names: of the free labels, in the order of the other fields.
        matrix: `[l, l]`, nuisances marginalised and the labels' prior added; its inverse is the bound.
        known: `[l, p]`, each pixel's information on a label if all else were known: ivar (dF/dlabel)^2.
        marginal: `[l, p]`, each pixel's part of 1 / sigma^2 where nothing else is known; its sum over pixels,
            with what priors add, is 1 / sigma^2.
        flux: `[p]`, of the model.
    """

    names: tuple[str, ...]
    matrix: Float[np.ndarray, "l l"]
    known: Float[np.ndarray, "l p"]
    marginal: Float[np.ndarray, "l p"]
    flux: Float[np.ndarray, " p"]

    @property
    def sigma(self) -> dict[str, float]:
        """The Cramer-Rao bound of each label, in its unit; infinite without information."""
        variance = np.diag(marginal_covariance(self.matrix, len(self.names)))
        return dict(zip(self.names, np.sqrt(variance).tolist(), strict=True))


def fisher_information(
    forward: SpectrumModel,
    labels: Float[Array | np.ndarray, " labels"],
    snr: float | Float[np.ndarray, " p"],
    names: Sequence[str] | None = None,
    *,
    nuisances: Nuisances | None = None,
    config: BoundConfig = USUAL,
    prior: Float[np.ndarray, "l l"] | None = None,
) -> Information:
    """The Fisher information of a spectrum of one star about some of its labels.

    Args:
        forward: the forward model on an instrument's pixels.
        labels: of the star, in the order of `forward.label_set`.
        snr: signal-to-noise per pixel, of the continuum: one number or one for each pixel (0: not observed).
        names: the free labels; all by default.
        nuisances: of the star; by default those of the calibrations, without rotation.
        config: what else is unknown, and how well it is known beforehand. `ONLY_VMIC` leaves vmic
            alone free, `NOTHING` holds all.
        prior: precision (inverse covariance) of the free labels beforehand.

    Raises InputError for a label that the model does not have, and for noise of another number of pixels.
    """
    label_set, n_pixels = forward.label_set, forward.instrument.n_pixels
    names = label_set.names if names is None else tuple(names)
    index = [label_set.index(name) for name in names]
    if np.shape(snr) not in ((), (n_pixels,)):
        found, expected = f"shape {np.shape(snr)}", f"one number, or {n_pixels}"
        raise InputError("snr", found, expected, "give one for each pixel")
    ivar = np.broadcast_to(np.square(np.asarray(snr, float)), (n_pixels,))
    labels = jnp.asarray(labels, jnp.float32)
    if nuisances is None:
        nuisances = calibrated_nuisances(labels, label_set)
    one = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32)[None], nuisances)
    model, columns = (np.asarray(x[0], float) for x in jacobian(forward, labels[None], one))
    n_labels = len(label_set)
    chosen = np.concatenate([columns[index], columns[n_labels:]])
    design, precision = design_and_precision(model, chosen, forward.instrument, config, len(names))
    if prior is not None:
        precision[: len(names), : len(names)] += prior
    information = information_matrix(design, ivar) + precision
    known = np.square(design[:, : len(names)].T) * ivar
    matrix, marginal = _marginal(information, design, ivar, len(names))
    return Information(names, matrix, known, marginal, model)


def cramer_rao_bound(
    forward: SpectrumModel,
    labels: Float[Array | np.ndarray, " labels"],
    snr: float | Float[np.ndarray, " p"],
    names: Sequence[str] | None = None,
    **options,
) -> dict[str, float]:
    """The smallest standard error of each label that any unbiased estimate can have, in the label's unit.

    Arguments as for `fisher_information`; of many stars at once, see `cramer_rao.cramer_rao`.
    """
    return fisher_information(forward, labels, snr, names, **options).sigma


def calibrated_nuisances(labels: Float[Array, " labels"], label_set: LabelSet = NINE_LABELS) -> Nuisances:
    """vmic and vmac of the calibrations, no rotation, at rest, nominal resolution."""
    return expected_nuisances(label_set.stellar(labels), PURE)


def _marginal(information, design, ivar, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The labels' information with the rest marginalised (Schur's complement), and its parts by pixel.

    A label's efficient score is its derivative less what the other parameters' derivatives explain of it.
    """
    covariance = marginal_covariance(information, len(information))
    good = np.isfinite(np.diag(covariance))
    covariance = np.where(np.outer(good, good), covariance, 0.0)
    score = design @ covariance[:, :n]
    variance = np.diag(covariance)[:n]
    safe = np.where(variance > 0, variance, 1.0)
    marginal = np.where((variance > 0)[:, None], np.square(score.T / safe[:, None]) * ivar, 0.0)
    found = np.flatnonzero(good[:n])
    matrix = np.zeros((n, n))
    matrix[np.ix_(found, found)] = np.linalg.inv(covariance[np.ix_(found, found)])
    return matrix, marginal
