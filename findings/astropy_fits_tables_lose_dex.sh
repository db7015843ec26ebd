#!/usr/bin/env bash
# astropy 8.0.2: "dex", the unit of every survey's log g and abundances, does not survive a FITS table.
#
# astropy has the unit (`u.Unit("dex")` works), and surveys write TUNITn = 'dex'. Yet
# - reading such a column warns and gives an UnrecognizedUnit, which is not equal to `u.dex`, so that quantities of
#   it cannot be compared with, or converted to, those made with `u.dex`; QTable does the same;
# - writing a `Table` whose column has the unit leaves it out of the file: read again, the unit is None;
# - writing a `QTable` leaves TUNITn out as well, but keeps the unit in COMMENT cards, from which astropy (and only
#   astropy) restores it without a warning.
# A good guess would be that the two classes write the same file, or that a unit astropy knows is read as that unit.
#
# jaxspec therefore lets astropy keep "dex" in its COMMENT cards and repeats it in the column's description, and its
# own readers turn TUNITn = 'dex' into `u.dex`.
#
# Exits 0 while astropy behaves so, and 1 when it no longer does.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check "astropy==8.0.2"

"$work/env/bin/python" - <<'PY'
import io
import sys
import warnings

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.table import QTable, Table


def caught(call):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        result = call()
    return result, len(seen)


def written(table):
    buffer = io.BytesIO()
    table.write(buffer, format="fits")
    return buffer.getvalue()


column = fits.Column("logg", "D", unit="dex", array=np.array([4.44]))
buffer = io.BytesIO()
fits.BinTableHDU.from_columns([column]).writeto(buffer)
survey, n_survey = caught(lambda: Table.read(io.BytesIO(buffer.getvalue())))
unit = survey["logg"].unit
print(f"TUNIT1 = 'dex' is read as {unit!r} with {n_survey} warning; equal to u.dex: {unit == u.dex}")

plain = Table({"logg": [4.44]})
plain["logg"].unit = u.dex
plain_file, _ = caught(lambda: written(plain))
plain_unit = Table.read(io.BytesIO(plain_file))["logg"].unit
print(f"a Table with u.dex is read back with the unit {plain_unit}")

quantity = QTable({"logg": np.array([4.44]) * u.dex})
quantity_file, _ = caught(lambda: written(quantity))
header = fits.open(io.BytesIO(quantity_file))[1].header
back, n_back = caught(lambda: QTable.read(io.BytesIO(quantity_file)))
print(
    f"a QTable with u.dex writes TUNIT1: {'TUNIT1' in header}, comments: {len(header['COMMENT'])}; "
    f"read back as {back['logg'].unit!r} with {n_back} warnings"
)
same = (
    n_survey == 1
    and isinstance(unit, u.UnrecognizedUnit)
    and unit != u.dex
    and plain_unit is None
    and "TUNIT1" not in header
    and back["logg"].unit == u.dex
    and n_back == 0
)
sys.exit(0 if same else 1)
PY
