"""Pairs differ in what their kind says and in nothing else."""

import jax
import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.instruments import Arm, Instrument
from jaxspec.simulation.prior import StellarPrior
from jaxspec.surveys.pairs import GIANT, MixedPrior, PairConfig, line_factor, make_pair, sky_residuals
from tests.toy import ToyForwardModel

FEW = {"n_source": 256, "n_target": 256, "n_test": 2}
ARM = Instrument("toy arm", (Arm("blue", 5330.0, 5360.0, 0.1, 21_500.0),))


@pytest.fixture(scope="module")
def pairs():
    toy = ToyForwardModel(ARM)
    return {kind: make_pair(PairConfig(kind, **FEW), toy) for kind in ("instrument", "labels", "same")}


def depth(data):
    return float(np.mean(1.0 - data.flux[data.ivar > 0]))


def roughness(data):
    """Mean square of second differences: sharp lines and noise."""
    return float(np.mean(np.diff(np.where(data.ivar > 0, data.flux, 1.0), 2, axis=1)[:, 5:-5] ** 2))


def test_the_same_configuration_gives_the_same_stars(pairs):
    again = make_pair(PairConfig("same", **FEW), ToyForwardModel(ARM))
    assert np.array_equal(again.source.flux, pairs["same"].source.flux)
    assert not np.array_equal(again.source.flux, again.target.flux)


def test_another_instrument_smooths_lines_and_leaves_the_stars(pairs):
    pair = pairs["instrument"]
    assert np.array_equal(pair.target.labels, pairs["same"].target.labels)
    assert roughness(pair.target) < 0.85 * roughness(pairs["same"].target)


def test_giants_against_dwarfs(pairs):
    logg = [pairs["labels"].label_set.column(d.labels, "logg") for d in pairs["labels"][:2]]
    shares = [np.mean(np.asarray(x) < GIANT) for x in logg]
    # Four standard errors of a share of 256 stars.
    assert abs(shares[0] - 0.85) < 0.09 and abs(shares[1] - 0.15) < 0.09


def test_stars_of_one_kind_are_those_of_the_prior():
    prior = StellarPrior()
    stars = np.asarray(MixedPrior(prior, 0.5).sample(jax.random.key(0), 4000))
    plain = np.asarray(prior.sample(jax.random.key(1), 40_000))
    giant, plain_giant = stars[:, 1] < GIANT, plain[:, 1] < GIANT
    for a, b in ((giant, plain_giant), (~giant, ~plain_giant)):
        mean, scatter = plain[b].mean(axis=0), plain[b].std(axis=0)
        assert np.abs((stars[a].mean(axis=0) - mean) / scatter).max() < 4.5 / np.sqrt(a.sum())
    assert len(np.unique(stars, axis=0)) == len(stars)


def test_wrong_lines_are_wrong_alike_in_all_stars():
    factor = line_factor(ARM, 0.3, 1)
    assert factor.shape == (ARM.n_pixels,) and np.array_equal(factor, line_factor(ARM, 0.3, 1))
    assert 0.1 < np.log(factor).std() < 0.35 and np.all(line_factor(ARM, 0.0, 1) == 1.0)


def test_sky_residuals_have_their_size():
    sky = sky_residuals(ARM, 0.03, 1)
    drawn = np.asarray(sky.draw(jax.random.key(0), 500))
    peak = np.abs(np.asarray(sky.components)).max(axis=1)
    assert np.all(peak <= 0.0301) and 0.003 < drawn.std(axis=0).max() < 0.06


def test_kinds_are_named():
    with pytest.raises(InputError, match="kind"):
        PairConfig("dust")
