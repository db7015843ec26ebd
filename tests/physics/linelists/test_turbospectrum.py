"""Turbospectrum's blocks."""

import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.physics.linelists.text import MOLECULE
from jaxspec.physics.linelists.turbospectrum import read_turbospectrum
from tests.physics.linelists.samples import TURBOSPECTRUM, text_of

# The Gaia-ESO list v6 (Heiter et al. 2021); the cross-section of calcium, 876.234, is left out here.
ORBITALS = """\
'   3.007            '    1         1
'Li I    LTE'
  6707.761  0.000 -0.009  346.236    4.0  3.69E+07 's' 'p'   0.0    1.0 'Li I LS:1s2.2s 2S LS:1s2.2p 2P*'
'  20.000            '    1         2
'Ca I    LTE'
  6122.217  1.886 -0.380   -7.189    3.0  7.24E+07  'p' 's'   0.0    1.0 'Ca I LS:4s.4p 3P* LS:4s.5s 3S'
  6122.217  1.886 -0.380   -7.189    3.0  7.24E+07  'x' 'x'   0.0    1.0 'Ca I LS:4s.4p 3P* LS:4s.5s 3S'
"""


def read(content):
    return read_turbospectrum(text_of(content), 0.0, np.inf)


def test_fields_of_the_format():
    iron, magnesium, calcium = read(TURBOSPECTRUM).rows
    assert iron[1:] == (5371.489, 26, 0, 0, 0.958, -1.645, -7.82, 1.41e7)
    assert magnesium.gamma_rad == 5.25e8  # with or without a Stark width before the orbitals
    assert (calcium.z, calcium.stage) == (20, 1)


def test_isotopes_orbitals_and_generic_cross_sections():
    raw = read(ORBITALS)
    lithium, orbitals, none = raw.rows
    assert not raw.scaled and lithium.isotope == 7 and lithium.damping == 346.236
    assert none.damping == -7.189
    # As the theory's own value for the line (Barklem, Piskunov & O'Mara 2000), to the scatter of the fit.
    assert np.floor(orbitals.damping) == pytest.approx(876, rel=0.2)
    assert orbitals.damping % 1 == pytest.approx(0.234, abs=0.04)


def test_molecules_are_marked():
    assert read(TURBOSPECTRUM.replace("'  12.000", "'0607.012014")).rows[1].z == MOLECULE


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("4.346", "4.3x6", "line 6.*numbers"),
        (
            "'  12.000            '    1         1",
            "'  12.000            '    1         2",
            "line 4.*expected 1",
        ),
        ("'  12.000            '    1         1", "'Mg '", "line 4.*heading"),
        ("-0.498   -6.980    5.0  5.25E+08  'x'", "", "line 6.*numbers"),
    ],
)
def test_malformed_files_are_refused_by_line(old, new, message):
    assert old in TURBOSPECTRUM
    with pytest.raises(InputError, match=message):
        read(TURBOSPECTRUM.replace(old, new))
