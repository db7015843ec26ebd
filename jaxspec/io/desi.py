"""DESI's coadd and spectra files (desidatamodel.readthedocs.io; Guy et al. 2023, AJ 165, 144): many targets
in one file, three arms (b, r, z) each with wavelengths, flux, inverse variance, mask and resolution matrix.

Wavelengths are in vacuum and barycentric, in A, in steps of 0.8 A that the arms share. Every bit of the mask
is a bad pixel. Column j of the resolution matrix (stored by its diagonals) is what light at pixel j is spread
into; its second moment gives the sigma of the line-spread function at each pixel.
"""

from typing import Any

import numpy as np

from jaxspec.errors import InputError
from jaxspec.io.fitsfile import FitsFile, text
from jaxspec.io.parts import (
    FWHM,
    Part,
    choose,
    columns_of,
    join,
    labels_of,
    masked,
    same_length,
    text_of,
    value_of,
)
from jaxspec.io.raw import RawSpectrum
from jaxspec.io.wcs import to_angstrom

ARMS = ("B", "R", "Z", "BRZ")
LABELS = {
    "teff": ("TEFF",),
    "e_teff": ("TEFF_ERR",),
    "logg": ("LOGG",),
    "e_logg": ("LOGG_ERR",),
    "fe_h": ("FEH",),
    "e_fe_h": ("FEH_ERR",),
    "alpha_fe": ("ALPHAFE",),
}


def is_desi(file: FitsFile) -> bool:
    """Whether any arm's flux and inverse variance are there."""
    return any(file.find(f"{arm}_FLUX") is not None and file.find(f"{arm}_IVAR") is not None for arm in ARMS)


def read_desi(file: FitsFile, select: str | None = None) -> RawSpectrum:
    """The spectrum of one target, its arms joined; `select` is the TARGETID (with "-EXPID" of a file of
    single exposures).

    The velocity is VRAD of a table RVTAB in the same file, if there is one. Raises: InputError for arms of
    different numbers of targets, or without wavelengths, and for several targets without `select`.
    """
    notes: list[str] = []
    arms = [arm for arm in ARMS if file.find(f"{arm}_FLUX") is not None]
    counts = {arm: len(_image(file, f"{arm}_FLUX", 2)) for arm in arms}
    fibermap = file.find("FIBERMAP")
    names = _targets(file, fibermap, next(iter(counts.values())))
    if set(counts.values()) != {len(names)}:
        raise InputError(
            file.where,
            f"{len(names)} rows in FIBERMAP, spectra: {counts}",
            "as many in each arm",
            "the file is damaged: fetch it again",
        )
    stars = [name for name, kind in names if kind in ("", "TGT")]
    if skies := len(names) - len(stars):
        notes.append(f"{skies} fibres that are on no target (OBJTYPE) left out")
    if not stars:
        raise InputError(
            file.where, "no fibre on a target", "OBJTYPE = TGT in FIBERMAP", "choose another file"
        )
    chosen = choose(file.where, stars, select, "target (TARGETID)")
    row = [name for name, _ in names].index(chosen)
    joined = join([_arm(file, arm, row) for arm in arms], notes)
    missing = [arm for arm in ("B", "R", "Z") if arm not in arms and "BRZ" not in arms]
    if missing:
        notes.append(f"arm {', '.join(missing).lower()} is not in the file")
    fibre = fibermap.data[row] if fibermap is not None else {}
    target = text_of(fibre, "TARGETID")
    fit = _row_of(file, "RVTAB", target)
    velocity = value_of(fit, "VRAD")
    return RawSpectrum(
        product="desi",
        wavelength=joined.wavelength,
        flux=joined.flux,
        ivar=joined.ivar,
        quality=joined.quality,
        lsf=joined.lsf,
        medium="vacuum",
        frame="barycentric",
        velocity=velocity,
        velocity_error=value_of(fit, "VRAD_ERR") if velocity is not None else None,
        resolving_power=_median_power(joined),
        star=f"DESI {target}" if target else None,
        meta={
            "object": target,
            "instrument": "DESI",
            "ra": value_of(fibre, "TARGET_RA", "FIBER_RA"),
            "dec": value_of(fibre, "TARGET_DEC", "FIBER_DEC"),
            "identifiers": {
                key.lower(): text_of(fibre, key)
                for key in ("TARGETID", "REF_ID", "EXPID", "TILEID", "FIBER", "NIGHT")
                if text_of(fibre, key)
            },
            "flags": {
                key.lower(): value
                for source, keys in (
                    (fibre, ("COADD_FIBERSTATUS", "FIBERSTATUS", "COADD_NUMEXP")),
                    (fit, ("RVS_WARN", "ZWARN")),
                )
                for key in keys
                if (value := value_of(source, key)) is not None
            },
            "survey_labels": labels_of(fit, LABELS),
        },
        notes=notes,
        selected=chosen if len(stars) > 1 else None,
    )


def _median_power(part: Part) -> float | None:
    lsf = np.zeros(0) if part.lsf is None else part.lsf
    good = np.isfinite(lsf) & (lsf > 0)
    return float(np.median(part.wavelength[good] / lsf[good]) / FWHM) if good.any() else None


def _image(file: FitsFile, name: str, ndim: int) -> np.ndarray:
    hdu = file.find(name)
    data = None if hdu is None else hdu.data
    if not isinstance(data, np.ndarray) or data.dtype.names is not None or data.ndim not in (1, ndim):
        raise InputError(
            file.where, f"no image {name}", f"{name} of {ndim} axes", "the file is incomplete: fetch it again"
        )
    return np.atleast_2d(data) if ndim == 2 else data


def _targets(file: FitsFile, fibermap: Any | None, n: int) -> list[tuple[str, str]]:
    """Name and OBJTYPE of each row; row numbers without FIBERMAP."""
    if fibermap is None or "targetid" not in columns_of(fibermap):
        return [(f"row-{i + 1}", "") for i in range(n)]
    data, columns = fibermap.data, columns_of(fibermap)
    names = [str(int(value)) for value in data[columns["targetid"]]]
    if len(set(names)) < len(names) and "expid" in columns:
        names = [f"{name}-{int(value)}" for name, value in zip(names, data[columns["expid"]], strict=True)]
    if len(set(names)) < len(names):
        names = [f"{name}-row{i + 1}" if names.count(name) > 1 else name for i, name in enumerate(names)]
    kinds = (
        [str(v).strip().upper() for v in data[columns["objtype"]]]
        if "objtype" in columns
        else [""] * len(names)
    )
    return list(zip(names, kinds, strict=True))


def _arm(file: FitsFile, arm: str, row: int) -> Part:
    where = f"{file.where}[{arm}]"
    wavelength = np.asarray(_image(file, f"{arm}_WAVELENGTH", 1), np.float64)
    header = getattr(file.find(f"{arm}_WAVELENGTH"), "header", {})
    wavelength = wavelength * to_angstrom(text(header, "BUNIT") or "Angstrom", where)
    flux = np.asarray(_image(file, f"{arm}_FLUX", 2)[row], np.float64)
    ivar = np.asarray(_image(file, f"{arm}_IVAR", 2)[row], np.float64)
    bad = np.zeros(len(flux), bool)
    if file.find(f"{arm}_MASK") is not None:
        bad = _image(file, f"{arm}_MASK", 2)[row] != 0
    same_length(where, wavelength=wavelength, flux=flux, ivar=ivar, mask=bad)
    lsf = None
    resolution = file.find(f"{arm}_RESOLUTION")
    if resolution is not None:
        matrix = np.asarray(resolution.data)
        sigma = matrix_sigma(matrix[row] if matrix.ndim == 3 else matrix, where, len(flux))
        lsf = sigma * np.gradient(wavelength)
    return Part(arm.lower(), wavelength, *masked(flux, ivar, bad), lsf)


def matrix_sigma(diagonals: np.ndarray, where: str, n: int) -> np.ndarray:
    """Sigma in pixels of each column of a resolution matrix given by its diagonals `[d, n]`, from the
    uppermost (+d//2) to the lowest; NaN where a column is empty.

    Element j of the diagonal of offset k lies in row j - k and column j. The first d//2 and the last columns
    are cut off by the edge of the matrix and take the sigma of the nearest whole one.
    """
    if diagonals.ndim != 2 or diagonals.shape[1] != n:
        raise InputError(
            where,
            f"a resolution matrix of shape {diagonals.shape}",
            f"(diagonals, {n})",
            "fetch the file again",
        )
    half = diagonals.shape[0] // 2
    offset = np.arange(half, half - diagonals.shape[0], -1)[:, None].astype(np.float64)
    weight = np.asarray(diagonals, np.float64)
    total = weight.sum(0)
    safe = np.where(total > 0, total, 1.0)
    mean = (weight * offset).sum(0) / safe
    variance = (weight * (offset - mean) ** 2).sum(0) / safe
    good = (total > 0.1) & (variance > 0)
    good[:half] = good[n - half :] = False
    if not good.any():
        return np.full(n, np.nan)
    return np.interp(np.arange(n), np.flatnonzero(good), np.sqrt(variance[good]))


def _row_of(file: FitsFile, table: str, target: str) -> Any:
    hdu = file.find(table)
    if hdu is None or "targetid" not in columns_of(hdu):
        return {}
    match = np.flatnonzero(np.asarray(hdu.data[columns_of(hdu)["targetid"]]).astype(str) == target)
    return hdu.data[match[0]] if len(match) == 1 else {}
