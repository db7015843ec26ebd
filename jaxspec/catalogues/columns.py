"""Columns of any table that astropy reads: opened, and turned into numbers or text at the door.

Every number that a survey writes for "not measured" becomes NaN here, units are converted, and what is
neither a number nor a sentinel is refused by name.
"""

import gzip
import warnings
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.table import MaskedColumn, Table

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
            where = {} if hdu is None else {"hdu": hdu}
            table = Table.read(_text(path) + "\n", format=kind) if kind else Table.read(path, **where)
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
    """A text table without the byte-order mark of Excel's "CSV UTF-8", which would become part of a name."""
    data = path.read_bytes()
    data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def strings(table: Table, name: str) -> tuple[str, ...]:
    """A column as stripped text; "" for a masked cell and for 'NONE', '--' or 'N/A'."""
    column = table[name]
    values = column.filled("") if isinstance(column, MaskedColumn) and column.dtype.kind in "SU" else column
    out = [v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in values]
    return tuple("" if v.strip().upper() in ("NONE", "--", "N/A") else v.strip() for v in out)


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
    sentinel = values <= -9990.0
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
    table: Table, name: str, unit: str, path: Path, stated: u.UnitBase | str | None = None
) -> np.ndarray:
    """A column in `unit`, "dex" for logarithms: from the unit that the table (or `stated`) says it has.

    A column without a unit is taken as is. Raises `InputError` for a unit that does not convert.
    """
    values, _ = numbers(table, name, path)
    stated = table[name].unit if stated is None else stated
    text = "" if stated is None else str(stated).lower()
    if unit == "dex":
        # "dex", "log(cm.s**-2)" and VizieR's "[cm/s2]" all say that the number is a logarithm.
        if text and "dex" not in text and "log" not in text and not text.startswith(("[", "-")):
            raise InputError(f"{path} column {name}", f"unit {stated}", "dex", "convert the column")
        return values
    if not text or not unit:
        return values
    try:
        return (values * u.Unit(stated)).to_value(u.Unit(unit))
    except (u.UnitConversionError, ValueError, TypeError) as error:
        raise InputError(f"{path} column {name}", f"unit {stated}", unit, "convert the column") from error


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
