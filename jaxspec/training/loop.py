"""The training loop: a model, a loss and batches in; the model with averaged weights out."""

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from flax import nnx
from jaxtyping import PRNGKeyArray, PyTree
from tqdm import tqdm

from jaxspec.errors import InputError
from jaxspec.training.checkpoint import Checkpointer
from jaxspec.training.guard import raise_non_finite
from jaxspec.training.metrics import MetricsLog
from jaxspec.training.optimiser import OptimiserConfig
from jaxspec.training.parallel import BatchFn, batch_size, make_runner
from jaxspec.training.state import LossFn, TrainState, averaged_model, create_state, step_keys

# With several CPU devices JAX 0.10 deadlocks after some hundred steps that nobody waits for.
MAX_UNSYNCED_STEPS = 16


@dataclass(frozen=True)
class TrainConfig:
    """How long to train, with what, and what to leave behind."""

    n_steps: int
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    parallel: Literal["jit", "pmap"] = "jit"
    n_devices: int | None = None  # None: all local devices
    max_seconds: float | None = None  # soft budget, see `fit`
    log_every: int = 50
    evaluate_every: int = 0  # 0: never
    checkpoint_every: int = 1000
    keep_checkpoints: int = 2
    sync_every: int = MAX_UNSYNCED_STEPS  # wait for the device at least this often
    progress: bool = True  # a progress bar on stderr

    def __post_init__(self):
        for name in ("n_steps", "log_every", "checkpoint_every", "keep_checkpoints", "sync_every"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"TrainConfig.{name}",
                    str(getattr(self, name)),
                    "a positive integer",
                    "correct the configuration",
                )
        if self.sync_every > MAX_UNSYNCED_STEPS:
            raise InputError(
                "TrainConfig.sync_every",
                str(self.sync_every),
                f"at most {MAX_UNSYNCED_STEPS}",
                "wait more often: JAX on several CPU devices can deadlock otherwise",
            )


class FitResult(NamedTuple):
    """What `fit` returns."""

    model: nnx.Module  # with averaged weights
    state: TrainState  # the last state, averages and moments included
    history: list[dict[str, Any]]  # the rows of metrics.jsonl
    finished: bool  # False if the time budget ended training early


@dataclass
class _Progress:
    """Host-side bookkeeping that a resumed run needs."""

    seconds: float = 0.0  # spent training, earlier runs included
    losses: list[float] = field(default_factory=list)  # since the last log row
    grad_norms: list[float] = field(default_factory=list)


def fit(
    model: nnx.Module,
    loss_fn: LossFn,
    config: TrainConfig,
    *,
    key: PRNGKeyArray,
    batch_fn: BatchFn | None = None,
    source: Callable[[int], PyTree] | None = None,
    directory: str | Path | None = None,
    resume: bool = True,
    evaluate: Callable[[nnx.Module], dict[str, float]] | None = None,
) -> FitResult:
    """Minimise the mean of ``loss_fn(model, batch, key)`` and return the model with averaged weights.

    Batches come from one of two places: ``batch_fn(key, step)``, pure JAX that makes a batch (it is compiled
    into the train step, and runs sharded over the devices), or ``source(step)``, host code that returns
    arrays (see `ArraySource`). Both must depend on their arguments alone; then a resumed run sees the batches
    that an unbroken one would have seen. The loss must be a mean over the examples of the batch. Only
    `nnx.Param` variables are trained.

    With a `directory`, `metrics.jsonl` and `checkpoints/` are kept there, and with `resume` a run that finds
    a checkpoint goes on from it; killed at any moment, it ends with the same numbers as if it had not been.
    ``evaluate(model)`` is called with averaged weights every `evaluate_every` steps and at the end; its
    values are logged.

    `max_seconds` bounds the time in the loop (compilation aside). The learning rate then follows whichever is
    further, the share of the steps or of the time, so that a slow machine ends with a finished, shorter
    anneal; such a run is reproducible to the bit only where the steps were the tighter bound.

    Raises `NonFiniteLossError` (after saving the batch) at a loss that is not finite; no later checkpoint is
    written. `InputError` if the checkpoint found belongs to another configuration or model.
    """
    if (batch_fn is None) == (source is None):
        raise InputError(
            "fit", "both or neither of batch_fn and source", "exactly one", "choose where batches come from"
        )
    directory = None if directory is None else Path(directory)
    graphdef, state = create_state(model, config.optimiser, key)
    identity = run_identity(config, state)
    progress, checkpointer, start = _Progress(), None, 0
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
        checkpointer = Checkpointer(directory / "checkpoints", keep=config.keep_checkpoints)
        if checkpointer.latest() is not None:
            state, progress = _resume(checkpointer, state, identity, resume=resume)
            start = int(state.step)
    log = MetricsLog(None if directory is None else directory / "metrics.jsonl", step=start)
    runner = make_runner(config.parallel, graphdef, loss_fn, config.optimiser, batch_fn, config.n_devices)

    def batch_of(step: int) -> PyTree:
        return source(step) if source is not None else jax.jit(batch_fn)(step_keys(key, step)[0], step)

    def snapshot(state: TrainState) -> None:
        if checkpointer is not None:
            checkpointer.save(
                step, runner.fetch(state), {"identity": identity, **dataclasses.asdict(progress)}
            )

    def assess(state: TrainState) -> None:
        if evaluate is not None:
            values = evaluate(averaged_model(graphdef, runner.fetch(state), config.optimiser))
            log.write({"step": step, **{name: float(value) for name, value in values.items()}})

    state, step, saved, finished = runner.place(state), start, start, True
    bar = tqdm(
        total=config.n_steps, initial=start, disable=not config.progress, unit="step", dynamic_ncols=True
    )
    try:
        size, examples = None, 0
        while step < config.n_steps:
            if config.max_seconds is not None and progress.seconds >= config.max_seconds:
                finished = False
                break
            # One stretch of steps without waiting, ending where something is due.
            n = _steps_until_due(step, config, evaluate is not None)
            first, pending, begun = step == start, [], time.perf_counter()
            for _ in range(1 if first else n):
                batch = source(step) if source is not None else None
                done = step / config.n_steps
                if config.max_seconds is not None:
                    done = max(done, progress.seconds / config.max_seconds)
                state, metrics = runner.step(state, batch, done)
                pending.append(metrics)
                step += 1
            values = np.asarray(jax.device_get(pending), np.float64)  # waits; [steps, metrics]
            seconds = time.perf_counter() - begun
            for k, loss in enumerate(values[:, 0]):
                if not math.isfinite(loss):
                    bad = step - len(pending) + k
                    raise_non_finite(float(loss), bad, batch_of(bad), directory)
            progress.losses += values[:, 0].tolist()
            progress.grad_norms += values[:, 1].tolist()
            bar.update(len(pending))
            if first:
                # Compilation is no part of the speed, nor of the time budget.
                size = batch_size(batch if source is not None else jax.eval_shape(batch_fn, key, 0))
                log.write({"step": step, "compile_seconds": seconds})
                clock = 0.0
            else:
                progress.seconds += seconds
                clock, examples = clock + seconds, examples + size * len(pending)
            if step % config.log_every == 0 or step == config.n_steps:
                row = {
                    "step": step,
                    "loss": float(np.mean(progress.losses)),
                    "grad_norm": float(np.mean(progress.grad_norms)),
                    "learning_rate": float(values[-1, 2]),
                    "examples_per_second": examples / clock if clock > 0 else None,
                    "seconds": progress.seconds,
                }
                log.write(row)
                bar.set_postfix(loss=f"{row['loss']:.4f}", refresh=False)
                progress.losses, progress.grad_norms, clock, examples = [], [], 0.0, 0
            if config.evaluate_every and step % config.evaluate_every == 0 and step < config.n_steps:
                assess(state)
            if step % config.checkpoint_every == 0:
                snapshot(state)
                saved = step
        if step > start:
            assess(state)
        if saved < step:
            snapshot(state)
    finally:
        bar.close()
        if checkpointer is not None:
            checkpointer.close()
    final = runner.fetch(state)
    return FitResult(averaged_model(graphdef, final, config.optimiser), final, log.rows, finished)


def _steps_until_due(step: int, config: TrainConfig, evaluating: bool) -> int:
    """How many steps may run before the loop has to wait, log, evaluate, save or stop."""
    ends = [config.n_steps, step + config.sync_every]
    intervals = [config.log_every, config.checkpoint_every]
    if evaluating and config.evaluate_every:
        intervals.append(config.evaluate_every)
    ends += [(step // interval + 1) * interval for interval in intervals]
    return min(ends) - step


def _resume(
    checkpointer: Checkpointer, state: TrainState, identity: str, *, resume: bool
) -> tuple[TrainState, _Progress]:
    if not resume:
        raise InputError(
            str(checkpointer.directory),
            f"a checkpoint at step {checkpointer.latest()}",
            "an empty folder, as resume is off",
            "choose another folder or remove the old run",
        )
    metadata = checkpointer.metadata()
    if metadata.pop("identity") != identity:
        raise InputError(
            str(checkpointer.directory),
            "a checkpoint of another configuration, model or key",
            "one of this run",
            "choose another folder or go back to the old configuration",
        )
    return checkpointer.restore(state), _Progress(**metadata)


def run_identity(config: TrainConfig, state: TrainState) -> str:
    """A hash of all that shapes the numbers of a run: steps, optimiser, the arrays of the model, the key.

    How often to log or save, where to compute and for how long may change between a run and its continuation.
    """
    arrays = [
        (jax.tree_util.keystr(path), tuple(x.shape), str(x.dtype))
        for path, x in jax.tree_util.tree_leaves_with_path((state.params, state.constants))
    ]
    key = np.asarray(jax.random.key_data(state.key)).tolist()
    facts = [config.n_steps, dataclasses.asdict(config.optimiser), arrays, key]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
