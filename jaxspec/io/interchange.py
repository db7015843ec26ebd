"""Spectra in memory, from and to `specutils` (Astropy's `Spectrum`), and our readers as its loaders.

`from_specutils` needs no more than the object it is given. `to_specutils` and `register_loaders` need the
package: `pip install 'jaxspec[specutils]'`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from astropy import units
from astropy.nddata import InverseVariance, NDUncertainty, StdDevUncertainty, VarianceUncertainty

from jaxspec.errors import InputError
from jaxspec.instruments import SPEED_OF_LIGHT
from jaxspec.io.parts import masked
from jaxspec.io.raw import RawSpectrum
from jaxspec.io.spectrum import Assume, SpectrumFile, complete, read_spectrum

LOADER = "jaxspec"


def from_specutils(
    spectrum: Any,
    *,
    name: str = "spectrum",
    medium: str | None = None,
    frame: str | None = None,
    velocity: float | None = None,
    snr: float | None = None,
    estimate_noise: bool = False,
    resolving_power: float | None = None,
    assume: Assume | None = None,
) -> SpectrumFile:
    """A `specutils` spectrum as our readers return one: air wavelengths in A, ivar, masks.

    Args:
        spectrum: one `Spectrum` (`Spectrum1D` of older versions) of one dimension; any spectral unit, any
            kind of uncertainty. True in its mask is a bad pixel. `meta` may say what `to_specutils` writes
            there: "star", "medium", "frame", "velocity", "resolving_power".
        name: stands for the file in messages and tables.
        medium, frame, velocity, snr, estimate_noise, resolving_power, assume: as for `read_spectrum`.

    A radial velocity of the object (`radial_velocity`, if not 0) is that of the star on its axis.
    Raises: InputError for several spectra in one object, an axis that is none of wavelengths, frequencies or
    energies, and an uncertainty of a kind that is not known.
    """
    flux = np.ma.asarray(getattr(spectrum.flux, "value", spectrum.flux))
    if flux.ndim != 1:
        raise InputError(
            name,
            f"flux of shape {flux.shape}",
            "one spectrum",
            "give them one by one: [from_specutils(s) for s in spectra]",
        )
    try:
        wavelength = units.Quantity(spectrum.spectral_axis).to(units.AA, equivalencies=units.spectral()).value
    except units.UnitConversionError as error:
        raise InputError(
            f"{name}.spectral_axis",
            f"unit {getattr(spectrum.spectral_axis, 'unit', None)}",
            "wavelengths, frequencies or energies",
            "convert the axis first",
        ) from error
    ivar = _ivar(getattr(spectrum, "uncertainty", None), f"{name}.uncertainty", flux, spectrum)
    bad = np.ma.getmaskarray(flux).copy()
    if getattr(spectrum, "mask", None) is not None:
        bad |= np.broadcast_to(np.asarray(spectrum.mask) != 0, flux.shape)
    order = np.argsort(wavelength, kind="stable")  # axes of frequency run the other way
    values = masked(
        np.ma.filled(flux.astype(float), np.nan), np.ones(len(flux)) if ivar is None else ivar, bad
    )
    # A masked pixel of flux 0 is one pixel: unmasked zeros mean that nothing was observed around them either.
    values[0][bad & (values[0] == 0)] = 1.0
    meta = dict(getattr(spectrum, "meta", None) or {})
    moving = _velocity(spectrum)
    if moving is None and isinstance(meta.get("velocity"), (int, float)):
        moving = float(meta["velocity"])
    stated = meta.get("frame")
    raw = RawSpectrum(
        product="specutils",
        wavelength=np.asarray(wavelength, float)[order],
        flux=values[0][order],
        ivar=None if ivar is None else values[1][order],
        quality=values[2][order],
        medium=_choice(meta.get("medium"), ("air", "vacuum")),
        # The object's velocity is that on its axis, so it stays when the caller says which frame that is.
        frame=_choice(stated or (None if moving is None else frame), ("rest", "barycentric", "topocentric")),
        velocity=0.0 if stated == "rest" else moving,
        resolving_power=_number(meta.get("resolving_power")),
        star=str(meta["star"]) if meta.get("star") else None,
        meta={
            key: value for key, value in meta.items() if key in ("object", "instrument", "ra", "dec", "snr")
        },
    )
    return complete(
        raw,
        name,
        medium=medium,
        frame=frame,
        velocity=velocity,
        snr=snr,
        estimate_noise=estimate_noise,
        resolving_power=resolving_power,
        assume=assume,
    )


def _ivar(uncertainty: Any, where: str, flux: np.ndarray, spectrum: Any) -> np.ndarray | None:
    if uncertainty is None:
        return None
    if not isinstance(uncertainty, NDUncertainty):
        raise InputError(
            where, type(uncertainty).__name__, "an astropy uncertainty", "wrap it in StdDevUncertainty"
        )
    if not isinstance(uncertainty, (StdDevUncertainty, VarianceUncertainty, InverseVariance)):
        raise InputError(
            where,
            f"{type(uncertainty).__name__}, whose meaning is not known",
            "StdDevUncertainty, VarianceUncertainty or InverseVariance",
            "convert it to one of these",
        )
    values = np.asarray(uncertainty.array, float)
    if values.shape != flux.shape:
        raise InputError(where, f"shape {values.shape}", f"that of the flux, {flux.shape}", "mend the object")
    flux_unit = getattr(spectrum.flux, "unit", None) or units.dimensionless_unscaled
    own = uncertainty.unit if uncertainty.unit is not None else None
    with np.errstate(divide="ignore", invalid="ignore"):
        if isinstance(uncertainty, StdDevUncertainty):
            power, ivar = 1, np.where(values > 0, values, np.nan) ** -2.0
        elif isinstance(uncertainty, VarianceUncertainty):
            power, ivar = 2, 1.0 / np.where(values > 0, values, np.nan)
        else:
            power, ivar = -2, values
    if own is not None and own != flux_unit**power:
        try:
            factor = own.to(flux_unit**power)
        except units.UnitConversionError as error:
            raise InputError(
                where, f"unit {own} for a flux in {flux_unit}", f"{flux_unit**power}", "convert it first"
            ) from error
        ivar = ivar * (factor if power == -2 else factor ** (-2 / power))
    return ivar


def _velocity(spectrum: Any) -> float | None:
    try:
        value = float(units.Quantity(spectrum.radial_velocity).to(units.km / units.s).value)
    except (AttributeError, TypeError, units.UnitConversionError):
        return None
    # specutils says 0 where nothing was given.
    return value if np.isfinite(value) and value != 0 and abs(value) < 0.01 * SPEED_OF_LIGHT else None


def _choice(value: Any, known: tuple[str, ...]) -> str | None:
    return value if value in known else None


def _number(value: Any) -> float | None:
    usable = isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and np.isfinite(value)
    return float(value) if usable and value > 0 else None


def to_specutils(spectrum: SpectrumFile) -> Any:
    """A spectrum we read as a `specutils.Spectrum`: air wavelengths in A, inverse variances, True in the mask
    where a pixel is not to be used; `meta` has star, frame, medium ("air"), velocity, resolving power and the
    file's own facts.

    The flux has no unit, as ours has none. Raises: InputError without the package.
    """
    made = _specutils()
    kind = getattr(made, "Spectrum", None) or made.Spectrum1D
    return kind(
        flux=spectrum.flux * units.dimensionless_unscaled,
        spectral_axis=spectrum.wavelength * units.AA,
        uncertainty=InverseVariance(spectrum.ivar),
        mask=spectrum.ivar == 0,
        meta={
            **spectrum.meta,
            "path": spectrum.path,
            "product": spectrum.product,
            "star": spectrum.star,
            "medium": "air",
            "medium_in_file": spectrum.meta.get("medium"),
            "frame": spectrum.frame,
            "velocity": spectrum.velocity,
            "resolving_power": spectrum.resolving_power,
            "quality": spectrum.quality,
        },
    )


def register_loaders() -> Callable[..., Any]:
    """Make `specutils.Spectrum.read(path, format="jaxspec")` read whatever `read_spectrum` reads, with its
    arguments; returns the loader.

    There is no identification by content, so that the package's own choice for other files stays as it is.
    Raises: InputError without the package.
    """
    made = _specutils()
    from specutils.io.registers import data_loader

    kind = getattr(made, "Spectrum", None) or made.Spectrum1D

    @data_loader(LOADER, identifier=lambda *args, **kwargs: False, dtype=kind, force=True)
    def load(path: Any, **options: Any) -> Any:
        return to_specutils(read_spectrum(path, **options))

    return load


def _specutils() -> Any:
    try:
        import specutils
    except ImportError as error:
        raise InputError(
            "the package specutils",
            "not installed",
            "specutils 2.0 or newer",
            "pip install 'jaxspec[specutils]'",
        ) from error
    return specutils
