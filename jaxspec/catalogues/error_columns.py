"""Columns that are given as errors and cannot be: percentiles, variances, numbers as large as the values."""

import re
from collections.abc import Sequence

import numpy as np
from scipy.stats import median_abs_deviation

from jaxspec.catalogues.spec import Quantity, TableSpec
from jaxspec.errors import InputError

# The largest median error that a column of errors can have: beyond it a label says nothing of a star.
LARGEST = {"teff": 1500.0, "logg": 1.8}
LARGEST_ABUNDANCE = 2.0
# Rows from which on two columns are compared in their scatter, and how much less their difference scatters.
FEW, FOLLOWS = 5, 0.5
_PERCENTILE = re.compile(
    r"(^|[^0-9])(p|q|perc|percentile|quantile)?[_ ]?(2\.?5|5|05|16|15|84|85|95|97\.?5)(th|pc|p|%)?$"
    r"|(^|_)(lower|upper|lo|hi|low|high|min|max|p16|p84|q16|q84)($|_)|^[bB]_",
)
_ERROR = re.compile(
    r"(?i:err|sig|unc|std|stdev|delta|disp|scatter|rms|(^|[_ ])(e|er|s|d|u|eps)($|[_ ]))|(^|[_ ])er?[A-Z]"
)
_VARIANCE = re.compile(r"(^|_)(i?var|variance|inv_?var|ivar|weight)($|_)", re.I)


def check_errors(
    names: Sequence[str],
    parts: Sequence[np.ndarray],
    value: np.ndarray,
    label: str,
    quantity: Quantity,
    spec: TableSpec,
    where: str,
) -> None:
    """Refuse columns (`parts`, one or up and down, in the label's unit) that are no errors of `value`.

    Percentiles follow the values: their difference from them scatters less than they do. Two columns on
    either side of the values are limits, not errors. Raises `InputError` naming the file and the columns.
    """
    pair = " and ".join(names)
    half = (
        f"(upper - lower) / 2 of {pair}" if len(names) > 1 else f"half the interval that {pair} is an end of"
    )
    number = "100" if label == "teff" else "0.1"
    fix = f"give {where}: a column with {half}, or one number, {number}"
    place = f"{spec.file}, {where}, column {pair}"

    def refuse(found: str, expected: str = "one-sigma errors") -> None:
        raise InputError(place, found, expected, fix)

    for name, part in zip(names, parts, strict=True):
        if _VARIANCE.search(name):
            refuse("a column that by its name holds variances or weights")
        if name.lower() == quantity.column.lower():
            refuse("the column of the values themselves")
        both = np.isfinite(value) & np.isfinite(part)
        v, e = value[both], part[both]
        if not v.size:
            continue
        limit = LARGEST.get(label, LARGEST_ABUNDANCE)
        if np.median(np.abs(e)) > limit:
            refuse(f"a median of {np.median(np.abs(e)):g}, as large as the values: percentiles, perhaps")
        if _follows(v, e):
            refuse(f"numbers that follow those of {quantity.column}: percentiles or limits, not errors")
        if _PERCENTILE.search(name) and not _ERROR.search(name):
            refuse("a column that by its name holds a percentile or a limit")
    if len(parts) == 2:
        up, down = parts
        both = np.isfinite(value) & np.isfinite(up) & np.isfinite(down)
        if both.any():
            v, a, b = value[both], np.minimum(up, down)[both], np.maximum(up, down)[both]
            mixed = ((a < 0).any() and (a > 0).any()) or ((b < 0).any() and (b > 0).any())
            if (mixed or (b < 0).any() or v.size >= 3) and (a <= v).all() and (v <= b).all():
                refuse("lower and upper limits of the values, not errors")


def _follows(value: np.ndarray, error: np.ndarray) -> bool:
    """Whether errors rise with the values one to one, as percentiles do."""
    spread = median_abs_deviation(value)
    if value.size < FEW or spread == 0.0:
        return False
    alike = median_abs_deviation(error) > FOLLOWS * spread
    return bool(alike and median_abs_deviation(error - value) < FOLLOWS * spread)
