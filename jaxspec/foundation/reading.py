"""Stars from files: spectra of the Gaia archive, and tables of photometry and labels."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from astropy.table import Table as AstropyTable

from jaxspec.errors import InputError
from jaxspec.foundation.table import STELLAR, Table
from jaxspec.foundation.xp import Coefficients, XPBasis, load_design, read_continuous

FORMATS = {
    ".csv": "ascii.csv", ".ecsv": "ascii.ecsv", ".fits": "fits", ".fit": "fits", ".xml": "votable",
    ".vot": "votable",
}  # fmt: skip
COLUMNS = {"phot_g_mean_mag": "g"}
"""Columns of the Gaia archive that are quantities under another name."""
N_SAMPLES = 343


def read_stars(path: str | Path, basis: XPBasis | None) -> Table:
    """The stars of a file, in the model's quantities.

    Three kinds of column are understood, alone or together: the coefficients of XP_CONTINUOUS, `flux` and
    `flux_error` of XP_SAMPLED (343 samples), and quantities by name (`teff`, `g`, `bp_rp`, ...; errors as
    `e_NAME` or `NAME_error`). Formats are CSV, ECSV, FITS and VOTable, and AVRO for XP_CONTINUOUS.

    Raises: InputError when the file cannot be read, or has none of these.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(str(path), "no such file", "a table of stars", "check the path")
    if path.suffix.lower() == ".avro":
        return _spectra_alone(path, basis)
    rows = _read_rows(path)
    known = _known_columns(rows)
    parts = []
    if "bp_coefficients" in rows.colnames or "rp_coefficients" in rows.colnames:
        spectra = _spectra_alone(path, basis)
        source = spectra.source
        parts.append(Coefficients(*spectra[:3]))
    elif {"flux", "flux_error"} <= set(rows.colnames):
        source = _source(rows)
        parts.append(_sampled(path, rows, basis))
    else:
        source = _source(rows)
    if known:
        parts.append(_quantities(path, rows, known))
    if not parts:
        raise InputError(
            str(path),
            f"columns {', '.join(rows.colnames[:12])}",
            f"coefficients or samples of XP spectra, or columns named {', '.join(STELLAR)}",
            "rename the columns",
        )
    if any(len(part.values) != len(source) for part in parts):
        raise InputError(
            str(path), "rows that gaiaxpy leaves out", "one spectrum in each row", "remove the other rows"
        )
    joined = parts[0]
    for part in parts[1:]:
        joined = joined.join(part)
    return Table(joined.names, joined.values, joined.errors, source)


def read_labels(path: str | Path) -> Table:
    """Labels of stars: a table with `source_id`, and numbers in every other column that is no error.

    Raises: InputError when there is no `source_id`, or no label.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(str(path), "no such file", "a table of labels", "check the path")
    rows = _read_rows(path)
    if "source_id" not in rows.colnames:
        raise InputError(str(path), "no column source_id", "the stars' identifiers", "add the column")
    errors = {c for name in rows.colnames for c in (f"e_{name}", f"{name}_error") if c in rows.colnames}
    known = {name: name for name in rows.colnames if name != "source_id" and name not in errors}
    if not known:
        raise InputError(str(path), "no column beside source_id", "labels", "add a column for each")
    found = _quantities(path, rows, known)
    return Table(found.names, found.values, found.errors, _source(rows))


def _read_rows(path: Path) -> AstropyTable:
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise InputError(
            str(path), f"suffix {suffix!r}", f"one of {', '.join(FORMATS)}, .avro", "convert the file"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return AstropyTable.read(path, format=FORMATS[suffix])
    except Exception as error:  # of many kinds
        raise InputError(
            str(path), f"a file that cannot be read ({type(error).__name__}: {str(error)[:120]})",
            "a table", "write it again",
        ) from error  # fmt: skip


def _known_columns(rows: AstropyTable) -> dict[str, str]:
    """Name of the column of each quantity that is there."""
    lower = {name.lower(): name for name in rows.colnames}
    found = {name: lower[name] for name in STELLAR if name in lower}
    for column, name in COLUMNS.items():
        if column in lower and name not in found:
            found[name] = lower[column]
    return found


def _quantities(path: Path, rows: AstropyTable, known: dict[str, str]) -> Coefficients:
    values = np.stack([_numbers(path, rows, column) for column in known.values()], 1)
    errors = []
    for column in known.values():
        error = next((c for c in (f"e_{column}", f"{column}_error") if c in rows.colnames), None)
        errors.append(np.zeros(len(rows)) if error is None else _numbers(path, rows, error))
    return Coefficients(tuple(known), values, np.where(np.isfinite(values), np.stack(errors, 1), np.nan))


def _numbers(path: Path, rows: AstropyTable, column: str) -> np.ndarray:
    data = rows[column]
    try:
        return np.ma.filled(np.ma.asarray(data).astype(float), np.nan)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{path} column {column}", "text", "numbers, nothing where a value is missing", "correct it"
        ) from error


def _source(rows: AstropyTable) -> np.ndarray:
    lower = {name.lower(): name for name in rows.colnames}
    if "source_id" in lower:
        return np.ma.filled(np.ma.asarray(rows[lower["source_id"]]).astype(np.int64), -1)
    return np.arange(len(rows), dtype=np.int64)


def _spectra_alone(path: Path, basis: XPBasis | None) -> Table:
    source, coefficients, covariances = read_continuous(path)
    found = _basis(path, basis).from_coefficients(coefficients, covariances, load_design())
    return Table(found.names, found.values, found.errors, source)


def _sampled(path: Path, rows: AstropyTable, basis: XPBasis | None) -> Coefficients:
    flux, error = (
        np.array([_array(path, column, row) for row in rows[column]]) for column in ("flux", "flux_error")
    )
    found = _basis(path, basis).from_samples(flux, error)
    # Where one arm is missing, its samples are not numbers.
    return Coefficients(found.names, found.values, np.where(np.isfinite(found.values), found.errors, np.nan))


def _array(path: Path, column: str, row: object) -> np.ndarray:
    if isinstance(row, str):  # the archive's CSV writes arrays as text
        row = [
            float(x) if x.strip() not in ("", "null", "NaN", "nan") else np.nan
            for x in row.strip("()[] ").split(",")
        ]
    array: np.ndarray = np.ma.filled(np.ma.asarray(row, float), np.nan)
    if array.shape != (N_SAMPLES,):
        raise InputError(
            f"{path} column {column}", f"{array.shape} samples", f"{N_SAMPLES}, from 336 to 1020 nm",
            "use the archive's XP_SAMPLED files",
        )  # fmt: skip
    return array


def _basis(path: Path, basis: XPBasis | None) -> XPBasis:
    if basis is None:
        raise InputError(str(path), "spectra of Gaia", "other quantities", "this model knows no XP spectra")
    return basis
