"""Entries are understood, or named with the place where they stand."""

import pytest

from jaxspec.catalogues.spec import parse_file
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
