"""Plan, act, observe: one star under budgets, its trace, and the replay of a trace."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxspec.agent.bench import Bench, Conclusion, State
from jaxspec.agent.evidence import Evidence
from jaxspec.agent.hypotheses import UNKNOWN
from jaxspec.agent.planners import NOTHING, Action, Brief, Knowledge, Planner
from jaxspec.agent.tools import call, probabilities
from jaxspec.errors import InputError
from jaxspec.fitting.check import CHI2_MAX
from jaxspec.fitting.refine import RefineConfig, model_misfit
from jaxspec.inference import Inference
from jaxspec.posterior.flags import Flag
from jaxspec.posterior.results import Posterior
from jaxspec.runs import plain

DONE = "done"
FITTING = ("infer", "compare")
KEPT = Flag.LOW_SNR | Flag.ARM_MISSING | Flag.NO_DATA
EDGE = 0.01


@dataclass(frozen=True)
class Budget:
    """Limits on the cost of a star. An exceeded budget ends the star with the best state so far.

    Attributes:
        steps: tools called.
        fits: fits made.
        seconds: of wall-clock time.
        errors: observations that are errors.
        repeats: calls of one tool with the same arguments under the same setup.
        tokens: of a language model, in and out.
    """

    steps: int = 40
    fits: int = 30
    seconds: float = 600.0
    errors: int = 5
    repeats: int = 2
    tokens: int = 60_000

    def __post_init__(self):
        for name, value in dataclasses.asdict(self).items():
            if value <= 0:
                raise InputError(f"budget.{name}", f"{value}", "a positive number", "raise it")


class Step(NamedTuple):
    """One line of the trace."""

    action: Action
    observation: dict[str, Any]
    fits: int
    seconds: float


class Worked(NamedTuple):
    """The outcome of a star.

    Attributes:
        state: the last one, with a conclusion.
        status: `done`, or what ended it before.
        steps: all of them.
        posterior: labels of the star.
    """

    state: State
    status: str
    steps: tuple[Step, ...]
    posterior: Posterior

    @property
    def conclusion(self) -> Conclusion:
        assert self.state.conclusion is not None
        return self.state.conclusion


def work(bench: Bench, planner: Planner, knowledge: Knowledge = NOTHING, budget: Budget = Budget()) -> Worked:
    """Let a planner work on a star until it concludes, gives up, or a budget is spent. Whatever happens, the
    star ends with labels, a cause and a status."""
    state, status = bench.start(), "the planner stopped without a conclusion"
    steps: list[Step] = []
    begun, errors = time.monotonic(), 0
    done_before: dict[str, int] = {}
    plan = planner(Brief(bench.name, knowledge, bench.folder))
    observation: dict[str, Any] | None = None
    tokens = 0
    while state.conclusion is None:
        try:
            action = next(plan) if observation is None else plan.send(observation)
        except StopIteration as end:
            status = str(end.value) if end.value else status
            break
        except Exception as error:  # a planner's failure is the planner's: the star goes on to its end
            status = f"the planner failed: {type(error).__name__}: {str(error)[:200]}"
            break
        tokens += action.tokens
        what = json.dumps([action.tool, action.arguments, plain(state.setup)], sort_keys=True, default=str)
        done_before[what] = done_before.get(what, 0) + 1
        spent = {
            "steps": len(steps) >= budget.steps,
            "fits": state.n_fits >= budget.fits and action.tool in FITTING,
            "seconds": time.monotonic() - begun > budget.seconds,
            "errors": errors >= budget.errors,
            "repeats": done_before[what] > budget.repeats,
            "tokens": tokens > budget.tokens,
        }
        over = next((name for name, is_over in spent.items() if is_over), None)
        if over is not None:
            status = f"budget of {over} spent"
            break
        before, start = state.n_fits, time.monotonic()
        state, observation = step(bench, state, action)
        errors += "error" in observation
        steps.append(Step(action, observation, state.n_fits - before, time.monotonic() - start))
        status = action.status or (DONE if state.conclusion is not None else status)
    plan.close()
    return finish(bench, state, status, tuple(steps))


def step(bench: Bench, state: State, action: Action) -> tuple[State, dict[str, Any]]:
    """One action; what fails inside a tool is an observation."""
    try:
        state, observation = call(bench, state, action.tool, action.arguments)
    except (ArithmeticError, np.linalg.LinAlgError, InputError) as error:
        return state, {"error": f"{type(error).__name__}: {error}", "allowed": "other arguments"}
    return state, plain(observation)


def finish(bench: Bench, state: State, status: str, steps: tuple[Step, ...]) -> Worked:
    """Labels, cause and status of a star whose steps are over."""
    if state.conclusion is None:
        best = state.best()
        if best is not None and len(state.current()) > 1:
            chance = probabilities(state, bench.config.ordinary)[best.name]
            ended = Conclusion(best.name, float(chance), best.name, status)
        else:
            ended = Conclusion(UNKNOWN, 0.0, "infer" if state.inferred else "none", status)
        state = dataclasses.replace(state, conclusion=ended)
    if state.inferred is None:
        state = dataclasses.replace(
            state, inferred=(state.setup, bench.infer(state.setup)), n_fits=state.n_fits + 1
        )
    return Worked(state, status, steps, labels_of(bench, state))


def labels_of(bench: Bench, state: State) -> Posterior:
    """The posterior of the labels as the conclusion says where they come from, with flags."""
    assert state.conclusion is not None and state.inferred is not None
    inferred: Inference = state.inferred[1]
    posterior, source = inferred.posterior, state.conclusion.labels_from
    if source == "infer":
        return posterior
    fitted = state.current().get(source)
    if source == "none" or fitted is None:
        bad = posterior.flags | int(Flag.OUT_OF_RANGE | Flag.BAD_FIT)
        return dataclasses.replace(posterior, flags=bad)
    return _drawn(bench, state, posterior, fitted)


def _drawn(bench: Bench, state: State, posterior: Posterior, fitted: Evidence) -> Posterior:
    """Gaussian draws about the best fit of a hypothesis, wider where it misses the spectrum beyond noise, by
    what such a misfit has meant for benchmark stars (see `RefineConfig.systematic`)."""
    label_set, n = posterior.label_set, len(posterior.label_set)
    data = bench.data(state.setup)
    ivar = np.where(data.good, data.noise**-2.0, 0.0)
    misfit = float(model_misfit(*map(jnp.asarray, (data.flux - fitted.model, ivar, data.good.astype(float)))))
    systematic = misfit / RefineConfig().misfit * label_set.per_label("systematic")
    mean, covariance = fitted.theta[:n], fitted.covariance[:n, :n] + np.diag(systematic**2)
    scale = np.sqrt(np.maximum(np.diag(covariance), 1e-12))
    value, vector = np.linalg.eigh(covariance / np.outer(scale, scale))
    root = scale[:, None] * vector * np.sqrt(np.maximum(value, 1e-9))
    z = np.asarray(jax.random.normal(bench.key("draws"), (posterior.draws.shape[0], n)), float)
    margin = 1e-4 * (label_set.high - label_set.low)
    draws = np.clip(mean + z @ root.T, label_set.low + margin, label_set.high - margin)
    log_det = np.sum(np.log(scale)) + 0.5 * np.sum(np.log(np.maximum(value, 1e-9)))
    log_prob = -0.5 * np.sum(z**2, axis=1) - log_det - 0.5 * n * np.log(2.0 * np.pi)
    low, high = np.quantile(draws, [0.16, 0.84], axis=0)
    edge = EDGE * (label_set.high - label_set.low)
    flags = posterior.flags & int(KEPT)
    if ((low < label_set.low + edge) | (high > label_set.high - edge)).any():
        flags = flags | int(Flag.NEAR_BOUND)
    if np.nanmax(fitted.chi2, initial=0.0) > CHI2_MAX:
        flags = flags | int(Flag.BAD_FIT)
    sizes = np.array([where.stop - where.start for where in bench.instrument.slices.values()], float)
    seen = np.isfinite(fitted.chi2)
    chi2 = float(np.average(fitted.chi2[seen], weights=sizes[seen])) if seen.any() else np.nan
    return dataclasses.replace(
        posterior,
        draws=draws[:, None].astype(posterior.draws.dtype),
        log_prob=log_prob[:, None].astype(posterior.log_prob.dtype),
        chi2=np.array([chi2]),
        flags=flags,
        raw=None,
    )


# --- the trace


def lines(name: str, worked: Worked) -> list[dict[str, Any]]:
    """The trace of a star: a line for each step, and one for its end."""
    rows: list[dict[str, Any]] = []
    for number, done in enumerate(worked.steps, start=1):
        action = done.action
        rows.append(
            {
                "star": name,
                "step": number,
                "tool": action.tool,
                "arguments": action.arguments,
                "hypothesis": action.hypothesis,
                "reason": action.reason,
                "observation": done.observation,
                "cost": {"fits": done.fits, "seconds": round(done.seconds, 3), "tokens": action.tokens},
            }
        )
    ended = worked.conclusion
    rows.append(
        {
            "star": name,
            "end": worked.status,
            "cause": ended.cause,
            "p_cause": ended.p_cause,
            "labels_from": ended.labels_from,
            "reason": ended.reason,
            "n_fits": worked.state.n_fits,
            "n_steps": len(worked.steps),
            "labels": worked.posterior.median[0].tolist(),
            "errors": worked.posterior.error[0].tolist(),
        }
    )
    return rows


class Difference(NamedTuple):
    """Where a replay differs from its trace."""

    star: str
    step: int
    was: Any
    now: Any


def replay(bench: Bench, rows: Iterable[Mapping[str, Any]]) -> tuple[Worked, list[Difference]]:
    """Go through a star's trace again: the same actions on the same spectrum. The result, and every
    observation or label that differs in any bit."""
    state, steps, differences = bench.start(), [], []
    rows = list(rows)
    for row in rows:
        if "end" in row:
            continue
        action = Action(row["tool"], dict(row["arguments"]), row["hypothesis"], row["reason"])
        before = state.n_fits
        state, observation = step(bench, state, action)
        steps.append(Step(action, observation, state.n_fits - before, 0.0))
        if json.loads(json.dumps(observation)) != row["observation"]:
            differences.append(Difference(bench.name, row["step"], row["observation"], observation))
    end = next((row for row in rows if "end" in row), None)
    status = DONE if end is None else str(end["end"])
    worked = finish(bench, state, status, tuple(steps))
    if end is not None:
        now = lines(bench.name, worked)[-1]
        for name in ("cause", "p_cause", "n_fits", "labels", "errors"):
            if now[name] != end[name]:
                differences.append(Difference(bench.name, len(steps) + 1, end[name], now[name]))
    return worked, differences
