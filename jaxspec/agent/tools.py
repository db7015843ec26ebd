"""The agent's tools: typed operations on a star, the same for every planner and for the MCP server.

Each tool takes the bench, the state and checked arguments, and returns the new state with an observation:
plain numbers and text with their units in the names. Wrong arguments are no error of the program: they come
back as an observation that says what is allowed.

Needs the `agent` extra (pydantic).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy.special import logsumexp

from jaxspec.agent import looks
from jaxspec.agent.bench import STELLAR_PRIORS, Bench, Conclusion, State, Try
from jaxspec.agent.evidence import Evidence
from jaxspec.agent.hypotheses import CAUSES, ORDINARY, UNKNOWN
from jaxspec.errors import InputError
from jaxspec.posterior import flags
from jaxspec.spectra import median_snr

try:
    from pydantic import BaseModel, ConfigDict, Field, ValidationError
except ImportError as error:
    raise InputError("agent", "no pydantic", "the extra agent", 'pip install "jaxspec[agent]"') from error

Observation = dict[str, Any]
MODELS = tuple(cause for cause in CAUSES if cause != UNKNOWN)
NUISANCES = ("d_vmic", "d_vmac", "vsini2", "velocity", "resolution")
UNITS = {
    "d_vmic": "km/s",
    "d_vmac": "km/s",
    "vsini2": "km^2/s^2",
    "velocity": "km/s",
    "resolution": "nominal R",
}


class Arguments(BaseModel):
    """Base of all arguments: nothing beside what is named."""

    model_config = ConfigDict(extra="forbid")


class Nothing(Arguments):
    """No arguments."""


class MeasureVelocity(Arguments):
    max_velocity: float = Field(400.0, gt=0.0, le=600.0, description="largest velocity looked for [km/s]")


class SetVelocity(Arguments):
    velocity: float = Field(ge=-600.0, le=600.0, description="taken out of the spectrum as read [km/s]")


class Mask(Arguments):
    low: float = Field(gt=0.0, description="start of the window [A, at rest]")
    high: float = Field(gt=0.0, description="end of the window [A, at rest]")


class DropArm(Arguments):
    arm: str = Field(description="name of an arm")


class Continuum(Arguments):
    degree: int = Field(ge=0, le=30, description="of the Chebyshev continuum of each arm")


class Nuisance(Arguments):
    name: Literal["d_vmic", "d_vmac", "vsini2", "velocity", "resolution"]
    width: float = Field(gt=0.0, le=1e4, description="standard deviation of its prior, in its unit")


class SetPrior(Arguments):
    prior: Literal["training", "dwarfs", "giants"]


class LookAtFit(Arguments):
    hypothesis: str | None = Field(None, description="whose fit; by default the best so far")


class Compare(Arguments):
    hypotheses: list[str] = Field(min_length=1, max_length=10, description=f"any of {', '.join(MODELS)}")


class Plot(Arguments):
    hypothesis: str | None = Field(None, description="whose model; by default the best so far")
    low: float | None = Field(None, description="start of a window [A]; by default whole arms")
    high: float | None = Field(None, description="end of the window [A]")


class Conclude(Arguments):
    cause: str = Field(description=f"one of {', '.join(CAUSES)}")
    labels_from: str = Field("infer", description="infer, the name of a fitted hypothesis, or none")
    p_cause: float | None = Field(None, ge=0.0, le=1.0, description="by default that of the evidence")
    reason: str = Field("", max_length=2000)


class Tool(NamedTuple):
    """One operation: its arguments, what it does, and whether it fits anything."""

    name: str
    text: str
    arguments: type[Arguments]
    run: Callable[[Bench, State, Any], tuple[State, Observation]]

    def schema(self) -> dict[str, Any]:
        """JSON schema of the arguments."""
        return self.arguments.model_json_schema()


def call(bench: Bench, state: State, name: str, arguments: Any) -> tuple[State, Observation]:
    """Run a tool by name. A tool or argument that does not exist, or is out of bounds, changes nothing; the
    observation then has `error` and `allowed`."""
    if name not in TOOLS:
        return state, {"error": f"there is no tool {name!r}", "allowed": list(TOOLS)}
    tool = TOOLS[name]
    if not isinstance(arguments, dict):
        return state, {"error": "arguments are no object", "allowed": tool.schema()["properties"]}
    try:
        checked = tool.arguments.model_validate(arguments)
        return tool.run(bench, state, checked)
    except ValidationError as error:
        what = "; ".join(
            f"{'.'.join(str(p) for p in e['loc']) or 'arguments'}: {e['msg']}" for e in error.errors()
        )
        return state, {"error": what, "allowed": tool.schema().get("properties", {})}
    except InputError as error:
        return state, {"error": f"{error.where}: {error.found}", "allowed": error.expected}


# --- looking


def look_at_spectrum(bench: Bench, state: State, _: Nothing) -> tuple[State, Observation]:
    flux, ivar = bench.spectrum(state.setup)
    arms = {}
    for name, where in bench.instrument.slices.items():
        good = ivar[where] > 0.0
        snr = median_snr(flux[None, where], ivar[None, where])[0] if good.any() else 0.0
        arms[name] = {"snr": number(snr), "share_used": number(good.mean())}
    facts = {k: v for k, v in bench.meta.items() if isinstance(v, (str, int, float, bool)) and k != "path"}
    return state, {
        "star": bench.name,
        "arms": arms,
        "velocity_taken_out_kms": number(state.setup.velocity),
        "prior": state.setup.prior,
        "facts": facts,
    }


def measure_velocity(bench: Bench, state: State, given: MeasureVelocity) -> tuple[State, Observation]:
    data = bench.data(state.setup)
    single = looks.velocity(data, bench.templates, given.max_velocity)
    peaks, _, _ = bench.shifts(state.setup)
    out: Observation = {"velocity_kms": None, "error_kms": None}
    if single is not None:
        out = {"velocity_kms": number(single[0]), "error_kms": number(single[1])}
    out["two_velocities"] = {
        "gain": number(peaks.gain),
        "first_kms": number(peaks.first),
        "second_kms": number(peaks.second),
        "ratio": number(peaks.ratio),
    }
    return _with_facts(state, velocity=out), out


def look_at_fit(bench: Bench, state: State, given: LookAtFit) -> tuple[State, Observation]:
    fitted = _chosen(state, given.hypothesis)
    data = bench.data(state.setup)
    model = fitted.model
    n = int(data.good.sum())
    out = {
        "hypothesis": fitted.name,
        "chi2_by_arm": {a: number(c) for a, c in zip(bench.instrument.slices, fitted.chi2, strict=True)},
        "pixels": n,
        "structure_sigma": {arm: number(v) for arm, v in looks.structure(data, model).items()},
        "ripples": [
            {k: number(v) if k != "arm" else v for k, v in r._asdict().items()}
            for r in looks.ripples(data, model)
        ],
        "triplet_emission_sigma": number(looks.line_emission(data, model)),
        "paschen_absorption_sigma": number(looks.paschen_absorption(data, model)),
        "worst_windows": looks.worst_windows(data, model),
        "parameters": parameters(fitted),
        "at_limits": at_limits(bench, state, fitted),
    }
    return _with_facts(state, look=out), out


# --- changing the data and the model


def set_velocity(bench: Bench, state: State, given: SetVelocity) -> tuple[State, Observation]:
    return _changed(state, velocity=given.velocity)


def mask(bench: Bench, state: State, given: Mask) -> tuple[State, Observation]:
    wavelength = bench.instrument.wavelength
    if not given.low < given.high or not ((wavelength > given.low) & (wavelength < given.high)).any():
        arms = ", ".join(f"{a.low:g}-{a.high:g}" for a in bench.instrument.arms)
        raise InputError(
            "window", f"{given.low}-{given.high} A", f"low < high within {arms} A", "give such a window"
        )
    return _changed(state, masked=(*state.setup.masked, (given.low, given.high)))


def drop_arm(bench: Bench, state: State, given: DropArm) -> tuple[State, Observation]:
    left = [a for a in bench.instrument.slices if a not in state.setup.dropped and a != given.arm]
    if given.arm not in bench.instrument.slices or not left:
        known = ", ".join(bench.instrument.slices)
        raise InputError("arm", repr(given.arm), f"one of {known}, and one must stay", "choose another")
    return _changed(state, dropped=(*state.setup.dropped, given.arm))


def continuum(bench: Bench, state: State, given: Continuum) -> tuple[State, Observation]:
    return _changed(state, degree=given.degree)


def nuisance(bench: Bench, state: State, given: Nuisance) -> tuple[State, Observation]:
    widths = dict(state.setup.widths) | {given.name: given.width}
    return _changed(state, widths=tuple(sorted(widths.items())))


def set_prior(bench: Bench, state: State, given: SetPrior) -> tuple[State, Observation]:
    assert given.prior in STELLAR_PRIORS
    return _changed(state, prior=given.prior)


# --- fitting


def infer(bench: Bench, state: State, _: Nothing) -> tuple[State, Observation]:
    if bench.config.memory and state.inferred is not None and state.inferred[0] == state.setup:
        result = state.inferred[1]
    else:
        result = bench.infer(state.setup)
        state = dataclasses.replace(state, inferred=(state.setup, result), n_fits=state.n_fits + 1)
    stats = result.posterior.stats
    return state, {
        "labels": {
            name: {"value": number(v), "error": number(e)}
            for name, v, e in zip(
                result.label_set.names, result.labels[0, :], result.errors[0, :], strict=True
            )
        },
        "flags": flags.names(int(result.flags[0])),
        "chi2": number(result.posterior.chi2[0]),
        "snr": number(result.posterior.snr[0]),
        "misfit": number(stats["misfit"][0]) if "misfit" in stats else None,
    }


def compare(bench: Bench, state: State, given: Compare) -> tuple[State, Observation]:
    unknown = [name for name in given.hypotheses if name not in MODELS]
    if unknown:
        raise InputError("hypotheses", ", ".join(map(repr, unknown)), ", ".join(MODELS), "choose of these")
    for name in dict.fromkeys(given.hypotheses):
        if bench.config.memory and state.tried(name, state.setup) is not None:
            continue
        fitted = bench.compare(name, state)
        state = dataclasses.replace(
            state, tries=(*state.tries, Try(name, state.setup, fitted)), n_fits=state.n_fits + 1
        )
    fits = state.current()
    best = max(fits.values(), key=lambda fitted: fitted.log_evidence)
    chances = probabilities(state, bench.config.ordinary)
    return state, {
        "best": best.name,
        "hypotheses": {
            name: {
                "log_evidence_below_best": number(best.log_evidence - fitted.log_evidence),
                "bic_above_best": number(fitted.bic - min(f.bic for f in fits.values())),
                "probability": number(chances[name]),
                "chi2_by_arm": {
                    a: number(c) for a, c in zip(bench.instrument.slices, fitted.chi2, strict=True)
                },
                "at_limits": at_limits(bench, state, fitted),
            }
            for name, fitted in sorted(fits.items(), key=lambda item: -item[1].log_evidence)
        },
        "parameters_of_best": parameters(best),
    }


# --- showing and saying


def plot(bench: Bench, state: State, given: Plot) -> tuple[State, Observation]:
    fitted = _chosen(state, given.hypothesis)
    if bench.folder is None:
        return state, {"picture": None, "note": "no folder for pictures was given"}
    from jaxspec.diagnostics import plots

    data = bench.data(state.setup)
    windows = None
    if given.low is not None and given.high is not None:
        inside = {
            a.name: [(max(a.low, given.low), min(a.high, given.high))]
            for a in bench.instrument.arms
            if a.low < given.high and a.high > given.low
        }
        if not inside or not given.low < given.high:
            raise InputError(
                "window", f"{given.low}-{given.high} A", "a window inside an arm", "choose another"
            )
        windows = {a.name: inside.get(a.name, []) for a in bench.instrument.arms}
    name = f"{len(state.pictures) + 1}_{fitted.name.replace(' ', '_')}.png"
    ivar = np.where(data.good, data.sigma**-2.0, 0.0)
    title = f"{plots.plain_text(bench.name)}: {fitted.name}"
    figure = plots.plot_spectrum(data.flux, ivar, bench.instrument, fitted.model, None, title, windows)
    bench.folder.mkdir(parents=True, exist_ok=True)
    plots.save(figure, bench.folder / name, dpi=110)
    return dataclasses.replace(state, pictures=(*state.pictures, name)), {"picture": name}


def conclude(bench: Bench, state: State, given: Conclude) -> tuple[State, Observation]:
    if given.cause not in CAUSES:
        raise InputError("cause", repr(given.cause), ", ".join(CAUSES), "choose one of these")
    sources = ["infer"] * (state.inferred is not None) + [*state.current()] + ["none"]
    if given.labels_from not in sources:
        raise InputError("labels_from", repr(given.labels_from), ", ".join(sources), "choose one of these")
    p = given.p_cause
    if p is None:
        p = probabilities(state, bench.config.ordinary).get(given.cause, 0.5)
    ended = Conclusion(given.cause, float(p), given.labels_from, given.reason)
    return dataclasses.replace(state, conclusion=ended), {"concluded": given.cause, "p_cause": number(p)}


TOOLS: dict[str, Tool] = {
    name: Tool(name, text, arguments, run)
    for name, text, arguments, run in (
        (
            "look_at_spectrum",
            "S/N and used share of each arm, and facts of the file",
            Nothing,
            look_at_spectrum,
        ),
        ("infer", "labels by the network, refined and checked, with flags; one fit", Nothing, infer),
        ("measure_velocity", "radial velocity, and whether there are two", MeasureVelocity, measure_velocity),
        ("compare", "fit hypotheses to the same pixels and compare evidence; a fit each", Compare, compare),
        ("look_at_fit", "chi-square, shape of residuals, worst windows with lines", LookAtFit, look_at_fit),
        ("set_velocity", "take a velocity out of the spectrum", SetVelocity, set_velocity),
        ("mask", "use no pixel of a window", Mask, mask),
        ("drop_arm", "use no pixel of an arm", DropArm, drop_arm),
        ("continuum", "degree of the continuum of the hypotheses", Continuum, continuum),
        ("nuisance", "width of a nuisance's prior: small fixes it, large frees it", Nuisance, nuisance),
        ("set_prior", "what is said of the star's labels beforehand", SetPrior, set_prior),
        ("plot", "a picture of the spectrum with a fit and its residuals", Plot, plot),
        ("conclude", "say the cause and where the labels come from; ends the star", Conclude, conclude),
    )
}


# --- what several tools share


def probabilities(state: State, ordinary: float) -> dict[str, float]:
    """Of the hypotheses that were fitted under the present setup, with the prior odds of an ordinary star."""
    fits = state.current()
    causes = len(MODELS) - 1
    prior = {name: np.log(ordinary if name == ORDINARY else (1.0 - ordinary) / causes) for name in fits}
    total = np.array([fits[name].log_evidence + prior[name] for name in fits])
    chances = np.exp(total - logsumexp(total)) if len(total) else total
    return dict(zip(fits, chances.tolist(), strict=True))


def parameters(fitted: Evidence) -> dict[str, dict[str, float | None]]:
    """Best values and errors, without those of the turbulence."""
    return {
        name: {"value": number(fitted.value(name)), "error": number(fitted.error(name))}
        for name in fitted.names
        if name not in ("d_vmic", "d_vmac")
    }


def at_limits(bench: Bench, state: State, fitted: Evidence) -> list[str]:
    """Labels that a fit pressed against the model's range."""
    label_set = bench.star.label_set
    near = 0.015 * (label_set.high - label_set.low)
    theta = fitted.theta[: len(label_set)]
    hit = (theta < label_set.low + near) | (theta > label_set.high - near)
    return [name for name, bad in zip(label_set.names, hit, strict=True) if bad]


def number(value: Any) -> float | None:
    """Four significant digits, as observations have them; None where not finite."""
    value = float(value)
    return float(f"{value:.4g}") if math.isfinite(value) else None


def _chosen(state: State, name: str | None) -> Evidence:
    fitted = state.best() if name is None else state.tried(name, state.setup)
    if fitted is None:
        known = ", ".join(state.current()) or "none yet: compare hypotheses first"
        raise InputError("hypothesis", repr(name), f"one that was fitted ({known})", "compare it first")
    return fitted


def _changed(state: State, **changes: Any) -> tuple[State, Observation]:
    setup = dataclasses.replace(state.setup, **changes)
    return dataclasses.replace(state, setup=setup), {"setup": _setup(setup)}


def _setup(setup: Any) -> dict[str, Any]:
    values = dataclasses.asdict(setup)
    return values | {
        "masked": [list(w) for w in setup.masked],
        "dropped": list(setup.dropped),
        "widths": {name: {"width": w, "unit": UNITS[name]} for name, w in setup.widths},
    }


def _with_facts(state: State, **facts: Any) -> State:
    return dataclasses.replace(state, facts={**state.facts, **facts})
