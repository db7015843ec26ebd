"""The fit of ABO cross-sections that stands in where a list has none."""

import numpy as np
import pytest

from jaxspec.physics.linelists.abo import FITS, fit_abo, generic_abo
from jaxspec.physics.linelists.text import read_text
from jaxspec.physics.linelists.turbospectrum import transitions, turbospectrum_rows

GAIA_ESO = "linelists/ges_linelist_v6_turbospectrum.gz"


@pytest.fixture(scope="module")
def list_of_gaia_eso(data):
    if not (data / GAIA_ESO).exists():
        pytest.skip(f"needs the full line list: {GAIA_ESO} in JAXSPEC_DATA")
    return transitions(list(turbospectrum_rows(read_text(data / GAIA_ESO))))


def test_stored_coefficients_are_those_of_the_published_list(list_of_gaia_eso):
    fits, scatter = fit_abo(list_of_gaia_eso)
    for pair, stored in FITS.items():
        for a, b in zip(fits[pair], stored, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4)
    assert scatter["sp"] < 0.13 and scatter["pd"] < 0.05


def test_known_cross_sections_and_ions_are_left_alone(list_of_gaia_eso):
    damping = generic_abo(list_of_gaia_eso)
    known = (list_of_gaia_eso.damping > 20) | (list_of_gaia_eso.stage > 0)
    np.testing.assert_array_equal(damping[known], list_of_gaia_eso.damping[known])
    changed = damping != list_of_gaia_eso.damping
    assert changed.sum() > 1000 and np.all((damping[changed] % 1 >= 0.15) & (damping[changed] % 1 <= 0.4501))
