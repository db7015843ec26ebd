"""A bridge in flux: corrections of the forward model for one instrument, from spectra without labels.

Simulations look unlike a survey where the instrument is not as stated (line-spread function, scattered light)
and where lines are wrong. Both are the same in all stars, while labels differ from star to star: so a few
spectra tell them apart. Each star's labels, nuisances and continuum are fitted along with the corrections and
are then dropped. The strengths of lines are a smooth field with a prior about none: what all stars share goes
into it, up to the scale that the prior leaves to the labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from jaxspec.errors import InputError
from jaxspec.instruments import Instrument
from jaxspec.physics import turbulence
from jaxspec.physics.forward import AlteredModel, Nuisances, SpectrumModel
from jaxspec.simulation.simulator import knots_to_pixels

CONTINUUM_DEGREE = 5


@dataclass(frozen=True)
class BridgeConfig:
    """Settings of the correction and its fit.

    Attributes:
        strength: prior standard deviation of ln line strength at a knot; 0 corrects no strengths.
        length: correlation length of the strengths [A]: one line.
        resolution: prior standard deviation of ln resolving power over the nominal one.
        scattered: prior standard deviation of the scattered light, as a fraction of the continuum.
        floor: error of the model everywhere, as a fraction of the continuum.
        n_steps: of Adam.
        learning_rate: in units of the priors and of the labels' steps.
    """

    strength: float = 0.15
    length: float = 0.35
    resolution: float = 0.1
    scattered: float = 0.01
    floor: float = 0.0025
    n_steps: int = 300
    learning_rate: float = 0.05

    def __post_init__(self):
        for name in ("strength", "resolution", "scattered", "floor"):
            if not getattr(self, name) >= 0.0:
                raise InputError(
                    f"bridge.{name}", f"{getattr(self, name)}", "0 or more", "set it to 0 or more"
                )


class Correction(NamedTuple):
    """Differences between the forward model and an instrument's spectra, alike in all stars.

    Attributes:
        strength: ln of the factor of the lines' optical depth at each knot.
        resolution: ln of the resolving power over the nominal one.
        scattered: light as a fraction of the continuum, one number for each arm.
    """

    strength: Float[Array, " k"]
    resolution: Float[Array, ""]
    scattered: Float[Array, " a"]


class BridgedModel(AlteredModel):
    """The forward model with a correction: simulations with it look like the survey."""

    factor: Float[Array, " p"]
    resolution: Float[Array, ""]
    scattered: Float[Array, " p"]

    def __call__(self, labels: Float[Array, " l"], nuisances: Nuisances) -> Float[Array, " p"]:
        seen = nuisances._replace(resolution=nuisances.resolution * self.resolution)
        flux = jnp.maximum(self.forward(labels, seen), 1e-3) ** self.factor
        return (flux + self.scattered) / (1.0 + self.scattered)


class BridgeFit(NamedTuple):
    """Outcome of a fit.

    Attributes:
        correction: None where the model was taken as it is.
        labels: best of each star.
        chi2: reduced chi-square of each star's best fit, with the noise and `floor`.
        model: best spectrum of each star, its continuum included.
    """

    correction: Correction
    labels: Float[np.ndarray, "n l"]
    chi2: Float[np.ndarray, " n"]
    model: Float[np.ndarray, "n p"]


def knots(instrument: Instrument, length: float) -> Float[np.ndarray, "k p"]:
    """The effect of a unit at each knot on the pixels of all arms."""
    blocks = [knots_to_pixels(length, arm.step, arm.n_pixels) for arm in instrument.arms]
    out = np.zeros((sum(len(b) for b in blocks), instrument.n_pixels), np.float32)
    row = 0
    for block, where in zip(blocks, instrument.slices.values(), strict=True):
        out[row : row + len(block), where] = block
        row += len(block)
    return out


def nothing(instrument: Instrument, config: BridgeConfig = BridgeConfig()) -> Correction:
    """The correction that corrects nothing."""
    n_knots = len(knots(instrument, config.length))
    return Correction(jnp.zeros(n_knots), jnp.zeros(()), jnp.zeros(len(instrument.arms)))


def bridged(
    forward: SpectrumModel, correction: Correction, config: BridgeConfig = BridgeConfig()
) -> BridgedModel:
    """The forward model with a fitted correction: give it to a `Simulator`."""
    instrument = forward.instrument
    return _bridged(forward, correction, jnp.asarray(knots(instrument, config.length)), instrument)


def _bridged(forward, correction, basis, instrument):
    scattered = correction.scattered[jnp.asarray(instrument.arm_index)]
    return BridgedModel(
        forward, jnp.exp(correction.strength @ basis), jnp.exp(correction.resolution), scattered
    )


def fit_bridge(
    forward: SpectrumModel,
    flux: Float[np.ndarray, "n p"],
    ivar: Float[np.ndarray, "n p"],
    start: Float[np.ndarray, "n l"],
    config: BridgeConfig = BridgeConfig(),
    correction: Correction | None = None,
) -> BridgeFit:
    """Fit labels of each star, and the correction of all.

    Args:
        flux, ivar: normalised spectra at rest, without labels; `ivar == 0` is not used.
        start: labels to begin from, such as a network's.
        correction: one that was fitted before: it is then held, and only the stars are fitted.

    Raises: InputError for spectra on other pixels.
    """
    instrument = forward.instrument
    if flux.shape != (len(start), instrument.n_pixels) or ivar.shape != flux.shape:
        expected = f"[{len(start)}, {instrument.n_pixels}]"
        raise InputError("fit_bridge", f"flux {flux.shape}, ivar {ivar.shape}", expected, "rebin the spectra")
    held = correction
    zero = nothing(instrument, config)
    n = len(start)
    stars = {
        "labels": jnp.zeros(start.shape),
        "nuisances": jnp.zeros((n, 4)),
        "continuum": jnp.zeros((n, len(instrument.arms), CONTINUUM_DEGREE + 1)),
    }
    parameters: dict[str, Any] = {"stars": stars} | ({} if held is not None else {"common": zero})
    variance = np.where(ivar > 0, 1.0 / np.where(ivar > 0, ivar, 1.0) + config.floor**2, np.inf)
    data = (
        jnp.asarray(np.where(ivar > 0, flux, 1.0), jnp.float32),
        jnp.asarray(1.0 / variance, jnp.float32),
        jnp.asarray(start, jnp.float32),
    )
    basis = jnp.asarray(knots(instrument, config.length))
    fitted, models, squares = _minimise(forward, parameters, data, basis, held, config)
    scaled = _scaled(fitted["common"], config) if held is None else held
    step = np.asarray(forward.label_set.step)
    labels = np.asarray(start) + np.asarray(fitted["stars"]["labels"]) * step
    count = np.sum(ivar > 0, axis=1) - start.shape[1] - 4 - len(instrument.arms) * (CONTINUUM_DEGREE + 1)
    return BridgeFit(scaled, labels, np.asarray(squares) / np.maximum(count, 1), np.asarray(models))


def _scaled(units: Correction, config: BridgeConfig) -> Correction:
    """A correction from parameters in units of their priors."""
    return Correction(
        config.strength * units.strength,
        config.resolution * units.resolution,
        config.scattered * jax.nn.softplus(units.scattered - 3.0) if config.scattered else units.scattered,
    )


def _continuum(instrument: Instrument, coefs: Float[Array, "a d"]) -> Float[Array, " p"]:
    pieces = []
    for i, where in enumerate(instrument.slices.values()):
        x = np.linspace(-1.0, 1.0, where.stop - where.start)
        basis = np.polynomial.chebyshev.chebvander(x, CONTINUUM_DEGREE).astype(np.float32)
        pieces.append(1.0 + 0.02 * jnp.asarray(basis) @ coefs[i])
    return jnp.concatenate(pieces)


@eqx.filter_jit
def _minimise(forward, parameters, data, basis, held, config):
    flux, weight, start = data
    label_set, instrument = forward.label_set, forward.instrument
    step = jnp.asarray(label_set.step, jnp.float32)

    def spectra(p):
        correction = held if held is not None else _scaled(p["common"], config)
        model = _bridged(forward, correction, basis, instrument)

        def one(begin, labels, nuisances, continuum):
            labels = begin + step * labels
            stellar = label_set.stellar(labels)
            speeds = Nuisances(
                vmic=jnp.maximum(turbulence.vmic_calibration(*stellar) + 0.2 * nuisances[0], 0.3),
                vmac=turbulence.vmac_calibration(*stellar),
                vsini=3.0 * jax.nn.softplus(nuisances[1]),
                velocity=0.5 * nuisances[2],
                resolution=jnp.exp(0.05 * nuisances[3]),
            )
            return model(labels, speeds) * _continuum(instrument, continuum)

        s = p["stars"]
        return jax.vmap(one)(start, s["labels"], s["nuisances"], s["continuum"])

    def squares(models):
        return jnp.sum(weight * (flux - models) ** 2, axis=1)

    def objective(p):
        # Labels have no prior but a weak one, which steadies those that the spectrum says nothing of.
        s = p["stars"]
        prior = 1e-4 * jnp.sum(s["labels"] ** 2) + jnp.sum(s["nuisances"] ** 2)
        prior += 0.01 * jnp.sum(s["continuum"] ** 2)
        if held is None:
            prior += sum(jnp.sum(x**2) for x in p["common"])
        return 0.5 * (jnp.sum(squares(spectra(p))) + prior)

    schedule = optax.cosine_decay_schedule(config.learning_rate, config.n_steps, 0.02)
    optimiser = optax.adam(schedule, b2=0.99)

    def one_step(_, state):
        p, moments = state
        updates, moments = optimiser.update(jax.grad(objective)(p), moments, p)
        return optax.apply_updates(p, updates), moments

    fitted, _ = jax.lax.fori_loop(0, config.n_steps, one_step, (parameters, optimiser.init(parameters)))
    models = spectra(fitted)
    return fitted, models, squares(models)
