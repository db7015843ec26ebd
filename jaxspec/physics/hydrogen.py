"""Hydrogen lines with linear Stark broadening: the Balmer and Paschen series.

The profile is quasi-static for ions and electrons alike, right in the wings (Griem 1960, ApJ 132, 883): there
it falls as K^1.5 F0^1.5 / dlambda^2.5. A smooth core joins both wings with unit area, and is convolved with
the Doppler profile.
"""

from functools import cache
from math import gamma
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

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
# Asymptotic bound-bound Gaunt factors g = a - b / n^2, fitted to the exact strengths (Wiese & Fuhr 2009).
GAUNT = {2: (0.9052, 1.337), 3: (0.9088, 1.44)}
HIGHEST_LEVEL = 28
HOLTSMARK_FIELD = 1.25e-9  # F0 = 1.25e-9 n_e^(2/3), esu
WING = 2 * 0.748  # of the reduced profile: Holtsmark wing of the ions, doubled by the electrons
REACH = 200.0  # A

_LN_Y = np.linspace(-7.0, 9.0, 65)
_U = np.linspace(0.0, 11.0, 133)  # asinh of the distance in Doppler widths


class HydrogenLine(NamedTuple):
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
            wavelength = float(vacuum_to_air(np.array([1 / (RYDBERG_H * terms)]))[0])
            if low - REACH < wavelength < high + REACH:
                kramers = 32 / (3 * np.pi * np.sqrt(3)) * terms**-3 / (upper**3 * lower**5)
                stark = 5.5e-5 * (lower * upper) ** 4 / (upper**2 - lower**2)
                strength = float(kramers * (gaunt - slope / upper**2))
                found.append(HydrogenLine(wavelength, lower, upper, strength, stark))
    return found


@cache
def _profile_table() -> np.ndarray:
    """ln of the Stark profile convolved with a Doppler profile, per Doppler width, on (ln y, asinh x).

    x is the distance and y the Stark width K F0, both in Doppler widths.
    """
    # a / (1 + b s^2)^1.25 with unit area, a b^-0.5 AREA = 1, and the right wing, a b^-1.25 = WING.
    area = np.sqrt(np.pi) * gamma(0.75) / gamma(1.25)
    b = (area * WING) ** (-4 / 3)
    a = np.sqrt(b) / area
    nodes, weights = np.polynomial.hermite.hermgauss(60)
    x = np.sinh(_U)
    table = np.empty((len(_LN_Y), len(_U)))
    for i, y in enumerate(np.exp(_LN_Y)):
        if y > 0.5:  # the Stark profile is the smoother one
            s = (x[:, None] - nodes) / y
            table[i] = (a / (1 + b * s**2) ** 1.25 / y) @ weights / np.sqrt(np.pi)
        else:  # the Doppler profile is: integrate over the Stark profile's own distribution
            t = np.sinh(np.linspace(-12, 12, 4001)) * 1e-4
            s = t / y
            density = a / (1 + b * s**2) ** 1.25 / y
            kernel = np.exp(-((x[:, None] - t) ** 2)) / np.sqrt(np.pi)
            table[i] = np.trapezoid(kernel * density, t, axis=1)
            far = x > 6
            table[i, far] = a / (1 + b * (x[far] / y) ** 2) ** 1.25 / y
    return np.log(table)


def hydrogen_opacity(
    grid: Float[np.ndarray, " pixels"],
    temperature: Float[Array, " layers"],
    state: ChemicalState,
    vmic: Float[Array, ""],
) -> Float[Array, "pixels layers"]:
    """Opacity (cm^-1) of the hydrogen lines at air wavelengths `grid` (A, on the host)."""
    lines = hydrogen_lines(grid[0], grid[-1])
    total = jnp.zeros((len(grid), temperature.shape[0]), temperature.dtype)
    table = jnp.asarray(_profile_table(), temperature.dtype)
    thermal = (
        jnp.sqrt(2 * BOLTZMANN / (1.008 * ATOMIC_MASS) * temperature + (vmic * 1e5) ** 2) / SPEED_OF_LIGHT
    )
    field = HOLTSMARK_FIELD * jnp.cbrt(state.electrons) ** 2
    kt = BOLTZMANN_EV * temperature
    for line in lines:
        energy = 13.598434 * (1 - 1 / line.lower**2)
        doppler = thermal * line.wavelength
        ln_y = jnp.log(line.stark * field / doppler)
        distance = jnp.asarray(np.abs(grid - line.wavelength).astype(np.float32))
        u = jnp.arcsinh(distance[:, None] / doppler)
        rows = jnp.clip((ln_y - _LN_Y[0]) / (_LN_Y[1] - _LN_Y[0]), 0, len(_LN_Y) - 1)
        columns = jnp.clip(u / _U[1], 0, len(_U) - 1)
        ln_profile = jax.scipy.ndimage.map_coordinates(
            table, [jnp.broadcast_to(rows, columns.shape), columns], order=1, mode="nearest"
        )
        ln_population = state.ln_populations[:, 0, 0] + np.log(2.0 * line.lower**2) - energy / kt
        stimulated = -jnp.expm1(-12398.42 / line.wavelength / kt)
        # phi_nu = phi_lambda lambda^2 / c, with phi_lambda = profile / doppler.
        ln_factor = np.log(
            LINE_CROSS_SECTION * line.oscillator_strength * line.wavelength**2 * 1e-8 / SPEED_OF_LIGHT
        )
        present = occupation_probability(float(line.upper), temperature, state.electrons)
        total = (
            total + jnp.exp(ln_population + ln_factor - jnp.log(doppler) + ln_profile) * stimulated * present
        )
    return total
