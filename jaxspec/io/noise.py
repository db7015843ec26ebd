"""Local levels, and the noise of a spectrum that comes without errors."""

from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float

BLOCK = 500  # pixels over which a local level, noise or error is taken


def blockwise(
    values: Float[np.ndarray, " p"], good: np.ndarray, percentile: float
) -> Float[np.ndarray, " p"]:
    """Percentile of the good pixels in blocks of `BLOCK`, interpolated linearly back to every pixel."""
    n = len(values)
    edges = np.linspace(0, n, max(1, n // BLOCK) + 1).astype(int)
    centres, levels = [], []
    for low, high in pairwise(edges.tolist()):
        inside = values[low:high][good[low:high]]
        if inside.size:
            centres.append(0.5 * (low + high))
            levels.append(np.percentile(inside, percentile))
    if not centres:
        return np.zeros(n)
    return np.interp(np.arange(n), centres, levels)


def count_near(mask: Bool[np.ndarray, " p"], width: int) -> Float[np.ndarray, " p"]:
    """How many of the `width` pixels about each pixel are set; `width` is odd."""
    return np.convolve(mask, np.ones(width), "full")[width // 2 : width // 2 + len(mask)]


def estimate_sigma(flux: Float[np.ndarray, " p"], good: Bool[np.ndarray, " p"]) -> Float[np.ndarray, " p"]:
    """One-sigma noise of each pixel from differences of pixels two apart (DER_SNR; Stoehr et al. 2008, ASPC
    394, 505).

    The estimator 1.482602 / sqrt(6) |2 f_i - f_{i-2} - f_{i+2}| is taken as a median over blocks of 500
    pixels, so that a spectrum with a noisy blue end keeps it. It knows nothing of noise correlated over more
    than two pixels (a strongly oversampled spectrum comes out too good) and takes unresolved lines for noise.
    """
    difference = np.zeros_like(flux)
    difference[2:-2] = np.abs(2.0 * flux[2:-2] - flux[:-4] - flux[4:])
    usable = np.zeros(len(flux), bool)
    usable[2:-2] = good[2:-2] & good[:-4] & good[4:]
    sigma = 1.482602 / np.sqrt(6.0) * blockwise(difference, usable, 50.0)
    # A block of constant flux (saturated, padded) would claim infinite precision.
    return np.maximum(sigma, 1e-4 * np.maximum(blockwise(np.abs(flux), good, 50.0), 1e-30))
