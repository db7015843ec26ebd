"""GALAH's tables of DR3 and DR4."""

from dataclasses import replace

from astropy.table import Table

from jaxspec.catalogues.layouts.common import ELEMENTS, completed, has, identified, measured
from jaxspec.catalogues.spec import FlagRule, Quantity, TableSpec


def galah(spec: TableSpec, table: Table) -> TableSpec:
    """GALAH DR3 (Buder et al. 2021, MNRAS 506, 150) and DR4 (Buder et al. 2025, PASA 42, e051), relative to
    GALAH's own Sun. Suspect rows: `flag_sp` is not 0. An element counts where its `flag_X_fe` is 0."""
    columns = measured(
        table, {"teff": ("teff", "e_teff"), "logg": ("logg", "e_logg"), "fe_h": ("fe_h", "e_fe_h")}
    )
    for label in ELEMENTS:
        name = f"{label.removesuffix('_h')}_fe"
        if has(table, name):
            columns[label] = (
                Quantity(
                    name,
                    relative_to="fe_h",
                    error=has(table, f"e_{name}", f"cov_e_{name}"),
                    flag=has(table, f"flag_{name}"),
                ),
            )
    # DR4 gives log g from bolometric relations no error of its own.
    if "logg" in columns and columns["logg"][0].error is None:
        columns["logg"] = (replace(columns["logg"][0], error=0.1),)
    who = identified(
        table,
        gaia=("gaiadr3_source_id", "dr3_source_id"),
        gaia_dr2=("dr2_source_id",),
        tmass=("tmass_id", "star_id"),
        ra=("ra", "ra_dr2"),
        dec=("dec", "dec_dr2"),
    )
    flags = (FlagRule("flag_sp", meaning="flag_sp is not 0"),) if has(table, "flag_sp") else ()
    if has(table, "ra_dr2"):
        who["epoch"] = 2015.5
    layout = replace(spec, columns=columns, identifiers=who, flags=flags, solar_scale="differential")
    return completed(spec, layout)
