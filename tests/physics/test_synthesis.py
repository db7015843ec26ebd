"""Spectra of whole atmospheres against an independent code, and against the theory of weak lines."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.physics.constants import SOLAR_ABUNDANCES
from jaxspec.physics.model import StellarModel
from jaxspec.physics.synthesis import SurfaceFlux, Window, synthesize
from jaxspec.physics.transfer import planck
from tests.physics.test_lines import one_line

SUN = (5777.0, 4.44, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
WEAK = Window(5400.0, 5405.0, 0.01)


@pytest.fixture(scope="module")
def two_lines(atoms, sun):
    """Normalised flux of the Sun with two made-up iron lines, as a function of their log gf."""
    lines = one_line([5401.5, 5403.5], element=26, energy=3.0, reach=0.6)
    atmosphere, state = sun

    @jax.jit
    def flux(log_gf) -> SurfaceFlux:
        chosen = eqx.tree_at(lambda x: x.log_gf, lines, log_gf)
        return synthesize(atoms, chosen, WEAK, atmosphere, state, jnp.float32(1.0))

    return lambda a, b: flux(jnp.array([a, b], jnp.float32))


def equivalent_widths(surface):
    depth = 1 - np.asarray(surface.flux, float) / np.asarray(surface.continuum, float)
    half = len(depth) // 2
    return depth[:half].sum() * WEAK.step, depth[half:].sum() * WEAK.step


def test_without_lines_the_flux_is_the_continuum(two_lines):
    surface = two_lines(-30.0, -30.0)
    np.testing.assert_allclose(
        surface.flux, surface.continuum, rtol=2e-4
    )  # but for H alpha's far wing, and rounding


def test_weak_lines_grow_in_proportion_to_gf(two_lines):
    """The linear part of the curve of growth; float32 leaves about 1e-6 of noise per pixel."""
    weak, three_times = equivalent_widths(two_lines(-5.2, -5.2 + np.log10(3)))
    none = equivalent_widths(two_lines(-30.0, -30.0))
    weak, three_times = weak - none[0], three_times - none[1]
    assert 1e-4 < weak < 1e-3  # 0.1 to 1 mA
    assert three_times / weak == pytest.approx(3.0, rel=0.02)


def test_strong_lines_saturate(two_lines):
    """A thousandfold stronger line: far less than a thousand times the width, and never darker than the
    surface."""
    none = equivalent_widths(two_lines(-30.0, -30.0))
    weak, strong = equivalent_widths(two_lines(-4.5, -1.5))
    assert 10 < (strong - none[1]) / (weak - none[0]) < 200
    surface = two_lines(-4.5, 1.0)
    darkest = np.pi * float(
        planck(jnp.float32(5403.5), jnp.float32(4000.0))
    )  # near T of the outermost layers
    assert 0.3 * darkest < np.min(surface.flux) < 1.5 * darkest


def test_solar_continuum_as_measured(two_lines):
    """The disk-centre intensity 4.02e6 erg/s/cm2/sr/A of Neckel & Labs (1984, Solar Phys. 90, 205) at 5400 A,
    times pi and the ratio of mean to central intensity, 0.80."""
    surface = two_lines(-30.0, -30.0)
    assert float(surface.continuum[250]) == pytest.approx(4.02e6 * 0.80 * np.pi, rel=0.05)


# Windows of many lines: iron peak and Mg wings of HR10's kind; two lines of the Ca II triplet and Paschen
# 14-16.
BLUE, RED = Window(5400.0, 5440.0, 0.02), Window(8480.0, 8560.0, 0.02)


@pytest.fixture(scope="module")
def star_and_slope():
    """Flux and continuum of a star, and their derivative along one direction in (labels, vmic); those of the
    Sun, of which two tests ask, are computed once."""
    model = StellarModel.create((BLUE, RED))

    @jax.jit
    def run(labels, vmic, labels_direction, vmic_direction):
        return jax.jvp(model.surface_flux, (labels, vmic), (labels_direction, vmic_direction))

    @functools.cache
    def call(labels, vmic, direction=(0.0,) * 10):
        return run(
            jnp.asarray(labels, jnp.float32), jnp.float32(vmic),
            jnp.asarray(direction[:9], jnp.float32), jnp.float32(direction[9]),
        )  # fmt: skip

    return call


def cut(values, wavelength, window):
    first = np.argmin(np.abs(wavelength - window.low))
    return values[..., first : first + len(window.wavelength)]


def reference_flux(reference, i):
    return [
        cut(reference[f"flux_{k}"][i], reference[f"wavelength_{k}"], w)
        for k, w in (("blue", BLUE), ("red", RED))
    ]


def choose_stars(labels):
    """The stars nearest to the corners of the range and to the Sun: cool and hot, dwarf and giant, rich and
    poor."""
    corners = [
        (5777, 4.4, 0),
        (4300, 1.2, -0.3),
        (4500, 4.6, 0.3),
        (6500, 4.2, -1.0),
        (5000, 2.5, -2.0),
        (6000, 3.8, 0.3),
    ]
    return [int(np.argmin(np.sum(((labels[:, :3] - c) / (500, 0.6, 0.5)) ** 2, axis=1))) for c in corners]


def test_flux_agrees_with_the_reference_code(reference, star_and_slope):
    """Unbroadened, at 0.02 A: cores, wings and blends of six very different stars."""
    rms, continuum = [], []
    n_blue = len(BLUE.wavelength)
    for i in choose_stars(reference["labels"]):
        surface, _ = star_and_slope(tuple(reference["labels"][i]), float(reference["vmic"][i]))
        flux = np.asarray(surface.flux / surface.continuum)
        theirs = reference_flux(reference, i)
        for ours, other in zip(np.split(flux, [n_blue]), theirs, strict=True):
            rms.append(np.sqrt(np.mean((ours - other) ** 2)))
        for part, name, window in zip(
            np.split(np.asarray(surface.continuum), [n_blue]), ("blue", "red"), (BLUE, RED), strict=True
        ):
            other = np.interp(
                window.wavelength,
                reference[f"continuum_wavelength_{name}"],
                reference[f"continuum_{name}"][i],
            )
            continuum.append(np.abs(part / other - 1).max())
    assert max(rms) <= 0.01, np.round(rms, 4)
    assert np.median(rms) <= 0.005, np.round(rms, 4)
    assert max(continuum) <= 0.03, np.round(continuum, 4)


@pytest.mark.parametrize(
    ("arm", "names"),
    [
        ("blue", ("teff", "logg", "fe_h", "mg_h", "ni_h", "ti_h", "si_h", "vmic")),
        ("red", ("teff", "logg", "fe_h", "mg_h", "ca_h", "ni_h", "ti_h", "si_h", "vmic")),
    ],
)
def test_derivatives_agree_with_the_reference_codes_differences(arm, names, data, star_and_slope):
    """Of the Sun's normalised flux, by each label that shows in the window: the same pattern, and the same
    size (in the red within 20 %: the damping of Si I's high levels is not the reference's)."""
    with np.load(data / "reference" / "derivatives.npz") as file:
        table = dict(file)
    order = [*table["label_names"].astype(str), "vmic"]
    window = BLUE if arm == "blue" else RED
    part = slice(0, len(BLUE.wavelength)) if arm == "blue" else slice(len(BLUE.wavelength), None)
    for name in names:
        rows = np.flatnonzero((table["star"].astype(str) == "sun") & (table["parameter"].astype(str) == name))
        plus, minus = (rows[np.sign(table["sign"][rows]) == s][0] for s in (1, -1))
        difference = table[f"flux_{arm}"][plus].astype(float) - table[f"flux_{arm}"][minus]
        theirs = cut(difference / (2 * float(table["step"][plus])), table[f"wavelength_{arm}"], window)
        surface, slope = star_and_slope(SUN, 1.0, tuple(np.eye(10)[order.index(name)]))
        ours = (slope.flux - surface.flux / surface.continuum * slope.continuum) / surface.continuum
        ours = np.asarray(ours, float)[part]
        assert np.corrcoef(ours, theirs)[0, 1] >= 0.97, name
        assert np.sum(ours * theirs) / np.sum(theirs**2) == pytest.approx(
            1.0, abs=0.1 if arm == "blue" else 0.2
        ), name


LABELS = (5480.0, 3.86, -0.42, -0.3, -0.25, -0.2, -0.4, -0.3, -0.35)  # off the nodes of the atmosphere grid


def test_each_label_moves_the_lines_of_its_element(atoms):
    model = StellarModel.create((Window(5402.0, 5403.0, 0.5),))
    base = model.composition(jnp.asarray(LABELS, jnp.float32))
    for name, z in {"al_h": 13, "mg_h": 12, "ca_h": 20, "ni_h": 28, "ti_h": 22, "si_h": 14}.items():
        labels = jnp.asarray(LABELS, jnp.float32).at[model.label_set.index(name)].add(0.3)
        change = np.asarray(model.composition(labels) - base)
        expected = np.zeros(92)
        expected[z - 1] = 0.3 * np.log(10)
        np.testing.assert_allclose(change, expected, atol=1e-5)
    labels = jnp.asarray(LABELS, jnp.float32).at[2].add(0.3)
    change = np.asarray(model.composition(labels) - base)
    moved = np.ones(92, bool)
    moved[[0, 1, *(z - 1 for z in (13, 12, 20, 28, 22, 14))]] = False
    moved &= SOLAR_ABUNDANCES > -50
    np.testing.assert_allclose(change, np.where(moved, 0.3 * np.log(10), 0.0), atol=1e-5)


def test_labels_may_be_constants_of_a_compiled_function():
    """They have values there, and are held to the grid of atmospheres as everywhere."""
    model = StellarModel.create((Window(5400.0, 5401.0, 0.1),))
    labels, vmic = jnp.array([5777.0, 4.44] + 7 * [0.0]), jnp.float32(1.0)
    flux = jax.jit(lambda vmic: model(labels, vmic))(vmic)
    np.testing.assert_allclose(flux, model(labels, vmic), atol=1e-5)
    outside = labels.at[0].set(9000.0)
    with pytest.raises(InputError, match="Teff 9000"):
        jax.jit(lambda vmic: model(outside, vmic))(vmic)
