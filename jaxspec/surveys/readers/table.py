"""From a table and its column map to a `SurveyCatalogue`: units, solar scale, sentinels, errors, flags.

Everything that is changed or left out on the way is counted in the catalogue's notes.
"""

import difflib
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.coordinates import Angle
from astropy.table import Column, MaskedColumn, Table
from jaxtyping import Bool, Float

from jaxspec.errors import InputError
from jaxspec.io.columns import check_physical, in_unit, numbers, open_table, strings
from jaxspec.io.solar import solar_scale
from jaxspec.labels import LabelSet
from jaxspec.surveys.catalogues import Identifiers, SurveyCatalogue, identifiers
from jaxspec.surveys.readers.layouts import LAYOUTS
from jaxspec.surveys.readers.posterior import is_posterior, posterior_labels, read_likelihoods
from jaxspec.surveys.readers.spec import FlagRule, Quantity, TableSpec


def read_survey(
    spec: TableSpec, label_set: LabelSet, solar: str | Mapping[str, float] | None = None
) -> SurveyCatalogue:
    """Read one table. Labels that the table does not have are NaN.

    Abundances of a table whose own solar scale is stated are brought to the scale `solar`: [X/H] + A(X)_own -
    A(X)_solar. An analysis differential to the authors' own solar spectrum has no scale to state. The
    covariance of the quoted errors follows the columns: labels given as [X/Fe] share the error of [Fe/H].

    An error of exactly 0 was rounded to it and becomes the column's smallest positive error; a value of
    exactly 0 with an error of exactly 0 is an empty cell. A value without an error is left out.

    Raises `InputError` naming the file and column for what is missing, of the wrong type or unit, for a label
    without errors, for values that no star has, and for rows none of which can be identified.
    """
    likelihoods = read_likelihoods(spec) if is_posterior(spec) else None
    if likelihoods is not None:
        spec, table = likelihoods.spec, likelihoods.table
    elif spec.stars is not None:
        raise InputError(
            f"table {spec.name}, stars", "given for a table", "a posterior.nc", "give the columns themselves"
        )
    else:
        table = open_table(spec.file, spec.hdu)
    if likelihoods is None and spec.format != "generic":
        if spec.format not in LAYOUTS:
            raise InputError(
                f"table {spec.name}, format",
                repr(spec.format),
                f"generic, posterior or one of {', '.join(LAYOUTS)}",
                "correct it",
            )
        spec = LAYOUTS[spec.format](spec, table)
    notes: list[str] = []
    n_rows = len(table)
    keep = _select(table, spec)
    if not keep.any():
        raise InputError(
            f"{spec.file}, select", f"none of {n_rows} rows left", "at least one", "widen the limits"
        )
    if not keep.all():
        notes.append(f"{int((~keep).sum())} of {n_rows} rows not selected")
        table = table[keep]
    mapped = tuple(spec.columns) if likelihoods is None else likelihoods.names
    wanted = [name for name in mapped if name in label_set.names]
    if not wanted:
        raise InputError(
            f"table {spec.name}, columns",
            ", ".join(mapped) or "no labels",
            f"some of {', '.join(label_set.names)}",
            "map at least one label to a column",
        )
    if likelihoods is None:
        labels, covariance = _assemble(*_labels(table, spec, notes), label_set, spec, notes)
    else:
        labels, covariance = likelihoods.on(label_set, keep)
        notes += likelihoods.notes
    scale = _to_scale(labels, label_set, spec, solar)
    if likelihoods is None:  # a flat likelihood may peak anywhere
        _check(labels, label_set, spec)
    for j, label in enumerate(label_set):
        if label.name in wanted and not np.isfinite(labels[:, j]).any():
            notes.append(f"{label.name}: no value in any row")
    who = _identifiers(table, spec)
    if not who.named.any():
        raise InputError(
            f"{spec.file}, identifiers",
            "no row with an identifier or a position",
            "identifiers such as {hip: HIP}, {gaia: source_id}, {ra: RAJ2000, dec: DEJ2000} or {name: Star}",
            "give the columns that say which star is which",
        )
    if not who.named.all():
        notes.append(f"{int((~who.named).sum())} rows without any identifier: matched with nothing")
    notes += who.notes
    flags, meaning = _flags(table, spec)
    band, column = next(iter(spec.magnitude.items()), ("", None))
    return SurveyCatalogue(
        spec.name,
        label_set,
        who,
        labels,
        covariance,
        flags,
        meaning,
        magnitude=None if column is None else _number_column(table, column, spec, "magnitude"),
        band=band,
        cluster=None if spec.cluster is None else _clusters(table, spec),
        anchor=spec.anchor,
        errors_only=likelihoods is None,
        solar=scale,
        notes=tuple(notes),
        provenance={
            "file": str(spec.file),
            "sha256": hashlib.sha256(spec.file.read_bytes()).hexdigest(),
            "format": spec.format if likelihoods is None else "posterior",
            "rows": n_rows,
        },
    )


def _check(labels: np.ndarray, label_set: LabelSet, spec: TableSpec) -> None:
    try:
        check_physical(labels, label_set, str(spec.file))
    except InputError as error:
        fix = "check the column and its unit; if the number stands for no value, list it under missing:"
        raise InputError(error.where, error.found, error.expected, fix) from None


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


def _number_column(table: Table, name: str, spec: TableSpec, entry: str, missing=()) -> np.ndarray:
    table, column = find_column(table, name, spec, entry)
    return _without(numbers(table, column, spec.file)[0], (*spec.missing, *missing))


def _without(values: np.ndarray, missing: tuple[float, ...]) -> np.ndarray:
    for sentinel in missing:
        # Relative to float32, in which many a table stores its 9.99.
        values = np.where(np.isclose(values, sentinel, rtol=1e-6, atol=1e-6), np.nan, values)
    return values


# --- labels


def _labels(table: Table, spec: TableSpec, notes: list[str]):
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
    value = in_unit(found, column, _unit(label), spec.file, quantity.unit)
    raw, _ = numbers(found, column, spec.file)
    value = np.where(np.isnan(_without(raw, (*spec.missing, *quantity.missing))), np.nan, value)
    if quantity.absolute:
        finite = value[np.isfinite(value)]
        if finite.size and np.median(finite) < 2.0:
            raise InputError(
                f"{spec.file}, column {column}",
                f"a median of {np.median(finite):.2f}",
                "A(X) = log10(N_X/N_H) + 12, 2 to 9 in most stars",
                "remove absolute: true if the column is relative to the Sun",
            )
    if quantity.flag is not None:
        code = _number_column(table, quantity.flag, spec, f"{where}.flag")
        known = np.where(np.isfinite(code), code, 0).astype(np.int64)
        bad = known != 0 if quantity.flag_bits is None else (known & quantity.flag_bits) != 0
        value = np.where(bad, np.nan, value)
    return value


def _unit(label: str) -> str:
    return {"teff": "K", "ebv": "mag"}.get(label, "dex")


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
        part = in_unit(found, column, _unit(label), spec.file, quantity.unit)
        raw, _ = numbers(found, column, spec.file)
        parts.append(np.where(np.isnan(_without(raw, (*spec.missing, *quantity.missing))), np.nan, part))
    error = np.mean(np.abs(parts) if len(parts) > 1 else parts, axis=0)
    there = np.isfinite(value)
    empty = there & (value == 0.0) & (error == 0.0)
    value[empty] = np.nan
    rounded = there & ~empty & (error == 0.0)
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


def _assemble(values, errors, relative, label_set: LabelSet, spec: TableSpec, notes: list[str]):
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


def _to_scale(labels: np.ndarray, label_set: LabelSet, spec: TableSpec, solar) -> str:
    """Bring `labels [n, l]`, in place, to the solar scale wanted; the scale they are on, in words."""
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
    if own is not None and wanted is not None and own != wanted:
        return f"{target}, converted from {named}"
    if differential:
        return "relative to the authors' own Sun" if spec.solar_scale else "not stated, left as it is"
    return named


# --- rows


def _select(table: Table, spec: TableSpec) -> Bool[np.ndarray, " n"]:
    keep = np.ones(len(table), bool)
    for name, wanted in spec.select.items():
        where = f"select.{name}"
        found, column = find_column(table, name, spec, where)
        if isinstance(wanted, list) and len(wanted) == 2 and not any(isinstance(w, str) for w in wanted):
            value = _number_column(table, name, spec, where)
            low = -np.inf if wanted[0] is None else wanted[0]
            high = np.inf if wanted[1] is None else wanted[1]
            keep &= (value >= low) & (value <= high)
        elif found[column].dtype.kind in "SUO":
            texts = {str(w) for w in (wanted if isinstance(wanted, list) else [wanted])}
            keep &= np.array([text in texts for text in strings(found, column)])
        else:
            accepted = wanted if isinstance(wanted, list) else [wanted]
            if not all(isinstance(w, (int, float)) for w in accepted):
                raise InputError(
                    f"{spec.file}, {where}", repr(wanted), "[lowest, highest] or numbers", "correct it"
                )
            keep &= np.isin(_number_column(table, name, spec, where), accepted)
    return keep


def _identifiers(table: Table, spec: TableSpec) -> Identifiers:
    names = {"gaia" if kind == "gaia_dr3" else kind: column for kind, column in spec.identifiers.items()}
    given = {}
    for kind, name in names.items():
        if kind == "epoch" and not isinstance(name, str):
            given[kind] = float(name)
            continue
        found, column = find_column(table, str(name), spec, f"identifiers.{kind}")
        if kind in ("ra", "dec"):
            given[kind] = _angle(found, column, kind, spec)
        elif kind in ("pmra", "pmdec", "epoch"):
            given[kind] = in_unit(found, column, "" if kind == "epoch" else "mas/yr", spec.file)
        else:
            given[kind] = found[column]
    return identifiers(len(table), **given, where=f"{spec.file}, identifiers")


def _angle(table: Table, column: str, kind: str, spec: TableSpec) -> Float[np.ndarray, " n"]:
    """A coordinate in deg: numbers in the table's unit (deg without one), or text hh:mm:ss and dd:mm:ss."""
    if table[column].dtype.kind not in "SUO":
        values = in_unit(table, column, "deg", spec.file)
    else:
        texts = strings(table, column)
        unit = u.hourangle if kind == "ra" else u.deg
        try:
            plain = all(re.fullmatch(r"[+-]?\d+(\.\d*)?|", text) for text in texts)
            values = np.array(
                [
                    np.nan if not t else float(t) if plain else Angle(t, unit=unit).to_value(u.deg)
                    for t in texts
                ]
            )
        except (ValueError, u.UnitsError) as error:
            raise InputError(
                f"{spec.file}, column {column}", str(error)[:120], "degrees or sexagesimal text", "correct it"
            ) from None
    low, high = (-360.0, 360.0) if kind == "ra" else (-90.0, 90.0)
    if ((values < low) | (values > high)).any():
        row = int(np.flatnonzero((values < low) | (values > high))[0])
        raise InputError(
            f"{spec.file}, column {column} row {row}",
            f"{values[row]:g} deg",
            f"an angle between {low:g} and {high:g} deg",
            "check the column and its unit",
        )
    return values


def _flags(table: Table, spec: TableSpec) -> tuple[np.ndarray, dict[int, str]]:
    """Bits `[n]`, one for each rule, and their meaning."""
    flags, meaning = np.zeros(len(table), np.int64), {}
    for i, rule in enumerate(spec.flags):
        flags |= _flagged(table, rule, spec).astype(np.int64) << i
        meaning[1 << i] = rule.meaning or f"{rule.column}, as flags[{i}] says"
    return flags, meaning


def _flagged(table: Table, rule: FlagRule, spec: TableSpec) -> Bool[np.ndarray, " n"]:
    found, column = find_column(table, rule.column, spec, "flags")
    bad = np.zeros(len(table), bool)
    if found[column].dtype.kind in "SUO":
        texts = strings(found, column)
        if rule.bits or rule.below is not None or rule.above is not None:
            raise InputError(
                f"{spec.file}, flags, column {column}",
                "text",
                "numbers, for bits and limits",
                "use contains:",
            )
        for i, text in enumerate(texts):
            bad[i] = any(part in text for part in map(str, rule.contains)) or text in map(str, rule.values)
            if rule.not_values:
                bad[i] |= text not in map(str, rule.not_values)
            if not (rule.contains or rule.values or rule.not_values):
                bad[i] = text not in ("", "0")
        return bad
    value = _number_column(table, rule.column, spec, "flags")
    if rule.bits:
        mask = sum(1 << bit for bit in rule.bits)
        # From the integers themselves: a float holds 53 bits.
        code = np.ma.filled(np.ma.asarray(found[column]), 0)
        code = np.where(np.isfinite(value), code, 0).astype(np.int64)
        bad |= (code & mask) != 0
    if rule.values:
        bad |= np.isin(value, np.asarray(rule.values, float))
    if rule.not_values:
        bad |= ~np.isin(value, np.asarray(rule.not_values, float))
    if rule.below is not None:
        bad |= value < rule.below
    if rule.above is not None:
        bad |= value > rule.above
    if not (rule.bits or rule.values or rule.not_values or rule.below is not None or rule.above is not None):
        bad |= np.isfinite(value) & (value != 0)
    return bad


def _clusters(table: Table, spec: TableSpec) -> np.ndarray:
    found, column = find_column(table, str(spec.cluster), spec, "cluster")
    return np.array([re.sub(r"[\s_]+", " ", text) for text in strings(found, column)], dtype=object)


def label_names(specs: tuple[TableSpec, ...]) -> list[str]:
    """Labels that any of the tables maps, a survey's own format included, without order."""
    names: list[str] = []
    for spec in specs:
        if is_posterior(spec):
            names += [name for name in posterior_labels(spec) if name not in names]
            continue
        if spec.format in LAYOUTS:
            table = open_table(Path(spec.file), spec.hdu)
            spec = LAYOUTS[spec.format](spec, table)
        names += [name for name in spec.columns if name not in names]
    return names
