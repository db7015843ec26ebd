"""Which survey's product a file is: recognised by its content, never by its name."""

from collections.abc import Callable

from jaxspec.io.apogee import is_apogee, read_apogee
from jaxspec.io.desi import is_desi, read_desi
from jaxspec.io.fitsfile import FitsFile
from jaxspec.io.gaia import is_gaia_fits, is_gaia_text, read_gaia_fits, read_gaia_text, read_zip
from jaxspec.io.galah import is_galah, read_galah
from jaxspec.io.lamost import is_lamost, read_lamost
from jaxspec.io.raw import RawSpectrum
from jaxspec.io.sdss import is_mwm, is_spec, read_mwm, read_spec

Is = Callable[[FitsFile], bool]
Read = Callable[[FitsFile, str | None], RawSpectrum]

# In this order: the first that recognises a file reads it.
PRODUCTS: tuple[tuple[Is, Read], ...] = (
    (is_lamost, read_lamost),
    (is_desi, read_desi),
    (is_mwm, read_mwm),
    (is_spec, read_spec),
    (is_apogee, read_apogee),
    (is_galah, read_galah),
    (is_gaia_fits, read_gaia_fits),
)


def read_survey(file: FitsFile, select: str | None = None) -> RawSpectrum | None:
    """The spectrum of a survey's FITS product; None for a file that is none of them."""
    for recognised, read in PRODUCTS:
        if recognised(file):
            return read(file, select)
    return None


def read_survey_text(data: bytes, where: str, select: str | None = None) -> RawSpectrum | None:
    """The spectrum of a survey's CSV, ECSV or VOTable; None for text that is none of them."""
    return read_gaia_text(data, where, select) if is_gaia_text(data) else None


def unpack(data: bytes, where: str, select: str | None) -> tuple[bytes, str, str | None] | None:
    """Bytes and name of the chosen file of a zip, and the choice (None for the only file).

    None for what is no zip.
    """
    return read_zip(data, where, select) if data[:4] == b"PK\x03\x04" else None
