"""Wavelength axes as standards and writers state them, each against its definition, or refused."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from jaxspec.errors import InputError
from jaxspec.io.wcs import axis_from_header, to_angstrom

N = 200
PIXEL = np.arange(1, N + 1)
LINE = 5400 + 0.05 * (PIXEL - 1)
BASE = {"CRVAL1": 5400.0, "CDELT1": 0.05, "CRPIX1": 1.0, "CUNIT1": "Angstrom", "CTYPE1": "AWAV"}


def header(**cards):
    made = fits.Header()
    for key, value in {**BASE, **cards}.items():
        if value is not None:
            made[key] = value
    return made


def axis(**cards):
    return axis_from_header(header(**cards), N, "x.fits")


@pytest.mark.parametrize(
    "cards",
    [
        {"PC1_1": 0.05, "CDELT1": 1.0},
        {"PC1_1": 0.5, "CDELT1": 0.1},
        {"PC1_1": 0.05, "CDELT1": None},
        {"PC1_1": 0.1, "CDELT1": 0.5, "CUNIT1": "Angstrom"},
        {"PC001001": 0.05, "CDELT1": 1.0},
        {"CD1_1": 0.05, "CDELT1": 1.0},
        {"CD1_1": 0.05, "CDELT1": None, "CD1_2": 0.0, "CD2_2": 1.0},
        {"CD1_1": 0.05, "CDELT1": 0.05 * (1 + 1e-8)},
        {"CTYPE1": "AWAV-WAV"},
        {"CTYPE1": "Wavelength"},
        {"CTYPE1": None, "CUNIT1": None},
        {"CUNIT1": "nm", "CRVAL1": 540.0, "CDELT1": 0.005},
        {"CUNIT1": "10**-10 m"},
        {"CUNIT1": None, "WAT1_001": "wtype=linear label=Wavelength units=angstroms units_display=nm"},
        # a column: wavelengths lie along the second axis
        {
            **{"NAXIS": 2, "NAXIS1": 1, "NAXIS2": N, "CTYPE1": "LINEAR", "CRVAL1": 1.0, "CDELT1": 1.0},
            **{"CTYPE2": "AWAV", "CRVAL2": 5400.0, "CDELT2": 0.05, "CRPIX2": 1.0, "CUNIT2": "Angstrom"},
        },
    ],
)
def test_linear_axes_in_every_legal_way(cards):
    np.testing.assert_allclose(axis(**cards).wavelength, LINE, rtol=1e-11)


def test_what_astropy_writes_of_a_cd_matrix_comes_back():
    written = WCS(header(CD1_1=0.05, CDELT1=None)).to_header()
    np.testing.assert_allclose(axis_from_header(written, N, "x").wavelength, LINE, rtol=1e-11)
    assert axis_from_header(written, N, "x").medium == "air"


@pytest.mark.parametrize("code", ["WAVE-F2W", "AWAV-F2A", "WAVE-LOG", "AWAV-LOG", "WAVE-V2W"])
def test_other_algorithms_are_astropys(code):
    cards = {**BASE, "CTYPE1": code, "RESTWAV": 5.4e-7} if code == "WAVE-V2W" else {**BASE, "CTYPE1": code}
    expected = WCS(header(**cards)).wcs_pix2world(PIXEL.astype(float), 1)[0] * 1e10
    result = axis(**cards)
    np.testing.assert_allclose(result.wavelength, expected, rtol=1e-12)
    assert result.medium == ("air" if code.startswith("AWAV") else "vacuum")


@pytest.mark.parametrize(
    "cards", [{"CTYPE1": "LOG-LINEAR"}, {"CTYPE1": "LINEAR", "DC-FLAG": 1}, {"CTYPE1": "LOG"}]
)
def test_iraf_logarithms(cards):
    result = axis(**cards, CRVAL1=np.log10(5400), CDELT1=4e-6)
    np.testing.assert_allclose(result.wavelength, 5400 * 10 ** (4e-6 * (PIXEL - 1)), rtol=1e-12)


@pytest.mark.parametrize(
    ("cards", "medium"),
    [
        *(({"VACUUM": value}, "vacuum") for value in (True, 1, 1.0, "T", "yes")),
        *(({"VACUUM": value}, "air") for value in (False, 0, "F")),
        ({"AIR": True}, "air"),
        ({"AIRORVAC": "vac"}, "vacuum"),
        ({"AIRORVAC": "Vacuum wavelengths"}, "vacuum"),
        ({"VACAIR": "air"}, "air"),
        ({"HIERARCH ESO DRS VACUUM": True}, "vacuum"),
        ({"WAT1_001": 'wtype=linear label="Vacuum wavelength" units=angstroms'}, "vacuum"),
        ({"WAT1_001": "wtype=linear label=Vacuum units=angstroms"}, "vacuum"),
        ({"WAT1_001": 'wtype=linear label="Wavelength" units=angstroms'}, None),
        ({"CTYPE1": ("LINEAR", "wavelength in vacuum")}, "vacuum"),
        ({"CTYPE1": ("LINEAR", "air or vacuum?")}, None),
        ({"VACUUM": "unknown"}, None),
        ({"VACUUM": 1e-6}, None),  # the pressure in a dewar
        ({"CNAME1": "air wavelength"}, "air"),
    ],
)
def test_medium(cards, medium):
    assert axis(**{"CTYPE1": "LINEAR", **cards}).medium == medium


@pytest.mark.parametrize(
    ("cards", "match"),
    [
        ({"VACUUM": True}, "CTYPE1 = 'AWAV' but VACUUM = True"),
        ({"CTYPE1": "WAVE", "AIRORVAC": "air"}, "CTYPE1 = 'WAVE' but AIRORVAC = 'air'"),
        ({"CTYPE1": "LINEAR", "VACUUM": True, "AIRORVAC": "air"}, "one medium"),
        ({"CTYPE1": "AWAV-TAB"}, "look-up table"),
        ({"CTYPE1": "AWAV-XYZ"}, "AWAV-XYZ"),
        ({"CTYPE1": "VELO"}, "VELO"),
        ({"CTYPE1": "MULTISPE"}, "MULTISPE"),
        ({"PC1_1": 0.05, "CDELT1": 1.0, "CD1_1": 0.06}, "CD1_1 = 0.06"),
        ({"CD1_1": 0.06}, "CDELT1 = 0.05 but CD1_1 = 0.06"),
        ({"CD1_1": 0.05, "CDELT1": None, "CD1_2": 0.01}, "CD1_2 = 0.01"),
        ({"CROTA1": 3.0}, "CROTA1"),
        ({"CPDIS1": "LOOKUP"}, "CPDIS1"),
        ({"WAT1_001": "wtype=linear units=nm"}, "CUNIT1 = 'Angstrom' but WAT1_001 has units=nm"),
        ({"DC-FLAG": -1}, "DC-FLAG = -1"),
        ({"CTYPE1": "LOG-LINEAR", "DC-FLAG": 0}, "DC-FLAG = 0"),
        ({"CTYPE1": "AWAV-LOG", "DC-FLAG": 1}, "DC-FLAG = 1"),
        ({"PC1_1": -1.0}, "step -0.05"),
        ({"CTYPE1": "WAVE-V2W"}, "astropy"),  # without RESTWAV
    ],
)
def test_contradictions_and_what_is_not_known_are_refused(cards, match):
    with pytest.raises(InputError, match=match):
        axis(**cards)


@pytest.mark.parametrize("key", ["CRVAL1", "CDELT1", "CTYPE1", "CUNIT1", "CRPIX1"])
def test_a_keyword_with_two_values_is_refused(key):
    made = header()
    made.append((key, made[key]), end=True)
    np.testing.assert_allclose(axis_from_header(made, N, "x").wavelength, LINE)
    made[(key, 1)] = "other" if isinstance(made[key], str) else 7.0
    with pytest.raises(InputError, match=f"{key} stands in the header with"):
        axis_from_header(made, N, "x")


def test_units():
    assert to_angstrom("0.1 nm", "x") == 1.0 and to_angstrom("Å", "x") == 1.0
    assert to_angstrom("pm", "x") == pytest.approx(0.01)
    with pytest.raises(InputError, match="'Hz'"):
        to_angstrom("Hz", "x")
