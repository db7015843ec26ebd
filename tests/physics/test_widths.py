"""Equivalent widths against the integrated spectrum, the theory of the curve of growth, and the Sun."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.instruments import Arm, Instrument
from jaxspec.io import Assume, read_spectra
from jaxspec.physics.lines import LineList
from jaxspec.physics.synthesis import Window, synthesize
from jaxspec.physics.widths import abundances_from_widths, curves_of_growth, equivalent_widths, lone_lines
from tests.physics.test_lines import one_line

VMIC = jnp.float32(1.0)
ENERGY, LOG_GF = np.array([1.0, 3.0, 4.5]), np.array([-5.0, -3.2, -2.0])  # eV; all weak


@pytest.fixture(scope="module")
def growth(atoms, sun):
    """log10 of the width (mA) by change of log gf (dex) and vmic (km/s), of Fe I lines at 1, 3 and 4.5 eV."""
    lines = one_line([5400.0, 5401.0, 5402.0], element=26, energy=ENERGY, log_gf=LOG_GF)
    change = np.arange(-2.5, 7.01, 0.5)
    run = jax.jit(lambda vmic: curves_of_growth(lines, atoms, *sun, vmic, change))
    return change, lambda vmic: np.log10(np.asarray(run(jnp.float32(vmic)), float))


def slope(change, curve, at):
    return np.interp(at, change[:-1] + 0.25, np.diff(curve) / np.diff(change))


def test_widths_are_those_of_the_synthesised_line(atoms, sun):
    """Other points, other quadrature: the spectrum on a uniform grid, summed over its pixels."""
    lines = one_line([5402.0, 5407.0], element=26, energy=3.0, log_gf=np.array([-3.0, -1.2]), reach=2.0)
    window = Window(5399.5, 5409.5, 0.005)
    alone = jax.jit(lambda vmic: lone_lines(lines, atoms, *sun, vmic))(VMIC)

    @jax.jit
    def flux(log_gf):
        chosen = eqx.tree_at(lambda x: x.log_gf, lines, log_gf)
        surface = synthesize(atoms, chosen, window, *sun, VMIC)
        return surface.flux / surface.continuum

    with_lines, without = (np.asarray(flux(jnp.asarray(x, jnp.float32)), float)
                           for x in (lines.log_gf, [-30.0, -30.0]))  # fmt: skip
    depth = 1 - with_lines / without  # but for H alpha's far wing
    distance = np.abs(window.wavelength - np.repeat(lines.wavelength, 1001)[: len(depth)])
    for i, half in enumerate(np.array_split(np.arange(len(depth)), 2)):
        edge = depth[half][np.argmin(np.abs(distance[half] - 1.99))]
        beyond = 2 * edge * 1.99  # int d^-2, on both sides
        expected = 1e3 * (depth[half][distance[half] < 1.99].sum() * 0.005 + beyond)
        assert alone.equivalent_width[i] == pytest.approx(expected, rel=0.004)
        assert alone.depth[i] == pytest.approx(depth[half].max(), abs=2e-3)


def test_weak_lines_grow_linearly_and_damped_ones_as_the_square_root(growth):
    """The three regimes: slope 1, a shoulder of little growth, slope 1/2."""
    change, curves = growth
    for curve in curves(1.0):
        weak = change[np.argmin(np.abs(curve - 0.0))]  # where W is 1 mA
        assert slope(change, curve, weak) == pytest.approx(1.0, abs=0.03)
        assert np.all(np.diff(curve) > 0)
    # At high excitation lines form deep, where damping takes over before there is a shoulder.
    assert np.min(np.diff(curves(1.0)[0])) / 0.5 < 0.37
    assert slope(change, curves(1.0)[0], 6.5) == pytest.approx(0.5, abs=0.03)


def test_turbulence_strengthens_saturated_lines_alone(growth):
    _, curves = growth
    slow, fast = curves(0.5)[1], curves(2.0)[1]
    weak, saturated = (np.argmin(np.abs(slow - x)) for x in (0.0, 2.0))
    assert fast[weak] == pytest.approx(slow[weak], abs=0.01)
    assert fast[saturated] - slow[saturated] > 0.08
    assert fast[-1] == pytest.approx(slow[-1], abs=0.02)  # damped again


def test_excitation_follows_boltzmann(growth):
    """Weak lines: log10 W falls by 5040/T per eV, with T of the layers where iron's lines form."""
    change, curves = growth
    per_gf = curves(1.0)[:, change == -1.5][:, 0] - LOG_GF
    theta = (per_gf[1] - per_gf[2]) / (ENERGY[2] - ENERGY[1])
    assert 5040 / 6000 < theta < 5040 / 4400


def test_abundances_come_back(atoms, sun):
    lines = one_line([5400.0, 5402.0, 5404.0], element=26, energy=3.0, log_gf=np.array([-4.0, -3.0, -1.5]))
    true = np.array([0.23, -0.41, 0.1])
    moved = eqx.tree_at(lambda x: x.log_gf, lines, lines.log_gf + true.astype(np.float32))
    widths = np.asarray(jax.jit(lambda vmic: equivalent_widths(moved, atoms, *sun, vmic))(VMIC), float)
    found = abundances_from_widths(lines, widths, atoms, *sun, VMIC, np.full(3, 1.0))
    np.testing.assert_allclose(found.change, true, atol=2e-3)
    # A weak line's abundance is as uncertain as its width.
    assert found.error[0] == pytest.approx(1 / widths[0] / np.log(10) / found.slope[0])
    assert found.slope[0] > 0.8 > 0.5 > found.slope[2]


def test_widths_that_are_none_are_refused(atoms, sun):
    with pytest.raises(InputError, match="1 positive ones"):
        abundances_from_widths(one_line([5400.0], element=26), np.array([-3.0]), atoms, *sun, VMIC)


# Iron lines of the Sun without a neighbour: Fe I at 3.7 to 4.4 eV, Fe II.
CLEAN = ((5379.574, 26, 0), (5386.333, 26, 0), (5560.212, 26, 0), (5425.249, 26, 1))


def test_iron_lines_of_the_observed_sun(data, atoms, sun):
    """Summed over 0.5 A of the solar atlas (Blanco-Cuaresma et al. 2014): within 12 %, 0.05 dex, which is
    what the published oscillator strengths claim."""
    arm = Arm("sun", 5370.0, 5570.0, 0.02, 47_000.0)
    path = next(iter(sorted((data / "spectra" / "uves").glob("sun_atlas*"))))
    spectra, _ = read_spectra(
        str(path), Instrument("uves_sun", (arm,)), assume=Assume(medium="air", frame="rest")
    )
    flux, wavelength = np.asarray(spectra.flux[0], float), arm.wavelength
    every = LineList.load(5370.0, 5570.0)
    place = [
        np.flatnonzero((abs(every.wavelength - w) < 0.02) & (every.element == z - 1) & (every.stage == stage))
        for w, z, stage in CLEAN
    ]
    lines = every[np.concatenate(place)]
    widths = jax.jit(lambda vmic: equivalent_widths(lines, atoms, *sun, vmic))(VMIC)
    for centre, ours in zip(lines.wavelength, widths, strict=True):
        inside, around = (abs(wavelength - centre) < x for x in (0.25, 1.5))
        continuum = np.quantile(flux[around], 0.95)
        observed = np.sum(1 - flux[inside] / continuum) * 0.02 * 1e3
        assert float(ours) == pytest.approx(observed, rel=0.12), centre
