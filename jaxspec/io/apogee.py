"""APOGEE's spectra: apStar and asStar (combined, at rest), apVisit and asVisit (one visit), aspcapStar
(combined, normalised), of SDSS-III to SDSS-V (data.sdss.org/datamodel; Holtzman et al. 2015, Nidever et al.
2015).

Wavelengths are in vacuum, log-linear by CRVAL1 and CDELT1 (log10 of A) or, of visits, written for each of the
three detectors. HDU 1, 2 and 3 are flux, error and bit mask (of aspcapStar the third is ASPCAP's best fit).

apStar's rows: the combined spectrum with pixel-based weights, the one with global weights, then each visit.
The first is read unless `select` says otherwise. Visits are on the observed (topocentric) axis and come with
their velocity and barycentric correction.
"""

from typing import Any

import numpy as np

from jaxspec.errors import InputError
from jaxspec.io.fitsfile import FitsFile, number, text
from jaxspec.io.parts import Masked, Part, choose, join, labels_of, masked, same_length, text_of, value_of
from jaxspec.io.raw import RawSpectrum

RESOLVING_POWER = 22500.0  # nominal (Wilson et al. 2019); the file's Gauss-Hermite coefficients are not used
# Bits of PIXMASK that APOGEE's own software takes as bad (BADPIX, CRPIX, SATPIX, UNFIXABLE, BADDARK, BADFLAT,
# BADERR, NOSKY, NOT_ENOUGH_PSF), and pixels under a strong sky line (SIG_SKYLINE), whose errors it inflates.
# Persistence, ghosts and corrected telluric lines (bits 8-11 and 13) are used.
BAD_BITS = sum(1 << bit for bit in (0, 1, 2, 3, 4, 5, 6, 7, 12, 14, 16))
NO_ERROR = 1e4  # times the median flux: APOGEE writes errors of 1e10 where there is no value
LABELS = {
    "teff": ("TEFF", "RV_TEFF", "RVTEFF"),
    "logg": ("LOGG", "RV_LOGG", "RVLOGG"),
    "fe_h": ("FE_H", "RV_FEH", "RVFEH"),
    "m_h": ("M_H",),
    "alpha_m": ("ALPHA_M",),
    "e_teff": ("TEFF_ERR",),
    "e_logg": ("LOGG_ERR",),
    "e_fe_h": ("FE_H_ERR",),
    "mg_fe": ("MG_FE",),
    "al_fe": ("AL_FE",),
    "si_fe": ("SI_FE",),
    "ca_fe": ("CA_FE",),
    "ti_fe": ("TI_FE",),
    "ni_fe": ("NI_FE",),
}


def _image(file: FitsFile, index: int) -> np.ndarray | None:
    data = file.hdus[index].data if index < len(file) else None
    return data if isinstance(data, np.ndarray) and data.dtype.names is None else None


def _kind(file: FitsFile) -> str | None:
    flux, error = _image(file, 1), _image(file, 2)
    if flux is None or error is None:
        return None
    bunit = [text(hdu.header, "BUNIT").lower() for hdu in file.hdus]
    if len(file) > 4 and bunit[1].startswith("flux") and bunit[4].startswith("wave") and flux.ndim == 2:
        return "visit"
    header = file.hdus[1].header
    # All combined spectra are on this one grid, log10 of A.
    if abs(_get(header, "CRVAL1") - 4.179) > 1e-4 or abs(_get(header, "CDELT1") - 6e-6) > 1e-9:
        return None
    third = _image(file, 3)
    if third is not None and third.dtype.kind == "i" and "NVISITS" in file.hdus[0].header:
        return "star"
    if (
        third is not None
        and third.dtype.kind == "f"
        and flux.shape == third.shape
        and flux.size == flux.shape[-1]
    ):
        return "aspcap"
    return "star" if bunit[1].startswith("flux") and bunit[2].startswith("err") else None


def _get(header: Any, key: str) -> float:
    value = header.get(key)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else 0.0


def is_apogee(file: FitsFile) -> bool:
    """Whether HDU 1-3 (and 4 of visits) are one of the layouts above, by axis, kind and BUNIT."""
    return _kind(file) is not None


def read_apogee(file: FitsFile, select: str | None = None) -> RawSpectrum:
    """Flux, errors, mask, frame and the pipeline's labels of one APOGEE spectrum.

    Raises: InputError for HDUs of different shapes, a `select` that is not in the file.
    """
    kind = _kind(file)
    notes: list[str] = []
    if kind == "visit":
        raw = _visit(file, select, notes)
    elif kind == "star":
        raw = _star(file, select, notes)
    else:
        raw = _aspcap(file, select, notes)
    header = file.hdus[0].header
    raw.resolving_power = RESOLVING_POWER
    raw.star = raw.star or text_of(header, "OBJID", "OBJ", "APOGEE_ID") or None
    raw.meta = {
        "object": raw.star,
        "instrument": "APOGEE",
        "ra": value_of(header, "RA"),
        "dec": value_of(header, "DEC"),
        "snr": value_of(header, "SNR"),
        "identifiers": {
            key.lower(): header[key]
            for key in (
                "OBJID",
                "SDSS_ID",
                "HEALPIX",
                "FIELD",
                "PLATE",
                "LOCID",
                "MJD5",
                "FIBERID",
                "TELESCOP",
            )
            if key in header and str(header[key]).strip()
        },
        "flags": {
            key.lower(): header[key]
            for key in ("STARFLAG", "ANDFLAG", "APTARG1", "APTARG2", "AP2TARG1", "AP2TARG2", "AP2TARG3")
            if key in header
        },
        "survey_labels": labels_of(header, LABELS),
        "velocity_barycentric": value_of(header, "VHELIO", "VHBARY", "VRAD"),
        **raw.meta,
    }
    return raw


def _log_axis(file: FitsFile, n: int) -> np.ndarray:
    hdu = file.hdus[1]
    where = file.label(hdu)
    start, step = number(hdu.header, "CRVAL1", where), number(hdu.header, "CDELT1", where)
    return 10.0 ** (start + step * (np.arange(1, n + 1) - number(hdu.header, "CRPIX1", where, 1.0)))


def _usable(flux: np.ndarray, error: np.ndarray, bad: np.ndarray | None) -> Masked:
    level = np.nanmedian(np.abs(flux)) if np.isfinite(flux).any() else 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        known = (error > 0) & ((error < NO_ERROR * level) | (level == 0))
        ivar = np.where(known, error, np.nan) ** -2.0
    return masked(flux, ivar, bad)


def _row_names(rows: int, header: Any) -> list[str]:
    visits = int(_get(header, "NVISITS"))
    if rows == 1:
        return ["combined"]
    if rows == visits + 2:
        return ["combined", "combined-global", *(f"visit-{i}" for i in range(1, visits + 1))]
    if rows == visits + 1 and visits > 1:
        return ["combined", *(f"visit-{i}" for i in range(1, visits + 1))]
    return ["combined", *(f"row-{i}" for i in range(2, rows + 1))]


def _star(file: FitsFile, select: str | None, notes: list[str]) -> RawSpectrum:
    header = file.hdus[0].header
    arrays = {
        name: None if data is None else np.atleast_2d(data)
        for name, data in zip(("flux", "error", "mask"), (_image(file, i) for i in (1, 2, 3)), strict=True)
    }
    shapes = {name: data.shape for name, data in arrays.items() if data is not None}
    if len(set(shapes.values())) != 1:
        raise InputError(
            file.where,
            f"HDUs of shapes {shapes}",
            "one shape for flux, error and mask",
            "fetch the file again",
        )
    flux, error, mask = arrays["flux"], arrays["error"], arrays["mask"]
    assert flux is not None and error is not None  # or the file is not of this kind
    filled = [i for i in range(len(flux)) if np.any(np.nan_to_num(flux[i]) != 0)]
    names = _row_names(len(flux), header)
    if not filled:
        raise InputError(file.where, "rows without any flux", "a spectrum", "fetch the file again")
    available = [names[i] for i in filled]
    default = "combined" if "combined" in available else None
    chosen = choose(file.where, available, select, "row", default=default)
    if len(available) > 1 and select is None:
        notes.append(
            f"{chosen} spectrum read; not used: {', '.join(available[1:])} (select={available[1]!r}, ...)"
        )
    row = names.index(chosen)
    if mask is None:
        notes.append("no bit mask in HDU 3: pixels are judged by their errors alone")
    bad = None if mask is None else (mask[row].astype(np.int64) & BAD_BITS) != 0
    flux_row, ivar, quality = _usable(np.asarray(flux[row], float), np.asarray(error[row], float), bad)
    return RawSpectrum(
        product="apogee-star",
        wavelength=_log_axis(file, flux.shape[1]),
        flux=flux_row,
        ivar=ivar,
        quality=quality,
        medium="vacuum",
        frame="rest",
        velocity=0.0,
        meta={"visits": int(_get(header, "NVISITS")) or None},
        notes=notes,
        selected=chosen if select is not None and len(available) > 1 else None,
    )


def _visit(file: FitsFile, select: str | None, notes: list[str]) -> RawSpectrum:
    header = file.hdus[0].header
    choose(file.where, ["visit"], select, "spectrum")
    flux, error, mask, wavelength = (_image(file, i) for i in (1, 2, 3, 4))
    if flux is None or error is None or mask is None or wavelength is None:
        raise InputError(
            file.where, "HDUs 1-4 that are not all images", "flux, error, mask, wavelength", "fetch it again"
        )
    parts = []
    for chip in range(len(flux)):
        name = ("red", "green", "blue")[chip] if len(flux) == 3 else f"detector {chip + 1}"
        arrays = dict(flux=flux[chip], error=error[chip], mask=mask[chip], wavelength=wavelength[chip])
        same_length(f"{file.where} {name}", **arrays)
        order = slice(None, None, -1) if wavelength[chip][0] > wavelength[chip][-1] else slice(None)
        flux_c, error_c, mask_c, wave_c = (np.asarray(values)[order] for values in arrays.values())
        bad = (mask_c.astype(np.int64) & BAD_BITS) != 0
        values = _usable(flux_c.astype(float), error_c.astype(float), bad)
        parts.append(Part(name, wave_c.astype(float), *values))
    joined = join(parts, notes)
    velocity, correction = value_of(header, "VRAD", "VREL"), value_of(header, "BC")
    return RawSpectrum(
        product="apogee-visit",
        wavelength=joined.wavelength,
        flux=joined.flux,
        ivar=joined.ivar,
        quality=joined.quality,
        medium="vacuum",
        frame="topocentric",
        velocity=velocity,
        velocity_error=value_of(header, "VRADERR", "VRELERR"),
        barycentric_correction=correction,
        meta={"date": text(header, "DATE-OBS")},
        notes=notes,
    )


def _aspcap(file: FitsFile, select: str | None, notes: list[str]) -> RawSpectrum:
    choose(file.where, ["combined"], select, "spectrum")
    flux, error = (np.asarray(_image(file, i), float).reshape(-1) for i in (1, 2))
    same_length(file.where, flux=flux, error=error)
    row: Any = next((hdu.data[0] for hdu in file.hdus[1:] if hasattr(hdu, "columns") and len(hdu.data)), {})
    values = _usable(flux, error, None)
    notes.append("normalised by ASPCAP; the third HDU, its best fit, is not used")
    flags = {key.lower(): text_of(row, key) for key in ("ASPCAPFLAG", "STARFLAG", "ANDFLAG", "ELEMFLAG")}
    labels = labels_of(row, LABELS)
    parameters = _vector(row, "PARAM", "FPARAM")
    for name, index in (("teff", 0), ("logg", 1), ("m_h", 3)):
        if name not in labels and index < len(parameters) and parameters[index] > -900:
            labels[name] = float(parameters[index])
    meta: dict[str, Any] = {"survey_labels": labels, "flags": {k: v for k, v in flags.items() if v}}
    for key, names in (
        ("ra", ("RA",)),
        ("dec", ("DEC",)),
        ("snr", ("SNR",)),
        ("velocity_barycentric", ("VHELIO_AVG",)),
    ):
        if (value := value_of(row, *names)) is not None:
            meta[key] = value
    return RawSpectrum(
        product="apogee-aspcap",
        wavelength=_log_axis(file, len(flux)),
        flux=values[0],
        ivar=values[1],
        quality=values[2],
        medium="vacuum",
        frame="rest",
        velocity=0.0,
        star=text_of(row, "APOGEE_ID") or None,
        meta=meta,
        notes=notes,
    )


def _vector(row: Any, *keys: str) -> np.ndarray:
    for key in keys:
        try:
            return np.asarray(row[key], float).reshape(-1)
        except (KeyError, ValueError, TypeError):
            continue
    return np.zeros(0)
