"""Labels that others derived from Gaia's XP spectra."""

from dataclasses import replace

from astropy.table import Table

from jaxspec.catalogues.layouts.common import completed, has, identified
from jaxspec.catalogues.spec import FlagRule, Quantity, TableSpec


def gaia_xp(spec: TableSpec, table: Table) -> TableSpec:
    """Labels from Gaia's XP spectra: Andrae, Rix & Chandra (2023, ApJS 267, 8), with the mean precision of
    their abstract (50 K, 0.08 and 0.1 dex) for errors, as the table has none; or Zhang, Green & Rix (2023,
    MNRAS 524, 1855), where rows with `quality_flags` of 8 or more are suspect."""
    flags: tuple[FlagRule, ...] = ()
    if has(table, "teff_xgboost"):
        columns = {
            "teff": (Quantity("teff_xgboost", unit="K", error=50.0),),
            "logg": (Quantity("logg_xgboost", unit="dex", error=0.08),),
            "m_h": (Quantity("mh_xgboost", unit="dex", error=0.1),),
        }
        columns = {label: q for label, q in columns.items() if has(table, q[0].column)}
    else:
        vector = has(table, "stellar_params_est") is not None
        names = {"teff": ("teff", 0, "kK"), "fe_h": ("fe_h", 1, "dex"), "logg": ("logg", 2, "dex")}
        columns = {}
        for label, (name, k, unit) in names.items():
            end = f"[{k}]" if vector else f"_{name}"
            if vector or has(table, f"stellar_params_est{end}"):
                columns[label] = (
                    Quantity(f"stellar_params_est{end}", unit=unit, error=f"stellar_params_err{end}"),
                )
        if has(table, "quality_flags"):
            flags = (FlagRule("quality_flags", above=7.5, meaning="quality_flags is 8 or more"),)
    who = identified(table, gaia=("source_id", "gdr3_source_id"), ra=("ra",), dec=("dec",))
    if "ra" in who:
        who["epoch"] = 2016.0
    return completed(spec, replace(spec, columns=columns, identifiers=who, flags=flags))
