"""One train step on many devices: `jit` over a sharded batch, or the same step under `pmap`.

Both hold the whole state on every device and split the batch along its first axis. A `Runner` hides which of
the two is at work.
"""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from jaxspec.errors import InputError
from jaxspec.training.optimiser import OptimiserConfig
from jaxspec.training.state import LossFn, StepMetrics, TrainState, make_step, step_keys

AXIS = "data"
BatchFn = Callable[..., PyTree]  # (key, step) -> batch, traceable


@runtime_checkable
class Runner(Protocol):
    """Where and how a step runs. `place` and `fetch` move a state to the devices and back."""

    n_devices: int

    def place(self, state: TrainState) -> TrainState: ...
    def fetch(self, state: TrainState) -> TrainState: ...
    def step(
        self, state: TrainState, batch: PyTree | None, progress: float
    ) -> tuple[TrainState, StepMetrics]: ...


def data_mesh(n_devices: int | None = None) -> Mesh:
    """A one-axis mesh over the first `n_devices` local devices (all of them by default)."""
    devices = jax.local_devices()
    n = len(devices) if n_devices is None else n_devices
    if not 1 <= n <= len(devices):
        raise InputError("n_devices", str(n), f"1 to {len(devices)}", "ask for devices that exist")
    return Mesh(np.asarray(devices[:n]), (AXIS,))


def batch_size(batch: PyTree) -> int:
    """The common length of the first axis of all arrays of a batch."""
    shapes = {
        jax.tree_util.keystr(path): np.shape(x) for path, x in jax.tree_util.tree_leaves_with_path(batch)
    }
    sizes = {shape[:1] for shape in shapes.values()}
    if len(sizes) != 1 or () in sizes:
        raise InputError(
            "batch",
            f"arrays of shapes {shapes}",
            "one common first axis, the examples",
            "give every array of the batch one row per example",
        )
    return int(sizes.pop()[0])


def check_divisible(batch: PyTree, n_devices: int) -> None:
    """Refuse a batch that cannot be shared out evenly."""
    n = batch_size(batch)
    if n % n_devices:
        raise InputError(
            "batch",
            f"{n} examples",
            f"a multiple of the {n_devices} devices",
            "change the batch size or n_devices",
        )


class JitRunner:
    """`jax.jit` with the batch sharded over a mesh; simulation and step are one compiled function."""

    def __init__(
        self,
        graphdef: nnx.GraphDef,
        loss_fn: LossFn,
        config: OptimiserConfig,
        batch_fn: BatchFn | None,
        n_devices: int | None = None,
    ):
        mesh = data_mesh(n_devices)
        self.n_devices = mesh.size
        self._replicated = NamedSharding(mesh, PartitionSpec())
        self._sharded = NamedSharding(mesh, PartitionSpec(AXIS))
        self._batch_fn = batch_fn
        step = make_step(graphdef, loss_fn, config)

        def fused(state: TrainState, batch: PyTree, progress: jax.Array) -> tuple[TrainState, StepMetrics]:
            if batch_fn is not None:
                batch = batch_fn(step_keys(state.key, state.step)[0], state.step)
                check_divisible(batch, self.n_devices)
                batch = jax.lax.with_sharding_constraint(batch, self._sharded)
            return step(state, batch, progress)

        self._step = jax.jit(fused, donate_argnums=0, out_shardings=(self._replicated, self._replicated))

    def place(self, state: TrainState) -> TrainState:
        return jax.device_put(state, self._replicated)

    def fetch(self, state: TrainState) -> TrainState:
        # On one device, so that a user's arrays, which live on the first, can meet it.
        return jax.tree.map(lambda x: x.addressable_data(0), state)

    def step(
        self, state: TrainState, batch: PyTree | None, progress: float
    ) -> tuple[TrainState, StepMetrics]:
        if self._batch_fn is None:
            check_divisible(batch, self.n_devices)
            batch = jax.device_put(batch, self._sharded)
        return self._step(state, batch, np.float32(progress))


class PmapRunner:
    """`jax.pmap` over a leading device axis; simulated batches come from a `jit` of their own."""

    def __init__(
        self,
        graphdef: nnx.GraphDef,
        loss_fn: LossFn,
        config: OptimiserConfig,
        batch_fn: BatchFn | None,
        n_devices: int | None = None,
    ):
        mesh = data_mesh(n_devices)
        self.n_devices = mesh.size
        self._sharded = NamedSharding(mesh, PartitionSpec(AXIS))
        self._batch_fn = batch_fn
        self._simulate = None
        if batch_fn is not None:

            def simulate(key: jax.Array, step: jax.Array) -> PyTree:
                return self._split(batch_fn(step_keys(key, step)[0], step))

            self._simulate = jax.jit(simulate, out_shardings=self._sharded)
        step = make_step(graphdef, loss_fn, config, axis_name=AXIS)
        self._step = jax.pmap(
            step, axis_name=AXIS, in_axes=(0, 0, None), devices=list(mesh.devices), donate_argnums=0
        )

    def _split(self, batch: PyTree) -> PyTree:
        check_divisible(batch, self.n_devices)
        return jax.tree.map(lambda x: x.reshape(self.n_devices, -1, *x.shape[1:]), batch)

    def place(self, state: TrainState) -> TrainState:
        self._key, self._next = state.key, int(state.step)
        stacked = jax.tree.map(lambda x: jnp.broadcast_to(x, (self.n_devices, *x.shape)), state)
        return jax.device_put(stacked, self._sharded)

    def fetch(self, state: TrainState) -> TrainState:
        # The first device's own shard: indexing the sharded array would gather it from everywhere first.
        return jax.tree.map(lambda x: x.addressable_data(0)[0], state)

    def step(
        self, state: TrainState, batch: PyTree | None, progress: float
    ) -> tuple[TrainState, StepMetrics]:
        if self._simulate is not None:
            batch = self._simulate(self._key, np.int32(self._next))
        else:
            batch = jax.device_put(self._split(jax.tree.map(np.asarray, batch)), self._sharded)
        self._next += 1
        state, metrics = self._step(state, batch, np.float32(progress))
        return state, jax.tree.map(lambda x: x.addressable_data(0)[0], metrics)


def make_runner(mode: str, *args: Any, **kwargs: Any) -> Runner:
    """The runner called `mode`."""
    runners: dict[str, type[JitRunner | PmapRunner]] = {"jit": JitRunner, "pmap": PmapRunner}
    if mode not in runners:
        raise InputError("parallel", repr(mode), "'jit' or 'pmap'", "set it to such a value")
    return runners[mode](*args, **kwargs)
