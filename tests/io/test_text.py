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


def test_a_flux_of_nan_marks_its_pixel_and_what_is_beside_it(tmp_path):
    error, flux = np.full(200, 0.01), FLUX.copy()
    flux[7], flux[9] = np.nan, np.inf
    spectrum = read(write(tmp_path / "a.txt", WAVE, flux, error))
    assert np.isfinite(spectrum.flux).all() and np.flatnonzero(spectrum.ivar == 0).tolist() == [6, 7, 8, 9]


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


@pytest.mark.parametrize("value", [-0.01, np.inf])
def test_a_negative_or_infinite_error_marks_its_pixel(tmp_path, value):
    error = np.full(200, 0.01)
    error[5] = value
    spectrum = read(write(tmp_path / "e.txt", WAVE, FLUX, error))
    assert np.flatnonzero(spectrum.ivar == 0).tolist() == [5]
    with pytest.raises(InputError, match=r"e\.txt column 3: found negative values in 200 of 200"):
        read(write(tmp_path / "e.txt", WAVE, FLUX, -np.abs(error[:1]) * np.ones(200)))


@pytest.mark.parametrize("mark", ["", "# ", "#", "; "])
@pytest.mark.parametrize("sep", [" ", ",", ";", "\t", " | "])
@pytest.mark.parametrize(
    ("name", "power"),
    [("variance", 2), ("var", 2), ("ivar", -2), ("flux_ivar", -2), ("sigma", 1), ("e_flux", 1)],
)
def test_names_decide_what_a_column_is(tmp_path, mark, sep, name, power):
    error = np.full(200, 0.01)
    names, columns = (
        ["flag", name, "flux", "wave"],
        [np.arange(200) == 7, 0.01**power * np.ones(200), FLUX, WAVE],
    )
    spectrum = read(write(tmp_path / "a.dat", *columns, header=mark + sep.join(names) + "\n", sep=sep))
    np.testing.assert_allclose(spectrum.wavelength, WAVE)
    np.testing.assert_allclose(np.delete(spectrum.ivar, 7), np.delete(error, 7) ** -2.0, rtol=1e-6)
    assert spectrum.ivar[7] == 0 and not spectrum.meta["not_used"]


def test_a_name_that_is_not_understood_is_told_or_refused(tmp_path):
    path = write(tmp_path / "a.dat", WAVE, FLUX, np.full(200, 0.01), header="wave flux blah\n")
    with pytest.raises(InputError, match=r"not used: column 'blah'"):
        read(path)
    assert read(path, estimate_noise=True).meta["not_used"] == ["column 'blah'"]
    for header, match in (
        ("a b c\n", "'a b c'.*wavelength flux error"),
        ("wave err var\n", "no column of flux"),
    ):
        with pytest.raises(InputError, match=match):
            read(write(tmp_path / "b.dat", WAVE, FLUX, np.full(200, 0.01), header=header))
    header = "# wavelength, flux and the inverse variance of the flux\n"
    with pytest.raises(InputError, match=r"inverse variance.*write the names before the numbers"):
        read(write(tmp_path / "c.dat", WAVE, FLUX, np.full(200, 0.01), header=header))


@pytest.mark.parametrize(
    ("name", "scale", "medium"),
    [
        ("wavelength[nm]", 10, None),
        ("lambda_vac (um)", 1e4, "vacuum"),
        ("wave_air_nm", 10, "air"),
        ("wl/A", 1, None),
    ],
)
def test_a_name_states_unit_and_medium(tmp_path, name, scale, medium):
    path = tmp_path / "a.txt"
    rows = "\n".join(f"{w:.9f},{f:.6f},0.01" for w, f in zip(WAVE / scale, FLUX, strict=True))
    path.write_text(f"{name},flux,err\n{rows}\n")
    spectrum = read_spectrum(path, frame="rest", medium=None if medium else "air")
    assert spectrum.meta["medium"] == (medium or "air")
    np.testing.assert_allclose(spectrum.wavelength, WAVE - (1.50 if medium == "vacuum" else 0), atol=0.01)


@pytest.mark.parametrize("coding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("header", ["", "wavelength,flux,err\n"])
def test_the_byte_order_marks_of_excel(tmp_path, coding, header):
    path = write(tmp_path / "a.csv", WAVE, FLUX, np.full(200, 0.01), header=header, sep=",")
    path.write_bytes(path.read_text().encode(coding))
    np.testing.assert_allclose(read(path).ivar, 1e4)


def test_a_comment_in_latin_1_is_a_comment(tmp_path):
    path = write(tmp_path / "a.txt", WAVE, FLUX, np.full(200, 0.01))
    path.write_bytes("# wavelength [Å], Längen in Luft\n".encode("latin-1") + path.read_bytes())
    np.testing.assert_allclose(read(path).ivar, 1e4)
    path.write_bytes(path.read_bytes() + b"5410.0 0.9\xe5 0.01\n")
    with pytest.raises(InputError, match=r"a\.txt line 202: found byte 0xe5"):
        read(path)


def test_blank_cells_and_words_for_none_mark_their_pixels(tmp_path):
    path = tmp_path / "a.csv"
    cells = {3: ",,0.01,good", 9: ",1.0,--,x", 12: ",INDEF,0.01,x", 20: ",1.0,,x"}
    rows = [
        f"{w:.4f}" + cells.get(i, f",{f:.4f},0.01,x") for i, (w, f) in enumerate(zip(WAVE, FLUX, strict=True))
    ]
    path.write_text("wave,flux,err,remark\n" + "\n".join(rows) + "\n")
    assert set(np.flatnonzero(read(path).ivar == 0)) == {2, 3, 4, 9, 11, 12, 13, 20}


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
