import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.io import Quality, read_spectrum

WAVE = 5400.0 + 0.05 * np.arange(200)
FLUX = 1.0 - 0.5 * np.exp(-0.5 * ((WAVE - 5405.0) / 0.2) ** 2)


def write(path, *columns, header="", sep=" ", end="\n"):
    rows = [sep.join(f"{v:.5f}" for v in row) for row in zip(*columns, strict=True)]
    path.write_text(header + "\n".join(rows) + end)
    return path


def read(path, **how):
    return read_spectrum(path, **{"frame": "rest", "medium": "air", **how})


@pytest.mark.parametrize("sep", [" ", "\t", ",", ", "])
@pytest.mark.parametrize("header", ["", "# wave flux err\n\n", "wavelength flux error\n"])
def test_separators_and_headers(tmp_path, sep, header):
    if "wavelength" in header:
        header = sep.join(header.split()) + "\n"
    spectrum = read(write(tmp_path / "a.dat", WAVE, FLUX, np.full(200, 0.01), header=header, sep=sep))
    np.testing.assert_allclose(spectrum.flux, FLUX, atol=1e-5)
    np.testing.assert_allclose(spectrum.ivar, 1e4)


def test_nm_is_read_when_said_and_refused_when_not(tmp_path):
    path = tmp_path / "nm.txt"
    np.savetxt(path, np.column_stack([WAVE / 10, FLUX, np.full(200, 0.01)]), fmt="%.6f")
    with pytest.raises(InputError, match=r"540 to 541 A.*unit="):
        read(path)
    np.testing.assert_allclose(read(path, unit="nm").wavelength, WAVE, atol=1e-4)


def test_vacuum_goes_to_air(tmp_path):
    path = write(tmp_path / "v.txt", WAVE, FLUX, np.full(200, 0.01))
    # n - 1 = 2.78e-4 at 5400 A (Morton 2000): 1.50 A.
    np.testing.assert_allclose(WAVE - read(path, medium="vacuum").wavelength, 1.50, atol=0.01)


def test_errors_of_zero_or_nan_mean_no_value(tmp_path):
    error = np.full(200, 0.01)
    error[[3, 4]] = 0.0, np.nan
    spectrum = read(write(tmp_path / "e.txt", WAVE, FLUX, error))
    assert (spectrum.ivar[[3, 4]] == 0).all() and (spectrum.quality[[3, 4]] == Quality.NO_ERROR).all()
    assert (spectrum.ivar > 0).sum() == 198


def test_flux_may_be_nan_only_where_the_file_says_it_is_bad(tmp_path):
    error, flux = np.full(200, 0.01), FLUX.copy()
    error[7], flux[7] = 0.0, np.nan
    assert np.isfinite(read(write(tmp_path / "a.txt", WAVE, flux, error)).flux).all()
    flux[9] = np.nan
    with pytest.raises(InputError, match=r"b\.txt: found flux nan at pixel 9"):
        read(write(tmp_path / "b.txt", WAVE, flux, error))


@pytest.mark.parametrize(
    ("what", "match"),
    [
        ("5400.0 1.0 0.01\n5400.1 abc 0.01\n", r"bad\.txt line 2: found '5400.1 abc 0.01'"),
        ("5400.0 1.0 0.01\n5400.1 1.0\n", r"bad\.txt line 2: found 2 columns"),
        ("5400.0 1.0 0.01 7 8\n", r"line 1: found 5 columns"),
        ("5400.0,,0.01\n", r"line 1: found '5400.0,,0.01'"),
        ("", "an empty file"),
        ("\n \n", "an empty file"),
        ("# nothing\n", "no numbers"),
        ("<html>\n<body>Not found</body>\n", r"bad\.txt line 2"),
    ],
)
def test_malformed_text_is_refused_with_its_line(tmp_path, what, match):
    (tmp_path / "bad.txt").write_text(what)
    with pytest.raises(InputError, match=match):
        read(tmp_path / "bad.txt")


def test_wavelengths_must_increase_and_stay_in_line(tmp_path):
    error = np.full(200, 0.01)
    wave = WAVE.copy()
    wave[50] = wave[49]
    with pytest.raises(InputError, match="not increasing at pixel 49"):
        read(write(tmp_path / "a.txt", wave, FLUX, error))
    wave = WAVE.copy()
    wave[50] += 0.03  # still increasing, but one digit is damaged
    with pytest.raises(InputError, match="out of line with its neighbours at pixel 50"):
        read(write(tmp_path / "b.txt", wave, FLUX, error))
    wave = np.concatenate([WAVE[:100], WAVE[100:] + 30.0])  # an honest gap
    assert read(write(tmp_path / "c.txt", wave, FLUX, error)).ivar.all()


def test_negative_and_infinite_errors_are_refused(tmp_path):
    for value in (-0.01, np.inf):
        error = np.full(200, 0.01)
        error[5] = value
        with pytest.raises(InputError, match=r"e\.txt column 3: found error .* at pixel 5"):
            read(write(tmp_path / "e.txt", WAVE, FLUX, error))


def test_a_line_cut_off_is_noticed(tmp_path):
    path = write(tmp_path / "cut.txt", WAVE, FLUX, np.full(200, 0.01))
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InputError, match=r"cut\.txt line 200: found a line that is cut off"):
        read(path)


def test_rest_and_velocity_contradict_each_other(tmp_path):
    path = write(tmp_path / "a.txt", WAVE, FLUX, np.full(200, 0.01))
    with pytest.raises(InputError, match="velocity"):
        read(path, frame="rest", velocity=20.0)
    assert read(path, frame="barycentric", velocity=20.0).rest_wavelength()[0] == pytest.approx(
        5400 / (1 + 20 / 299792.458), abs=1e-4
    )
    with pytest.raises(InputError, match="barycentric frame without a velocity"):
        read(path, frame="barycentric").rest_wavelength()
    for bad in ({"frame": "galactic"}, {"medium": "water"}, {"snr": -1.0}, {"unit": "furlong"}):
        with pytest.raises(InputError):
            read(path, **bad)
