"""A toy of the forward model with its exact interface: 60 Gaussian lines on two short arms, smooth in all
labels, compiled in a second."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from jaxspec.instruments import SPEED_OF_LIGHT, Arm, Instrument
from jaxspec.labels import NINE_LABELS, LabelSet
from jaxspec.physics.forward import Nuisances

TOY_INSTRUMENT = Instrument(
    "toy", (Arm("blue", 5330.0, 5360.0, 0.05, 21_500.0), Arm("red", 8500.0, 8550.0, 0.1, 18_000.0))
)


class ToyForwardModel(eqx.Module):
    """Each line belongs to one element; its strength grows with that abundance and changes with temperature,
    gravity and vmic."""

    label_set: LabelSet = eqx.field(static=True)
    instrument: Instrument = eqx.field(static=True)
    approximation = "LTE"
    centre: np.ndarray
    arm_index: np.ndarray
    offset: np.ndarray
    element: np.ndarray
    strength: np.ndarray
    slopes: np.ndarray

    def __init__(self, instrument: Instrument = TOY_INSTRUMENT, n_lines: int = 60, seed: int = 1):
        rng = np.random.default_rng(seed)
        self.label_set, self.instrument = NINE_LABELS, instrument
        arms = np.arange(n_lines) % len(instrument.arms)
        low, high = (np.array([getattr(a, k) for a in instrument.arms])[arms] for k in ("low", "high"))
        centre = rng.uniform(low, high)
        self.centre = centre.astype(np.float32)
        self.arm_index = arms
        # Distances are formed in float64 on the host: float32 wavelengths would round to a thousandth of an
        # angstrom.
        self.offset = (instrument.wavelength[:, None] - centre[None, :]).astype(np.float32)
        self.element = rng.permutation(np.resize(np.array([2, 2, 2, 3, 4, 5, 6, 7, 8]), n_lines))
        self.strength = rng.uniform(-3.0, 0.8, n_lines).astype(np.float32)
        self.slopes = rng.normal([[-1.5], [0.0], [0.15]], [[2.0], [0.35], [0.1]], (3, n_lines)).astype(
            np.float32
        )

    def __call__(self, labels, nuisances: Nuisances):
        steps = jnp.stack([(labels[0] - 5500.0) / 1500.0, (labels[1] - 3.5) / 1.5, nuisances.vmic - 1.5])
        strength = jnp.exp(self.strength + 1.15 * labels[self.element] + steps @ self.slopes)
        width = jnp.sqrt(nuisances.vmac**2 / 4.0 + nuisances.vsini**2 / 3.0 + nuisances.vmic**2 / 2.0)
        lsf = SPEED_OF_LIGHT / 2.3548 / jnp.asarray([a.resolution(a.low) for a in self.instrument.arms])
        total = (
            jnp.sqrt(width**2 + (lsf[self.arm_index] / nuisances.resolution) ** 2)
            / SPEED_OF_LIGHT
            * self.centre
        )
        shift = self.centre * nuisances.velocity / SPEED_OF_LIGHT
        profile = jnp.exp(-0.5 * ((self.offset - shift) / total) ** 2) * 0.15 / total
        return jnp.exp(-0.5 * profile @ (strength / (1.0 + 0.5 * strength)))
