"""The input of networks: residuals from the mean spectrum, and how well each pixel is known.

Every function here obeys the one mask convention: where ``ivar == 0`` the flux is replaced before any
arithmetic, so that neither its value nor a NaN in it can reach an output or a gradient.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxspec.errors import InputError


class PixelFeatures(NamedTuple):
    """Per-bin inputs of the encoder, for b stars and m bins of neighbouring pixels."""

    residual: Float[
        Array, "b m"
    ]  # (flux - mean) / scale, averaged by ivar within the bin; 0 where nothing was seen
    weight: Float[Array, "b m"]  # information in the bin relative to the star's mean bin, squashed to [0, 2)
    log_snr: Float[Array, "b m"]  # log(1 + S/N of the bin)


def pixel_features(
    flux: Float[Array, "b p"],
    ivar: Float[Array, "b p"],
    mean: Float[Array, " p"],
    scale: Float[Array, " p"],
    *,
    bin_pixels: int = 1,
    clip: float = 20.0,
) -> PixelFeatures:
    """Inputs for a network, at one value per `bin_pixels` neighbouring pixels.

    The average within a bin is weighted by `ivar` and taken on residuals from the mean spectrum, so a bad
    pixel neither enters nor shifts it. The line-spread functions of real instruments span several pixels, so
    bins of two or so lose next to nothing and halve the cost.

    `flux` is continuum-normalised, `ivar` its inverse variance (0: unused); `mean` and `scale` describe each
    pixel over the training set. Residuals are clipped at `clip` scales: a cosmic ray that was missed must not
    swamp a star.
    """
    good = ivar > 0
    ivar = jnp.where(good, ivar, 0.0)
    residual = jnp.clip((jnp.where(good, flux, mean) - mean) / scale, -clip, clip)
    padding = -flux.shape[-1] % bin_pixels
    if padding:
        residual, ivar = (jnp.pad(x, ((0, 0), (0, padding))) for x in (residual, ivar))
    information = fold_sum(ivar, bin_pixels)
    seen = information > 0
    residual = fold_sum(residual * ivar, bin_pixels) / jnp.where(seen, information, 1.0)
    n_seen = jnp.maximum(seen.sum(-1, keepdims=True, dtype=information.dtype), 1.0)
    typical = information.sum(-1, keepdims=True) / n_seen
    relative = information / jnp.where(typical > 0, typical, 1.0)
    # sqrt has an infinite derivative at 0; the inner `where` keeps the gradient with respect to ivar finite.
    snr = jnp.where(seen, jnp.sqrt(jnp.where(seen, information, 1.0)), 0.0)
    return PixelFeatures(residual, 2.0 * relative / (1.0 + relative), jnp.log1p(snr))


def fold_sum(values: Float[Array, "b p"], length: int) -> Float[Array, "b m"]:
    """Sums over each `length` neighbours; as a sum of slices, since XLA reduces short trailing axes slowly on
    a CPU.
    """
    return sum((values[:, i::length] for i in range(1, length)), values[:, ::length])


def segment_means(values: Float[Array, "b m"], n_segments: int) -> Float[Array, "b s"]:
    """Means of `values` over `n_segments` consecutive stretches of equal length (the last one may be
    shorter).
    """
    m = values.shape[-1]
    length = -(-m // n_segments)
    padded = jnp.pad(values, ((0, 0), (0, length * n_segments - m)))
    counts = np.clip(m - length * np.arange(n_segments), 1, length)
    return padded.reshape(values.shape[0], n_segments, length).sum(-1) / counts.astype(values.dtype)


def input_statistics(
    flux: Float[Array, "..."], ivar: Float[Array, "..."], *, floor: float = 0.01
) -> tuple[Float[Array, " p"], Float[Array, " p"]]:
    """Mean and scale of every pixel over a training set [n, p], for `SpectrumEncoder.set_input_statistics`.

    Masked pixels do not enter; fluxes are clipped to [-0.5, 2] first so that cosmics and negative noise
    spikes do not carry the result. A pixel nobody observed gets mean 1. `floor` keeps the scale away from 0
    in the continuum. Use spectra with the noise of the training set: where noise exceeds signal, the scale is
    then the noise.
    """
    if flux.shape != ivar.shape or flux.ndim != 2:
        raise InputError(
            "input_statistics: flux, ivar",
            f"shapes {flux.shape} and {ivar.shape}",
            "two arrays [n_spectra, n_pixels]",
            "stack the spectra on one wavelength grid",
        )
    good = ivar > 0
    count = jnp.maximum(good.sum(0), 1)
    clipped = jnp.where(good, jnp.clip(jnp.where(good, flux, 1.0), -0.5, 2.0), 0.0)
    mean = jnp.where(good.any(0), clipped.sum(0) / count, 1.0)
    variance = jnp.where(good, (clipped - mean) ** 2, 0.0).sum(0) / count
    return mean, jnp.maximum(jnp.sqrt(variance), floor)
