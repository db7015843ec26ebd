"""Any table of a survey, read by what its entry says: a column map, a known layout, or our own posterior."""

from collections.abc import Mapping

from jaxspec.catalogues.catalogue import Catalogue
from jaxspec.catalogues.columns import open_table
from jaxspec.catalogues.layouts import LAYOUTS
from jaxspec.catalogues.posterior import is_posterior, posterior_labels, read_posterior
from jaxspec.catalogues.spec import TableSpec
from jaxspec.catalogues.table import read_rows
from jaxspec.errors import InputError
from jaxspec.labels import LabelSet


def read_survey(
    spec: TableSpec, label_set: LabelSet, solar: str | Mapping[str, float] | None = None
) -> Catalogue:
    """Read one table. Labels that the table does not have are NaN.

    Abundances of a table whose own solar scale is stated are brought to the scale `solar`: [X/H] + A(X)_own -
    A(X)_solar. An analysis differential to the authors' own solar spectrum has no scale to state. The
    covariance of the quoted errors follows the columns: labels given as [X/Fe] share the error of [Fe/H].

    An error of exactly 0 was rounded to it and becomes the column's smallest positive error, except in
    catalogues that do not round (`Quantity.rounded`); a value of exactly 0 with an error of exactly 0 is an
    empty cell. A value without an error is left out.

    Raises `InputError` naming the file and column for what is missing, of the wrong type or unit, for a label
    without errors, for values that no star has, and for rows none of which can be identified.
    """
    if is_posterior(spec):
        posterior = read_posterior(spec)
        return read_rows(posterior.spec, posterior.table, label_set, solar, posterior)
    if spec.stars is not None:
        raise InputError(
            f"table {spec.name}, stars", "given for a table", "a posterior.nc", "give the columns themselves"
        )
    table = open_table(spec.file, spec.hdu)
    if spec.format != "generic":
        if spec.format not in LAYOUTS:
            raise InputError(
                f"table {spec.name}, format",
                repr(spec.format),
                f"generic, posterior or one of {', '.join(LAYOUTS)}",
                "write format: generic and map the columns",
            )
        spec = LAYOUTS[spec.format](spec, table)
    return read_rows(spec, table, label_set, solar)


def label_names(specs: tuple[TableSpec, ...]) -> list[str]:
    """Labels that any of the tables maps, a survey's own format included, without order."""
    names: list[str] = []
    for spec in specs:
        if is_posterior(spec):
            names += [name for name in posterior_labels(spec) if name not in names]
            continue
        if spec.format in LAYOUTS:
            table = open_table(spec.file, spec.hdu)
            spec = LAYOUTS[spec.format](spec, table)
        names += [name for name in spec.columns if name not in names]
    return names
