"""MARCS files against the numbers printed in two published ones."""

import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.physics.atmospheres import read_atmosphere
from jaxspec.physics.constants import SOLAR_ABUNDANCES
from tests.physics.atmospheres.published import MARCS_GIANT, MARCS_SUN

GIANT_LINE = "   5 Number of depth points"


@pytest.fixture
def read(tmp_path):
    def write_and_read(content: str, **options):
        path = tmp_path / "model.mod"
        path.write_text(content)
        return read_atmosphere(path, **options)

    return write_and_read


def test_plane_parallel_sun(read):
    model = read(MARCS_SUN)
    assert model.format == "marcs" and model.geometry == "plane-parallel"
    assert (model.teff, model.m_h, model.alpha_m, model.vmic) == (5777.0, 0.0, 0.0, 1.0)
    assert model.logg == pytest.approx(4.44, abs=1e-4)
    # MARCS' solar mixture is that of Grevesse, Asplund & Sauval (2007), as ours.
    np.testing.assert_array_equal(model.abundances, SOLAR_ABUNDANCES)
    np.testing.assert_allclose(
        model.atmosphere.column_mass,
        [9.747804e-3, 1.271237e-2, 1.652902e-2, 2.144205e-2, 2.776095e-2],
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        model.atmosphere.temperature, [4066.8, 4102.6, 4145.9, 4190.4, 4235.5], rtol=1e-6
    )
    np.testing.assert_allclose(model.atmosphere.pressure, [266.99, 345.86, 446.94, 577.06, 744.43], rtol=1e-6)


def test_spherical_giant(read):
    model = read(MARCS_GIANT)
    assert model.geometry == "spherical"
    assert (model.teff, model.vmic) == (5000.0, 2.0) and model.logg == pytest.approx(3.0)
    assert float(model.atmosphere.column_mass[-1]) == pytest.approx(0.140264)
    assert float(model.atmosphere.pressure[0]) == pytest.approx(44.98)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("4145.9", "41x5.9", r"line 28: found '  3 -4.60 .*41x5.9.*expected numbers of layer 3 of 5"),
        ("4145.9", "-4145.9", "line 28: found temperature -4145.9; expected a positive number"),
        ("4.4694E+02", "0.0000E+00", "line 28: found gas pressure 0; expected a positive number"),
        ("1.652902E-02", "1.271237E-02", r"line 34: found column mass 0.0127124 after 0.0127124; .* grows"),
        ("1.652902E-02", "1.652902E-0x", "line 34: found '  3 -4.60.*expected numbers of layer 3 of 5"),
        ("2.0990E-09 1.267", "2.0990E-09 12.67", "line 35: found mean molecular weight 12.67; expected 0.5"),
        ("   5 Number", "   4 Number", "line 30: found '  5 -4.20.*expected the names of columns.*4 layers"),
        ("   5 Number", "   6 Number", "line 31: found ' k lgTauR.*expected numbers of layer 6 of 6"),
        ("  4 -4.40  3.43", "  7 -4.40  3.43", "line 35: found layer 7; expected layer 4"),
        ("  4 -4.40  3.43", "  4 -4.30  3.43", "line 35: found lgTauR -4.3; expected -4.4 as in line 29"),
        ("  1.00   2.19 ", "  1.00   2,19 ", "line 18: .*expected abundances from the 51. of 92 on"),
        (" -99.00  -0.52", " -99.00", "line 23: .*expected abundances from the 92. of 92 on"),
        ("  2.7542E+04 Surface", "  -2.75E+04 Surface", "line 4: found gravity -27500; expected a positive"),
        ("  5777.      Teff", "  hot        Teff", "line 2: found '  hot .*expected 1 number"),
        ("RHOX", "RHO", "line 31: .*expected the names of columns, among them lgTauR, Mu, RHOX"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_line(old, new, message, read):
    assert MARCS_SUN.count(old) == 1
    with pytest.raises(InputError, match=message):
        read(MARCS_SUN.replace(old, new))


@pytest.mark.parametrize(
    ("end", "message"),
    [
        ("4.4694E+02", "line 28: found 7 columns; expected 9 as above"),
        (
            "2.144205E-02\n",
            "line 36: found the end of the file; expected numbers of layer 5 of 5; .*truncated",
        ),
        ("2.776", "line 36: found a line that is cut off; .*truncated"),
        ("Model structure\n", "line 25: found the end of the file; expected the names of columns"),
        ("H always 12.00\n", "no line with 'Number of depth points' from line 1 on.*truncated"),
    ],
)
def test_truncated_files_are_refused(end, message, read):
    content = MARCS_SUN[: MARCS_SUN.index(end) + len(end)]
    with pytest.raises(InputError, match=message):
        read(content, format="marcs")
