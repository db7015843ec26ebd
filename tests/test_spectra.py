import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxspec.errors import InputError
from jaxspec.instruments import FWHM_PER_SIGMA, get_instrument, lsf_sigma
from jaxspec.spectra import (
    Spectra,
    air_to_vacuum,
    convolve_to_resolution,
    doppler_shift,
    pixel_bounds,
    rebin,
    rebin_to_instrument,
    vacuum_to_air,
)

WAVELENGTH = 5400.0 + 0.05 * np.arange(400)


def lines(wavelength, resolution, centres=(5403.21, 5408.07, 5408.9, 5415.333), depth=0.6):
    """Gaussian absorption lines as an instrument of this resolution would show them, without pixels."""
    flux = np.ones_like(wavelength)
    for centre in centres:
        width = lsf_sigma(centre, resolution)
        flux -= depth * (0.02 / width) * np.exp(-0.5 * ((wavelength - centre) / width) ** 2)
    return flux


# --- the pytree -----------------------------------------------------------------------------------


def test_spectra_are_a_pytree_that_keeps_wavelengths_in_float64():
    flux = np.ones((2, 400))
    spectra = Spectra.create(flux, 4 * flux, WAVELENGTH, names=["a", "b"], meta=[{"x": 1}, {"x": 2}])
    assert spectra.flux.dtype == spectra.ivar.dtype == np.float32
    doubled = jax.jit(lambda s: jax.tree.map(lambda x: 2 * x, s))(spectra)
    np.testing.assert_array_equal(doubled.ivar, 8 * flux)
    assert doubled.wavelength.dtype == np.float64
    np.testing.assert_array_equal(doubled.wavelength, WAVELENGTH)
    assert doubled.names == ("a", "b") and doubled.meta[1] == {"x": 2}
    assert jax.tree.structure(doubled) == jax.tree.structure(spectra)
    second = spectra.select([1])
    assert second.names == ("b",) and second.flux.shape == (1, 400) and second.meta == ({"x": 2},)
    assert jax.tree.structure(second) != jax.tree.structure(spectra)


def test_create_takes_one_spectrum_and_cleans_masked_flux():
    flux, ivar = np.ones(400), np.ones(400)
    flux[[3, 7]], ivar[[3, 7]] = (np.nan, 5.0), 0.0
    spectra = Spectra.create(flux, ivar, WAVELENGTH, quality=np.arange(400))
    assert spectra.n_stars == 1 and spectra.n_pixels == 400 and spectra.names == ("0",)
    assert spectra.flux[0, 3] == 0.0 and spectra.flux[0, 7] == 5.0
    assert spectra.quality[0, 9] == 9


BAD = {
    "nan flux": (
        lambda f, i, w: f.__setitem__((1, 5), np.nan),
        "s, flux: found nan in 1 pixels .* 5400.250 A of spec",
    ),
    "nan ivar": (lambda f, i, w: i.__setitem__((0, 5), np.nan), "s, ivar: found nan in 1 pixels"),
    "infinite ivar": (lambda f, i, w: i.__setitem__((0, 5), np.inf), "s, ivar: found inf"),
    "negative ivar": (lambda f, i, w: i.__setitem__((0, 5), -1.0), "s, ivar: found -1.0"),
    "repeated": (lambda f, i, w: w.__setitem__(5, w[4]), "found 5400.2 A followed by 5400.2 A"),
    "nan wavelength": (lambda f, i, w: w.__setitem__(5, np.nan), "not finite"),
    "decreasing": (lambda f, i, w: w.__setitem__(slice(None), w[::-1].copy()), "strictly increasing"),
}


@pytest.mark.parametrize("spoil, message", BAD.values(), ids=BAD.keys())
def test_bad_values_are_refused(spoil, message):
    flux, ivar, wavelength = np.ones((2, 400)), np.ones((2, 400)), WAVELENGTH.copy()
    spoil(flux, ivar, wavelength)
    with pytest.raises(InputError, match=message):
        Spectra.create(flux, ivar, wavelength, where="s")


def test_bad_shapes_are_refused():
    ones = np.ones((2, 400))
    with pytest.raises(InputError, match="flux and ivar of one shape"):
        Spectra.create(ones, ones[:1], WAVELENGTH)
    with pytest.raises(InputError, match="flux and ivar of one shape"):
        Spectra.create(ones, ones, WAVELENGTH[1:])
    with pytest.raises(InputError, match="two pixels or more"):
        Spectra.create(np.ones((0, 400)), np.ones((0, 400)), WAVELENGTH)
    with pytest.raises(InputError, match="two pixels or more"):
        Spectra.create(ones, ones, np.ones((2, 400)))
    with pytest.raises(InputError, match="3 names for 2 spectra"):
        Spectra.create(ones, ones, WAVELENGTH, names="abc")
    with pytest.raises(InputError, match="integer bits"):
        Spectra.create(ones, ones, WAVELENGTH, quality=ones)


# --- air, vacuum, velocity ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "air, vacuum",
    [
        # Air and vacuum wavelengths as tabulated by NIST: Na D2, D1, H-alpha, the Ca II triplet.
        (5889.9510, 5891.5833),
        (5895.9242, 5897.5581),
        (6562.7952, 6564.6096),
        (8498.023, 8500.358),
        (8542.091, 8544.438),
        (8662.141, 8664.521),
    ],
)
def test_air_and_vacuum_are_those_of_known_lines(air, vacuum):
    assert vacuum_to_air(vacuum) == pytest.approx(air, abs=1.5e-3)
    assert air_to_vacuum(air) == pytest.approx(vacuum, abs=1.5e-3)


def test_air_to_vacuum_inverts_vacuum_to_air():
    vacuum = np.linspace(2000, 20_000, 500)
    np.testing.assert_allclose(air_to_vacuum(vacuum_to_air(vacuum)), vacuum, rtol=1e-14)
    # By hand from equation 8 of Morton (2000) at 5000 A, s^2 = 4.
    assert vacuum_to_air(5000.0) == pytest.approx(5000 / 1.000278973, abs=1e-5)
    with pytest.raises(InputError, match="convert the unit"):
        air_to_vacuum(np.array([539.0, 8542.0]))


@given(st.floats(-3000, 3000))
def test_doppler_shift_is_relativistic_and_invertible(velocity):
    shifted = doppler_shift(WAVELENGTH, velocity)
    np.testing.assert_allclose(doppler_shift(shifted, -velocity), WAVELENGTH, rtol=1e-14)
    beta = velocity / 299_792.458
    # To first order the classical shift, with the time dilation's beta^2 / 2 next.
    np.testing.assert_allclose(shifted / WAVELENGTH - 1, beta + beta**2 / 2, atol=abs(beta) ** 3 + 1e-15)


def test_doppler_shift_refuses_a_speed_in_metres_per_second():
    with pytest.raises(InputError, match="speed of light"):
        doppler_shift(WAVELENGTH, 3e5)


# --- rebinning ------------------------------------------------------------------------------------


def test_rebinning_onto_the_same_pixels_changes_nothing(rng):
    arm = get_instrument("giraffe_hr10").arms[0]
    flux, ivar = rng.normal(1, 0.1, (2, arm.n_pixels)), rng.uniform(1, 100, (2, arm.n_pixels))
    ivar[0, 100:120] = 0
    out_flux, out_ivar = rebin(arm.wavelength, flux, ivar, arm.edges)
    np.testing.assert_allclose(out_flux, np.where(ivar > 0, flux, 0), atol=1e-9)
    np.testing.assert_allclose(out_ivar, ivar, rtol=1e-9)


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


@pytest.mark.parametrize("step", [0.02, 0.05, 0.21])
def test_ivar_is_the_noise_of_each_output_pixel(step, rng):
    ivar = rng.uniform(1, 100, 400)
    ivar[100:110] = 0
    noise = rng.normal(0, 1, (2000, 400)) / np.sqrt(np.where(ivar > 0, ivar, 1))
    edges = np.arange(5400.6, 5419.0, step)
    flux, out = rebin(WAVELENGTH, noise, np.broadcast_to(ivar, noise.shape), edges)
    good = out[0] > 0
    chi2 = (flux**2 * out)[:, good].mean(0)
    # 2000 draws: chi2 / dof has a scatter of 3.2 %; no pixel of up to 900 is off by more than 5 of these.
    assert np.abs(chi2 - 1).max() < 5 * np.sqrt(2 / 2000)
    neighbours = np.mean(
        flux[:, good][:, :-1] * flux[:, good][:, 1:] * np.sqrt(out[0, good][:-1] * out[0, good][1:])
    )
    # Finer than the input: pixels share their noise, which the diagonal does not tell.
    assert (neighbours > 0.5) if step < 0.05 else (neighbours < 0.6)


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
    chi2 = (out**2 * out_ivar)[:, good].mean(0)
    assert np.abs(chi2 - 1).max() < 5 * np.sqrt(2 / 3000)


def test_a_sharper_target_is_refused():
    with pytest.raises(InputError, match="target R = 50000 for a source of R = 47000 at 5400"):
        convolve_to_resolution(WAVELENGTH, np.ones(400), np.ones(400), 47_000.0, 50_000.0)
