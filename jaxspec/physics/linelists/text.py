"""Shared by all readers of line lists: the file's text, the names of species, and the rows read."""

import gzip
import re
import zlib
from collections.abc import Iterator
from functools import cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from jaxspec.errors import InputError

LONG = 100_000  # lines of a file, beyond which reading it shows a progress bar on a terminal
MOLECULE = 0  # in place of an atomic number


class Row(NamedTuple):
    """One line as it stands in a file, at line `number`; damping and gamma_rad are 0 where not given."""

    number: int
    wavelength: float  # A, in the file's medium
    z: int  # atomic number, or `MOLECULE`
    stage: int  # 0 neutral, 1 once ionised
    isotope: int  # mass number; 0 for the natural mixture
    energy: float  # lower level, eV
    log_gf: float
    damping: float  # as in `LineList`
    gamma_rad: float  # s^-1


class RawLines(NamedTuple):
    """Every row of a file in the range asked for, and what the file says about all of them."""

    rows: list[Row]
    vacuum: bool  # wavelengths in vacuum
    scaled: bool  # log gf of isotopes multiplied by their fractions already


class Text(NamedTuple):
    """A file's lines, and its name for messages."""

    where: str
    lines: list[str]

    def numbered(self, first: int = 1) -> Iterator[tuple[int, str]]:
        """Line numbers and lines from line `first` on, with a bar on a terminal if there are many."""
        quiet = None if len(self.lines) > LONG else True
        pairs = enumerate(self.lines[first - 1 :], start=first)
        return iter(tqdm(pairs, desc=self.where, unit=" lines", total=len(self.lines), disable=quiet))

    def refuse(self, number: int, expected: str, fix: str = "repair the line or fetch the file again"):
        """The error for line `number`, which is not what was `expected`."""
        return InputError(
            f"{self.where} line {number}", repr(self.lines[number - 1].rstrip()[:100]), expected, fix
        )


def read_text(path: str | Path) -> Text:
    """The lines of a text file, gzipped or not.

    Raises `InputError` where there is no such file, or it is empty, truncated, or not text.
    """
    where = str(path)
    try:
        data = Path(path).read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(where, f"{error}", "a complete gzip file", "fetch the file again") from None
    except OSError as error:
        raise InputError(where, f"{error.strerror}", "a readable file", "check the path") from None
    if b"\x00" in data:
        raise InputError(where, "binary data", "a line list as text", "give the text form of the list")
    lines = data.decode("utf-8", errors="replace").splitlines()
    if not any(line.strip() for line in lines):
        raise InputError(where, "no text", "a line list", "check that the file was written completely")
    return Text(where, lines)


@cache
def atomic_numbers() -> dict[str, int]:
    """Atomic number by symbol, H to U."""
    with resources.as_file(resources.files("jaxspec.physics.data") / "atoms.npz") as path:
        return {str(symbol): z for z, symbol in enumerate(np.load(path)["symbol"], start=1)}


@cache
def isotope_fractions() -> dict[tuple[int, int], float]:
    """Fraction of the atoms of an element by (atomic number, mass number), as on Earth.

    Table of the IUPAC (Meija et al. 2016, Pure Appl. Chem. 88, 293), which the solar mixture follows for all
    elements that have isotopic lines in stellar spectra.
    """
    text = (resources.files("jaxspec.physics.data") / "isotopes.csv").read_text()
    rows = (row.split(",") for row in text.splitlines()[1:])
    return {(int(z), int(mass)): float(fraction) for z, mass, fraction in rows}


@cache
def number_of(symbol: str) -> int | None:
    """Atomic number of `symbol`, `MOLECULE` if it is a formula of several atoms, None if it is neither."""
    known = atomic_numbers()
    if symbol in known:
        return known[symbol]
    parts = re.findall(r"([A-Z][a-z]?)(\d*)", symbol)
    whole = "".join(a + n for a, n in parts) == symbol
    atoms = sum(int(n or 1) for _, n in parts)
    return MOLECULE if whole and atoms > 1 and all(a in known for a, _ in parts) else None


def wanted(wavelength: float, low: float, high: float) -> bool:
    """Whether a row is in the range, or has no possible wavelength, so that it gets refused."""
    return not (0 < wavelength < low or high < wavelength < np.inf)


def linear_width(log_gamma: float) -> float:
    """Radiative width (s^-1) from its log10; 0, which stands for an unknown one, stays 0."""
    return 10.0**log_gamma if log_gamma else 0.0
