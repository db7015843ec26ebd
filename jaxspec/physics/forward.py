"""The forward model as an instrument sees it: labels and nuisances to flux on the pixels."""

import importlib
import os
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxspec.errors import InputError
from jaxspec.instruments import SPEED_OF_LIGHT, Instrument, get_instrument
from jaxspec.labels import LabelSet
from jaxspec.physics import broadening
from jaxspec.physics.broadening import Resampler, VelocityGrid
from jaxspec.physics.emulator import Emulator
from jaxspec.spectra import vacuum_to_air


class Nuisances(NamedTuple):
    """Parameters beside the labels: speeds in km/s; `resolution` multiplies R, 1 is nominal."""

    vmic: Float[Any, "..."]  # an array of JAX or NumPy, or a number
    vmac: Float[Any, "..."]
    vsini: Float[Any, "..."]
    velocity: Float[Any, "..."]
    resolution: Float[Any, "..."]


@runtime_checkable
class SpectrumModel(Protocol):
    """Anything that can stand for the forward model: `ForwardModel`, the exact synthesis, a toy in tests."""

    @property
    def label_set(self) -> LabelSet: ...
    @property
    def instrument(self) -> Instrument: ...
    @property
    def approximation(self) -> str: ...

    def __call__(self, labels: Float[Array, " l"], nuisances: Nuisances) -> Float[Array, " p"]: ...


class AlteredModel(eqx.Module):
    """A forward model with something changed: labels, instrument and approximation are those of `forward`.
    Subclasses say what is changed by their `__call__`."""

    forward: SpectrumModel

    @property
    def label_set(self) -> LabelSet:
        """That of the model."""
        return self.forward.label_set

    @property
    def instrument(self) -> Instrument:
        """That of the model."""
        return self.forward.instrument

    @property
    def approximation(self) -> str:
        """That of the model."""
        return self.forward.approximation


class ArmResponse(eqx.Module):
    """How one arm sees flux on one velocity grid: what stays to be convolved, and where its pixels lie."""

    grid: VelocityGrid
    lsf_variance: float = eqx.field(static=True)  # (km/s)^2
    base_variance: float = eqx.field(static=True)  # already in the flux
    pixel: float = eqx.field(static=True)  # km/s
    resampler: Resampler

    def __call__(self, flux: Float[Array, " n"], nuisances: Nuisances) -> Float[Array, " p"]:
        """Flux on the arm's pixels from continuum-normalised flux on the grid."""
        k = self.grid.frequency
        # A resolution factor so high that the grid's own broadening is not reached would need deconvolution.
        variance = jnp.maximum(self.lsf_variance / nuisances.resolution**2 - self.base_variance, 0.0)
        transform = (
            broadening.gaussian_transform(k, variance)
            * broadening.rotation_transform(k, nuisances.vsini)
            * broadening.macroturbulence_transform(k, nuisances.vmac)
            * broadening.pixel_transform(k, self.pixel)
        )
        seen = broadening.convolve(flux, transform, nuisances.velocity, self.grid)
        return self.resampler(seen)


class ForwardModel(eqx.Module):
    """Noiseless, continuum-normalised flux of one star on an instrument's pixels; batch with `jax.vmap`.

    The line-spread function of an arm is Gaussian with the resolving power at the arm's centre; it includes
    the pixel only in so far as the quoted R does not.
    """

    emulator: Emulator
    responses: tuple[ArmResponse, ...]
    instrument: Instrument = eqx.field(static=True)

    @property
    def label_set(self) -> LabelSet:
        return self.emulator.label_set

    @property
    def approximation(self) -> str:
        """ "LTE" or "NLTE (...)", see `StellarModel.approximation`."""
        return self.emulator.approximation

    @staticmethod
    def create(emulator: Emulator, instrument: Instrument) -> "ForwardModel":
        """Raises InputError when an arm lies outside the emulator's wavelengths or is sharper than it."""
        responses = []
        for arm in instrument.arms:
            wavelength = arm.wavelength if arm.medium == "air" else vacuum_to_air(arm.wavelength)
            inside = [
                g
                for g in emulator.grids
                if g.wavelength[2] <= wavelength[0] and wavelength[-1] <= g.wavelength[-3]
            ]
            covered = ", ".join(f"{g.wavelength[0]:.1f}-{g.wavelength[-1]:.1f}" for g in emulator.grids)
            where = f"arm {arm.name} of {instrument.name}"
            if not inside:
                raise InputError(
                    where,
                    f"{wavelength[0]:.1f}-{wavelength[-1]:.1f} A",
                    f"within {covered} A",
                    "train an emulator for it (experiments.emulator with its windows and lines=FILE), or use "
                    "the synthesis, which needs none (engine=synthesis lines=FILE in synthesize and bound)",
                )
            centre = 0.5 * (arm.low + arm.high)
            variance = float(broadening.lsf_variance(arm.resolution(centre)))
            if variance < emulator.base_sigma**2:
                sharpest = SPEED_OF_LIGHT / (broadening.FWHM_PER_SIGMA * emulator.base_sigma)
                raise InputError(
                    where,
                    f"resolving power {float(arm.resolution(centre)):.0f}",
                    f"at most {sharpest:.0f}",
                    "train a sharper emulator",
                )
            resampler = Resampler.create(inside[0].position(wavelength), inside[0].n)
            pixel = arm.step / centre * SPEED_OF_LIGHT
            responses.append(ArmResponse(inside[0], variance, emulator.base_sigma**2, pixel, resampler))
        return ForwardModel(emulator, tuple(responses), instrument)

    def __call__(self, labels: Float[Array, " l"], nuisances: Nuisances) -> Float[Array, " p"]:
        flux = self.emulator(labels, nuisances.vmic)
        ends = np.cumsum([grid.n for grid in self.emulator.grids])
        parts = dict(zip(self.emulator.grids, jnp.split(flux, ends[:-1]), strict=True))
        return jnp.concatenate([response(parts[response.grid], nuisances) for response in self.responses])


@lru_cache(maxsize=8)
def load_forward_model(instrument: Instrument) -> ForwardModel:
    """The forward model of an instrument with the shipped emulator.

    Raises InputError where the emulator does not reach.
    """
    return ForwardModel.create(Emulator.load(), instrument)


# The function that makes the shipped forward model, as settings name it.
SHIPPED = f"{__name__}.load_forward_model"


def forward_model(forward: str, instrument: str | Instrument) -> SpectrumModel:
    """The forward model of an instrument, from a stored emulator (its folder), or from a function of the
    instrument that is given by its dotted name, such as `SHIPPED`.

    Raises: InputError when there is no such emulator or function, or the emulator does not reach.
    """
    make: Callable[[Instrument], Any]
    if forward.endswith(".npz") or os.sep in forward or Path(forward).is_dir():
        make = partial(ForwardModel.create, Emulator.load(Path(forward)))
    else:
        make = _function(forward)  # first: its module may register the instrument
    return make(get_instrument(instrument) if isinstance(instrument, str) else instrument)


def _function(dotted: str) -> Callable:
    module, _, name = dotted.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            "forward",
            f"{dotted!r} ({error})",
            "the folder of an emulator, or a function",
            f"write forward={SHIPPED}",
        ) from error
    if not callable(found):
        raise InputError(
            "forward",
            f"{dotted!r} is no function",
            "the folder of an emulator, or a function",
            f"write forward={SHIPPED}",
        )
    return found
