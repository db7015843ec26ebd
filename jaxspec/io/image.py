"""1-D image spectra: flux in an image with a linear or logarithmic axis; errors and masks in extensions.

Covers the Gaia benchmark star library (iSpec: nm, `SIGMA` extension), MIKE and other IRAF products, HARPS and
UVES 1-D files, and what specutils writes. These headers state neither a velocity frame nor, often, air or
vacuum.

What an image holds is decided by ESO's data class (HDUCLAS2, HDUCLAS3), then by NDData's `UTYPE`, then by its
name. The flux is the image called FLUX, SCI or DATA, and only without one the first that has no name.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.io import fits

from jaxspec.errors import InputError
from jaxspec.io.arrays import Array, combine
from jaxspec.io.fitsfile import FitsFile, optional_number, spectral_frame, text
from jaxspec.io.names import CERTAIN, ERRORS, MASKS, Name, Role, understand
from jaxspec.io.quality import MIN_PIXELS
from jaxspec.io.raw import RawSpectrum
from jaxspec.io.wcs import Axis, axis_from_header, to_angstrom

ESO_CLASSES = {
    ("DATA", ""): Role.FLUX,
    ("ERROR", "MSE"): Role.VARIANCE,
    ("ERROR", "RMSE"): Role.SIGMA,
    ("ERROR", "INVMSE"): Role.IVAR,
    ("ERROR", "INVRMSE"): None,
    ("QUALITY", ""): Role.MASK,
}
NDDATA_TYPES = {
    "stddevuncertainty": Role.SIGMA,
    "std": Role.SIGMA,
    "varianceuncertainty": Role.VARIANCE,
    "var": Role.VARIANCE,
    "inversevariance": Role.IVAR,
    "ivar": Role.IVAR,
}


@dataclass(frozen=True)
class Image:
    """One image of a file: its HDU, its name as it stands and as it is understood, its version (EXTVER)."""

    hdu: Any
    text: str
    name: Name
    role: Role | None
    version: int

    @property
    def set(self) -> tuple[str, int]:
        """The facts that must be alike in a flux and its errors."""
        return self.name.set, self.version


def read_image(file: FitsFile, unit: str | None = None) -> RawSpectrum:
    """Flux and, where extensions have them, errors and masks of a 1-D image spectrum.

    Raises `InputError` for no image that can be the flux or a 2-D one, an axis without start, step or
    reference pixel, and an error extension whose length or axis differs from the flux's.
    """
    images = [_image(hdu) for hdu in file.hdus if _is_image(hdu)]
    if not images:
        raise InputError(
            file.where,
            "no image and no table that is known",
            "a spectrum in one of the supported layouts",
            "convert it to a table with columns WAVE, FLUX and ERR, or to three-column text",
        )
    image = _flux(images, file)
    label, flux = file.label(image.hdu), file.vector(image.hdu)
    header = _with_primary(image.hdu, file)
    axis, used = _axis(image, images, header, len(flux), file, unit)
    notes = list(axis.notes)
    if file.edited:
        notes.append(
            f"header edited after its CHECKSUM was written: {', '.join(file.edited)} (data sums are right)"
        )
    arrays, unused = _companions(image, images, used, len(flux), axis, file, unit)
    ivar, quality, empty = combine(flux, arrays, text(header, "BUNIT"))
    for hdu in file.hdus:
        if hasattr(hdu, "columns"):
            unused.append(f"table {file.label(hdu).removeprefix(file.where)}")
    frame, strange = spectral_frame(header)
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
        "flux_array": label.removeprefix(file.where),
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
        barycentric_correction=_correction(header),
        resolving_power=optional_number(header, "SPEC_RES", notes, 100.0, 1e6),
        star=text(header, "OBJECT") or None,
        meta=meta,
        notes=notes,
        unused=unused + empty,
        strange_frame=strange,
    )


def is_vector(hdu: Any) -> bool:
    """Whether an HDU holds an image with one axis long enough for a spectrum."""
    return _is_image(hdu) and max(hdu.data.shape, default=0) == hdu.data.size >= MIN_PIXELS


def _is_image(hdu: Any) -> bool:
    data = getattr(hdu, "data", None)
    return isinstance(data, np.ndarray) and data.dtype.names is None and data.size > 0


def _image(hdu: Any) -> Image:
    header = hdu.header
    written = text(header, "EXTNAME")
    if written.upper() == "PRIMARY":
        written = ""
    name = understand(written)
    role = name.role
    kind = text(header, "HDUCLAS2").upper(), text(header, "HDUCLAS3").upper()
    stated = NDDATA_TYPES.get(text(header, "UTYPE").lower()) or NDDATA_TYPES.get(
        text(header, "ERRTYPE").lower()
    )
    if kind in ESO_CLASSES:
        role = ESO_CLASSES[kind]
    elif kind[0] == "QUALITY":
        role = Role.MASK
    elif stated is not None and role in (*ERRORS, None) and written:
        role = stated
    return Image(hdu, written, name, role, int(getattr(hdu, "ver", 1) or 1))


def _flux(images: list[Image], file: FitsFile) -> Image:
    """The image that is the flux."""
    named = [i for i in images if i.role == Role.FLUX]
    certain = sorted((i for i in named if i.name.rank < len(CERTAIN)), key=lambda i: i.name.rank)
    plain = [i for i in images if i.role is None and not i.text]
    other = [i for i in images if i.role is None and i.text]
    candidates = certain or plain or named or other
    if not candidates:
        raise InputError(
            file.where,
            f"no image that is a flux among {', '.join(i.text for i in images)}",
            "an image called FLUX, SCI or DATA",
            "set EXTNAME = 'FLUX' for the image that is the flux",
        )
    return candidates[0]


def _companions(
    flux: Image, images: list[Image], used: list[Image], n: int, axis: Axis, file: FitsFile, unit: str | None
) -> tuple[list[Array], list[str]]:
    """Errors and masks that belong to the flux, and the images that were not used."""
    beside = [i for i in images if i is not flux and i not in used]
    known = [i for i in beside if i.role in ERRORS + MASKS]
    several = any(i.role == Role.FLUX or (i.role is None and i.set != flux.set) for i in beside)
    mine = [i for i in known if i.set == flux.set]
    # With a single flux, errors under another qualifier can only be its own.
    mine += [i for i in known if not several and i not in mine and i.role not in {m.role for m in mine}]
    arrays = [
        Array(
            i.text,
            i.role,
            _like(i, n, axis.wavelength, file, unit),
            file.label(i.hdu),
            text(i.hdu.header, "BUNIT"),
        )
        for i in mine
        if i.role is not None
    ]
    unused = []
    for i in beside:
        if i not in mine:
            kind = (
                "a second spectrum"
                if i.role == Role.FLUX
                else f"{i.role}, of another flux"
                if i in known
                else "not known what it holds"
                if i.role is None
                else str(i.role)
            )
            unused.append(f"extension {i.text or 'without name'} ({kind})")
    return arrays, unused


def _with_primary(hdu: Any, file: FitsFile) -> fits.Header:
    """Header of an image; what it lacks is taken from the primary, its axis only as a whole."""
    if hdu is file.hdus[0]:
        return hdu.header
    header = hdu.header.copy()
    primary = file.hdus[0].header
    inherited = _without_axis(primary) if "CRVAL1" in header else primary.copy(strip=True)
    inherited.remove("BUNIT", ignore_missing=True)
    header.extend(inherited, unique=True)
    return header


def _axis(
    flux: Image, images: list[Image], header: fits.Header, n: int, file: FitsFile, unit: str | None
) -> tuple[Axis, list[Image]]:
    """The wavelengths of the flux, from its header or from an image of wavelengths, and the images used."""
    label = file.label(flux.hdu)
    waves = [i for i in images if i.role in (Role.WAVE, Role.LOG_WAVE) and i.hdu.data.size == n]
    waves = [i for i in waves if i.set == flux.set] or waves
    if not waves:
        return axis_from_header(header, n, label, unit), []
    wave = waves[0]
    where, values = file.label(wave.hdu), file.vector(wave.hdu)
    stated = text(wave.hdu.header, "BUNIT") or wave.name.unit
    notes = [] if stated or unit else [f"no unit of the wavelengths in {wave.text}: read as Angstrom"]
    if wave.role == Role.LOG_WAVE:
        values, stated = 10.0 ** np.clip(values, -300.0, 300.0), "Angstrom"
    wavelength = values * to_angstrom(stated or unit or "Angstrom", where)
    medium = wave.name.medium or _medium(header, label)
    try:
        axis = axis_from_header(header, n, label, unit)
    except InputError:
        return Axis(wavelength, medium, tuple(notes)), [wave]
    # A header that counts pixels says nothing of wavelengths.
    if axis.wavelength[0] > 1000.0 and np.abs(axis.wavelength - wavelength).max() > 0.1:
        raise InputError(
            where,
            f"wavelengths {wavelength[0]:.3f}-{wavelength[-1]:.3f} A",
            f"those of the flux's header, {axis.wavelength[0]:.3f}-{axis.wavelength[-1]:.3f} A",
            f"remove {wave.text} or the cards CRVAL1 and CDELT1, whichever is wrong",
        )
    return Axis(wavelength, medium or axis.medium, tuple(notes)), [wave]


def _medium(header: fits.Header, where: str) -> str | None:
    """Air or vacuum as a header says that has no axis of its own, by the rules of one that has."""
    plain = _without_axis(header)
    ctype = text(header, "CTYPE1").upper()
    plain["CTYPE1"] = "LINEAR" if not ctype or ctype.startswith("PIXEL") else ctype
    plain.update({"CRVAL1": 5000.0, "CRPIX1": 1.0, "CDELT1": 0.1, "CUNIT1": "Angstrom"})
    return axis_from_header(plain, 2, where).medium


def _without_axis(header: fits.Header) -> fits.Header:
    plain = header.copy(strip=True)
    for key in list(plain):
        if key.rstrip("0123456789_")[:5] in ("CRVAL", "CRPIX", "CDELT", "CTYPE", "CUNIT", "CD", "PC"):
            plain.remove(key, ignore_missing=True, remove_all=True)
    return plain


def _correction(header: fits.Header) -> float | None:
    """Correction to the barycentre [km/s] that the header states."""
    for key in header:
        if key.split(" ")[-1] in ("BARYCORR", "BERV"):
            value = header[key]
            if isinstance(value, (int, float)) and not isinstance(value, bool) and np.isfinite(value):
                return float(value)
    return None


def _like(image: Image, n: int, wavelength: np.ndarray, file: FitsFile, unit: str | None) -> np.ndarray:
    """Values of an extension that must lie on the flux's axis (when it states one at all)."""
    label, header = file.label(image.hdu), image.hdu.header
    values = file.vector(image.hdu, integers=image.role in MASKS)
    if len(values) != n:
        raise InputError(
            label, f"{len(values)} pixels", f"{n}, as the flux has", "the file is damaged: fetch it again"
        )
    # A header that counts pixels says nothing of wavelengths.
    if "CRVAL1" in header and text(header, "CTYPE1").upper() not in ("PIXEL", "PIXELS"):
        other = axis_from_header(header, n, label, unit).wavelength
        if other[0] > 1000.0 and np.abs(other - wavelength).max() > 1e-4:
            raise InputError(
                label,
                f"an axis {other[0]:.4f}-{other[-1]:.4f} A",
                f"that of the flux, {wavelength[0]:.4f}-{wavelength[-1]:.4f} A",
                "one of the headers is damaged: fetch the file again",
            )
    return values
