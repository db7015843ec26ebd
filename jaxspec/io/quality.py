"""What a reader found wrong with single pixels, and the physical sanity a spectrum must pass.

`ivar == 0` is the only mask the rest of the library knows. The bits here say *why* a pixel got it, and are
kept beside the spectrum.

A changed byte cannot always be seen: where a file carries checksums the FITS layer verifies them; elsewhere
only what is physically impossible is caught here (non-finite, far below zero, a jump no line-spread function
allows, an error far smaller than its neighbours'). A change smaller than that looks like noise and stays.
"""

from enum import IntFlag

import numpy as np
from jaxtyping import Float, Int

from jaxspec.errors import InputError
from jaxspec.io.noise import blockwise, count_near, estimate_sigma
from jaxspec.io.typed import argument


class Quality(IntFlag):
    """Bits of `quality`; 0 means that nothing is wrong with the pixel."""

    FLAGGED = 1  # the file's own quality column is not zero
    NO_ERROR = 2  # the file gives no error for this pixel (NaN or 0)
    NO_DATA = 4  # flux is exactly 0 or not a number where the file says it is bad, and its direct neighbours
    NEGATIVE = 8  # further below zero than 10 sigma
    SPIKE = 16  # differs from both sides by more than any line-spread function allows
    ERROR_SPIKE = 32  # error ten times smaller than that of its neighbours
    NOT_COVERED = 64  # on an instrument's grid: the file does not reach this pixel
    NO_SPECTRUM = 128  # on an instrument's grid: this arm of the file cannot be a spectrum


MIN_PIXELS = 16
ABSURD = 1e6  # times the median flux: no star, cosmic ray or sky line does that to a reduced spectrum
SPIKE_DEPTH = 0.3  # of the local level; the sharpest step in the real sample files is 0.17 where S/N > 30
WINDOW, NEAR = 201, 21  # pixels over which, and beside which, values below zero are counted
BELOW_SIGMA, BELOW_MAX = 5.0, 0.1
SNR_RANGE = (1e-2, 1e5)  # median S/N a pixel beyond which the error array cannot belong to the flux


def _neighbours(values: np.ndarray) -> np.ndarray:
    """Median of the two pixels on either side of each pixel; edges see their nearest four."""
    padded = np.pad(values, 2, mode="reflect")
    n = len(values)
    return np.median([padded[0:n], padded[1 : n + 1], padded[3 : n + 3], padded[4 : n + 4]], axis=0)


def check_wavelength(wavelength: Float[np.ndarray, " p"], where: str) -> None:
    """Raise unless the axis is finite, increasing, without a misplaced point, and inside 2000-30000 A."""
    if wavelength.ndim != 1 or len(wavelength) < MIN_PIXELS:
        raise InputError(
            where,
            f"wavelength array of shape {wavelength.shape}",
            f"one axis of at least {MIN_PIXELS} pixels",
            "check that the file is complete",
        )
    if not np.all(np.isfinite(wavelength)):
        bad = int(np.flatnonzero(~np.isfinite(wavelength))[0])
        raise InputError(
            where, f"wavelength that is not finite at pixel {bad}", "finite wavelengths", "repair the file"
        )
    step = np.diff(wavelength)
    if np.any(step <= 0):
        bad = int(np.flatnonzero(step <= 0)[0])
        raise InputError(
            where,
            f"wavelength not increasing at pixel {bad}: {wavelength[bad]:.4f}, {wavelength[bad + 1]:.4f} A",
            "strictly increasing wavelengths",
            "sort or repair the file",
        )
    if wavelength[0] < 2000.0 or wavelength[-1] > 30000.0:
        raise InputError(
            where,
            f"wavelengths {wavelength[0]:.4g} to {wavelength[-1]:.4g} A",
            "an axis inside 2000-30000 A",
            f"check the unit of the wavelengths; if the file states none, give {argument('unit', 'nm')}",
        )
    # A damaged digit moves one point between two neighbours that are themselves in place.
    offset = np.abs(0.5 * (wavelength[:-2] + wavelength[2:]) - wavelength[1:-1]) / np.median(step)
    usual = np.median(offset)
    lone = np.flatnonzero(offset > max(0.2, 8.0 * usual))
    spacing = (wavelength[2:] - wavelength[:-2]) / 2.0
    smooth = (
        np.abs(spacing / _neighbours(spacing) - 1.0) < 0.05
        if len(spacing) > 4
        else np.ones_like(spacing, bool)
    )
    lone = lone[smooth[lone]]
    if lone.size:
        bad = int(lone[0]) + 1
        raise InputError(
            where,
            f"wavelength {wavelength[bad]:.5f} A out of line with its neighbours at pixel {bad}",
            "a smooth wavelength axis",
            "repair the file: one value looks damaged",
        )


def clean(
    flux: Float[np.ndarray, " p"],
    ivar: Float[np.ndarray, " p"] | None,
    quality: Int[np.ndarray, " p"],
    where: str,
) -> tuple[Float[np.ndarray, " p"], Float[np.ndarray, " p"] | None, Int[np.ndarray, " p"]]:
    """Refuse what cannot be a spectrum and mask the pixels that cannot be part of one.

    `quality` holds what the reader already knows (its non-zero pixels are masked). `ivar` may be None when
    the file has no errors. Returns flux (0 in masked pixels), ivar (0 there; None stays None) and the
    completed quality bits.

    A pixel whose flux is not finite, or whose ivar is negative or not finite, is masked, and so is a stretch
    of the spectrum that lies below zero; the rest is used.

    Raises `InputError` for a median flux that is not positive, values above `ABSURD` medians that are no fill
    value, an implied S/N outside `SNR_RANGE`, or too few good pixels.
    """
    flux = np.array(flux, dtype=np.float64)
    quality = np.array(quality, dtype=np.int32)
    if ivar is not None:
        ivar = np.array(ivar, dtype=np.float64)
        if ivar.shape != flux.shape:
            raise InputError(
                where,
                f"{len(flux)} flux but {len(ivar)} error values",
                "one error for each flux",
                "check the file",
            )
        ivar = np.where(np.isfinite(ivar) & (ivar > 0), ivar, 0.0)
        quality[(ivar == 0) & (quality == 0)] |= Quality.NO_ERROR
    quality[~np.isfinite(flux)] |= Quality.NO_DATA
    empty = np.nan_to_num(flux) == 0.0
    # Resampled products write 0 where nothing was observed; the pixel beside it is half filled.
    beside = empty.copy()
    beside[1:] |= empty[:-1]
    beside[:-1] |= empty[1:]
    quality[beside] |= Quality.NO_DATA
    good = _enough(quality, MIN_PIXELS, where)
    quality |= _fill_values(flux, good, where)
    good = _enough(quality, MIN_PIXELS, where)
    quality |= below_zero(flux, ivar, good)
    good = _enough(quality, MIN_PIXELS, where)
    median = float(np.median(flux[good]))
    if median <= 0:
        raise InputError(
            where,
            f"median flux {median:.4g}",
            "a spectrum with positive flux",
            "check which array holds the flux",
        )
    if ivar is not None:
        snr = float(np.median(flux[good] * np.sqrt(ivar[good])))
        if not SNR_RANGE[0] < snr < SNR_RANGE[1]:
            raise InputError(
                where,
                f"a median signal-to-noise of {snr:.3g} per pixel",
                f"between {SNR_RANGE[0]:g} and {SNR_RANGE[1]:g}",
                "the errors do not belong to this flux: check their unit and kind (sigma, variance or ivar)",
            )
    quality |= _impossible(flux, ivar, good)
    good = _enough(quality, max(MIN_PIXELS, 0.01 * len(flux)), where)
    flux = np.where(good, flux, 0.0)
    return flux, None if ivar is None else np.where(good, ivar, 0.0), quality


def counts(quality: Int[np.ndarray, " p"]) -> dict[str, int]:
    """How many pixels have each bit, by its name in lower case."""
    return {
        str(bit.name).lower(): int(((quality & bit) > 0).sum()) for bit in Quality if (quality & bit).any()
    }


def _enough(quality: np.ndarray, minimum: float, where: str) -> np.ndarray:
    """The good pixels; raises when there are fewer than `minimum`, and says what is wrong with the others."""
    good = quality == 0
    if good.sum() < minimum:
        why = ", ".join(f"{name} {n}" for name, n in counts(quality).items())
        raise InputError(
            where,
            f"{int(good.sum())} usable pixels of {len(quality)} ({why})",
            f"at least {minimum:.0f}",
            "check the flux, error and mask arrays of the file, or fetch it again",
        )
    return good


def _fill_values(flux: np.ndarray, good: np.ndarray, where: str) -> np.ndarray:
    """Bits for absurd values: one value throughout stands for "none", and a pixel or two are damaged; more
    are no spectrum, and raise."""
    bits = np.zeros(len(flux), np.int32)
    median = float(np.median(np.abs(flux[good])))
    fill = good & (np.abs(flux) > ABSURD * median)
    if np.unique(flux[good]).size > 1:
        # A fill value in most pixels is their median.
        common = flux == np.median(flux[good])
        if 0.5 < common[good].mean() and (~common & good).sum() >= MIN_PIXELS:
            others = np.median(np.abs(flux[good & ~common]))
            if abs(float(np.median(flux[good]))) > ABSURD * others:
                fill = good & common
    if not fill.any():
        return bits
    if fill.sum() > 2 and np.unique(flux[fill]).size > 1:
        bad = int(np.flatnonzero(fill)[0])
        raise InputError(
            where,
            f"flux {flux[bad]:.4g} at pixel {bad} ({int(fill.sum())} such pixels), median {median:.4g}",
            f"no values above {ABSURD:.0e} medians",
            "the data look damaged: fetch the file again",
        )
    bits[fill] |= Quality.NO_DATA if fill.sum() > 2 else Quality.SPIKE
    return bits


def below_zero(flux: np.ndarray, ivar: np.ndarray | None, good: np.ndarray) -> np.ndarray:
    """Bits for stretches that no star has: more than `BELOW_MAX` of `WINDOW` pixels further below zero than
    `BELOW_SIGMA` errors (without errors: than the noise from pixel differences)."""
    bits = np.zeros(len(flux), np.int32)
    if not (flux[good] < 0).any():
        return bits
    if ivar is None:
        sigma = estimate_sigma(np.where(good, flux, 0.0), good)
    else:
        sigma = 1.0 / np.sqrt(np.where(good & (ivar > 0), ivar, np.inf))
    low = good & (flux < -BELOW_SIGMA * sigma)
    share = count_near(low, WINDOW) / np.maximum(count_near(good, WINDOW), 1.0)
    # Between two such pixels, or beside one: the end of a good stretch is not lost to a bad one next to it.
    near = count_near(low, NEAR) > 0
    bits[good & near & (share > BELOW_MAX)] |= Quality.NEGATIVE
    return bits


def _impossible(flux: np.ndarray, ivar: np.ndarray | None, good: np.ndarray) -> np.ndarray:
    """Bits for single good pixels that cannot be real; see `Quality`."""
    bits = np.zeros(len(flux), np.int32)
    level = np.maximum(blockwise(flux, good, 90.0), 1e-30)
    filled = np.where(good, flux, level)
    jump = np.where(good, np.abs(filled - _neighbours(filled)) / level, 0.0)
    usual = blockwise(jump, good, 68.0)
    spike = (jump > SPIKE_DEPTH) & (jump > 10.0 * usual)
    if ivar is not None:
        sigma = 1.0 / np.sqrt(np.where(ivar > 0, ivar, 1.0))
        # Of an ivar that is itself damaged the neighbours' is the better witness.
        sigma = np.minimum(sigma, 10.0 * blockwise(sigma, good & (ivar > 0), 50.0))
        spike &= jump * level > 10.0 * sigma
        bits[good & (flux < -10.0 * sigma)] |= Quality.NEGATIVE
        local = _neighbours(np.where(good, ivar, 0.0))
        bits[good & (local > 0) & (ivar > 100.0 * local) & (ivar > 100.0 * blockwise(ivar, good, 50.0))] |= (
            Quality.ERROR_SPIKE
        )
    bits[spike & good] |= Quality.SPIKE
    return bits
