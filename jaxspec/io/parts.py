"""Shared by the readers of surveys: masks at the door, arms joined into one spectrum, and the choice of one
spectrum in a file that holds several."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxspec.errors import InputError
from jaxspec.instruments import SPEED_OF_LIGHT, Instrument
from jaxspec.io.quality import Quality
from jaxspec.io.typed import argument

SENTINEL = (
    -900.0
)  # surveys write -999, -9999 or -999999 where there is no value; no label or velocity is there
FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0))  # of a Gaussian, in units of its sigma


class SeveralSpectra(InputError):
    """A file of several spectra and no choice among them; `choices` are what `select` may be."""

    def __init__(self, where: str, found: str, expected: str, fix: str, choices: tuple[str, ...]):
        super().__init__(where, found, expected, fix)
        self.args = (where, found, expected, fix, choices)
        self.choices = choices


Masked = tuple[np.ndarray, np.ndarray, np.ndarray]  # flux, ivar, quality


@dataclass
class Part:
    """One arm or detector of a spectrum, `[p]` each: wavelength in A, flux, ivar, quality, and the Gaussian
    sigma of the line-spread function in A (None when the file does not give it)."""

    name: str
    wavelength: np.ndarray
    flux: np.ndarray
    ivar: np.ndarray
    quality: np.ndarray
    lsf: np.ndarray | None = None


def choose(
    where: str, choices: Sequence[str], select: str | None, what: str, default: str | None = None
) -> str:
    """The one of `choices` that is meant: `select`, or the only one, or `default`.

    Raises `SeveralSpectra` when nothing decides, and `InputError` for a `select` that is not there or stands
    for several.
    """
    shown = ", ".join(choices[:8]) + (f" and {len(choices) - 8} more" if len(choices) > 8 else "")
    if select is not None:
        if list(choices).count(select) == 1:
            return select
        raise InputError(
            where,
            f"no {what} {select!r}" if select not in choices else f"{what} {select!r} more than once",
            f"one of {shown}",
            f"give {argument('select', choices[0])}, for example",
        )
    if len(choices) == 1:
        return choices[0]
    if default is not None:
        return default
    raise SeveralSpectra(
        where,
        f"{len(choices)} spectra ({what}: {shown})",
        "one spectrum, or a choice",
        f"give {argument('select', choices[0])}, for example, or select='all'",
        tuple(choices),
    )


def masked(flux: np.ndarray, ivar: np.ndarray, bad: np.ndarray | None = None) -> Masked:
    """Flux, ivar and quality bits with one mask: `bad` pixels (FLAGGED), flux that is not finite (NO_DATA)
    and ivar that is not finite or not above 0 (NO_ERROR) all get ivar 0.

    A negative ivar counts as missing too: BOSS and LAMOST write it for rejected pixels.
    """
    flux, ivar = np.asarray(flux, np.float64), np.asarray(ivar, np.float64)
    quality = np.zeros(len(flux), np.int32)
    if bad is not None:
        quality[np.asarray(bad, bool)] |= Quality.FLAGGED
    quality[~np.isfinite(flux)] |= Quality.NO_DATA
    quality[~(np.isfinite(ivar) & (ivar > 0))] |= Quality.NO_ERROR
    return np.where(np.isfinite(flux), flux, 0.0), np.where(quality == 0, ivar, 0.0), quality


def join(parts: Sequence[Part], notes: list[str]) -> Part:
    """Arms in the order of wavelength as one spectrum, each pixel from one arm.

    Where two overlap the border is the middle of the overlap: means of two arms would mix two line-spread
    functions. What is cut is told in `notes`.
    """
    kept: list[Part] = []
    for part in sorted(parts, key=lambda part: float(part.wavelength[0])):
        if kept and part.wavelength[0] <= kept[-1].wavelength[-1]:
            low, high = float(part.wavelength[0]), float(kept[-1].wavelength[-1])
            border = 0.5 * (low + high)
            notes.append(
                f"{kept[-1].name} and {part.name} overlap in {low:.1f}-{high:.1f} A: "
                f"the first is used up to {border:.1f} A"
            )
            kept[-1] = _where(kept[-1], kept[-1].wavelength <= border)
            part = _where(part, part.wavelength > max(border, float(kept[-1].wavelength[-1])))
        kept.append(part)
    lsf = None
    if all(part.lsf is not None for part in kept):
        lsf = np.concatenate([np.asarray(part.lsf, np.float64) for part in kept])
    wavelength, flux, ivar, quality = (
        np.concatenate([getattr(part, name) for part in kept])
        for name in ("wavelength", "flux", "ivar", "quality")
    )
    return Part("+".join(part.name for part in kept), wavelength, flux, ivar, quality, lsf)


def _where(part: Part, inside: np.ndarray) -> Part:
    return Part(
        part.name,
        part.wavelength[inside],
        part.flux[inside],
        part.ivar[inside],
        part.quality[inside],
        None if part.lsf is None else part.lsf[inside],
    )


def same_length(where: str, **arrays: np.ndarray) -> None:
    """Raises `InputError` unless the arrays are vectors of one length."""
    shapes = {name: np.shape(values) for name, values in arrays.items()}
    if len(set(shapes.values())) != 1 or len(next(iter(shapes.values()))) != 1:
        raise InputError(
            where,
            "arrays of shapes " + ", ".join(f"{name} {shape}" for name, shape in shapes.items()),
            "one length for all",
            "the file is damaged: fetch it again",
        )


def velocity_of_redshift(z: float | None) -> float | None:
    """Velocity in km/s whose relativistic Doppler factor is 1 + z; None for no value or no star's (2000
    km/s).

    Surveys quote c z; the two differ by 0.04 km/s at 150 km/s.
    """
    if z is None or not np.isfinite(z) or abs(z) > 2000.0 / SPEED_OF_LIGHT:
        return None
    return float(SPEED_OF_LIGHT * ((1 + z) ** 2 - 1) / ((1 + z) ** 2 + 1))


def value_of(source: Any, *keys: str) -> float | None:
    """The first of the keys that holds a number, of a header, a table's row or a mapping; None for sentinels,
    NaN and infinities."""
    for key in keys:
        try:
            value = source[key]
        except (KeyError, IndexError, ValueError):
            continue
        if isinstance(value, (bool, np.bool_)) or value is None or np.ma.is_masked(value):
            continue
        try:
            number = float(np.asarray(value).reshape(-1)[0]) if np.size(value) == 1 else float("nan")
        except (TypeError, ValueError):
            continue
        if np.isfinite(number) and number > SENTINEL:
            return number
    return None


def text_of(source: Any, *keys: str) -> str:
    """The first of the keys that holds text or a whole number, stripped; "" when none does."""
    for key in keys:
        try:
            value = source[key]
        except (KeyError, IndexError, ValueError):
            continue
        if isinstance(value, np.ndarray) and value.size == 1:
            value = value.reshape(-1)[0]
        if isinstance(value, bytes):
            value = value.decode("ascii", "replace")
        if isinstance(value, (str, int, np.integer)) and not isinstance(value, bool):
            stripped = str(value).strip()
            if stripped and stripped.upper() not in ("NULL", "NONE", "NAN"):
                return stripped
    return ""


def labels_of(source: Any, names: Mapping[str, tuple[str, ...]]) -> dict[str, float]:
    """The survey's own labels under our names, those that hold a value; `names` maps ours to theirs."""
    found = {label: value_of(source, *keys) for label, keys in names.items()}
    return {label: value for label, value in found.items() if value is not None}


def columns_of(hdu: Any) -> dict[str, str]:
    """Lower-case to actual column names of a table HDU; empty for an image."""
    return {str(name).lower(): str(name) for name in hdu.columns.names} if hasattr(hdu, "columns") else {}


def cells(hdu: Any, name: str, row: int | None, where: str) -> np.ndarray:
    """A column as a float64 vector: of one pixel a row (`row` None), or the array in one row.

    Raises `InputError` for anything that is not numbers.
    """
    values = np.asarray(hdu.data[name] if row is None else hdu.data[name][row])
    if values.dtype.kind not in "fiub":
        raise InputError(
            where, f"column {name} of type {values.dtype}", "numbers", "check the file: fetch it again"
        )
    return values.astype(np.float64).reshape(-1)


def pixel_rows(hdu: Any, name: str) -> bool:
    """Whether a table has one pixel a row in this column, rather than one spectrum a row."""
    return np.ndim(hdu.data[name]) == 1


def check_overlap(good: np.ndarray, instrument: Instrument, where: str, max_velocity: float = 500.0) -> None:
    """Raises `InputError` with both ranges when none of the wavelengths `good` [p] (A, of good pixels) lies
    in an arm, at any velocity up to `max_velocity` km/s: before a velocity is measured, which could not say
    why it fails."""
    stretch = max_velocity / SPEED_OF_LIGHT
    for arm in instrument.arms:
        if ((good > arm.low * (1 - stretch)) & (good < arm.high * (1 + stretch))).any():
            return
    arms = ", ".join(f"{arm.low:g}-{arm.high:g}" for arm in instrument.arms)
    raise InputError(
        where,
        f"good pixels in {_ranges(good)} A",
        f"an overlap with {instrument.name} ({arms} A)",
        "choose the instrument that took the spectrum",
    )


def _ranges(wavelength: np.ndarray) -> str:
    """The stretches of an axis, broken where it jumps by 20 A: "15144.7-15808.1, 15858.0-16433.5"."""
    pieces = np.split(wavelength, np.flatnonzero(np.diff(wavelength) > 20.0) + 1)
    shown = ", ".join(f"{piece[0]:.1f}-{piece[-1]:.1f}" for piece in pieces[:6] if len(piece))
    return shown + (" ..." if len(pieces) > 6 else "")
