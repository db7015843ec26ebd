"""The wavelength axis of a 1-D image from its header.

Linear and logarithmic axes of FITS Paper III (Greisen et al. 2006, A&A 446, 747: `AWAV`, `WAVE`, `-LOG`) and
of IRAF (`LINEAR`, `LOG-LINEAR`, `DC-FLAG`, units in `WAT1_001`).
"""

import re
from dataclasses import dataclass

import numpy as np
from astropy.io import fits

from jaxspec.errors import InputError
from jaxspec.io.fitsfile import number, text

ANGSTROM = {
    "angstrom": 1.0,
    "angstroms": 1.0,
    "a": 1.0,
    "0.1nm": 1.0,
    "nm": 10.0,
    "nanometer": 10.0,
    "nanometers": 10.0,
    "nanometre": 10.0,
    "um": 1e4,
    "micron": 1e4,
    "microns": 1e4,
    "m": 1e10,
}


@dataclass(frozen=True)
class Axis:
    """wavelength [p] in A as the file gives it; medium "air", "vacuum" or None when the header does not
    say."""

    wavelength: np.ndarray
    medium: str | None
    notes: tuple[str, ...]


def to_angstrom(unit: str, where: str) -> float:
    """Factor from a unit's name to Angstrom; raises `InputError` for a unit that is none of a
    wavelength's."""
    key = unit.strip().lower().replace(" ", "")
    if key not in ANGSTROM:
        raise InputError(
            where, f"wavelength unit {unit!r}", "Angstrom, nm, um or m", "correct the header or give unit="
        )
    return ANGSTROM[key]


def axis_from_header(header: fits.Header, n: int, where: str, unit: str | None = None) -> Axis:
    """Wavelengths of `n` pixels. `unit` overrides a missing unit (an explicit one in the header is kept and
    must agree).

    A header without any unit is read as Angstrom, which IRAF's own convention is, and the note says so;
    `check_wavelength` refuses it afterwards unless the axis then falls inside 2000-30000 A.
    """
    ctype = text(header, "CTYPE1").upper()
    kind = re.sub(r"[^A-Z].*", "", ctype)
    medium = _medium(header, ctype, kind, where)
    log = (
        ctype.endswith("-LOG")
        or ctype in ("LOG-LINEAR", "LOGLINEAR")
        or number(header, "DC-FLAG", where, 0.0) == 1.0
    )
    if kind not in (
        "",
        "AWAV",
        "WAVE",
        "LINEAR",
        "LAMBDA",
        "WAVELENGTH",
        "LOG",
        "LOGLINEAR",
        "AIR",
        "VAC",
        "VACUUM",
        "ANGSTROM",
        "PIXEL",
    ):
        raise InputError(
            where,
            f"CTYPE1 = {ctype!r}",
            "a wavelength axis (AWAV, WAVE, LINEAR, LOG-LINEAR)",
            "correct the header",
        )
    if kind == "PIXEL":
        raise InputError(
            where, "an axis in pixels", "a wavelength-calibrated spectrum", "calibrate the spectrum first"
        )
    start = number(header, "CRVAL1", where)
    pixel = number(header, "CRPIX1", where)
    steps = {key: number(header, key, where) for key in ("CDELT1", "CD1_1") if key in header}
    if not steps:
        raise InputError(
            where, "neither CDELT1 nor CD1_1", "a step of the wavelength axis", "add it to the header"
        )
    step = next(iter(steps.values()))
    if any(abs(other - step) > 1e-9 * abs(step) for other in steps.values()):
        raise InputError(
            where,
            f"CDELT1 = {steps['CDELT1']!r} but CD1_1 = {steps['CD1_1']!r}",
            "the same step in both",
            "correct the header",
        )
    if step <= 0:
        raise InputError(
            where, f"wavelength step {step!r}", "a positive step", "flip the spectrum or correct the header"
        )
    offset = np.arange(1, n + 1) - pixel
    notes: list[str] = []
    if log and ctype.endswith("-LOG"):
        values = start * np.exp(np.minimum(offset * step / start, 50.0)) if start > 0 else np.full(n, np.nan)
    elif log:
        values = 10.0 ** np.clip(start + offset * step, -300.0, 300.0)
    else:
        values = start + offset * step
    stated = _unit(header)
    if stated and unit and to_angstrom(stated, where) != to_angstrom(unit, where):
        raise InputError(
            where, f"unit {stated!r} in the header and unit={unit!r}", "one of them", "drop the argument"
        )
    if not (stated or unit):
        notes.append("no wavelength unit in the header: read as Angstrom")
    return Axis(values * to_angstrom(stated or unit or "Angstrom", where), medium, tuple(notes))


def _unit(header: fits.Header) -> str:
    unit = text(header, "CUNIT1")
    if not unit:
        found = re.search(r"units\s*=\s*\"?([A-Za-z0-9.]+)", text(header, "WAT1_001"))
        unit = found.group(1) if found else ""
    return unit


def _medium(header: fits.Header, ctype: str, kind: str, where: str) -> str | None:
    said = set()
    if kind == "AWAV" or ctype.startswith("AIR"):
        said.add("air")
    if kind in ("WAVE", "VAC", "VACUUM"):
        said.add("vacuum")
    other = text(header, "AIRORVAC").lower()
    if other.startswith("air"):
        said.add("air")
    elif other.startswith("vac"):
        said.add("vacuum")
    if len(said) > 1:
        raise InputError(
            where,
            f"CTYPE1 = {ctype!r} and AIRORVAC = {other!r}",
            "one medium",
            "correct the header or give medium=",
        )
    return said.pop() if said else None
