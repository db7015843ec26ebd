"""Limits hold the rate of false alarms that they state, at every S/N and for every set of arms."""

import dataclasses
import json

import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.fitting.check import CHI2_MAX, FitConfig, check_posterior, statistics
from jaxspec.posterior.limits import Limits, observed_arms
from jaxspec.posterior.results import Posterior

RATE = 0.02


def draw(rng, n):
    """A statistic that falls with S/N, wider for one arm than for both."""
    snr = np.exp(rng.uniform(np.log(5.0), np.log(300.0), n))
    arms = rng.choice(np.array(["blue", "blue+red"], dtype=object), n)
    value = (1.0 + 30.0 / snr) * np.exp(rng.normal(0.0, np.where(arms == "blue", 0.4, 0.15)))
    return {"chi2": value}, snr, arms


@pytest.fixture(scope="module")
def limits():
    return Limits.fit(*draw(np.random.default_rng(0), 4000), false_alarms=RATE)


def test_false_alarms_are_as_rare_as_stated(limits):
    """Of 40,000 new ones; limits know their quantiles to a sixth, from 40 stars beyond each."""
    values, snr, arms = draw(np.random.default_rng(1), 40_000)
    beyond = values["chi2"] > limits.at("chi2", snr, arms)
    for which in ("blue", "blue+red"):
        for low, high in ((5.0, 20.0), (20.0, 80.0), (80.0, 300.0)):
            rows = (arms == which) & (snr > low) & (snr < high)
            assert 0.4 * RATE < beyond[rows].mean() < 1.8 * RATE, (which, low)
    # One limit for all would miss what is too large for its S/N.
    assert (
        limits.at("chi2", np.array([10.0]), arms[:1]) > 2 * limits.at("chi2", np.array([200.0]), arms[:1])
    )[0]


def test_arms_that_were_not_calibrated_take_the_highest_limit(limits):
    snr, unknown = np.array([50.0]), np.array(["green"], dtype=object)
    known = [limits.at("chi2", snr, np.array([arms], dtype=object))[0] for arms in ("blue", "blue+red")]
    assert limits.at("chi2", snr, unknown)[0] == max(known)


def test_few_simulations_are_refused():
    with pytest.raises(InputError, match="simulate more"):
        Limits.fit(*draw(np.random.default_rng(0), 100), false_alarms=RATE)


def test_limits_survive_storage(limits):
    assert Limits.from_dict(json.loads(json.dumps(dataclasses.asdict(limits)))) == limits


def test_observed_arms(toy):
    ivar = np.ones((4, toy.instrument.n_pixels))
    ivar[1, toy.instrument.slices["red"]] = 0.0
    ivar[2, toy.instrument.slices["blue"]] = 0.0
    ivar[3] = 0.0
    assert observed_arms(ivar, toy.instrument).tolist() == ["blue+red", "blue", "red", ""]


def test_structure_tells_lines_from_noise(toy, bright):
    """White noise of 1.5 times the stated errors has no structure; a second star's lines have."""
    rng = np.random.default_rng(0)
    labels, n = bright.labels[:16], 16
    ivar = np.full((n, toy.instrument.n_pixels), 2500.0, np.float32)
    model = np.asarray(bright.flux[:n])
    draws = np.repeat(np.asarray(labels)[None], 3, 0)
    zeros = np.zeros(n)
    posterior = Posterior(
        draws,
        np.zeros((3, n)),
        toy.label_set,
        tuple("abcdefghijklmnop"),
        zeros + 50,
        zeros,
        zeros.astype(int),
    )
    noisy = model + 0.03 * rng.normal(size=model.shape)
    shifted = 0.5 * (model + np.roll(model, 12, axis=1)) + 0.02 * rng.normal(size=model.shape)
    level = (1.0,)
    limits = Limits(
        0.01,
        (50.0,),
        {"chi2": {"blue+red": (50.0,)}, "above": {"blue+red": level}, "structure": {"blue+red": (1.15,)}},
    )
    found, chi2 = {}, {}
    for name, flux in (("noisy", noisy), ("double", shifted)):
        checked, fit = check_posterior(toy, posterior, flux.astype(np.float32), ivar, limits=limits)
        found[name], chi2[name] = fit.structure, fit.chi2
        fair = 1.0 + FitConfig().chi2_fair / np.sqrt(2.0) * fit.stated
        np.testing.assert_array_equal(checked.stats["bad_fit"] > 0, fit.structure > np.maximum(1.15, fair))
        np.testing.assert_array_equal(checked.stats["structure"], fit.structure)
        assert set(statistics(fit)) == {"chi2", "above", "structure", "wrong_errors"}
    # 500 products of white residuals of squared size 2.2 in each arm: 1 +- 0.10, the worse of two 0.06 more.
    assert abs(np.mean(found["noisy"]) - 1.06) < 0.1 and np.max(found["noisy"]) < 1.5
    assert np.all(chi2["noisy"] > 1.6)
    strong = np.asarray(labels[:, 2]) > -0.5
    assert strong.sum() >= 4 and np.median(found["double"][strong]) > 1.3


def test_emission_stands_above(toy, bright):
    """Ten pixels of emission and ten of absorption that the model lacks: the ten are counted."""
    flux = np.array(bright.flux[:4])
    ivar = np.asarray(bright.ivar[:4])
    posterior = Posterior(
        np.repeat(np.asarray(bright.labels[None, :4]), 3, 0),
        np.zeros((3, 4)),
        toy.label_set,
        tuple("abcd"),
        np.full(4, 300.0),
        np.zeros(4),
        np.zeros(4, int),
    )
    before = check_posterior(toy, posterior, flux, ivar)[1].above
    flux[:, 100:1000:90] = 2.0
    flux[:, 150:1000:90] = 0.0
    after = check_posterior(toy, posterior, flux, ivar)[1].above
    n_hit = len(range(100, 1000, 90))
    np.testing.assert_allclose(before * toy.instrument.n_pixels, 1.0, atol=1.5)
    np.testing.assert_allclose(after * toy.instrument.n_pixels, n_hit, atol=1.5)


def test_a_limit_of_ones_own_replaces_the_calibrated_one(toy, bright):
    n = 8
    labels, level = np.asarray(bright.labels[:n]), {"blue+red": (1e3,)}
    limits = Limits(0.01, (50.0,), {"chi2": level, "above": level, "structure": level})
    flux, ivar = np.asarray(bright.flux[:n]), np.asarray(bright.ivar[:n])
    posterior = Posterior(
        np.repeat(labels[None], 3, 0),
        np.zeros((3, n)),
        toy.label_set,
        tuple("abcdefgh"),
        np.full(n, 300.0),
        np.zeros(n),
        np.zeros(n, int),
    )

    def bad(given, **config):
        checked, fit = check_posterior(toy, posterior, flux, ivar, FitConfig(**config), limits=given)
        return checked.stats["bad_fit"] > 0, fit.chi2_arm.max(axis=1)

    found, chi2 = bad(limits)
    assert not found.any() and np.all(chi2 < CHI2_MAX)
    middle = float(np.median(chi2))
    assert not bad(None)[0].any()
    for given in (limits, None):
        np.testing.assert_array_equal(bad(given, chi2_max=middle)[0], chi2 > middle)
