"""Spectra in memory: specutils objects in and out. What `from_specutils` reads is checked on a stand-in with
the attributes of the real class, which the last test holds it to where the package is installed."""

import builtins
from types import SimpleNamespace

import numpy as np
import pytest
from astropy import units
from astropy.nddata import InverseVariance, StdDevUncertainty, UnknownUncertainty, VarianceUncertainty

from jaxspec.errors import InputError
from jaxspec.io import from_specutils, read_spectrum, register_loaders, to_specutils
from tests.io.products import star

WAVE = np.arange(5330.0, 5600.0, 0.05)
FLUX = star(WAVE)
MASK = np.arange(len(WAVE)) == 30
UNIT = units.Unit("1e-17 erg / (s cm2 AA)")
GIVEN = dict(medium="air", frame="barycentric")


def spectrum(axis=None, flux=None, uncertainty=None, **more):
    axis = WAVE * units.AA if axis is None else axis
    flux = FLUX * UNIT if flux is None else flux
    return SimpleNamespace(flux=flux, spectral_axis=axis, uncertainty=uncertainty, mask=MASK, meta={}, **more)


@pytest.mark.parametrize(
    "uncertainty",
    [
        StdDevUncertainty(FLUX / 50),
        StdDevUncertainty(FLUX / 50 * 1e-17, unit="erg / (s cm2 AA)"),
        VarianceUncertainty((FLUX / 50) ** 2),
        VarianceUncertainty((FLUX / 50) ** 2 * 1e-34, unit=(units.Unit("erg / (s cm2 AA)")) ** 2),
        InverseVariance((FLUX / 50) ** -2.0),
        InverseVariance((FLUX / 50) ** -2.0 * 1e34, unit=(units.Unit("erg / (s cm2 AA)")) ** -2),
    ],
)
def test_every_kind_of_uncertainty_gives_the_same_errors(uncertainty):
    made = from_specutils(spectrum(uncertainty=uncertainty), **GIVEN)
    assert made.snr == pytest.approx(50.0, rel=1e-6)
    assert np.flatnonzero(made.ivar == 0).tolist() == [30]
    np.testing.assert_allclose(made.flux[~MASK], FLUX[~MASK])


@pytest.mark.parametrize("unit", ["nm", "um", "GHz", "eV"])
def test_axes_in_other_units_and_directions(unit):
    axis = (WAVE * units.AA).to(unit, equivalencies=units.spectral())
    made = from_specutils(spectrum(axis, uncertainty=StdDevUncertainty(FLUX / 50)), **GIVEN)
    np.testing.assert_allclose(made.wavelength, WAVE, rtol=1e-12)
    np.testing.assert_allclose(made.flux[~MASK], FLUX[~MASK])


def test_velocities_and_what_is_not_stated():
    errors = StdDevUncertainty(FLUX / 50)
    moving = spectrum(uncertainty=errors, radial_velocity=12.0 * units.km / units.s)
    assert from_specutils(moving, **GIVEN).velocity == 12.0
    with pytest.raises(InputError, match="air or vacuum"):
        from_specutils(spectrum(uncertainty=errors), frame="rest")
    with pytest.raises(InputError, match="no errors"):
        from_specutils(spectrum(), **GIVEN)


def test_what_cannot_be_read_is_named():
    for wrong, message in (
        (spectrum(uncertainty=UnknownUncertainty(FLUX)), "UnknownUncertainty"),
        (spectrum(uncertainty=StdDevUncertainty(FLUX, unit="m")), "unit m for a flux"),
        (spectrum(flux=np.stack([FLUX, FLUX]) * UNIT), "one spectrum"),
        (spectrum(axis=WAVE * units.pix), "spectral_axis.*unit pix"),
    ):
        with pytest.raises(InputError, match=message):
            from_specutils(wrong, **GIVEN)


def test_without_the_package_the_error_names_the_extra(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.partition(".")[0] == "specutils":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    made = from_specutils(spectrum(uncertainty=StdDevUncertainty(FLUX / 50)), **GIVEN)
    for call in (lambda: to_specutils(made), register_loaders):
        with pytest.raises(InputError, match=r"pip install 'jaxspec\[specutils\]'"):
            call()


def test_there_and_back_and_our_readers_as_a_loader(tmp_path):
    specutils = pytest.importorskip("specutils")
    made = specutils.Spectrum(
        flux=FLUX * UNIT, spectral_axis=WAVE * units.AA, uncertainty=StdDevUncertainty(FLUX / 50), mask=MASK
    )
    first = from_specutils(made, velocity=-3.0, resolving_power=21500.0, **GIVEN)
    again = from_specutils(to_specutils(first))
    np.testing.assert_array_equal(again.flux, first.flux)
    np.testing.assert_array_equal(again.ivar, first.ivar)
    assert (again.velocity, again.frame, again.resolving_power) == (-3.0, "barycentric", 21500.0)
    np.savetxt(tmp_path / "a.txt", np.c_[WAVE, FLUX, FLUX / 50])
    register_loaders()
    loaded = specutils.Spectrum.read(tmp_path / "a.txt", format="jaxspec", **GIVEN)
    np.testing.assert_array_equal(loaded.flux.value, read_spectrum(tmp_path / "a.txt", **GIVEN).flux)
