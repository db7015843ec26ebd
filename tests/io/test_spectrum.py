"""What the real sample files hold, read independently with plain astropy or numpy, and what the readers make
of it."""

import shutil

import numpy as np
import pytest
from astropy.io import fits

from jaxspec.errors import InputError
from jaxspec.io import Assume, Quality, read_spectrum

GES = "spectra/giraffe/gar_ssssssss-sssssss_H548.8_106.fit"


def test_gaia_eso_flux_ivar_axis_and_velocity_are_the_files_own(data):
    spectrum = read_spectrum(data / GES)
    with fits.open(data / GES) as file:
        np.testing.assert_array_equal(spectrum.flux, file[0].data.astype(float))
        np.testing.assert_array_equal(spectrum.ivar, file["final_ivar"].data.astype(float))
        row = file["velclass"].data[0]
        assert (spectrum.velocity, spectrum.velocity_error) == (row["VEL"], row["EVEL"])
    np.testing.assert_allclose(spectrum.wavelength, 5334.0 + 0.05 * np.arange(5541), atol=1e-9)
    assert spectrum.product == "gaia-eso" and spectrum.meta["medium"] == "air"
    assert spectrum.frame == "topocentric"  # no heliocentric correction for the Sun
    assert 0.9 < spectrum.snr / spectrum.meta["snr"] < 1.0  # the file says 138
    assert not spectrum.quality.any()
    assert any("PRIMARY" in note for note in spectrum.meta["notes"])  # its header checksum is stale


def test_gaia_eso_velocity_takes_fe_lines_to_their_rest_wavelengths(data):
    spectrum = read_spectrum(data / GES)
    rest = spectrum.rest_wavelength()
    # Fe I 5434.524 A: unblended, from the Gaia-ESO line list.
    near = np.abs(rest - 5434.524) < 0.15
    depth = 1 - spectrum.flux[near] / spectrum.flux[near].max()
    centre = np.sum(depth * rest[near]) / depth.sum()
    assert abs(centre - 5434.524) / 5434.524 * 3e5 < 1.0  # km/s


@pytest.mark.parametrize("name", ["16_cyg_a_harps", "alpha_cen_b_uves", "sun_vesta_harps"])
def test_text_spectrum_equals_its_columns(data, name):
    path = data / f"spectra/hr10/{name}.txt"
    spectrum = read_spectrum(path, frame="unknown", medium="air")
    wavelength, flux, error = np.loadtxt(path).T
    np.testing.assert_array_equal(spectrum.wavelength, wavelength)
    np.testing.assert_array_equal(spectrum.flux, flux)
    np.testing.assert_allclose(spectrum.ivar, error**-2.0)
    assert not spectrum.quality.any() and spectrum.star == name


def test_uves_library_reads_nm_air_and_its_sigma_extension(data):
    spectrum = read_spectrum(data / "spectra/uves/hd_175305_narval.fits", frame="rest")
    with fits.open(data / "spectra/uves/hd_175305_narval.fits") as file:
        np.testing.assert_allclose(spectrum.ivar, file["SIGMA"].data.astype(float) ** -2.0)
    np.testing.assert_allclose(spectrum.wavelength[[0, -1]], [4800.0, 6799.99], atol=1e-4)
    assert spectrum.meta["medium"] == "air" and "medium" not in spectrum.meta["assumed"]


def test_uves_library_gap_of_zeros_is_masked_not_read(data):
    path = data / "spectra/uves/delta_eri_uves.fits"
    spectrum = read_spectrum(path, frame="rest", estimate_noise=True)
    zero = fits.getdata(path) == 0
    assert zero.sum() == 6999
    assert (spectrum.ivar[zero] == 0).all() and (spectrum.quality[zero] & Quality.NO_DATA).all()
    assert (spectrum.ivar > 0).sum() == 200000 - 7001  # one neighbour on either side
    assert "DER_SNR" in spectrum.meta["assumed"]["noise"]


def test_files_without_errors_need_an_explicit_choice(data):
    path = data / "spectra/mike/hd140283.fits"
    with pytest.raises(InputError, match=r"hd140283\.fits: found no errors.*snr="):
        read_spectrum(path, frame="rest", medium="air")
    given = read_spectrum(path, frame="rest", medium="air", snr=100.0)
    assert given.snr == pytest.approx(100.0, rel=0.01)
    assert "100" in given.meta["assumed"]["noise"]


def test_what_a_header_does_not_state_is_asked_for(data):
    mike = data / "spectra/mike/hd122563.fits"
    with pytest.raises(InputError, match=r"air or vacuum.*medium="):
        read_spectrum(mike, frame="rest", estimate_noise=True)
    with pytest.raises(InputError, match=r"velocity frame.*frame="):
        read_spectrum(mike, medium="air", estimate_noise=True)


def test_assumptions_are_logged_with_file_and_origin_and_lose_to_the_header(data, caplog):
    assume = Assume(medium="vacuum", frame="rest", origin="conf/data/files.yaml")
    read_spectrum(data / "spectra/hr10/sun_uves.txt", assume=assume)
    text = caplog.text
    assert "sun_uves.txt" in text and "vacuum" in text and "conf/data/files.yaml" in text
    spectrum = read_spectrum(data / GES, assume=assume)
    assert (
        spectrum.meta["medium"] == "air" and spectrum.frame == "topocentric" and not spectrum.meta["assumed"]
    )


def test_an_argument_beats_the_header_with_a_warning(data, caplog):
    air = read_spectrum(data / GES)
    shifted = read_spectrum(data / GES, medium="vacuum")
    assert "although the file states air" in caplog.text
    # n - 1 = 2.78e-4 at 5400 A (Morton 2000): 1.5 A.
    np.testing.assert_allclose(air.wavelength - shifted.wavelength, 1.52, atol=0.05)


def test_an_image_of_several_rows_that_says_nothing_of_them_is_refused_by_name(tmp_path):
    path = tmp_path / "rows.fits"
    fits.PrimaryHDU(np.ones((5, 3904))).writeto(path)
    with pytest.raises(InputError, match=f"{path.name}.*3904 x 5 pixels"):
        read_spectrum(path)


def test_gzipped_and_renamed_files_are_read_by_content(data, tmp_path):
    import gzip

    renamed = tmp_path / "spectrum.txt"
    shutil.copy(data / GES, renamed)
    packed = tmp_path / "spectrum.fit.gz"
    packed.write_bytes(gzip.compress((data / GES).read_bytes(), compresslevel=1))
    expected = read_spectrum(data / GES)
    for path in (renamed, packed):
        np.testing.assert_array_equal(read_spectrum(path).flux, expected.flux)
    packed.write_bytes(packed.read_bytes()[:5000])
    with pytest.raises(InputError, match=r"spectrum\.fit\.gz"):
        read_spectrum(packed)
