"""Refined labels are those of the spectrum, not of the network, and their errors hold."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspec.fitting.refine import RefineConfig, model_misfit, refine_labels, refine_posterior
from jaxspec.physics import turbulence
from jaxspec.physics.forward import Nuisances
from jaxspec.posterior.results import Posterior


@pytest.fixture(scope="module")
def start(toy, bright):
    """What a misled network would say: 250 K and 0.25 dex off, and sure of it."""
    truth = np.asarray(bright.labels[:16])
    offset = np.array([250.0, 0.25, 0.15] + [0.15] * 6)
    rng = np.random.default_rng(0)
    draws = truth + offset + 0.1 * offset * rng.normal(size=(200, *truth.shape))
    draws = np.clip(draws, toy.label_set.low + 0.01, toy.label_set.high - 0.01).astype(np.float32)
    zeros = np.zeros(16)
    names = tuple(str(i) for i in range(16))
    log_prob = np.zeros((200, 16), np.float32)
    return Posterior(draws, log_prob, toy.label_set, names, zeros + 300.0, zeros * np.nan, np.full(16, 32))


def test_refinement_finds_the_labels(toy, bright, start):
    out = refine_posterior(jax.random.key(0), toy, start, bright.flux[:16], bright.ivar[:16])
    truth = np.asarray(bright.labels[:16])
    assert out.stats["refined"].mean() > 0.7
    before, after = np.abs(start.median - truth), np.abs(out.median - truth)
    assert (np.median(after, axis=0)[:3] < 0.3 * np.median(before, axis=0)[:3]).all()
    # Errors neither hide the truth nor drown it.
    pull = (out.median - truth)[out.stats["refined"] > 0, :3] / out.error[out.stats["refined"] > 0, :3]
    assert np.median(np.abs(pull)) < 2.0 and np.median(out.error[:, 0]) < 150.0


@pytest.mark.slow
def test_the_fit_settles_without_rotation(toy, bright):
    """No star rotates slower than not at all, where the derivative by vsini vanishes: the limit must hold a
    fit, not toss it. What is left without noise is what the priors pull."""
    labels = bright.labels[:8]
    vmac = turbulence.vmac_calibration(*labels[:, :3].T) - 1.0
    vmic = turbulence.vmic_calibration(*labels[:, :3].T)
    still = Nuisances(vmic, vmac, jnp.full(8, 0.3), jnp.zeros(8), jnp.full(8, 0.95))
    flux, ivar = jax.vmap(toy)(labels, still), jnp.full((8, len(toy.instrument.wavelength)), 1e4)
    start = labels + jnp.asarray([80.0, 0.1] + 7 * [0.05])
    few, many = (refine_labels(toy, start, flux, ivar, RefineConfig(steps=n)) for n in (15, 30))
    assert (many.loss < 1e-3).all()
    sigma = np.sqrt(np.diagonal(many.covariance, axis1=1, axis2=2))
    assert (np.abs(few.labels - many.labels) < 0.05 * sigma).all()
    assert (np.abs(many.labels - labels) < sigma).all()


def test_a_spoiled_arm_does_not_spoil_the_labels(toy, bright, start):
    """Fringes of 5 % in one arm, as in real spectra of the far red."""
    arm = toy.instrument.slices[toy.instrument.arms[-1].name]
    wavelength = toy.instrument.wavelength
    fringes = np.zeros(len(wavelength))
    fringes[arm] = 0.05 * np.sin(2 * np.pi * np.arange(len(wavelength))[arm] / 150.0)
    flux = np.asarray(bright.flux[:16]) * (1 + fringes)
    out = refine_posterior(jax.random.key(0), toy, start, flux, bright.ivar[:16])
    truth = np.asarray(bright.labels[:16])
    before, after = np.abs(start.median - truth), np.abs(out.median - truth)
    assert (np.median(after, axis=0)[:3] < 0.5 * np.median(before, axis=0)[:3]).all()


def test_faint_stars_keep_the_network(toy, bright, start):
    faint = dataclasses.replace(start, snr=np.full(16, 20.0))
    out = refine_posterior(jax.random.key(0), toy, faint, bright.flux[:16], bright.ivar[:16], RefineConfig())
    assert (out.stats["refined"] == 0).all()
    np.testing.assert_array_equal(out.draws, start.draws)


def test_misfit_is_what_noise_cannot_be():
    """White noise of 1 % shows none; a smooth error of 0.5 % under it shows as such, unless it is not
    trusted."""
    rng = np.random.default_rng(3)
    n, ivar, trust = 15_000, jnp.full(15_000, 1e4), jnp.ones(15_000)
    noise = 0.01 * rng.normal(size=n)
    smooth = 0.005 * np.sqrt(2) * np.sin(2 * np.pi * np.arange(n) / 40.0)
    assert model_misfit(jnp.asarray(noise), ivar, trust) < 0.001
    assert model_misfit(jnp.asarray(noise + smooth), ivar, trust) == pytest.approx(0.005, rel=0.15)
    spoiled = np.where(np.arange(n) < n // 2, 10.0, 0.0) * smooth
    distrust = jnp.where(jnp.arange(n) < n // 2, 0.001, 1.0)
    assert model_misfit(jnp.asarray(noise + spoiled), ivar, trust) > 0.02
    assert model_misfit(jnp.asarray(noise + spoiled), ivar, distrust) < 0.002


def test_errors_grow_with_the_misfit(toy, bright, start):
    """Smooth errors of 1 % that no line explains: the stated errors become those of `systematic`."""
    n = len(toy.instrument.wavelength)
    smooth = 0.01 * np.sqrt(2) * np.sin(2 * np.pi * np.arange(n) / 17.0)
    config = RefineConfig(systematic=4.0, misfit=0.01)
    clean, missed = (
        refine_posterior(
            jax.random.key(0), toy, start, np.asarray(bright.flux[:16]) + x, bright.ivar[:16], config
        )
        for x in (0.0, smooth)
    )
    both = (clean.stats["refined"] > 0) & (missed.stats["refined"] > 0)
    assert np.median(clean.error[both, 0]) < 100.0
    assert np.median(missed.error[both, 0]) == pytest.approx(400.0, rel=0.25)
