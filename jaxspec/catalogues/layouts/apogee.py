"""APOGEE's allStar tables: their columns, and the bits of its masks that spoil labels."""

from dataclasses import replace

from astropy.table import Table

from jaxspec.catalogues.layouts.common import ELEMENTS, completed, has, identified, measured
from jaxspec.catalogues.spec import FlagRule, Quantity, TableSpec

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


def apogee(spec: TableSpec, table: Table) -> TableSpec:
    """APOGEE allStar: DR12's layout ([X/H] columns, on the solar scale of Asplund et al. 2005; Holtzman et
    al. 2015, AJ 150, 148) and that of DR14-17 ([X/Fe], whose zero points are set in the solar neighbourhood).

    Suspect rows: the bits of `STARFLAG_BAD` and `ASPCAPFLAG_BAD`. Elements with a BAD bit have no value.
    """
    columns = measured(table, {"teff": ("TEFF", "TEFF_ERR"), "logg": ("LOGG", "LOGG_ERR")})
    columns |= measured(
        table,
        {"m_h": ("M_H", "M_H_ERR")} if has(table, "M_H") else {"m_h": ("PARAM_M_H", "PARAM_M_H_ERR")},
    )
    symbols = {name: name.removesuffix("_h").upper() for name in ("fe_h", *ELEMENTS)}
    relative = has(table, "MG_FE", "SI_FE") is not None
    for label, symbol in symbols.items():
        ratio = "FE" if relative and label != "fe_h" else "H"
        column = f"{symbol}_{ratio}"
        if has(table, column):
            flag = has(table, f"{column}_FLAG")
            columns[label] = (
                Quantity(
                    column,
                    relative_to="fe_h" if ratio == "FE" else None,
                    error=has(table, f"{column}_ERR"),
                    flag=flag,
                    flag_bits=ELEMENT_BAD if flag else None,
                ),
            )
    flags = [
        FlagRule(column, (bit,), meaning=f"{column} {name}")
        for column, names in (("STARFLAG", STARFLAG_BAD), ("ASPCAPFLAG", ASPCAPFLAG_BAD))
        if has(table, column)
        for bit, name in names.items()
    ]
    who = identified(
        table,
        gaia=("GAIAEDR3_SOURCE_ID", "dr3_source_id"),
        gaia_dr2=("GAIA_SOURCE_ID", "dr2_source_id"),  # so named in DR16, which matched Gaia DR2
        tmass=("APOGEE_ID",),
        hip=("HIP",),
        ra=("RA",),
        dec=("DEC",),
    )
    band = {"H": "H"} if has(table, "H") else {}
    scale = "differential" if relative else "asplund2005"
    layout = replace(
        spec, columns=columns, identifiers=who, flags=tuple(flags), solar_scale=scale, magnitude=band
    )
    return completed(spec, layout)
