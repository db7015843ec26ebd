"""From a spectrum on an instrument's pixels to what networks and fits see of it: one way for simulated and
observed spectra, in training and in inference."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxspec.continuum import normalise
from jaxspec.instruments import Instrument


def prepare(
    flux: Float[Array, "*n p"],
    ivar: Float[Array, "*n p"],
    instrument: Instrument,
) -> tuple[Float[Array, "*n p"], Float[Array, "*n p"]]:
    """Continuum-normalised flux and its ivar; a pixel that is not used has ivar 0 and flux 1. Pure; static in
    `instrument`."""
    flux, ivar = normalise(flux, ivar, instrument)
    return jnp.where(ivar > 0.0, flux, 1.0), ivar


def prepare_many(
    flux: Float[Array | np.ndarray, "n p"],
    ivar: Float[Array | np.ndarray, "n p"],
    instrument: Instrument,
    batch: int = 64,
) -> tuple[Float[np.ndarray, "n p"], Float[np.ndarray, "n p"]]:
    """As `prepare`, for any number of spectra on the host, `batch` of them per compiled call; float32."""
    n = len(flux)
    size, pieces = min(batch, max(n, 1)), []
    for start in range(0, max(n, 1), size):
        f, v = flux[start : start + size], ivar[start : start + size]
        padding = ((0, size - len(f)), (0, 0))
        f, v = np.pad(f, padding, constant_values=1.0), np.pad(v, padding)
        pieces.append([np.asarray(x, np.float32) for x in _prepare(f, v, instrument)])
    flux, ivar = (np.concatenate(x)[:n] for x in zip(*pieces, strict=True))
    return flux, ivar


_prepare = jax.jit(prepare, static_argnums=2)
