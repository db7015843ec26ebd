"""One spectrum on an instrument's grid: shifted to rest, brought to each arm's resolution, rebinned."""

import logging

import numpy as np

from jaxspec.errors import InputError
from jaxspec.instruments import Arm, Instrument
from jaxspec.io.combine import GridSpectrum
from jaxspec.io.quality import Quality, blockwise, counts
from jaxspec.io.spectrum import SpectrumFile
from jaxspec.io.typed import argument
from jaxspec.resampling import resample

log = logging.getLogger(__name__)

ARM_SNR_MIN = 0.2  # per pixel, in the median of an arm; below is noise
MARGIN = 20.0  # A kept beyond an arm's edges, for the convolution kernel


def to_grid(
    file: SpectrumFile,
    instrument: Instrument,
    velocity: float,
    velocity_error: float | None,
    origin: str,
    snr_max: float | None = None,
) -> GridSpectrum:
    """A spectrum shifted to rest, brought to each arm's resolution and rebinned; raises `InputError` without
    any overlap."""
    wavelength = file.rest_wavelength(velocity)
    n = instrument.n_pixels
    flux, ivar, quality = np.zeros(n), np.zeros(n), np.zeros(n, np.int32)
    resolution, scale, raised, notes = {}, {}, {}, list(file.meta.get("notes", ()))
    lost: dict[str, str] = {}
    for arm in instrument.arms:
        pixels = instrument.slices[arm.name]
        near = (wavelength > arm.low - MARGIN) & (wavelength < arm.high + MARGIN)
        if near.sum() < 2:
            continue
        if not (file.ivar[near] > 0).any():
            why = ", ".join(f"{name} {count}" for name, count in counts(file.quality[near]).items())
            lost[arm.name] = f"no usable pixel ({why})"
            continue
        part = wavelength[near], file.flux[near], file.ivar[near]
        native = file.native is not None and instrument.name.startswith(file.native)
        source, target, resolution[arm.name] = _resolution(wavelength[near], file, arm, native, notes)
        arm_flux, arm_ivar, scatter = resample(*part, arm.edges, source, target)
        good = arm_ivar > 0
        if not good.any():
            resolution.pop(arm.name)
            continue
        median = float(np.median(arm_flux[good]))
        snr = float(np.median(arm_flux[good] * np.sqrt(arm_ivar[good])))
        if median <= 0 or snr < ARM_SNR_MIN:
            lost[arm.name] = f"median flux {median:.4g} at a signal-to-noise of {snr:.2g} per pixel"
            resolution.pop(arm.name)
            continue
        scale[arm.name] = median
        # In units of the arm's median, which the continuum normaliser removes anyway: calibrated fluxes of
        # 1e-17 would overflow float32 ivar.
        flux[pixels], ivar[pixels] = arm_flux / scale[arm.name], arm_ivar * scale[arm.name] ** 2
        quality[pixels] = _carry(file.quality[near], wavelength[near], arm)
        if snr_max is not None:
            level = np.maximum(blockwise(flux[pixels], good, 90.0), 1e-6)
            ivar[pixels] = np.minimum(ivar[pixels], (snr_max / level) ** 2)
        factor = float(np.median(scale[arm.name] / (scatter[good] * np.sqrt(ivar[pixels][good]))))
        if factor > 1.0 + 1e-6:
            raised[arm.name] = factor
    for name, why in lost.items():
        log.warning("%s: arm %s is masked, it cannot be a spectrum: %s", file.path, name, why)
        notes.append(f"arm {name} masked, it cannot be a spectrum: {why}")
        quality[instrument.slices[name]] |= Quality.NO_SPECTRUM
    if lost and not scale:
        raise InputError(
            file.path,
            "; ".join(f"{why} in arm {name}" for name, why in lost.items()),
            "an arm with positive flux above its noise",
            "check which array of the file holds the flux, and its errors",
        )
    if not scale:
        ranges = ", ".join(f"{a.low:g}-{a.high:g}" for a in instrument.arms)
        raise InputError(
            file.path,
            f"wavelengths {wavelength[0]:.1f}-{wavelength[-1]:.1f} A",
            f"an overlap with {instrument.name} ({ranges} A)",
            "choose the instrument that took the spectrum",
        )
    quality[(ivar == 0) & (quality == 0)] |= Quality.NOT_COVERED
    good = ivar > 0
    meta = {
        **file.meta,
        "path": file.path,
        "product": file.product,
        "star": file.star,
        "frame": file.frame,
        "velocity": float(velocity),
        "velocity_error": None if velocity_error is None else float(velocity_error),
        "velocity_origin": origin,
        "snr_file": file.meta.get("snr"),
        "snr": float(np.median(flux[good] * np.sqrt(ivar[good]))),
        "arms": tuple(scale),
        "resolution": resolution,
        "flux_scale": scale,
        # Of errors over the scatter of single pixels, the median of each arm where it is not 1: by snr_max,
        # and because noise that was resampled is correlated.
        "errors_raised": raised,
        "notes": notes,
    }
    return GridSpectrum(file.name, file.star, flux, ivar, quality, meta)


LEAST = 0.8  # of an arm's resolving power: the least that networks are trained with


def _resolution(
    wavelength: np.ndarray, file: SpectrumFile, arm: Arm, native: bool, notes: list[str]
) -> tuple[float | None, np.ndarray | None, str]:
    """Resolving powers to convolve from and to, where the source's is known and higher; says what is done."""
    source, target = file.resolving_power_in(arm.low, arm.high), arm.resolution(wavelength)
    nominal = float(np.median(target))
    if source is None:
        if not native:
            log.warning(
                "%s: resolving power not stated; taken as arm %s's own %.0f (else give %s)",
                file.path,
                arm.name,
                nominal,
                argument("resolving_power", 20000),
            )
        return None, None, f"native {nominal:.0f}" if native else f"unknown, taken as {nominal:.0f}"
    if source < LEAST * nominal:
        note = (
            f"resolving power {source:.0f} is far below arm {arm.name}'s {nominal:.0f}: weights are for "
            f"{LEAST * nominal:.0f} and more, do not trust its labels"
        )
        log.warning("%s: %s", file.path, note)
        notes.append(note)
        return None, None, f"{source:.0f}"
    if source < 0.95 * nominal:
        log.warning(
            "%s: resolving power %.0f is below arm %s's %.0f and cannot be raised",
            file.path,
            source,
            arm.name,
            nominal,
        )
        notes.append(f"resolving power {source:.0f} below arm {arm.name}'s {nominal:.0f}")
        return None, None, f"{source:.0f}"
    if source <= nominal * 1.02:
        return None, None, f"{source:.0f}"
    return float(source), np.minimum(target, source), f"{nominal:.0f} from {source:.0f}"


def _carry(quality: np.ndarray, wavelength: np.ndarray, arm: Arm) -> np.ndarray:
    """Bits of the input pixels whose centres fall into each output pixel."""
    out = np.zeros(arm.n_pixels, np.int32)
    flagged = np.flatnonzero(quality)
    index = np.searchsorted(arm.edges, wavelength[flagged], side="right") - 1
    inside = (index >= 0) & (index < arm.n_pixels)
    np.bitwise_or.at(out, index[inside], quality[flagged][inside])
    return out
