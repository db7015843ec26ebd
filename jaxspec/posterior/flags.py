"""Bit flags of a result, each with its meaning. 0 is safe."""

from __future__ import annotations

from enum import IntFlag


class Flag(IntFlag):
    """What a user must know about a row; the bits add up."""

    NEAR_BOUND = 1
    LOW_SNR = 2
    ARM_MISSING = 4
    BAD_FIT = 8
    OUT_OF_RANGE = 16
    NOT_CHECKED = 32
    NO_DATA = 64
    BAD_ERRORS = 128


FLAG_TEXT = {
    Flag.NEAR_BOUND: "a label's 68 % interval reaches the edge of the training range",
    Flag.LOW_SNR: "signal-to-noise per pixel below the stated limit",
    Flag.ARM_MISSING: "an arm of the instrument has no or hardly any usable pixels",
    Flag.BAD_FIT: "the best model misses the spectrum by more than noise and stated model error allow",
    Flag.OUT_OF_RANGE: "the spectrum or its posterior lies outside what the network was trained on",
    Flag.NOT_CHECKED: "the fit was not checked against the forward model (chi2 is NaN)",
    Flag.NO_DATA: "no usable pixel: the posterior is the prior",
    Flag.BAD_ERRORS: "the stated errors of the pixels are wrong by a factor",
}


def describe(flags: int) -> list[str]:
    """The texts of the bits set in `flags`; an empty list for 0."""
    return [FLAG_TEXT[flag] for flag in Flag if int(flags) & flag]


def names(flags: int) -> str:
    """The bits set in `flags` by name, joined with `|`; "OK" for 0."""
    return "|".join(str(flag.name) for flag in Flag if int(flags) & flag) or "OK"


def legend() -> str:
    """All bits in one line, for the description of a table column."""
    return "bit flags, 0 is safe: " + "; ".join(f"{int(flag)} {flag.name}" for flag in Flag)
