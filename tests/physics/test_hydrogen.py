"""Balmer and Paschen lines: where they are, how strong, and how their wings fall."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from scipy import constants

from jaxspec.physics.hydrogen import (
    REACH,
    electron_broadening,
    exponential_integral,
    holtsmark,
    hydrogen_lines,
    hydrogen_opacity,
    ion_profile,
    single_line_opacity,
)
from tests.physics.gas import gas

T = jnp.array([5000.0, 7000.0], jnp.float32)
CLASSICAL = constants.e**2 / (4 * constants.epsilon_0 * constants.m_e * constants.c) * 1e4


def h_alpha_opacity(grid, electrons):
    line = next(x for x in hydrogen_lines(6500.0, 6600.0) if x.upper == 3)
    state = gas(T, neutral=1e16, electrons=electrons)
    distance = np.abs(np.asarray(grid) - line.wavelength)
    return np.asarray(single_line_opacity(line, distance, T, state, jnp.float32(1.0)), float)


def test_lines_on_a_grid_are_the_sum_of_single_lines():
    """Cores pixel by pixel, wings interpolated between coarse points."""
    state, vmic = gas(T, neutral=1e16, electrons=1e14), jnp.float32(1.0)
    grid = 8640.0 + 0.1 * np.arange(801)
    together = np.asarray(hydrogen_opacity(grid, T, state, vmic))
    lines = hydrogen_lines(grid[0], grid[-1])
    alone = sum(single_line_opacity(x, np.abs(grid - x.wavelength), T, state, vmic) for x in lines)
    np.testing.assert_allclose(together, alone, rtol=0.01)


@pytest.mark.parametrize(
    ("lower", "upper", "wavelength", "strength"),
    # Air wavelengths and absorption oscillator strengths of NIST (Wiese & Fuhr 2009).
    [(2, 3, 6562.80, 0.6411), (2, 4, 4861.33, 0.1193), (3, 9, 9229.01, 0.01023), (3, 12, 8750.47, 0.003711),
     (3, 14, 8598.39, 0.002224)],
)  # fmt: skip
def test_lines_are_where_and_as_strong_as_measured(lower, upper, wavelength, strength):
    line = next(x for x in hydrogen_lines(4000.0, 9300.0) if (x.lower, x.upper) == (lower, upper))
    assert line.wavelength == pytest.approx(wavelength, abs=0.02)
    assert line.oscillator_strength == pytest.approx(strength, rel=0.015)


def test_only_lines_whose_wings_reach_are_used():
    assert {(x.lower, x.upper) for x in hydrogen_lines(6500.0, 6600.0)} == {(2, 3)}
    assert all(x.lower == 3 for x in hydrogen_lines(8480.0, 8980.0))
    assert {x.upper for x in hydrogen_lines(8480.0, 8980.0)} >= set(range(10, 20))


def per_angstrom(line, opacity):
    """The profile (A^-1) from an opacity: without cross-section, population and stimulated emission."""
    t = np.asarray(T, float)
    level = 8 * np.exp(-13.598434 * 0.75 * constants.e / (constants.k * t))  # ln(n / U) = 0, g = 8
    stimulated = -np.expm1(-constants.h * constants.c / (line.wavelength * 1e-10 * constants.k * t))
    nu_per_angstrom = constants.c / (line.wavelength * 1e-10) ** 2 * 1e-10
    return opacity / (CLASSICAL * line.oscillator_strength * level * stimulated) * nu_per_angstrom


@pytest.mark.parametrize(("electrons", "low", "high"), [(1e8, 0.99, 1.02), (1e15, 1.0, 2.0)])
def test_area_of_the_profile(electrons, low, high):
    """int alpha_nu dnu is the classical cross-section in thin gas; impacts are added where they are wide."""
    line = next(x for x in hydrogen_lines(6500.0, 6600.0) if x.upper == 3)
    offset = np.sinh(np.linspace(-11.0, 11.0, 8001))
    offset *= 0.99 * REACH / offset[-1]
    profile = per_angstrom(line, h_alpha_opacity(line.wavelength + offset, electrons))
    area = np.trapezoid(profile, offset, axis=0)
    assert np.all((area > low) & (area < high)), area


def test_ions_alone_keep_the_area_and_have_holtsmarks_wing():
    beta, profile = ion_profile()
    assert 2 * np.trapezoid(profile, beta) == pytest.approx(1.0, abs=1e-3)
    assert profile[-1] * beta[-1] ** 2.5 == pytest.approx(0.748, abs=1e-3)
    assert np.all(np.diff(profile) <= 0)
    # Holtsmark (1919): the most probable field is 1.607 F0, the mean 3.38 F0 (Mihalas 1978, table 9-1).
    field = np.geomspace(1e-2, 1e6, 4001)
    density = holtsmark(field)
    assert field[np.argmax(density)] == pytest.approx(1.607, rel=0.01)
    assert np.trapezoid(density * field, field) == pytest.approx(3.38, rel=0.01)


@pytest.mark.parametrize("electrons", [1e13, 1e14])
def test_wings_fall_with_the_five_halves_power(electrons):
    line = next(x for x in hydrogen_lines(6500.0, 6600.0) if x.upper == 3)
    opacity = h_alpha_opacity(line.wavelength + np.array([40.0, 80.0, 160.0]), electrons)
    np.testing.assert_allclose(opacity[:-1] / opacity[1:], 2**2.5, rtol=0.06)


def test_electrons_are_impacts_near_the_line_and_quasi_static_far_from_it():
    line = next(x for x in hydrogen_lines(8480.0, 8980.0) if x.upper == 12)
    beta = jnp.geomspace(1e-2, 1e4, 50)
    impact, quasi_static = electron_broadening(line, beta, jnp.float32(6000.0), jnp.float32(1e14))
    assert np.all(np.diff(quasi_static) >= 0)
    assert impact[0] > 1
    assert quasi_static[0] < 0.01
    assert impact[-1] < 1e-6
    assert quasi_static[-1] == pytest.approx(1.0, abs=1e-3)


def test_impacts_strengthen_the_wings_of_the_ions():
    """Griem (1960): for ions 0.748 (K F0)^1.5 / dlambda^2.5 on either side, with F0 = 1.25e-9 n_e^(2/3)."""
    line = next(x for x in hydrogen_lines(6500.0, 6600.0) if x.upper == 3)
    distance = np.array([150.0])
    stark = 5.5e-5 * (2 * 3) ** 4 / (3**2 - 2**2)
    for electrons in (1e13, 1e14):
        ions = 0.748 * (stark * 1.25e-9 * electrons ** (2 / 3)) ** 1.5 / distance**2.5
        ours = per_angstrom(line, h_alpha_opacity(line.wavelength + distance, electrons)[0])
        assert np.all((ours > 2 * ions) & (ours < 4 * ions))


@pytest.mark.parametrize("x", [1e-3, 0.3, 0.99, 1.01, 5.0, 60.0])
def test_exponential_integral(x):
    assert exponential_integral(jnp.float32(x)) == pytest.approx(scipy.special.exp1(x), rel=2e-3)


def test_high_members_dissolve_in_dense_gas():
    """Paschen 20 (8392 A) is gone at 1e16 electrons and there at 1e12."""
    grid = np.array([8392.4])
    thin, dense = (
        np.asarray(hydrogen_opacity(grid, T, gas(T, neutral=1e16, electrons=e), jnp.float32(1.0))) / e
        for e in (1e12, 1e16)
    )
    assert np.all(dense < 1e-2 * thin)
