"""Physical hypotheses about a spectrum, each a full model of it that can be fitted and compared with others.

All of them see the same pixels through the same likelihood (`jaxspec.agent.evidence`); they differ in what
they allow beside an ordinary star, and in the prior of that. Evidence then decides between them without a
penalty chosen by hand.

A model is built from one compiled program, the spectrum of one star and its derivatives, so that nothing is
compiled anew for another hypothesis or another star. What a hypothesis adds is linear in its amplitudes
(emission, fringes, continuum, scattered light) or a mixture of two such spectra (a binary).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxspec.errors import InputError
from jaxspec.instruments import Instrument
from jaxspec.labels import LabelSet
from jaxspec.physics import turbulence
from jaxspec.physics.forward import Nuisances
from jaxspec.simulation.faults import CALCIUM_TRIPLET, PASCHEN
from jaxspec.simulation.simulator import CONTINUUM_DEGREE, SpectrumModel

Vector = Float[np.ndarray, " _"]
Model = tuple[Float[np.ndarray, " p"], Float[np.ndarray, "k p"]]

ORDINARY = "ordinary"
UNKNOWN = "unknown"
CAUSES = {
    ORDINARY: "an ordinary single star, as the forward model knows it",
    "wrong velocity": "the spectrum is not at rest",
    "binary": "the lines of two stars, shifted against each other",
    "emission": "emission in the lines of the Ca II triplet",
    "fringes": "an interference pattern in one arm",
    "scattered light": "more additive light than the instrument is known to have",
    "wrong continuum": "ripples that a smooth continuum does not follow",
    "wrong resolving power": "lines sharper or blunter than the stated resolving power makes them",
    "hot star": "weak metal lines and broad Paschen lines, beyond the model's temperatures",
    "wrong prior": "labels that the prior of the run excludes",
    UNKNOWN: "no hypothesis explains the spectrum",
}
"""All causes that the agent may conclude, with their meaning."""

# Of the Ca II triplet, half a line's width on either side.
TRIPLET_REACH = 3.0


class Parameter(NamedTuple):
    """A nonlinear parameter: Gaussian prior, hard limits, and the longest step of a fit; all in its unit."""

    name: str
    mean: float
    sigma: float
    low: float
    high: float
    step: float


class Extra(NamedTuple):
    """Columns that a hypothesis adds, linear in amplitudes of prior mean 0 or `mean` and width `sigma`:
    `columns [m, p]` multiply the model or, with `plus`, are added to it; `slopes` are their derivatives by
    nonlinear parameters, by place."""

    columns: Float[np.ndarray, "m p"]
    sigma: float
    plus: bool
    slopes: Mapping[int, Float[np.ndarray, "m p"]]
    mean: float = 0.0


@dataclass(frozen=True)
class LabelPrior:
    """A Gaussian stand-in for what is known of a star's labels.

    Attributes:
        teff, logg, fe_h: mean and standard deviation [K, dex, dex].
        x_fe: the same of each [X/Fe].
    """

    teff: tuple[float, float] = (5500.0, 1000.0)
    logg: tuple[float, float] = (3.5, 1.3)
    fe_h: tuple[float, float] = (-0.5, 0.8)
    x_fe: tuple[float, float] = (0.08, 0.3)

    def moments(self, label_set: LabelSet) -> tuple[Vector, Float[np.ndarray, "k k"]]:
        """Mean and precision of the labels, in the set's order."""
        rows, mean, sigma = [], [], []
        for name in label_set.names:
            row = np.zeros(len(label_set))
            row[label_set.index(name)] = 1.0
            if name in label_set.elements:
                row[label_set.index("fe_h")] = -1.0
            known = getattr(self, name, self.x_fe)
            rows.append(row / known[1])
            mean.append(known[0] + (self.fe_h[0] if name in label_set.elements else 0.0))
            sigma.append(known[1])
        matrix = np.stack(rows)
        return np.array(mean), matrix.T @ matrix


WIDE = LabelPrior()
DWARFS = LabelPrior(logg=(4.4, 0.25))
GIANTS = LabelPrior(teff=(4700.0, 400.0), logg=(2.3, 0.6))
PRIORS = {"training": WIDE, "dwarfs": DWARFS, "giants": GIANTS}


class Star:
    """The spectrum of one star and its derivatives, compiled once for a forward model.

    Parameters are the labels, then vmic and vmac [km/s] about their calibrations, the square of vsini
    [km^2/s^2], velocity [km/s], and resolving power in units of the nominal one.
    """

    NUISANCES = ("d_vmic", "d_vmac", "vsini2", "velocity", "resolution")

    def __init__(self, forward: SpectrumModel):
        self.forward = forward
        self.instrument, self.label_set = forward.instrument, forward.label_set
        self.n_label = len(self.label_set)
        self.unit = np.concatenate([self.label_set.step, [0.2, 1.0, 10.0, 0.5, 0.05]])

    def __call__(self, theta: Vector) -> Model:
        """Flux `[p]` and its derivatives `[14, p]`, each by its parameter's own unit."""
        flux, tangents = _spectrum(self.forward, jnp.asarray(theta, jnp.float32))
        return np.asarray(flux, float), np.asarray(tangents, float) / self.unit[:, None]


@eqx.filter_jit
def _spectrum(
    forward: SpectrumModel, theta: Float[Array, " k"]
) -> tuple[Float[Array, " p"], Float[Array, "k p"]]:
    label_set = forward.label_set
    n = len(label_set)
    unit = jnp.asarray(np.concatenate([label_set.step, [0.2, 1.0, 10.0, 0.5, 0.05]]), theta.dtype)

    def spectrum(u):
        x = theta + unit * u
        labels, (d_vmic, d_vmac, vsini2, velocity, resolution) = x[:n], x[n:]
        stellar = label_set.stellar(labels)
        vmic = jnp.clip(turbulence.vmic_calibration(*stellar) + d_vmic, 0.3, 4.0)
        vmac = jnp.clip(turbulence.vmac_calibration(*stellar) + d_vmac, 0.0, 12.0)
        vsini = jnp.sqrt(jnp.maximum(vsini2, 0.09))
        return forward(labels, Nuisances(vmic, vmac, vsini, velocity, resolution))

    flux, push = jax.linearize(spectrum, jnp.zeros_like(theta))
    return flux, jax.vmap(push)(jnp.eye(theta.size, dtype=theta.dtype))


@dataclass(frozen=True)
class Hypothesis:
    """One hypothesis: parameters with priors, and the model that they make.

    Attributes:
        name: one of `CAUSES`.
        parameters: nonlinear ones; the labels come first.
        labels: prior of the labels.
        spectrum: model `[p]` and derivatives `[k, p]` of all nonlinear parameters.
        extra: further columns at given parameters.
        degree: of the Chebyshev continuum of each arm.
        scatter: prior standard deviation of its coefficients.
        taper: let that fall with the third power of the degree, as of a smooth continuum.
        light: prior mean and standard deviation of the additive light of each arm [of the continuum].
    """

    name: str
    parameters: tuple[Parameter, ...]
    labels: LabelPrior
    spectrum: Callable[[Star, Vector], Model]
    extra: Callable[[Instrument, Vector], tuple[Extra, ...]] = lambda instrument, theta: ()
    degree: int = 10
    scatter: float = 0.05
    taper: bool = True
    light: tuple[float, float] = (0.01, 0.006)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the nonlinear parameters."""
        return tuple(parameter.name for parameter in self.parameters)

    def continuum(self, instrument: Instrument) -> list[np.ndarray]:
        """Chebyshev columns of each arm on its pixels."""
        return [
            np.polynomial.chebyshev.chebvander(
                np.linspace(-1.0, 1.0, where.stop - where.start), self.degree
            ).T
            for where in instrument.slices.values()
        ]

    def arm_prior(self) -> tuple[Vector, Vector]:
        """Prior means and standard deviations of an arm's continuum coefficients and of its light."""
        order = np.arange(self.degree + 1)
        fall = np.maximum(order / CONTINUUM_DEGREE, 1.0) ** -3.0 if self.taper else np.ones(order.size)
        mean = np.zeros(order.size + 1)
        mean[0], mean[-1] = 1.0, self.light[0]
        return mean, np.append(self.scatter * fall, self.light[1])

    def prior(self, label_set: LabelSet) -> tuple[Vector, Float[np.ndarray, "k k"]]:
        """Mean and precision of all nonlinear parameters."""
        n, k = len(label_set), len(self.parameters)
        mean, precision = np.array([p.mean for p in self.parameters]), np.zeros((k, k))
        mean[:n], precision[:n, :n] = self.labels.moments(label_set)
        rest = np.arange(n, k)
        precision[rest, rest] = [p.sigma**-2.0 for p in self.parameters[n:]]
        return mean, precision


def _star_parameters(label_set: LabelSet, **changed: Parameter) -> tuple[Parameter, ...]:
    margin = 0.01 * (label_set.high - label_set.low)
    labels = [
        Parameter(x.name, np.nan, np.nan, x.low + m, x.high - m, 2.0 * (x.long_step or 1.0))
        for x, m in zip(label_set, margin, strict=True)
    ]
    usual = {
        "d_vmic": Parameter("d_vmic", 0.0, 0.25, -1.5, 1.5, 0.3),
        "d_vmac": Parameter("d_vmac", 0.0, 1.0, -5.0, 5.0, 1.5),
        "vsini2": Parameter("vsini2", 16.0, 150.0, 0.1, 3600.0, 150.0),
        "velocity": Parameter("velocity", 0.0, 1.3, -15.0, 15.0, 4.0),
        "resolution": Parameter("resolution", 1.0, 0.05, 0.75, 1.25, 0.08),
    }
    return (*labels, *(usual | changed).values())


def _single(star: Star, theta: Vector) -> Model:
    flux, slopes = star(theta[: star.n_label + 5])
    return flux, np.concatenate([slopes, np.zeros((theta.size - len(slopes), flux.size))])


def _binary(star: Star, theta: Vector) -> Model:
    n, label_set = star.n_label, star.label_set
    teff2, logg2, vsini2, velocity2, ratio = theta[n + 5 :]
    first, slopes = star(theta[: n + 5])
    other = np.array(theta[: n + 5])
    places = [label_set.index("teff"), label_set.index("logg"), n + 2, n + 3]
    other[places] = teff2, logg2, vsini2, velocity2
    second, more = star(other)
    share = ratio / (1.0 + ratio)
    model = (1.0 - share) * first + share * second
    own = share * more[places]
    shared = np.array(more)
    shared[places] = 0.0
    return model, np.concatenate(
        [(1.0 - share) * slopes + share * shared, own, ((second - model) / (1.0 + ratio))[None]]
    )


def _hot(star: Star, theta: Vector) -> Model:
    """Lines weaker by a factor, times Paschen lines of Lorentzian shape."""
    n = star.n_label
    weak, strength, width = theta[n + 5 :]
    metal, slopes = star(theta[: n + 5])
    w = star.instrument.wavelength
    depths = np.linspace(0.15, 0.34, len(PASCHEN))
    lines = [
        (depth, 1.0 / (1.0 + ((w - centre) / width) ** 2))
        for centre, depth in zip(PASCHEN, depths, strict=True)
    ]
    factors = [np.maximum(1.0 - strength * depth * shape, 0.05) for depth, shape in lines]
    hydrogen = np.prod(factors, axis=0)
    by_strength = sum(-depth * shape / f for (depth, shape), f in zip(lines, factors, strict=True))
    by_width = sum(
        -strength * depth * 2.0 * shape * (1.0 - shape) / width / f
        for (depth, shape), f in zip(lines, factors, strict=True)
    )
    thin = 1.0 - weak * (1.0 - metal)
    model = thin * hydrogen
    own = np.stack([(metal - 1.0) * hydrogen, model * by_strength, model * by_width])
    return model, np.concatenate([weak * slopes * hydrogen, own])


def _emission(place: int) -> Callable[[Instrument, Vector], tuple[Extra, ...]]:
    def extra(instrument: Instrument, theta: Vector) -> tuple[Extra, ...]:
        width, w = theta[place], instrument.wavelength
        distance = np.stack([w - centre for centre in CALCIUM_TRIPLET])
        shape = np.exp(-0.5 * (distance / width) ** 2)
        return (Extra(shape, 0.5, True, {place: shape * distance**2 / width**3}, 0.3),)

    return extra


def etalon(wavelength: Float[np.ndarray, " p"]) -> Float[np.ndarray, " p"]:
    """A coordinate [A] in which an interference pattern has one frequency: the phase between two surfaces
    goes with 1/wavelength."""
    middle = 0.5 * (wavelength[0] + wavelength[-1])
    return middle - middle**2 / wavelength


def _fringes(place: int, arm: str) -> Callable[[Instrument, Vector], tuple[Extra, ...]]:
    def extra(instrument: Instrument, theta: Vector) -> tuple[Extra, ...]:
        where, columns = instrument.slices[arm], np.zeros((2, instrument.n_pixels))
        slope = np.zeros_like(columns)
        x = etalon(instrument.wavelength[where])
        phase = 2.0 * np.pi * theta[place] * x
        columns[:, where] = np.cos(phase), np.sin(phase)
        slope[:, where] = -2.0 * np.pi * x * np.sin(phase), 2.0 * np.pi * x * np.cos(phase)
        return (Extra(columns, 0.05, False, {place: slope}),)

    return extra


# Periods of fringes that are looked for [A].
FRINGE_PERIODS = (2.0, 18.0)


def make(name: str, star: Star, run_prior: LabelPrior = WIDE, arm: str | None = None) -> Hypothesis:
    """The hypothesis of a name in `CAUSES`.

    Args:
        run_prior: what the run says of its stars' labels; all but "wrong prior" believe it.
        arm: of the fringes.

    Raises: InputError for an unknown name, and for `unknown`, which is no model.
    """
    label_set, n = star.label_set, star.n_label
    usual = _star_parameters(label_set)

    def simple(parameters: tuple[Parameter, ...] = usual, **more: Any) -> Hypothesis:
        return Hypothesis(name, parameters, run_prior, _single, **more)

    if name == ORDINARY:
        return simple()
    if name == "wrong prior":
        return Hypothesis(name, usual, WIDE, _single)
    if name == "wrong velocity":
        wide = Parameter("velocity", 0.0, 150.0, -600.0, 600.0, 5.0)
        return simple(_star_parameters(label_set, velocity=wide))
    if name == "wrong resolving power":
        wide = Parameter("resolution", 1.0, 0.4, 0.25, 2.0, 0.15)
        return simple(_star_parameters(label_set, resolution=wide))
    if name == "scattered light":
        return simple(light=(0.07, 0.04))
    if name == "wrong continuum":
        return simple(degree=30, taper=False, scatter=0.03)
    if name == "emission":
        width = Parameter("width", 0.6, 0.25, 0.15, 1.5, 0.2)
        return simple((*usual, width), extra=_emission(n + 5))
    if name == "fringes":
        low, high = 1.0 / FRINGE_PERIODS[1], 1.0 / FRINGE_PERIODS[0]
        frequency = Parameter("frequency", 0.5 * (low + high), (high - low) / np.sqrt(12.0), low, high, 2e-4)
        chosen = arm or star.instrument.arms[-1].name
        return simple((*usual, frequency), extra=_fringes(n + 5, chosen))
    if name == "binary":
        teff, logg = label_set["teff"], label_set["logg"]
        primary = Parameter("velocity", 0.0, 40.0, -300.0, 300.0, 6.0)
        own = (
            Parameter("teff_2", 5500.0, 900.0, teff.low + 34.0, teff.high - 34.0, 400.0),
            Parameter("logg_2", 4.2, 0.7, logg.low + 0.05, logg.high - 0.05, 0.5),
            Parameter("vsini2_2", 16.0, 150.0, 0.1, 3600.0, 150.0),
            Parameter("velocity_2", 0.0, 120.0, -400.0, 400.0, 6.0),
            Parameter("ratio", 0.5, 0.4, 0.02, 1.0, 0.2),
        )
        return Hypothesis(name, (*_star_parameters(label_set, velocity=primary), *own), run_prior, _binary)
    if name == "hot star":
        fast = Parameter("vsini2", 3600.0, 8000.0, 0.1, 90000.0, 2500.0)
        extra = (
            Parameter("weak", 0.5, 0.25, 0.05, 1.0, 0.2),
            Parameter("paschen", 1.0, 0.5, 0.0, 2.8, 0.4),
            Parameter("width", 7.0, 3.0, 1.5, 20.0, 2.0),
        )
        hot = LabelPrior(teff=(7000.0, 150.0), logg=(4.0, 0.4))
        return Hypothesis(name, (*_star_parameters(label_set, vsini2=fast), *extra), hot, _hot)
    models = ", ".join(cause for cause in CAUSES if cause != UNKNOWN)
    raise InputError("hypothesis", repr(name), f"one of {models}", "choose one of these")
