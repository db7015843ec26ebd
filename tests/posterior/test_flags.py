"""Bit flags are what files say they are: fixed numbers, each with a name and a text."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jaxspec.posterior.flags import FLAG_TEXT, REJECTING, Flag, cards, describe, legend, names, usable

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


def test_the_legend_fits_a_table_and_names_every_bit():
    assert all(f"{int(flag)} {flag.name}" in legend() for flag in Flag)
    assert "0 is safe" in legend() and "\n" not in legend()


def test_what_informs_throws_no_star_away():
    """A star observed in one arm, unchecked, faint or at the edge keeps its labels; a bad fit does not."""
    kept = Flag.ARM_MISSING | Flag.NOT_CHECKED | Flag.NEAR_BOUND | Flag.LOW_SNR
    assert usable(0) is True and usable(int(kept)) is True and kept | REJECTING == sum(Flag)
    column = np.array([[0, 4], [4 | 8, 128]])
    np.testing.assert_array_equal(usable(column), [[True, True], [False, False]])
    for flag in (Flag.BAD_FIT, Flag.OUT_OF_RANGE, Flag.NO_DATA, Flag.BAD_ERRORS):
        assert usable(int(flag | kept)) is False


def test_cards_say_what_each_bit_does():
    assert set(cards()) == {f"FLAG{int(flag)}" for flag in Flag}
    assert cards()["FLAG8"].startswith("BAD_FIT (rejects): the best model misses")
    assert cards()["FLAG4"].startswith("ARM_MISSING (informs): an arm")
    rejecting, informing = legend().split("for information")
    assert "16 OUT_OF_RANGE" in rejecting and "1 NEAR_BOUND" in informing
