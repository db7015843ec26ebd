"""Single lines: central depths and equivalent widths, curves of growth, and abundances from measured widths.

Each line is computed alone with the continuum, on points of its own that are dense in the core and reach far
into the wings, so that a width costs 48 points whatever the list and needs no window.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.interpolate import PchipInterpolator

from jaxspec.errors import InputError
from jaxspec.physics.atmosphere import Atmosphere
from jaxspec.physics.chemistry import AtomicData, ChemicalState
from jaxspec.physics.constants import ATOMIC_MASS, ATOMIC_WEIGHTS, BOLTZMANN, SPEED_OF_LIGHT
from jaxspec.physics.lines import LineList, line_strengths
from jaxspec.physics.synthesis import continuum_between, emergent_with_lines
from jaxspec.physics.voigt import voigt

POINTS = 48  # from a line's centre to the end of its wing
CORE_TEMPERATURE, CORE_VMIC = 4500.0, 0.5  # K, km/s: of the width in units of which the points are laid
GROWTH = (-3.0, 3.0, 0.1)  # dex of log gf: first, last, step of the curve of growth that is inverted


class LoneLines(NamedTuple):
    """Lines of a star, each as if there were no other."""

    depth: Float[Array, " lines"]  # 1 - F / F_continuum at the centre
    equivalent_width: Float[Array, " lines"]  # mA


def lone_lines(
    lines: LineList,
    atoms: AtomicData,
    atmosphere: Atmosphere,
    state: ChemicalState,
    vmic: Float[Array, ""],
) -> LoneLines:
    """Depth and equivalent width of every line alone with the continuum, in LTE; `vmic` in km/s.

    W = int (1 - F / F_c) dlambda over both halves of the profile, by the trapezoidal rule in asinh of the
    distance up to the line's `reach`; beyond, the depth goes on as the inverse square of the distance. Can be
    differentiated by everything but where the lines are. `lines` must be concrete but for `log_gf`.
    """
    t = atmosphere.temperature
    low, high = float(lines.wavelength.min()), float(lines.wavelength.max())
    continuum = continuum_between(low - 1.0, high + 1.0, atmosphere, state)
    strengths = line_strengths(lines, atoms, t, state, vmic)

    mass = (ATOMIC_WEIGHTS * ATOMIC_MASS)[lines.element]
    speed = np.sqrt(2 * BOLTZMANN / mass * CORE_TEMPERATURE + (CORE_VMIC * 1e5) ** 2)
    scale = lines.wavelength * speed / SPEED_OF_LIGHT
    step = np.arcsinh(lines.reach / scale) / (POINTS - 1)
    u = step[:, None] * np.arange(POINTS)
    distance, stretch = scale[:, None] * np.sinh(u), scale[:, None] * np.cosh(u)
    measure = step[:, None] * stretch
    measure[:, 0] *= 0.5
    measure[:, -1] = 0.5 * measure[:, -1] + lines.reach

    @jax.checkpoint
    def one(line):
        wavelength, weight, relative, measure, opacity, doppler, damping = line
        profile = opacity * voigt(damping[None], relative[:, None] / doppler[None])
        # The last point, without the line, is the continuum with the very same rounding.
        profile = jnp.concatenate([profile, jnp.zeros_like(profile[:1])])
        weight = jnp.broadcast_to(weight, (POINTS + 1, weight.size))
        wavelength = jnp.broadcast_to(wavelength, POINTS + 1)
        flux = emergent_with_lines(wavelength, weight, profile, continuum, atmosphere, state.density)
        depth = 1.0 - flux[:-1] / flux[-1]
        return depth[0], 2e3 * measure @ depth

    def cast(x):
        return jnp.asarray(x, t.dtype)

    weights = continuum.weights(lines.wavelength)
    fixed = (lines.wavelength, weights, distance / lines.wavelength[:, None], measure)
    return LoneLines(*jax.lax.map(one, (*map(cast, fixed), *strengths)))


def equivalent_widths(
    lines: LineList,
    atoms: AtomicData,
    atmosphere: Atmosphere,
    state: ChemicalState,
    vmic: Float[Array, ""],
) -> Float[Array, " lines"]:
    """Equivalent width (mA) of every line alone; see `lone_lines`."""
    return lone_lines(lines, atoms, atmosphere, state, vmic).equivalent_width


def curves_of_growth(
    lines: LineList,
    atoms: AtomicData,
    atmosphere: Atmosphere,
    state: ChemicalState,
    vmic: Float[Array, ""],
    change: Float[np.ndarray, " changes"],
) -> Float[Array, "lines changes"]:
    """Equivalent width (mA) of every line with its log gf changed by each of `change` (dex).

    An abundance acts like an oscillator strength as long as the element gives the gas few electrons; so this
    is also the growth with the abundance. Wings are followed farther as a line gets stronger.
    """
    index = np.repeat(np.arange(len(lines)), len(change))
    moved = np.tile(np.asarray(change), len(lines))
    many = lines[index]
    farther = np.maximum(10.0 ** (0.5 * moved), 1.0)
    many = LineList(**{
        **many.__dict__,
        "log_gf": many.log_gf + moved.astype(np.float32),
        "reach": (many.reach * farther).astype(np.float32),
    })  # fmt: skip
    widths = equivalent_widths(many, atoms, atmosphere, state, vmic)
    return widths.reshape(len(lines), len(change))


class LineAbundances(NamedTuple):
    """Abundance from each measured line; NaN where no abundance within 3 dex has this width."""

    change: Float[np.ndarray, " lines"]  # dex, to add to the abundance for which `state` was computed
    error: Float[np.ndarray, " lines"]  # dex
    slope: Float[np.ndarray, " lines"]  # dlog10 W / dlog10 A: 1 for weak lines, small where saturated


def abundances_from_widths(
    lines: LineList,
    widths: Float[np.ndarray, " lines"],
    atoms: AtomicData,
    atmosphere: Atmosphere,
    state: ChemicalState,
    vmic: Float[Array, ""],
    errors: Float[np.ndarray, " lines"] | None = None,
) -> LineAbundances:
    """The change of abundance that gives every line its measured equivalent width.

    Args:
        lines: the measured lines, isolated ones, each with its own width; a line of several components
            (hyperfine, isotopes) has no width of its own: fit the spectrum instead (`fit_spectrum`).
        widths, errors: measured equivalent widths and their standard errors, mA.

    Raises InputError for another number of widths than lines, and for widths that are not positive.
    """
    widths = np.asarray(widths, float)
    if widths.shape != (len(lines),) or not np.all(widths > 0):
        raise InputError(
            "widths", f"{widths.size} values from {widths.min():g} mA", f"{len(lines)} positive ones",
            "give the width of each line, and leave out lines without one",
        )  # fmt: skip
    change = np.arange(round((GROWTH[1] - GROWTH[0]) / GROWTH[2]) + 1) * GROWTH[2] + GROWTH[0]
    run = jax.jit(lambda gas, solved, vmic: curves_of_growth(lines, atoms, gas, solved, vmic, change))
    growth = np.log10(np.maximum(np.asarray(run(atmosphere, state, vmic), float), 1e-6))
    rows = []
    for curve, width, error in zip(growth, widths, np.zeros(len(lines)) if errors is None else errors,
                                   strict=True):  # fmt: skip
        grows = np.concatenate([[True], np.diff(np.maximum.accumulate(curve)) > 0])
        inverse = PchipInterpolator(curve[grows], change[grows], extrapolate=False)
        slope = 1.0 / inverse(np.log10(width), 1)
        rows.append((inverse(np.log10(width)), error / width / np.log(10) / slope, slope))
    return LineAbundances(*np.array(rows).T)
