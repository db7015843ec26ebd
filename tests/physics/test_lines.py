"""The line list, its damping, and line opacity on a grid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import constants
from scipy.special import gamma

from jaxspec.physics.constants import ATOMIC_WEIGHTS
from jaxspec.physics.lines import (
    LineList,
    LineStrengths,
    group_lines,
    line_opacity,
    line_strengths,
    van_der_waals_width,
)
from jaxspec.physics.voigt import voigt
from tests.physics.gas import gas


def one_line(wavelength, *, element, stage=0, energy=0.0, log_gf=0.0, damping=2.5, gamma_rad=1e8, reach=0.5):
    """A list of one line per wavelength; `element` is the atomic number."""
    n = np.size(wavelength)

    def full(value, dtype=np.float32):
        return np.broadcast_to(np.asarray(value, dtype), (n,)).copy()

    return LineList(
        wavelength=full(wavelength, np.float64),
        element=full(element, np.int16) - 1,
        stage=full(stage, np.int16),
        energy=full(energy),
        log_gf=full(log_gf),
        damping=full(damping),
        gamma_rad=full(gamma_rad),
        reach=full(reach),
    )


HOT = jnp.array([10_000.0], jnp.float32)


@pytest.mark.parametrize(
    ("wavelength", "element", "stage", "damping", "published"),
    # log10 of the full width per H atom at 10,000 K (Barklem, Piskunov & O'Mara 2000): Na D, Ca II 8542.
    [(5889.951, 11, 0, 407.237, -7.526), (8542.091, 20, 1, 291.275, -7.68)],
)
def test_abo_widths_as_published(wavelength, element, stage, damping, published, atoms):
    line = one_line(wavelength, element=element, stage=stage, damping=damping)
    width = van_der_waals_width(line, atoms, HOT, gas(HOT, neutral=1.0))
    assert np.log10(width[0, 0]) == pytest.approx(published, abs=0.012)


def test_abo_width_by_hand(atoms):
    """w = 2 (4/pi)^(alpha/2) Gamma(2 - alpha/2) v0 sigma (v/v0)^(1 - alpha), Anstee & O'Mara (1995), eqs.
    1-3."""
    t = np.array([4000.0, 6500.0])
    line = one_line(5889.951, element=11, damping=407.237)
    reduced = constants.atomic_mass * 1e3 / (1 / 1.008 + 1 / ATOMIC_WEIGHTS[10])
    speed = np.sqrt(8 * constants.k * 1e7 * t / (np.pi * reduced))
    sigma = 407 * (constants.physical_constants["Bohr radius"][0] * 1e2) ** 2
    by_hand = 2 * (4 / np.pi) ** 0.1185 * gamma(2 - 0.1185) * 1e6 * sigma * (speed / 1e6) ** (1 - 0.237)
    t = jnp.asarray(t, jnp.float32)
    width = van_der_waals_width(line, atoms, t, gas(t, neutral=1e16))
    np.testing.assert_allclose(width[0], 1e16 * by_hand, rtol=2e-4)


def test_tabulated_width_scales_as_t_to_the_third_power_of_ten(atoms):
    line = one_line(6000.0, element=26, damping=-7.5)
    t = jnp.array([10_000.0, 5000.0], jnp.float32)
    width = van_der_waals_width(line, atoms, t, gas(t, neutral=1e15))
    np.testing.assert_allclose(width[0], 1e15 * 10**-7.5 * np.array([1.0, 0.5**0.3]), rtol=1e-5)


def test_unsoeld_width_by_hand(atoms):
    """gamma = 17 v^0.6 C6^0.4, C6 = 0.3e-30 (1/I_u^2 - 1/I_l^2): Gray (2005), chapter 11."""
    energy, wavelength, factor = 3.0, 6000.0, 2.5
    line = one_line(wavelength, element=26, energy=energy, damping=factor)
    upper = 7.902 - energy - 12398.42 / wavelength
    c6 = 0.3e-30 * (1 / upper**2 - 1 / (7.902 - energy) ** 2)
    t, density = 5000.0, 1e17
    reduced = constants.atomic_mass * 1e3 / (1 / 1.008 + 1 / 55.845)
    speed = np.sqrt(8 * constants.k * 1e7 * t / (np.pi * reduced))
    layer = jnp.array([t], jnp.float32)
    width = van_der_waals_width(line, atoms, layer, gas(layer, neutral=density))
    assert width[0, 0] == pytest.approx(factor * density * 17 * speed**0.6 * c6**0.4, rel=2e-3)


@pytest.mark.parametrize(
    ("wavelength", "element", "energy", "cross_section"),
    # Na D, Mg I 5183, Ca I 6162: Unsoeld's widths are well known to be too small by a factor of 1.5 to 3.
    [(5889.951, 11, 0.0, 407.237), (5183.604, 12, 2.717, 729.238), (6162.173, 20, 1.899, 878.236)],
)
def test_unsoeld_is_less_than_abo(wavelength, element, energy, cross_section, atoms):
    state = gas(HOT, neutral=1.0)
    by_abo = one_line(wavelength, element=element, damping=cross_section)
    by_unsoeld = one_line(wavelength, element=element, energy=energy, damping=1.0)
    abo, unsoeld = (float(van_der_waals_width(x, atoms, HOT, state)[0, 0]) for x in (by_abo, by_unsoeld))
    assert 1.5 < abo / unsoeld < 3.0


def test_opacity_integrates_to_the_classical_cross_section(atoms):
    """int alpha_nu dnu = (pi e^2 / m c) gf (n/U) exp(-E/kT) (1 - exp(-h nu/kT))."""
    t = jnp.array([4500.0, 8000.0], jnp.float32)
    state = gas(t, neutral=1e14)
    state = state._replace(ln_populations=jnp.full((2, 92, 3), 20.0, jnp.float32))
    line = one_line(5500.0, element=26, energy=2.5, log_gf=-1.2, gamma_rad=1e8)
    strengths = line_strengths(line, atoms, t, state, jnp.float32(1.3))
    v = np.sinh(np.linspace(-10, 10, 4001))
    profile = np.asarray(voigt(strengths.damping[0][:, None], jnp.asarray(v, jnp.float32)[None]), float)
    width_hz = np.asarray(strengths.doppler[0], float) * constants.c / 5500e-10
    ours = np.asarray(strengths.opacity[0], float) * np.trapezoid(profile, v, axis=1) * width_hz
    classical = constants.e**2 / (4 * constants.epsilon_0 * constants.m_e * constants.c) * 1e4
    t = np.asarray(t, float)
    boltzmann = np.exp(-2.5 * constants.e / (constants.k * t))
    stimulated = -np.expm1(-constants.h * constants.c / (5500e-10 * constants.k * t))
    np.testing.assert_allclose(ours, classical * 10**-1.2 * np.exp(20.0) * boltzmann * stimulated, rtol=1e-3)


def test_doppler_width_is_thermal_and_turbulent(atoms):
    t = jnp.array([6000.0], jnp.float32)
    line = one_line(5500.0, element=26)
    strengths = line_strengths(line, atoms, t, gas(t, neutral=1e10), jnp.float32(2.0))
    thermal = 2 * constants.k * 6000.0 / (55.845 * constants.atomic_mass)
    assert strengths.doppler[0, 0] == pytest.approx(np.sqrt(thermal + 2000.0**2) / constants.c, rel=1e-5)
    # Almost without collisions a = gamma_rad / (4 pi Delta nu_D).
    frequency = constants.c / 5500e-10
    expected = 1e8 / (4 * np.pi * float(strengths.doppler[0, 0]) * frequency)
    assert strengths.damping[0, 0] == pytest.approx(expected, rel=1e-2)


START, STEP, N_PIXELS = 5400.0, 0.02, 1501


def made_up_strengths(n, layers=3):
    opacity = 10.0 ** np.random.default_rng(1).uniform(-9, -6, (n, layers))
    return LineStrengths(
        jnp.asarray(opacity, jnp.float32),
        jnp.full((n, layers), 6e-6, jnp.float32),
        jnp.full((n, layers), 0.05, jnp.float32),
    )


def opacity_of(lines, strengths):
    return np.asarray(line_opacity(strengths, group_lines(lines, START, STEP, N_PIXELS), N_PIXELS))


def test_groups_hold_every_line_once_and_cover_its_reach(rng):
    wavelength = np.sort(rng.uniform(5397, 5433, 300))
    reach = 10 ** rng.uniform(-1, 1.5, 300)
    lines = one_line(wavelength, element=26, reach=reach)
    groups = group_lines(lines, START, STEP, N_PIXELS)
    assert sorted(np.concatenate([g.line for g in groups])) == list(range(300))
    for group in groups:
        assert np.all(group.start >= 0) and np.all(group.start + group.width <= N_PIXELS)
        low = START + STEP * group.start
        high = START + STEP * (group.start + group.width - 1)
        centre = lines.wavelength[group.line]
        np.testing.assert_allclose(low + STEP * group.centre, centre, atol=1e-4)
        # To the grid's edges at most, and to a pixel's rounding.
        assert np.all(low <= np.maximum(centre - lines.reach[group.line], START) + 2 * STEP)
        assert np.all(
            high >= np.minimum(centre + lines.reach[group.line], START + STEP * (N_PIXELS - 1)) - 2 * STEP
        )


def test_opacity_is_the_voigt_function_about_the_line():
    lines = one_line([5407.013], element=26, reach=2.0)
    strengths = made_up_strengths(1)
    ours = opacity_of(lines, strengths)
    grid = START + STEP * np.arange(N_PIXELS)
    near = np.abs(grid - 5407.013) < 2.0
    v = (grid[near] / 5407.013 - 1) / 6e-6
    expected = (
        np.asarray(strengths.opacity)
        * np.asarray(voigt(jnp.float32(0.05), jnp.asarray(v, jnp.float32)))[:, None]
    )
    np.testing.assert_allclose(ours[near], expected, rtol=2e-3)


def test_opacity_does_not_depend_on_the_group():
    """A longer reach adds wings and leaves the core."""
    strengths = made_up_strengths(1)
    short, long = (opacity_of(one_line([5415.5], element=26, reach=r), strengths) for r in (0.3, 9.0))
    core = np.flatnonzero(np.abs(START + STEP * np.arange(N_PIXELS) - 5415.5) < 0.29)
    np.testing.assert_allclose(short[core], long[core], rtol=1e-6)
    assert np.count_nonzero(long[:, 0]) > 10 * np.count_nonzero(short[:, 0])


def test_lines_add_up(rng):
    wavelength = np.sort(rng.uniform(5399, 5431, 25))
    reach = rng.choice([0.25, 0.8, 3.0], 25)
    strengths = made_up_strengths(25)
    together = opacity_of(one_line(wavelength, element=26, reach=reach), strengths)
    apart = sum(
        opacity_of(
            one_line(wavelength[i : i + 1], element=26, reach=reach[i]),
            LineStrengths(*(x[i : i + 1] for x in strengths)),
        ).astype(float)
        for i in range(25)
    )
    np.testing.assert_allclose(together, apart, rtol=1e-4, atol=1e-14)


def test_shipped_list_covers_the_giraffe_windows_with_known_lines():
    """Wavelengths, levels and strengths of lines that every spectroscopist knows (NIST)."""
    lines = LineList.load()
    assert np.all(np.diff(lines.wavelength) >= 0)
    for wavelength, z, stage, energy, log_gf in (
        (8498.023, 20, 1, 1.692, -1.42),
        (8542.091, 20, 1, 1.700, -0.46),
        (8662.141, 20, 1, 1.692, -0.72),
        (8806.756, 12, 0, 4.346, -0.13),
        (5528.405, 12, 0, 4.346, -0.50),
        (5371.489, 26, 0, 0.958, -1.645),
    ):
        near = (
            (np.abs(lines.wavelength - wavelength) < 0.02) & (lines.element == z - 1) & (lines.stage == stage)
        )
        strong = np.flatnonzero(near)[np.argmax(np.asarray(lines.log_gf)[near])]
        assert lines.energy[strong] == pytest.approx(energy, abs=0.01)
        assert np.asarray(lines.log_gf)[strong] == pytest.approx(log_gf, abs=0.2)
    part = LineList.load(8490.0, 8700.0)
    assert part.wavelength[0] >= 8490.0 and part.wavelength[-1] <= 8700.0
    triplet = (part.element == 19) & (part.stage == 1) & (np.asarray(part.log_gf) > -2)
    assert part.reach[triplet].min() > 20.0  # the wings of the Ca II triplet, to their full extent
    assert jax.tree.leaves(part[:10])[0].shape == (10,)
