"""The tables of ABO cross-sections that stand in where a list has none."""

import numpy as np
import pytest

from jaxspec.physics.linelists.abo import Transitions, cross_sections, generic_abo
from jaxspec.physics.linelists.text import read_text
from jaxspec.physics.linelists.turbospectrum import transitions, turbospectrum_rows

GAIA_ESO = "linelists/ges_linelist_v6_turbospectrum.gz"


@pytest.fixture(scope="module")
def list_of_gaia_eso(data):
    if not (data / GAIA_ESO).exists():
        pytest.skip(f"needs the full line list: {GAIA_ESO} in JAXSPEC_DATA")
    return transitions(list(turbospectrum_rows(read_text(data / GAIA_ESO))))


def line(z, wavelength, energy, lower, upper, damping=2.5, stage=0):
    numbers = (np.array([x]) for x in (z, stage, wavelength, energy, damping))
    return Transitions(*numbers, np.array([upper]), np.array([lower]))


@pytest.mark.parametrize(
    ("transition", "sigma", "alpha"),
    # As computed for the very lines, in the Gaia-ESO list (Heiter et al. 2021): Na D2; Mg I 5183, 5528, 8806.
    [
        (line(11, 5889.951, 0.0, "s", "p"), 407, 0.273),
        (line(12, 5183.604, 2.717, "p", "s"), 729, 0.238),
        (line(12, 5528.405, 4.346, "p", "d"), 1461, 0.312),
        (line(12, 8806.757, 4.346, "p", "d"), 530, 0.277),
    ],
)
def test_lines_with_published_values(transition, sigma, alpha):
    found, exponent = cross_sections(transition)
    assert found[0] == pytest.approx(sigma, rel=0.01)
    assert exponent[0] == pytest.approx(alpha, abs=0.01)


@pytest.mark.parametrize(
    "transition",
    [
        line(12, 8736.019, 5.946, "d", "f"),  # to 7f: beyond the table
        line(26, 5889.951, 0.0, "s", "p", stage=1),  # an ion
        line(11, 5889.951, 0.0, "s", "d"),  # orbitals without a table
        line(11, 5889.951, 0.0, "X", "X"),
        line(11, 1000.0, 0.0, "s", "p"),  # above the ionisation limit
    ],
)
def test_no_value_outside_the_theory(transition):
    assert np.isnan(cross_sections(transition)).all()
    np.testing.assert_array_equal(generic_abo(transition), transition.damping)


def test_the_list_and_the_tables_agree(list_of_gaia_eso):
    """For lines whose levels converge on the first limit, as nearly all d-f do, to the tables' rounding."""
    sigma, alpha = cross_sections(list_of_gaia_eso)
    known = (list_of_gaia_eso.damping > 20) & np.isfinite(sigma)
    ratio = sigma[known] / np.floor(list_of_gaia_eso.damping[known])
    difference = (alpha - list_of_gaia_eso.damping % 1)[known]
    pairs = np.char.add(list_of_gaia_eso.lower.astype(str), list_of_gaia_eso.upper.astype(str))[known]
    d_f = np.isin(pairs, ("df", "fd"))
    assert d_f.sum() > 20 and np.all(abs(ratio[d_f] - 1) < 0.02) and np.all(abs(difference[d_f]) < 0.01)
    # Levels with an excited limit make up the rest of the others.
    assert np.mean(abs(ratio - 1) < 0.03) > 0.3 and 1.0 < np.median(ratio) < 1.1
    assert abs(np.median(difference)) < 0.005


def test_known_cross_sections_and_ions_are_left_alone(list_of_gaia_eso):
    damping = generic_abo(list_of_gaia_eso)
    known = (list_of_gaia_eso.damping > 20) | (list_of_gaia_eso.stage > 0)
    np.testing.assert_array_equal(damping[known], list_of_gaia_eso.damping[known])
    changed = damping != list_of_gaia_eso.damping
    assert changed.sum() > 10_000 and np.all(damping[changed] > 20)
