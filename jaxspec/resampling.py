"""Spectra on other pixels and at lower resolving power: host code in float64.

Both operations are linear and correlate the noise of neighbouring pixels. Everything that follows takes
pixels to be independent, so the stated ivar conserves information: errors of quantities that rest on many
pixels are right.
"""

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike
from scipy.ndimage import median_filter
from scipy.sparse import csr_array
from scipy.special import ndtr

from jaxspec.errors import InputError
from jaxspec.instruments import Instrument, lsf_sigma
from jaxspec.spectra import check_axis, validate


def pixel_bounds(
    wavelength: Float[np.ndarray, " p"],
) -> tuple[Float[np.ndarray, " p"], Float[np.ndarray, " p"]]:
    """Lower and upper edge of each pixel in A: midway to its neighbours.

    A step more than 1.5 times the usual one thereabouts (the median of eleven) is a gap, across which no
    pixel extends: pixels beside it have the usual width.
    """
    steps = np.diff(wavelength)
    usual = median_filter(steps, size=min(11, steps.size), mode="nearest")
    half = 0.5 * np.where(steps > 1.5 * usual, usual, steps)
    return wavelength - np.append(half[0], half), wavelength + np.append(half, half[-1])


def rebin(
    wavelength: Float[np.ndarray, " p"],
    flux: Float[np.ndarray, "*n p"],
    ivar: Float[np.ndarray, "*n p"],
    edges: Float[np.ndarray, " m_plus_1"],
) -> tuple[Float[np.ndarray, "*n m"], Float[np.ndarray, "*n m"]]:
    """Flux density averaged over new pixels, with its inverse variance. Conserves flux; host code in float64.

    `wavelength` (A) are the centres of the input pixels, `edges` (A) the edges of the output pixels.

    Each input pixel holds the mean flux over its width. Inside it the flux is taken to run along a straight
    line with the slope given by its two neighbours (a level line where a neighbour is masked or across a
    gap), and an output pixel is the integral of that over the part of it that good input covers, divided by
    the width covered. So pixels that coincide are returned unchanged, the sum of flux times width is kept,
    and a shift by a fraction of a pixel does not blur a spectrum as a plain overlap average would (by up to
    half a pixel: 2 % of the line width in HR10).

    The ivar conserves information: the variance of a mean over many pixels is right when the output pixels
    are taken to be independent, as all that follows takes them to be. Output pixels that share an input
    pixel are in truth correlated, so that a single one scatters less than its stated error (its variance is
    0.6 to 1 times the stated one on pixels of the same size, half on pixels of half the size).

    Masked input (`ivar == 0`) is never read. Output pixels with less than half their width covered get ivar 0
    and flux 0. Raises `InputError` as `validate` does, and for edges that do not increase.
    """
    flux, ivar = np.asarray(flux, np.float64), np.asarray(ivar, np.float64)
    wavelength, edges = np.asarray(wavelength, np.float64), np.asarray(edges, np.float64)
    validate(flux, ivar, wavelength, where="input of rebin")
    cut = _Cut(wavelength, edges)
    shape, n_out = flux.shape[:-1], edges.size - 1
    flux, ivar = flux.reshape(-1, wavelength.size), ivar.reshape(-1, wavelength.size)
    out_flux, out_ivar = np.zeros((len(flux), n_out)), np.zeros((len(flux), n_out))
    mean, last = None, np.zeros(0, bool)
    for i in range(len(flux)):
        good = ivar[i] > 0
        if mean is None or not np.array_equal(good, last):
            mean, power, covered = cut.matrices(good)
            last, keep = good, covered >= 0.5 - 1e-9
        out_flux[i, keep] = (mean @ np.where(good, flux[i], 0.0))[keep]
        out_ivar[i, keep] = 1.0 / (power @ _variance(ivar[i]))[keep]
    return out_flux.reshape(*shape, n_out), out_ivar.reshape(*shape, n_out)


class _Cut:
    """An axis of pixels, cut at the edges of other ones."""

    def __init__(self, wavelength: Float[np.ndarray, " p"], edges: Float[np.ndarray, " m_plus_1"]):
        check_axis(edges, "output pixel edges of rebin")
        low, high = pixel_bounds(wavelength)
        self.shape = edges.size - 1, wavelength.size
        # Each segment is in one output pixel and at most one input one.
        inner = np.concatenate([low, high])
        cuts = np.unique(np.concatenate([edges, inner[(inner > edges[0]) & (inner < edges[-1])]]))
        middle, length = 0.5 * (cuts[1:] + cuts[:-1]), np.diff(cuts)
        source = np.searchsorted(low, middle, side="right") - 1
        target = np.searchsorted(edges, middle, side="right") - 1
        inside = (source >= 0) & (middle < high[source])
        middle, length, self.source, self.target = (x[inside] for x in (middle, length, source, target))
        width = np.diff(edges)
        self.share = length / width[self.target]
        self.ratio = (high - low)[self.source] / width[self.target]
        # slope [flux / A] of pixel i = (flux[i+1] - flux[i-1]) / span[i], where both neighbours touch it.
        touching = np.isclose(low[1:], high[:-1], rtol=0, atol=1e-3 * np.median(high - low))
        self.sloped = np.zeros(wavelength.size, bool)
        self.sloped[1:-1] = touching[1:] & touching[:-1]
        span = np.ones(wavelength.size)
        span[1:-1] = wavelength[2:] - wavelength[:-2]
        self.lever = self.share * (middle - 0.5 * (low + high)[self.source]) / span[self.source]

    def matrices(self, good: Bool[np.ndarray, " p"]) -> tuple[csr_array, csr_array, Float[np.ndarray, " m"]]:
        """From fluxes to the output's, from variances to the stated ones, and the share of each output pixel
        that good input covers."""
        source, target, last = self.source, self.target, self.shape[1] - 1
        level = np.where(good[source], self.share, 0.0)
        both = self.sloped.copy()
        both[1:-1] &= good[1:-1] & good[2:] & good[:-2]
        tilt = np.where(both[source], self.lever, 0.0)
        covered = np.bincount(target, level, self.shape[0]).astype(float)  # of nothing it counts integers
        scale = 1.0 / np.where(covered > 0, covered, 1.0)[target]
        columns = np.concatenate([source, np.minimum(source + 1, last), np.maximum(source - 1, 0)])
        values = np.concatenate([level, tilt, -tilt]) * np.tile(scale, 3)
        mean = csr_array((values, (np.tile(target, 3), columns)), shape=self.shape)
        # Noise of variance v in pixels of width w has power v w per A, which is shared out as the flux is.
        power = csr_array((level * self.ratio * scale**2, (target, source)), shape=self.shape)
        return mean, power, covered


def _variance(ivar: np.ndarray) -> np.ndarray:
    return np.where(ivar > 0, 1.0 / np.where(ivar > 0, ivar, 1.0), 0.0)


def resample(
    wavelength: Float[np.ndarray, " p"],
    flux: Float[np.ndarray, " p"],
    ivar: Float[np.ndarray, " p"],
    edges: Float[np.ndarray, " m_plus_1"],
    source: ArrayLike | None = None,
    target: ArrayLike | None = None,
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """One spectrum brought from resolving power `source` to `target` (where given) and rebinned: flux, ivar,
    and the standard deviation by which single output pixels scatter (0 where the ivar is 0).

    The ivar is as `convolve_to_resolution` and `rebin` state it. Pixels scatter by less than it says, since
    noise that was smoothed is correlated; the third result says by how much.
    """
    smooth = None
    new_flux, new_ivar = np.asarray(flux, np.float64), np.asarray(ivar, np.float64)
    variance = _variance(new_ivar)
    if source is not None and target is not None:
        smooth = _smoothing(wavelength, new_ivar > 0, source, target)[0]
        new_flux, new_ivar = convolve_to_resolution(wavelength, new_flux, new_ivar, source, target)
    out_flux, out_ivar = rebin(wavelength, new_flux, new_ivar, edges)
    mean = _Cut(np.asarray(wavelength, np.float64), np.asarray(edges, np.float64)).matrices(new_ivar > 0)[0]
    whole = mean if smooth is None else mean @ smooth
    scatter = np.sqrt(whole.power(2) @ variance)
    return out_flux, out_ivar, np.where(out_ivar > 0, scatter, 0.0)


def rebin_to_instrument(
    wavelength: Float[np.ndarray, " p"],
    flux: Float[np.ndarray, "*n p"],
    ivar: Float[np.ndarray, "*n p"],
    instrument: Instrument,
) -> tuple[Float[np.ndarray, "*n m"], Float[np.ndarray, "*n m"]]:
    """`rebin` onto the pixels of all arms of an instrument (same medium, at rest); what is not covered has
    ivar 0."""
    parts = [rebin(wavelength, flux, ivar, arm.edges) for arm in instrument.arms]
    return np.concatenate([p[0] for p in parts], -1), np.concatenate([p[1] for p in parts], -1)


def convolve_to_resolution(
    wavelength: Float[np.ndarray, " p"],
    flux: Float[np.ndarray, "*n p"],
    ivar: Float[np.ndarray, "*n p"],
    source: ArrayLike,
    target: ArrayLike,
    min_weight: float = 0.9,
) -> tuple[Float[np.ndarray, "*n p"], Float[np.ndarray, "*n p"]]:
    """Spectra of resolving power `source` as an instrument of resolving power `target` would see them.

    A Gaussian of variance sigma_target^2 - sigma_source^2, with sigma = lambda / (2.3548 R) of each output
    pixel, integrated over the input pixels. `source` and `target` are numbers or one value per pixel
    (infinite: no broadening yet). Masked pixels are never read: the kernel is renormalised over good ones,
    and where these hold less than `min_weight` of it (beside wide gaps and at the ends) the result is masked.

    The ivar conserves information: smoothing averages noise over neighbours and leaves its mean over many
    pixels alone, so the stated variance is the mean one under the kernel. With it, the error of a broad
    quantity is right when pixels are taken to be independent; single pixels scatter by less than they state
    (see `resample`).

    Raises `InputError` where the target is sharper than the source.
    """
    flux, ivar = np.asarray(flux, np.float64), np.asarray(ivar, np.float64)
    wavelength = np.asarray(wavelength, np.float64)
    validate(flux, ivar, wavelength, where="input of convolve_to_resolution")
    good = ivar > 0
    kernel, _ = _smoothing(wavelength, np.ones(wavelength.size, bool), source, target)
    weight = _apply(kernel, good.astype(np.float64))
    keep = weight >= min_weight
    safe = np.where(keep, weight, 1.0)
    out_flux = np.where(keep, _apply(kernel, np.where(good, flux, 0.0)) / safe, 0.0)
    variance = _apply(kernel, _variance(ivar)) / safe
    out_ivar = np.where(keep, 1.0 / np.where(variance > 0, variance, 1.0), 0.0)
    return out_flux, out_ivar


def _smoothing(
    wavelength: np.ndarray, good: np.ndarray, source: ArrayLike, target: ArrayLike
) -> tuple[csr_array, np.ndarray]:
    """The kernel from one resolving power to another over good pixels, each row of sum 1; and the share of it
    that they hold."""
    source = np.broadcast_to(np.asarray(source, np.float64), wavelength.shape)
    target = np.broadcast_to(np.asarray(target, np.float64), wavelength.shape)
    sharper = target > source * (1 + 1e-9)
    if sharper.any() or not (target > 0).all():
        at = int(np.argmax(sharper | ~(target > 0)))
        raise InputError(
            "convolve_to_resolution",
            f"target R = {target[at]:.0f} for a source of R = {source[at]:.0f} at {wavelength[at]:.2f} A",
            "a target of the same or lower resolving power",
            "choose a lower resolution: detail that was not recorded cannot be restored",
        )
    variance = lsf_sigma(wavelength, target) ** 2 - lsf_sigma(wavelength, source) ** 2
    low, high = pixel_bounds(wavelength)
    kernel = _gaussian_rows(wavelength, low, high, np.sqrt(np.maximum(variance, 0.0)))
    if good.all():
        return kernel, np.ones(wavelength.size)
    weight = kernel @ good.astype(np.float64)
    scale = np.where(weight > 0, 1.0 / np.where(weight > 0, weight, 1.0), 0.0)
    return csr_array(kernel.multiply(good[None]).multiply(scale[:, None])), weight


def _apply(matrix: csr_array, values: np.ndarray) -> np.ndarray:
    rows = values.reshape(-1, values.shape[-1])
    return (matrix @ rows.T).T.reshape(*values.shape[:-1], matrix.shape[0])


def _gaussian_rows(wavelength: np.ndarray, low: np.ndarray, high: np.ndarray, sigma: np.ndarray) -> csr_array:
    """Row i: the share of a Gaussian of width `sigma[i]` about `wavelength[i]` that falls into each pixel."""
    reach = 5.0 * sigma
    first = np.searchsorted(high, wavelength - reach, side="right")
    stop = np.maximum(np.searchsorted(low, wavelength + reach, side="left"), first + 1)
    count = stop - first
    rows = np.repeat(np.arange(wavelength.size), count)
    starts = np.repeat(np.cumsum(count) - count, count)
    columns = np.arange(count.sum()) - starts + np.repeat(first, count)
    width = np.maximum(sigma[rows], 1e-12)  # far below a pixel: the kernel is then the pixel itself
    values = ndtr((high[columns] - wavelength[rows]) / width) - ndtr(
        (low[columns] - wavelength[rows]) / width
    )
    return csr_array((values, (rows, columns)), shape=(wavelength.size, wavelength.size))
