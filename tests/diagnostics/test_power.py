"""Planted faults are seen at the sizes at which they can be, and nothing is seen where there is none."""

import numpy as np
import pytest

from jaxspec.diagnostics.power import DIAGNOSTICS, FAULTS, power, stars_with
from jaxspec.errors import InputError

QUICK = ("ranks", "coverage", "tarp", "tarp near")


def test_exact_posteriors_are_seldom_failed():
    """Of 60 sets at 1 % each: more than five by chance once in ten thousand."""
    for name, share in power(("none", 0.0), 200, 60, QUICK, 100).items():
        assert share <= 5 / 60, name


@pytest.mark.parametrize("fault", [("errors times", 0.3), ("errors times", 3.0), ("bias in sigma", 1.0)])
def test_gross_faults_are_always_seen(fault):
    for n in (200, 2000):
        assert power(fault, n, 5, QUICK, 100) == dict.fromkeys(QUICK, 1.0)


def test_wrong_correlations_are_seen_by_the_joint_tests_alone():
    share = power(("correlations left out", 1.0), 500, 2, tuple(DIAGNOSTICS), 100)
    assert share["lc2st"] == 1.0 and share["ranks"] == share["coverage"] == 0.0


def test_points_near_the_posterior_see_what_those_of_other_stars_do_not(rng):
    """Errors of a hundredth of the population, of one label of nine half as large as they should be."""
    from jaxspec.diagnostics.bands import uniformity
    from jaxspec.diagnostics.calibration import near_tarp_ranks, tarp_ranks

    centre = rng.normal(size=(1000, 9))
    truth, draws = (centre + 0.01 * rng.normal(size=shape) for shape in ((1000, 9), (200, 1000, 9)))
    assert uniformity(near_tarp_ranks(truth, draws)[:, None], 100)[0] > 1e-3
    draws = centre + 0.5 * (draws - centre)
    far, near = tarp_ranks(truth, draws), near_tarp_ranks(truth, draws)
    assert uniformity(near[:, None], 100)[0] < 1e-6 and np.all((near >= 0) & (near <= 100))
    assert uniformity(far[:, None], 200)[0] < 1e-6  # one projection is enough for so gross a fault


def test_faults_are_what_they_say(rng):
    for fault in FAULTS:
        truth, draws = stars_with(np.random.default_rng(0), fault, 400, 100)
        assert truth.shape == (400, 9) and draws.shape == (100, 400, 9)
    _, right = stars_with(np.random.default_rng(0), ("none", 0.0), 400, 100)
    _, half = stars_with(np.random.default_rng(0), ("errors times", 0.5), 400, 100)
    np.testing.assert_allclose(half.std(axis=0), 0.5 * right.std(axis=0), rtol=1e-9)
    with pytest.raises(InputError, match="fault: found 'fog'"):
        stars_with(rng, ("fog", 1.0), 10, 10)
