"""From a table and its column map to a `Catalogue`: labels, identifiers, flags, and what else a row has.

Everything that is changed or left out on the way is counted in the catalogue's notes.
"""

import re
from collections.abc import Mapping
from typing import Any

import astropy.units as u
import numpy as np
from astropy.coordinates import Angle
from astropy.table import Table
from jaxtyping import Bool, Float

from jaxspec.catalogues.catalogue import Catalogue
from jaxspec.catalogues.columns import check_physical, find_column, in_unit, number_column, strings
from jaxspec.catalogues.flags import flagged, is_one_of, read_cells
from jaxspec.catalogues.identifiers import Identifiers, check_release, identifiers
from jaxspec.catalogues.posterior import PosteriorRows
from jaxspec.catalogues.quantities import (
    assemble_labels,
    read_labels,
    to_solar_scale,
)
from jaxspec.catalogues.spec import TableSpec
from jaxspec.errors import InputError
from jaxspec.labels import LabelSet
from jaxspec.runs import checksum

# Numbers of a row beside its labels, and their units.
FACTS = {"snr": "", "velocity": "km/s", "vmic": "km/s", "vsini": "km/s"}


def read_rows(
    spec: TableSpec,
    table: Table,
    label_set: LabelSet,
    solar: str | Mapping[str, float] | None = None,
    posterior: PosteriorRows | None = None,
) -> Catalogue:
    """The catalogue of a table that is open already, by an entry that maps all its columns.

    `solar` and what is raised: see `read_survey`. Labels come from the columns, or from the rows of a
    `posterior`, whose `table` this is.
    """
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
    mapped = tuple(spec.columns) if posterior is None else posterior.names
    wanted = [name for name in mapped if name in label_set.names]
    if not wanted:
        raise InputError(
            f"table {spec.name}, columns",
            ", ".join(mapped) or "no labels",
            f"some of {', '.join(label_set.names)}",
            "map at least one label to a column",
        )
    if posterior is None:
        values, errors, relative = read_labels(table, spec, notes)
        labels, covariance = assemble_labels(values, errors, relative, label_set, spec, notes)
    else:
        labels, covariance = posterior.on(label_set, keep)
        notes += posterior.notes
    scale, sun = to_solar_scale(labels, label_set, spec, solar)
    if posterior is None:  # a flat likelihood may peak anywhere
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
    flags, meaning = _flags(table, spec, notes)
    band, column = next(iter(spec.magnitude.items()), ("", None))
    return Catalogue(
        spec.name,
        label_set,
        who,
        labels,
        covariance,
        flags,
        meaning,
        names=_texts(table, spec, spec.identifiers.get("name"), "identifiers.name"),
        files=tuple(file.rsplit("/", 1)[-1] for file in _texts(table, spec, spec.spectrum, "spectrum")),
        facts=_facts(table, spec),
        magnitude=None if column is None else number_column(table, column, spec, "magnitude"),
        band=band,
        cluster=None if spec.cluster is None else _clusters(table, spec),
        anchor=spec.anchor,
        errors_only=posterior is None,
        solar=scale,
        notes=tuple(notes),
        provenance={
            "file": str(spec.file),
            "sha256": checksum(spec.file),
            "format": spec.format if posterior is None else "posterior",
            "rows": n_rows,
            "solar": sun,
        },
    )


def _check(labels: np.ndarray, label_set: LabelSet, spec: TableSpec) -> None:
    try:
        check_physical(labels, label_set, str(spec.file))
    except InputError as error:
        fix = "check the column and its unit; if the number stands for no value, list it under missing:"
        raise InputError(error.where, error.found, error.expected, fix) from None


def _select(table: Table, spec: TableSpec) -> Bool[np.ndarray, " n"]:
    keep = np.ones(len(table), bool)
    for name, wanted in spec.select.items():
        where = f"select.{name}"
        found, column = find_column(table, name, spec, where)
        if isinstance(wanted, list) and len(wanted) == 2 and not any(isinstance(w, str) for w in wanted):
            value = _of_range(found, column, wanted, spec, where)
            low = -np.inf if wanted[0] is None else wanted[0]
            high = np.inf if wanted[1] is None else wanted[1]
            keep &= (value >= low) & (value <= high)
        else:
            accepted = tuple(wanted) if isinstance(wanted, list) else (wanted,)
            keep &= is_one_of(read_cells(found, column, spec.missing, where), accepted, where)
    return keep


def _of_range(table: Table, column: str, wanted: list, spec: TableSpec, where: str) -> np.ndarray:
    """Numbers to compare with a range; -1 is one where the range names a lowest value that it reaches."""
    value = number_column(table, column, spec, where)
    if wanted[0] is None or wanted[0] > -1:
        return value
    cells = read_cells(table, column, spec.missing, f"{spec.file}, {where}")
    return np.where(cells.numbers == -1, cells.numbers, value)


def _identifiers(table: Table, spec: TableSpec) -> Identifiers:
    names = {"gaia" if kind == "gaia_dr3" else kind: column for kind, column in spec.identifiers.items()}
    given: dict[str, Any] = {}
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
            if kind.startswith("gaia"):
                said = str(table[column].info.description or "") if column in table.colnames else ""
                check_release(kind, column, said, f"{spec.file}, identifiers")
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
                f"{spec.file}, column {column}",
                str(error)[:120],
                "degrees or sexagesimal text",
                "give the column's unit, or leave the coordinates out",
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


def _texts(table: Table, spec: TableSpec, name: str | float | None, entry: str) -> tuple[str, ...]:
    """A column as text, nothing without one."""
    return () if name is None else strings(*find_column(table, str(name), spec, entry))


def _facts(table: Table, spec: TableSpec) -> dict[str, Float[np.ndarray, " n"]]:
    facts = {}
    for name, column in spec.facts.items():
        found, exact = find_column(table, column, spec, f"facts.{name}")
        facts[name] = in_unit(found, exact, FACTS[name], spec.file)
    return facts


def _flags(table: Table, spec: TableSpec, notes: list[str]) -> tuple[np.ndarray, dict[int, str]]:
    """Bits `[n]`, one for each rule, and their meaning."""
    flags, meaning = np.zeros(len(table), np.int64), {}
    for i, rule in enumerate(spec.flags):
        remarks: list[str] = []
        flags |= flagged(table, rule, spec, notes=remarks).astype(np.int64) << i
        notes += [remark for remark in remarks if remark not in notes]  # rules may share a column
        meaning[1 << i] = rule.meaning or f"{rule.column}, as flags[{i}] says"
    return flags, meaning


def _clusters(table: Table, spec: TableSpec) -> np.ndarray:
    found, column = find_column(table, str(spec.cluster), spec, "cluster")
    return np.array([re.sub(r"[\s_]+", " ", text) for text in strings(found, column)], dtype=object)
