"""Resampled spectra keep flux, lines and information; single pixels scatter as stated by `resample`."""

import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.instruments import FWHM_PER_SIGMA, get_instrument, lsf_sigma
from jaxspec.resampling import (
    convolve_to_resolution,
    pixel_bounds,
    rebin,
    rebin_to_instrument,
    resample,
)

WAVELENGTH = 5400.0 + 0.05 * np.arange(400)


def lines(wavelength, resolution, centres=(5403.21, 5408.07, 5408.9, 5415.333), depth=0.6):
    """Gaussian absorption lines as an instrument of this resolution would show them, without pixels."""
    flux = np.ones_like(wavelength)
    for centre in centres:
        width = lsf_sigma(centre, resolution)
        flux -= depth * (0.02 / width) * np.exp(-0.5 * ((wavelength - centre) / width) ** 2)
    return flux


# --- rebinning ------------------------------------------------------------------------------------


def test_rebinning_onto_the_same_pixels_changes_nothing(rng):
    arm = get_instrument("giraffe_hr10").arms[0]
    flux, ivar = rng.normal(1, 0.1, (2, arm.n_pixels)), rng.uniform(1, 100, (2, arm.n_pixels))
    ivar[0, 100:120] = 0
    out_flux, out_ivar = rebin(arm.wavelength, flux, ivar, arm.edges)
    np.testing.assert_allclose(out_flux, np.where(ivar > 0, flux, 0), atol=1e-9)
    np.testing.assert_allclose(out_ivar, ivar, rtol=1e-8)


@pytest.mark.parametrize("step", [0.011, 0.05, 0.0731, 0.31])
def test_rebinning_conserves_flux(step, rng):
    flux = rng.uniform(0, 1, 400)
    edges = np.append(np.arange(5395.0, 5425.0, step), 5425.0)  # reaches over both ends of the input
    out, ivar = rebin(WAVELENGTH, flux, np.ones(400), edges)
    low, high = pixel_bounds(WAVELENGTH)
    inside = (edges[:-1] >= low[0]) & (edges[1:] <= high[-1])
    covered = np.clip(np.minimum(edges[1:], high[-1]) - np.maximum(edges[:-1], low[0]), 0, None)
    lost = np.sum(flux * (high - low)) - np.sum(out * covered)
    # What is lost are the two end pixels that are covered by less than half.
    assert abs(lost) < 1e-9 + np.sum(covered[(ivar == 0) & (covered > 0)]) * flux.max()
    assert (ivar[inside] > 0).all()


def test_a_straight_line_stays_one_on_a_grid_of_another_kind():
    wavelength = 5400.0 * np.exp(1e-5 * np.arange(300))
    edges = np.linspace(wavelength[40], wavelength[-40], 177)
    wavelength_out = 0.5 * (edges[1:] + edges[:-1])
    low, high = pixel_bounds(wavelength)
    flux = 3 + 0.02 * (0.5 * (low + high) - 5400)  # the mean over each pixel
    out, _ = rebin(wavelength, flux, np.ones(300), edges)
    np.testing.assert_allclose(out, 3 + 0.02 * (wavelength_out - 5400), atol=1e-8)


@pytest.mark.parametrize("ratio", [0.1, 1.0, 2.0])
@pytest.mark.parametrize("offset", [0.0, 0.25, 0.5])
def test_rebinned_lines_are_those_of_the_pixels(ratio, offset):
    """HR10 lines sampled finer than, like, and coarser than the output: against the integral over output
    pixels."""
    edges = 5401.0 + 0.05 * np.arange(320)
    step = 0.05 * ratio
    wavelength = 5400.5 + step * (offset + np.arange(round(17.5 / step)))

    def pixel_mean(centres, width):
        points = (np.arange(21) + 0.5) / 21 - 0.5
        return np.mean([lines(centres + p * width, 21_500) for p in points], axis=0)

    out, _ = rebin(wavelength, pixel_mean(wavelength, step), np.ones(wavelength.size), edges)
    expected = pixel_mean(0.5 * (edges[1:] + edges[:-1]), 0.05)
    assert np.abs(out - expected).max() < (1e-3 if ratio <= 1 else 5e-3)


def test_masked_pixels_are_never_read(rng):
    flux, ivar = rng.normal(1, 0.1, 400), np.ones(400)
    ivar[50:53] = 0
    edges = 5400.5 + 0.037 * np.arange(500)
    results = []
    for bad in (np.nan, 1e30, -np.inf):
        flux[50:53] = bad
        results.append(
            (rebin(WAVELENGTH, flux, ivar, edges), convolve_to_resolution(WAVELENGTH, flux, ivar, 8e4, 2e4))
        )
    for result in results:
        for (a, ia), (b, ib) in zip(result, results[0], strict=True):
            assert np.isfinite(a).all() and np.isfinite(ia).all()
            np.testing.assert_array_equal(a, b)
            np.testing.assert_array_equal(ia, ib)


def test_half_covered_pixels_are_masked():
    ivar = np.ones(400)
    ivar[50:60] = 0  # 5402.475 to 5402.975
    centre = 5402.475
    flux, out = rebin(WAVELENGTH, np.full(400, 2.0), ivar, centre + np.array([-0.049, 0.051, 0.151]))
    assert out.tolist() == [0.0, 0.0] and flux.tolist() == [0.0, 0.0]
    flux, out = rebin(WAVELENGTH, np.full(400, 2.0), ivar, centre + np.array([-0.051, 0.049]))
    assert flux[0] == pytest.approx(2.0) and out[0] > 0


def test_no_pixel_reaches_across_a_gap():
    wavelength = np.concatenate([WAVELENGTH[:100], WAVELENGTH[200:]])  # nothing from 5404.975 to 5409.975
    edges = 5404.0 + 0.5 * np.arange(15)
    _, ivar = rebin(wavelength, np.ones(300), np.ones(300), edges)
    empty = (edges[:-1] > 5404.9) & (edges[1:] < 5410.1)
    np.testing.assert_array_equal(ivar == 0, empty)


def broad_error(noise, ivar):
    """Scatter of a weighted mean of all pixels of noise `[n, p]` over the error of independent ones."""
    weights = ivar[0] / ivar[0].sum()
    return np.std(noise @ weights) * np.sqrt(ivar[0].sum())


@pytest.mark.parametrize("step", [0.02, 0.025, 0.05, 0.0731, 0.21])
def test_rebinned_noise_keeps_its_information(step, rng):
    ivar = np.repeat(rng.uniform(1, 100, 20), 20)
    ivar[100:110] = 0
    noise = rng.normal(0, 1, (4000, 400)) / np.sqrt(np.where(ivar > 0, ivar, 1))
    edges = np.arange(5400.6, 5419.0, step)
    flux, out = rebin(WAVELENGTH, noise, np.broadcast_to(ivar, noise.shape), edges)
    # 4000 draws: a standard deviation is known to 1.1 %; weights differ at the steps of the noise.
    assert abs(broad_error(flux, out) - 1) < 0.06
    good = out[0] > 0
    chi2 = (flux**2 * out)[:, good].mean(0)
    # A pixel never scatters by more than stated; of the same size by no less than at a shift of half a pixel.
    assert np.median(chi2) < 1.02 and chi2.max() < 1.02 + 5 * np.sqrt(2 / 4000)
    least = {0.02: 0.2, 0.025: 0.3, 0.05: 0.55, 0.0731: 0.6, 0.21: 0.8}[step]
    assert np.median(chi2) > least


@pytest.mark.parametrize("resolving_power, step", [
    (21_500, 0.05), (22_500, 0.05), (47_000, 0.02), (47_000, 0.033), (80_000, 0.01), (107_000, 0.01),
])  # fmt: skip
def test_white_noise_of_sharper_spectra_keeps_its_information(resolving_power, step, rng):
    """Pixels of the file and of HR10 do not coincide; S/N 100 an input pixel."""
    edges = get_instrument("giraffe_hr10").arms[0].edges[:1001]
    wavelength = np.arange(edges[0] - 5.013, edges[-1] + 5.0, step)
    noise = 1.0 + 0.01 * rng.normal(size=(200, wavelength.size))
    ivar = np.full(noise.shape, 1e4)
    smooth = convolve_to_resolution(wavelength, noise, ivar, resolving_power, 21_500)
    flux, out = rebin(wavelength, *smooth, edges)
    single, single_ivar, scatter = resample(wavelength, noise[0], ivar[0], edges, resolving_power, 21_500)
    np.testing.assert_allclose(single, flux[0])
    np.testing.assert_allclose(single_ivar, out[0])
    # S/N per output pixel: that of the light in it.
    np.testing.assert_allclose(np.median(np.sqrt(out[0])), 100 * np.sqrt(0.05 / step), rtol=0.02)
    x = flux - 1.0
    trend = np.linalg.qr(np.polynomial.legendre.legvander(np.linspace(-1, 1, 1000), 8))[0]
    # Nine broad quantities, orthogonal: 1,800 numbers, standard deviation known to 1.7 %.
    assert np.sqrt(np.mean((x @ trend) ** 2) * np.median(out[0])) == pytest.approx(1.0, abs=0.08)
    assert np.mean(x**2 * out) < 1.03
    assert np.mean((x / scatter) ** 2) == pytest.approx(1.0, abs=0.02)


def test_a_spectrum_that_does_not_reach_an_arm_leaves_it_masked():
    instrument = get_instrument("giraffe")
    wavelength = np.arange(5320.0, 5620.0, 0.03)
    flux, ivar = rebin_to_instrument(
        wavelength, np.ones(wavelength.size), np.ones(wavelength.size), instrument
    )
    assert (ivar[instrument.slices["hr10"]] > 0).all() and (ivar[instrument.slices["hr21"]] == 0).all()
    np.testing.assert_allclose(flux[instrument.slices["hr10"]], 1.0)


# --- resolution -----------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [47_000.0, 110_000.0, 200_000.0])
def test_convolution_reaches_the_resolution_asked_for(source):
    wavelength = np.arange(5395.0, 5425.0, 0.01)
    start = lines(wavelength, source, depth=0.3)
    out, ivar = convolve_to_resolution(wavelength, start, np.ones(wavelength.size), source, 21_500.0)
    good = ivar > 0
    assert good.mean() > 0.98
    np.testing.assert_allclose(out[good], lines(wavelength, 21_500, depth=0.3)[good], atol=3e-4)


def test_convolution_width_follows_wavelength_and_conserves_flux():
    wavelength = np.arange(5000.0, 9000.0, 0.05)
    flux = np.zeros(wavelength.size)
    at = np.searchsorted(wavelength, [5500.0, 8500.0])
    flux[at] = 1.0
    out, _ = convolve_to_resolution(wavelength, flux, np.ones(wavelength.size), np.inf, 10_000.0)
    for i in at:
        window = slice(i - 100, i + 101)
        mean = np.average(wavelength[window], weights=out[window])
        sigma = np.sqrt(np.average((wavelength[window] - mean) ** 2, weights=out[window]))
        assert out[window].sum() == pytest.approx(1.0, abs=2e-3)
        assert sigma == pytest.approx(wavelength[i] / 10_000 / FWHM_PER_SIGMA, rel=0.01)


def test_convolution_to_the_same_resolution_changes_nothing(rng):
    flux = rng.normal(1, 0.1, 400)
    out, ivar = convolve_to_resolution(WAVELENGTH, flux, np.full(400, 3.0), 2e4, np.full(400, 2e4))
    np.testing.assert_allclose(out, flux, atol=1e-12)
    np.testing.assert_allclose(ivar, 3.0)


def test_convolution_noise_and_masks(rng):
    noise, ivar = rng.normal(0, 0.1, (3000, 400)), np.full(400, 100.0)
    ivar[200:260] = 0
    out, out_ivar = convolve_to_resolution(WAVELENGTH, noise, np.broadcast_to(ivar, noise.shape), 4e4, 1e4)
    good = out_ivar[0] > 0
    assert not good[205:255].any() and good[20:190].all()
    np.testing.assert_allclose(out_ivar[0, good], 100.0)  # constant noise has one power, whatever the kernel
    assert broad_error(out[:, 20:190], out_ivar[:, 20:190]) == pytest.approx(1.0, abs=0.08)
    assert (out**2 * out_ivar)[:, good].mean() < 0.6


def test_a_sharper_target_is_refused():
    with pytest.raises(InputError, match="target R = 50000 for a source of R = 47000 at 5400"):
        convolve_to_resolution(WAVELENGTH, np.ones(400), np.ones(400), 47_000.0, 50_000.0)
