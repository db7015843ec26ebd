import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxspec.errors import InputError
from jaxspec.spectra import Spectra, air_to_vacuum, doppler_shift, vacuum_to_air

WAVELENGTH = 5400.0 + 0.05 * np.arange(400)


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
