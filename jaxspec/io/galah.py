"""GALAH's spectra (HERMES at the Anglo-Australian Telescope): one file for each of the four detectors of a
star (releases 2 to 4; docs.datacentral.org.au/galah, Kos et al. 2017, Buder et al. 2021, 2025).

- Releases 2 and 3: the primary image is the sky-subtracted flux; `input_sigma` its *relative* error; then
  come the flux and error before sky subtraction and the normalised flux, which are not used.
- Release 4 (extensions by number): 0 flux, 1 normalised flux, 2 relative error, 3 sky, 4 telluric absorption,
  7 full width of the line-spread function in A.

Wavelengths are linear by CRVAL1 and CDELT1, in air, and barycentric. The four files of a star are one row
with `combine=True`.
"""

import re
from pathlib import Path

import numpy as np

from jaxspec.errors import InputError
from jaxspec.io.fitsfile import FitsFile, text
from jaxspec.io.parts import FWHM, choose, masked, same_length, text_of, value_of
from jaxspec.io.raw import RawSpectrum
from jaxspec.io.wcs import axis_from_header

NORMAL, HIGH = 28000.0, 42000.0  # nominal resolving powers; the second with the slit mask
PLAUSIBLE = (5e3, 1.2e5)  # of a resolving power by the file's own profile
SIGMA, FLUX = ("input_sigma",), ("input_spectrum", "input_flux")


def is_galah(file: FitsFile) -> bool:
    """Whether the header says GALAH or HERMES, or has the pipeline's keywords, or `input_sigma` is there."""
    header = file.hdus[0].header
    said = " ".join(text(header, key) for key in ("ORIGIN", "SURVEY", "INSTRUME")).upper()
    ours = "GALAH" in said or "HERMES" in said or ("RVCOM" in header and "WAV_OK" in header)
    data = file.hdus[0].data
    return (
        (ours or file.find(*SIGMA) is not None)
        and isinstance(data, np.ndarray)
        and data.ndim == 1
        and len(file) > 2
    )


def read_galah(file: FitsFile, select: str | None = None) -> RawSpectrum:
    """Flux, relative error made absolute, and the pipeline's velocity (RVCOM) of one detector.

    Raises: InputError for extensions of other lengths or without errors.
    """
    choose(file.where, ["primary"], select, "spectrum")
    primary, header, where = file.hdus[0], file.hdus[0].header, f"{file.where}[PRIMARY]"
    flux = file.vector(primary)
    notes: list[str] = []
    named = file.find(*SIGMA)
    layout = "3" if named is not None else "4"
    sigma_hdu = named if named is not None else _release_4(file)
    if sigma_hdu is None:
        raise InputError(
            file.where,
            f"{len(file)} extensions: {', '.join(text(hdu.header, 'EXTNAME') or '-' for hdu in file.hdus)}",
            "relative errors: input_sigma (releases 2, 3) or extension 2 (release 4)",
            "fetch the complete file",
        )
    relative = file.vector(sigma_hdu)
    same_length(file.label(sigma_hdu), flux=flux, error=relative)
    good = np.isfinite(flux) & np.isfinite(relative) & (relative > 0) & (flux > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        if good.any() and np.median(relative[good]) > 1.0:
            # A median S/N below 1 in every pixel: these are errors in counts, as early files of the format
            # have.
            notes.append("errors above 1 taken as counts, not as relative to the flux")
            ivar = np.where(relative > 0, relative, np.nan) ** -2.0
        else:
            notes.append("relative errors multiplied by the flux")
            # At a deep line's bottom the relative error is that of few counts; below zero there is none.
            ivar = np.where((relative > 0) & (flux > 0), relative * flux, np.nan) ** -2.0
    values = masked(flux, ivar)
    axis = axis_from_header(header, len(flux), where)
    medium = axis.medium or "air"
    if axis.medium is None:
        notes.append("air, as all GALAH spectra are")
    lsf = _profile(file, axis.wavelength) if layout == "4" else None
    high = text(header, "SLITMASK").upper() == "IN"
    for key, problem in (
        ("WAV_OK", "wavelength solution"),
        ("CROSS_OK", "cross-talk"),
        ("RV_OK", "radial velocity"),
    ):
        if key in header and value_of(header, key) == 0:
            notes.append(f"{key} = 0: the pipeline does not trust its {problem}")
    velocity = value_of(header, "RVCOM")
    stem = Path(file.where).name.split(".")[0]
    sobject = text_of(header, "SOBJ_ID", "SOBJECT", "SOBJECT_ID") or (
        stem[:15] if re.fullmatch(r"\d{16}", stem) else ""
    )
    star = f"GALAH {sobject}" if sobject else text_of(header, "OBJECT", "NAME") or None
    return RawSpectrum(
        product="galah",
        wavelength=axis.wavelength,
        flux=values[0],
        ivar=values[1],
        quality=values[2],
        lsf=lsf,
        medium=medium,
        frame="barycentric",
        velocity=velocity,
        velocity_error=value_of(header, "E_RVCOM", "RVCOM_E") if velocity is not None else None,
        resolving_power=HIGH if high else NORMAL,
        star=star,
        meta={
            "object": text_of(header, "OBJECT", "NAME"),
            "instrument": "HERMES",
            "date": text(header, "DATE-OBS") or text(header, "UTDATE"),
            "ra": value_of(header, "MEANRA", "RA_OBJ", "RA"),
            "dec": value_of(header, "MEANDEC", "DEC_OBJ", "DEC"),
            "identifiers": {
                key: value
                for key, value in (
                    ("sobject_id", sobject),
                    ("gaia_id", text_of(header, "GAIA_ID")),
                    ("plate", text_of(header, "PLATE")),
                )
                if value
            },
            "flags": {
                key.lower(): header[key]
                for key in ("WAV_OK", "CROSS_OK", "RV_OK", "RED_FLAG")
                if key in header
            },
            "survey_labels": {},
        },
        notes=notes,
    )


def _release_4(file: FitsFile):
    """The relative error of release 4: the extension that its name says, else the third HDU of eight."""
    for hdu in file.hdus[1:]:
        name = text(hdu.header, "EXTNAME").lower()
        if "relative" in name or name in ("error", "rel_error", "uncertainty", "sigma"):
            return hdu
    return file.hdus[2] if len(file) >= 5 and not text(file.hdus[2].header, "EXTNAME") else None


def _profile(file: FitsFile, wavelength: np.ndarray) -> np.ndarray | None:
    data = file.hdus[7].data if len(file) > 7 else None
    if not isinstance(data, np.ndarray) or data.dtype.names is not None or data.size != len(wavelength):
        return None
    width = np.asarray(data, np.float64).reshape(-1)
    good = np.isfinite(width) & (width > 0)
    if not good.any() or not PLAUSIBLE[0] < np.median(wavelength[good] / width[good]) < PLAUSIBLE[1]:
        return None
    return np.where(good, width / FWHM, np.nan)
