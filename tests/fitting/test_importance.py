"""Weighted draws are those of the exact posterior, whatever the network said, and say when they are not."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.infer import MCMC, NUTS
from scipy import stats

from jaxspec.errors import InputError
from jaxspec.fitting import importance
from jaxspec.fitting.importance import (
    ImportanceConfig,
    importance_sample,
    pareto_smooth,
    trusted,
)
from jaxspec.fitting.likelihood import (
    VSINI,
    LikelihoodConfig,
    Mode,
    log_density,
    observe_at,
)
from jaxspec.fitting.modes import fit_modes
from jaxspec.posterior.results import Posterior
from jaxspec.simulation.nuisances import PURE
from jaxspec.simulation.prior import StellarPrior
from jaxspec.simulation.simulator import Simulator

N = 40
WIDTH = np.array([60.0, 0.1, 0.05] + 6 * [0.06])


def network_like(toy, truth, width, offset=0.0, seed=0):
    """What a network with errors `width` says, right on average but for an offset in its own errors."""
    rng = np.random.default_rng(seed)
    centre = np.asarray(truth) + width * (offset + 0.5 * rng.normal(size=truth.shape))
    z = rng.normal(size=(400, *truth.shape))
    draws, log_prob = centre + width * z, stats.norm.logpdf(z).sum(-1) - np.log(width).sum()
    low, high = toy.label_set.low, toy.label_set.high
    draws = np.clip(draws, low + 1e-3, high - 1e-3).astype(np.float32)
    n = len(truth)
    names = tuple(map(str, range(n)))
    nothing = np.full(n, np.nan)
    flags = np.full(n, 32)
    return Posterior(draws, log_prob, toy.label_set, names, nothing, nothing, flags, {}, StellarPrior())


@pytest.fixture(scope="module")
def stars(toy):
    config = dataclasses.replace(PURE, only_arm=(), snr_range=(60.0, 60.0))
    return Simulator(toy, config=config).simulate(jax.random.key(8), N)


@pytest.fixture(scope="module")
def sampled(toy, stars):
    before = network_like(toy, stars.labels, WIDTH, 1.0)
    return before, importance_sample(jax.random.key(0), toy, before, stars.flux, stars.ivar)


def test_errors_are_those_of_the_spectrum(sampled, stars):
    before, after = sampled
    good = trusted(after)
    assert np.median(after.stats["efficiency"]) > 0.2 and good.mean() > 0.9
    np.testing.assert_array_equal(after.draws[:, ~good], before.draws[:, ~good])
    before, after, truth = before.select(good), after.select(good), np.asarray(stars.labels)[good]
    rank = np.mean(after.draws < truth, axis=0)
    # A uniform rank scatters by 1/sqrt(12); labels of a star go together: as if a third of them did not.
    error = 4.0 / np.sqrt(12 * N * 3)
    assert abs(rank.mean() - 0.5) < error and abs(rank.std() - 12**-0.5) < error
    assert np.mean(before.draws < truth) > 0.7 or np.mean(before.draws < truth) < 0.3
    assert np.median(after.error / before.error) < 0.8


def test_two_networks_one_posterior(sampled, toy, stars):
    """Evidence and moments do not know which draws were weighted."""
    other = network_like(toy, stars.labels, 0.5 * WIDTH, -0.5, seed=1)
    again = importance_sample(jax.random.key(1), toy, other, stars.flux, stars.ivar)
    one = sampled[1]
    both = np.isnan(one.stats["r_hat"]) & np.isnan(again.stats["r_hat"])
    assert both.mean() > 0.85
    difference = (again.stats["log_evidence"] - one.stats["log_evidence"])[both]
    # Some forty effective draws each: 0.2 in the log.
    assert np.median(np.abs(difference)) < 0.3
    shift = (again.median - one.median)[both] / one.error[both]
    assert np.median(np.abs(shift)) < 0.3 and 0.8 < np.median((again.error / one.error)[both]) < 1.25


@pytest.mark.slow  # other networks and tempered populations find the same posterior in the tests beside it
def test_agrees_with_long_chains(sampled, toy, stars):
    """The trusted star of median efficiency, by NUTS in coordinates whitened at its best fit."""
    after = sampled[1]
    order = np.argsort(after.stats["efficiency"])
    star = next(i for i in order[N // 2 :] if np.isnan(after.stats["r_hat"][i]))
    config = LikelihoodConfig()
    rows = slice(star, star + 1)
    mode = fit_modes(toy, sampled[0].median[rows].astype(np.float32), stars.flux[rows], stars.ivar[rows])
    one = Mode(*(jnp.asarray(x[0]) for x in mode))
    known = observe_at(toy, config, one, stars.flux[star])
    # Vsini itself in the place of its square: the chains' own coordinates are not used here.
    place = VSINI + 14
    slope = np.ones(14)
    slope[place] = 0.5 / np.sqrt(max(mode.centre[0, place], 0.3))
    root = jnp.asarray(
        np.linalg.cholesky(mode.covariance[0].astype(float) * np.outer(slope, slope)), jnp.float32
    )

    def potential(z):
        u = jnp.asarray(mode.u[0]) + root @ z
        mirrored = u.at[VSINI].set(jnp.abs(u[VSINI]))
        return -log_density(toy, StellarPrior(), config, mirrored, jnp.asarray(mode.start[0]), known)

    chains = MCMC(NUTS(potential_fn=potential), num_warmup=200, num_samples=500, progress_bar=False)
    chains.run(jax.random.key(2), init_params=jnp.zeros(14))
    u = np.asarray(mode.u[0] + chains.get_samples() @ root.T)
    labels = mode.start[0] + toy.label_set.step * u[:, :9]
    sigma = labels.std(axis=0)
    shift = (after.draws[:, star].mean(axis=0) - labels.mean(axis=0)) / sigma
    # Thirty or more effective draws: 0.18 of sigma each.
    assert np.abs(shift).max() < 4 * 0.18
    ratio = after.draws[:, star].std(axis=0) / sigma
    assert 0.8 < np.median(ratio) < 1.25


@pytest.mark.slow
def test_populations_take_over_where_weights_fail(sampled, toy, stars, monkeypatch):
    """Six stars whose weights are called bad, though they are good: tempered populations find the same
    posterior and evidence. Where two of them do not agree the network's draws stay."""
    rows = np.flatnonzero(trusted(sampled[1]))[:6]
    chosen = np.isin(np.arange(N), rows)
    before, weighted = (x.select(chosen) for x in sampled)
    monkeypatch.setattr(importance, "largest_k", lambda n: -np.inf)
    arguments = (jax.random.key(3), toy, before, stars.flux[rows], stars.ivar[rows])
    after = importance_sample(*arguments)
    found = after.stats["proposal"] == importance.TEMPERED
    np.testing.assert_array_equal(found, after.stats["r_hat"] < importance.AGREED)
    np.testing.assert_array_equal(trusted(after), found)
    assert found.sum() >= 5
    np.testing.assert_array_equal(after.draws[:, ~found], before.draws[:, ~found])
    one, other = weighted.select(found), after.select(found)
    z = (other.draws.mean(0) - one.draws.mean(0)) / one.draws.std(0)
    # Fifty effective draws each: 0.2 of sigma.
    assert np.sqrt(np.mean(z**2)) < 0.3 and np.abs(z).max() < 4 * 0.2
    assert abs(np.median(other.draws.std(0) / one.draws.std(0)) - 1.0) < 0.15
    # Of 200 draws the evidence is good to some tenths in the log; of one of these stars to one.
    assert np.median(np.abs(other.stats["log_evidence"] - one.stats["log_evidence"])) < 0.5
    monkeypatch.setattr(importance, "AGREED", 0.0)
    np.testing.assert_array_equal(importance_sample(*arguments).draws, before.draws)


def test_densities_may_be_computed_in_pieces(sampled, toy, stars, monkeypatch):
    """Three stars in pieces of 67 of their 400 draws: the last one begins earlier, to be as long."""
    rows = np.flatnonzero(trusted(sampled[1]))[:3]
    before = sampled[0].select(np.isin(np.arange(N), rows))
    arguments = (jax.random.key(4), toy, before, stars.flux[rows], stars.ivar[rows])
    at_once = importance_sample(*arguments)
    monkeypatch.setattr(importance, "AT_ONCE", 70)
    pieces = importance_sample(*arguments)
    for name in ("efficiency", "pareto_k", "log_evidence"):
        np.testing.assert_allclose(pieces.stats[name], at_once.stats[name], atol=0.02)


@pytest.mark.parametrize("k", [0.2, 0.5, 1.0])
def test_the_tail_of_the_weights_is_measured(k, rng):
    """Weights that are Pareto distributed from 1 on with shape k. The prior pulls k to 1/2, by a quarter of
    the way with 42 in the tail."""
    found = [
        pareto_smooth(np.log(stats.genpareto.rvs(k, scale=k, loc=1, size=200, random_state=rng)))[1]
        for _ in range(60)
    ]
    expected = (42 * k + 5.0) / 52
    assert abs(np.mean(found) - expected) < 0.12


def test_smoothing_keeps_order_and_bulk(rng):
    log_ratio = rng.normal(size=200) * 2.0
    smooth, _ = pareto_smooth(log_ratio)
    order = np.argsort(log_ratio)
    assert np.all(np.diff(smooth[order]) >= 0) and smooth.max() <= log_ratio.max()
    np.testing.assert_array_equal(smooth[order[:150]], log_ratio[order[:150]])
    same, k = pareto_smooth(np.zeros(200))
    assert k == -np.inf and np.all(same == 0.0)
    lost, k = pareto_smooth(np.full(200, -np.inf))
    assert k == np.inf and np.all(lost == -np.inf)


def test_stars_without_pixels_keep_their_draws(toy, bright):
    before = network_like(toy, bright.labels[:2], WIDTH)
    after = importance_sample(jax.random.key(0), toy, before, bright.flux[:2], np.zeros_like(bright.ivar[:2]))
    np.testing.assert_array_equal(after.draws, before.draws)


def test_what_cannot_be_weighted_is_refused(toy, bright):
    before = network_like(toy, bright.labels[:2], WIDTH)
    arguments = (bright.flux[:2], bright.ivar[:2])
    with pytest.raises(InputError, match="prior"):
        importance_sample(jax.random.key(0), toy, dataclasses.replace(before, prior=None), *arguments)
    few = dataclasses.replace(before, draws=before.draws[:20], log_prob=before.log_prob[:20])
    with pytest.raises(InputError, match="n_draws: found 20"):
        importance_sample(jax.random.key(0), toy, few, *arguments)
    with pytest.raises(InputError, match="n_draws"):
        ImportanceConfig(n_draws=3)


def test_draws_without_weight_count_as_not_made(rng):
    """A hundred even weights among 1,900 of zero are a rejection sampler's, and count as a hundred draws."""
    log_ratio = np.full(2000, -np.inf)
    log_ratio[rng.permutation(2000)[:100]] = 0.01 * rng.normal(size=100)
    smooth, k = pareto_smooth(log_ratio)
    assert k < importance.largest_k(100) == 0.5
    np.testing.assert_array_equal(np.isfinite(smooth), np.isfinite(log_ratio))
    assert pareto_smooth(log_ratio[np.isfinite(log_ratio)][:24])[1] == np.inf
    assert pareto_smooth(np.full(50, -np.inf))[1] == np.inf


def test_the_limit_of_the_tail_follows_the_number_of_draws():
    assert [round(importance.largest_k(n), 3) for n in (100, 500, 1000, 10_000)] == [0.5, 0.629, 0.667, 0.7]
    assert importance.largest_k(10) == -np.inf
