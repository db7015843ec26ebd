"""Plain tables of labelled stars, with columns named after the labels; and the join of spectra by name."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxspec.catalogues.catalogue import Catalogue
from jaxspec.catalogues.cells import is_nameless
from jaxspec.catalogues.columns import in_unit, open_table, strings
from jaxspec.catalogues.identifiers import identifiers
from jaxspec.errors import InputError
from jaxspec.labels import NINE_LABELS, LabelSet
from jaxspec.runs import checksum


def read_label_table(
    path: str | Path, label_set: LabelSet = NINE_LABELS, *, require: Sequence[str] | None = None
) -> Catalogue:
    """Read a CSV, ECSV or FITS table whose columns are named after the labels.

    Columns: each label of `label_set` in its own unit (a column with another unit is converted, one without
    is taken as is); optional `e_<label>` errors (0: exact), `vmic`, `vsini`, `velocity` (km/s),
    `snr`, `source` or `name`, `file`. `require` lists the labels that must be there (all by default); others
    become NaN.

    Raises `InputError` naming the column for one that is missing or not numeric, and the row for a value
    outside the label's bounds. Masked or NaN cells stay NaN, except for required labels.
    """
    path = Path(path)
    table = open_table(path)
    lower = {name.lower(): name for name in table.colnames}
    n = len(table)
    require = label_set.names if require is None else tuple(require)
    missing = [name for name in require if name not in lower]
    if missing:
        raise InputError(
            str(path),
            f"columns {', '.join(table.colnames)}",
            f"also {', '.join(missing)}",
            "add the missing columns",
        )
    labels, errors = np.full((n, len(label_set)), np.nan), np.full((n, len(label_set)), np.nan)
    for j, label in enumerate(label_set):
        if label.name in lower:
            labels[:, j] = in_unit(table, lower[label.name], label.unit, path)
            if label.name in require and np.isnan(labels[:, j]).any():
                row = int(np.flatnonzero(np.isnan(labels[:, j]))[0])
                raise InputError(
                    f"{path} column {label.name} row {row}",
                    "no value",
                    "a number",
                    "fill it in or remove the row",
                )
        if f"e_{label.name}" in lower:
            errors[:, j] = in_unit(table, lower[f"e_{label.name}"], label.unit, path)
            if (errors[:, j] < 0).any():
                row = int(np.flatnonzero(errors[:, j] < 0)[0])
                raise InputError(
                    f"{path} column e_{label.name} row {row}",
                    f"{errors[row, j]:g}",
                    "an error that is not negative",
                    "mend the cell, or remove the row",
                )
    outside = np.isfinite(labels) & ~((labels > label_set.low) & (labels < label_set.high))
    if outside.any():
        row, j = map(int, np.argwhere(outside)[0])
        label = label_set.labels[j]
        raise InputError(
            f"{path} column {label.name} row {row}",
            f"{labels[row, j]:g} {label.unit} ({int(outside.any(1).sum())} such rows)",
            f"a value between {label.low:g} and {label.high:g} {label.unit}",
            "remove the row or check the unit",
        )
    facts = {}
    for key, options, unit in (
        ("snr", ("snr",), ""),
        ("velocity", ("velocity", "vrad", "rv"), "km/s"),
        ("vmic", ("vmic", "xi"), "km/s"),
        ("vsini", ("vsini",), "km/s"),
    ):
        column = next((lower[c] for c in options if c in lower), None)
        facts[key] = in_unit(table, column, unit, path) if column else np.full(n, np.nan)
        if key in ("snr", "vmic", "vsini") and (facts[key] < 0).any():
            row = int(np.flatnonzero(facts[key] < 0)[0])
            raise InputError(
                f"{path} column {column} row {row}",
                f"{facts[key][row]:g}",
                "a value that is not negative",
                "mend the cell, or remove the row",
            )
    name_column = next((lower[c] for c in ("source", "name", "cname", "star", "object") if c in lower), None)
    names = strings(table, name_column) if name_column else tuple(str(i) for i in range(n))
    files = strings(table, lower["file"]) if "file" in lower else ("",) * n
    who: dict[str, Any] = {"name": names} if name_column else {}
    catalogue = Catalogue(
        path.name.split(".")[0],
        label_set,
        identifiers(n, **who, where=str(path)),
        labels,
        _diagonal(np.where(np.isfinite(labels), errors, 0.0)),
        np.zeros(n, np.int64),
        names=names,
        files=files,
        facts=facts,
        provenance={"file": str(path), "sha256": checksum(path), "format": "labels", "rows": n},
    )
    catalogue.check_unique()
    return catalogue


def _diagonal(errors: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k k"]:
    covariance = np.zeros((*errors.shape, errors.shape[1]))
    index = np.arange(errors.shape[1])
    covariance[:, index, index] = errors**2
    return covariance


def join(names: Sequence[str], catalogue: Catalogue) -> tuple[np.ndarray, np.ndarray]:
    """Match names of spectra to rows of a catalogue by file name first, then by star.

    `names` may be file names or star names; folder, `.gz` and extension do not matter. Returns `(spectrum,
    row)` index arrays of the matches, in the order of `names`. Spectra without a row are not in the result:
    count them.
    """
    by_key: dict[str, int] = {}
    for i, file in enumerate(catalogue.files):
        for part in file.split("|"):
            if part.strip():
                by_key.setdefault(_stem(part), i)
    for i, name in enumerate(catalogue.names):
        if is_nameless(name) and not name.isdigit():  # "Unknown"; rows without names are numbered
            continue
        by_key.setdefault(_stem(name), i)
    pairs = [(i, by_key[_stem(name)]) for i, name in enumerate(names) if _stem(name) in by_key]
    spectrum, row = (np.array([p[k] for p in pairs], dtype=np.int64) for k in (0, 1))
    return spectrum, row


def _stem(name: str) -> str:
    name = name.strip().rsplit("/", 1)[-1]
    for suffix in (".gz", ".fits", ".fit", ".txt", ".dat", ".csv"):
        name = name.removesuffix(suffix)
    return name
