"""The state that training carries from step to step, and the pure function that makes one step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from jaxspec.training.optimiser import (
    OptimiserConfig,
    ema_update,
    ema_weights,
    learning_rate,
    make_optimiser,
)

LossFn = Callable[[Any, PyTree, PRNGKeyArray], Float[Array, ""]]  # of the model, whatever its class


class TrainState(NamedTuple):
    """Everything that a resumed run needs to go on as if it had never stopped."""

    step: Int[Array, ""]  # steps done
    params: PyTree  # trained weights
    constants: (
        PyTree  # the model's other variables: statistics of the inputs and the like; never changed here
    )
    optimiser: PyTree  # Adam's moments
    average: PyTree  # moving average of the weights, from zeros
    key: PRNGKeyArray  # the run's key; never split, only folded with the step


class StepMetrics(NamedTuple):
    """Scalars of one step."""

    loss: Float[Array, ""]
    grad_norm: Float[Array, ""]  # before clipping
    learning_rate: Float[Array, ""]


def create_state(
    model: nnx.Module, config: OptimiserConfig, key: PRNGKeyArray, trained: nnx.filterlib.Filter = nnx.Param
) -> tuple[nnx.GraphDef, TrainState]:
    """Split a model once into its static graph and a fresh training state (copies: the state is donated
    later). `trained` says which of its variables are trained.
    """
    graphdef, *states = nnx.split(model, trained, ...)
    params, constants = (jax.tree.map(jnp.copy, nnx.to_pure_dict(x)) for x in states)
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        constants=constants,
        optimiser=make_optimiser(config).init(params),
        average=jax.tree.map(jnp.zeros_like, params),
        key=jnp.copy(key),
    )
    return graphdef, state


def build_model(graphdef: nnx.GraphDef, params: PyTree, constants: PyTree) -> nnx.Module:
    """The model with the given weights."""
    return nnx.merge(graphdef, params, constants)


def averaged_model(graphdef: nnx.GraphDef, state: TrainState, config: OptimiserConfig) -> nnx.Module:
    """The model with averaged weights, or with the last ones if `ema_decay` is 0 or nothing was trained
    yet."""
    params = state.params
    if config.ema_decay > 0 and int(state.step) > 0:
        params = ema_weights(state.average, state.step, config.ema_decay)
    return build_model(graphdef, jax.tree.map(jnp.copy, params), jax.tree.map(jnp.copy, state.constants))


def step_keys(key: PRNGKeyArray, step: Int[Array, ""] | int) -> tuple[PRNGKeyArray, PRNGKeyArray]:
    """Keys of one step for (batch, loss). They depend on the run's key and the step alone, so a resumed run
    repeats them.
    """
    batch_key, loss_key = jax.random.split(jax.random.fold_in(key, step))
    return batch_key, loss_key


def make_step(
    graphdef: nnx.GraphDef,
    loss_fn: LossFn,
    config: OptimiserConfig,
    *,
    axis_name: str | None = None,
) -> Callable[[TrainState, PyTree, Float[Array, ""]], tuple[TrainState, StepMetrics]]:
    """The pure step (state, batch, progress) -> (state, metrics).

    Under `jit` with a sharded batch the mean over the batch is already global. Under `pmap` each device sees
    its own share: give `axis_name`, and loss and gradients are averaged over it; the loss key then differs
    between devices.
    """
    optimiser = make_optimiser(config)

    def step(state: TrainState, batch: PyTree, progress: Float[Array, ""]) -> tuple[TrainState, StepMetrics]:
        _, key = step_keys(state.key, state.step)
        if axis_name is not None:
            key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))

        def objective(params: PyTree) -> Float[Array, ""]:
            return loss_fn(build_model(graphdef, params, state.constants), batch, key)

        loss, gradient = jax.value_and_grad(objective)(state.params)
        if axis_name is not None:
            loss, gradient = jax.lax.pmean((loss, gradient), axis_name)
        rate = learning_rate(config, state.step, progress)
        metrics = StepMetrics(loss, optax.tree.norm(gradient), rate)
        updates, moments = optimiser.update(gradient, state.optimiser, state.params)
        params = jax.tree.map(lambda p, u: p - rate * u, state.params, updates)
        average = ema_update(state.average, params, config.ema_decay)
        return TrainState(state.step + 1, params, state.constants, moments, average, state.key), metrics

    return step
