"""What all layouts share."""

from pathlib import Path

import pytest
from astropy.table import Table

from jaxspec.catalogues.layouts.common import completed, has, identified, measured
from jaxspec.catalogues.spec import FlagRule, Quantity, TableSpec
from jaxspec.errors import InputError
from tests.tables import layout


def test_a_table_that_is_not_that_surveys(tmp_path):
    with pytest.raises(InputError, match=r"format galah.*none of its columns"):
        layout(tmp_path, Table({"a": [1.0]}), "galah")


def test_what_an_entry_says_takes_precedence():
    table = Table({"teff": [5000.0], "E_TEFF": [50.0], "Mg_Fe": [0.1]})
    assert has(table, "missing", "TEFF") == "TEFF" and has(table, "x") is None
    assert identified(table, gaia=("source_id",), name=("x", "MG_FE")) == {"name": "MG_FE"}
    columns = measured(table, {"teff": ("TEFF", "E_TEFF"), "logg": ("LOGG", "E_LOGG")})
    assert columns == {"teff": (Quantity("TEFF", error="E_TEFF"),)}
    layout = TableSpec(
        "s",
        Path("s.fits"),
        columns={**columns, "fe_h": (Quantity("FEH", error="E_FEH"),)},
        identifiers={"name": "OBJECT", "ra": "RA", "dec": "DEC"},
        flags=(FlagRule("flag"),),
        solar_scale="asplund2005",
        facts={"snr": "SNR", "vmic": "XI"},
        spectrum="FILENAME",
    )
    entry = TableSpec(
        "s",
        Path("s.fits"),
        # An error in place of the survey's own, and another column for iron.
        columns={"teff": (Quantity("", error=90.0),), "fe_h": (Quantity("mh", error=0.1),)},
        identifiers={"name": "CNAME"},
        solar_scale="asplund2009",
        facts={"snr": "S_N"},
    )
    out = completed(entry, layout)
    assert out.columns == {
        "teff": (Quantity("TEFF", error=90.0),),
        "fe_h": (Quantity("mh", error=0.1),),
    }
    assert out.identifiers == {"name": "CNAME", "ra": "RA", "dec": "DEC"}
    assert out.flags == layout.flags and out.solar_scale == "asplund2009"
    assert out.facts == {"snr": "S_N", "vmic": "XI"} and out.spectrum == "FILENAME"
