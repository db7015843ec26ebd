"""The exact synthesis as an instrument sees it: labels and nuisances to flux on pixels, without an emulator.

It stands where `forward.ForwardModel` does, for any wavelengths and any resolving power, a thousand times
slower. Its derivatives by labels and nuisances are those of the synthesis, all of them at the cost of a few
spectra.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxspec.errors import InputError
from jaxspec.instruments import SPEED_OF_LIGHT, Instrument
from jaxspec.labels import LabelSet
from jaxspec.physics.broadening import Resampler, VelocityGrid, lsf_variance
from jaxspec.physics.forward import ArmResponse, Nuisances
from jaxspec.physics.jacobian import with_jacobian
from jaxspec.physics.lines import LineList
from jaxspec.physics.model import StellarModel
from jaxspec.physics.synthesis import Window
from jaxspec.spectra import vacuum_to_air

EDGE = 1.5  # A, synthesised beyond the outermost pixels at least
EDGE_KMS = 90.0  # km/s, likewise: what broadening and a velocity can bring in


@dataclass(frozen=True, eq=False)
class ExactModel:
    """Noiseless, continuum-normalised flux of one star on given pixels.

    Call it with the nine labels and `Nuisances`, inside `jax.jit` as a constant (it is no pytree: where lines
    stand shapes the program). Outside the atmospheres a compiled call gives NaN.
    """

    model: StellarModel
    refine: tuple[Resampler, ...]  # from each window to its velocity grid
    responses: tuple[ArmResponse, ...]
    wavelength: Float[np.ndarray, " p"]  # air, A
    instrument: Instrument | None = None

    @property
    def label_set(self) -> LabelSet:
        return self.model.label_set

    @property
    def approximation(self) -> str:
        """ "LTE" or "NLTE (...)", see `StellarModel.approximation`."""
        return self.model.approximation

    @staticmethod
    def for_pixels(
        wavelengths: Sequence[Float[np.ndarray, " _"]],
        resolving_power: float,
        *,
        step: float = 0.02,
        lines: LineList | None = None,
        calibrated: bool = False,
    ) -> "ExactModel":
        """For one or more stretches of pixels, given by their centres in air (A, increasing).

        Args:
            resolving_power: lambda / FWHM of the Gaussian line-spread function, pixels included.
            step: of the synthesis, A.
            lines, calibrated: as for `StellarModel.create`.

        Raises InputError where pixels are not in increasing order, or are fewer than four.
        """
        for i, wavelength in enumerate(wavelengths):
            if len(wavelength) < 4 or not np.all(np.diff(wavelength) > 0):
                raise InputError(
                    f"stretch {i} of pixels", f"{len(wavelength)} pixels, not in increasing order or few",
                    "four or more air wavelengths in increasing order", "sort them, or take a wider range",
                )  # fmt: skip
        variance = [float(lsf_variance(resolving_power))] * len(wavelengths)
        return _create(wavelengths, variance, [0.0] * len(wavelengths), step, lines, calibrated, None)

    @staticmethod
    def for_instrument(
        instrument: Instrument,
        *,
        step: float = 0.02,
        lines: LineList | None = None,
        calibrated: bool = False,
    ) -> "ExactModel":
        """For the arms of an instrument, with the line-spread function and pixels as in `ForwardModel`."""
        wavelengths, variance, pixel = [], [], []
        for arm in instrument.arms:
            centre = 0.5 * (arm.low + arm.high)
            wavelengths.append(arm.wavelength if arm.medium == "air" else vacuum_to_air(arm.wavelength))
            variance.append(float(lsf_variance(arm.resolution(centre))))
            pixel.append(arm.step / centre * SPEED_OF_LIGHT)
        return _create(wavelengths, variance, pixel, step, lines, calibrated, instrument)

    def __call__(self, labels: Float[Array, " labels"], nuisances: Nuisances) -> Float[Array, " p"]:
        flux = with_jacobian(self.model)(labels, jnp.asarray(nuisances.vmic, labels.dtype))
        ends = np.cumsum([len(window.wavelength) for window in self.model.windows])
        parts = jnp.split(flux, ends[:-1])
        return jnp.concatenate([
            response(refine(part), nuisances)
            for part, refine, response in zip(parts, self.refine, self.responses, strict=True)
        ])  # fmt: skip


def _create(wavelengths, variance, pixel, step, lines, calibrated, instrument) -> ExactModel:
    windows, refine, responses = [], [], []
    for wavelength, v, width in zip(wavelengths, variance, pixel, strict=True):
        # A third of the narrowest line's width, as the step of the synthesis is.
        velocity_step = min(step / wavelength[0] * SPEED_OF_LIGHT, 2.0)
        edge = max(EDGE, EDGE_KMS / SPEED_OF_LIGHT * wavelength[-1])
        low, high = wavelength[0] - edge, wavelength[-1] + edge
        n = int(np.log(high / low) * SPEED_OF_LIGHT / velocity_step)
        grid = VelocityGrid(float(low), float(velocity_step), n)
        window = Window(float(low - 4 * step), float(high + 4 * step), step)
        position = (grid.wavelength - window.low) / step
        refine.append(Resampler.create(position, len(window.wavelength)))
        windows.append(window)
        pixels = Resampler.create(grid.position(np.asarray(wavelength, float)), n)
        responses.append(ArmResponse(grid, v, 0.0, width, pixels))
    model = StellarModel.create(tuple(windows), lines=lines, calibrated=calibrated)
    return ExactModel(model, tuple(refine), tuple(responses), np.concatenate(wavelengths), instrument)
