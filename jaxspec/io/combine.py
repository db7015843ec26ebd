"""Spectra of one star as one row: several arms, several epochs.

A name alone does not make two spectra one star's. Rows are merged where nothing contradicts it: neither their
positions, nor their velocities, nor a name that many stars share, such as UNKNOWN or that of a cluster.
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import astropy.units as u
import numpy as np
from astropy.coordinates import Angle
from astropy.io import fits
from jaxtyping import Float, Int

log = logging.getLogger(__name__)

APART = 10.0  # arcsec: beyond pointing errors and most proper motions, below the distance of two fibres
SPEED_APART = 10.0  # km/s, of velocities about the barycentre
ANNUAL = 61.0  # km/s: largest change of a topocentric velocity within a year
NIGHT = 0.5  # days, within which a topocentric velocity is as good as a barycentric one
# Names that many stars share, in capitals without blanks, dashes and dots.
NO_NAME = re.compile(
    r"|(UN)?(KNOWN|DEFINED|NAMED|SET|IDENTIFIED|ASSIGNED|CLASSIFIED)|UNDEF|NO(NE|NAME|TSET|OBJECT|TARGET)?|"
    r"N/?A|NAN|NULL|TBD|X+|0+|ANONYMOUS|DEFAULT|TEST|DUMMY|BLANK|EMPTY|(THE)?SKY\d*|BACKGROUND|SIMCAL|LAMP|FLAT|"
    r"(SCIENCE|SCI)?(OBJECTS?|OBJ|TARGETS?|STARS?|SOURCES?|SPECTR(UM|A)|SPEC|SCIENCE|SCI)\d*|"
    r"STD|STANDARDS?|FLUXSTD|CALIB(RATION)?|GUIDE|(FIELD|FLD|PLATE|FIB(ER|RE)?|SLIT|BLOCK|OB)[A-Z]?\d*|"
    # clusters and fields
    r"(NGC|IC|M|MESSIER|MEL(OTTE)?|BE(RKELEY)?|BR?KLE?Y|TR(UMPLER)?|CR|COL(LINDER)?|PAL(OMAR)?|TERZAN|TER|"
    r"RUP(RECHT)?|PISMIS|HAFFNER|CZERNIK|KING|STOCK|TOMBAUGH|BLANCO|BOCHUM|LYNGA|DOLIDZE|ESO)\d+[A-Z]?|"
    r"47TUC(ANAE)?|OMEGA?CEN(TAURI)?|HYADES|PLEIADES|PRAESEPE|RHOOPH|CHAI?|GAMMA2?VEL|"
    r"(GALACTIC)?(BULGE|DISC|DISK|HALO)\d*|BAADE'?SWINDOW|[LS]MC|COROT|KEPLER|K2"
)
RIGHT_ASCENSION = ("RA", "RA_TARG", "RA_OBJ", "OBJRA", "PLUG_RA", "RAJ2000", "RA_OBS")
DECLINATION = ("DEC", "DEC_TARG", "DEC_OBJ", "OBJDEC", "PLUG_DEC", "DEJ2000", "DEC_OBS")


@dataclass(frozen=True)
class GridSpectrum:
    """One spectrum on an instrument's grid, at rest: `flux, ivar [p]` (median flux 1 in each arm), `quality
    [p]`."""

    name: str
    star: str
    flux: Float[np.ndarray, " p"]
    ivar: Float[np.ndarray, " p"]
    quality: Int[np.ndarray, " p"]
    meta: dict[str, Any]


def header_position(header: fits.Header) -> tuple[float, float] | None:
    """Right ascension and declination [deg] that a header states in numbers (degrees) or sexagesimal text
    (hours, degrees); None where it does not, or not as coordinates."""
    for ra_key, dec_key in zip(RIGHT_ASCENSION, DECLINATION, strict=True):
        if ra_key in header and dec_key in header:
            ra, dec = _degrees(header[ra_key], u.hourangle), _degrees(header[dec_key], u.deg)
            if ra is not None and dec is not None and 0.0 <= ra <= 360.0 and abs(dec) <= 90.0:
                return None if ra == dec == 0.0 else (ra, dec)
    return None


def _degrees(value: Any, unit: u.UnitBase) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        try:
            return float(Angle(str(value), unit).to_value(u.deg))
        except (ValueError, u.UnitsError):
            return None
    return number if np.isfinite(number) else None


def combine_stars(rows: Sequence[GridSpectrum], snr_max: float | None = None) -> list[GridSpectrum]:
    """Merge rows of the same star: each arm from the file that has it, the ivar-weighted mean where several
    do. A spectrum that comes twice counts once.

    The row is named after the star; its meta is the first file's, with all paths in `meta["paths"]`. Rows
    that share a name and contradict each other are kept apart, under their files' names, and the log says
    why. Errors of the mean are raised to `1 / snr_max` as those of single spectra are.
    """
    groups: dict[str, list[GridSpectrum]] = {}
    for row in rows:
        groups.setdefault(row.star, []).append(row)
    merged = []
    for star, group in groups.items():
        clusters: list[list[GridSpectrum]] = []
        why: list[str] = []
        for row in group:
            for cluster in clusters:
                reason = next((r for member in cluster if (r := contradiction(member, row))), None)
                if reason is None:
                    cluster.append(row)
                    break
                why.append(reason)
            else:
                clusters.append([row])
        if len(clusters) > 1:
            log.warning("%r: %d spectra kept apart as %d stars: %s", star, len(group), len(clusters), why[0])
        for cluster in clusters:
            result = _merge(star, cluster, snr_max)
            if len(clusters) > 1:
                note = f"not combined with others named {star!r}: {why[0]}"
                notes = [*result.meta.get("notes", ()), note]
                result = replace(result, name=cluster[0].name, meta={**result.meta, "notes": notes})
            merged.append(result)
    names = [row.name for row in merged]
    return [replace(r, name=str(r.meta["path"])) if names.count(r.name) > 1 else r for r in merged]


def contradiction(a: GridSpectrum, b: GridSpectrum) -> str | None:
    """Why two rows of one name are not known to be one star's; None where nothing contradicts it."""
    both = f"{a.meta['path']} and {b.meta['path']}"
    if _same(a, b):
        return None
    place, other = a.meta.get("position"), b.meta.get("position")
    known = place is not None and other is not None
    if place is not None and other is not None and (distance := _distance(place, other)) > APART:
        return f"{both} are {distance:.3g} arcsec apart"
    if not known and names_no_star(a.star):
        return f"{both}: {a.star!r} is the name of no single star, and no positions tell"
    speed, other_speed = (row.meta.get("velocity") for row in (a, b))
    if speed is None or other_speed is None or "rest" in (a.meta.get("frame"), b.meta.get("frame")):
        return None
    errors = [row.meta.get("velocity_error") or 0.0 for row in (a, b)]
    frames = {a.meta.get("frame"), b.meta.get("frame")}
    steady = frames == {"barycentric"} or _same_night(a, b)
    limit = (SPEED_APART if steady else ANNUAL) + 5.0 * float(np.hypot(errors[0], errors[1]))
    difference = abs(speed - other_speed)
    if difference > limit:
        return f"{both} differ by {difference:.1f} km/s in velocity"
    return None


def names_no_star(name: str) -> bool:
    """Whether a name is a placeholder, or that of a field or cluster."""
    word = re.sub(r"(?<=\d)[\s_.\-]+(?=\d)", "/", name.upper())  # NGC 6705 1234 is a star in NGC 6705
    return NO_NAME.fullmatch(re.sub(r"[\s_.\-]", "", word)) is not None


def _same(a: GridSpectrum, b: GridSpectrum) -> bool:
    """Whether two rows are one spectrum under two names."""
    return np.array_equal(a.flux, b.flux) and np.array_equal(a.ivar, b.ivar)


def _distance(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Angle between two positions, arcsec."""
    (ra, dec), (ra_b, dec_b) = np.radians(a), np.radians(b)
    x = np.sin(0.5 * (dec - dec_b)) ** 2 + np.cos(dec) * np.cos(dec_b) * np.sin(0.5 * (ra - ra_b)) ** 2
    return float(np.degrees(2.0 * np.arcsin(np.sqrt(x))) * 3600.0)


def _same_night(a: GridSpectrum, b: GridSpectrum) -> bool:
    try:
        dates = [datetime.fromisoformat(str(row.meta.get("date"))[:19]) for row in (a, b)]
    except ValueError:
        return False
    return abs((dates[0] - dates[1]).total_seconds()) < NIGHT * 86400.0


def _merge(star: str, group: list[GridSpectrum], snr_max: float | None) -> GridSpectrum:
    different: list[GridSpectrum] = []
    for row in group:
        twin = next((other for other in different if _same(other, row)), None)
        if twin is None:
            different.append(row)
        else:
            log.warning("%s: the same spectrum as %s; counted once", row.meta["path"], twin.meta["path"])
    flux, ivar = np.stack([r.flux for r in different]), np.stack([r.ivar for r in different])
    total = ivar.sum(0)
    good = total > 0
    mean = np.where(good, (flux * ivar).sum(0) / np.where(good, total, 1.0), 0.0)
    quality = np.bitwise_or.reduce(np.stack([np.where(r.ivar > 0, r.quality, 0) for r in different]), axis=0)
    every = np.bitwise_and.reduce(np.stack([r.quality for r in different]), axis=0)
    quality = np.asarray(np.where(good, quality, every), np.int32)
    raised = dict(different[0].meta.get("errors_raised", {}))
    for row in different[1:]:
        for arm, factor in row.meta.get("errors_raised", {}).items():
            raised[arm] = max(factor, raised.get(arm, 1.0))
    if snr_max is not None and len(different) > 1:
        snr = np.median(mean[good] * np.sqrt(total[good]))
        if snr > snr_max:
            total = total * (snr_max / snr) ** 2
            arms = dict.fromkeys(a for r in different for a in r.meta["arms"])
            raised = {arm: raised.get(arm, 1.0) * float(snr / snr_max) for arm in arms}
    meta = {
        **different[0].meta,
        "paths": tuple(r.meta["path"] for r in group),
        "arms": tuple(dict.fromkeys(a for r in different for a in r.meta["arms"])),
        "snr": float(np.median(mean[good] * np.sqrt(total[good]))),
        "errors_raised": raised,
    }
    return GridSpectrum(star, star, mean, total, quality, meta)
