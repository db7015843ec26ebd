"""Stars from a table of labels with errors, or from the posteriors of an inference."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from astropy.table import Table

from jaxspec.catalogues.columns import in_unit, numbers, open_table, strings
from jaxspec.errors import InputError
from jaxspec.labels import LABELS
from jaxspec.populations.stars import Stars
from jaxspec.posterior.likelihoods import likelihoods
from jaxspec.posterior.results import Posterior

log = logging.getLogger(__name__)

NAMES = ("source", "identifier", "name", "apogee_id", "star", "cname", "sobject_id")
ABUNDANCE = re.compile(r"[a-z]{1,2}_(h|fe)")


def read_stars(path: str | Path, labels: Sequence[str] | None = None) -> Stars:
    """Stars of a CSV, ECSV or FITS table, or of a `posterior.nc`.

    A table has columns named after the labels, in any case, `e_<label>` or `<label>_err` with their errors,
    perhaps `rho_<a>_<b>` with correlations of two errors, `limit_<label>` (not 0: an upper limit only, which
    counts as missing), and the star's name in `source`, `identifier` or `name`. [X/Fe] is taken as it is. A
    value of exactly 0 with an error of exactly 0 is an empty cell. Of a posterior the likelihood is used: its
    prior is divided out.

    Args:
        labels: names; None: all abundances that have errors.

    Raises: InputError naming the file and column of what is missing or no number, and for a table in which no
        star has a label. Stars without any label are left out, and counted in the log.
    """
    path = Path(path)
    if path.suffix == ".nc":
        return _from_posterior(path, labels)
    table = open_table(path)
    lower = {name.lower(): name for name in table.colnames}
    if labels is None:
        labels = [name for name in lower if ABUNDANCE.fullmatch(name) and _error_column(name, lower)]
        if not labels:
            fix = "name the columns so, or give labels=[...]"
            expected = "columns such as mg_fe with e_mg_fe"
            raise InputError(str(path), "no abundances with errors", expected, fix)
    values, errors = np.empty((len(table), len(labels))), np.empty((len(table), len(labels)))
    for j, name in enumerate(labels):
        error = _error_column(name, lower)
        for wanted, column in ((name, lower.get(name)), (f"e_{name}", error)):
            if column is None:
                found = f"columns {', '.join(table.colnames[:12])}{', ...' if len(lower) > 12 else ''}"
                raise InputError(str(path), found, f"a column {wanted}", "rename a column, or leave it out")
        unit = LABELS[name].unit if name in LABELS else "dex"
        values[:, j] = in_unit(table, lower[name], unit, path, label=name)
        errors[:, j] = in_unit(table, str(error), unit, path, difference=True)
        limit = lower.get(f"limit_{name}")
        if limit is not None:
            limited = np.nan_to_num(numbers(table, limit, path)[0]) != 0.0
            log.info("%s: %d upper limits of %s count as missing", path.name, limited.sum(), name)
            values[limited, j] = np.nan
    empty = (values == 0.0) & (errors == 0.0)
    lost = np.isfinite(values) & ~np.isfinite(errors)
    for bad, what in ((empty, "zeros with an error of zero are empty cells"), (lost, "values lack an error")):
        if bad.any():
            log.info("%s: %d %s: missing", path.name, bad.sum(), what)
    values[empty | lost] = np.nan
    there = ~np.isnan(values)
    covariance = np.where(there, errors**2, 0.0)[:, :, None] * np.eye(len(labels))
    if (there & (errors < 0)).any():
        row, j = map(int, np.argwhere(there & (errors < 0))[0])
        where = f"{path}, error of {labels[j]}, row {row}"
        raise InputError(where, f"{errors[row, j]:g}", "a number that is not negative", "correct the row")
    for i, a in enumerate(labels):
        for j, b in enumerate(labels):
            column = lower.get(f"rho_{a}_{b}")
            if column is not None:
                rho = np.nan_to_num(numbers(table, column, path)[0])
                covariance[:, i, j] = covariance[:, j, i] = np.nan_to_num(rho * errors[:, i] * errors[:, j])
    return _complete(path, tuple(labels), values, covariance, _names(table, lower))


def _error_column(name: str, lower: dict[str, str]) -> str | None:
    return next((lower[c] for c in (f"e_{name}", f"{name}_err", f"err_{name}") if c in lower), None)


def _names(table: Table, lower: dict[str, str]) -> tuple[str, ...]:
    column = next((lower[name] for name in NAMES if name in lower), None)
    if column is None:
        return tuple(str(i) for i in range(len(table)))
    return strings(table, column, blanks=False)


def _from_posterior(path: Path, labels: Sequence[str] | None) -> Stars:
    posterior = Posterior.load(path)
    found = likelihoods(posterior)
    known = posterior.label_set.names
    labels = tuple(n for n in known if n.endswith("_h")) if labels is None else tuple(labels)
    for name in labels:
        if name not in known:
            raise InputError(str(path), f"labels {', '.join(known)}", f"a label {name}", "leave it out")
    place = np.array([known.index(name) for name in labels])
    covariance = found.covariance[:, place[:, None], place]
    return _complete(path, labels, found.values[:, place], covariance, posterior.names)


def _complete(path, labels, values, covariance, names) -> Stars:
    """The stars that have any label at all."""
    there = (~np.isnan(values)).any(1)
    if not there.any():
        found, expected = f"no value of {', '.join(labels)}", "a star with one of them"
        raise InputError(str(path), found, expected, "choose other labels")
    if not there.all():
        log.warning(
            "%s: %d of %d stars have none of the labels and are left out", path, (~there).sum(), len(there)
        )
    rows = np.flatnonzero(there)
    return Stars(labels, values[rows], covariance[rows], tuple(names[i] for i in rows))
