"""Line lists of one's own in commands: atomic lines within reach of the windows."""

from __future__ import annotations

from collections.abc import Iterable

from jaxspec.physics.linelists import read_line_list
from jaxspec.physics.lines import LineList

BEYOND = 50.0  # A, how far a strong line reaches


def lines_for(path: str | None, windows: Iterable[tuple[float, float]]) -> LineList | None:
    """The atomic lines of a file (VALD, Kurucz, MOOG, Turbospectrum) within reach of windows [A, air]; None
    for none, which stands for the shipped list.

    Raises: InputError for a file that cannot be read.
    """
    if path is None:
        return None
    windows = list(windows)
    low, high = min(w[0] for w in windows) - BEYOND, max(w[1] for w in windows) + BEYOND
    return read_line_list(path, low=low, high=high, molecules="skip", ions="skip")
