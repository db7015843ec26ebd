"""Words and numbers in cells mean what they say, in any case and spelling."""

import pytest

from jaxspec.catalogues.cells import integer, is_blank, is_nameless, number, truth


@pytest.mark.parametrize("text", ["", "-", "--", "...", "?", "N/A", "n.a.", "NaN", "null", "None", "<NA>"])
def test_nothing(text):
    assert is_blank(text) and is_nameless(text)


@pytest.mark.parametrize(
    "text",
    ["Unknown", "UNKNOWN", "no name", "No-ID", "not available", "anonymous", "Sky", "0", "000", "-1", "-9999",
     "-999.0", "2147483647", "9223372036854775807"],
)  # fmt: skip
def test_no_star(text):
    assert is_nameless(text)


@pytest.mark.parametrize(
    "text", ["HD 1", "alf Cen", "Unknown 7", "a", "1", "T", "α Cen", "G 64-12", "-7 4003"]
)
def test_names(text):
    assert not is_nameless(text)


def test_truth_and_numbers():
    assert [truth(t) for t in ("True", "t", "YES", "false", "F", "no", "off")] == [True] * 3 + [False] * 4
    assert truth("maybe") is truth("1") is None
    assert (number("000"), number("1e3"), number("0x10"), number("a")) == (0.0, 1000.0, 16.0, None)
    assert (integer("0x80000000"), integer("-2147483648"), integer("3.0"), integer("3.5")) == (
        2**31,
        -(2**31),
        3,
        None,
    )
