"""GALAH's files of one detector, of releases 3 and 4."""

import numpy as np
import pytest
from astropy.io import fits

from jaxspec.errors import InputError
from jaxspec.io import read_spectrum
from tests.io.products import header, star, write

N = 4096
AXIS = dict(CRVAL1=6478.0, CDELT1=0.0631, CRPIX1=1.0, CUNIT1="Angstrom")
WAVE = 6478.0 + 0.0631 * np.arange(N)
FLUX = star(WAVE)
RELATIVE = np.full(N, 0.02)
RELATIVE[10:20] = 0.0


def release_3(path, sigma=RELATIVE, **cards):
    arrays = (
        ("input_sigma", sigma),
        ("no_sky_spectrum", 2 * FLUX),
        ("no_sky_sigma", sigma),
        ("normalised", FLUX / 1e3),
    )
    images = [fits.ImageHDU(a, header(**AXIS), name=name) for name, a in arrays]
    return write(path, fits.PrimaryHDU(FLUX, header(**AXIS, ORIGIN="GALAH", OBJECT="star", **cards)), *images)


def release_4(path, **cards):
    profile = np.full(N, 0.25)  # A, full width
    arrays = (FLUX / 1e3, RELATIVE, FLUX * 0.1, np.ones(N), np.zeros(N), np.zeros(N), profile)
    cards = dict(RVCOM=-23.4, E_RVCOM=0.1, WAV_OK=1, CROSS_OK=0, SLITMASK="OUT", PLATE=1) | cards
    images = [fits.ImageHDU(a, header(**AXIS)) for a in arrays]
    return write(path, fits.PrimaryHDU(FLUX, header(**AXIS, **cards)), *images)


@pytest.mark.parametrize("release", [release_3, release_4])
def test_relative_errors_become_absolute(tmp_path, release):
    spectrum = read_spectrum(release(tmp_path / "1704180037012053.fits"))
    assert (spectrum.product, spectrum.frame, spectrum.meta["medium"]) == ("galah", "barycentric", "air")
    assert spectrum.star == "GALAH 170418003701205"  # the same of all four detectors
    np.testing.assert_allclose(spectrum.wavelength, WAVE)
    good = spectrum.ivar > 0
    assert np.flatnonzero(~good).tolist() == list(range(10, 20))
    np.testing.assert_allclose(spectrum.flux[good], FLUX[good])
    assert spectrum.snr == pytest.approx(50.0, rel=1e-6)


def test_release_4_has_velocity_profile_and_flags(tmp_path):
    spectrum = read_spectrum(release_4(tmp_path / "a.fits"))
    assert (spectrum.velocity, spectrum.velocity_error) == (-23.4, 0.1)
    assert spectrum.resolving_power_in(6500, 6700) == pytest.approx(6600 / 0.25, rel=0.01)
    assert any("CROSS_OK = 0" in note for note in spectrum.meta["notes"])
    assert read_spectrum(release_4(tmp_path / "b.fits", RVCOM=-999.0)).velocity is None


def test_errors_in_counts_are_taken_as_such(tmp_path):
    spectrum = read_spectrum(release_3(tmp_path / "a.fits", sigma=FLUX * 0.02))
    assert spectrum.snr == pytest.approx(50.0, rel=1e-6)


def test_a_file_without_errors_is_refused(tmp_path):
    path = write(
        tmp_path / "a.fits",
        fits.PrimaryHDU(FLUX, header(**AXIS, ORIGIN="GALAH")),
        *(2 * [fits.ImageHDU(FLUX, name="x")]),
    )
    with pytest.raises(InputError, match="input_sigma"):
        read_spectrum(path)
