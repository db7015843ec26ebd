"""An entry says which reader a table goes to."""

import numpy as np
import pytest
from astropy.table import Table

from jaxspec.catalogues.read import label_names, read_survey
from jaxspec.catalogues.spec import parse_file
from jaxspec.errors import InputError
from jaxspec.labels import NINE_LABELS, label_set


@pytest.fixture
def tables(tmp_path):
    """The same star by a column map and by GALAH's layout."""
    Table({"HIP": [7], "T": [5772.0], "M": [0.1]}).write(tmp_path / "own.csv")
    galah = {"tmass_id": ["03292572-6933158"], "flag_sp": [0], "teff": [5700.0], "e_teff": [80.0],
             "fe_h": [-0.9], "e_fe_h": [0.06], "mg_fe": [0.26], "e_mg_fe": [0.08]}  # fmt: skip
    Table(galah).write(tmp_path / "galah.fits")
    return parse_file(
        [
            {"file": "own.csv", "columns": {"teff": "T", "m_h": "M"}, "errors": {"teff": 50, "m_h": 0.1},
             "identifiers": {"hip": "HIP"}},
            {"file": "galah.fits", "format": "galah"},
        ],
        tmp_path,
    ).tables  # fmt: skip


def test_each_table_goes_to_its_reader(tables):
    own, galah = (read_survey(spec, NINE_LABELS) for spec in tables)
    assert own.labels[0, 0] == 5772.0 and own.identifiers.label(0) == "HIP 7" and own.flag_meaning == {}
    assert galah.labels[0, NINE_LABELS.index("mg_h")] == pytest.approx(-0.64)
    assert galah.flag_meaning == {1: "flag_sp is not 0"}
    assert (own.provenance["format"], galah.provenance["format"]) == ("generic", "galah")
    assert own.provenance["rows"] == 1 and len(own.provenance["sha256"]) == 64


def test_the_labels_of_all_tables(tables):
    assert label_names(tables) == ["teff", "m_h", "fe_h", "mg_h"]
    assert label_names(tables[:1]) == ["teff", "m_h"]
    both = read_survey(tables[0], label_set("m_h", "teff"))
    np.testing.assert_array_equal(both.labels, [[0.1, 5772.0]])


def test_a_format_that_nobody_reads(tmp_path):
    Table({"a": [1.0]}).write(tmp_path / "t.csv")
    with pytest.raises(InputError, match=r"found 'gaia'.*generic, posterior or one of apogee"):
        read_survey(parse_file([{"file": "t.csv", "format": "gaia"}], tmp_path).tables[0], NINE_LABELS)
