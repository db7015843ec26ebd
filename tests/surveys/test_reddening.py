"""Dust reddens stars as its law says."""

import numpy as np
import pytest

from jaxspec.datasets import Dataset

pytest.importorskip("dust_extinction")

import astropy.units as u
from dust_extinction.parameter_averages import G23

from jaxspec.surveys.reddening import Reddening, extinction_curves

WAVELENGTH = np.linspace(3360.0, 10200.0, 60)


@pytest.fixture(scope="module")
def dust():
    return Reddening(extinction_curves(WAVELENGTH), a_v=(1.0, 3.0), r_v=(3.1, 0.0))


def test_the_law_is_linear_in_the_inverse_of_r_v(dust):
    for r_v in (2.7, 3.1, 3.8):
        found = dust.transmission(np.array([1.7]), np.array([r_v]))[0]
        np.testing.assert_allclose(found, G23(Rv=r_v).extinguish(WAVELENGTH * u.AA, Av=1.7), rtol=2e-4)


def test_visual_light_loses_what_a_v_says(dust):
    loss = -2.5 * np.log10(dust.transmission(np.array([2.0]), np.array([3.1]))[0])
    assert np.interp(5500.0, WAVELENGTH, loss) == pytest.approx(2.0, rel=0.03)


def test_a_batch_is_redder_noisier_and_over_its_median(dust):
    rng = np.random.default_rng(0)
    n = 400
    data = Dataset(np.zeros((n, 1)), np.ones((n, 60)), np.full((n, 60), 1e4))
    red = dust(rng, data)
    np.testing.assert_allclose(np.median(red.flux, axis=1), 1.0, atol=0.15)  # the noise comes after
    colour = np.log(np.asarray(red.flux)[:, 5] / np.asarray(red.flux)[:, 55])
    assert np.all(colour < -0.3)
    # Residuals from a smooth curve agree with the stated errors.
    pieces = (np.asarray(red.flux) * np.sqrt(red.ivar))[:, 20:40]
    noise = np.diff(pieces, 3, axis=1) / np.sqrt(20.0)
    assert np.mean(red.ivar) < 1e4 and 0.4 < np.std(noise) < 1.1
    assert np.array_equal(dust(np.random.default_rng(0), data).flux, red.flux)
