"""Stars with data and known labels, as training, evaluation and simulation hand them on."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from jaxspec.spectra import median_snr


class Dataset(NamedTuple):
    """Normalised spectra of stars whose labels are known; a pytree, so a batch of it passes through `jit`.

    Attributes:
        labels: in the order and units of the label set.
        flux, ivar: normalised as observed spectra are; a bad or unobserved pixel has `ivar == 0` and flux 1.
        errors: standard errors of the labels; None where labels are exact.
        snr: nominal signal-to-noise per pixel of simulated stars, about which their arms scatter; else None.
        nuisances: the true broadening and velocity of simulated stars; else None.
    """

    # Arrays of NumPy on the host, of JAX on a device and as a loss sees a batch.
    labels: Float[Any, "n l"]
    flux: Float[Any, "n p"]
    ivar: Float[Any, "n p"]
    errors: Float[Any, "n l"] | None = None
    snr: Float[Any, " n"] | None = None
    nuisances: Any = None

    @property
    def n_stars(self) -> int:
        """Number of stars."""
        return self.labels.shape[0]

    @property
    def measured_snr(self) -> Float[np.ndarray, " n"]:
        """Median of flux over error among usable pixels."""
        return median_snr(np.asarray(self.flux), np.asarray(self.ivar))

    def rows(self, index: Any) -> Dataset:
        """Some of the stars: indices, a slice or a boolean mask."""
        return jax.tree.map(lambda x: x[index], self)
