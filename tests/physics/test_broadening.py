"""Broadening in velocity against kernels integrated by brute force."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from jaxspec.instruments import FWHM_PER_SIGMA, SPEED_OF_LIGHT
from jaxspec.physics import broadening
from jaxspec.physics.broadening import Resampler, VelocityGrid, convolve

GRID = VelocityGrid(start=5400.0, step=0.5, n=2048)
VELOCITY = (np.arange(GRID.n) - 1024) * GRID.step  # km/s from the middle
FREQUENCY = GRID.frequency
NONE = jnp.ones(FREQUENCY.shape, jnp.float32)


def gaussian_line(sigma, depth=0.4, at=0.0):
    return 1.0 - depth * np.exp(-0.5 * ((VELOCITY - at) / sigma) ** 2)


def on_grid(x):
    return jnp.asarray(x, jnp.float32)


def test_bessel_function():
    x = np.linspace(0.0, 200.0, 5001)
    np.testing.assert_allclose(broadening.bessel_j1(on_grid(x)), special.j1(x), atol=2e-6)
    x = np.linspace(0.0, 10.0, 1001)
    np.testing.assert_allclose(broadening.bessel_j1(on_grid(x)), special.j1(x), atol=3e-7)


@pytest.mark.parametrize("vsini", [2.0, 15.0, 80.0])
@pytest.mark.parametrize("limb_darkening", [0.0, 0.6, 1.0])
def test_rotation_is_the_disks_kernel(vsini, limb_darkening):
    """Against Gray's profile, eq. 18.14, integrated over x = sin(angle), which takes away its infinite slope
    at the limb."""
    angle = np.linspace(-np.pi / 2, np.pi / 2, 20001)
    x, jacobian = np.sin(angle), np.cos(angle)
    kernel = 2 * (1 - limb_darkening) * np.cos(angle) + 0.5 * np.pi * limb_darkening * np.cos(angle) ** 2
    kernel = kernel / (np.pi * (1 - limb_darkening / 3))
    k = FREQUENCY[:: len(FREQUENCY) // 60].astype(float)
    expected = np.trapezoid(kernel * jacobian * np.cos(k[:, None] * vsini * x), angle, axis=1)
    ours = broadening.rotation_transform(on_grid(k), jnp.float32(vsini), limb_darkening)
    np.testing.assert_allclose(ours, expected, atol=3e-6)


@pytest.mark.parametrize("vmac", [1.0, 4.0, 12.0])
def test_macroturbulence_is_the_integral_over_the_disk(vmac):
    """At each point of the disk half the gas moves along the radius and half along the surface, each as a
    Gaussian of speed `vmac`, seen at cosine mu: integrate the lines' transforms over the disk, 2 mu dmu."""
    mu = np.linspace(0.0, 1.0, 20001)
    k = FREQUENCY[:: len(FREQUENCY) // 60].astype(float)[:, None]
    radial = np.exp(-((0.5 * k * vmac * mu) ** 2))
    tangential = np.exp(-((0.5 * k * vmac) ** 2) * (1 - mu**2))
    expected = np.trapezoid(0.5 * (radial + tangential) * 2 * mu, mu, axis=1)
    ours = broadening.macroturbulence_transform(on_grid(k[:, 0]), jnp.float32(vmac))
    np.testing.assert_allclose(ours, expected, atol=2e-6)


@pytest.mark.parametrize("transform", ["rotation", "macroturbulence"])
def test_no_motion_leaves_the_spectrum_and_has_no_gradient_trap(transform):
    function = getattr(broadening, f"{transform}_transform")
    np.testing.assert_allclose(function(on_grid(FREQUENCY), jnp.float32(0.0)), 1.0, atol=1e-7)


def test_gaussian_on_gaussian_adds_variances():
    flux = convolve(
        on_grid(gaussian_line(4.0)),
        broadening.gaussian_transform(on_grid(FREQUENCY), jnp.float32(9.0)),
        jnp.float32(0.0),
        GRID,
    )
    np.testing.assert_allclose(flux, gaussian_line(5.0, depth=0.4 * 4 / 5), atol=1e-6)


@pytest.mark.parametrize("shift", [0.123, -7.3, 60.0])
def test_shift_is_exact_to_the_red(shift):
    flux = convolve(on_grid(gaussian_line(3.0)), NONE, jnp.float32(shift), GRID)
    np.testing.assert_allclose(flux, gaussian_line(3.0, at=shift), atol=2e-6)


def test_pixel_is_the_mean_over_its_width():
    width, sigma = 3.0, 2.5
    flux = convolve(
        on_grid(gaussian_line(sigma)),
        broadening.pixel_transform(on_grid(FREQUENCY), width),
        jnp.float32(0.0),
        GRID,
    )
    edges = [(VELOCITY + side * width / 2) / sigma / np.sqrt(2) for side in (-1, 1)]
    mean = 0.4 * sigma * np.sqrt(np.pi / 2) * (special.erf(edges[1]) - special.erf(edges[0])) / width
    np.testing.assert_allclose(flux, 1 - mean, atol=1e-6)


def test_equivalent_width_is_conserved():
    k = on_grid(FREQUENCY)
    everything = (
        broadening.gaussian_transform(k, jnp.float32(36.0))
        * broadening.rotation_transform(k, jnp.float32(12.0))
        * broadening.macroturbulence_transform(k, jnp.float32(4.0))
        * broadening.pixel_transform(k, 2.7)
    )
    flux = np.asarray(convolve(on_grid(gaussian_line(3.0)), everything, jnp.float32(5.5), GRID), float)
    width = np.sum(1 - flux) * GRID.step
    assert width == pytest.approx(0.4 * 3.0 * np.sqrt(2 * np.pi), rel=1e-4)
    assert np.min(1 - flux) > -1e-5  # no ringing


def test_resolving_power_is_wavelength_over_full_width_at_half_maximum():
    resolving_power = 20_000.0
    line = np.zeros(GRID.n)
    line[1024] = 1.0
    variance = broadening.lsf_variance(jnp.float32(resolving_power))
    seen = convolve(
        on_grid(1.0 - line),
        broadening.gaussian_transform(on_grid(FREQUENCY), variance),
        jnp.float32(0.0),
        GRID,
    )
    depth = 1 - np.asarray(seen, float)
    above = np.flatnonzero(depth > 0.5 * depth.max())
    left = np.interp(
        0.5 * depth.max(), depth[above[0] - 1 : above[0] + 1], VELOCITY[above[0] - 1 : above[0] + 1]
    )
    right = np.interp(
        -0.5 * depth.max(), -depth[above[-1] : above[-1] + 2], VELOCITY[above[-1] : above[-1] + 2]
    )
    assert right - left == pytest.approx(SPEED_OF_LIGHT / resolving_power, rel=2e-3)
    assert FWHM_PER_SIGMA == pytest.approx(2 * np.sqrt(2 * np.log(2)))


def test_grid_positions_undo_its_wavelengths():
    np.testing.assert_allclose(GRID.position(GRID.wavelength), np.arange(GRID.n), atol=1e-6)
    ratio = GRID.wavelength[1:] / GRID.wavelength[:-1]
    np.testing.assert_allclose(np.log(ratio) * SPEED_OF_LIGHT, GRID.step, rtol=1e-9)


@pytest.mark.parametrize("block", [7, 64])
def test_resampling_is_exact_for_cubics_and_close_for_lines(block, rng):
    """Lagrange's polynomial through four points: no error for a cubic, a few 1e-4 for a line that the grid
    resolves."""
    position = np.sort(rng.uniform(0, 99, 400))
    resample = Resampler.create(position, 100, block)
    grid = np.arange(100.0)
    np.testing.assert_allclose(
        resample(on_grid((grid / 50 - 1) ** 3 - grid / 50)),
        (position / 50 - 1) ** 3 - position / 50,
        atol=2e-6,
    )
    line = np.exp(-0.5 * ((grid - 50) / 4.0) ** 2)
    np.testing.assert_allclose(resample(on_grid(line)), np.exp(-0.5 * ((position - 50) / 4) ** 2), atol=3e-4)


def test_resampling_on_grid_points_returns_them():
    values = np.sin(np.arange(300) ** 1.5)
    for positions in (np.arange(300.0), np.arange(0.0, 300.0, 7.0), np.array([0.0, 299.0])):
        resample = Resampler.create(positions, 300)
        np.testing.assert_allclose(resample(on_grid(values)), values[positions.astype(int)], atol=1e-6)
