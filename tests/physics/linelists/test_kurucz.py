"""Kurucz's 160 columns."""

import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.physics.linelists.kurucz import is_kurucz, read_kurucz
from jaxspec.physics.linelists.text import MOLECULE
from tests.physics.linelists.samples import KURUCZ, text_of

# Ba II 6141.7 A in vacuum with hyperfine structure and isotopes (Kurucz, gfallvac08oct17).
BARIUM = """\
   614.3409 -0.030 56.01    5674.807  2.5 5d 2D        21952.404  1.5 6p 2P       0.00  0.00  0.00C    0 0137-1.234137-0.950   -1   10F3 -3 0       0    0     0
   614.3413 -0.030 56.01    5674.807  2.5 5d 2D        21952.404  1.5 6p 2P       0.00  0.00  0.00C    0 0  0 0.000138-0.144    0    0              0    0     0
"""  # noqa: E501


def read(content, **options):
    return read_kurucz(text_of(content), 0.0, np.inf, **options)


def test_fields_of_the_format():
    raw = read(KURUCZ)
    iron, magnesium, calcium = raw.rows
    assert not raw.vacuum  # the wavelengths are those of the levels in air
    assert iron.wavelength == pytest.approx(5371.489, abs=1e-6)
    assert (iron.z, iron.stage, iron.log_gf, iron.damping) == (26, 0, -1.645, -7.82)
    assert iron.gamma_rad == pytest.approx(10**7.15)
    assert calcium.stage == 1
    # The lower level stands second for magnesium, and iron's upper one is a predicted one, so negative.
    assert iron.energy == pytest.approx(7728.06 / 8065.544, abs=1e-5)
    assert magnesium.energy == pytest.approx(35051.264 / 8065.544, abs=1e-5)


def test_hyperfine_and_isotopic_shares_make_up_the_strength():
    raw = read(BARIUM)
    assert raw.vacuum and raw.scaled
    assert [row.log_gf for row in raw.rows] == pytest.approx([-0.030 - 1.234 - 0.950, -0.030 - 0.144])


def test_lost_first_column_and_lines_that_end_early():
    assert read("\n".join(line[1:] for line in KURUCZ.splitlines())).rows == read(KURUCZ).rows
    assert read("\n".join(line[:98] for line in KURUCZ.splitlines())).rows == read(KURUCZ).rows


def test_medium_where_the_levels_do_not_tell():
    mixed = KURUCZ + "\n".join(BARIUM.splitlines()[:1])
    with pytest.raises(InputError, match='give medium="air"'):
        read(mixed)
    assert read(mixed, medium="vacuum").vacuum


def test_molecules_are_marked():
    assert read(KURUCZ.replace(" 12.00", "106.00")).rows[1].z == MOLECULE


@pytest.mark.parametrize(
    ("old", "new"), [("-0.498", "-0.4x8"), ("35051.264", "3505l.264"), (" 12.00", " Mg I "), ("-6.98KP", "")]
)
def test_malformed_lines_are_refused_by_number(old, new):
    content = KURUCZ.replace(old, new)
    if not new:
        content = "\n".join(line[:90] if i == 1 else line for i, line in enumerate(KURUCZ.splitlines()))
    with pytest.raises(InputError, match=r"line 2.*160 columns"):
        read(content)
    assert is_kurucz(text_of(content))
