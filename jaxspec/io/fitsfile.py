"""Opening a FITS file strictly: complete, padded with zeros, true to its checksums.

astropy reads as much of a damaged file as it can. A reader of measurements wants the opposite: anything that
does not add up is refused, by name.
"""

import io
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.io import fits

from jaxspec.errors import InputError

# SPECSYS of FITS Paper III (Greisen et al. 2006); the heliocentre is within 0.02 km/s of the barycentre.
FRAMES = {
    "BARYCENT": "barycentric",
    "HELIOCEN": "barycentric",
    "TOPOCENT": "topocentric",
    "SOURCE": "rest",
}

BLOCK = 2880


@dataclass(frozen=True)
class FitsFile:
    """The HDUs of one file, all checked.

    `edited` names the HDUs whose CHECKSUM fails while DATASUM holds: their header was changed after writing
    (as IRAF does), so that header statements are worth less there than in a second copy of them.
    """

    where: str
    hdus: fits.HDUList
    edited: tuple[str, ...]
    unscaled: tuple[Any, ...]

    def __len__(self) -> int:
        return len(self.hdus)

    def find(self, *names: str) -> Any | None:
        """First HDU whose EXTNAME is one of the names, in any case; None when there is none."""
        wanted = {n.lower() for n in names}
        for hdu in self.hdus[1:]:
            if str(hdu.header.get("EXTNAME", "")).strip().lower() in wanted:
                return hdu
        return None

    def label(self, hdu: Any) -> str:
        """Name of an HDU for messages: the file and the extension."""
        index = next(i for i, h in enumerate(self.hdus) if h is hdu)
        name = str(hdu.header.get("EXTNAME", "PRIMARY" if index == 0 else f"HDU {index}")).strip()
        return f"{self.where}[{name}]"

    def vector(self, hdu: Any, integers: bool = False) -> np.ndarray:
        """The data of an image HDU as a float64 vector.

        Raises `InputError` for no data, an image with more than one axis longer than 1, or (unless
        `integers`) integers without BSCALE: reduced spectra are floats, and a changed sign in BITPIX turns
        floats into integers that look like a spectrum.
        """
        where, data = self.label(hdu), getattr(hdu, "data", None)
        if not isinstance(data, np.ndarray) or data.dtype.names is not None:
            raise InputError(
                where, "no image", "a spectrum in this HDU", "check which extension holds the flux"
            )
        if max(data.shape, default=0) != data.size:
            shape = " x ".join(map(str, data.shape[::-1]))
            raise InputError(
                where,
                f"an image of {shape} pixels",
                "one spectrum (one axis)",
                "extract the spectrum to a 1-D image first",
            )
        if not integers and any(h is hdu for h in self.unscaled):
            raise InputError(
                where,
                "integers without BSCALE",
                "floating-point flux, or integers with BSCALE",
                "check BITPIX; if the integers are right, write them as floats or add BSCALE = 1",
            )
        return np.asarray(data, dtype=np.float64).reshape(-1)


def ones_complement_sum(data: bytes) -> int:
    """32-bit ones' complement sum of big-endian words: what DATASUM holds (FITS Standard 4.0, appendix J)."""
    total = int(np.frombuffer(data, dtype=">u4").sum(dtype=np.uint64))
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return total


def open_fits(data: bytes, where: str) -> FitsFile:
    """Parse the bytes of a whole FITS file and check every HDU; data are converted when a reader asks for
    them.

    Raises `InputError` when the file is truncated or has something after its last HDU, when the padding after
    an image is not zero (a changed axis length shows there), when DATASUM does not match, or when astropy
    cannot read it.
    """
    if len(data) % BLOCK:
        raise InputError(
            where, f"{len(data)} bytes", f"a multiple of {BLOCK}", "the file is truncated: fetch it again"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            hdus = fits.open(io.BytesIO(data), memmap=False, lazy_load_hdus=False)
            edited = tuple(_check_hdus(hdus, data, where))
            images = [hdu for hdu in hdus if isinstance(hdu, (fits.PrimaryHDU, fits.ImageHDU))]
            # Before the data are loaded: astropy then drops BSCALE from the header.
            unscaled = tuple(h for h in images if h.header["BITPIX"] > 0 and "BSCALE" not in h.header)
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                where,
                f"{type(error).__name__}: {error}",
                "a FITS file that follows the standard",
                "the file is damaged or is no FITS file: fetch it again",
            ) from error
    return FitsFile(where, hdus, edited, unscaled)


def _check_hdus(hdus: fits.HDUList, data: bytes, where: str) -> list[str]:
    end, edited = 0, []
    for index, hdu in enumerate(hdus):
        info = hdu.fileinfo()
        name = f"{where}[{hdu.name or index}]"
        if info["hdrLoc"] != end:
            raise InputError(
                name,
                f"header at byte {info['hdrLoc']}",
                f"at byte {end}",
                "the file is damaged: fetch it again",
            )
        start, end = info["datLoc"], info["datLoc"] + info["datSpan"]
        if end > len(data):
            raise InputError(
                name,
                f"{len(data) - start} bytes of data",
                f"{end - start} bytes, as its header says",
                "the file is truncated: fetch it again",
            )
        block = data[start:end]
        if isinstance(hdu, (fits.PrimaryHDU, fits.ImageHDU, fits.BinTableHDU)) and any(block[hdu.size :]):
            raise InputError(
                name,
                f"{sum(map(bool, block[hdu.size :]))} bytes that are not zero after the data",
                "zeros",
                "an axis length in the header is wrong or the file is damaged",
            )
        # Blanks mean that the sum is not defined (FITS 4.0, 4.4.2.7).
        stated = text(hdu.header, "DATASUM")
        if stated:
            found = ones_complement_sum(block)
            if stated.lstrip("0") != str(found).lstrip("0"):
                raise InputError(
                    name,
                    f"data with checksum {found}",
                    f"DATASUM {stated}",
                    "the data are damaged, or were edited by a program that kept the old sum: fetch the file "
                    "again, or, if you changed the data yourself, write it with checksum=True (astropy) or "
                    "delete the cards DATASUM and CHECKSUM",
                )
        if text(hdu.header, "CHECKSUM"):
            total = ones_complement_sum(data[info["hdrLoc"] : end])
            if total not in (0, 0xFFFFFFFF):
                edited.append(hdu.name or str(index))
    if any(data[end:]):
        raise InputError(
            where,
            f"{len(data) - end} bytes after the last HDU",
            "nothing",
            "a header is damaged: fetch the file again",
        )
    return edited


def number(header: fits.Header, key: str, where: str, default: float | None = None) -> float:
    """A header value that must be a finite number; `default` when the keyword is absent, undefined or blank
    (None: then it is required). A number written as text counts as one."""
    value = header.get(key)
    blank = isinstance(value, str) and not value.strip()
    if value is None or isinstance(value, fits.card.Undefined) or blank:
        if default is None:
            raise InputError(
                where, f"no {key}", f"the keyword {key}", "add it to the header or give the file as a table"
            )
        return default
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            pass
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value):
        raise InputError(where, f"{key} = {value!r}", "a finite number", "correct the header")
    return float(value)


def optional_number(
    header: fits.Header, key: str, notes: list[str], low: float = -np.inf, high: float = np.inf
) -> float | None:
    """A header value that a spectrum can do without: None, and a note, when it is no number between `low`
    and `high`."""
    try:
        value = number(header, key, "", np.nan)
    except InputError as error:
        notes.append(f"{error.found} in the header not used: it is no number")
        return None
    if np.isnan(value):
        return None
    if not low <= value <= high:
        notes.append(f"{key} = {value:g} in the header not used: it is not between {low:g} and {high:g}")
        return None
    return value


def text(header: fits.Header, key: str, default: str = "") -> str:
    """A header value as stripped text; `default` when absent or undefined."""
    value = header.get(key, default)
    return str(value).strip() if value is not None and not isinstance(value, fits.card.Undefined) else default


def spectral_frame(header: fits.Header) -> tuple[str | None, str | None]:
    """The frame "rest", "barycentric" or "topocentric" as SPECSYS says, and None; or None, and the card that
    is not understood (None when there is none)."""
    specsys = text(header, "SPECSYS").upper()
    if not specsys:
        return None, None
    for name, frame in FRAMES.items():
        if specsys.startswith(name):
            return frame, None
    return None, f"SPECSYS = {specsys!r}"
