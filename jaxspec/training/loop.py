"""The training loop: a model, a loss and batches in; the model with averaged weights out."""

import dataclasses
import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from flax import nnx
from jaxtyping import PRNGKeyArray, PyTree
from tqdm import tqdm

from jaxspec.errors import InputError
from jaxspec.stopping import Request, deferred, keep
from jaxspec.training.checkpoint import Checkpointer
from jaxspec.training.guard import raise_non_finite
from jaxspec.training.metrics import MetricsLog
from jaxspec.training.optimiser import OptimiserConfig
from jaxspec.training.parallel import BatchFn, batch_size, make_runner
from jaxspec.training.state import LossFn, TrainState, averaged_model, create_state, step_keys

log = logging.getLogger(__name__)

FIRST_CHECKPOINT = 30.0  # s after the start at the latest, compilation included
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
                    "set it to such a value",
                )
        if self.sync_every > MAX_UNSYNCED_STEPS:
            raise InputError(
                "TrainConfig.sync_every",
                str(self.sync_every),
                f"at most {MAX_UNSYNCED_STEPS}",
                "wait more often: JAX on several CPU devices can deadlock otherwise",
            )


class FitResult(NamedTuple):
    """Outcome of `fit`."""

    model: Any  # that which was given, with averaged weights
    state: TrainState  # the last state, averages and moments included
    history: list[dict[str, Any]]  # the rows of metrics.jsonl
    finished: bool  # False if the time budget ended training early


@dataclass
class _Progress:
    """Measurements since the last row of the log, and the time spent; most of it survives a resume."""

    seconds: float = 0.0  # spent training, earlier runs included
    losses: list[float] = field(default_factory=list)
    grad_norms: list[float] = field(default_factory=list)
    clock: float = 0.0  # seconds in which `examples` were seen
    examples: int = 0

    def add(self, losses: np.ndarray, grad_norms: np.ndarray, seconds: float, examples: int) -> None:
        self.losses += losses.tolist()
        self.grad_norms += grad_norms.tolist()
        self.seconds, self.clock, self.examples = (
            self.seconds + seconds,
            self.clock + seconds,
            self.examples + examples,
        )

    def row(self, step: int, rate: float) -> dict[str, Any]:
        """A row of the log; what it sums up starts anew."""
        row = {
            "step": step,
            "loss": float(np.mean(self.losses)),
            "grad_norm": float(np.mean(self.grad_norms)),
            "learning_rate": rate,
            "examples_per_second": self.examples / self.clock if self.clock > 0 else None,
            "seconds": self.seconds,
        }
        self.losses, self.grad_norms, self.clock, self.examples = [], [], 0.0, 0
        return row

    def saved(self) -> dict[str, Any]:
        """The part that a resumed run needs to write the rows of an unbroken one."""
        return {"seconds": self.seconds, "losses": self.losses, "grad_norms": self.grad_norms}


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
    evaluate: Callable[[Any], dict[str, float]] | None = None,
    trained: nnx.filterlib.Filter = nnx.Param,
) -> FitResult:
    """Minimise the mean of ``loss_fn(model, batch, key)`` and return the model with averaged weights.

    Batches come from one of two places: ``batch_fn(key, step)``, pure JAX that makes a batch (it is compiled
    into the train step, and runs sharded over the devices), or ``source(step)``, host code that returns
    arrays (see `ArraySource`). Both must depend on their arguments alone; then a resumed run sees the batches
    that an unbroken one would have seen. The loss must be a mean over the examples of the batch. Only the
    variables that `trained` selects (a Flax filter) are changed.

    With a `directory`, `metrics.jsonl` and `checkpoints/` are kept there, and with `resume` a run that finds
    a checkpoint goes on from it; killed at any moment, it ends with the same numbers as if it had not been.
    The first checkpoint is saved after half a minute, the others every `checkpoint_every` steps. Ctrl-C and
    SIGTERM save one and raise `jaxspec.stopping.Stopped`.
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
    graphdef, state = create_state(model, config.optimiser, key, trained)
    identity = run_identity(config, state)
    progress, checkpointer, start = _Progress(), None, 0
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
        checkpointer = Checkpointer(directory / "checkpoints", keep=config.keep_checkpoints)
        if checkpointer.latest() is not None:
            state, progress = _resume(checkpointer, state, identity, resume=resume)
            start = int(state.step)
            log.info("going on from step %d of %d", start, config.n_steps)
            keep(f"step {start} of {config.n_steps}")
    rows = MetricsLog(None if directory is None else directory / "metrics.jsonl", step=start)
    runner = make_runner(config.parallel, graphdef, loss_fn, config.optimiser, batch_fn, config.n_devices)

    def batch_of(step: int) -> PyTree:
        if batch_fn is not None:
            return jax.jit(batch_fn)(step_keys(key, step)[0], step)
        assert source is not None
        return source(step)

    def report(rate: float) -> None:
        row = progress.row(step, rate)
        rows.write(row)
        bar.set_postfix(loss=f"{row['loss']:.4f}", refresh=False)

    def out_of_time() -> bool:
        return config.max_seconds is not None and progress.seconds >= config.max_seconds

    state, step, rate, size = runner.place(state), start, 0.0, 0
    bar = tqdm(
        total=config.n_steps, initial=start, disable=not config.progress, unit="step", dynamic_ncols=True
    )
    # Processes that train together must stop together: none of them answers a signal by itself.
    alone = jax.process_count() == 1
    started, saved = time.monotonic(), start
    with deferred() if alone else nullcontext(Request()) as request, _closing(bar, checkpointer):
        while step < config.n_steps and not out_of_time():
            # One stretch of steps without waiting, ending where something is due.
            first, pending, begun = step == start, [], time.perf_counter()
            for _ in range(1 if first else _steps_until_due(step, config, evaluate is not None)):
                batch = source(step) if source is not None else None
                done = step / config.n_steps
                if config.max_seconds is not None:
                    done = max(done, progress.seconds / config.max_seconds)
                state, metrics = runner.step(state, batch, done)
                pending.append(metrics)
                step += 1
            losses, norms, rates = np.asarray(jax.device_get(pending), np.float64).T  # waits
            seconds, rate = time.perf_counter() - begun, float(rates[-1])
            for bad, loss in enumerate(losses, start=step - len(losses)):
                if not math.isfinite(loss):
                    raise_non_finite(float(loss), bad, batch_of(bad), directory)
            if first:
                # Compilation is no part of the speed, nor of the time budget.
                size = batch_size(batch if batch_fn is None else jax.eval_shape(batch_fn, key, 0))
                rows.write({"step": step, "compile_seconds": seconds})
                seconds = 0.0
            progress.add(losses, norms, seconds, 0 if first else size * len(losses))
            bar.update(len(losses))
            # What is due, the checkpoint last: rows of its own step or before are then never written twice.
            last = step == config.n_steps or out_of_time()
            if last or step % config.log_every == 0:
                report(rate)
            if evaluate is not None and (last or _divides(config.evaluate_every, step)):
                values = evaluate(averaged_model(graphdef, runner.fetch(state), config.optimiser))
                rows.write({"step": step, **{name: float(value) for name, value in values.items()}})
            overdue = saved == start and time.monotonic() - started > FIRST_CHECKPOINT
            due = last or overdue or bool(request) or step % config.checkpoint_every == 0
            if checkpointer is not None and due:
                checkpointer.save(
                    step, runner.fetch(state), {"identity": identity, "progress": progress.saved()}
                )
                saved = step
                keep(f"step {step} of {config.n_steps}")
            request.stop()
    final = runner.fetch(state)
    model = averaged_model(graphdef, final, config.optimiser)
    return FitResult(model, final, rows.rows, finished=step >= config.n_steps)


@contextmanager
def _closing(bar: tqdm, checkpointer: Checkpointer | None) -> Iterator[None]:
    try:
        yield
    finally:
        bar.close()
        if checkpointer is not None:
            checkpointer.close()


def _divides(interval: int, step: int) -> bool:
    return interval > 0 and step % interval == 0


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
    if metadata["identity"] != identity:
        raise InputError(
            str(checkpointer.directory),
            "a checkpoint of another configuration, model or key",
            "one of this run",
            "choose another folder or go back to the old configuration",
        )
    return checkpointer.restore(state), _Progress(**metadata.get("progress", {}))


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
