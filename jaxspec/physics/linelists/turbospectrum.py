"""Line lists in Turbospectrum's format, in which the Gaia-ESO list is published.

Blocks, one for each species (documentation of Turbospectrum and of the Gaia-ESO list v6, Heiter et al. 2021,
A&A 645, A106):

    '  26.000            '    1       2342
    'Fe I    NLTE'
      4200.087  3.884 -1.130   -7.420    7.0  5.01E+07  0.000  'p' 'd'   0.0    1.0 'Fe I ...'

In the heading: element.isotope (000: the natural mixture; above 100 a molecule), ionisation stage from 1 and
number of lines. In a line: air wavelength (A), lower level (eV), log gf, fdamp, upper statistical weight,
radiative width (s^-1, 0 if unknown), Stark width (may be left out; not used), and the orbitals of the lower
and upper level (in this order, whatever some descriptions say: see the terms in the quoted text). log gf of
an isotope is that of the pure isotope.
"""

import re
from collections.abc import Iterator

import numpy as np

from jaxspec.physics.linelists.abo import Transitions, generic_abo
from jaxspec.physics.linelists.text import MOLECULE, RawLines, Row, Text, wanted

HEADING = re.compile(r"\s*'\s*(\d+)\.(\d+)\s*'\s+(\d+)\s+(\d+)\s*$")
COLUMNS = "wavelength, lower level, log gf, fdamp, statistical weight, radiative width"


def is_turbospectrum(text: Text) -> bool:
    """Whether the first line with anything on it is the heading of a block."""
    return bool(HEADING.match(next(line for line in text.lines if line.strip())))


def read_turbospectrum(text: Text, low: float, high: float) -> RawLines:
    """The rows between two wavelengths (A).

    Where fdamp is no cross-section and the orbitals are s-p or p-d, the width is that of `generic_abo`, as in
    Turbospectrum itself. Raises `InputError` for anything out of order, naming the line.
    """
    found = [x for x in turbospectrum_rows(text) if wanted(x[0].wavelength, low, high)]
    if not found:
        return RawLines([], vacuum=False, scaled=False)
    damping = generic_abo(transitions(found))
    rows = [row._replace(damping=float(d)) for (row, _, _), d in zip(found, damping, strict=True)]
    return RawLines(rows, vacuum=False, scaled=False)


def transitions(rows: list[tuple[Row, str, str]]) -> Transitions:
    """The columns of some rows of `turbospectrum_rows`."""
    lines, lower, upper = zip(*rows, strict=True)
    columns = [np.array([getattr(x, name) for x in lines]) for name in Transitions._fields[:5]]
    return Transitions(*columns, *(np.array(x) for x in (upper, lower)))


def turbospectrum_rows(text: Text) -> Iterator[tuple[Row, str, str]]:
    """Every row as written, with the orbitals ("X" if unknown) of its lower and upper level."""
    z = stage = isotope = announced = seen = heading = 0
    for number, line in text.numbered():
        if not line.strip():
            continue
        if line.lstrip().startswith("'"):
            found = HEADING.match(line)
            if found:
                _check_count(text, heading, announced, seen)
                element, mass, ion, n_lines = found.groups()
                z, isotope = int(element), int(mass[:3])
                z, isotope, seen, heading = (z, isotope, 0, number) if z < 100 else (MOLECULE, 0, 0, number)
                stage, announced = int(ion) - 1, int(n_lines)
            elif number != heading + 1:
                raise text.refuse(number, "a heading: 'element.isotope', stage, number of lines")
            continue
        if not heading:
            raise text.refuse(number, "a heading: 'element.isotope', stage, number of lines")
        parts = line.split("'")
        try:
            wavelength, energy, log_gf, damping, _, gamma_rad = map(float, parts[0].split()[:6])
        except ValueError:
            raise text.refuse(number, f"numbers: {COLUMNS}") from None
        letters = [part for part in parts[1::2] if len(part) == 1] + ["X", "X"]
        seen += 1
        row = Row(number, wavelength, z, stage, isotope, energy, log_gf, damping, gamma_rad)
        yield row, letters[0], letters[1]
    _check_count(text, heading, announced, seen)


def _check_count(text: Text, heading: int, announced: int, seen: int) -> None:
    if announced != seen:
        raise text.refuse(
            heading,
            f"{seen} lines, as follow it",
            "the file is truncated, fetch it again; or correct the number if you changed the list",
        )
