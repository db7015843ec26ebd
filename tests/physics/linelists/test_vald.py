"""VALD's four formats; the samples have its own columns."""

import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.physics.linelists.text import MOLECULE
from jaxspec.physics.linelists.vald import read_vald
from tests.physics.linelists.samples import (
    SCALED,
    VALD_LONG_ALL,
    VALD_LONG_STELLAR,
    VALD_SHORT_ALL,
    VALD_SHORT_STELLAR,
    text_of,
)


def read(content):
    return read_vald(text_of(content), 0.0, np.inf)


def test_short_line_as_vald_documents_it():
    raw = read(VALD_SHORT_STELLAR)
    iron = raw.rows[0]
    assert raw.vacuum and raw.scaled
    assert (iron.wavelength, iron.z, iron.stage, iron.isotope) == (5372.9831, 26, 0, 0)
    assert (iron.energy, iron.log_gf, iron.damping) == (0.9582, -1.645, -7.82)
    assert iron.gamma_rad == pytest.approx(10**7.15)
    assert raw.rows[2].z == 20 and raw.rows[2].stage == 1


def test_long_formats_have_the_lines_of_the_short_ones():
    for long, short in ((VALD_LONG_ALL, VALD_SHORT_ALL), (VALD_LONG_STELLAR, VALD_SHORT_STELLAR)):
        for a, b in zip(read(long).rows, read(short).rows, strict=False):
            assert a.energy == pytest.approx(b.energy, abs=1e-4)
            assert a._replace(number=0, energy=0.0) == b._replace(number=0, energy=0.0)


def test_units_are_read_from_the_heading():
    nm = VALD_SHORT_ALL.replace("WL_air(A)", "WL_vac(nm)").replace("5371.48900", " 537.29831")
    assert read(nm).vacuum and read(nm).rows[0].wavelength == pytest.approx(5372.9831)


def test_abo_and_missing_damping():
    abo = VALD_SHORT_ALL.replace("-7.820", "241.248").replace("-6.980", " 0.000").replace("8.720", "0.000")
    rows = read(abo).rows
    assert rows[0].damping == 241.248
    assert rows[1].damping == 0 and rows[1].gamma_rad == 0


def test_isotopes_and_their_scaling():
    isotopic = VALD_SHORT_ALL.replace("             Fe'", "        (56)Fe'")
    assert read(isotopic).rows[0].isotope == 56 and read(isotopic).scaled
    assert not read(isotopic.replace("were scaled", "were NOT scaled")).scaled
    with pytest.raises(InputError, match="statement about isotopes"):
        read(isotopic.replace(SCALED, ""))


def test_molecules_are_told_from_elements():
    for name in ("CN", "TiO", "C2", "MgH", "FeH", "CO"):
        assert read(VALD_SHORT_ALL.replace("Mg 1", f"{name} 1")).rows[1].z == MOLECULE
    assert read(VALD_SHORT_ALL.replace("Mg 1", "Co 1")).rows[1].z == 27


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("4.3458", "4.3x58", "line 4.*found.*4.3x58.*expected 7 numbers"),
        ("Mg 1", "Xq 1", "line 4.*Xq"),
        ("'Mg 1'", "'Mg1'", "line 4.*Fe 1"),
        ("WL_air(A)", "WL_air", "heading without WL_air"),
        ("WL_air(A)", "WL(A)", "heading without WL_air"),
        ("WL_air(A)", "WL_air(micron)", "unit micron"),
        ("Excit(eV)", "Excit", "heading without Excit"),
        ("2 KP              Mg'", "2 KP     ", "line 4"),
    ],
)
def test_malformed_files_are_refused_by_line(old, new, message):
    assert old in VALD_SHORT_ALL
    with pytest.raises(InputError, match=message):
        read(VALD_SHORT_ALL.replace(old, new))


def test_lost_lines_are_noticed():
    lines = VALD_SHORT_STELLAR.splitlines()
    with pytest.raises(InputError, match="found 2 lines; expected 3"):
        read("\n".join(lines[:5] + lines[6:]))
    with pytest.raises(InputError, match=r"line 7.*three lines of text"):
        read("\n".join(VALD_LONG_ALL.splitlines()[:9]))
    with pytest.raises(InputError, match="line 4"):
        read(VALD_SHORT_ALL.replace("'Mg 1',      5528.40500,   4.3458, -0.498,", "Mg,"))
