"""Labels of a table by its column map: units, sentinels, errors, sums of [X/Fe] and [Fe/H], the solar scale.

Everything that is changed or left out on the way is added to the notes.
"""

import difflib
import re
from collections.abc import Mapping

import numpy as np
from astropy.table import Column, MaskedColumn, Table

from jaxspec.catalogues.columns import in_unit, numbers
from jaxspec.catalogues.solar import solar_scale
from jaxspec.catalogues.spec import Quantity, TableSpec
from jaxspec.errors import InputError
from jaxspec.labels import LABELS, LabelSet


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
    table, column = find_column(table, name, spec, entry)
    return _without(numbers(table, column, spec.file)[0], (*spec.missing, *missing))


def _without(values: np.ndarray, missing: tuple[float, ...]) -> np.ndarray:
    for sentinel in missing:
        # Relative to float32, in which many a table stores its 9.99.
        values = np.where(np.isclose(values, sentinel, rtol=1e-6, atol=1e-6), np.nan, values)
    return values


def read_labels(table: Table, spec: TableSpec, notes: list[str]):
    """For each mapped label: values and errors `[n]` as in the columns, units converted, and what it is
    relative to `[n]` (text, "" for nothing)."""
    n = len(table)
    values, errors, relative = {}, {}, {}
    for name, alternatives in spec.columns.items():
        value, error = np.full(n, np.nan), np.full(n, np.nan)
        base = np.full(n, "", dtype=object)
        for quantity in alternatives:
            where = f"columns.{name}"
            v = _quantity(table, name, quantity, spec, where)
            e = _errors(table, name, quantity, spec, notes, v)
            fill = np.isnan(value) & np.isfinite(v) & np.isfinite(e)
            base[fill] = "absolute" if quantity.absolute else quantity.relative_to or ""
            value[fill], error[fill] = v[fill], e[fill]
        values[name], errors[name], relative[name] = value, error, base
    return values, errors, relative


def _quantity(table: Table, label: str, quantity: Quantity, spec: TableSpec, where: str) -> np.ndarray:
    found, column = find_column(table, quantity.column, spec, where)
    value = in_unit(found, column, LABELS[label].unit, spec.file, quantity.unit)
    raw, _ = numbers(found, column, spec.file)
    value = np.where(np.isnan(_without(raw, (*spec.missing, *quantity.missing))), np.nan, value)
    if quantity.absolute:
        finite = value[np.isfinite(value)]
        if finite.size and np.median(finite) < 2.0:
            raise InputError(
                f"{spec.file}, column {column}",
                f"a median of {np.median(finite):.2f}",
                "A(X) = log eps = log10(N_X/N_H) + 12, 2 to 9 in most stars",
                "for a column relative to the Sun remove absolute: true, or read a plain label table",
            )
    if quantity.flag is not None:
        code = number_column(table, quantity.flag, spec, f"{where}.flag")
        known = np.where(np.isfinite(code), code, 0).astype(np.int64)
        bad = known != 0 if quantity.flag_bits is None else (known & quantity.flag_bits) != 0
        value = np.where(bad, np.nan, value)
    return value


def _errors(table: Table, label: str, quantity: Quantity, spec: TableSpec, notes: list[str], value):
    """Errors `[n]` of a quantity; empty cells (0 with an error of 0) are taken out of `value` in place."""
    where = f"errors.{label}"
    if quantity.error is None:
        raise InputError(
            f"{spec.file}, {where}",
            "no errors",
            "a column of errors, or one number for all",
            f"add errors: {{{label}: e_{quantity.column}}} or, with the survey's typical error, "
            f"{{{label}: {'100' if label == 'teff' else '0.1'}}}",
        )
    if isinstance(quantity.error, float):
        return np.full(len(value), quantity.error)
    names = (quantity.error,) if isinstance(quantity.error, str) else quantity.error
    parts = []
    for name in names:
        found, column = find_column(table, name, spec, where)
        part = in_unit(found, column, LABELS[label].unit, spec.file, quantity.unit)
        raw, _ = numbers(found, column, spec.file)
        parts.append(np.where(np.isnan(_without(raw, (*spec.missing, *quantity.missing))), np.nan, part))
    error = np.mean(np.abs(parts) if len(parts) > 1 else parts, axis=0)
    there = np.isfinite(value)
    empty = there & (value == 0.0) & (error == 0.0)
    value[empty] = np.nan
    rounded = there & ~empty & (error == 0.0) & quantity.rounded
    if rounded.any() and (error > 0).any():
        error = np.where(rounded, np.nanmin(error[error > 0]), error)
        notes.append(f"{label}: {int(rounded.sum())} errors of 0 raised to the smallest of the column")
    missing = there & ~empty & ~(error > 0)
    if missing.any() and quantity.otherwise is not None:
        error = np.where(missing, quantity.otherwise, error)
        notes.append(f"{label}: {int(missing.sum())} missing errors set to {quantity.otherwise:g}")
    elif missing.any():
        notes.append(f"{label}: {int(missing.sum())} values without an error left out")
    if empty.any():
        notes.append(f"{label}: {int(empty.sum())} empty cells (0 with an error of 0) left out")
    return np.where(error > 0, error, np.nan)


def assemble_labels(values, errors, relative, label_set: LabelSet, spec: TableSpec, notes: list[str]):
    """Labels `[n, l]` and their covariance `[n, l, l]`: a label relative to another is the sum of both, whose
    errors are taken as independent."""
    n, k = len(next(iter(values.values()))), len(label_set)
    labels, covariance = np.full((n, k), np.nan), np.zeros((n, k, k))
    bases = {b for base in relative.values() for b in set(base)} - {"", "absolute"}
    for base in bases:
        if base not in values:
            raise InputError(
                f"{spec.file}, columns",
                f"no {base}",
                f"a column for {base}, to which others are relative",
                f"map {base}",
            )
        if set(relative[base]) - {"", "absolute"}:
            raise InputError(
                f"{spec.file}, columns.{base}", "a relative column", "one relative to the Sun", "correct it"
            )
    shares = np.zeros((n, k), dtype=object)  # the label whose error each label shares, "" for none
    variance = np.zeros((n, k))
    for j, name in enumerate(label_set.names):
        shares[:, j] = ""
        if name not in values:
            continue
        labels[:, j], variance[:, j], shares[:, j] = values[name], errors[name] ** 2, relative[name]
        for base in bases:
            rows = relative[name] == base
            labels[rows, j] += values[base][rows]
            lost = rows & np.isfinite(values[name]) & np.isnan(values[base])
            if lost.any():
                notes.append(f"{name}: {int(lost.sum())} values without {base} left out")
    for base in bases:
        common = errors[base] ** 2
        share = shares == base
        share = share | (np.array(label_set.names) == base)[None, :]
        own = (np.array(label_set.names) == base)[None, :]
        variance = np.where(own, 0.0, variance)
        both = share[:, :, None] & share[:, None, :]
        covariance += np.where(both, common[:, None, None], 0.0)
    covariance[:, np.arange(k), np.arange(k)] += variance
    there = np.isfinite(labels)
    covariance = np.where(there[:, :, None] & there[:, None, :], covariance, 0.0)
    return labels, covariance


def to_solar_scale(
    labels: np.ndarray, label_set: LabelSet, spec: TableSpec, solar: str | Mapping[str, float] | None
) -> tuple[str, dict[str, float]]:
    """Bring `labels [n, l]`, in place, to the solar scale wanted; the scale they are on, in words, and the
    Sun's A(X) of the labels where they are known."""
    where = f"table {spec.name}, solar_scale"
    absolute = {name for name, q in spec.columns.items() if any(x.absolute for x in q)}
    differential = spec.solar_scale in (None, "differential")
    own = None if differential else solar_scale(spec.solar_scale, where)
    wanted = None if solar is None else solar_scale(solar, "solar_scale")
    if absolute and wanted is None and own is None:
        raise InputError(
            where, "none", "the Sun's A(X), as the table has absolute abundances", "name a solar scale"
        )
    for j, name in enumerate(label_set.names):
        if name in absolute:
            sun = wanted if wanted is not None else own
            if name not in sun:
                raise InputError(where, f"no {name}", "the Sun's A(X) of every element", "add it")
            labels[:, j] -= sun[name]
        elif own is not None and wanted is not None and name in own and name in wanted:
            labels[:, j] += own[name] - wanted[name]
    named = "given" if isinstance(spec.solar_scale, Mapping) else str(spec.solar_scale)
    target = "given" if isinstance(solar, Mapping) else str(solar)
    sun = (own if wanted is None else wanted) or {}
    on = {n: sun[n] for n in label_set.names if n in sun and (own is not None or n in absolute)}
    if own is not None and wanted is not None and own != wanted:
        return f"{target}, converted from {named}", on
    if differential:
        words = "relative to the authors' own Sun" if spec.solar_scale else "not stated, left as it is"
        return words, on
    return named, on
