"""Tables of photometry and labels, with whatever names and gaps they have."""

import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.foundation.reading import read_labels, read_stars


def test_quantities_are_found_by_name(tmp_path):
    path = tmp_path / "stars.csv"
    path.write_text(
        "source_id,phot_g_mean_mag,BP_RP,teff,e_teff,colour\n5,12.5,1.1,4800,50,red\n7,13,,5000,,blue\n"
    )
    stars = read_stars(path, None)
    assert stars.source.tolist() == [5, 7] and stars.names == ("bp_rp", "teff", "g")
    np.testing.assert_array_equal(stars.values, [[1.1, 4800, 12.5], [np.nan, 5000, 13]])
    assert stars.errors[0].tolist() == [0.0, 50.0, 0.0] and np.isnan(stars.errors[1, 0])


def test_labels_are_all_other_columns(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("source_id,mg_h,mg_h_error\n5,0.1,0.02\n7,-0.3,0.03\n")
    labels = read_labels(path)
    assert labels.names == ("mg_h",) and labels.errors.ravel().tolist() == [0.02, 0.03]
    path.write_text("star,mg_h\n5,0.1\n")
    with pytest.raises(InputError, match="no column source_id"):
        read_labels(path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "x,y\n1,2\n", "columns x, y; expected coefficients or samples"),
        ("a.csv", "teff\nhot\n", "column teff: found text"),
        ("a.txt", "teff\n5000\n", r"suffix '\.txt'"),
        ("a.fits", "nothing", "a file that cannot be read"),
        ("a.csv", "flux,flux_error\n\"(1,2)\",\"(1,2)\"\n", r"column flux: found \(2,\) samples"),
        ("a.csv", "bp_coefficients\n1\n", "gaiaxpy"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_used_say_why(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_stars(path, None)
