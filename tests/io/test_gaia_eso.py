"""Files of the Gaia-ESO survey's pipeline, made up and then damaged one part at a time."""

import numpy as np
import pytest
from astropy.io import fits

from jaxspec.errors import InputError
from jaxspec.io.fitsfile import open_fits
from jaxspec.io.gaia_eso import is_gaia_eso, read_gaia_eso
from tests.survey import write_gaia_eso

WAVELENGTH = 5330.0 + 0.05 * np.arange(400)


def made(tmp_path, change=None, velocity=12.5, **header):
    """A file after `change(hdus)`, with checksums that are right again, and what went into it."""
    rng = np.random.default_rng(0)
    flux = 5000.0 * (1.0 - 0.3 * np.exp(-0.5 * ((WAVELENGTH - 5340.0) / 0.2) ** 2)) + rng.normal(0, 50, 400)
    ivar = np.full(400, 50.0**-2)
    ivar[:10] = 0.0
    path = tmp_path / "sound.fit"
    write_gaia_eso(path, WAVELENGTH, flux, ivar, "10001234-2005432", velocity)
    if change is not None or header:
        with fits.open(path) as file:
            hdus = fits.HDUList([hdu.copy() for hdu in file])
        hdus[0].header.update(header)
        hdus = (change(hdus) if change else None) or hdus
        path = tmp_path / "changed.fit"
        hdus.writeto(path, overwrite=True, checksum=True)
    return path, flux.astype(np.float32), ivar.astype(np.float32)


def read(path):
    return read_gaia_eso(open_fits(path.read_bytes(), str(path)))


def test_flux_ivar_axis_and_velocity_are_the_files_own(tmp_path):
    path, flux, ivar = made(tmp_path)
    found = read(path)
    np.testing.assert_array_equal(found.flux, flux)
    np.testing.assert_array_equal(found.ivar, ivar)
    # The axis is in the star's frame stretched by its velocity: relativistic, in air.
    beta = 12.5 / 299792.458
    np.testing.assert_allclose(found.wavelength, WAVELENGTH * np.sqrt((1 + beta) / (1 - beta)), rtol=1e-10)
    assert found.medium == "air" and found.frame == "barycentric"
    assert found.velocity == 12.5 and abs(found.velocity_error - 0.3) < 1e-6
    assert found.native == "giraffe" and found.star == "10001234-2005432" and found.product == "gaia-eso"
    assert found.meta["setup"] == "H548.8" and found.meta["ges_type"] == "GE_MW"


def test_normalised_errors_are_never_read(tmp_path):
    """They are wrong in genuine files; here they are made absurd, and nothing changes."""

    def absurd(hdus):
        hdus["normalised_ivar"].data = np.full(400, 1e9, np.float32)

    path, _, ivar = made(tmp_path, absurd)
    np.testing.assert_array_equal(read(path).ivar, ivar)


@pytest.mark.parametrize(("value", "expected"), [(np.nan, None), (-9999.0, None), (-55.0, -55.0)])
def test_no_velocity_in_its_forms(tmp_path, value, expected):
    def change(hdus):
        hdus["velclass"].data["VEL"] = value

    found = read(made(tmp_path, change)[0])
    assert found.velocity == expected
    assert (found.velocity_error is None) == (expected is None)


def test_the_frame_is_what_was_corrected_for(tmp_path):
    def none_applied(hdus):
        hdus["Fibinfo"].data["Helio_cor"] = 0.0

    def lost(hdus):
        del hdus["Fibinfo"]

    assert read(made(tmp_path, none_applied)[0]).frame == "topocentric"
    assert read(made(tmp_path, lost)[0]).frame is None


def drop(name):
    def change(hdus):
        del hdus[name]

    return change


def shifted(key, by):
    def change(hdus):
        hdus["final_ivar"].header[key] += by

    return change


def shorter(hdus):
    hdus["final_ivar"].data = hdus["final_ivar"].data[:-1]


def vacuum(hdus):
    hdus["normalised_spectrum"].header["CTYPE1"] = "WAVE"


def fast(hdus):
    hdus["velclass"].data["VEL"] = 2500.0


def twice(hdus):
    table = hdus["velclass"]
    rows = np.concatenate([table.data, table.data])
    hdus[hdus.index_of("velclass")] = fits.BinTableHDU(rows, name="velclass")


def other_values(hdus):
    rng = np.random.default_rng(1)
    hdus["normalised_spectrum"].data = rng.uniform(0.5, 1.0, 400).astype(np.float32)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (drop("final_ivar"), "no extension final_ivar"),
        (shifted("CRVAL1", 0.01), "that of the flux"),
        (shifted("CD1_1", 1e-5), "that of the flux"),
        (vacuum, "that of the flux"),
        (shorter, "399"),
        (fast, "VEL = 2500.0 km/s"),
        (twice, "2 rows"),
        (other_values, "jumps from pixel to pixel"),
    ],
)
def test_parts_that_contradict_each_other_are_refused(tmp_path, change, match):
    path, _, _ = made(tmp_path, change)
    with pytest.raises(InputError, match=match) as error:
        read(path)
    assert "changed.fit" in str(error.value)


def test_a_table_whose_header_was_edited_is_not_used(tmp_path):
    """One byte of the column's name: the checksum no longer holds, and the velocity becomes unknown."""
    path, flux, _ = made(tmp_path)
    data = path.read_bytes()
    at = data.index(b"'VEL     '")
    path.write_bytes(data[: at + 3] + b"X" + data[at + 4 :])
    found = read(path)
    assert found.velocity is None and any("velclass not used" in note for note in found.notes)
    np.testing.assert_array_equal(found.flux, flux)


def test_a_signal_to_noise_that_disagrees_is_said(tmp_path):
    def change(hdus):
        hdus["velclass"].data["S_N"] = 5.0

    assert any("velclass says 5.0" in note for note in read(made(tmp_path, change)[0]).notes)
    assert not any("velclass says" in note for note in read(made(tmp_path)[0]).notes)


def test_the_layout_is_recognised_by_any_of_its_extensions(tmp_path):
    path, _, _ = made(tmp_path, drop("final_ivar"))
    assert is_gaia_eso(open_fits(path.read_bytes(), "x"))
    fits.PrimaryHDU(np.ones(5, np.float32)).writeto(tmp_path / "other.fit", checksum=True)
    assert not is_gaia_eso(open_fits((tmp_path / "other.fit").read_bytes(), "x"))
