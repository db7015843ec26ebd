"""MOOG's lists, and the meanings of its fourth and fifth column."""

import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.physics.linelists.moog import read_moog
from jaxspec.physics.linelists.text import MOLECULE
from tests.physics.linelists.samples import MOOG, MOOG_FREE, text_of


def read(content, **options):
    return read_moog(text_of(content), 0.0, np.inf, **options)


def test_fixed_and_free_form_agree():
    assert read(MOOG).rows == read(MOOG_FREE).rows
    iron, _, calcium = read(MOOG).rows
    assert (iron.wavelength, iron.z, iron.stage, iron.energy, iron.log_gf) == (5371.489, 26, 0, 0.958, -1.645)
    assert (calcium.z, calcium.stage, calcium.isotope) == (20, 1, 0)


def test_blank_damping_is_absent():
    rows = read("title\n  5371.489      26.0     0.958    -1.645                         10.0\n").rows
    assert rows[0].damping == 0.0


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("0.0", 0.0),
        ("-7.82", -7.82),
        ("1.514e-8", -7.82),  # the width itself
        ("2.0", 2.0**0.4),  # multiplies C6
        # C6 of Fe I: 17 C6^0.4 v^0.6 with v = 1.47e6 cm/s at 10,000 K.
        ("1.e-31", np.log10(17 * 1e-31**0.4 * (2.1175e8 * 1e4 * (1 / 55.845 + 1 / 1.008)) ** 0.3)),
        ("-31.0", np.log10(17 * 1e-31**0.4 * (2.1175e8 * 1e4 * (1 / 55.845 + 1 / 1.008)) ** 0.3)),
    ],
)
def test_damping_column(given, expected):
    rows = read(f"title\n5371.489 26.0 0.958 -1.645 {given} 0.0 0.0\n").rows
    assert rows[0].damping == pytest.approx(expected, abs=2e-3)


def test_gf_or_log_gf():
    positive = MOOG_FREE.replace("-1.645", "0.02265").replace("-0.498", "0.3177").replace("-0.463", "0.3443")
    with pytest.raises(InputError, match='give gf="log" or gf="linear"'):
        read(positive)
    linear = [row.log_gf for row in read(positive, gf="linear").rows]
    assert linear == pytest.approx([-1.645, -0.498, -0.463], abs=1e-3)
    assert read(positive, gf="log").rows[0].log_gf == 0.02265
    with pytest.raises(InputError, match=r"line 2.*positive gf"):
        read(MOOG_FREE, gf="linear")


def test_isotopes_molecules_blends_and_wavenumbers():
    rows = read("t\n-6141.713 56.1137 0.704 -0.030 0 0 0\n5100.249 112.00124 0.607 -0.5 0 1.34 0\n").rows
    assert (rows[0].wavelength, rows[0].z, rows[0].stage, rows[0].isotope) == (6141.713, 56, 1, 137)
    assert rows[1].z == MOLECULE
    rows = read(MOOG_FREE.replace("0.958", "7728.060").replace("4.346", "35051.264")).rows
    assert [row.energy for row in rows[:2]] == pytest.approx([0.95816, 4.34580], abs=1e-4)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("26.0", "Fe", "line 2.*species"),
        ("4.346", "4.3a6", "line 3"),
        ("4.346 -0.498 -6.98 0.0 200.0", "4.346", "line 3"),
        ("-6.98", "-6.9x", "line 3"),
        ("three lines of the optical (freeform)\n", "", "line 1.*title"),
    ],
)
def test_malformed_lines_are_refused_by_number(old, new, message):
    with pytest.raises(InputError, match=message):
        read(MOOG_FREE.replace(old, new, 1))
