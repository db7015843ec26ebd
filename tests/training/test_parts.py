"""The parts of training: schedule, averages, optimiser, checkpoints, data."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from jaxspec.errors import InputError
from jaxspec.training import ArraySource, Checkpointer, OptimiserConfig
from jaxspec.training.optimiser import ema_update, ema_weights, learning_rate, make_optimiser
from jaxspec.training.state import create_state
from tests.training.problem import make_net


def test_schedule():
    config = OptimiserConfig(learning_rate=2.0, warmup_steps=10, final_fraction=0.1)
    rate = lambda step, progress: float(learning_rate(config, step, progress))  # noqa: E731
    assert rate(0, 0.0) == pytest.approx(0.2) and rate(9, 0.0) == pytest.approx(2.0)
    assert rate(50, 0.5) == pytest.approx(2.0 * (0.1 + 0.9 / 2))
    assert rate(100, 1.0) == pytest.approx(0.2) and rate(100, 1.7) == pytest.approx(0.2)


def test_average_is_debiased():
    """After t steps the average is sum_k decay^(t-k) p_k over the sum of its weights, from the first step
    on."""
    values, decay = np.random.default_rng(0).normal(size=(7, 3)), 0.9
    average = jnp.zeros(3)
    for t, value in enumerate(values, start=1):
        average = ema_update(average, jnp.array(value, jnp.float32), decay)
        expected = np.average(values[:t], axis=0, weights=decay ** np.arange(t - 1, -1, -1))
        np.testing.assert_allclose(ema_weights(average, t, decay), expected, rtol=1e-5)


def test_optimiser_is_adamw_after_clipping():
    config = OptimiserConfig(clip_norm=1.0, weight_decay=0.1)
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    gradient = jax.tree.map(lambda x: 5.0 * x, params)
    ours, reference = (
        make_optimiser(config),
        optax.adamw(1.0, b1=config.b1, b2=config.b2, weight_decay=0.1, mask={"kernel": True, "bias": False}),
    )
    clipped = jax.tree.map(lambda g: g / optax.tree.norm(gradient), gradient)
    found = ours.update(gradient, ours.init(params), params)[0]
    expected = reference.update(clipped, reference.init(params), params)[0]
    np.testing.assert_allclose(ravel_pytree(found)[0], -ravel_pytree(expected)[0], rtol=1e-5)
    with pytest.raises(InputError, match="ema_decay"):
        OptimiserConfig(ema_decay=1.0)


def test_checkpoints_hold_everything(tmp_path):
    _, state = create_state(make_net(), OptimiserConfig(), jax.random.key(3))
    checkpointer = Checkpointer(tmp_path, keep=2)
    assert checkpointer.latest() is None
    with pytest.raises(InputError, match="checkpoints"):
        checkpointer.restore(state)
    for step in (1, 5, 9):
        checkpointer.save(step, state._replace(step=jnp.int32(step)), {"note": f"at {step}"})
    assert checkpointer.latest() == 9 and checkpointer.metadata() == {"note": "at 9"}
    found = checkpointer.restore(state)
    assert int(found.step) == 9 and int(checkpointer.restore(state, 5).step) == 5
    assert jax.random.key_data(found.key).tolist() == jax.random.key_data(state.key).tolist()
    equal = jax.tree.map(lambda a, b: bool((a == b).all()), found.params, state.params)
    assert jax.tree.all(equal) and jax.tree.structure(found) == jax.tree.structure(state)
    with pytest.raises(InputError, match="checkpoint 1"):  # only the newest two are kept
        checkpointer.restore(state, 1)
    other = state._replace(params={**state.params, "extra": jnp.ones(2)})
    with pytest.raises(InputError, match="extra"):
        checkpointer.restore(other)
    checkpointer.close()


def test_array_source_shows_every_row_once_a_pass():
    source = ArraySource({"i": np.arange(23), "x": np.arange(46.0).reshape(23, 2)}, 5, seed=1)
    passes = [np.concatenate([source(4 * e + k)["i"] for k in range(4)]) for e in range(3)]
    for rows in passes:
        assert len(set(rows.tolist())) == 20
    assert passes[0].tolist() != passes[1].tolist()
    # Out of order and afresh, as after a resume: the same batch.
    batch = ArraySource({"i": np.arange(23), "x": np.arange(46.0).reshape(23, 2)}, 5, seed=1)(9)
    np.testing.assert_array_equal(batch["i"], source(9)["i"])
    np.testing.assert_array_equal(batch["x"][:, 0], 2.0 * batch["i"])
    with pytest.raises(InputError, match="ArraySource"):
        ArraySource(np.arange(3), 4)
