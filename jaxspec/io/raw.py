"""A spectrum as a reader returns it, before anything is assumed about it."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxspec.io.arrays import Array, combine
from jaxspec.io.names import Role
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
    - `unused`: arrays of the file that were not used, each with its reason: the user is warned.
    - `strange_frame`: what the file says of its frame that is not understood; the frame is then not stated.
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
    unused: list[str] = field(default_factory=list)
    strange_frame: str | None = None


def ivar_from_sigma(sigma: np.ndarray, quality: np.ndarray, where: str) -> np.ndarray:
    """Inverse variance of errors; a pixel whose error is NaN, infinite, 0 or negative gets ivar 0 and
    `Quality.NO_ERROR`, added to `quality` in place.

    Raises `InputError` where most errors are negative.
    """
    ivar, bits, _ = combine(np.ones(len(sigma)), [Array("error", Role.SIGMA, np.asarray(sigma), where)])
    if ivar is None:
        ivar = np.zeros(len(sigma))
    quality |= bits
    quality[ivar == 0] |= Quality.NO_ERROR
    return ivar
