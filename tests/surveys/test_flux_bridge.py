"""Corrections planted in a toy's spectra come back, without its labels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.instruments import Arm, Instrument
from jaxspec.physics.forward import Nuisances
from jaxspec.simulation.prior import StellarPrior
from jaxspec.surveys.flux_bridge import BridgeConfig, BridgedModel, bridged, fit_bridge, knots, nothing
from tests.toy import ToyForwardModel

ARM = Instrument("toy arm", (Arm("blue", 5330.0, 5350.0, 0.1, 21_500.0),))


def test_a_correction_of_nothing_corrects_nothing():
    toy = ToyForwardModel(ARM)
    labels = jnp.asarray(toy.label_set.scaled_solar(5500.0, 4.0, -0.2), jnp.float32)
    usual = Nuisances(*(jnp.float32(x) for x in (1.5, 3.0, 4.0, 0.0, 1.0)))
    model = bridged(toy, nothing(ARM))
    np.testing.assert_allclose(model(labels, usual), toy(labels, usual), atol=1e-6)
    # A field of one is e everywhere, and half of that at half of it.
    assert np.allclose(knots(ARM, 0.35).sum(axis=0), 1.0)


@pytest.mark.slow
def test_planted_strengths_and_resolution_come_back():
    toy, rng, n = ToyForwardModel(ARM), np.random.default_rng(0), 24
    planted = np.exp(0.2 * rng.normal(size=len(knots(ARM, 0.35))) @ knots(ARM, 0.35)).astype(np.float32)
    stray = jnp.full(ARM.n_pixels, 0.015)
    wrong = BridgedModel(toy, jnp.asarray(planted), jnp.float32(0.85), stray)
    labels = np.asarray(StellarPrior().sample(jax.random.key(0), n))
    usual = Nuisances(*(jnp.full(n, x) for x in (1.3, 3.0, 3.0, 0.0, 1.0)))
    flux = np.asarray(jax.vmap(wrong)(jnp.asarray(labels), usual))
    flux = (flux + rng.normal(0.0, 0.003, flux.shape)).astype(np.float32)
    ivar = np.full(flux.shape, 0.003**-2, np.float32)
    start = np.tile(np.median(labels, axis=0), (n, 1))
    config = BridgeConfig(n_steps=500, learning_rate=0.1, floor=0.0)
    before = fit_bridge(toy, flux, ivar, start, config, correction=nothing(ARM, config))
    after = fit_bridge(toy, flux, ivar, start, config)
    assert np.median(after.chi2) < 0.5 * np.median(before.chi2)
    found = np.asarray(after.correction.strength) @ knots(ARM, 0.35)
    seen = np.mean(1.0 - flux, axis=0) > 0.1  # where lines are
    assert np.corrcoef(found[seen], np.log(planted)[seen])[0, 1] > 0.6
    # A held correction is not changed, and fits stars that did not make it.
    again = fit_bridge(toy, flux, ivar, start, config, correction=after.correction)
    assert again.correction is after.correction and np.median(again.chi2) < 1.2 * np.median(after.chi2)


def test_other_pixels_are_refused():
    toy = ToyForwardModel(ARM)
    with pytest.raises(InputError, match="rebin"):
        fit_bridge(toy, np.ones((2, 5), "f4"), np.ones((2, 5), "f4"), np.zeros((2, 9)))
    with pytest.raises(InputError, match="strength"):
        BridgeConfig(strength=-1.0)
