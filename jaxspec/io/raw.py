"""What every reader returns before anything is assumed about it."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxspec.errors import InputError
from jaxspec.io.quality import Quality


@dataclass
class RawSpectrum:
    """The content of one file, in A, and what the file itself states; None is what it does not state.

    - `wavelength, flux [p]`; `ivar [p]` or None without errors; `quality [p]` bits known to the reader.
    - `medium` "air" or "vacuum"; `frame` "rest", "barycentric" or "topocentric".
    - `velocity`, `velocity_error` km/s: radial velocity of the star on this wavelength axis.
    - `barycentric_correction` km/s: to be added to velocities of a topocentric axis.
    - `resolving_power`: R; `native` names the instrument whose own resolution this is where the file gives no
      number.
    - `lsf [p]`: Gaussian sigma of the line-spread function in A, where the file has it pixel by pixel.
    - `star`: the star's name in the file; `meta`: facts from the header; `notes`: decisions worth telling.
    - `selected`: which of the file's spectra this is, where it holds several and one was chosen.
    """

    product: str
    wavelength: np.ndarray
    flux: np.ndarray
    ivar: np.ndarray | None
    quality: np.ndarray
    medium: str | None = None
    frame: str | None = None
    velocity: float | None = None
    velocity_error: float | None = None
    barycentric_correction: float | None = None
    resolving_power: float | None = None
    native: str | None = None
    star: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    lsf: np.ndarray | None = None
    selected: str | None = None


def ivar_from_sigma(sigma: np.ndarray, quality: np.ndarray, where: str) -> np.ndarray:
    """Inverse variance of errors in which NaN and 0 mean "no value"; those pixels get ivar 0 and
    `Quality.NO_ERROR`.

    Raises `InputError` for a negative or infinite error.
    """
    sigma = np.asarray(sigma, np.float64)
    wrong = (sigma < 0) | np.isinf(sigma)
    if wrong.any():
        bad = int(np.flatnonzero(wrong)[0])
        raise InputError(
            where,
            f"error {sigma[bad]} at pixel {bad} ({int(wrong.sum())} such pixels)",
            "errors that are positive (NaN or 0: no value)",
            "repair the error array",
        )
    missing = np.isnan(sigma) | (sigma == 0)
    quality[missing] |= Quality.NO_ERROR
    safe = np.where(missing, 1.0, sigma)
    tiny = safe < 1e-150
    if tiny.any():
        bad = int(np.flatnonzero(tiny)[0])
        raise InputError(
            where,
            f"error {sigma[bad]:.3g} at pixel {bad}",
            "errors on the scale of the flux",
            "repair the error array",
        )
    return np.where(missing, 0.0, safe**-2)
