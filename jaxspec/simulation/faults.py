"""Spectra that no network of ordinary stars should believe: ten faults, simulated, to see whether each is
flagged.

Every fault starts from stars as the simulator draws them, with all arms, noise and continuum, and spoils
their spectra before or after the noise is added. Three stars that the forward model does not reach are made
by hand from the nearest that it does: good enough to be unlike any training spectrum, no spectra to measure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from jaxspec.errors import InputError
from jaxspec.instruments import SPEED_OF_LIGHT, Instrument
from jaxspec.simulation.nuisances import draw_nuisances
from jaxspec.simulation.preparation import prepare
from jaxspec.simulation.simulator import Simulator, observe, perturb_lines

Flux = Float[np.ndarray, "n p"]

# Air wavelengths [A]: NIST Atomic Spectra Database for Ca II and the Paschen lines P17 to P11.
CALCIUM_TRIPLET = (8498.02, 8542.09, 8662.14)
PASCHEN = (8467.25, 8502.48, 8545.38, 8598.39, 8665.02, 8750.47, 8862.78)
# Rounded places of strong band heads, of TiO (degraded to the red) and of C2 (Swan system, to the blue): that
# there are bands is what matters here, not where exactly.
TIO_HEADS = (5448.0, 5497.0, 5569.0, 8442.0, 8452.0, 8513.0, 8860.0, 8868.0, 8937.0)
C2_HEADS = (5585.5, 5540.5, 5502.0, 5470.5)


class Stars(NamedTuple):
    """What a fault may use: random numbers, the instrument, the noiseless `flux` of ordinary stars, and
    `draw(low, high)`, that of as many others with temperatures [K] between two limits."""

    rng: np.random.Generator
    instrument: Instrument
    flux: Flux
    draw: Callable[[float, float], Flux]

    @property
    def wavelength(self) -> Float[np.ndarray, " p"]:
        return self.instrument.wavelength

    def uniform(self, low: float, high: float) -> Float[np.ndarray, "n 1"]:
        """A number for each star."""
        return self.rng.uniform(low, high, (len(self.flux), 1))


def emission(stars: Stars) -> Flux:
    """Emission in the Ca II triplet, 0.3 to 1.0 of the continuum high."""
    width = stars.uniform(0.4, 1.0)
    lines = sum(np.exp(-0.5 * ((stars.wavelength - centre) / width) ** 2) for centre in CALCIUM_TRIPLET)
    return stars.flux + stars.uniform(0.3, 1.0) * lines


def binary(stars: Stars) -> Flux:
    """Two stars at 30 to 150 km/s from each other, the fainter one with at least 0.4 of the light."""
    ratio = stars.uniform(0.4, 1.0)
    other = shift(stars.instrument, stars.draw(0.0, np.inf), stars.uniform(30.0, 150.0)[:, 0])
    return (stars.flux + ratio * other) / (1.0 + ratio)


def velocity(stars: Stars) -> Flux:
    """A spectrum that is not at rest, by 30 to 300 km/s."""
    sign = np.sign(stars.rng.random(len(stars.flux)) - 0.5)
    return shift(stars.instrument, stars.flux, sign * stars.uniform(30.0, 300.0)[:, 0])


def hot_star(stars: Stars) -> Flux:
    """A rotating star of some 8000 K: weak metal lines, broad Paschen lines."""
    flux = 1.0 - stars.uniform(0.3, 0.7) * (1.0 - stars.draw(6700.0, np.inf))
    width = stars.uniform(5.0, 9.0)
    for centre, depth in zip(PASCHEN, np.linspace(0.15, 0.34, len(PASCHEN)), strict=True):
        flux = flux * (1.0 - depth / (1.0 + ((stars.wavelength - centre) / width) ** 2))
    return smooth(stars.instrument, flux, stars.uniform(20.0, 150.0)[:, 0])


def m_star(stars: Stars) -> Flux:
    """A cool star with bands of titanium oxide."""
    return _bands(stars, stars.draw(0.0, 4200.0), TIO_HEADS, 40.0)


def carbon_star(stars: Stars) -> Flux:
    """A cool star with bands of C2 and, in the red, a forest of CN."""
    flux = _bands(stars, stars.draw(0.0, 5000.0), C2_HEADS, -25.0)
    wander = np.cumsum(stars.rng.normal(0.0, 0.02, len(stars.wavelength)))
    forest = 0.5 + 0.5 * np.sin(2.0 * np.pi * stars.wavelength / 1.7 + wander)
    return flux * (1.0 - stars.uniform(0.1, 0.3) * forest * (stars.wavelength > 7000.0))


def lamp(stars: Stars) -> Flux:
    """A continuum without any line."""
    return np.ones_like(stars.flux)


def wrong_instrument(stars: Stars) -> Flux:
    """Half of them at a quarter to a tenth of the resolving power, half with pixels 5 to 20 % too wide."""
    blurred = smooth(stars.instrument, stars.flux, stars.uniform(25.0, 70.0)[:, 0])
    stretched = np.array(stars.flux)
    for where in stars.instrument.slices.values():
        w = stars.wavelength[where]
        for row, factor in zip(stretched, stars.uniform(0.8, 0.95)[:, 0], strict=True):
            row[where] = np.interp(w[0] + factor * (w - w[0]), w, row[where])
    return np.where(np.arange(len(blurred))[:, None] % 2, blurred, stretched)


def cosmic_rays(rng: np.random.Generator, flux: Flux, sigma: Flux) -> Flux:
    """Hits in 1 % of the pixels, five errors high or more."""
    hit = rng.random(flux.shape) < 0.01
    return flux + hit * (5.0 * sigma + rng.exponential(2.0, flux.shape))


def noise_only(rng: np.random.Generator, flux: Flux, sigma: Flux) -> Flux:
    """No light at all, and errors that do not say so: those of a spectrum with the stated S/N."""
    return 1.0 + rng.normal(0.0, 0.3, flux.shape)


BEFORE_NOISE: dict[str, Callable[[Stars], Flux]] = {
    "emission in the Ca triplet": emission,
    "double-lined binary": binary,
    "wrong velocity": velocity,
    "hot star": hot_star,
    "M star": m_star,
    "carbon star": carbon_star,
    "flat lamp": lamp,
    "wrong instrument": wrong_instrument,
}
AFTER_NOISE: dict[str, Callable[[np.random.Generator, Flux, Flux], Flux]] = {
    "cosmic rays": cosmic_rays,
    "noise only": noise_only,
}
FAULTS = (*BEFORE_NOISE, *AFTER_NOISE)


def simulate_fault(
    fault: str | None, key: PRNGKeyArray, simulator: Simulator, n: int, snr: float = 50.0
) -> tuple[Float[Array, "n p"], Float[Array, "n p"]]:
    """Normalised flux and ivar of `n` spectra with a fault of `FAULTS`, or of ordinary ones for None, with
    all arms and the given S/N per pixel.

    Raises: InputError for an unknown fault, and where the prior has no stars to make it from.
    """
    if fault is not None and fault not in FAULTS:
        raise InputError("fault", repr(fault), f"one of {', '.join(FAULTS)}", "check the spelling")
    instrument = simulator.instrument
    config = dataclasses.replace(simulator.config, only_arm=())
    keys = jax.random.split(key, 4)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(keys[0])).tolist())

    @jax.jit
    def noiseless(key, labels):
        first, second = jax.random.split(key)
        stellar = simulator.forward.label_set.stellar(labels)
        nuisances = draw_nuisances(
            first, stellar, config, simulator.vmic_calibration, simulator.vmac_calibration
        )
        return perturb_lines(second, jax.vmap(simulator.forward)(labels, nuisances), instrument, config)

    def draw(low: float, high: float) -> Flux:
        found = np.zeros((0, len(simulator.forward.label_set)), np.float32)
        for i in range(100):
            labels = np.asarray(simulator.prior.sample(jax.random.fold_in(keys[1], i), 20 * n))
            teff = simulator.forward.label_set.column(labels, "teff")
            found = np.concatenate([found, labels[(teff > low) & (teff < high)]])
            if len(found) >= n:
                break
        if len(found) < n:
            raise InputError(
                f"fault {fault!r}",
                f"{len(found)} stars of the prior between {low:.0f} and {high:.0f} K",
                f"{n}",
                "simulate it with a wider prior",
            )
        rows = found[rng.permutation(len(found))[:n]]
        return np.asarray(noiseless(jax.random.fold_in(keys[2], rng.integers(2**31)), jnp.asarray(rows)))

    flux = draw(0.0, np.inf)
    if fault in BEFORE_NOISE:
        flux = BEFORE_NOISE[fault](Stars(rng, instrument, flux, draw))
    observed, ivar = observe(keys[3], jnp.asarray(flux, jnp.float32), jnp.full(n, snr), instrument, config)
    if fault in AFTER_NOISE:
        good = np.asarray(ivar) > 0.0
        sigma = np.where(good, 1.0 / np.sqrt(np.where(good, ivar, 1.0)), 0.0)
        observed = jnp.asarray(AFTER_NOISE[fault](rng, np.asarray(observed), sigma), jnp.float32)
    return prepare(observed, ivar, instrument)


def shift(instrument: Instrument, flux: Flux, kms: Float[np.ndarray, " n"]) -> Flux:
    """Spectra moved to the red by velocities [km/s], arm by arm; their ends are drawn out."""
    moved = np.array(flux)
    for where in instrument.slices.values():
        w = instrument.wavelength[where]
        for row, v in zip(moved, kms, strict=True):
            row[where] = np.interp(w, w * (1.0 + v / SPEED_OF_LIGHT), row[where])
    return moved


def smooth(instrument: Instrument, flux: Flux, kms: Float[np.ndarray, " n"]) -> Flux:
    """Spectra convolved with Gaussians of given standard deviations [km/s], arm by arm."""
    blurred = np.array(flux)
    for where in instrument.slices.values():
        w = instrument.wavelength[where]
        for row, v in zip(blurred, kms, strict=True):
            pixels = v / SPEED_OF_LIGHT * w.mean() / (w[1] - w[0])
            reach = int(4 * pixels) + 1
            kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / pixels) ** 2)
            row[where] = np.convolve(
                np.pad(row[where], reach, mode="edge"), kernel / kernel.sum(), mode="valid"
            )
    return blurred


def _bands(stars: Stars, flux: Flux, heads: tuple[float, ...], tail: float) -> Flux:
    """Band heads that take 20 to 60 % of the light and fade over `tail` [A], to the red where positive."""
    for head in heads:
        distance = (stars.wavelength - head) / tail
        band = np.where(distance > 0.0, np.exp(-np.maximum(distance, 0.0)), 0.0)
        flux = flux * (1.0 - stars.uniform(0.2, 0.6) * band)
    return flux
