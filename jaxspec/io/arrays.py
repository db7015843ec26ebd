"""From the arrays that stand beside a flux to its inverse variance and quality bits, in every layout."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxspec.errors import InputError
from jaxspec.io.names import ERRORS, MASKS, Role
from jaxspec.io.noise import blockwise, count_near
from jaxspec.io.quality import Quality
from jaxspec.io.typed import argument
from jaxspec.io.units import factor

AGREE = 0.02  # relative difference in sigma of two error arrays that say the same
NEGATIVE_MAX = 0.5  # share of negative errors above which an array cannot hold errors
# A mask that leaves out more of the pixels that look sound than this may mean the opposite.
FLAGGED_MAX = 0.5


@dataclass(frozen=True)
class Array:
    """Values of one column or extension: NaN where undefined. `where` names it in messages."""

    name: str
    role: Role
    values: np.ndarray
    where: str
    unit: str = ""


def combine(
    flux: np.ndarray, arrays: Sequence[Array], flux_unit: str = ""
) -> tuple[np.ndarray | None, np.ndarray, list[str]]:
    """Inverse variance (None without errors), quality bits, and the arrays not used with the reason.

    A pixel whose error is undefined (NaN, infinite, 0, negative) or whose mask is set or undefined has ivar 0
    or a quality bit. Two error arrays must agree.

    Raises `InputError` for arrays of another length, errors that contradict each other, mostly negative
    errors, a unit that is not the flux's, and a mask that leaves out most of what looks sound.
    """
    quality = np.zeros(len(flux), np.int32)
    ivar, first, unused = None, None, []
    for array in arrays:
        if len(array.values) != len(flux):
            raise InputError(
                array.where,
                f"{len(array.values)} pixels",
                f"{len(flux)}, as the flux has",
                "the file is damaged: fetch it again",
            )
        if array.role not in ERRORS:
            continue
        values, reason = _inverse_variance(array, quality, flux_unit)
        if values is None:
            unused.append(f"{array.name} ({reason})")
        elif ivar is None or first is None:
            ivar, first = values, array
        else:
            both = (ivar > 0) & (values > 0)
            ratio = np.sqrt(np.median(values[both] / ivar[both])) if both.any() else 1.0
            if abs(ratio - 1.0) > AGREE:
                raise InputError(
                    array.where,
                    f"errors {1 / ratio:.3g} times those of {first.name}: the two contradict each other",
                    "one array of errors, or several that agree",
                    f"remove {array.name} or {first.name} from the file",
                )
            ivar = np.where(values > 0, ivar, 0.0)
    if ivar is not None:
        quality[(ivar == 0) & (quality == 0)] |= Quality.NO_ERROR
    for array in arrays:
        if array.role in MASKS:
            bad = (array.values == 0) == (array.role == Role.GOOD)
            bad = bad | np.isnan(array.values)
            sound = np.isfinite(flux) & (flux != 0) & (quality == 0)
            if sound.any() and FLAGGED_MAX < bad[sound].mean() < 1.0:
                raise InputError(
                    array.where,
                    f"{bad[sound].mean():.0%} of the pixels marked as bad, though they look sound",
                    f"a mask in which 0 means {'good' if array.role == Role.MASK else 'bad'}",
                    f"if it means the opposite, rename it {'GOOD' if array.role == Role.MASK else 'MASK'}; "
                    "if it is right, set the errors of these pixels to 0 and remove it",
                )
            quality[bad] |= Quality.FLAGGED
    return ivar, quality, unused


def _inverse_variance(array: Array, quality: np.ndarray, flux_unit: str) -> tuple[np.ndarray | None, str]:
    """Inverse variance with 0 where it is undefined; None and the reason where the array says nothing."""
    power = {Role.SIGMA: 1, Role.VARIANCE: 2, Role.IVAR: -2}[array.role]
    values = np.asarray(array.values, np.float64) * factor(array.unit, flux_unit, power, array.where)
    known = np.isfinite(values) & (values != 0)
    if not known.any():
        if array.role == Role.IVAR:
            return np.zeros(len(values)), ""
        return None, "it holds no value at all: NaN or 0"
    if (values[known] < 0).mean() > NEGATIVE_MAX:
        raise InputError(
            array.where,
            f"negative values in {int((values[known] < 0).sum())} of {int(known.sum())} pixels",
            f"an array of {array.role}",
            f"give it the name of what it holds, or remove it and give {argument('snr', 80)}",
        )
    good = known & (values > 0)
    if power < 0:
        ivar = np.where(good, values, 0.0)
    else:
        sigma = np.where(good, values, 1.0) ** (1.0 / power)
        # The square of its inverse would be infinite: no error of a pixel is that small.
        tiny = sigma < 1e-150
        quality[tiny] |= Quality.ERROR_SPIKE
        good &= ~tiny
        ivar = np.where(good, np.where(good, sigma, 1.0) ** -2.0, 0.0)
    # What is beside an impossible error may be damaged as well: it cannot be far more precise than the rest.
    impossible = (values < 0) | np.isinf(values)
    if impossible.any():
        beside = count_near(impossible, 201) > 0
        spike = good & beside & (ivar > 100.0 * blockwise(ivar, good, 50.0))
        quality[spike] |= Quality.ERROR_SPIKE
        ivar[spike] = 0.0
    return ivar, ""
