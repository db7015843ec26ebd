"""Line lists as extracted from VALD3: "extract stellar" and "extract all", in short and in long format.

Description: astro.uu.se/valdwiki (select_output, VALD3_van_der_Waals). The heading names medium and units of
the columns: WL_air(A) or WL_vac(A), Excit(eV) or E_low(cm^-1). A line begins with its species, 'Fe 1' for
neutral iron, and its damping parameters are log10 of the radiative width (s^-1), of the Stark width (not
used here), and of the van der Waals width per hydrogen atom at 10,000 K, or sigma.alpha of the ABO theory
where above 0; 0 is unknown. In long format three lines of text follow each. A foot says whether log gf was
scaled by isotopic fractions.
"""

import re
from typing import NamedTuple

from jaxspec.errors import InputError
from jaxspec.physics.linelists.kurucz import EV_PER_CM
from jaxspec.physics.linelists.text import RawLines, Row, Text, linear_width, number_of, wanted

HEADING = re.compile(r"W[LN]_?\w*\(")
WAVELENGTH = re.compile(r"WL_(air|vac)\((\S+?)\)")
ENERGY = re.compile(r"(?:Excit|E_low)\((\S+?)\)")
ANNOUNCED = re.compile(r"\s*[\d.]+\s*,\s*[\d.]+\s*,\s*(\d+)\s*,.*Wavelength region")
LINE = re.compile(r"\s*'([A-Z][A-Za-z0-9]*)\s+(\d+)'\s*,(.*)")
NUMBERS = re.compile(r",\s*[-\d]")  # in the abundances at a file's end, quotes follow the commas
SCALED = re.compile(r"\*\s*oscillator strengths were (NOT )?scaled", re.IGNORECASE)
ISOTOPE = re.compile(r"\((\d+)\)([A-Z][a-z]?)\s*'?,?\s*$")
WAVELENGTH_UNITS = {"A": 1.0, "nm": 10.0}
ENERGY_UNITS = {"eV": 1.0, "cm^-1": EV_PER_CM}


class Layout(NamedTuple):
    """Where the heading says that things stand, in fields after the species."""

    vacuum: bool
    wavelength: float  # A per unit
    energy: float  # eV per unit
    long: bool
    columns: tuple[int, int, int, int, int]  # wavelength, energy, log gf, radiative, van der Waals
    size: int  # numbers of a line


def is_vald(text: Text) -> bool:
    """Whether the first hundred lines hold VALD's heading, or lines as VALD writes them."""
    start = [line for line in text.lines[:100] if not line.startswith("#")]
    return any(HEADING.search(line) or LINE.match(line) or ANNOUNCED.match(line) for line in start)


def read_vald(text: Text, low: float, high: float) -> RawLines:
    """The rows between two wavelengths (A).

    Raises `InputError` for a missing heading or unit, a line that is not in the format, or another number of
    lines than the first line of "extract stellar" announces.
    """
    layout = _layout(text)
    lines = [(i, x) for i, x in text.numbered() if x.strip() and not x.startswith("#")]
    rows, seen, at, foot = [], 0, 0, None
    announced = scaled = None
    while at < len(lines):
        number, line = lines[at]
        found = LINE.match(line)
        at += 1
        if not found:
            if line.lstrip().startswith("'") and len(NUMBERS.findall(line)) > 3:
                raise text.refuse(number, "a line such as 'Fe 1', 5000.5066, ...")
            foot = foot or (number if seen else None)
            announced = announced or ANNOUNCED.match(line)
            scaled = scaled or SCALED.match(line)
            continue
        if foot:
            raise text.refuse(foot, "a line such as 'Fe 1', 5000.5066, ... as below it")
        seen += 1
        source = line
        if layout.long:
            if at + 3 > len(lines) or any(LINE.match(x) for _, x in lines[at : at + 3]):
                raise text.refuse(number, "three lines of text after it, as everywhere in the long format")
            source = lines[at + 2][1]
            at += 3
        row = _row(text, layout, number, found, source)
        if wanted(row.wavelength, low, high):
            rows.append(row)
    if announced and int(announced[1]) != seen:
        raise InputError(
            text.where,
            f"{seen} lines",
            f"{announced[1]}, as its first line says",
            "the file is truncated, fetch it again; or correct the first line if you changed the list",
        )
    if not scaled and any(row.isotope for row in rows):
        raise InputError(
            text.where,
            "no statement about isotopes",
            "the foot '* oscillator strengths were (NOT) scaled by the solar isotopic ratios.'",
            "the file is truncated, fetch it again; or add that line, if you cut it off",
        )
    return RawLines(rows, layout.vacuum, scaled=not (scaled and scaled[1]))


def _row(text: Text, layout: Layout, number: int, found: re.Match, source: str) -> Row:
    symbol, stage, rest = found.groups()
    z = number_of(symbol)
    if z is None:
        raise text.refuse(number, f"an element or molecule, which {symbol} is not", "correct the species")
    fields = rest.split(",", layout.size)
    try:
        values = [float(x) for x in fields[: layout.size]]
        if len(values) < layout.size or (not layout.long and source.count("'") % 2):
            raise ValueError
    except ValueError:
        raise text.refuse(number, f"{layout.size} numbers after the species, as the heading says") from None
    wavelength, energy, log_gf, gamma_rad, damping = (values[i] for i in layout.columns)
    isotope = ISOTOPE.search(source)
    return Row(
        number,
        wavelength * layout.wavelength,
        z,
        int(stage) - 1,
        int(isotope[1]) if isotope and isotope[2] == symbol else 0,
        energy * layout.energy,
        log_gf,
        damping,
        linear_width(gamma_rad),
    )


def _layout(text: Text) -> Layout:
    heading = next((line for line in text.lines if HEADING.search(line)), "")
    wavelength, energy = WAVELENGTH.search(heading), ENERGY.search(heading)
    for name, found, known in (
        ("WL_air(A) or WL_vac(A)", wavelength and wavelength[2], WAVELENGTH_UNITS),
        ("Excit(eV) or E_low(cm^-1)", energy and energy[1], ENERGY_UNITS),
    ):
        if found not in known:
            raise InputError(
                text.where,
                f"a heading without {name}" if not found else f"the unit {found}",
                f"a heading with {name}; units known: {', '.join(known)}",
                "keep VALD's own heading; ask VALD for Angstrom and eV",
            )
    long = "J lo" in heading
    if long:
        columns, count = (0, 2, 1, 9, 11), 12
    elif "Vmic" in heading:
        columns, count = (0, 1, 3, 4, 6), 9
    else:
        columns, count = (0, 1, 2, 3, 5), 7
    assert wavelength and energy
    units = WAVELENGTH_UNITS[wavelength[2]], ENERGY_UNITS[energy[1]]
    return Layout(wavelength[1] == "vac", *units, long, columns, count)
