"""Bit flags are what files say they are: fixed numbers, each with a name and a text."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jaxspec.posterior.flags import FLAG_TEXT, Flag, describe, legend, names, set_flag

EVERY = st.integers(0, 2 * max(Flag) - 1)


def test_bits_are_those_of_files_already_written():
    assert {flag.name: int(flag) for flag in Flag} == {
        "NEAR_BOUND": 1,
        "LOW_SNR": 2,
        "ARM_MISSING": 4,
        "BAD_FIT": 8,
        "OUT_OF_RANGE": 16,
        "NOT_CHECKED": 32,
        "NO_DATA": 64,
        "BAD_ERRORS": 128,
    }
    assert len(set(FLAG_TEXT.values())) == len(Flag) and set(FLAG_TEXT) == set(Flag)


@given(EVERY)
def test_names_and_texts_are_of_the_bits_that_are_set(flags):
    set_bits = [flag for flag in Flag if flags // int(flag) % 2]
    assert describe(flags) == [FLAG_TEXT[flag] for flag in set_bits]
    assert names(flags) == ("|".join(flag.name for flag in set_bits) if flags else "OK")
    if flags:
        assert sum(Flag[name] for name in names(flags).split("|")) == flags


@given(st.lists(st.tuples(EVERY, st.booleans()), min_size=1, max_size=20), st.sampled_from(list(Flag)))
def test_a_flag_is_set_or_cleared_row_by_row_and_no_other_bit_changes(rows, flag):
    before, where = (np.array(column) for column in zip(*rows, strict=True))
    kept = before.copy()
    after = set_flag(before, flag, where)
    assert after.dtype == np.int64
    np.testing.assert_array_equal(after // int(flag) % 2 == 1, where)
    others = [bit for bit in Flag if bit != flag]
    for bit in others:
        np.testing.assert_array_equal(after // int(bit) % 2, before // int(bit) % 2)
    np.testing.assert_array_equal(before, kept)


def test_the_legend_fits_a_table_and_names_every_bit():
    assert all(f"{int(flag)} {flag.name}" in legend() for flag in Flag)
    assert "0 is safe" in legend() and "\n" not in legend()
