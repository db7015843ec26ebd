"""Columns of any table that astropy reads: opened, and turned into numbers or text at the door.

Every number that a survey writes for "not measured" becomes NaN here, units are converted, and what is
neither a number nor a sentinel is refused by name.
"""

import difflib
import gzip
import re
import warnings
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import Column, MaskedColumn, Table

from jaxspec.catalogues.cells import bare, is_blank
from jaxspec.catalogues.spec import TableSpec
from jaxspec.errors import InputError
from jaxspec.labels import LabelSet


def open_table(path: Path, hdu: int | str | None = None) -> Table:
    """A CSV, ECSV, text, FITS or other astropy-readable table; `hdu` chooses among the tables of a FITS file.

    Raises `InputError` naming the file when there is none, it cannot be read or has no rows.
    """
    if not path.exists():
        raise InputError(str(path), "no such file", "a table", "check the path")
    suffixes = [s.lower() for s in path.suffixes if s.lower() != ".gz"]
    kind = {".csv": "ascii.csv", ".ecsv": "ascii.ecsv", ".txt": "ascii", ".dat": "ascii"}.get(
        suffixes[-1] if suffixes else ""
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            where: dict[str, Any] = {} if hdu is None else {"hdu": hdu}
            if kind:
                text = _text(path)
                if (
                    kind == "ascii.csv"
                    and ";" in text.partition("\n")[0]
                    and "," not in text.partition("\n")[0]
                ):
                    where["delimiter"] = ";"  # where commas are decimal points
                table = Table.read(text.splitlines(), format=kind, **where)
            else:
                table = Table.read(path, **where)
        except Exception as error:  # astropy raises a dozen types for damaged or foreign tables
            raise InputError(
                str(path),
                f"{type(error).__name__}: {str(error)[:200]}",
                "a CSV, ECSV or FITS table",
                "check the file",
            ) from error
    if not len(table):
        raise InputError(str(path), "a table without rows", "at least one star", "check the file")
    return table


def _text(path: Path) -> str:
    """The text of a file, gzipped or not: UTF-8, or UTF-16 by its byte-order mark, else Latin-1."""
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def strings(table: Table, name: str, blanks: bool = True) -> tuple[str, ...]:
    """A column as stripped text; "" for a masked cell and (with `blanks`) for 'NONE', '--', '-' or 'N/A'."""
    column = table[name]
    values = [v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in np.asarray(column)]
    hidden = np.ma.getmaskarray(column) if isinstance(column, MaskedColumn) else np.zeros(len(values), bool)
    return tuple(
        "" if h or (blanks and is_blank(v)) else v.strip() for v, h in zip(values, hidden, strict=True)
    )


def numbers(table: Table, name: str, path: Path) -> tuple[np.ndarray, int]:
    """A column as float64 with every form of "no value" as NaN, and how many there were."""
    column = table[name]
    if column.dtype.kind in "SUO":
        values = np.array(
            [np.nan if s == "" else _float(s, name, i, path) for i, s in enumerate(strings(table, name))]
        )
    elif column.dtype.kind in "fiub" and column.ndim == 1:
        values = np.asarray(
            column.filled(np.nan)
            if isinstance(column, MaskedColumn) and column.dtype.kind == "f"
            else column,
            np.float64,
        )
        if isinstance(column, MaskedColumn):
            values = np.where(np.ma.getmaskarray(column), np.nan, values)
    else:
        raise InputError(
            f"{path} column {name}",
            f"{column.dtype} of shape {column.shape}",
            "one number a row",
            "check the table",
        )
    # -9.999995e+08 in float32 is -999999488, and the smallest integers fill other tables; -9999, -9999.99 and
    # -9990 stand for "none" in half of them (and -1 for codes and counts, which are never negative).
    # 1e20 is what numpy writes for a masked number.
    sentinel = (values <= -9990.0) | (np.abs(values) >= 1e20 * (1 - 1e-6))
    if column.dtype.kind in "iu" or name.upper().startswith(("UPPER_", "LIM_", "NN_", "E_")):
        sentinel |= values == -1
    values = np.where(sentinel | np.isinf(values), np.nan, values)
    return values, int(np.isnan(values).sum())


def _float(text: str, name: str, row: int, path: Path) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(
            f"{path} column {name} row {row}", repr(text), "a number", "correct the cell"
        ) from None


def in_unit(
    table: Table,
    name: str,
    unit: str,
    path: Path,
    stated: u.UnitBase | str | None = None,
    *,
    label: str = "",
    difference: bool = False,
) -> np.ndarray:
    """A column in `unit`, "dex" for logarithms: from the unit that the table (or `stated`) says it has.

    A column without a unit is taken as is. The logarithm of a gravity (`label` "logg") is brought to cm/s2;
    a `difference`, such as an error, does not depend on what the logarithm is of. Raises `InputError` for a
    unit that does not convert.
    """
    values, _ = numbers(table, name, path)
    stated = table[name].unit if stated is None else stated
    text = "" if stated is None else str(stated).lower()
    if unit == "dex":
        # "dex", "log(cm.s**-2)" and VizieR's "[cm/s2]" all say that the number is a logarithm.
        if text and "dex" not in text and "log" not in text and not text.startswith(("[", "-")):
            raise InputError(f"{path} column {name}", f"unit {stated}", "dex", "convert the column")
        shift = _zero_point(str(stated or ""), label, f"{path} column {name}")
        return values if difference else values + shift
    if not text or not unit:
        return values
    try:
        return (values * u.Unit(stated)).to_value(u.Unit(unit))
    except (u.UnitConversionError, ValueError, TypeError) as error:
        raise InputError(f"{path} column {name}", f"unit {stated}", unit, "convert the column") from error


def _zero_point(stated: str, label: str, where: str) -> float:
    """Offset from a logarithm of `stated`, such as "log(m.s**-2)", to that of jaxspec's own unit."""
    inside = re.fullmatch(r"\s*[a-z0-9]*\s*[(\[](.*)[)\]]\s*", stated, re.IGNORECASE)
    if not label or inside is None or not bare(inside[1]):
        return 0.0
    solar = label != "logg" and re.search("sun|sol", inside[1], re.IGNORECASE)
    expected = u.cm / u.s**2 if label == "logg" else u.dimensionless_unscaled
    try:
        unit = u.Unit(inside[1])
    except (ValueError, TypeError):
        unit = u.dimensionless_unscaled if label != "logg" else None  # "log(N/N_H)"
    if solar or (unit is not None and unit.is_equivalent(u.dimensionless_unscaled)):
        return 0.0
    if unit is None or not unit.is_equivalent(expected):
        what = "dex (log of cm/s2)" if label == "logg" else "dex"
        raise InputError(where, f"unit {stated}", what, "convert the column, or correct its unit with units:")
    return float(np.log10(unit.to(expected)))


def find_column(table: Table, name: str, spec: TableSpec, entry: str) -> tuple[Table, str]:
    """The table and the column's exact name in it, for a name in any case or an element `name[k]` of a vector
    column. Raises `InputError` that names similar columns."""
    if name in table.colnames:
        return table, name
    folded = [c for c in table.colnames if c.lower() == name.lower()]
    if len(folded) == 1:
        return table, folded[0]
    element = re.fullmatch(r"(.+)\[(\d+)\]", name)
    if element:
        table, column = find_column(table, element[1], spec, entry)
        k, vector = int(element[2]), table[column]
        if vector.ndim == 2 and k < vector.shape[1]:
            made = MaskedColumn if isinstance(vector, MaskedColumn) else Column
            return Table({name: made(vector[:, k], unit=vector.unit)}), name
    near = difflib.get_close_matches(name.lower(), [c.lower() for c in table.colnames], 4, 0.5)
    near = [c for c in table.colnames if c.lower() in near]
    raise InputError(
        f"{spec.file}, {entry}",
        f"no column {name!r}",
        f"a column of the table{', perhaps ' + ', '.join(near) if near else ''}",
        f"correct the name; there are {len(table.colnames)} columns, from {table.colnames[0]} on",
    )


def number_column(table: Table, name: str, spec: TableSpec, entry: str, missing=()) -> np.ndarray:
    """A column of numbers, by a name that `find_column` knows, without those of the entry's `missing`."""
    table, column = find_column(table, name, spec, entry)
    return without(numbers(table, column, spec.file)[0], (*spec.missing, *missing))


def without(values: np.ndarray, missing: tuple[float, ...]) -> np.ndarray:
    """Numbers with those of `missing` as NaN."""
    for sentinel in missing:
        # Relative to float32, in which many a table stores its 9.99.
        values = np.where(np.isclose(values, sentinel, rtol=1e-6, atol=1e-6), np.nan, values)
    return values


def check_physical(labels: np.ndarray, label_set: LabelSet, where: str) -> None:
    """Values no star has mean a wrong column or unit (stars outside our own bounds are fine here)."""
    limits = {"teff": (1000.0, 60000.0), "logg": (-2.0, 9.0)}
    for j, name in enumerate(label_set.names):
        low, high = limits.get(name, (-8.0, 4.0) if name.endswith("_h") else (-np.inf, np.inf))
        bad = np.isfinite(labels[:, j]) & ~((labels[:, j] >= low) & (labels[:, j] <= high))
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise InputError(
                f"{where} label {name} row {row}",
                f"{labels[row, j]:g} ({int(bad.sum())} such rows)",
                f"between {low:g} and {high:g}",
                "check the column, its unit and its sentinels",
            )
