"""Bit flags are what files say they are: fixed numbers, each with a name and a text."""

from hypothesis import given
from hypothesis import strategies as st

from jaxspec.posterior.flags import FLAG_TEXT, Flag, describe, legend, names

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
