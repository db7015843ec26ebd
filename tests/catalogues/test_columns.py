"""Columns of any table become numbers in our units, or are refused by name."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from astropy.table import MaskedColumn, Table

from jaxspec.catalogues.columns import check_physical, in_unit, numbers, open_table, strings
from jaxspec.errors import InputError
from jaxspec.labels import label_set

PATH = Path("t.fits")


@pytest.mark.parametrize("suffix", ["csv", "ecsv", "txt", "dat", "fits", "csv.gz"])
def test_a_table_is_opened_by_its_suffix(tmp_path, suffix):
    text, path = "star teff\na 5772\nb 4500\n", tmp_path / f"t.{suffix}"
    if suffix == "csv.gz":
        path.write_bytes(gzip.compress(text.replace(" ", ",").encode()))
    elif suffix in ("txt", "dat"):
        path.write_text(text)
    else:
        Table({"star": ["a", "b"], "teff": [5772, 4500]}).write(path)
    table = open_table(path)
    assert strings(table, "star") == ("a", "b")
    assert numbers(table, "teff", path)[0].tolist() == [5772.0, 4500.0]


def test_one_of_several_tables_of_a_file(tmp_path):
    for name, value in (("FIRST", 1.0), ("SECOND", 2.0)):
        table = Table({"x": [value]}, meta={"EXTNAME": name})
        table.write(tmp_path / "t.fits", append=name == "SECOND")
    assert open_table(tmp_path / "t.fits", 2)["x"][0] == 2.0
    assert open_table(tmp_path / "t.fits", "FIRST")["x"][0] == 1.0
    with pytest.raises(InputError, match=r"t\.fits.*check the file"):
        open_table(tmp_path / "t.fits", "THIRD")


def test_text_without_a_value_is_empty():
    cells = MaskedColumn([" a ", "NONE", "--", "n/a", "hidden"], mask=[0, 0, 0, 0, 1])
    assert strings(Table({"x": cells}), "x") == ("a", "", "", "", "")
    assert strings(Table({"x": np.array([b"ab ", b"none"])}), "x") == ("ab", "")


@pytest.mark.parametrize(
    ("name", "cells", "expected"),
    [
        # What surveys write for "not measured": Gaia-ESO's real and integers, SDSS's, GALAH's NaN.
        (
            "TEFF",
            np.array([50, -9.999995e8, -9999, -9999.99, np.nan, np.inf], np.float32),
            [50] + 5 * [None],
        ),
        ("NN_TEFF", np.array([3, -1, -9999], np.int16), [3, None, None]),
        ("count", np.array([0, -1, -2147483648], np.int32), [0, None, None]),
        # -1 is a number where it may be measured, and none where it cannot be.
        ("FEH", np.array([-1.0, -0.5]), [-1.0, -0.5]),
        ("E_FEH", np.array([-1.0, 0.1]), [None, 0.1]),
        ("LIM_VSINI", np.array([-1.0, 1.0]), [None, 1.0]),
        ("text", np.array(["1.5", "NONE", "-9999", ""]), [1.5, None, None, None]),
        ("masked", MaskedColumn([1.0, 2.0], mask=[True, False]), [None, 2.0]),
        ("masked_integer", MaskedColumn([7, 2], mask=[False, True]), [7.0, None]),
        ("flag", np.array([True, False]), [1.0, 0.0]),
    ],
)
def test_numbers_and_their_absence(name, cells, expected):
    values, none = numbers(Table({name: cells}), name, PATH)
    np.testing.assert_array_equal(values, [np.nan if x is None else x for x in expected])
    assert values.dtype == np.float64 and none == expected.count(None)


def test_what_is_no_number_is_refused_by_row():
    with pytest.raises(InputError, match=r"t\.fits column x row 1: found 'warm'"):
        numbers(Table({"x": ["1", "warm"]}), "x", PATH)
    with pytest.raises(InputError, match=r"column x: found float64 of shape \(2, 3\)"):
        numbers(Table({"x": np.ones((2, 3))}), "x", PATH)


def test_units_are_converted():
    table = Table({"t": [5.772], "v": [1500.0], "plain": [3.0], "g": [4.44]})
    table["t"].unit, table["v"].unit = "kK", "m/s"
    assert in_unit(table, "t", "K", PATH)[0] == pytest.approx(5772.0)
    assert in_unit(table, "v", "km/s", PATH)[0] == pytest.approx(1.5)
    assert in_unit(table, "plain", "km/s", PATH)[0] == 3.0  # without a unit: as it is
    assert in_unit(table, "plain", "K", PATH, "kK")[0] == pytest.approx(3000.0)  # stated beside the table
    with pytest.raises(InputError, match=r"column t.*unit kK.*km/s"):
        in_unit(table, "t", "km/s", PATH)


@pytest.mark.parametrize("unit", ["dex", "log(cm.s**-2)", "[cm/s2]", "[-]", "-", None])
def test_logarithms_go_by_many_units(unit):
    table = Table({"logg": [4.44]})
    assert in_unit(table, "logg", "dex", PATH, unit)[0] == 4.44


def test_a_linear_unit_is_no_logarithm():
    with pytest.raises(InputError, match=r"column g.*cm / s2.*dex"):
        in_unit(Table({"g": [27542.0]}), "g", "dex", PATH, "cm / s2")


def test_values_that_no_star_has():
    labels = label_set("teff", "logg", "fe_h")
    fine = np.array([[5772.0, 4.44, 0.0], [45_000.0, 8.0, -6.0], [np.nan] * 3])  # a white dwarf, a relic
    check_physical(fine, labels, "t")
    for j, value in ((0, 3.76), (0, 99_999.0), (1, 27542.0), (2, 7.5)):
        wrong = fine.copy()
        wrong[1, j] = value
        with pytest.raises(InputError, match=f"t label {labels.names[j]} row 1: found {value:g}"):
            check_physical(wrong, labels, "t")


@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("suffix", [".csv", ".txt", ".ecsv"])
def test_the_byte_order_mark_of_excel_is_no_part_of_a_name(tmp_path, coding, suffix):
    head = "# %ECSV 1.0\n# ---\n# datatype:\n# - {name: source_id, datatype: string}\n"
    head = (
        head + "# - {name: teff, unit: K, datatype: float64}\n# schema: astropy-2.0\n"
        if suffix == ".ecsv"
        else ""
    )
    sep = "," if suffix == ".csv" else " "
    path = tmp_path / f"stars{suffix}"
    path.write_bytes(f"{head}source_id{sep}teff\nétoile{sep}5772\n".encode(coding))
    table = open_table(path)
    assert table.colnames == ["source_id", "teff"] and table["source_id"][0] == "étoile"
