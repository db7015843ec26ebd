"""Recalibrated posteriors hold the truth as often as they say, and have the density that they state."""

import dataclasses
import json

import numpy as np
import pytest
from scipy import stats

from jaxspec.diagnostics.calibration import calibration_error
from jaxspec.errors import InputError
from jaxspec.labels import NINE_LABELS
from jaxspec.posterior.recalibration import FEWEST, Recalibration
from jaxspec.posterior.results import Posterior

LABELS = NINE_LABELS.select(("teff", "logg", "fe_h"))
WIDTH = np.array([60.0, 0.1, 0.05])
N_DRAWS = 400


def draw(rng, n):
    """A network that is too sure of faint stars and not sure enough of bright ones, with one label biased,
    one skewed, and errors of two labels that go together."""
    snr = np.exp(rng.uniform(np.log(5.0), np.log(300.0), n))
    arms = rng.choice(np.array(["blue", "blue+red"], dtype=object), n)
    truth = rng.uniform([4500.0, 2.0, -1.0], [6500.0, 4.5, 0.3], (n, 3))
    sigma = WIDTH * (np.where(arms == "blue", 2.0, 1.0) * (0.5 + 10.0 / snr))[:, None]
    correlation = np.array([[1.0, 0.7, 0.0], [0.7, 1.0, 0.0], [0.0, 0.0, 1.0]])
    root = np.linalg.cholesky(correlation)
    error, z = rng.normal(size=(n, 3)) @ root.T, rng.normal(size=(N_DRAWS, n, 3)) @ root.T
    error[:, 2] = rng.gumbel(size=n)
    claimed = sigma * (0.6 + 0.25 * np.log10(snr))[:, None]
    centre = truth + sigma * error + np.array([0.0, 0.4, 0.0]) * sigma
    draws = centre + claimed * z
    log_prob = stats.multivariate_normal(cov=correlation).logpdf(z) - np.log(claimed).sum(axis=1)
    names = tuple(str(i) for i in range(n))
    zero = np.zeros(n)
    posterior = Posterior(draws, log_prob, LABELS, names, snr, zero, zero.astype(int), {"novelty": zero})
    return posterior, truth, arms


@pytest.fixture(scope="module")
def recalibration():
    return Recalibration.fit(*draw(np.random.default_rng(0), 8000))


def test_coverage_is_right_at_every_signal_to_noise(recalibration):
    before, truth, arms = draw(np.random.default_rng(1), 8000)
    after = recalibration.apply(before, arms)
    assert calibration_error(truth, after.draws).max() < 0.015
    assert np.all(after.stats["recalibrated"] == 1.0) and "novelty" in after.stats
    worst = 0.0
    for low, high in ((5.0, 20.0), (20.0, 80.0), (80.0, 300.0)):
        for which in ("blue", "blue+red"):
            rows = (before.snr > low) & (before.snr < high) & (arms == which)
            worst = max(worst, calibration_error(truth[rows], before.draws[:, rows]).max())
            # Of 1,300 stars, by tables of 800: the coverage is known to 0.013 and 0.017.
            assert calibration_error(truth[rows], after.draws[:, rows]).max() < 0.04
            below = np.mean(truth[rows] < after.median[rows], axis=0)
            np.testing.assert_allclose(below, 0.5, atol=0.06)
    assert worst > 0.08


def test_raw_draws_and_correlations_are_kept(recalibration):
    before, _, arms = draw(np.random.default_rng(2), 200)
    after = recalibration.apply(before, arms)
    assert after.raw is before.draws and not np.allclose(after.draws, before.draws)
    for star in range(5):
        for label in range(3):
            order = np.argsort(before.draws[:, star, label])
            assert np.all(np.diff(after.draws[order, star, label]) >= 0.0)
        r = np.corrcoef(after.draws[:, star, 0], after.draws[:, star, 1])[0, 1]
        assert abs(r - 0.7) < 0.15


def test_density_is_that_of_the_moved_draws(recalibration):
    """One over the density is the volume of each draw: draws that fill a region count its volume, however
    they are distributed. Here the region is the box of the central 80 % of each label."""
    before, _, arms = draw(np.random.default_rng(3), 400)
    after = recalibration.apply(before, arms)

    def volume(posterior):
        low, high = (posterior.quantile(q) for q in (0.1, 0.9))
        inside = np.all((posterior.draws > low) & (posterior.draws < high), axis=2)
        counted = np.mean(np.where(inside, np.exp(-posterior.log_prob), 0.0), axis=0)
        return np.log(counted / np.prod(high - low, axis=1))

    # 200 draws a star within, whose weights vary by a factor: 0.1 for each, 0.005 for their mean.
    assert abs(np.mean(volume(before))) < 0.04
    assert abs(np.mean(volume(after))) < 0.04
    # Stretched in density, not only in place: the old log-densities would be off by all that was gained.
    old = dataclasses.replace(after, log_prob=before.log_prob)
    assert np.median(np.abs(volume(old))) > 0.15


def test_arms_that_were_not_calibrated_stay_as_they_are(recalibration):
    before, _, arms = draw(np.random.default_rng(4), 20)
    arms[3:5] = "green"
    after = recalibration.apply(before, arms)
    np.testing.assert_array_equal(np.flatnonzero(after.stats["recalibrated"] == 0.0), [3, 4])
    np.testing.assert_array_equal(after.draws[:, 3:5], before.draws[:, 3:5])
    np.testing.assert_array_equal(after.log_prob[:, 3:5], before.log_prob[:, 3:5])


def test_draws_stay_within_the_bounds(recalibration):
    """A posterior that ends at a bound is stretched towards it, not over it."""
    before, _, arms = draw(np.random.default_rng(5), 20)
    draws = np.minimum(before.draws + 1500.0 * np.array([1.0, 0.0, 0.0]), LABELS.high - 1e-3)
    after = recalibration.apply(dataclasses.replace(before, draws=draws), arms)
    assert np.all((after.draws > LABELS.low) & (after.draws < LABELS.high))
    assert np.isfinite(after.log_prob).all()


def test_unusable_calibrations_are_refused(recalibration):
    few = draw(np.random.default_rng(0), FEWEST)
    with pytest.raises(InputError, match="simulate more"):
        Recalibration.fit(*few)
    before, _, arms = few
    other = dataclasses.replace(
        before, draws=before.draws[:, :, :2], label_set=LABELS.select(("teff", "logg"))
    )
    with pytest.raises(InputError, match="calibrate these labels"):
        recalibration.apply(other, arms)


def test_recalibrations_survive_storage(recalibration):
    stored = json.loads(json.dumps(dataclasses.asdict(recalibration)))
    assert Recalibration.from_dict(stored) == recalibration
