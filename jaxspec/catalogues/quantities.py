"""Labels of a table by its column map: units, sentinels, errors, sums of [X/Fe] and [Fe/H], the solar scale.

Everything that is changed or left out on the way is added to the notes.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from astropy.table import Table

from jaxspec.catalogues.columns import find_column, in_unit, numbers, without
from jaxspec.catalogues.error_columns import check_errors
from jaxspec.catalogues.flags import flagged
from jaxspec.catalogues.solar import solar_scale
from jaxspec.catalogues.spec import FlagRule, Quantity, TableSpec
from jaxspec.errors import InputError
from jaxspec.labels import LABELS, LabelSet


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
    value = in_unit(found, column, LABELS[label].unit, spec.file, quantity.unit, label=label)
    raw, _ = numbers(found, column, spec.file)
    value = np.where(np.isnan(without(raw, (*spec.missing, *quantity.missing))), np.nan, value)
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
        mask = quantity.flag_bits or 0
        bits = tuple(bit for bit in range(63) if mask >> bit & 1)
        # Of limits, Gaia-ESO writes -1 and -9999 for "not stated"; of other flags every number is a code.
        limits = quantity.flag.upper().startswith(("UPPER_", "LIM_"))
        known = replace(spec, missing=(*spec.missing, -1.0, -9999.0)) if limits else spec
        value = np.where(flagged(table, FlagRule(quantity.flag, bits), known, f"{where}.flag"), np.nan, value)
    return value


def _error_unit(table: Table, column: str, quantity: Quantity, spec: TableSpec, where: str):
    """The unit of a column of errors: its own, or that of the values where it states none.

    A unit that the entry gives the values holds for errors that state the same as the values do.
    """
    values, name = find_column(table, quantity.column, spec, where)
    errors, own = find_column(table, column, spec, where)
    of_values, of_errors = values[name].unit, errors[own].unit
    stated = of_errors is not None and str(of_errors) != ""
    if not stated or (quantity.unit is not None and str(of_errors) == str(of_values or "")):
        return quantity.unit if quantity.unit is not None else of_values
    return of_errors


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
        unit = _error_unit(table, name, quantity, spec, where)
        part = in_unit(found, column, LABELS[label].unit, spec.file, unit, label=label, difference=True)
        raw, _ = numbers(found, column, spec.file)
        parts.append(np.where(np.isnan(without(raw, (*spec.missing, *quantity.missing))), np.nan, part))
    check_errors(names, parts, value, label, quantity, spec, where)
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
                f"{spec.file}, columns.{base}",
                "a relative column",
                "one relative to the Sun",
                "map a column of [X/H], not of [X/Fe]",
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
    scale = spec.solar_scale
    own = None if scale is None or scale == "differential" else solar_scale(scale, where)
    wanted = None if solar is None else solar_scale(solar, "solar_scale")
    if absolute and wanted is None and own is None:
        raise InputError(
            where, "none", "the Sun's A(X), as the table has absolute abundances", "name a solar scale"
        )
    for j, name in enumerate(label_set.names):
        if name in absolute:
            sun = wanted if wanted is not None else own
            assert sun is not None
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
    if own is None:
        words = "relative to the authors' own Sun" if spec.solar_scale else "not stated, left as it is"
        return words, on
    return named, on
