"""LAMOST's low-resolution stellar parameters and the DD-Payne abundances."""

from dataclasses import replace

from astropy.table import Table

from jaxspec.catalogues.layouts.common import ELEMENTS, completed, has, identified, measured
from jaxspec.catalogues.spec import FlagRule, Quantity, TableSpec


def lamost(spec: TableSpec, table: Table) -> TableSpec:
    """LAMOST low resolution: the stellar parameter catalogue (`teff`, `feh`; Luo et al. 2015) and the
    DD-Payne abundances ([X/Fe]; Xiang et al. 2019, ApJS 245, 34; Zhang et al. 2025).

    Suspect rows: `QFLAG_CHI2` is not good, or `FLAG_SINGLESTAR` is not YES, where the table has them.
    """
    iron = has(table, "feh", "fe_h")
    columns = measured(table, {"teff": ("teff", "teff_err"), "logg": ("logg", "logg_err")})
    if iron:
        columns["fe_h"] = (Quantity(iron, error=has(table, f"{iron}_err")),)
    for label in ELEMENTS:
        name = f"{label.removesuffix('_h')}_fe"
        if has(table, name):
            columns[label] = (Quantity(name, relative_to="fe_h", error=has(table, f"{name}_err")),)
    flags = []
    if has(table, "qflag_chi2"):
        flags.append(FlagRule("qflag_chi2", not_values=("good",), meaning="QFLAG_CHI2 is not good"))
    if has(table, "flag_singlestar"):
        flags.append(FlagRule("flag_singlestar", not_values=("YES",), meaning="FLAG_SINGLESTAR is not YES"))
    who = identified(
        table,
        gaia=("gaia_source_id", "gaiadr3_source_id", "source_id"),
        ra=("ra", "raj2000"),
        dec=("dec", "dej2000"),
    )
    return completed(spec, replace(spec, columns=columns, identifiers=who, flags=tuple(flags)))
