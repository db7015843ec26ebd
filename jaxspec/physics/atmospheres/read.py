"""Read one model atmosphere, of whatever format."""

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path

from jaxspec.errors import InputError
from jaxspec.physics.atmospheres.atlas import read_atlas
from jaxspec.physics.atmospheres.marcs import read_marcs
from jaxspec.physics.atmospheres.moog import MOOG_COLUMNS, read_moog
from jaxspec.physics.atmospheres.text import AtmosphereFile, Text

READERS: dict[str, Callable[[Text, float | None], AtmosphereFile]] = {
    "marcs": lambda text, _: read_marcs(text),
    "atlas": lambda text, _: read_atlas(text),
    "moog": read_moog,
}


def read_atmosphere(
    path: str | Path, format: str | None = None, *, logg: float | None = None
) -> AtmosphereFile:
    """The model atmosphere in a file, ready for `chemistry_of` and `synthesize`.

    The column mass is the file's own where it has one; MARCS sums it over coarse layers, up to 4 % above
    (Pgas + Prad) / g. Where MOOG's types BEGN, NEWMARCS and KUR-PADOVA have none, the optical depth is
    integrated over the opacity; where WEBMARCS, GENERIC and NEXTGEN have none, it is the pressure over the
    gravity.

    Args:
        path: a text file, as it is or compressed with gzip.
        format: "marcs", "atlas" (ATLAS9 and ATLAS12) or "moog"; by default recognised from the content.
        logg: surface gravity, log10 of cm s^-2, for MOOG's types that need it; no MOOG file states it.

    Raises:
        InputError: naming the file, and the line where there is one, for a format that is not known, for
            anything but numbers in a table, for another number of layers than announced, for a truncated file
            and for values that no atmosphere has: column mass that does not grow, temperature or pressure
            that is not positive, a mean molecular weight out of 0.5 to 4.
    """
    text = Text(str(path), _decode(Path(path).read_bytes(), str(path)).splitlines())
    if not any(line.strip() for line in text.lines):
        raise InputError(text.where, "an empty file", "a model atmosphere", "fetch the file again")
    name = _recognise(text) if format is None else format
    if name not in READERS:
        raise InputError("format", repr(name), ", ".join(READERS), "give one of these, or none")
    return READERS[name](text, logg)


def _decode(data: bytes, where: str) -> str:
    try:
        return (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode()
    except UnicodeDecodeError as error:
        found = f"byte {error.object[error.start]:#04x} at position {error.start}"
    except (OSError, EOFError, zlib.error) as error:
        found = f"damaged gzip data ({error})"
    raise InputError(where, found, "plain text, or text compressed with gzip", "fetch the file again")


def _recognise(text: Text) -> str:
    if (text.lines[0].split() or [""])[0].upper() in MOOG_COLUMNS:
        return "moog"
    for line in text.lines:
        if line.startswith("READ DECK6"):
            return "atlas"
        if line.startswith("Model structure"):
            return "marcs"
    raise InputError(
        f"{text.where} line 1",
        text.quoted(0),
        "a model atmosphere of MARCS (.mod), ATLAS9, ATLAS12 or MOOG",
        "convert the file to one of these; format= names what is missing",
    )
