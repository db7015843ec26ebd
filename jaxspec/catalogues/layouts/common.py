"""Shared by the layouts of surveys: finding columns in any case, and completing a table's entry.

Each layout looks at which columns a table has (in any case: releases and their copies differ) and fills in
what the entry does not say itself. What the entry says takes precedence, label by label.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from astropy.table import Table

from jaxspec.catalogues.spec import Quantity, TableSpec
from jaxspec.errors import InputError
from jaxspec.labels import LABELS

ELEMENTS = tuple(name for name in LABELS if name.endswith("_h") and name not in ("fe_h", "m_h"))


def has(table: Table, *names: str) -> str | None:
    """The first of the names that the table has, in any case."""
    lower = {c.lower() for c in table.colnames}
    return next((name for name in names if name.lower() in lower), None)


def identified(table: Table, **kinds: Iterable[str]) -> dict[str, Any]:
    """For each kind the first of its names that the table has, without the kinds that it lacks."""
    found = {kind: has(table, *names) for kind, names in kinds.items()}
    return {kind: name for kind, name in found.items() if name is not None}


def completed(spec: TableSpec, layout: TableSpec) -> TableSpec:
    """The entry with what it leaves open taken from the layout."""
    columns = dict(layout.columns)
    for label, quantities in spec.columns.items():
        if quantities[0].column:
            columns[label] = quantities
        elif label in columns:  # an error to use in place of the survey's own
            columns[label] = tuple(replace(q, error=quantities[0].error) for q in columns[label])
    if not columns:
        raise InputError(
            f"{spec.file}, format {spec.format}",
            "none of its columns",
            "a table with that survey's column names",
            "use format: generic and map the columns",
        )
    return replace(
        spec,
        columns=columns,
        identifiers={**layout.identifiers, **spec.identifiers},
        flags=spec.flags or layout.flags,
        solar_scale=layout.solar_scale if spec.solar_scale is None else spec.solar_scale,
        magnitude=spec.magnitude or layout.magnitude,
        facts={**layout.facts, **spec.facts},
        spectrum=spec.spectrum or layout.spectrum,
    )


def measured(table: Table, pairs: dict[str, tuple[str, str]], **more) -> dict[str, tuple[Quantity, ...]]:
    """Quantities of labels whose column is there."""
    return {
        label: (Quantity(column, error=has(table, error), **more),)
        for label, (column, error) in pairs.items()
        if has(table, column)
    }
