"""1-D image spectra: flux in the primary (or first) image with a linear or logarithmic axis; errors, if any,
in an extension.

Covers the Gaia benchmark star library (iSpec: nm, `SIGMA` extension), MIKE and other IRAF products, HARPS and
UVES 1-D files. These headers state neither a velocity frame nor, often, air or vacuum.
"""

from typing import Any

import numpy as np

from jaxspec.errors import InputError
from jaxspec.io.fitsfile import FitsFile, number, spectral_frame, text
from jaxspec.io.quality import Quality
from jaxspec.io.raw import RawSpectrum, ivar_from_sigma
from jaxspec.io.wcs import axis_from_header

SIGMA = ("sigma", "err", "error", "errors", "errs", "stdev", "uncertainty", "noise")
VARIANCE = ("variance", "var", "stat")
IVAR = ("ivar", "inverse_variance")
MASK = ("mask", "qual", "quality", "dq")


def read_image(file: FitsFile, unit: str | None = None) -> RawSpectrum:
    """Flux and, where an extension has them, errors of a 1-D image spectrum.

    Raises `InputError` for no image or a 2-D one, an axis without start, step or reference pixel, and an
    error extension whose length or axis differs from the flux's.
    """
    images = [
        hdu
        for hdu in file.hdus
        if isinstance(getattr(hdu, "data", None), np.ndarray) and hdu.data.dtype.names is None
    ]
    if not images:
        raise InputError(
            file.where,
            "no image and no table that is known",
            "a spectrum in one of the supported layouts",
            "convert it to a table with Phase 3 column names or to three-column text",
        )
    flux_hdu = images[0]
    label = file.label(flux_hdu)
    header = flux_hdu.header
    flux = file.vector(flux_hdu)
    axis = axis_from_header(header, len(flux), label, unit)
    quality = np.zeros(len(flux), np.int32)
    notes = list(axis.notes)
    if file.edited:
        notes.append(
            f"header edited after its CHECKSUM was written: {', '.join(file.edited)} (data sums are right)"
        )
    ivar = None
    for hdu in images[1:]:
        name = text(hdu.header, "EXTNAME").lower()
        if name not in SIGMA + VARIANCE + IVAR + MASK:
            notes.append(f"extension {name or 'without name'} not used")
            continue
        values = _like(hdu, len(flux), axis.wavelength, file, unit)
        if name in MASK:
            quality[values != 0] |= Quality.FLAGGED
        elif ivar is not None:
            raise InputError(file.label(hdu), "a second error extension", "one", "remove one of them")
        elif name in SIGMA:
            ivar = ivar_from_sigma(values, quality, file.label(hdu))
        elif name in VARIANCE:
            if (values < 0).any():
                raise InputError(
                    file.label(hdu),
                    f"variance {values.min():.3g}",
                    "variances that are not negative",
                    "repair the array",
                )
            ivar = ivar_from_sigma(np.sqrt(values), quality, file.label(hdu))
        else:
            ivar = values
    correction = next(
        (
            float(header[k])
            for k in header
            if k.split(" ")[-1] in ("BARYCORR", "BERV")
            and isinstance(header[k], (int, float))
            and not isinstance(header[k], bool)
        ),
        None,
    )
    frame = spectral_frame(header, label)
    resolving_power = number(header, "SPEC_RES", label, 0.0)
    doppler = [str(header[k]).strip() for k in header if k.startswith("DOPCOR")]
    if doppler:
        # IRAF's record of shifts already applied; it names neither the frame before nor the one after.
        notes.append(
            f"Doppler corrections recorded by IRAF ({'; '.join(doppler)}), resulting frame not stated"
        )
    meta: dict[str, Any] = {
        "object": text(header, "OBJECT"),
        "instrument": text(header, "INSTRUME"),
        "date": text(header, "DATE-OBS") or text(header, "UT-DATE"),
        "origin": text(header, "ORIGIN"),
    }
    return RawSpectrum(
        product="image",
        wavelength=axis.wavelength,
        flux=flux,
        ivar=ivar,
        quality=quality,
        medium=axis.medium,
        frame=frame,
        velocity=0.0 if frame == "rest" else None,
        barycentric_correction=correction,
        resolving_power=resolving_power or None,
        star=text(header, "OBJECT") or None,
        meta=meta,
        notes=notes,
    )


def _like(hdu: Any, n: int, wavelength: np.ndarray, file: FitsFile, unit: str | None) -> np.ndarray:
    """Values of an extension that must lie on the flux's axis (when it states one at all)."""
    label = file.label(hdu)
    values = file.vector(hdu, integers=text(hdu.header, "EXTNAME").lower() in MASK)
    if len(values) != n:
        raise InputError(
            label, f"{len(values)} pixels", f"{n}, as the flux has", "the file is damaged: fetch it again"
        )
    if "CRVAL1" in hdu.header:
        other = axis_from_header(hdu.header, n, label, unit).wavelength
        if np.abs(other - wavelength).max() > 1e-4:
            raise InputError(
                label,
                f"an axis {other[0]:.4f}-{other[-1]:.4f} A",
                f"that of the flux, {wavelength[0]:.4f}-{wavelength[-1]:.4f} A",
                "one of the headers is damaged: fetch the file again",
            )
    return values
