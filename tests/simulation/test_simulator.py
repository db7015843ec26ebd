"""Simulated observations have the noise, masks and errors that their configuration states."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.physics import turbulence
from jaxspec.settings import build
from jaxspec.simulation.nuisances import (
    CONFIGS,
    PURE,
    ROBUST,
    NuisanceConfig,
    draw_nuisances,
)
from jaxspec.simulation.simulator import Simulator, observe, perturb, perturb_lines
from tests.toy import TOY_INSTRUMENT

PLAIN = NuisanceConfig(
    only_arm=(),
    bad_pixels=0.0,
    gap_probability=0.0,
    truncation_probability=0.0,
    cosmics=0.0,
    continuum_scatter=0.0,
    slope_probability=0.0,
    scattered_light=0.0,
    snr_arm_scatter=0.0,
    snr_shape=0.0,
    ivar_misstated=0.0,
)


# Whole, as the simulator runs them: operation by operation each is a hundred programs.
whole_observe = jax.jit(observe, static_argnums=(3, 4))
whole_perturb_lines = jax.jit(perturb_lines, static_argnums=(2, 3))


def test_same_key_same_batch(simulator):
    a, b, c = (simulator.simulate(jax.random.key(k), 512) for k in (1, 1, 2))
    assert all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    assert not np.array_equal(a.flux, c.flux)


def test_usable_inside_jit(simulator):
    inside = jax.jit(lambda key: simulator.simulate(key, 512).flux)(jax.random.key(3))
    np.testing.assert_allclose(inside, simulator.simulate(jax.random.key(3), 512).flux, atol=2e-3)


def test_every_number_is_usable(survey):
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(survey))
    assert (survey.ivar >= 0).all()
    assert (np.asarray(survey.flux)[np.asarray(survey.ivar) == 0] == 1.0).all()


def test_noise_is_as_stated():
    """Where nothing else happens, (flux - truth) * sqrt(ivar) is standard normal, at every S/N."""
    flux = jnp.full((400, TOY_INSTRUMENT.n_pixels), 0.7)
    snr = jnp.asarray(np.geomspace(5, 300, 400), jnp.float32)
    noisy, ivar = whole_observe(jax.random.key(0), flux, snr, TOY_INSTRUMENT, PLAIN)
    pull = np.asarray((noisy - flux) * jnp.sqrt(ivar))
    # 440,000 pixels: the false-alarm rate of each of these limits is below 1e-5.
    assert abs(pull.mean()) < 0.007 and abs(pull.std() - 1.0) < 0.005
    # Between readout noise (1 / S/N) and photon noise (sqrt(0.7) of it).
    ratio = np.asarray(ivar)[:, 0] ** -0.5 * np.asarray(snr)
    assert ratio.min() > np.sqrt(0.7) - 1e-3 and ratio.max() < 1.001


def test_misstated_errors_stay_within_their_scatter():
    config = dataclasses.replace(PLAIN, ivar_misstated=0.1)
    flux = jnp.ones((2000, TOY_INSTRUMENT.n_pixels))
    noisy, ivar = whole_observe(jax.random.key(0), flux, jnp.full(2000, 50.0), TOY_INSTRUMENT, config)
    log_ratio = np.log(np.std((np.asarray(noisy) - 1.0) * np.sqrt(ivar), axis=1))
    assert abs(log_ratio.std() - 0.1 / np.sqrt(2)) < 0.02


def test_arms_go_missing_as_often_as_configured(simulator):
    arms = [np.asarray(simulator.simulate(jax.random.key(k), 512).ivar > 0) for k in range(4)]
    seen = np.concatenate(
        [np.stack([a[:, s].any(1) for s in TOY_INSTRUMENT.slices.values()], 1) for a in arms]
    )
    blue_only, red_only = np.mean(seen[:, 0] & ~seen[:, 1]), np.mean(~seen[:, 0] & seen[:, 1])
    assert seen.any(1).all()
    assert abs(blue_only - PURE.only_arm[0]) < 4 * np.sqrt(0.3 * 0.7 / 2048)
    assert abs(red_only - PURE.only_arm[1]) < 4 * np.sqrt(0.15 * 0.85 / 2048)


def test_signal_to_noise_range(survey):
    snr = np.asarray(survey.snr)
    assert snr.min() >= 5 and snr.max() <= 300
    # Log-uniform: a third of the stars in each third of the range of the logarithm.
    share = np.mean(snr < 5 * 60 ** (1 / 3))
    assert abs(share - 1 / 3) < 4 * np.sqrt(2 / 9 / len(snr))
    nominal, stated = np.log(snr), np.log(np.sqrt(np.max(survey.ivar, axis=1)))
    assert np.corrcoef(nominal, stated)[0, 1] > 0.9


def test_lines_scale_with_their_error():
    depth = 0.4
    flux = jnp.full((3000, TOY_INSTRUMENT.n_pixels), 1.0 - depth)
    config = NuisanceConfig(line_error=0.2)
    changed = np.asarray(whole_perturb_lines(jax.random.key(0), flux, TOY_INSTRUMENT, config))
    eps = (1.0 - changed) / depth - 1.0
    # Amplitudes are uniform on 0 ... 0.2: rms 0.2 / sqrt(3). Knots of unit variance; lines between them halve
    # part of it.
    assert 0.75 < eps.std() / (0.2 / np.sqrt(3)) < 1.05
    near = np.corrcoef(eps[:, 100], eps[:, 101])[0, 1]
    far = np.corrcoef(eps[:, 100], eps[:, 120])[0, 1]
    assert near > 0.75 and abs(far) < 0.1
    # The continuum is not a line.
    flat = perturb_lines(jax.random.key(0), jnp.ones((4, TOY_INSTRUMENT.n_pixels)), TOY_INSTRUMENT, config)
    np.testing.assert_array_equal(flat, 1.0)


def test_pure_simulations_leave_lines_alone(toy):
    flux = jnp.full((2, TOY_INSTRUMENT.n_pixels), 0.5)
    np.testing.assert_array_equal(perturb(jax.random.key(0), flux, TOY_INSTRUMENT, PURE), flux)
    perturbed = np.asarray(perturb_lines(jax.random.key(0), flux, TOY_INSTRUMENT, ROBUST))
    assert (perturbed <= 1.0).all() and (perturbed > 0.0).all()


def test_given_labels_and_snr(toy, simulator):
    labels = simulator.prior.sample(jax.random.key(0), 64)
    batch = simulator.observe(jax.random.key(1), labels, jnp.full(64, 80.0))
    np.testing.assert_array_equal(batch.labels, labels)
    np.testing.assert_array_equal(batch.snr, 80.0)


def test_bright_spectra_are_the_model(toy, bright):
    """With little noise the normalised spectrum differs from the model by a smooth curve only."""
    model = np.asarray(jax.vmap(toy)(bright.labels, bright.nuisances))
    for where in TOY_INSTRUMENT.slices.values():
        good = np.asarray(bright.ivar)[:, where] > 0
        ratio = np.asarray(bright.flux)[:, where] / model[:, where]
        x = np.linspace(-1, 1, ratio.shape[1])
        for i in range(len(ratio)):
            use = good[i] & (model[i, where] > 0.5)
            if use.sum() > 300:
                fit = np.polynomial.chebyshev.chebval(
                    x, np.polynomial.chebyshev.chebfit(x[use], ratio[i, use], 8)
                )
                assert 1.4826 * np.median(np.abs(ratio[i] - fit)[use]) < 0.012


@pytest.mark.parametrize(("config", "low", "high"), [(PURE, 0.9, 1.1), (ROBUST, 0.81, 1.09)])
def test_resolving_powers_cover_their_range(config, low, high):
    """`low` and `high` are two standard deviations away; 2.3 % of the stars lie beyond each."""
    stellar = tuple(jnp.full(20_000, value) for value in (5500.0, 4.4, 0.0))
    calibration = turbulence.vmic_calibration, turbulence.vmac_calibration
    drawn = np.asarray(draw_nuisances(jax.random.key(0), stellar, config, *calibration).resolution)
    scatter = 4 * np.sqrt(0.0228 / 20_000)
    assert abs(np.mean(drawn < low) - 0.0228) < scatter and abs(np.mean(drawn > high) - 0.0228) < scatter
    assert drawn.min() >= 0.7 and drawn.max() <= 1.3


def test_configurations():
    assert set(CONFIGS) == {"pure", "robust"}
    assert build(NuisanceConfig, dataclasses.asdict(ROBUST)) == ROBUST
    with pytest.raises(InputError, match=r"nuisances\.cosmics"):
        NuisanceConfig(cosmics=-1.0)
    with pytest.raises(InputError, match="only_arm"):
        NuisanceConfig(only_arm=(0.7, 0.5))


def test_one_arm_instrument_keeps_its_arm(toy):
    from jaxspec.instruments import Instrument
    from tests.toy import ToyForwardModel

    forward = ToyForwardModel(Instrument("toy_blue", TOY_INSTRUMENT.arms[:1]), n_lines=20)
    batch = Simulator(forward).simulate(jax.random.key(0), 64)
    assert (np.asarray(batch.ivar) > 0).any(1).all()
