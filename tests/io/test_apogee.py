"""APOGEE's combined spectra, visits and ASPCAP's normalised spectra."""

import numpy as np
import pytest
from astropy.io import fits

from jaxspec.errors import InputError
from jaxspec.io import Quality, read_spectrum
from jaxspec.spectra import vacuum_to_air
from tests.io.products import header, star, table, write

N = 8575
WAVE = 10 ** (4.179 + 6e-6 * np.arange(N))
FLUX = star(WAVE)
AXIS = dict(CRVAL1=4.179, CDELT1=6e-6, CRPIX1=1, CTYPE1="LOG-LINEAR")
CARDS = dict(
    OBJID="2M19485057+5005279", RA=297.2, DEC=50.1, SNR=100.0, STARFLAG=512, ANDFLAG=0, VHELIO=14.0,
    RV_TEFF=5226.0, RV_LOGG=4.4, RV_FEH=-0.2,
)  # fmt: skip


def combined(path, rows, visits, flat=False):
    """`rows` fluxes of 1, 2, 3 ... times the star; a bad pixel, a sky line, persistence, a missing error."""
    flux = np.stack([FLUX * (i + 1) for i in range(rows)])
    error, mask = flux / 100, np.zeros((rows, N), np.int64)
    mask[:, 4000], mask[:, 4010], mask[:, 4020], mask[:, 4021] = 1, 4096, 512, 8192
    error[:, 4030], error[:, 4040] = 1e10, 0.0
    arrays = [array[0] if flat else array for array in (flux, error, mask)]
    units = ("Flux (10^-17 erg/s/cm^2/Ang)", "Err (10^-17 erg/s/cm^2/Ang)", "Pixel bitmask")
    images = [fits.ImageHDU(a, header(**AXIS, BUNIT=unit)) for a, unit in zip(arrays, units, strict=True)]
    return write(path, fits.PrimaryHDU(header=header(**CARDS, NVISITS=visits)), *images)


@pytest.mark.parametrize(
    ("rows", "visits", "flat"), [(1, 1, False), (1, 1, True), (2, 1, False), (5, 3, False)]
)
def test_the_combined_spectrum_is_read_and_what_is_left_is_told(tmp_path, rows, visits, flat):
    spectrum = read_spectrum(combined(tmp_path / "a.fits", rows, visits, flat))
    assert (spectrum.product, spectrum.frame, spectrum.velocity) == ("apogee-star", "rest", 0.0)
    np.testing.assert_allclose(spectrum.wavelength, vacuum_to_air(WAVE), rtol=1e-12)
    masked = np.flatnonzero(spectrum.ivar == 0)
    assert masked.tolist() == [4000, 4010, 4030, 4040]  # not persistence, nor a corrected telluric line
    assert spectrum.quality[4000] == Quality.FLAGGED and spectrum.quality[4040] == Quality.NO_ERROR
    good = spectrum.ivar > 0
    np.testing.assert_allclose(spectrum.flux[good], FLUX[good])
    np.testing.assert_allclose(spectrum.ivar[good], (FLUX[good] / 100) ** -2.0)
    assert spectrum.star == "2M19485057+5005279" and spectrum.resolving_power == 22500
    assert spectrum.meta["flags"]["starflag"] == 512
    assert spectrum.meta["survey_labels"] == {"teff": 5226.0, "logg": 4.4, "fe_h": -0.2}
    assert any("not used" in note for note in spectrum.meta["notes"]) == (rows > 1)


def test_a_visit_of_a_combined_file_is_chosen_by_its_number(tmp_path):
    path = combined(tmp_path / "a.fits", 5, 3)
    assert np.median(read_spectrum(path, select="visit-2").flux) == pytest.approx(
        4 * np.median(FLUX), rel=1e-3
    )
    assert read_spectrum(path, select="visit-2").name == "a.fits#visit-2"
    with pytest.raises(InputError, match=r"no row 'visit-4'; expected one of combined, .*visit-3"):
        read_spectrum(path, select="visit-4")


def visit(path):
    ranges = ((15850.0, 16430.0), (16475.0, 16950.0), (15145.0, 15808.0))
    wave = np.stack([np.linspace(high, low, 2048) for low, high in (ranges[1], ranges[0], ranges[2])])
    flux = np.stack([star(w, velocity=-44.42) for w in wave])
    mask = np.zeros(flux.shape, np.int16)
    mask[1, 100] = 16384
    units = (
        "Flux (10^-17 erg/s/cm^2/Ang)",
        "Flux Error (10^-17 erg/s/cm^2/Ang)",
        "Flag Mask",
        "Wavelength (Ang)",
    )
    arrays = (flux, flux / 50, mask, wave)
    images = [fits.ImageHDU(array, header(BUNIT=unit)) for array, unit in zip(arrays, units, strict=True)]
    cards = dict(OBJID="2M01183798+8403419", VRAD=-44.42, VRADERR=0.18, BC=11.2978, VHELIO=-33.1222)
    return write(path, fits.PrimaryHDU(header=header(**cards)), *images), wave


def test_three_detectors_of_a_visit_become_one_barycentric_spectrum(tmp_path):
    path, wave = visit(tmp_path / "a.fits")
    spectrum = read_spectrum(path)
    assert (spectrum.product, spectrum.frame) == ("apogee-visit", "barycentric")
    assert len(spectrum.flux) == wave.size and (np.diff(spectrum.wavelength) > 0).all()
    assert (spectrum.ivar == 0).sum() == 1
    assert spectrum.velocity == pytest.approx(-33.1222, abs=1e-3) and spectrum.velocity_error == 0.18
    rest = spectrum.rest_wavelength()
    line = vacuum_to_air(np.array([16723.5]))[0]
    near = np.abs(rest - line) < 8
    assert abs(rest[near][np.argmin(spectrum.flux[near])] - line) < 0.35


def test_aspcap_spectra_carry_the_final_labels(tmp_path):
    images = [fits.ImageHDU(a, header(**AXIS)) for a in (FLUX / 1000, FLUX / 1e5, FLUX / 1000)]
    row = dict(
        APOGEE_ID=["2M0"], RA=[1.5], TEFF=[4800.0], LOGG=[2.5], FE_H=[-0.1], MG_FE=[-9999.99], ASPCAPFLAG=[8]
    )
    path = write(tmp_path / "a.fits", fits.PrimaryHDU(), *images, table(row, "ASPCAP"))
    spectrum = read_spectrum(path)
    assert (spectrum.product, spectrum.frame, spectrum.star) == ("apogee-aspcap", "rest", "2M0")
    assert spectrum.meta["survey_labels"] == {"teff": 4800.0, "logg": 2.5, "fe_h": -0.1}
    assert spectrum.meta["flags"] == {"aspcapflag": "8"} and spectrum.meta["ra"] == 1.5
    assert spectrum.snr == pytest.approx(100)


def test_real_files(data):
    star_file = read_spectrum(data / "spectra/apogee/apStar-dr17-a.fits")
    visit_file = read_spectrum(data / "spectra/apogee/apVisit-r13-a.fits")
    assert 0.9 < star_file.snr / star_file.meta["snr"] < 1.1
    assert 0.9 < visit_file.snr / visit_file.meta["snr"] < 1.1
    assert visit_file.velocity == pytest.approx(visit_file.meta["velocity_barycentric"], abs=0.01)
    for spectrum, limit in ((star_file, 2.0), (visit_file, 4.0)):
        rest = spectrum.rest_wavelength()
        offsets = []
        for vacuum in (15753.291, 15770.150, 15892.750):  # Mg I and Si I
            line = float(vacuum_to_air(np.array(vacuum)))
            near = (np.abs(rest - line) < 1.2) & (spectrum.ivar > 0)
            depth = 1 - spectrum.flux[near] / np.percentile(spectrum.flux[near], 90)
            depth = np.clip(depth - 0.3 * depth.max(), 0, None)
            offsets.append((np.sum(depth * rest[near]) / depth.sum() / line - 1) * 299792.458)
        assert abs(np.median(offsets)) < limit
