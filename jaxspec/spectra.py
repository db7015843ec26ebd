"""What was recorded: flux, inverse variance and wavelength, and how they move between grids, media and
frames.

`ivar == 0` is the one mask: such a pixel is bad, missing or unobserved, and its flux, which may be NaN, is
never read. Wavelengths are float64 on the host: in float32 an Angstrom at 8900 A is known to 0.001 A only,
which is 30 m/s. Velocities are in km/s, positive when the star recedes.
"""

from collections.abc import Sequence
from typing import Any, overload

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float, Int
from numpy.typing import ArrayLike

from jaxspec.errors import InputError
from jaxspec.instruments import SPEED_OF_LIGHT


class _Frame:
    """The parts of `Spectra` that are not arrays of the computation: compared by value, hashed once."""

    def __init__(self, wavelength: np.ndarray, names: tuple[str, ...], meta: tuple[Any, ...]):
        self.wavelength, self.names, self.meta = wavelength, names, meta
        self._hash = hash((wavelength.tobytes(), names))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other) -> bool:
        if self is other:
            return True
        return (
            isinstance(other, _Frame)
            and self._hash == other._hash
            and self.names == other.names
            and np.array_equal(self.wavelength, other.wavelength)
            and self.meta == other.meta
        )


class Spectra(eqx.Module):
    """Spectra of n stars on one wavelength grid: a pytree of `flux`, `ivar` and (where known) `quality`.

    - `flux [n, p]`: any unit, or normalised to the continuum; float32.
    - `ivar [n, p]`: inverse variance of the flux, 0 where it must not be used; float32.
    - `wavelength [p]`: A, increasing, float64 numpy, in the medium of the instrument (air for the shipped
    ones).
    - `quality [n, p]`: integer bits as the file had them (0 is good); for people, never used in computations.
    - `names`, `meta`: one string and one mapping per star, e.g. the file's name and facts from its header.

    `wavelength`, `names` and `meta` are static under JAX transformations, so where batches follow each other
    hand `flux` and `ivar` to a jitted function rather than the whole object: new names would compile it anew.
    Build with `Spectra.create`, which checks; the bare constructor does not look at values.
    """

    flux: Float[Array | np.ndarray, "n p"]
    ivar: Float[Array | np.ndarray, "n p"]
    quality: Int[Array | np.ndarray, "n p"] | None
    _frame: _Frame = eqx.field(static=True)

    def __init__(
        self,
        flux: Float[Array | np.ndarray, "n p"],
        ivar: Float[Array | np.ndarray, "n p"],
        wavelength: Float[np.ndarray, " p"],
        quality: Int[Array | np.ndarray, "n p"] | None = None,
        names: Sequence[str] = (),
        meta: Sequence[Any] = (),
    ):
        wavelength = np.array(wavelength, np.float64)
        wavelength.setflags(write=False)
        self.flux, self.ivar, self.quality = flux, ivar, quality
        self._frame = _Frame(wavelength, tuple(names), tuple(meta))

    @property
    def wavelength(self) -> np.ndarray:
        return self._frame.wavelength

    @property
    def names(self) -> tuple[str, ...]:
        return self._frame.names

    @property
    def meta(self) -> tuple[dict[str, Any], ...]:
        return self._frame.meta

    @property
    def n_stars(self) -> int:
        return self.flux.shape[0]

    @property
    def n_pixels(self) -> int:
        return self.flux.shape[-1]

    @classmethod
    def create(
        cls,
        flux: ArrayLike,
        ivar: ArrayLike,
        wavelength: ArrayLike,
        *,
        quality: ArrayLike | None = None,
        names: Sequence[str] = (),
        meta: Sequence[Any] = (),
        where: str = "spectra",
    ) -> "Spectra":
        """Checked spectra from `flux` and `ivar` `[n, p]` (or `[p]` for one star) on `wavelength [p]` in A.

        Arrays become float32; names default to "0", "1", ... Raises `InputError`, its `where` in front, on
        shapes that do not match, no pixels, wavelengths that are not finite, positive and increasing,
        negative or non-finite `ivar`, or a non-finite flux where `ivar > 0`. Flux that is not finite where
        `ivar == 0` becomes 0.
        """
        flux, ivar = np.atleast_2d(np.asarray(flux)), np.atleast_2d(np.asarray(ivar))
        wavelength = np.asarray(wavelength, np.float64)
        if quality is not None:
            quality = np.atleast_2d(np.asarray(quality))
            if not np.issubdtype(quality.dtype, np.integer):
                raise InputError(where, f"quality of type {quality.dtype}", "integer bits", "convert it")
        names = tuple(names) or tuple(str(i) for i in range(flux.shape[0]))
        validate(flux, ivar, wavelength, where=where)
        for what, number in (("names", len(names)), ("meta", len(meta) or len(names))):
            if number != flux.shape[0]:
                raise InputError(
                    where, f"{number} {what} for {flux.shape[0]} spectra", "one per spectrum", "pass as many"
                )
        if quality is not None and quality.shape != flux.shape:
            raise InputError(
                where,
                f"quality of shape {quality.shape}",
                f"that of the flux, {flux.shape}",
                "give one per pixel",
            )
        flux = np.where((ivar > 0) | np.isfinite(flux), flux, 0.0)
        return cls(flux.astype(np.float32), ivar.astype(np.float32), wavelength, quality, names, tuple(meta))

    def select(self, stars: Sequence[int] | np.ndarray | slice) -> "Spectra":
        """The spectra at these positions (integers, a mask or a slice), with their names and meta."""
        chosen = np.arange(self.n_stars)[stars].reshape(-1)
        return Spectra(
            self.flux[chosen],
            self.ivar[chosen],
            self.wavelength,
            None if self.quality is None else self.quality[chosen],
            tuple(self.names[i] for i in chosen) if self.names else (),
            tuple(self.meta[i] for i in chosen) if self.meta else (),
        )


def validate(flux: np.ndarray, ivar: np.ndarray, wavelength: np.ndarray, where: str = "spectra") -> None:
    """Raise `InputError` unless `flux` and `ivar` `[..., p]` on `wavelength [p]` can be used; see
    `Spectra.create`."""
    wavelength = np.asarray(wavelength, np.float64)
    if wavelength.ndim != 1 or wavelength.size < 2 or 0 in flux.shape:
        raise InputError(
            where,
            f"wavelength of shape {wavelength.shape}, flux of shape {flux.shape}",
            "one spectrum or more of two pixels or more",
            "check that the file is complete and one-dimensional",
        )
    if flux.shape != ivar.shape or flux.shape[-1] != wavelength.size:
        raise InputError(
            where,
            f"flux of shape {flux.shape}, ivar of shape {ivar.shape}, wavelength of shape {wavelength.shape}",
            "flux and ivar of one shape that ends in the number of wavelengths",
            "cut or transpose them",
        )
    check_axis(wavelength, where)
    bad = ~np.isfinite(ivar) | (ivar < 0)
    if bad.any():
        raise InputError(
            f"{where}, ivar",
            f"{ivar[bad][0]} in {bad.sum()} pixels, first at {_place(bad, wavelength)}",
            "finite values >= 0",
            "set ivar to 0 in pixels that must not be used",
        )
    bad = ~np.isfinite(flux) & (ivar > 0)
    if bad.any():
        raise InputError(
            f"{where}, flux",
            f"{flux[bad][0]} in {bad.sum()} pixels with ivar > 0, first at {_place(bad, wavelength)}",
            "finite flux wherever ivar > 0",
            "set ivar to 0 in pixels that must not be used",
        )


def _place(bad: np.ndarray, wavelength: np.ndarray) -> str:
    index = np.argwhere(bad)[0]
    star = f" of spectrum {index[0]}" if bad.ndim > 1 and bad.shape[0] > 1 else ""
    return f"{wavelength[index[-1]]:.3f} A{star}"


def check_axis(wavelength: np.ndarray, where: str) -> None:
    if not (np.isfinite(wavelength).all() and (wavelength > 0).all()):
        raise InputError(
            f"{where}, wavelength",
            "values that are not finite or not positive",
            "wavelengths in A",
            "mend the grid",
        )
    steps = np.diff(wavelength)
    if not (steps > 0).all():
        at = int(np.argmin(steps > 0))
        raise InputError(
            f"{where}, wavelength",
            f"{wavelength[at]} A followed by {wavelength[at + 1]} A",
            "strictly increasing wavelengths",
            "sort the pixels, and merge or drop repeated ones",
        )


# --- media and frames
# --------------------------------------------------------------------------------------------


def _refractive_index(vacuum: np.ndarray | np.float64) -> np.ndarray | np.float64:
    """Of standard dry air at 15 C and 1 atm with 0.045 % CO2: Morton (2000, ApJS 130, 403), equation 8, after
    Birch & Downs (1994, Metrologia 31, 315)."""
    s2 = (1e4 / vacuum) ** 2
    return 1.0 + 8.34254e-5 + 2.406147e-2 / (130.0 - s2) + 1.5998e-4 / (38.9 - s2)


def _check_optical(wavelength: ArrayLike) -> np.ndarray:
    wavelength = np.asarray(wavelength, np.float64)
    if not (wavelength >= 1990.0).all():
        raise InputError(
            "wavelength",
            f"{np.min(wavelength)}",
            "A and above 1990 A, where air is transparent and the formula holds",
            "convert the unit to A; wavelengths below 2000 A are always given in vacuum",
        )
    return wavelength


@overload
def vacuum_to_air(wavelength: np.ndarray) -> np.ndarray: ...
@overload
def vacuum_to_air(wavelength: ArrayLike) -> np.ndarray | np.float64: ...
def vacuum_to_air(wavelength: ArrayLike) -> np.ndarray | np.float64:
    """Air wavelength of a vacuum wavelength, both in A, any shape (the IAU standard: Morton 2000, eq. 8)."""
    wavelength = _check_optical(wavelength)
    return wavelength / _refractive_index(wavelength)


def air_to_vacuum(wavelength: ArrayLike) -> np.ndarray | np.float64:
    """Vacuum wavelength of an air wavelength, both in A, any shape: the inverse of `vacuum_to_air` to
    1e-12."""
    air = _check_optical(wavelength)
    vacuum = air
    # A contraction by d ln n / d ln lambda ~ 1e-5 above 2000 A: three steps reach float64.
    for _ in range(4):
        vacuum = air * _refractive_index(vacuum)
    return vacuum


@overload
def doppler_shift(wavelength: np.ndarray, velocity: ArrayLike) -> np.ndarray: ...
@overload
def doppler_shift(wavelength: ArrayLike, velocity: ArrayLike) -> np.ndarray | np.float64: ...
def doppler_shift(wavelength: ArrayLike, velocity: ArrayLike) -> np.ndarray | np.float64:
    """Wavelength at which light emitted at `wavelength` arrives from a source that recedes at `velocity`
    km/s.

    Relativistic, for motion along the line of sight; shapes broadcast. `doppler_shift(observed, -velocity)`
    takes an observed grid to rest.
    """
    beta = np.asarray(velocity, np.float64) / SPEED_OF_LIGHT
    if not (np.abs(beta) < 1).all():
        raise InputError(
            "velocity",
            f"{np.asarray(velocity)} km/s",
            "less than the speed of light",
            "check that it is in km/s",
        )
    return np.asarray(wavelength, np.float64) * np.sqrt((1 + beta) / (1 - beta))


# --- grids
# -------------------------------------------------------------------------------------------------------


def median_snr(flux: Float[np.ndarray, "n p"], ivar: Float[np.ndarray, "n p"]) -> Float[np.ndarray, " n"]:
    """Median of flux over error among the usable pixels of each spectrum; 0 where there is none."""
    good = ivar > 0.0
    out = np.zeros(flux.shape[0])
    for i in range(flux.shape[0]):
        if good[i].any():
            out[i] = np.median(flux[i, good[i]] * np.sqrt(ivar[i, good[i]]))
    return out
