"""Entries are understood, or named with the place where they stand."""

from pathlib import Path

import pytest

from jaxspec.catalogues.spec import FlagRule, Quantity, label_of, parse_file, parse_table
from jaxspec.errors import InputError


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ([], "a list of tables"),
        ({"tables": [{"columns": {}}]}, "table 1, file"),
        ({"tables": [{"file": "a.fits", "colums": {}}]}, "colums.*unknown entry.*columns"),
        ({"tables": [{"file": "a.fits", "columns": {"tef": "T"}}]}, "tef.*unknown label"),
        ({"tables": [{"file": "a.fits", "columns": ["teff"]}]}, "labels and their columns"),
        ({"tables": [{"file": "a.fits", "columns": {"teff": 3}}]}, "entries column"),
        ({"tables": [{"file": "a.fits", "columns": {"mg_h": "a", "mg_fe": "b"}}]}, "mg_h twice"),
        ({"tables": [{"file": "a.fits", "columns": {"teff": "T"}, "errors": {"logg": 1}}]}, "errors.logg"),
        ({"tables": [{"file": "a.fits", "errors": {"teff": -1}}]}, "errors.teff.*positive number"),
        ({"tables": [{"file": "a.fits", "anchor": "yes"}]}, "anchor.*true or false"),
        ({"tables": [{"file": "a.fits", "identifiers": {"ra": "RA"}}]}, "both coordinates"),
        ({"tables": [{"file": "a.fits", "identifiers": {"hipp": "HIP"}}]}, "hipp.*unknown entry.*hip"),
        ({"tables": [{"file": "a.fits"}, {"file": "a.fits"}]}, "2 tables named a"),
        ({"tables": [{"file": "$NO_SUCH_VARIABLE/a.fits"}]}, "a variable that is set"),
        ({"tables": [{"file": "a.fits"}], "labels": ["teff", "x"]}, "labels, x.*unknown label"),
        ({"tables": [{"file": "a.fits", "zero_point_error": {"teff": 9}}]}, "anchor: true"),
        ({"tables": [{"file": "a.fits", "flags": {"column": "f", "bits": [70]}}]}, "bits.*0 to 62"),
        ({"tables": [{"file": "a.fits", "duplicates": "drop"}]}, "keep, first or error"),
    ],
)
def test_entries_that_are_not_understood_are_named(content, match):
    with pytest.raises(InputError, match=match):
        parse_file(content, ".")


def test_a_file_may_be_a_list_a_mapping_or_one_table(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_FOLDER", "/somewhere")
    one = {"file": "$SOME_FOLDER/b.fits"}
    assert parse_file(one, tmp_path).tables[0].file.as_posix() == "/somewhere/b.fits"
    assert parse_file([one], tmp_path) == parse_file({"tables": [one]}, tmp_path)
    assert parse_file({"surveys": [{"path": one["file"]}]}, tmp_path) == parse_file(one, tmp_path)
    with pytest.raises(InputError, match="both path and file"):
        parse_file([{**one, "path": "a.fits"}], tmp_path)
    named = parse_file({"tables": {"first": {"file": "a.fits"}}}, tmp_path).tables[0]
    assert named.name == "first" and named.file == tmp_path / "a.fits"


def test_every_entry_of_a_table_is_understood():
    spec = parse_table(
        {
            "name": "mine",
            "file": "t.fits",
            "format": "galah",
            "hdu": 2,
            "columns": {
                "teff": ["T_sp", {"column": "T_phot", "unit": "kK", "error": 0.2}],
                "mg_fe": {"column": "v[3]", "flag": "f", "flag_bits": 6, "missing": 99},
                "al_h": {"column": "A_Al", "absolute": True, "otherwise": 0.2},
            },
            "errors": {"teff": ["up", "down"], "mg_h": "e_mg", "al_h": 0.1},
            "units": {"mg_fe": "dex"},
            "identifiers": {"gaia": "id", "ra": "RA", "dec": "DEC", "epoch": 2016},
            "flags": ["q", {"column": "b", "bits": [1, 40], "meaning": "bad"}, {"column": "s", "below": 20}],
            "anchor": True,
            "zero_point_error": {"teff": 20},
            "cluster": "cl",
            "magnitude": {"G": "phot_g"},
            "select": {"snr": [30, None]},
            "missing": -99.0,
            "solar_scale": "asplund2009",
            "duplicates": "first",
        },
        "/data",
        "table 1",
    )
    assert spec.name == "mine" and spec.file == Path("/data/t.fits") and spec.hdu == 2
    assert spec.format == "galah" and spec.duplicates == "first" and spec.anchor
    assert spec.columns == {
        "teff": (Quantity("T_sp", error=("up", "down")), Quantity("T_phot", unit="kK", error=0.2)),
        "mg_h": (
            Quantity(
                "v[3]", unit="dex", relative_to="fe_h", error="e_mg", flag="f", flag_bits=6, missing=(99.0,)
            ),
        ),
        "al_h": (Quantity("A_Al", absolute=True, error=0.1, otherwise=0.2),),
    }
    assert spec.flags == (
        FlagRule("q"),
        FlagRule("b", bits=(1, 40), meaning="bad"),
        FlagRule("s", below=20.0),
    )
    assert spec.identifiers == {"gaia": "id", "ra": "RA", "dec": "DEC", "epoch": 2016}
    assert spec.zero_point_error == {"teff": 20.0} and spec.magnitude == {"G": "phot_g"}
    assert spec.cluster == "cl" and spec.select == {"snr": [30, None]} and spec.missing == (-99.0,)
    assert spec.solar_scale == "asplund2009" and spec.stars is None


def test_labels_may_be_written_relative_to_iron():
    assert label_of("mg_fe", "here") == ("mg_h", "fe_h")
    assert label_of("mg_h", "here") == ("mg_h", None) and label_of("m_h", "here") == ("m_h", None)
    for wrong in ("fe_fe", "xx_fe", "metallicity"):
        with pytest.raises(InputError, match=f"here, {wrong}.*unknown label"):
            label_of(wrong, "here")
