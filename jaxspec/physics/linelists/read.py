"""The one door for line lists from files: `read_line_list`."""

from pathlib import Path

import numpy as np

from jaxspec.errors import InputError
from jaxspec.physics.linelists.clean import Policy, clean
from jaxspec.physics.linelists.kurucz import is_kurucz, read_kurucz
from jaxspec.physics.linelists.moog import is_moog, read_moog
from jaxspec.physics.linelists.text import Text, read_text
from jaxspec.physics.linelists.turbospectrum import is_turbospectrum, read_turbospectrum
from jaxspec.physics.linelists.vald import is_vald, read_vald
from jaxspec.physics.lines import LineList

# In this order: MOOG's columns are the least particular.
FORMATS = {"turbospectrum": is_turbospectrum, "vald": is_vald, "kurucz": is_kurucz, "moog": is_moog}
UNSOELD = 2.5


def read_line_list(
    path: str | Path,
    format: str | None = None,
    *,
    low: float = 0.0,
    high: float = np.inf,
    molecules: Policy = "refuse",
    ions: Policy = "refuse",
    medium: str | None = None,
    gf: str | None = None,
    unsoeld: float = UNSOELD,
) -> LineList:
    """The atomic lines of a file, by wavelength in air, for `StellarModel.create(windows, lines=...)`.

    Args:
        path: the file, as text or gzipped text.
        format: "vald" (VALD3, extract stellar or all, short or long), "kurucz" (gfall, 160 columns), "moog"
            or "turbospectrum"; found from the content if it is not given.
        low, high: air wavelengths (A) of the first and last line wanted. Strong lines reach tens of A, so
            let this range be wider than the window to synthesise.
        molecules: jaxspec has no molecular lines: "refuse" a list with some, or "skip" them with a warning.
        ions: likewise for elements beyond uranium and ions beyond the second.
        medium: "air" or "vacuum", of a Kurucz list, where its levels do not tell.
        gf: "log" or "linear", of the fourth column of a MOOG list, where no negative value tells.
        unsoeld: factor on Unsoeld's van der Waals width for lines without one in the file; 2.5, as in most of
            the Gaia-ESO list (Heiter et al. 2021, A&A 645, A106).

    Isotopic log gf are multiplied by terrestrial fractions where the file's are not yet. Hydrogen is left
    out, with a message in the log: the synthesis has its own lines. Stark widths are not used: `LineList`
    has none. `reach` is where opacity falls to a thousandth of the continuum's in extreme stars of the
    nine labels (see `linelists.reach`).

    Raises `InputError`, naming file and line, for what is not in the format or cannot be true.
    """
    text = read_text(path)
    if format is None:
        format = next((name for name, matches in FORMATS.items() if matches(text)), None)
        if format is None:
            raise InputError(
                text.where,
                f"a beginning as in no known format: {text.lines[0][:60]!r}",
                f"one of {', '.join(FORMATS)}",
                "give format= to see what is wrong in that format, or convert the list",
            )
    _check("format", format, FORMATS)
    _check("medium", medium, {"air", "vacuum"} if format == "kurucz" else set())
    _check("gf", gf, {"log", "linear"} if format == "moog" else set())
    _check("molecules", molecules, {"refuse", "skip"})
    _check("ions", ions, {"refuse", "skip"})
    if not 0 < unsoeld <= 20:
        raise InputError("unsoeld", f"{unsoeld:g}", "a factor above 0, at most 20", "give unsoeld=2.5, say")
    # Air and vacuum differ by 0.03 %; the exact range is taken when all are in air.
    margins = low * 0.999, high * 1.001
    raw = _read(text, format, margins, medium, gf)
    return clean(raw, text, low, high, molecules, ions, unsoeld)


def _read(text: Text, format: str, margins: tuple[float, float], medium: str | None, gf: str | None):
    match format:
        case "turbospectrum":
            return read_turbospectrum(text, *margins)
        case "vald":
            return read_vald(text, *margins)
        case "kurucz":
            return read_kurucz(text, *margins, medium)
        case _:
            return read_moog(text, *margins, gf)


def _check(name: str, value: str | None, known) -> None:
    if value is not None and value not in known:
        expected = ", ".join(sorted(known)) or "no such argument for this format"
        raise InputError(name, repr(value), expected, "correct or drop the argument")
