"""A known law is recognised, and what is asked of the model is where it should be."""

import astropy.units as u
import numpy as np
import pytest

from jaxspec.foundation.extinction import Curve, compare

averages = pytest.importorskip("dust_extinction.parameter_averages")


@pytest.mark.parametrize("name", ["F99", "F19", "G23"])
def test_a_published_law_is_found_with_its_r_v(name):
    wavelength = np.arange(336.0, 1020.1, 2.0)
    law = getattr(averages, name)(Rv=3.3)
    ratio = law(wavelength * u.nm) / law(550.0 * u.nm)
    fits = compare(Curve(wavelength, ratio, ratio, ratio, 9.0))
    assert fits[name]["r_v"] == pytest.approx(3.3, abs=0.051) and fits[name]["largest"] < 0.01
    # A grey curve is like none of them.
    grey = compare(Curve(wavelength, np.ones_like(ratio), ratio, ratio, 9.0))
    assert min(row["mean"] for row in grey.values()) > 0.15
