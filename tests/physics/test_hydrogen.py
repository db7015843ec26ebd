"""Balmer and Paschen lines: where they are, how strong, and how their wings fall."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import constants

from jaxspec.physics.hydrogen import REACH, hydrogen_lines, hydrogen_opacity
from tests.physics.gas import gas

T = jnp.array([5000.0, 7000.0], jnp.float32)
CLASSICAL = constants.e**2 / (4 * constants.epsilon_0 * constants.m_e * constants.c) * 1e4


def h_alpha_opacity(grid, electrons):
    state = gas(T, neutral=1e16, electrons=electrons)
    return np.asarray(hydrogen_opacity(np.asarray(grid), T, state, jnp.float32(1.0)), float)


@pytest.mark.parametrize(
    ("lower", "upper", "wavelength", "strength"),
    # Air wavelengths and absorption oscillator strengths of NIST (Wiese & Fuhr 2009).
    [(2, 3, 6562.80, 0.6411), (2, 4, 4861.33, 0.1193), (3, 9, 9229.01, 0.01023), (3, 12, 8750.47, 0.003711),
     (3, 14, 8598.39, 0.002224)],
)  # fmt: skip
def test_lines_are_where_and_as_strong_as_measured(lower, upper, wavelength, strength):
    line = next(x for x in hydrogen_lines(4000.0, 9300.0) if (x.lower, x.upper) == (lower, upper))
    assert line.wavelength == pytest.approx(wavelength, abs=0.1)
    assert line.oscillator_strength == pytest.approx(strength, rel=0.015)


def test_only_lines_whose_wings_reach_are_used():
    assert {(x.lower, x.upper) for x in hydrogen_lines(6500.0, 6600.0)} == {(2, 3)}
    assert all(x.lower == 3 for x in hydrogen_lines(8480.0, 8980.0))
    assert {x.upper for x in hydrogen_lines(8480.0, 8980.0)} >= set(range(10, 20))


@pytest.mark.parametrize("electrons", [1e10, 1e13, 1e15])
def test_profile_is_normalised(electrons):
    """int alpha_nu dnu is the classical cross-section, whatever the broadening (0.6 % of it lies beyond at
    most)."""
    line = next(x for x in hydrogen_lines(6500.0, 6600.0) if x.upper == 3)
    offset = np.sinh(np.linspace(-11.0, 11.0, 8001))
    offset *= 0.99 * REACH / offset[-1]
    opacity = h_alpha_opacity(line.wavelength + offset, electrons)
    nu_per_angstrom = constants.c / (line.wavelength * 1e-10) ** 2 * 1e-10
    ours = np.trapezoid(opacity, offset, axis=0) * nu_per_angstrom
    t = np.asarray(T, float)
    level = 1e0 * 8 * np.exp(-13.598434 * 0.75 * constants.e / (constants.k * t))  # ln(n / U) = 0, g = 8
    stimulated = -np.expm1(-constants.h * constants.c / (line.wavelength * 1e-10 * constants.k * t))
    expected = CLASSICAL * line.oscillator_strength * level * stimulated
    np.testing.assert_allclose(ours, expected, rtol=0.02)


@pytest.mark.parametrize("electrons", [1e13, 1e14])
def test_wings_fall_with_the_five_halves_power(electrons):
    line = next(x for x in hydrogen_lines(6500.0, 6600.0) if x.upper == 3)
    distance = np.array([20.0, 40.0, 80.0])
    opacity = h_alpha_opacity(line.wavelength + distance, electrons)
    np.testing.assert_allclose(opacity[:-1] / opacity[1:], 2**2.5, rtol=0.03)


def test_wings_are_holtsmarks_twice_over():
    """Griem (1960): 0.748 K^1.5 F0^1.5 / dlambda^2.5 on either side for the ions, as much again by electrons;
    so wings are proportional to the electron density, F0 = 1.25e-9 n_e^(2/3)."""
    line = next(x for x in hydrogen_lines(6500.0, 6600.0) if x.upper == 3)
    electrons, distance = 1e14, 30.0
    opacity = h_alpha_opacity(line.wavelength + np.array([distance]), electrons)[0]
    stark = 5.5e-5 * (2 * 3) ** 4 / (3**2 - 2**2)
    per_angstrom = 1.496 * (stark * 1.25e-9 * electrons ** (2 / 3)) ** 1.5 / distance**2.5
    t = np.asarray(T, float)
    level = 8 * np.exp(-13.598434 * 0.75 * constants.e / (constants.k * t))
    stimulated = -np.expm1(-constants.h * constants.c / (line.wavelength * 1e-10 * constants.k * t))
    per_hertz = per_angstrom / (constants.c / (line.wavelength * 1e-10) ** 2 * 1e-10)
    np.testing.assert_allclose(
        opacity, CLASSICAL * line.oscillator_strength * per_hertz * level * stimulated, rtol=0.03
    )
    np.testing.assert_allclose(
        opacity * 10, h_alpha_opacity(line.wavelength + np.array([distance]), 1e15)[0], rtol=0.05
    )


def test_high_members_dissolve_in_dense_gas():
    """Paschen 20 (8392 A) is gone at 1e16 electrons and there at 1e12."""
    grid = np.array([8392.4])
    thin, dense = (
        np.asarray(hydrogen_opacity(grid, T, gas(T, neutral=1e16, electrons=e), jnp.float32(1.0))) / e
        for e in (1e12, 1e16)
    )
    assert np.all(dense < 1e-2 * thin)
