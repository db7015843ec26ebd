"""One device, four devices under jit and four under pmap make the same step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxspec.errors import InputError
from jaxspec.training.optimiser import OptimiserConfig
from jaxspec.training.parallel import batch_size, data_mesh, make_runner
from jaxspec.training.state import create_state, step_keys
from tests.training.problem import batch_fn, host_source, loss_fn, make_net

CONFIG = OptimiserConfig(learning_rate=1e-2, warmup_steps=1, clip_norm=1e9)


def one_step(mode, n_devices, simulated):
    graphdef, state = create_state(make_net(), CONFIG, jax.random.key(0))
    runner = make_runner(mode, graphdef, loss_fn, CONFIG, batch_fn if simulated else None, n_devices)
    assert runner.n_devices == n_devices
    state, metrics = runner.step(runner.place(state), None if simulated else host_source(0), 0.0)
    return jax.device_get((runner.fetch(state), metrics))


@pytest.mark.parametrize("simulated", [True, False], ids=["simulated", "from the host"])
def test_one_step_agrees(simulated):
    """Compared are gradients of one step (Adam's first moment is 0.1 of it), not trajectories, which
    diverge."""
    reference, metrics = one_step("jit", 1, simulated)
    batch = batch_fn(step_keys(jax.random.key(0), 0)[0], 0) if simulated else host_source(0)
    graph, params, rest = nnx.split(make_net(), nnx.Param, ...)
    loss, gradient = jax.value_and_grad(lambda p: loss_fn(nnx.merge(graph, p, rest), batch, None))(params)
    np.testing.assert_allclose(metrics.loss, loss, rtol=1e-5)
    np.testing.assert_allclose(metrics.grad_norm, optax.tree.norm(gradient), rtol=1e-5)
    for mode in ("jit", "pmap"):
        state, found = one_step(mode, 4, simulated)
        np.testing.assert_allclose(found.loss, metrics.loss, rtol=1e-5)
        np.testing.assert_allclose(found.grad_norm, metrics.grad_norm, rtol=1e-5)
        assert state.step == 1
        pairs = zip(jax.tree.leaves(state.optimiser), jax.tree.leaves(reference.optimiser), strict=True)
        for a, b in pairs:
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_batches_are_shared_evenly_or_refused():
    graphdef, state = create_state(make_net(), CONFIG, jax.random.key(0))
    for mode in ("jit", "pmap"):
        runner = make_runner(mode, graphdef, loss_fn, CONFIG, None, 3)
        with pytest.raises(InputError, match=r"32 examples.*multiple of the 3"):
            runner.step(runner.place(state), host_source(0), 0.0)
    with pytest.raises(InputError, match="'jit' or 'pmap'"):
        make_runner("xmap")
    with pytest.raises(InputError, match="n_devices"):
        data_mesh(99)
    with pytest.raises(InputError, match="one common first axis"):
        batch_size({"x": jnp.ones((3, 2)), "y": jnp.ones(4)})
