"""Kurucz's line lists (`gfall` and its kin): 160 columns.

Format (kurucz.harvard.edu/linelists.html): F11.4 wavelength (nm, air above 200 nm), F7.3 log gf, F6.2 species
(26.01 is Fe II), F12.3 F5.1 1X A10 first level (cm^-1, J, label), F12.3 F5.1 1X A10 second level, 3F6.2 log10
of the radiative (s^-1), Stark and van der Waals width (per particle at 10,000 K; 0: unknown), A4 reference,
2I2, then twice I3 F6.3: isotope and log10 of its hyperfine component's share, isotope and log10 of its
fraction. Negative energies are predicted ones; the lower level is that of the smaller absolute value.
"""

import re

import numpy as np

from jaxspec.errors import InputError
from jaxspec.physics.linelists.text import MOLECULE, RawLines, Row, Text, linear_width, wanted
from jaxspec.spectra import vacuum_to_air

EV_PER_CM = 1.2398419843e-4
START = re.compile(r"\s*\d+\.\d{4}\s*-?\d+\.\d{3}\s*\d+\.\d\d\s+-?\d+\.\d{3}")
FORMAT = "160 columns: wavelength, log gf, species, two levels, three widths (F11.4, F7.3, F6.2, F12.3, ...)"
SHORTEST = 98  # columns, with which the widths end


def is_kurucz(text: Text) -> bool:
    """Whether the first line with anything on it has the first four fields where they belong."""
    line = next(line for line in text.lines if line.strip())
    return bool(START.match(line)) and _shift(line) is not None


def read_kurucz(text: Text, low: float, high: float, medium: str | None = None) -> RawLines:
    """The rows between two wavelengths (A); hyperfine and isotopic shares are applied to log gf.

    `medium` ("air" or "vacuum") is found from the levels, whose difference is the vacuum wavenumber, if it is
    not given: there are lists of either kind. Raises `InputError` for a line that is not in the format.
    """
    first = next(i for i, line in enumerate(text.lines) if line.strip())
    shift = _shift(text.lines[first])
    if shift is None:
        raise text.refuse(first + 1, FORMAT)
    rows, differences = [], []
    for number, line in text.numbered():
        if not line.strip():
            continue
        # Some copies of the lists have lost their first column, which is blank for optical lines.
        line = " " * shift + line.rstrip()
        try:
            wavelength = 10 * float(line[:11])
            if not wanted(wavelength, low, high):
                continue
            if len(line) < SHORTEST:
                raise ValueError
            log_gf, species = float(line[11:18]), line[18:24].strip()
            levels = abs(float(line[24:36])), abs(float(line[52:64]))
            gamma_rad, _, damping = float(line[80:86]), float(line[86:92]), float(line[92:98])
            log_gf += float(line[109:115].strip() or 0) + float(line[118:124].strip() or 0)
            whole, charge = (int(x) for x in species.split("."))
        except ValueError:
            raise text.refuse(number, FORMAT) from None
        z, stage = (whole, charge) if whole < 100 else (MOLECULE, 0)
        energy = min(levels) * EV_PER_CM
        rows.append(Row(number, wavelength, z, stage, 0, energy, log_gf, damping, linear_width(gamma_rad)))
        differences.append(abs(levels[0] - levels[1]))
    vacuum = medium == "vacuum" if medium else _in_vacuum(text, rows, differences)
    return RawLines(rows, vacuum, scaled=True)


def _shift(line: str) -> int | None:
    """How many columns are missing at the start of the lines: none or one; None if it is neither."""
    for shift in (0, 1):
        padded = " " * shift + line
        if re.fullmatch(r" *\d+\.\d{4}", padded[:11]) and re.fullmatch(r" *\d+\.\d\d", padded[18:24]):
            return shift
    return None


def _in_vacuum(text: Text, rows: list[Row], differences: list[float]) -> bool:
    """Whether the wavelengths are nearer to those of the levels in vacuum than in air."""
    optical = [(r.wavelength, d) for r, d in zip(rows, differences, strict=True) if r.wavelength > 2100 and d]
    if not optical:
        return False
    wavelength, difference = np.array(optical).T
    expected = np.maximum(1e8 / difference, 2000.0)
    vacuum = abs(wavelength - expected) < abs(wavelength - vacuum_to_air(expected))
    if 0.1 < vacuum.mean() < 0.9:
        raise InputError(
            text.where,
            f"wavelengths of which {vacuum.mean():.0%} are those of the levels in vacuum, the others in air",
            "all in air or all in vacuum",
            'give medium="air" or medium="vacuum"',
        )
    return bool(vacuum.mean() > 0.5)
