"""Shared by readers of model atmospheres: numbers in lines, tables, and the limits of what can be."""

import re
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxspec.errors import InputError
from jaxspec.physics.atmosphere import Atmosphere

N_ELEMENTS = 92
NAN = float("nan")
# Columns have fixed widths and may touch; exponents have two digits.
NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[EeDd][+-]?\d{1,2})?")


class AtmosphereFile(NamedTuple):
    """One model atmosphere and what its file says of it; NaN and None where the file says nothing.

    The synthesis is plane-parallel: it takes the structure of a `spherical` model as if it were flat. What
    that does to the lines of giants is measured by Heiter & Eriksson (2006, A&A 452, 1039).
    """

    atmosphere: Atmosphere
    format: str  # "marcs", "atlas" or "moog"
    geometry: str  # "plane-parallel" or "spherical"
    teff: float = NAN  # K
    logg: float = NAN  # log10 of cm s^-2
    m_h: float = NAN  # dex: MARCS' [Fe/H], the logarithm of ATLAS' abundance scale, MOOG's metallicity
    alpha_m: float = NAN  # dex
    vmic: float = NAN  # km/s; NaN also where it varies with depth
    # A(X) = log10 n_X / n_H + 12 of Z = 1..92; NaN for single elements that are not given.
    abundances: Float[np.ndarray, " 92"] | None = None


class Text(NamedTuple):
    """The lines of a file, and its name for messages; lines are counted from 0 here, from 1 in messages."""

    where: str
    lines: list[str]

    def wrong(self, i: int, found: str, expected: str, fix: str = "repair the file") -> InputError:
        """The error for something wrong in line `i`."""
        return InputError(f"{self.where} line {i + 1}", found, expected, fix)

    def line(self, i: int) -> str:
        """Line `i`, or nothing behind the end."""
        return self.lines[i] if i < len(self.lines) else ""

    def quoted(self, i: int) -> str:
        """Line `i` as a message shows it."""
        return repr(self.lines[i][:80]) if i < len(self.lines) else "the end of the file"

    def find(self, pattern: str, start: int = 0) -> int:
        """The first line, from `start`, with the pattern; raises `InputError` if there is none."""
        for i in range(start, len(self.lines)):
            if re.search(pattern, self.lines[i]):
                return i
        raise InputError(
            self.where,
            f"no line with {pattern!r} from line {start + 1} on",
            "one",
            "the file is truncated or of another format: fetch it again",
        )

    def numbers(self, i: int, expected: str) -> list[float]:
        """The line's numbers; raises `InputError` if it has none, or anything else."""
        line = self.line(i)
        if i >= len(self.lines):
            raise self.wrong(i, self.quoted(i), expected, "the file is truncated: fetch it again")
        if NUMBER.sub("", line).strip() or not line.strip():
            raise self.wrong(i, self.quoted(i), expected)
        return [float(re.sub("[Dd]", "E", number)) for number in NUMBER.findall(line)]

    def stated(self, phrase: str, count: int = 1) -> list[float]:
        """The numbers at the start of the first line with the phrase, `count` or more."""
        i = self.find(phrase)
        words = self.lines[i].split()[:count]
        if len(words) < count or not all(NUMBER.fullmatch(word) for word in words):
            raise self.wrong(i, self.quoted(i), f"{count} number(s) before {phrase!r}")
        return [float(word) for word in words]

    def table(self, start: int, layers: int, columns: int) -> Float[np.ndarray, "layers columns"]:
        """`layers` rows from line `start` on, with `columns` or more numbers, the same in all.

        Raises `InputError` for fewer rows, for rows of other lengths and for a last line that was cut off.
        """
        if layers < 2:
            raise self.wrong(start - 1, f"{layers} layers", "2 or more")
        rows: list[list[float]] = []
        for i in range(start, start + layers):
            row = self.numbers(i, f"numbers of layer {i - start + 1} of {layers}")
            if len(row) < columns or (rows and len(row) != len(rows[0])):
                expected = f"{len(rows[0])} as above" if rows else f"{columns} or more"
                raise self.wrong(i, f"{len(row)} columns", expected)
            rows.append(row)
        last = start + layers - 1
        widths = [len(self.lines[i].rstrip()) for i in (last - 1, last)]
        if last == len(self.lines) - 1 and widths[1] < widths[0]:
            fix = "the file is truncated: fetch it again"
            raise self.wrong(last, "a line that is cut off", "a complete last line", fix)
        return np.array(rows)


def make_atmosphere(
    text: Text,
    start: int,
    mass: Float[np.ndarray, " layers"],
    temperature: Float[np.ndarray, " layers"],
    pressure: Float[np.ndarray, " layers"],
    weight: Float[np.ndarray, " layers"] | None = None,
) -> Atmosphere:
    """The atmosphere of these columns (g cm^-2, K, dyn cm^-2), the first layer of which stands in line
    `start`.

    Raises `InputError` for values that no atmosphere has, among them a mean molecular `weight` out of 0.5 to
    4.
    """
    for name, values in (("temperature", temperature), ("gas pressure", pressure), ("column mass", mass)):
        for i in np.flatnonzero(~(np.isfinite(values) & (values > 0))).tolist():
            raise text.wrong(start + i, f"{name} {values[i]:g}", "a positive number")
    columns = [np.asarray(values, np.float32) for values in (mass, temperature, pressure)]
    for i in np.flatnonzero(np.diff(columns[0]) <= 0).tolist():
        found = f"column mass {mass[i + 1]:g} after {mass[i]:g}"
        raise text.wrong(start + i + 1, found, "column mass that grows from layer to layer")
    if weight is not None:
        for i in np.flatnonzero(~((weight > 0.5) & (weight < 4.0))).tolist():
            raise text.wrong(start + i, f"mean molecular weight {weight[i]:g}", "0.5 to 4")
    return Atmosphere(*(jnp.asarray(values) for values in columns))
