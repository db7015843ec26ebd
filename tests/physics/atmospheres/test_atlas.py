"""ATLAS9 and ATLAS12 files against the numbers printed in them."""

import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.physics.atmospheres import read_atmosphere
from tests.physics.atmospheres.published import ATLAS_CARDS, ATLAS_DWARF

# ATLAS12 (Kurucz 2005, Mem. S.A.It. Suppl. 8, 14): wider columns, and abundances as a table with changes. The
# cards and the first layer are those of a published model, the other two layers are made up.
ATLAS12 = """\
TEFF  5500.  GRAVITY  4.5000 LTE
TITLE ATLAS12 l/H= 2.00
 ABUNDANCE TABLE
    1H   0.920440       2He  0.078340
    3Li-10.990 0.000    4Be-10.620 0.000    5B  -9.250 0.300
READ DECK6  3        RHOX         T         P       XNE    ABROSS    ACCRAD     VTURB    FLXCNV     VCONV
              5.26119E-04   3449.70 1.663E+01 2.256E+09 2.533E-04 9.034E-02 2.000E+05 0.000E+00 0.000E+00
              6.86301E-04   3477.10 2.170E+01 2.896E+09 2.991E-04 9.514E-02 2.000E+05 0.000E+00 0.000E+00
              8.65911E-04   3504.70 2.738E+01 3.610E+09 3.498E-04 9.834E-02 1.000E+05 0.000E+00 0.000E+00
PRADK 1.2144E+00
"""


@pytest.fixture
def read(tmp_path):
    def write_and_read(content: str, **options):
        path = tmp_path / "model.dat"
        path.write_text(content)
        return read_atmosphere(path, **options)

    return write_and_read


def test_atlas9_dwarf(read):
    model = read(ATLAS_DWARF)
    assert model.format == "atlas" and model.geometry == "plane-parallel"
    assert (model.teff, model.logg, model.m_h, model.vmic) == (5750.0, 4.5, 0.0, 2.0)
    assert np.isnan(model.alpha_m)
    np.testing.assert_allclose(
        model.atmosphere.column_mass,
        [5.56174690e-4, 7.25706868e-4, 9.15709699e-4, 1.12829120e-3, 1.36606923e-3],
        rtol=1e-7,
    )
    np.testing.assert_allclose(
        model.atmosphere.temperature, [3628.5, 3656.7, 3685.1, 3715.2, 3746.0], rtol=1e-7
    )
    np.testing.assert_allclose(model.atmosphere.pressure, [17.59, 22.95, 28.96, 35.68, 43.20], rtol=1e-7)


def test_abundances_are_those_of_the_mixture(read):
    """Grevesse & Sauval (1998), which the grid says it takes: He 10.93, C 8.52, Mg 7.58, Fe 7.50."""
    values = read(ATLAS_DWARF).abundances
    np.testing.assert_allclose(values[[0, 1, 5, 11, 25]], [12.0, 10.93, 8.52, 7.58, 7.50], atol=0.006)
    assert np.isnan(values[26:86]).all()  # the cards of Co to Rn are left out of the excerpt


def test_the_scale_is_the_metallicity_and_applies_to_metals(read):
    solar, poor = read(ATLAS_DWARF), read(ATLAS_DWARF.replace("SCALE   1.00000", "SCALE   0.31622"))
    assert poor.m_h == pytest.approx(-0.5, abs=1e-4)
    np.testing.assert_allclose(
        (poor.abundances - solar.abundances)[[0, 1, 2, 25]], [0, 0, -0.5, -0.5], atol=1e-4
    )


def test_atlas12(read):
    model = read(ATLAS12)
    assert (model.teff, model.logg) == (5500.0, 4.5)
    assert np.isnan(model.m_h) and np.isnan(model.vmic)  # no scale; microturbulence varies with depth
    np.testing.assert_allclose(model.atmosphere.temperature, [3449.7, 3477.1, 3504.7], rtol=1e-7)
    # log10 of the fraction of all nuclei, on the scale where hydrogen, 0.92044 of them, has 12.
    np.testing.assert_allclose(
        model.abundances[:5],
        12 - np.log10(0.92044) + np.array([np.log10(0.92044), np.log10(0.07834), -10.99, -10.62, -8.95]),
    )


def test_columns_may_touch(read):
    touching = ATLAS_DWARF.replace("1.36606923E-03   3746.0", "1.36606923E-0313746.0")
    assert float(read(touching).atmosphere.temperature[-1]) == 13746.0


def test_without_cards_nothing_is_said_of_abundances(read):
    content = ATLAS_DWARF.replace(ATLAS_CARDS, ATLAS_CARDS.splitlines(keepends=True)[0])
    model = read(content)
    assert model.abundances is None and np.isnan(model.m_h)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("3685.1", "3685.l", "line 16: found ' 9.15709699E-04   3685.l.*expected numbers of layer 3 of 5"),
        ("   3685.1", "  -3685.1", "line 16: found temperature -3685.1; expected a positive number"),
        ("3685.1", "******", "line 16: .*expected numbers of layer 3 of 5"),
        ("9.15709699E-04", "7.15709699E-04", "line 16: found column mass 0.00071571 after 0.000725"),
        ("DECK6  5", "DECK6  4", "line 18: found another layer; expected no more than 4 layers"),
        ("DECK6  5", "DECK6  6", "line 19: found 'PRADK.*expected numbers of layer 6 of 6"),
        ("DECK6  5", "DECK6  1", "line 13: found 1 layers; expected 2 or more"),
        ("RHOX,T,P", "RHOX,P,T", "line 13: found 'READ DECK6.*expected READ DECK6, a number of layers"),
        (" 4.598E+09", "", "line 16: found 9 columns; expected 10 as above"),
        ("TEFF   5750.", "TEFF   hot  ", "line 1: .*expected TEFF and GRAVITY, each with a number"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_line(old, new, message, read):
    assert ATLAS_DWARF.count(old) == 1
    with pytest.raises(InputError, match=message):
        read(ATLAS_DWARF.replace(old, new))


@pytest.mark.parametrize(
    ("end", "message"),
    [
        ("3715.2 3.5", "line 17: found 3 columns; expected 10 as above"),
        ("6.515E+05\n", "line 18: found the end of the file; expected numbers of layer 5 of 5; .*truncated"),
        ("6.50", "line 18: found a line that is cut off; .*truncated"),
        (" ABUNDANCE CHANGE 99 -20.00\n", "no line with '.READ DECK6' from line 1 on"),
    ],
)
def test_truncated_files_are_refused(end, message, read):
    content = ATLAS_DWARF[: ATLAS_DWARF.rindex(end) + len(end)]
    with pytest.raises(InputError, match=message):
        read(content, format="atlas")


def test_a_grid_is_not_one_model(read):
    with pytest.raises(InputError, match="line 21: found the second of 2 models; expected one model a file"):
        read(ATLAS_DWARF + ATLAS_DWARF)
