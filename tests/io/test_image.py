"""1-D images: linear and logarithmic axes against their definition, and everything that must be refused."""

import numpy as np
import pytest
from astropy.io import fits

from jaxspec.errors import InputError
from jaxspec.io import Quality, read_spectrum

N = 300
PIXEL = np.arange(1, N + 1)
FLUX = (1 - 0.4 * np.exp(-0.5 * ((PIXEL - 150) / 6.0) ** 2)).astype(np.float32)
LINE = 5400 + 0.05 * (PIXEL - 1)
LOG = 10 ** (np.log10(5400) + 4e-6 * (PIXEL - 1))
LINEAR = {"CRVAL1": 5400.0, "CDELT1": 0.05, "CRPIX1": 1.0, "CUNIT1": "Angstrom", "CTYPE1": "AWAV"}


def write(path, flux=FLUX, extensions=(), **header):
    primary = fits.PrimaryHDU(flux)
    primary.header.update({k: v for k, v in {**LINEAR, **header}.items() if v is not None})
    hdus = [primary]
    for name, values in extensions:
        hdu = fits.ImageHDU(values, name=name)
        hdu.header.update({k: v for k, v in {**LINEAR, **header}.items() if v is not None})
        hdus.append(hdu)
    fits.HDUList(hdus).writeto(path, overwrite=True)
    return path


def read(path, **how):
    return read_spectrum(path, **{"frame": "rest", "snr": 100.0, **how})


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({}, LINE),
        ({"CRPIX1": 101.0}, 5400 + 0.05 * (PIXEL - 101)),
        ({"CDELT1": None, "CD1_1": 0.05}, LINE),
        ({"CUNIT1": "nm", "CRVAL1": 540.0, "CDELT1": 0.005}, LINE),
        # FITS Paper III, table 3: lambda = CRVAL exp(CDELT (p - CRPIX) / CRVAL)
        ({"CTYPE1": "AWAV-LOG"}, 5400 * np.exp(0.05 / 5400 * (PIXEL - 1))),
        # IRAF: log10 of the wavelength, flagged by DC-FLAG or the name of the axis
        ({"CTYPE1": "LINEAR", "DC-FLAG": 1, "CRVAL1": np.log10(5400), "CDELT1": 4e-6}, LOG),
        ({"CTYPE1": "LOG-LINEAR", "CRVAL1": np.log10(5400), "CDELT1": 4e-6}, LOG),
        ({"CUNIT1": None, "CTYPE1": "LINEAR", "WAT1_001": "wtype=linear units=Angstroms"}, LINE),
    ],
)
def test_axes(tmp_path, header, expected):
    spectrum = read(write(tmp_path / "a.fits", **header), medium="air")
    np.testing.assert_allclose(spectrum.wavelength, expected, rtol=1e-12)
    np.testing.assert_array_equal(spectrum.flux, FLUX)


@pytest.mark.parametrize(
    ("ctype", "medium"), [("AWAV", "air"), ("WAVE", "vacuum"), ("LINEAR", None), (None, None)]
)
def test_medium_is_what_ctype_says(tmp_path, ctype, medium):
    path = write(tmp_path / "a.fits", CTYPE1=ctype)
    if medium is None:
        with pytest.raises(InputError, match="air or vacuum"):
            read(path)
    else:
        assert read(path).meta["medium"] == medium


@pytest.mark.parametrize(
    ("name", "values", "ivar"),
    [
        ("SIGMA", np.full(N, 0.02), 2500.0),
        ("ERR", np.full(N, 0.02), 2500.0),
        ("VARIANCE", np.full(N, 4e-4), 2500.0),
        ("IVAR", np.full(N, 2500.0), 2500.0),
    ],
)
def test_error_extensions(tmp_path, name, values, ivar):
    mask = np.zeros(N, np.int16)
    mask[5] = 1
    spectrum = read_spectrum(
        write(tmp_path / "a.fits", extensions=[(name, values), ("MASK", mask.astype(float))]), frame="rest"
    )
    np.testing.assert_allclose(np.delete(spectrum.ivar, 5), ivar, rtol=1e-6)
    assert spectrum.ivar[5] == 0 and spectrum.quality[5] == Quality.FLAGGED


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"flux": np.tile(FLUX, (4, 1))}, "300 x 4 pixels"),
        ({"flux": None}, "no image"),
        ({"flux": np.zeros(N, np.float32)}, "0 usable pixels"),
        ({"flux": -FLUX}, "0 usable pixels.*negative 300"),
        ({"flux": FLUX[:3]}, "at least 16"),
        ({"flux": (1000 * FLUX).astype(np.int32)}, "integers"),
        ({"CDELT1": -0.05}, "step -0.05"),
        ({"CDELT1": 0.0}, "step 0.0"),
        ({"CDELT1": None}, "neither CDELT1 nor CD1_1"),
        ({"CD1_1": 0.06}, "CDELT1 = 0.05 but CD1_1 = 0.06"),
        ({"CDELT1": "abc"}, "CDELT1 = 'abc'"),
        ({"CRVAL1": None}, "no CRVAL1"),
        ({"CRPIX1": None}, "no CRPIX1"),
        ({"CRVAL1": 540.0}, "wavelengths 540"),
        ({"CRVAL1": 5.4e6}, r"5.4e\+06"),
        ({"CUNIT1": "Hz"}, "wavelength unit 'Hz'"),
        ({"CTYPE1": "FREQ"}, "CTYPE1 = 'FREQ'"),
        ({"CTYPE1": "PIXEL"}, "in pixels"),
        ({"extensions": [("IVAR", np.where(PIXEL > 9, -1.0, 100.0))]}, "IVAR.*negative values in 291"),
        ({"extensions": [("ERR", np.full(N, -4.6))]}, "ERR.*negative values in 300"),
        ({"extensions": [("MASK", np.where(PIXEL > 9, 1.0, 0.0))]}, "MASK.*rename it GOOD"),
        ({"extensions": [("SIGMA", np.full(N - 1, 0.01))]}, "299 pixels"),
        ({"extensions": [("SIGMA", np.full(N, 0.01)), ("IVAR", np.full(N, 1e3))]}, "contradict each other"),
        ({"extensions": [("IVAR", np.full(N, 1e-9))]}, "median signal-to-noise"),
    ],
)
def test_what_is_no_sound_spectrum_is_refused_by_name(tmp_path, change, match):
    with pytest.raises(InputError, match=rf"bad\.fits.*{match}"):
        read(write(tmp_path / "bad.fits", **change))


def test_damaged_pixels_are_masked_and_counted(tmp_path):
    flux, ivar = FLUX.copy(), np.full(N, 1e4)
    flux[40], flux[60], flux[80] = 3.0, 0.2, -0.5  # a jump up, a jump down, far below zero
    ivar[100] = 1e9
    spectrum = read_spectrum(write(tmp_path / "a.fits", flux=flux, extensions=[("IVAR", ivar)]), frame="rest")
    assert set(np.flatnonzero(spectrum.quality)) == {40, 60, 80, 100}
    assert (spectrum.ivar[[40, 60, 80, 100]] == 0).all()
    assert spectrum.quality[40] & Quality.SPIKE and spectrum.quality[80] & Quality.NEGATIVE
    assert spectrum.quality[100] == Quality.ERROR_SPIKE
    assert spectrum.meta["masked"]["error_spike"] == 1


@pytest.mark.parametrize("fill", [1e20, -1e30, np.nan, np.inf])
@pytest.mark.parametrize("width", [1, 100, 200])
def test_a_fill_value_marks_its_pixels(tmp_path, fill, width):
    flux = FLUX.copy()
    flux[40 : 40 + width] = fill
    spectrum = read(write(tmp_path / "a.fits", flux=flux))
    bad = np.flatnonzero(spectrum.ivar == 0)
    assert set(range(40, 40 + width)) <= set(bad) <= set(range(39, 41 + width))
    np.testing.assert_array_equal(np.delete(spectrum.flux, bad), np.delete(FLUX, bad))


def test_absurd_values_of_many_sizes_condemn_the_file(tmp_path):
    flux = FLUX.copy()
    flux[40:44] = 1e20, -3e30, 1e25, 7e19
    with pytest.raises(InputError, match=r"flux 1e\+20 at pixel 40"):
        read(write(tmp_path / "a.fits", flux=flux))


@pytest.mark.parametrize("wrong", [-1.0, np.inf, -np.inf, np.nan, 0.0])
@pytest.mark.parametrize("name", ["STD", "VAR", "INVVAR"])
def test_an_undefined_error_marks_its_pixel(tmp_path, name, wrong):
    values = np.full(N, {"STD": 0.01, "VAR": 1e-4, "INVVAR": 1e4}[name])
    values[8] = wrong
    spectrum = read_spectrum(write(tmp_path / "a.fits", extensions=[(name, values)]), frame="rest")
    assert np.flatnonzero(spectrum.ivar == 0).tolist() == [8]
    np.testing.assert_allclose(np.delete(spectrum.ivar, 8), 1e4)


def test_a_frame_that_is_not_known_is_asked_for_by_name_and_can_be_given(tmp_path):
    path = write(tmp_path / "a.fits", SPECSYS="LSRK")
    with pytest.raises(InputError, match=r"SPECSYS = 'LSRK'.*frame="):
        read_spectrum(path, snr=100.0)
    assert read(path).frame == "rest"


def named(path, *extensions, primary=None):
    """Images under their names; the first of them in the primary where `primary` is its name."""
    hdus = [fits.PrimaryHDU()]
    for name, values, *rest in extensions:
        hdu = hdus[0] if name == primary else fits.ImageHDU(name=name)
        hdu.data = values
        hdu.header.update({"EXTNAME": name, **LINEAR})
        hdu.header.update(rest[0] if rest else {})
        if name != primary:
            hdus.append(hdu)
    fits.HDUList(hdus).writeto(path, overwrite=True)
    return path


ERR = np.full(N, 0.01)


@pytest.mark.parametrize("first", ["ERR", "SKY", "WAVE", "MASK", "BACKGROUND", "IVAR"])
@pytest.mark.parametrize("flux", ["FLUX", "SCI", "DATA", "Spectrum"])
@pytest.mark.parametrize("in_primary", [True, False])
def test_the_flux_is_the_array_called_so(tmp_path, first, flux, in_primary):
    before = {"WAVE": LINE, "MASK": np.zeros(N), "IVAR": ERR**-2.0}.get(first, ERR)
    path = named(
        tmp_path / "a.fits",
        (first, before),
        (flux, FLUX),
        ("UNC", ERR),
        primary=first if in_primary else None,
    )
    spectrum = read_spectrum(path, frame="rest")
    np.testing.assert_array_equal(spectrum.flux, FLUX)
    np.testing.assert_allclose(spectrum.ivar, 1e4)


def test_errors_without_a_flux_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"no image that is a flux among ERR, SKY.*EXTNAME"):
        read(named(tmp_path / "a.fits", ("ERR", ERR), ("SKY", FLUX), primary="ERR"))


def test_a_second_spectrum_is_told_and_keeps_its_errors(tmp_path, caplog):
    path = named(
        tmp_path / "a.fits",
        ("SCI", FLUX, {"EXTVER": 1}),
        ("ERR", ERR, {"EXTVER": 1}),
        ("SCI", 3 * FLUX, {"EXTVER": 2}),
        ("ERR", 5 * ERR, {"EXTVER": 2}),
    )
    spectrum = read_spectrum(path, frame="rest")
    np.testing.assert_allclose(spectrum.ivar, 1e4)
    assert "a second spectrum" in " ".join(spectrum.meta["not_used"]) and "not used" in caplog.text


def test_nddata_and_eso_say_what_an_array_is(tmp_path):
    variance = (("UNCERT", ERR**2, {"UTYPE": "VarianceUncertainty"}), ("UNCERT", ERR, {"UTYPE": "std"}))
    for extension in (*variance, ("X", ERR**2, {"HDUCLAS2": "ERROR", "HDUCLAS3": "MSE"})):
        spectrum = read_spectrum(named(tmp_path / "a.fits", ("FLUX", FLUX), extension), frame="rest")
        np.testing.assert_allclose(spectrum.ivar, 1e4)


def test_what_looks_like_errors_and_is_not_used_is_told(tmp_path):
    path = named(tmp_path / "a.fits", ("FLUX", FLUX), ("WEIGHT", ERR), ("BLAH", ERR))
    with pytest.raises(InputError, match=r"not used: extension WEIGHT.*BLAH.*snr="):
        read_spectrum(path, frame="rest")
    assert len(read_spectrum(path, frame="rest", estimate_noise=True).meta["not_used"]) == 2


def test_an_image_of_wavelengths_is_the_axis(tmp_path):
    bare = {key: None for key in LINEAR}
    path = tmp_path / "a.fits"
    named(path, ("FLUX", FLUX), ("ERR", ERR), ("WAVE_VAC", LINE / 10, {"BUNIT": "nm"}))
    with fits.open(path, mode="update") as file:
        for hdu in file[1:]:
            for key in bare:
                del hdu.header[key]
    spectrum = read_spectrum(path, frame="rest")
    assert spectrum.meta["medium"] == "vacuum"
    np.testing.assert_allclose(LINE - spectrum.wavelength, 1.50, atol=0.01)


@pytest.mark.parametrize("blank", [None, "", "   "])
def test_undefined_cards_are_as_good_as_none(tmp_path, blank):
    path = write(tmp_path / "a.fits")
    with fits.open(path, mode="update") as file:
        for key in ("SNR", "SPEC_RES", "OBJECT", "SPECSYS", "DC-FLAG", "DATASUM", "CHECKSUM"):
            file[0].header[key] = blank
    assert read(path).resolving_power is None


def test_a_keyword_that_is_not_needed_costs_no_spectrum(tmp_path):
    spectrum = read(write(tmp_path / "a.fits", SPEC_RES="N/A"))
    assert spectrum.resolving_power is None and "SPEC_RES = 'N/A'" in " ".join(spectrum.meta["notes"])
    assert read(write(tmp_path / "a.fits", SPEC_RES="47000")).resolving_power == 47000.0


def test_a_stale_sum_names_both_causes(tmp_path):
    path = tmp_path / "a.fits"
    hdu = fits.PrimaryHDU(FLUX)
    hdu.header.update(LINEAR)
    hdu.writeto(path, checksum=True)
    values, header = fits.getdata(path, header=True)
    fits.writeto(path, 2 * values, header, overwrite=True)
    with pytest.raises(InputError, match=r"DATASUM.*checksum=True.*delete the cards DATASUM and CHECKSUM"):
        read(path)
    del header["DATASUM"], header["CHECKSUM"]
    fits.writeto(path, 2 * values, header, overwrite=True)
    np.testing.assert_array_equal(read(path).flux, 2 * FLUX)


def test_estimated_noise_is_that_which_was_put_in(tmp_path, rng):
    flux = (np.ones(20000) * np.linspace(1, 2, 20000) + rng.normal(0, 0.02, 20000)).astype(np.float32)
    spectrum = read_spectrum(write(tmp_path / "a.fits", flux=flux), frame="rest", estimate_noise=True)
    np.testing.assert_allclose(spectrum.ivar**-0.5, 0.02, rtol=0.2)
    assert np.median(spectrum.ivar**-0.5) == pytest.approx(0.02, rel=0.02)


def test_hdf5_and_binaries_are_refused_with_a_hint(tmp_path):
    (tmp_path / "a.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(InputError, match="SpectraStore"):
        read(tmp_path / "a.h5")
    (tmp_path / "b.fits").write_bytes(bytes(range(256)) * 20)
    with pytest.raises(InputError, match="binary data"):
        read(tmp_path / "b.fits")
    with pytest.raises(InputError, match=r"none\.fits: found No such file"):
        read(tmp_path / "none.fits")
    with pytest.raises(InputError, match="directory"):
        read(tmp_path)
