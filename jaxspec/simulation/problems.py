"""Simulated problem stars whose cause is known: what an agent, or a person, should find out.

Labels come from the prior, spectra from the forward model, everything else from the simulator's
configuration; then one thing is wrong. Unlike `jaxspec.simulation.faults`, whose spectra only need to be
unlike any training spectrum, each problem is physical enough to be modelled, and the truth is kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from scipy.interpolate import CubicSpline

from jaxspec.errors import InputError
from jaxspec.instruments import SPEED_OF_LIGHT, Instrument
from jaxspec.physics.forward import Nuisances
from jaxspec.simulation.faults import CALCIUM_TRIPLET, Stars, hot_star
from jaxspec.simulation.nuisances import draw_nuisances
from jaxspec.simulation.simulator import Simulator, observe

Flux = Float[np.ndarray, "n p"]

TRAINING, DWARFS = "training", "dwarfs"


@dataclass(frozen=True)
class Problems:
    """Stars with one cause.

    Attributes:
        cause: what is wrong.
        flux, ivar: as a file holds them, not normalised, `[n, p]`.
        labels: true ones, of the primary of a binary; without a meaning for hot stars.
        fittable: whether a fit with the cause removed can find the labels.
        prior: the name of the prior that the run is told to use.
        facts: numbers of the cause, `[n]` each.
    """

    cause: str
    flux: Flux
    ivar: Flux
    labels: Float[np.ndarray, "n l"]
    fittable: bool
    prior: str
    facts: dict[str, Float[np.ndarray, " n"]]


class _Draws:
    """The means of a cause: random numbers, labels, nuisances, and spectra of any labels and nuisances."""

    def __init__(self, rng: np.random.Generator, key: PRNGKeyArray, simulator: Simulator, n: int):
        self.rng, self.key, self.simulator, self.n = rng, key, simulator, n
        self.label_set, self.instrument = simulator.forward.label_set, simulator.instrument
        self.labels = self.draw(lambda teff, logg: np.ones(len(teff), bool))
        stellar = self.label_set.stellar(jnp.asarray(self.labels))
        drawn = draw_nuisances(
            jax.random.fold_in(key, 1),
            stellar,
            simulator.config,
            simulator.vmic_calibration,
            simulator.vmac_calibration,
        )
        self.nuisances = Nuisances(*(np.asarray(x) for x in drawn))
        self.facts: dict[str, np.ndarray] = {}

    def draw(self, which: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Float[np.ndarray, "n l"]:
        """Labels of stars whose teff [K] and logg pass."""
        found = np.zeros((0, len(self.label_set)), np.float32)
        for _ in range(200):
            key = jax.random.fold_in(self.key, int(self.rng.integers(2**31)))
            labels = np.asarray(self.simulator.prior.sample(key, 512))
            teff, logg = (self.label_set.column(labels, name) for name in ("teff", "logg"))
            found = np.concatenate([found, labels[which(teff, logg)]])
            if len(found) >= self.n:
                return found[: self.n]
        raise InputError("problems", f"{len(found)} stars of the prior", f"{self.n}", "use a wider prior")

    def spectra(self, labels: Float[Array | np.ndarray, "n l"], nuisances: Nuisances) -> Flux:
        """Noiseless spectra."""
        rows = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (jnp.asarray(labels), nuisances))
        return np.array(_noiseless(self.simulator.forward, *rows), float)

    def ordinary(self) -> Flux:
        return self.spectra(self.labels, self.nuisances)

    def uniform(self, low: float, high: float) -> Float[np.ndarray, " n"]:
        return self.rng.uniform(low, high, self.n)

    def sign(self) -> Float[np.ndarray, " n"]:
        return self.rng.choice([-1.0, 1.0], self.n)

    def note(self, **facts: Float[np.ndarray, " n"]) -> None:
        self.facts |= facts


@eqx.filter_jit
def _noiseless(forward, labels, nuisances):
    return jax.vmap(forward)(labels, nuisances)


# --- causes


def ordinary(draws: _Draws) -> Flux:
    """Nothing is wrong."""
    return draws.ordinary()


def wrong_velocity(draws: _Draws) -> Flux:
    """The spectrum is 20 to 300 km/s away from rest."""
    velocity = draws.sign() * draws.uniform(20.0, 300.0)
    draws.note(velocity=velocity)
    return shifted(draws.instrument, draws.ordinary(), velocity)


def binary(draws: _Draws) -> Flux:
    """A companion of the same composition with 0.3 to 0.9 of the primary's light, 30 to 150 km/s away."""
    other = draws.draw(lambda teff, logg: logg > 3.8)
    companion = np.array(draws.labels)
    for name in ("teff", "logg"):
        i = draws.label_set.index(name)
        companion[:, i] = other[:, i]
    ratio, velocity = draws.uniform(0.3, 0.9), draws.sign() * draws.uniform(30.0, 150.0)
    draws.note(ratio=ratio, velocity=velocity)
    second = shifted(draws.instrument, draws.spectra(companion, draws.nuisances), velocity)
    share = (ratio / (1.0 + ratio))[:, None]
    return (1.0 - share) * draws.ordinary() + share * second


def emission(draws: _Draws) -> Flux:
    """Emission in the Ca II triplet, 0.2 to 0.8 of the continuum high."""
    height, width = draws.uniform(0.2, 0.8), draws.uniform(0.35, 0.9)
    draws.note(height=height, width=width)
    w = draws.instrument.wavelength
    lines = sum(np.exp(-0.5 * ((w - c) / width[:, None]) ** 2) for c in CALCIUM_TRIPLET)
    return draws.ordinary() + height[:, None] * lines


def fringes(draws: _Draws) -> Flux:
    """An etalon's pattern of 2 to 6 % in one arm, with a period of 3 to 15 A."""
    flux, w = draws.ordinary(), draws.instrument.wavelength
    arms = draws.rng.integers(len(draws.instrument.arms), size=draws.n)
    height, period = draws.uniform(0.02, 0.06), draws.uniform(3.0, 15.0)
    phase = draws.uniform(0.0, 2.0 * np.pi)
    draws.note(arm=arms.astype(float), height=height, period=period)
    for i, where in enumerate(list(draws.instrument.slices.values())[a] for a in arms):
        middle = 0.5 * (w[where][0] + w[where][-1])
        x = middle - middle**2 / w[where]
        flux[i, where] *= 1.0 + height[i] * np.sin(2.0 * np.pi * x / period[i] + phase[i])
    return flux


def scattered_light(draws: _Draws) -> Flux:
    """Additive light of 5 % of the continuum in both arms, beside what the instrument usually has."""
    light = np.full(draws.n, 0.05)
    draws.note(light=light)
    return (draws.ordinary() + light[:, None]) / (1.0 + light[:, None])


def wrong_continuum(draws: _Draws) -> Flux:
    """Ripples of 2 to 5 % in every arm, Chebyshev polynomials of degrees 8 to 20."""
    flux, height = draws.ordinary(), draws.uniform(0.02, 0.05)
    draws.note(height=height)
    for where in draws.instrument.slices.values():
        x = np.linspace(-1.0, 1.0, where.stop - where.start)
        basis = np.polynomial.chebyshev.chebvander(x, 20)[:, 8:].T
        shape = draws.rng.normal(size=(draws.n, len(basis))) @ basis
        flux[:, where] *= 1.0 + height[:, None] * shape / shape.std(axis=1, keepdims=True)
    return flux


def wrong_resolving_power(draws: _Draws) -> Flux:
    """Half of them at 0.4 to 0.65 of the nominal resolving power, half at 1.4 to 1.8."""
    low = draws.rng.random(draws.n) < 0.5
    factor = np.where(low, draws.uniform(0.4, 0.65), draws.uniform(1.4, 1.8))
    draws.note(factor=factor)
    return draws.spectra(draws.labels, draws.nuisances._replace(resolution=factor))


def hot(draws: _Draws) -> Flux:
    """A rotating star of some 8000 K (see `faults.hot_star`)."""
    draws.labels = draws.draw(lambda teff, logg: teff > 6700.0)
    flux = draws.ordinary()
    return np.asarray(hot_star(Stars(draws.rng, draws.instrument, flux, lambda low, high: flux)), float)


def giant(draws: _Draws) -> Flux:
    """A giant, in a run that is told to expect dwarfs."""
    draws.labels = draws.draw(lambda teff, logg: logg < 3.2)
    return draws.ordinary()


PROBLEMS: dict[str, Callable[[_Draws], Flux]] = {
    "ordinary": ordinary,
    "wrong velocity": wrong_velocity,
    "binary": binary,
    "emission": emission,
    "fringes": fringes,
    "scattered light": scattered_light,
    "wrong continuum": wrong_continuum,
    "wrong resolving power": wrong_resolving_power,
    "hot star": hot,
    "wrong prior": giant,
}


def simulate_problems(
    cause: str,
    key: PRNGKeyArray,
    simulator: Simulator,
    n: int,
    snr: tuple[float, float] = (30.0, 100.0),
) -> Problems:
    """`n` spectra with one cause of `PROBLEMS`, all arms observed, S/N per pixel even in its logarithm.

    Raises: InputError for an unknown cause, and where the prior has no stars to make it from.
    """
    if cause not in PROBLEMS:
        raise InputError("cause", repr(cause), f"one of {', '.join(PROBLEMS)}", "check the spelling")
    config = dataclasses.replace(simulator.config, only_arm=())
    if cause == "scattered light":
        config = dataclasses.replace(config, scattered_light=0.0)
    first, second, third = jax.random.split(key, 3)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(first)).tolist())
    draws = _Draws(rng, second, simulator, n)
    flux = PROBLEMS[cause](draws)
    levels = np.exp(rng.uniform(np.log(snr[0]), np.log(snr[1]), n))
    seen = np.isfinite(flux)
    noisy, stated = observe(
        third,
        jnp.asarray(np.where(seen, flux, 1.0), jnp.float32),
        jnp.asarray(levels, jnp.float32),
        draws.instrument,
        config,
    )
    prior = DWARFS if cause == "wrong prior" else TRAINING
    ivar = np.where(seen, np.asarray(stated), 0.0)
    return Problems(cause, np.asarray(noisy), ivar, draws.labels, cause != "hot star", prior, draws.facts)


def shifted(instrument: Instrument, flux: Flux, kms: Float[np.ndarray, " n"]) -> Flux:
    """Spectra moved to the red by velocities [km/s], arm by arm, by cubic splines; NaN where an arm's end
    would come from outside of it."""
    moved = np.array(flux, float)
    for where in instrument.slices.values():
        w = instrument.wavelength[where]
        for row, v in zip(moved, kms, strict=True):
            source = w / (1.0 + v / SPEED_OF_LIGHT)
            values = CubicSpline(w, row[where])(np.clip(source, w[0], w[-1]))
            row[where] = np.where((source >= w[0]) & (source <= w[-1]), values, np.nan)
    return moved
