"""The column layouts of published surveys, as completions of a table's entry.

Each layout looks at which columns a table has (in any case: releases and their copies differ) and fills in
what the entry does not say itself. What the entry says takes precedence, label by label.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
from astropy.table import Table

from jaxspec.errors import InputError
from jaxspec.io.catalogue import GES_COLUMNS, UNTRUSTED, parse_flags
from jaxspec.io.columns import strings
from jaxspec.labels import LABELS
from jaxspec.surveys.readers.spec import FlagRule, Quantity, TableSpec

ELEMENTS = tuple(name for name in LABELS if name.endswith("_h") and name not in ("fe_h", "m_h"))

# Bits of APOGEE's masks after which labels are suspect (SDSS bitmasks APOGEE_STARFLAG and APOGEE_ASPCAPFLAG).
STARFLAG_BAD = {
    0: "BAD_PIXELS",
    1: "COMMISSIONING",
    3: "VERY_BRIGHT_NEIGHBOR",
    9: "PERSIST_HIGH",
    12: "PERSIST_JUMP_POS",
    13: "PERSIST_JUMP_NEG",
    16: "SUSPECT_RV_COMBINATION",
    17: "SUSPECT_BROAD_LINES",
    18: "BAD_RV_COMBINATION",
    21: "MULTIPLE_SUSPECT",
    22: "RV_FAIL",
}
ASPCAPFLAG_BAD = {
    16: "TEFF_BAD",
    17: "LOGG_BAD",
    18: "VMICRO_BAD",
    19: "M_H_BAD",
    20: "ALPHA_M_BAD",
    23: "STAR_BAD",
    24: "CHI2_BAD",
    25: "COLORTE_BAD",
    26: "ROTATION_BAD",
    27: "SN_BAD",
    31: "NO_ASPCAP_RESULT",
    36: "FERRE_FAIL",
    40: "PROBLEM_TARGET",
    41: "MULTIPLE_SUSPECT",
}
# Bits 0-7 of APOGEE's flags of one element are BAD (grid edge, calibration range, no fit), the higher ones
# WARN.
ELEMENT_BAD = 0xFF


def _has(table: Table, *names: str) -> str | None:
    """The first of the names that the table has, in any case."""
    lower = {c.lower() for c in table.colnames}
    return next((name for name in names if name.lower() in lower), None)


def _identified(table: Table, **kinds: Iterable[str]) -> dict[str, str]:
    found = {kind: _has(table, *names) for kind, names in kinds.items()}
    return {kind: name for kind, name in found.items() if name is not None}


def _completed(spec: TableSpec, layout: TableSpec) -> TableSpec:
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
    )


def _measured(table: Table, pairs: dict[str, tuple[str, str]], **more) -> dict[str, tuple[Quantity, ...]]:
    """Quantities of labels whose column is there."""
    return {
        label: (Quantity(column, error=_has(table, error), **more),)
        for label, (column, error) in pairs.items()
        if _has(table, column)
    }


def apogee(spec: TableSpec, table: Table) -> TableSpec:
    """APOGEE allStar: DR12's layout ([X/H] columns, on the solar scale of Asplund et al. 2005; Holtzman et
    al. 2015, AJ 150, 148) and that of DR14-17 ([X/Fe], whose zero points are set in the solar neighbourhood).

    Suspect rows: the bits of `STARFLAG_BAD` and `ASPCAPFLAG_BAD`. Elements with a BAD bit have no value.
    """
    columns = _measured(table, {"teff": ("TEFF", "TEFF_ERR"), "logg": ("LOGG", "LOGG_ERR")})
    columns |= _measured(
        table,
        {"m_h": ("M_H", "M_H_ERR")} if _has(table, "M_H") else {"m_h": ("PARAM_M_H", "PARAM_M_H_ERR")},
    )
    symbols = {name: name.removesuffix("_h").upper() for name in ("fe_h", *ELEMENTS)}
    relative = _has(table, "MG_FE", "SI_FE") is not None
    for label, symbol in symbols.items():
        ratio = "FE" if relative and label != "fe_h" else "H"
        column = f"{symbol}_{ratio}"
        if _has(table, column):
            flag = _has(table, f"{column}_FLAG")
            columns[label] = (
                Quantity(
                    column,
                    relative_to="fe_h" if ratio == "FE" else None,
                    error=_has(table, f"{column}_ERR"),
                    flag=flag,
                    flag_bits=ELEMENT_BAD if flag else None,
                ),
            )
    flags = [
        FlagRule(column, (bit,), meaning=f"{column} {name}")
        for column, names in (("STARFLAG", STARFLAG_BAD), ("ASPCAPFLAG", ASPCAPFLAG_BAD))
        if _has(table, column)
        for bit, name in names.items()
    ]
    who = _identified(
        table,
        gaia=("GAIAEDR3_SOURCE_ID", "GAIA_SOURCE_ID", "dr3_source_id"),
        tmass=("APOGEE_ID",),
        hip=("HIP",),
        ra=("RA",),
        dec=("DEC",),
    )
    band = {"H": "H"} if _has(table, "H") else {}
    scale = "differential" if relative else "asplund2005"
    layout = replace(
        spec, columns=columns, identifiers=who, flags=tuple(flags), solar_scale=scale, magnitude=band
    )
    return _completed(spec, layout)


def galah(spec: TableSpec, table: Table) -> TableSpec:
    """GALAH DR3 (Buder et al. 2021, MNRAS 506, 150) and DR4 (Buder et al. 2025, PASA 42, e051), relative to
    GALAH's own Sun. Suspect rows: `flag_sp` is not 0. An element counts where its `flag_X_fe` is 0."""
    columns = _measured(
        table, {"teff": ("teff", "e_teff"), "logg": ("logg", "e_logg"), "fe_h": ("fe_h", "e_fe_h")}
    )
    for label in ELEMENTS:
        name = f"{label.removesuffix('_h')}_fe"
        if _has(table, name):
            columns[label] = (
                Quantity(
                    name,
                    relative_to="fe_h",
                    error=_has(table, f"e_{name}", f"cov_e_{name}"),
                    flag=_has(table, f"flag_{name}"),
                ),
            )
    # DR4 gives log g from bolometric relations no error of its own.
    if "logg" in columns and columns["logg"][0].error is None:
        columns["logg"] = (replace(columns["logg"][0], error=0.1),)
    who = _identified(
        table,
        gaia=("gaiadr3_source_id", "dr3_source_id"),
        gaia_dr2=("dr2_source_id",),
        tmass=("tmass_id", "star_id"),
        ra=("ra", "ra_dr2"),
        dec=("dec", "dec_dr2"),
    )
    flags = (FlagRule("flag_sp", meaning="flag_sp is not 0"),) if _has(table, "flag_sp") else ()
    if _has(table, "ra_dr2"):
        who["epoch"] = 2015.5
    layout = replace(spec, columns=columns, identifiers=who, flags=flags, solar_scale="differential")
    return _completed(spec, layout)


def lamost(spec: TableSpec, table: Table) -> TableSpec:
    """LAMOST low resolution: the stellar parameter catalogue (`teff`, `feh`; Luo et al. 2015) and the
    DD-Payne abundances ([X/Fe]; Xiang et al. 2019, ApJS 245, 34; Zhang et al. 2025).

    Suspect rows: `QFLAG_CHI2` is not good, or `FLAG_SINGLESTAR` is not YES, where the table has them.
    """
    iron = _has(table, "feh", "fe_h")
    columns = _measured(table, {"teff": ("teff", "teff_err"), "logg": ("logg", "logg_err")})
    if iron:
        columns["fe_h"] = (Quantity(iron, error=_has(table, f"{iron}_err")),)
    for label in ELEMENTS:
        name = f"{label.removesuffix('_h')}_fe"
        if _has(table, name):
            columns[label] = (Quantity(name, relative_to="fe_h", error=_has(table, f"{name}_err")),)
    flags = []
    if _has(table, "qflag_chi2"):
        flags.append(FlagRule("qflag_chi2", not_values=("good",), meaning="QFLAG_CHI2 is not good"))
    if _has(table, "flag_singlestar"):
        flags.append(FlagRule("flag_singlestar", not_values=("YES",), meaning="FLAG_SINGLESTAR is not YES"))
    who = _identified(
        table,
        gaia=("gaia_source_id", "gaiadr3_source_id", "source_id"),
        ra=("ra", "raj2000"),
        dec=("dec", "dej2000"),
    )
    return _completed(spec, replace(spec, columns=columns, identifiers=who, flags=tuple(flags)))


def gaia_eso(spec: TableSpec, table: Table) -> TableSpec:
    """The public Gaia-ESO catalogue (Hourihane et al. 2023, A&A 676, A129): A(X) columns by ionisation stage,
    the neutral one first, on the solar scale of Grevesse et al. (2007). Upper limits have no value.

    Suspect rows: PECULI, REMARK or TECH holds a code of `jaxspec.io.catalogue.UNTRUSTED`.
    """
    columns = {}
    for label, stages in GES_COLUMNS.items():
        found = [c for c in stages if _has(table, c)]
        if found:
            columns[label] = tuple(
                Quantity(
                    c,
                    absolute=label.endswith("_h") and c != "FEH",
                    error=_has(table, f"E_{c}"),
                    flag=_has(table, f"UPPER_{c}", f"LIM_{c}"),
                )
                for c in found
            )
    flags = []
    for name in ("PECULI", "REMARK", "TECH"):
        column = next((c for c in table.colnames if c.upper() == name), None)
        if column is not None:
            made = f"{name} untrusted"
            table[made] = np.array(
                [any(code in UNTRUSTED for code in parse_flags(cell)) for cell in strings(table, column)]
            )
            flags.append(FlagRule(made, meaning=f"{name} holds a code that spoils labels"))
    who = _identified(
        table, gaia=("GAIA_SOURCE_ID", "GAIA_ID"), name=("CNAME", "OBJECT"), ra=("RA",), dec=("DEC",)
    )
    layout = replace(spec, columns=columns, identifiers=who, flags=tuple(flags), solar_scale="grevesse2007")
    return _completed(spec, layout)


def gaia_xp(spec: TableSpec, table: Table) -> TableSpec:
    """Labels from Gaia's XP spectra: Andrae, Rix & Chandra (2023, ApJS 267, 8), with the mean precision of
    their abstract (50 K, 0.08 and 0.1 dex) for errors, as the table has none; or Zhang, Green & Rix (2023,
    MNRAS 524, 1855), where rows with `quality_flags` of 8 or more are suspect."""
    flags: tuple[FlagRule, ...] = ()
    if _has(table, "teff_xgboost"):
        columns = {
            "teff": (Quantity("teff_xgboost", unit="K", error=50.0),),
            "logg": (Quantity("logg_xgboost", unit="dex", error=0.08),),
            "m_h": (Quantity("mh_xgboost", unit="dex", error=0.1),),
        }
        columns = {label: q for label, q in columns.items() if _has(table, q[0].column)}
    else:
        vector = _has(table, "stellar_params_est") is not None
        names = {"teff": ("teff", 0, "kK"), "fe_h": ("fe_h", 1, "dex"), "logg": ("logg", 2, "dex")}
        columns = {}
        for label, (name, k, unit) in names.items():
            end = f"[{k}]" if vector else f"_{name}"
            if vector or _has(table, f"stellar_params_est{end}"):
                columns[label] = (
                    Quantity(f"stellar_params_est{end}", unit=unit, error=f"stellar_params_err{end}"),
                )
        if _has(table, "quality_flags"):
            flags = (FlagRule("quality_flags", above=7.5, meaning="quality_flags is 8 or more"),)
    who = _identified(table, gaia=("source_id", "gdr3_source_id"), ra=("ra",), dec=("dec",))
    if "ra" in who:
        who["epoch"] = 2016.0
    return _completed(spec, replace(spec, columns=columns, identifiers=who, flags=flags))


LAYOUTS: dict[str, Callable[[TableSpec, Table], TableSpec]] = {
    "apogee": apogee,
    "galah": galah,
    "lamost": lamost,
    "gaia_eso": gaia_eso,
    "gaia_xp": gaia_xp,
}
