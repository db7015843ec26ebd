"""Bit flags of a result, each with its meaning. Some bits reject the labels of a star, others only inform."""

from __future__ import annotations

from enum import IntFlag
from typing import Any

import numpy as np


class Flag(IntFlag):
    """Bits of the column `flags`; they add up."""

    NEAR_BOUND = 1
    LOW_SNR = 2
    ARM_MISSING = 4
    BAD_FIT = 8
    OUT_OF_RANGE = 16
    NOT_CHECKED = 32
    NO_DATA = 64
    BAD_ERRORS = 128


REJECTING = Flag.BAD_FIT | Flag.OUT_OF_RANGE | Flag.NO_DATA | Flag.BAD_ERRORS
"""Bits that say that labels or their errors are wrong. The others describe a posterior that holds."""

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


def usable(flags: Any) -> Any:
    """Whether labels and errors may be used: no bit of `REJECTING` is set.

    A star without one of its arms, faint, or near the edge of the range is usable: its errors say what it
    lacks.

    Args:
        flags: one number, or an array of any shape (a table's column, say).

    Returns: a boolean of the same shape.
    """
    accepted = (np.asarray(flags, np.int64) & int(REJECTING)) == 0
    return accepted if accepted.ndim else bool(accepted)


def describe(flags: int) -> list[str]:
    """The texts of the bits set in `flags`; an empty list for 0."""
    return [FLAG_TEXT[flag] for flag in Flag if int(flags) & flag]


def names(flags: int) -> str:
    """The bits set in `flags` by name, joined with `|`; "OK" for 0."""
    return "|".join(str(flag.name) for flag in Flag if int(flags) & flag) or "OK"


def legend() -> str:
    """All bits in one line, for the description of a table column."""
    bits = {
        reject: ", ".join(f"{int(f)} {f.name}" for f in Flag if bool(f & REJECTING) == reject)
        for reject in (True, False)
    }
    return f"bit flags, 0 is safe; labels are not usable: {bits[True]}; for information: {bits[False]}"


def cards() -> dict[str, str]:
    """The meaning of each bit as header cards of a table: `FLAG8` is that of bit 8."""
    return {
        f"FLAG{int(flag)}": f"{flag.name} ({'rejects' if flag & REJECTING else 'informs'}): {text}"
        for flag, text in FLAG_TEXT.items()
    }
