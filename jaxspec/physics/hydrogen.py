"""Hydrogen lines with linear Stark broadening: the Balmer and Paschen series.

Ions act quasi-statically, electrons by impacts near the line's centre and quasi-statically far from it (Griem
1960, ApJ 132, 883; 1967, ApJ 147, 1092). As in the field's codes (Peterson in Kurucz 1970, SAO 309) the
impacts' Lorentzian is added to the ions' profile, not convolved with it: the wings are the same, and the
cores of Paschen 11 and 12 come out about as deep as in HD 140283, where convolution makes them too shallow.
"""

from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.integrate import cumulative_simpson

from jaxspec.physics.chemistry import ChemicalState
from jaxspec.physics.constants import (
    ATOMIC_MASS,
    BOLTZMANN,
    BOLTZMANN_EV,
    LINE_CROSS_SECTION,
    SPEED_OF_LIGHT,
)
from jaxspec.physics.continuum_opacity import occupation_probability
from jaxspec.spectra import vacuum_to_air

RYDBERG_H = 1.09677583e-3  # A^-1
FINE_STRUCTURE = 7.2973525693e-3
# Asymptotic bound-bound Gaunt factors g = a - b / n^2, fitted to the exact strengths (Wiese & Fuhr 2009).
GAUNT = {2: (0.9052, 1.337), 3: (0.9088, 1.44)}
HIGHEST_LEVEL = 28
HOLTSMARK_FIELD = 1.25e-9  # F0 = 1.25e-9 n_e^(2/3), esu
REACH = 200.0  # A
NEAR, COARSE = 12.0, 1.0  # A

_LN_Y = np.linspace(-7.0, 9.0, 33)
_U = np.linspace(0.0, 9.0, 109)  # asinh of the distance in Doppler widths


class HydrogenLine(NamedTuple):
    """One line, or with arrays several."""

    wavelength: float  # air, A
    lower: int
    upper: int
    oscillator_strength: float
    stark: float  # K of Griem, A per esu of field


def hydrogen_lines(low: float, high: float) -> list[HydrogenLine]:
    """Balmer and Paschen lines whose wings reach the air wavelengths `low` to `high` (A)."""
    found = []
    for lower, (gaunt, slope) in GAUNT.items():
        for upper in range(lower + 1, HIGHEST_LEVEL + 1):
            terms = 1 / lower**2 - 1 / upper**2
            energy = RYDBERG_H * (_binding(lower) - _binding(upper))
            wavelength = float(vacuum_to_air(np.array([1 / energy]))[0])
            if low - REACH < wavelength < high + REACH:
                kramers = 32 / (3 * np.pi * np.sqrt(3)) * terms**-3 / (upper**3 * lower**5)
                stark = 5.5e-5 * (lower * upper) ** 4 / (upper**2 - lower**2)
                strength = float(kramers * (gaunt - slope / upper**2))
                found.append(HydrogenLine(wavelength, lower, upper, strength, stark))
    return found


def _binding(n: int) -> float:
    """Binding energy of level `n` in Rydbergs: Bohr's, and the mean of the fine structure over its states.

    Bethe & Salpeter (1957), eq. 14.29, summed over j with its weights.
    """
    return (1 + FINE_STRUCTURE**2 / n**2 * (1.25 - 1 / n)) / n**2


def holtsmark(field: np.ndarray) -> np.ndarray:
    """Holtsmark's (1919) distribution of field strengths in units of F0, one-sided and of unit area."""
    k = np.linspace(0.0, 7.0, 14_001)
    near = 2 * field / np.pi * np.trapezoid(k * np.exp(-(k**1.5)) * np.sin(np.outer(field, k)), k)
    x = np.maximum(field, 1.0)
    return np.where(field < 25, near, 1.496 * x**-2.5 * (1 + 5.107 * x**-1.5 + 14.43 * x**-3.0))


def ion_profile() -> tuple[np.ndarray, np.ndarray]:
    """Distance beta >= 0 in units of K F0, and the quasi-static profile S(beta) of many Stark components.

    The components' shifts are spread evenly up to +-2.5^(2/3), which gives the wing 0.748 beta^-2.5 on each
    side (Griem 1960); S has unit area over both sides.
    """
    x = np.geomspace(1e-3, 1e7, 801)
    field = holtsmark(x)
    beyond = cumulative_simpson(field[::-1], x=-np.log(x[::-1]), initial=0.0)[::-1] + field[-1] / 2.5
    spread = 2.5 ** (2 / 3)
    return np.append(0.0, x * spread), np.append(beyond[0], beyond) / (2 * spread)


@cache
def _profile_table() -> np.ndarray:
    """ln of the ion profile convolved with a Doppler profile, per Doppler width, on (ln y, asinh x).

    x is the distance and y the Stark width K F0, both in Doppler widths.
    """
    beta, ion = ion_profile()
    everywhere = np.sinh(np.linspace(0.0, 16.0, 400)) / np.sinh(16.0) * 1e5
    kernel = np.linspace(-6.0, 6.0, 121)
    table = np.empty((len(_LN_Y), len(_U)))
    for i, y in enumerate(np.exp(_LN_Y)):
        for j, x in enumerate(np.sinh(_U)):
            # Nodes where the ion profile varies, on both sides, and where the Doppler profile does.
            nodes = np.unique(np.concatenate([-everywhere, everywhere, (x + kernel) / y]))
            doppler = np.exp(-((x - y * nodes) ** 2)) / np.sqrt(np.pi)
            table[i, j] = np.trapezoid(doppler * np.interp(np.abs(nodes), beta, ion), nodes)
    return np.log(table)


def exponential_integral(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """E1(x) for x > 0, to 1e-4 (Abramowitz & Stegun 1964, eqs. 5.1.53 and 5.1.54)."""
    near = jnp.minimum(x, 1.0)
    inner = (-0.57721566, 0.99999193, -0.24991055, 0.05519968, -0.00976004, 0.00107857)
    far = jnp.maximum(x, 1.0)
    outer = (far * (far + 2.334733) + 0.250621) / (far * (far + 3.330657) + 1.681534) / far
    return jnp.where(
        x < 1.0,
        jnp.polyval(jnp.asarray(inner[::-1]), near) - jnp.log(near),
        outer * jnp.exp(-far),
    )


def electron_broadening(
    line: HydrogenLine,
    beta: Float[Array, "..."],
    temperature: Float[Array, "..."],
    electrons: Float[Array, "..."],
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Half-width by electron impacts in units of K F0, and the quasi-static share of the electrons.

    At the reduced distance `beta` (in units of K F0). Griem (1967) with cuts at the Lewis and the plasma
    frequencies, in the form of Peterson's fits (Kurucz 1970, SAO 309).
    """
    sixth = electrons ** (1 / 6)
    t4 = temperature * 1e-4
    field = HOLTSMARK_FIELD * sixth**4
    shift = line.stark / line.wavelength  # relative, per unit of field
    few = 1.0 / (1.0 + electrons / 1e13)
    lewis = few * 320.0 * t4**0.3 / sixth
    lewis = lewis + (1.0 - few) * 2.0 / (1.0 + 0.012 / temperature * jnp.sqrt(electrons / temperature))
    difference = line.upper**2 - line.lower**2
    c1 = 78940.0 * field / temperature * shift * difference**2 / (line.upper * line.lower) ** 2 * lewis
    c2 = (field * 1e12 * shift) ** 2 / (59.6 * electrons)
    # Beyond 80 the impacts are gone; larger values would leave float32's range.
    x1, x2 = jnp.minimum(c1 * beta, 80.0), jnp.minimum(c2 * beta**2, 80.0)
    impact = 6.77 * jnp.sqrt(c1)
    impact = impact * (0.5 * jnp.exp(-x1) + exponential_integral(x1) - 0.5 * exponential_integral(x2))
    cut1 = 0.2 + 0.09 * jnp.sqrt(t4) * few
    cut2 = 0.2 / (1.0 + electrons / 1e15)
    impact = impact * (1.0 - cut1 / (1.0 + (90.0 * x1) ** 3) - cut2 / (1.0 + 2000.0 * x1))
    square = (0.9 * x1) ** 2
    quasi_static = (square + 0.03 * jnp.sqrt(x1)) / (square + 1.0)
    return jnp.maximum(impact, 0.0), quasi_static


def hydrogen_opacity(
    grid: Float[np.ndarray, " pixels"],
    temperature: Float[Array, " layers"],
    state: ChemicalState,
    vmic: Float[Array, ""],
) -> Float[Array, "pixels layers"]:
    """Opacity (cm^-1) of the hydrogen lines at air wavelengths `grid` (A, uniform, on the host).

    Wings are smooth: farther than `NEAR` from a centre they are computed every `COARSE` A and interpolated.
    """
    n, layers = len(grid), temperature.shape[0]
    step = grid[1] - grid[0] if n > 1 else COARSE
    cell = max(1, round(COARSE / step))
    n_cells = -(-(n - 1) // cell)
    rise = np.arange(cell, dtype=np.float32)[:, None] / cell

    def refine(values):
        """From the corners of cells to their pixels, without a gather."""
        fine = values[:-1, None] * (1 - rise) + values[1:, None] * rise
        return jnp.concatenate([fine.reshape(-1, layers), values[-1:]])

    found = hydrogen_lines(grid[0], grid[-1])
    if not found:
        return jnp.zeros((n, layers), temperature.dtype)
    # Distances on the host, in float64: at the corners of all cells, and at the pixels of the cells next to
    # the centre. One loop over lines, compiled once.
    columns = np.array(found, float).T
    lines, centre = HydrogenLine(*columns), columns[0]
    near = min(n_cells, 2 * int(np.ceil(NEAR / (step * cell))) + 1)
    first = np.floor((centre - NEAR - grid[0]) / (step * cell)).clip(0, n_cells - near).astype(int)
    corners = grid[0] + step * cell * np.arange(n_cells + 1)
    pixels = grid[0] + step * (first[:, None] * cell + np.arange(near * cell + 1))
    coarse = np.abs(corners - centre[:, None])
    fine = np.abs(pixels - centre[:, None])

    def of_line(row):
        """A line's wings at all corners, at those near its centre, and the line at the pixels there."""
        line, distance, first = row
        opacity = single_line_opacity(line, distance, temperature, state, vmic)
        wings, core = opacity[: n_cells + 1], opacity[n_cells + 1 :]
        return wings, jax.lax.dynamic_slice_in_dim(wings, first, near + 1), core

    distance = np.concatenate([coarse, fine], axis=1)
    rows = jax.tree.map(lambda x: jnp.asarray(x, temperature.dtype), (lines, distance))
    wings, inner, cores = jax.lax.map(of_line, (*rows, jnp.asarray(first, jnp.int32)))
    total = refine(jnp.sum(wings, axis=0))
    for core, corner, start in zip(cores, inner, first * cell, strict=True):
        total = total.at[start : start + len(core)].add(core - refine(corner))
    return total[:n]


def single_line_opacity(
    line: HydrogenLine,
    distance: Float[Array | np.ndarray, " d"],
    temperature: Float[Array, " layers"],
    state: ChemicalState,
    vmic: Float[Array, ""],
) -> Float[Array, "d layers"]:
    """Opacity (cm^-1) of one line at `distance` (A) from its centre."""
    mass = 1.008 * ATOMIC_MASS
    thermal = jnp.sqrt(2 * BOLTZMANN / mass * temperature + (vmic * 1e5) ** 2) / SPEED_OF_LIGHT
    doppler = thermal * line.wavelength
    stark = line.stark * HOLTSMARK_FIELD * jnp.cbrt(state.electrons) ** 2
    distance = jnp.asarray(distance, temperature.dtype)[:, None]
    impact, quasi_static = electron_broadening(
        line, jnp.maximum(distance / stark, 1e-3), temperature, state.electrons
    )
    rows = jnp.clip((jnp.log(stark / doppler) - _LN_Y[0]) / (_LN_Y[1] - _LN_Y[0]), 0, len(_LN_Y) - 1)
    columns = jnp.clip(jnp.arcsinh(distance / doppler) / _U[1], 0, len(_U) - 1)
    table = jnp.asarray(_profile_table(), temperature.dtype)
    at = jnp.broadcast_arrays(rows, columns)
    ions = jnp.exp(jax.scipy.ndimage.map_coordinates(table, at, order=1, mode="nearest"))
    # Where the Doppler effect is the wider one, the impacts only add a wing.
    electrons = impact * stark * doppler / (doppler**2 + (impact * stark) ** 2 + distance**2) / np.pi
    profile = ions * (1.0 + quasi_static) + electrons
    kt = BOLTZMANN_EV * temperature
    energy = 13.598434 * (1 - 1 / line.lower**2)
    ln_population = state.ln_populations[:, 0, 0] + jnp.log(2.0 * line.lower**2) - energy / kt
    stimulated = -jnp.expm1(-12398.42 / line.wavelength / kt)
    # phi_nu = phi_lambda lambda^2 / c, with phi_lambda = profile / doppler.
    ln_factor = jnp.log(
        LINE_CROSS_SECTION * line.oscillator_strength * line.wavelength**2 * 1e-8 / SPEED_OF_LIGHT
    )
    present = occupation_probability(1.0 * line.upper, temperature, state)
    return jnp.exp(ln_population + ln_factor) / doppler * profile * stimulated * present
