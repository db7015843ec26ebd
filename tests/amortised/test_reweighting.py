"""Under another prior a posterior is what it would have been had the network been trained with it."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxspec.amortised.reweighting import resample, under_prior
from jaxspec.errors import InputError
from jaxspec.instruments import Arm, Instrument
from jaxspec.labels import NINE_LABELS
from jaxspec.posterior.flagging import flag_stars
from jaxspec.posterior.flags import Flag
from jaxspec.posterior.results import Posterior
from jaxspec.simulation.prior import StellarPrior

WIDE = StellarPrior()
DISC = StellarPrior(fe_h_uniform=0.05, fe_h_mean=-0.1, fe_h_scatter=0.2, x_fe_uniform=0.02, x_fe_scatter=0.06)
N, STARS = 40_000, 3
# What the spectra of three stars say: Gaussian in every label, of a metal-rich, an ordinary and a halo star.
MEAN = np.array(
    [
        [5400.0, 4.2, 0.2, 0.25, 0.25, 0.2, 0.2, 0.2, 0.25],
        [4900.0, 3.0, -0.3, -0.2, -0.1, -0.2, -0.3, -0.2, -0.2],
        [6000.0, 4.2, -1.0, -0.8, -0.7, -0.7, -1.0, -0.8, -0.7],
    ]
)
SIGMA = np.array([150.0, 0.3, 0.25, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3])


def weighted(prior, seed):
    """Draws of the posteriors under a prior, of its own draws by their likelihood; and mean and standard
    deviation of each label by the same weights."""
    pool = np.asarray(prior.sample(jax.random.key(seed), 400_000), float)
    rng = np.random.default_rng(seed)
    draws, moments = [], []
    for mean in MEAN:
        weight = np.exp(-0.5 * np.sum(((pool - mean) / SIGMA) ** 2, axis=1))
        weight /= weight.sum()
        draws.append(pool[rng.choice(len(pool), N, p=weight)])
        middle = weight @ pool
        moments.append((middle, np.sqrt(weight @ (pool - middle) ** 2)))
    return np.stack(draws, axis=1), np.array(moments)


@pytest.fixture(scope="module")
def wide():
    """The posteriors under the wide prior; `log_prob` but for the evidence, which no test needs."""
    draws, _ = weighted(WIDE, 1)
    likelihood = -0.5 * np.sum(((draws - MEAN) / SIGMA) ** 2, axis=-1)
    return Posterior(
        draws=draws.astype(np.float32),
        log_prob=np.asarray(WIDE.log_prob(draws.astype(np.float32)), float) + likelihood,
        label_set=NINE_LABELS,
        names=("rich", "ordinary", "halo"),
        snr=np.full(STARS, 20.0),
        chi2=np.full(STARS, np.nan),
        flags=np.zeros(STARS, np.int64),
        prior=WIDE,
    )


def test_posteriors_are_those_under_the_new_prior(wide):
    """As far as the draws of the new prior, weighted by the same likelihood, can tell: few of them are like
    the halo star. Under the old prior the others have other abundances."""
    disc = under_prior(jax.random.key(0), wide, DISC)
    _, expected = weighted(DISC, 2)
    _, before = weighted(WIDE, 3)
    off = (disc.draws.mean(axis=0) - expected[:, 0]) / expected[:, 1]
    assert np.abs(off[:2]).max() < 0.1 and np.abs(off[2]).max() < 0.25
    ratio = disc.draws.std(axis=0) / expected[:, 1]
    assert np.abs(ratio[:2] - 1.0).max() < 0.08 and np.abs(ratio[2] - 1.0).max() < 0.15
    assert np.all(np.abs((before[:2, 0] - expected[:2, 0]) / expected[:2, 1])[:, 2:] > 0.2)
    assert disc.prior == DISC and disc.draws.shape == wide.draws.shape
    assert np.all((disc.stats["prior_efficiency"] > 0.001) & (disc.stats["prior_efficiency"] < 0.9))
    assert not disc.stats["contradicts_prior"].any()


def test_densities_are_those_under_the_new_prior(wide):
    """The likelihood, and so the density over the prior, is the same but for one number for each star: the
    evidence under either prior, of which the ratio is the mean of the weights."""
    disc = under_prior(jax.random.key(0), wide, DISC, n=2000)
    assert disc.draws.shape == (2000, STARS, 9)
    likelihood = -0.5 * np.sum(((disc.draws - MEAN) / SIGMA) ** 2, axis=-1)
    change = disc.log_prob - likelihood - np.asarray(DISC.log_prob(disc.draws), float)
    np.testing.assert_allclose(change, np.broadcast_to(change[0], change.shape), atol=2e-3)
    ratio = np.asarray(DISC.log_prob(wide.draws), float) - np.asarray(WIDE.log_prob(wide.draws), float)
    np.testing.assert_allclose(change[0], -np.log(np.exp(ratio).mean(axis=0)), atol=0.05)


def test_the_same_prior_changes_nothing(wide):
    same = under_prior(jax.random.key(0), wide, WIDE)
    np.testing.assert_allclose(same.stats["prior_efficiency"], 1.0, rtol=1e-6)
    for a, b in zip((same.draws, same.log_prob), (wide.draws, wide.log_prob), strict=True):
        np.testing.assert_allclose(np.sort(a, axis=0), np.sort(b, axis=0), atol=1e-6)


def test_a_star_that_contradicts_the_prior_keeps_its_draws_and_is_flagged(wide):
    no_halo = dataclasses.replace(DISC, fe_h_range=(-0.4, 0.5))
    wide = dataclasses.replace(wide, draws=wide.draws[:2000], log_prob=wide.log_prob[:2000])
    found = under_prior(jax.random.key(0), wide, no_halo, n=500)
    np.testing.assert_array_equal(found.stats["contradicts_prior"], [0.0, 0.0, 1.0])
    instrument = Instrument("one", (Arm("only", 5000.0, 5010.0, 1.0, 20_000.0),))
    flagged = flag_stars(found, np.ones((3, instrument.n_pixels)), instrument, WIDE, 0.0)
    np.testing.assert_array_equal(flagged.flags & int(Flag.OUT_OF_RANGE) > 0, [False, False, True])
    assert (found.draws[:, :2, 2] >= -0.4).all() and np.median(found.draws[:, 2, 2]) < -0.5
    assert np.isin(found.draws[:, 2, 2], wide.draws[:, 2, 2]).all()


def test_without_a_prior_to_divide_by_it_is_refused(wide):
    with pytest.raises(InputError, match="trained on a survey"):
        under_prior(jax.random.key(0), dataclasses.replace(wide, prior=None), DISC)
    with pytest.raises(InputError, match="low end of fe_h: found -4"):
        under_prior(jax.random.key(0), wide, dataclasses.replace(DISC, fe_h_range=(-4.0, 0.5)))


def test_any_ratio_of_densities_will_do():
    """A Gaussian posterior under a prior times exp(a x) is the Gaussian moved by a sigma^2."""
    rng = np.random.default_rng(0)
    draws = np.tile(MEAN[0], (20_000, 1, 1)) + 0.1 * SIGMA * rng.normal(size=(20_000, 1, 9))
    nothing = np.zeros(1)
    log_prob = np.zeros((20_000, 1))
    before = Posterior(draws, log_prob, NINE_LABELS, ("x",), nothing, nothing, np.zeros(1, np.int64))
    sigma = 0.1 * SIGMA[0]
    after = resample(jax.random.key(0), before, draws[..., 0] / sigma, 10_000)
    moved = (after.draws[..., 0].mean() - MEAN[0, 0]) / sigma
    assert moved == pytest.approx(1.0, abs=0.06) and after.draws.shape == (10_000, 1, 9)
    assert after.draws[..., 0].std() == pytest.approx(sigma, rel=0.05)
    assert after.stats["prior_efficiency"][0] == pytest.approx(np.exp(-1.0), rel=0.15)
