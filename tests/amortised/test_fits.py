"""Networks with a linear fit are trained in two stages; what is stored between them is what they make of the
same spectra."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import stats

from jaxspec.amortised import fits
from jaxspec.amortised.fits import FLOW, GUESS, flow_loss, guess_loss, make_fits
from jaxspec.amortised.linear_fit import ForwardArray
from jaxspec.amortised.network import PosteriorNetwork, training_loss
from jaxspec.errors import InputError
from jaxspec.simulation.simulator import Simulator
from jaxspec.training import OptimiserConfig, TrainConfig, fit
from tests.amortised.test_linear_fit import CONFIG
from tests.toy import TOY_INSTRUMENT, ToyForwardModel


def arrays(network, which=...):
    return {path: np.asarray(x[...]) for path, x in nnx.to_flat_state(nnx.state(network, which))}


def value(loss, network, batch):
    graph, state = nnx.split(network)
    key = jax.random.key(0)
    return float(jax.jit(lambda state, batch: loss(nnx.merge(graph, state), batch, key))(state, batch))


def changed(before, after):
    return {path for path in before if not np.array_equal(before[path], after[path])}


@pytest.fixture(scope="module")
def trained(toy, survey):
    """The network before and after the first stage (150 steps), after the second, and the fits between."""
    first = PosteriorNetwork(CONFIG, toy.label_set, TOY_INSTRUMENT.wavelength, rngs=nnx.Rngs(0), forward=toy)
    first.set_statistics(survey.labels, survey.flux, survey.ivar)
    simulator = Simulator(toy)
    config = TrainConfig(150, OptimiserConfig(3e-3, 10, ema_decay=0.9), progress=False)
    guessed = fit(
        first,
        guess_loss,
        config,
        key=jax.random.key(0),
        batch_fn=lambda key, step: simulator.simulate(key, 64),
        trained=GUESS,
    )
    return first, guessed, simulator


def test_the_guess_is_learned_and_nothing_else_changes(trained, survey):
    first, guessed, _ = trained
    losses = [row["loss"] for row in guessed.history if "loss" in row]
    assert np.isfinite(losses).all() and losses[-1] < losses[0] - 3.0
    different = changed(arrays(first), arrays(guessed.model))
    assert different <= set(arrays(first, GUESS))
    assert {path[0] for path in different} == {"encoder", "linear_fit"}
    network = guessed.model
    iron = network.linear_fit.guess(network.encoder(survey.flux, survey.ivar))[:, 2]
    truth = network.label_set.to_unconstrained(survey.labels)[:, 2]
    assert np.corrcoef(iron, truth)[0, 1] > 0.5


def test_every_weight_is_of_one_stage(trained):
    network = trained[0]
    weights, guess, flow = (set(arrays(network, which)) for which in (nnx.Param, GUESS, FLOW))
    assert not guess & flow and guess | flow == weights
    assert not weights & set(arrays(network, ForwardArray))


def test_fits_are_what_the_network_makes_of_the_spectra(trained, tmp_path, monkeypatch):
    """The loss is the same, and a killed run makes only what is missing."""
    _, guessed, simulator = trained
    network, key = guessed.model, jax.random.key(5)
    monkeypatch.setattr(fits, "BLOCK", 32)
    known = make_fits(network, simulator, key, 72, tmp_path, batch=16, progress=False)
    assert len(known.labels) == 72 and len(np.unique(known.labels[:, 0])) == 72
    assert [path.name for path in sorted(tmp_path.glob("*.npz"))] == ["00000.npz", "00001.npz", "00002.npz"]
    # The first sixteen stars of the second file, simulated again.
    stars = simulator.simulate(jax.random.fold_in(jax.random.fold_in(key, 1), 0), 16)
    np.testing.assert_array_equal(known.labels[32:48], stars.labels)
    some = jax.tree.map(lambda x: x[32:48], known)
    expected = value(training_loss, network, stars)
    np.testing.assert_allclose(value(flow_loss, network, some), expected, rtol=1e-3)

    kept = (tmp_path / "00000.npz").stat().st_mtime_ns
    (tmp_path / "00001.npz").unlink()
    again = make_fits(network, simulator, key, 72, tmp_path, batch=16, progress=False)
    assert (tmp_path / "00000.npz").stat().st_mtime_ns == kept
    for a, b in zip(jax.tree.leaves(known), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)


def test_more_stars_go_on_with_fewer(trained, tmp_path, monkeypatch):
    """Whatever `n` was, the first stars are the same, and the file that ended early is filled up."""
    _, guessed, simulator = trained
    network, key = guessed.model, jax.random.key(5)
    monkeypatch.setattr(fits, "BLOCK", 32)
    make = partial(make_fits, network, simulator, key, batch=16, progress=False)
    at_once = make(72, tmp_path / "once")
    for n in (10, 40, 72, 50):
        known = make(n, tmp_path / "grows")
        for a, b in zip(jax.tree.leaves(known), jax.tree.leaves(at_once), strict=True):
            np.testing.assert_array_equal(a, b[:n])


def test_fits_of_another_run_are_refused(trained, tmp_path):
    first, guessed, simulator = trained
    run = {"network": guessed.model, "simulator": simulator, "key": jax.random.key(5), "batch": 16}
    make_fits(n=16, folder=tmp_path, progress=False, **run)
    others = {
        "key": {"key": jax.random.key(6)},
        "batch": {"batch": 8},
        "network.": {"network": first},
        "simulator.config.snr_range": {
            "simulator": Simulator(
                simulator.forward, config=dataclasses.replace(simulator.config, snr_range=(20.0, 20.0))
            )
        },
        "simulator.forward.": {"simulator": Simulator(ToyForwardModel(seed=2))},
    }
    for name, change in others.items():
        with pytest.raises(InputError, match="an earlier run") as error:
            make_fits(n=16, folder=tmp_path, progress=False, **(run | change))
        assert error.value.where.startswith(f"{tmp_path}, {name}")


@pytest.mark.slow
def test_the_flow_learns_from_fits(trained, tmp_path):
    """What is not Gaussian, and what a poor guess does to the fit; the guess stays."""
    _, guessed, simulator = trained
    known = make_fits(guessed.model, simulator, jax.random.key(6), 512, tmp_path, progress=False)
    held_out = make_fits(
        guessed.model, simulator, jax.random.key(7), 256, tmp_path / "held_out", progress=False
    )
    result = fit(
        guessed.model,
        flow_loss,
        TrainConfig(200, OptimiserConfig(1e-3, 10, ema_decay=0.9), progress=False),
        key=jax.random.key(0),
        source=lambda step: jax.tree.map(lambda x: x[64 * (step % 8) :][:64], known),
        trained=FLOW,
    )
    before, after = (value(flow_loss, network, held_out) for network in (guessed.model, result.model))
    assert after < before - 1.0
    assert changed(arrays(guessed.model), arrays(result.model)) <= set(arrays(guessed.model, FLOW))


def test_the_share_that_a_prior_supports_and_its_slope(trained):
    """Of draws about the mean of a Gaussian half lie below it: their share is known in closed form, and so
    is what moving the Gaussian does to it."""
    network = trained[0]  # its flow is the standard normal: draws are those of the fit's Gaussian
    n = len(network.label_set)
    root = jnp.broadcast_to(0.05 * jnp.eye(n), (3, n, n))
    context = jnp.concatenate(
        [jnp.zeros((3, network.linear_fit.n_context)), jnp.zeros((3, n)), root.reshape(3, -1)], axis=-1
    )
    # The edge of iron is so many standard deviations from where the fit is: 50, 84 and 2 % are inside.
    away = jnp.zeros((3, n)).at[:, 2].set(0.05 * jnp.asarray([0.0, 1.0, -2.0]))
    edge = network.label_set.to_labels(away)[:, 2]

    def share(flow_location):
        moved = nnx.clone(network)
        moved.flow.location[...] = moved.flow.location[...].at[2].set(flow_location)
        return moved.log_share(jax.random.key(8), context, lambda labels: labels[..., 2] < edge, 20_000, 0.25)

    expected = stats.norm.cdf([0.0, 1.0])
    np.testing.assert_allclose(share(0.0)[:2], np.log(expected), atol=0.02)
    np.testing.assert_allclose(share(0.0)[2], np.log(0.25))
    slope = jax.jacrev(share)(0.0)
    density = stats.norm.pdf([0.0, 1.0])
    np.testing.assert_allclose(slope[:2], -density / expected, rtol=0.05)
    assert slope[2] == 0.0
