"""Stars as a table of quantities with errors, where anything may be missing, and its split into parts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxspec.errors import InputError
from jaxspec.labels import LABELS, Label

PARTS = {"test": 0.15, "validation": 0.05, "train": 0.80}
"""Share of the sources in each part."""


@dataclass(frozen=True)
class Quantity:
    """A column of a table.

    Attributes:
        name: by which it is given and asked for.
        unit: an astropy unit string.
        description: one line, for tables.
    """

    name: str
    unit: str = ""
    description: str = ""


STELLAR = {
    quantity.name: quantity
    for quantity in (
        Quantity("g", "mag", "Gaia G magnitude"),
        Quantity("bp_rp", "mag", "Gaia colour BP - RP"),
        Quantity("g_j", "mag", "colour G - J"),
        Quantity("j_h", "mag", "colour J - H"),
        Quantity("h_k", "mag", "colour H - Ks"),
        Quantity("teff", "K", "effective temperature"),
        Quantity("logg", "dex", "log10 of the surface gravity in cm/s2"),
        Quantity("fe_h", "dex", "iron abundance relative to the Sun"),
        Quantity("alpha_m", "dex", "alpha elements relative to all metals"),
        Quantity("a_k", "mag", "extinction in Ks"),
    )
}
COLOURS = ("bp_rp", "g_j", "j_h", "h_k")
ATMOSPHERE = ("teff", "logg", "fe_h", "alpha_m")

BOUNDS = {
    "teff": (2500.0, 10_000.0),
    "logg": (-1.5, 6.5),
    "fe_h": (-4.0, 1.5),
    "alpha_m": (-1.0, 1.0),
    "a_k": (-1.0, 5.0),
}
"""Of labels in posteriors: wider than anything that the model was trained on."""


def label(name: str) -> Label:
    """The label of a quantity, for posteriors.

    Raises: InputError for a quantity that is no label.
    """
    if name not in BOUNDS:
        raise InputError(
            "label", repr(name), f"one of {', '.join(BOUNDS)}", "ask for quantities with predict"
        )
    low, high = BOUNDS[name]
    known = LABELS.get(name)
    quantity = STELLAR[name]
    latex = known.latex if known else {"alpha_m": r"$[\alpha/\mathrm{M}]$", "a_k": "$A_K$"}[name]
    ucd = known.ucd if known else {"alpha_m": "phys.abund", "a_k": "phys.absorption"}[name]
    return Label(name, quantity.unit, low, high, latex, ucd, quantity.description)


class Table(NamedTuple):
    """Quantities of stars.

    Attributes:
        names: of the columns.
        values: `[n, k]`; NaN where a quantity is missing.
        errors: standard errors, `[n, k]`; NaN where the value is missing, 0 where it is exact.
        source: identifiers, `[n]`.
    """

    names: tuple[str, ...]
    values: Float[np.ndarray, "n k"]
    errors: Float[np.ndarray, "n k"]
    source: Int[np.ndarray, " n"]

    @property
    def n_stars(self) -> int:
        """Number of stars."""
        return len(self.values)

    def rows(self, index: np.ndarray | slice) -> Table:
        """Some of the stars: indices, a slice or a boolean mask."""
        return Table(self.names, self.values[index], self.errors[index], self.source[index])

    def columns(self, names: Iterable[str]) -> Table:
        """Some of the quantities, in this order.

        Raises: InputError for a quantity that the table does not have.
        """
        names = tuple(names)
        index = [self.place(name) for name in names]
        return Table(names, self.values[:, index], self.errors[:, index], self.source)

    def place(self, name: str) -> int:
        """The column of a quantity.

        Raises: InputError for one that the table does not have.
        """
        if name not in self.names:
            raise InputError("quantity", repr(name), f"one of {short(self.names)}", "ask for one of these")
        return self.names.index(name)

    def without(self, names: Iterable[str]) -> Table:
        """All quantities but these."""
        hidden = set(names)
        return self.columns(name for name in self.names if name not in hidden)


def short(names: Sequence[str]) -> str:
    """A list of names in which numbered ones are given as a range."""
    out: list[str] = []
    for name in names:
        stem, _, number = name.rpartition("_")
        if number.isdigit() and stem:
            start = next((i for i, text in enumerate(out) if text.startswith(f"{stem}_1 to ")), None)
            if start is not None:
                out[start] = f"{stem}_1 to {name}"
                continue
            name = f"{stem}_1 to {name}" if number == "1" else name
        out.append(name)
    return ", ".join(out)


def part(source: Int[np.ndarray, " n"], seed: int) -> dict[str, Bool[np.ndarray, " n"]]:
    """Which stars are in each of `PARTS`. It depends on a star's identifier and on `seed` alone, so that
    repeated observations of a star stay together, and new stars move none."""
    share = _uniform(source, seed)
    out, start = {}, 0.0
    for name, width in PARTS.items():
        out[name] = (share >= start) & (share < start + width) if name != "train" else share >= start
        start += width
    return out


def _uniform(source: Int[np.ndarray, " n"], seed: int) -> Float[np.ndarray, " n"]:
    """A number in [0, 1) for each integer (the finaliser of SplitMix64; Steele et al. 2014, OOPSLA)."""
    with np.errstate(over="ignore"):
        x = np.asarray(source).astype(np.uint64) + np.uint64(seed) * np.uint64(0xD1342543DE82EF95)
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    return (x >> np.uint64(11)).astype(np.float64) / 2.0**53
