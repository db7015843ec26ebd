"""The public Gaia-ESO catalogue: the one place that knows its columns, its flags and its solar scale.

The survey model reads it as one table of several (`format: gaia_eso`); `read_gaia_eso` reads it to train on,
and demands what training needs.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from astropy.table import Table

from jaxspec.catalogues.catalogue import Catalogue
from jaxspec.catalogues.columns import numbers, open_table, strings
from jaxspec.catalogues.layouts.common import completed, has, identified
from jaxspec.catalogues.solar import solar_scale
from jaxspec.catalogues.spec import FlagRule, Quantity, TableSpec
from jaxspec.catalogues.table import read_rows
from jaxspec.errors import InputError
from jaxspec.labels import NINE_LABELS, LabelSet

# Columns of the public release; an element's column is its symbol and ionisation stage, neutral first.
COLUMNS = {
    "teff": ("TEFF",),
    "logg": ("LOGG",),
    "fe_h": ("FEH",),
    "al_h": ("AL1",),
    "mg_h": ("MG1",),
    "ca_h": ("CA1", "CA2"),
    "ni_h": ("NI1",),
    "ti_h": ("TI1", "TI2"),
    "si_h": ("SI1", "SI2"),
}
# The Sun of the survey's analysis, and of the MARCS models behind it.
SOLAR_SCALE = "grevesse2007"
FLAG_COLUMNS = ("PECULI", "REMARK", "TECH")
# Codes of the survey's WG14 dictionary after which labels are not to be trusted.
UNTRUSTED = {
    10100: "saturated",
    10103: "bad co-addition",
    10104: "bad normalisation",
    10105: "incomplete spectrum",
    10106: "broken spectrum",
    10302: "no convergence",
    **{code: "outside the grid" for code in range(10303, 10308)},
    10320: "multiple star",
    11020: "vsini too high",
    11050: "vsini too high",
    **{code: "at the edge of the grid" for code in range(13020, 13025)},
    13027: "multiple star",
    20020: "double-lined binary",
}


def gaia_eso(spec: TableSpec, table: Table) -> TableSpec:
    """The public Gaia-ESO catalogue (Hourihane et al. 2023, A&A 676, A129): A(X) columns by ionisation stage,
    the neutral one first, on the solar scale of Grevesse et al. (2007). Upper limits have no value. An error
    of 0 is none: the release does not round.

    Suspect rows: PECULI, REMARK or TECH holds a code of `UNTRUSTED`; each reason has its bit. The columns
    that say so are added to `table`.
    """
    columns = {}
    for label, known in COLUMNS.items():
        stages = [c for c in known if has(table, c)]
        if stages:
            columns[label] = tuple(
                Quantity(
                    c,
                    absolute=label.endswith("_h") and c != "FEH",
                    error=has(table, f"E_{c}"),
                    rounded=False,
                    flag=_limit(spec, table, c),
                )
                for c in stages
            )
    who = identified(
        table, gaia=("GAIA_SOURCE_ID", "GAIA_ID"), name=("CNAME", "OBJECT"), ra=("RA",), dec=("DEC",)
    )
    facts = identified(table, snr=("SNR",), velocity=("VRAD", "VEL"), vmic=("XI",), vsini=("VSINI",))
    layout = replace(
        spec,
        columns=columns,
        identifiers=who,
        flags=_flag_rules(table),
        solar_scale=SOLAR_SCALE,
        facts=facts,
        spectrum=has(table, "FILENAME"),
    )
    return completed(spec, layout)


def _limit(spec: TableSpec, table: Table, column: str) -> str | None:
    """The column that is not 0 where `column` is a limit: UPPER_X, LIM_X, or a new one that joins both."""
    kinds = [c for c in table.colnames if c.upper() in (f"UPPER_{column}", f"LIM_{column}")]
    if len(kinds) < 2:
        return kinds[0] if kinds else None
    joined = f"limit of {column}"
    table[joined] = np.any([np.nan_to_num(numbers(table, c, spec.file)[0]) != 0 for c in kinds], axis=0)
    return joined


def _flag_rules(table: Table) -> tuple[FlagRule, ...]:
    if not any(has(table, name) for name in FLAG_COLUMNS):
        return ()
    reasons: dict[str, list[int]] = {}
    for code, reason in UNTRUSTED.items():
        reasons.setdefault(reason, []).append(code)
    of_stars, rules = codes(table), []
    for reason, several in reasons.items():
        name = f"untrusted: {reason}"
        table[name] = np.array([not set(several).isdisjoint(row) for row in of_stars], bool)
        rules.append(FlagRule(name, meaning=f"{reason} (code {', '.join(map(str, several))})"))
    return tuple(rules)


def codes(table: Table) -> list[tuple[int, ...]]:
    """All codes of each row's PECULI, REMARK and TECH, in this order."""
    out: list[tuple[int, ...]] = [()] * len(table)
    for column in FLAG_COLUMNS:
        for name in (c for c in table.colnames if c.upper() == column):
            out = [a + parse_codes(cell) for a, cell in zip(out, strings(table, name), strict=True)]
    return out


def parse_codes(cell: str) -> tuple[int, ...]:
    """Codes of one PECULI, REMARK or TECH cell: `10106-11-02-00-A|13027-13-01-00-C` gives (10106, 13027)."""
    heads = (part.split("-")[0] for part in re.split(r"[|,;\s]+", cell))
    return tuple(int(head) for head in heads if head.isdigit())


def read_gaia_eso(
    path: str | Path,
    label_set: LabelSet = NINE_LABELS,
    *,
    solar: str | Mapping[str, float] = SOLAR_SCALE,
) -> Catalogue:
    """Read a table with the public Gaia-ESO column names, to train on or to take velocities from.

    Sentinels (real -9.999995e+08, integer -9999 or -1, text 'NONE') and masked cells become NaN. Element
    columns hold A(X) = log eps and become [X/H] = A(X) - A(X)_sun on the `solar` scale (a name of
    `SOLAR_SCALES`, or a mapping of label to A(X)), which `provenance` records; FEH is relative to the
    survey's Sun as it is. Where an element has two ionisation stages, the neutral one counts and the other
    fills in. A value with `UPPER_X` or `LIM_X` not 0 is a limit, not a measurement, and becomes NaN; so does
    a value without an error.

    Raises `InputError` for an unreadable table, a missing column of names, of a label or of its error, a
    column of the wrong type, a duplicated star and file, or values that no star has.
    """
    path = Path(path)
    solar_scale(solar)
    table = open_table(path)
    if has(table, "CNAME", "OBJECT") is None:
        raise InputError(
            str(path),
            "neither CNAME nor OBJECT",
            "a column with the stars' names",
            "is this a Gaia-ESO catalogue?",
        )
    for name in label_set.names:
        stages = COLUMNS.get(name, ())
        if has(table, *stages) is None:
            raise InputError(
                str(path),
                f"no column for {name}",
                " or ".join(stages) or f"labels of {', '.join(COLUMNS)}",
                "use a table with all labels, or a smaller label set",
            )
    spec = gaia_eso(TableSpec(path.name.split(".")[0], path, "gaia_eso", solar_scale=solar), table)
    catalogue = read_rows(spec, table, label_set)
    catalogue.check_unique()
    return catalogue
