"""MOOG's line lists.

A line of title, then for each line wavelength (A), species, lower level (eV), log gf or gf, and optionally
van der Waals damping, dissociation energy and equivalent width (Sneden & Sakari, WRITEMOOG, 2019; MOOG's
`Inlines.f` and `Damping.f`): seven columns of ten characters with blanks for what is absent, or free form.
Species: 26.1 is Fe II, 56.1137 the isotope 137 of Ba II, 106.0 and above are molecules. Damping `d`: 0 is
Unsoeld's width; below 0 it is the log10 of what follows; below 1e-15 it is C6; up to 1e-4 the width per
hydrogen atom at 10,000 K; above, it multiplies Unsoeld's C6. log gf of an isotope is that of the pure
isotope.
"""

import math
import re

from jaxspec.errors import InputError
from jaxspec.physics.constants import ATOMIC_MASS, ATOMIC_WEIGHTS, BOLTZMANN
from jaxspec.physics.linelists.kurucz import EV_PER_CM
from jaxspec.physics.linelists.text import MOLECULE, RawLines, Row, Text, wanted

COLUMNS = "numbers: wavelength (A), species, lower level (eV), log gf, and optionally damping"
WIDTH = 10
SPECIES = re.compile(r"(\d{1,4})(?:\.(\d)(\d*))?")


def is_moog(text: Text) -> bool:
    """Whether the second line with anything on it begins with four numbers, of which one is a species."""
    lines = [line for line in text.lines if line.strip() and not line.lstrip().startswith("#")]
    try:
        return len(lines) > 1 and bool(SPECIES.fullmatch(_fields(lines[1])[1]))
    except ValueError:
        return False


def read_moog(text: Text, low: float, high: float, gf: str | None = None) -> RawLines:
    """The rows between two wavelengths (A).

    `gf` says what the fourth column is: "log" or "linear". If it is not given, one negative value shows that
    all are logarithms, as in MOOG; without any, it must be given. Energies are in cm^-1 if one is above 50.
    Raises `InputError` for a line that is not in the format, naming it.
    """
    title = next(i for i, line in enumerate(text.lines, start=1) if line.strip())
    _check_title(text, title)
    rows = []
    for number, line in text.numbered(title + 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            fields = _fields(line)
            wavelength, energy, strength, damping = (float(fields[i]) for i in (0, 2, 3, 4))
        except ValueError:
            raise text.refuse(number, COLUMNS) from None
        species = SPECIES.fullmatch(fields[1])
        if not species:
            raise text.refuse(number, "a species such as 26.1", "correct the second column")
        z, charge, mass = (int(x or 0) for x in species.groups())
        if z >= 100:
            z, charge, mass = MOLECULE, 0, 0
        # A negative wavelength marks a further member of a blend.
        rows.append(Row(number, abs(wavelength), z, charge, mass, energy, strength, damping, 0.0))
    unit = EV_PER_CM if any(row.energy > 50 for row in rows) else 1.0
    log = _is_log(text, rows, gf)
    chosen = []
    for row in rows:
        if wanted(row.wavelength, low, high):
            if not log and row.log_gf <= 0:
                raise text.refuse(row.number, "a positive gf", 'give gf="log" if the column has log gf')
            log_gf = row.log_gf if log else math.log10(row.log_gf)
            damping = _damping(row.damping, row.z)
            chosen.append(row._replace(energy=row.energy * unit, log_gf=log_gf, damping=damping))
    return RawLines(chosen, vacuum=False, scaled=False)


def _fields(line: str) -> list[str]:
    """The first five fields, the fifth being damping, "0" if absent; ValueError if fewer than four."""
    cut = any(line[i - 1 : i].strip() and line[i : i + 1].strip() for i in range(WIDTH, 50, WIDTH))
    columns = [line[i : i + WIDTH].strip() for i in range(0, 50, WIDTH)]
    if not cut and all(re.fullmatch(r"\S+", column) for column in columns[:4]):
        return [*columns[:4], columns[4] or "0"]
    words = line.split()
    if len(words) < 4:
        raise ValueError
    given = len(words) > 4 and (words[4][0].isdigit() or words[4][0] in "+-.")
    return [*words[:4], words[4] if given else "0"]


def _check_title(text: Text, title: int) -> None:
    """MOOG skips the first line whatever it is; a spectral line there would be lost without a word."""
    try:
        [float(x) for x in _fields(text.lines[title - 1])]
    except ValueError:
        return
    raise text.refuse(title, "a line of title, as MOOG does", "put a line of text above the numbers")


def _is_log(text: Text, rows: list[Row], gf: str | None) -> bool:
    if gf in ("log", "linear"):
        return gf == "log"
    if any(row.log_gf < 0 for row in rows):
        return True
    if not rows:
        return True
    raise InputError(
        f"{text.where} column 4",
        "no negative value",
        "log gf, of which some are negative, or gf",
        'give gf="log" or gf="linear" to say which it is',
    )


def _damping(d: float, z: int) -> float:
    """MOOG's damping as that of `LineList`; C6 by the width 17 C6^0.4 v^0.6 (Unsoeld 1955) at 10,000 K."""
    if d < 0:
        d = 10.0**d
    if d == 0 or z == MOLECULE:
        return 0.0
    if d < 1e-15:
        mass = ATOMIC_MASS / (1 / 1.008 + 1 / ATOMIC_WEIGHTS[min(z, len(ATOMIC_WEIGHTS)) - 1])
        speed = math.sqrt(8 * BOLTZMANN * 1e4 / (math.pi * mass))
        return math.log10(17.0 * d**0.4 * speed**0.6)
    return math.log10(d) if d < 1e-4 else d**0.4
