"""Flags in every type that a column can have: the same rows are suspect."""

import numpy as np
import pytest
from astropy.table import Column, MaskedColumn, Table

from jaxspec.catalogues.flags import flagged
from jaxspec.catalogues.spec import parse_table
from jaxspec.errors import InputError
from tests.tables import read, table


def rows(values, rule="flag", missing=(), notes=None):
    spec = parse_table({"file": "t.fits", "flags": rule, "missing": list(missing)}, ".", "t")
    return flagged(Table({"flag": values}), spec.flags[0], spec, notes=notes).tolist()


@pytest.mark.parametrize(
    "values",
    [
        ["True", "False", "False"],
        ["true", "false", "FALSE"],
        ["T", "F", ""],
        ["yes", "no", "-"],
        ["Y", "N", "null"],
        ["1", "0", "000"],
        ["010", "000", "0.0"],
        [b"True", b"False", b"F"],
        ["LOW_SNR", "", "none"],
        ["bad", "ok", "good"],
        np.array(["True", False, None], dtype=object),
        [True, False, False],
        MaskedColumn([True, True, False], mask=[False, True, False]),
        np.array([-(2**31), 0, 0], np.int32),
        np.array([-1, 0, 0], np.int16),
        np.array([-9999, 0, 0]),
        np.array([2**63, 0, 0], np.uint64),
        np.array([255, 0, 0], np.uint8),
        [1.0, 0.0, np.nan],
        MaskedColumn([4, 999999, 0], mask=[False, True, False]),
        MaskedColumn(["True", "True", "False"], mask=[False, True, False]),
    ],
)
def test_the_first_row_is_suspect(values):
    assert rows(values if isinstance(values, Column) else Column(values)) == [True, False, False]


@pytest.mark.parametrize(
    ("values", "bit"),
    [
        (np.array([-(2**31), 0, 2**30], np.int32), 31),
        (np.array([2**31, 0, 1], np.uint32), 31),
        (np.array([2.0**31, 0, 1]), 31),
        (["2147483648", "0", ""], 31),
        (["0x80000000", "0x0", "0x1"], 31),
        (np.array([-(2**15), 0, 1], np.int16), 15),
        (np.array([2**41, 0, 2**40], np.int64), 41),
    ],
)
def test_bits(values, bit):
    assert rows(values, {"column": "flag", "bits": [bit]}) == [True, False, False]


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        (["True", "False", ""], {"values": [True]}),
        (["True", "False", "F"], {"not_values": [False]}),
        (["2", "02x", "000"], {"values": [2]}),
        ([2, 0, 0], {"values": ["2"]}),
        ([True, False, False], {"values": ["true"]}),
        (["none", "x", ""], {"values": ["none"]}),
        (["7", "1", ""], {"above": 5}),
        ([-5, -1, 3], {"below": -2}),
    ],
)
def test_rules_ask_by_value(values, rule):
    assert rows(values, {"column": "flag", **rule}) == [True, False, False]


@pytest.mark.parametrize(
    ("values", "rule", "match"),
    [
        ([1, 0, 0], {"contains": ["x"]}, "column flag.*numbers.*contains"),
        ([1, 0, 0], {"values": ["bad"]}, "'bad'"),
        (["a", "b", "c"], {"bits": [1]}, "use contains:"),
        (["a", "b", "c"], {"above": 1}, "use contains:"),
        ([1.5, 0, 0], {"bits": [1]}, "integers, for bits"),
        (np.array([2**31, 0, 0], np.float32), {"bits": [1]}, "too large to be exact"),
        (np.zeros((3, 2), int), {}, r"flag\[0\]"),
    ],
)
def test_rules_that_a_column_cannot_answer_are_refused(values, rule, match):
    with pytest.raises(InputError, match=match):
        rows(values, {"column": "flag", **rule})


def test_what_was_not_plain_is_told():
    notes: list[str] = []
    rows(["LOW_SNR", "LOW_SNR", "ok"], notes=notes)
    assert "suspect: 'LOW_SNR' (2 rows)" in notes[0] and "safe: 'ok' (1 rows)" in notes[1]
    notes.clear()
    assert rows([-9999, 0, 1], notes=notes) == [True, False, True] and "missing: [-9999]" in notes[0]
    notes.clear()
    assert rows([-9999, 0, 1], missing=[-9999], notes=notes) == [False, False, True]
    assert "1 rows without a value of flag taken as safe" in notes[0]


def test_in_a_table(tmp_path):
    """Through the reader: flags of rows, of one label, and a selection, as text and as numbers."""
    made = table(good=["True", "False", "True"], bad=["F", "F", "T"], code=np.array([0, -(2**31), 0], "i4"))
    out = read(tmp_path, made, flags=["bad", {"column": "code", "bits": [31]}], select={"good": True})
    assert len(out) == 2 and out.flags.tolist() == [0, 1]
    columns = {"teff": {"column": "Teff", "flag": "bad"}, "fe_h": {"column": "feh", "flag": "code"}}
    out = read(tmp_path, made, columns=columns, errors={"teff": 50, "fe_h": 0.1})
    assert np.isfinite(out.labels[:, 0]).tolist() == [True, True, False]
    assert np.isfinite(out.labels[:, 2]).tolist() == [True, False, True]
    out = read(tmp_path, table(code=[-1, -1, 3]), select={"code": [-1, 1]})
    assert len(out) == 2
