"""Does the agent find what is wrong? Simulated problem stars whose cause is known.

For each cause of `jaxspec.simulation.problems` it simulates stars of S/N 30 to 100, lets the agent work on
each, and prints which causes it named, how many fits that took, and whether the labels' errors hold, beside
what plain `infer` says of the same spectra, and beside fitting every hypothesis there is. With `learn=N` it
first plays N stars of each cause of another seed against itself, and keeps what the symptoms meant in
`knowledge.json`. Writes `agent_trial.json` and a picture of the confusion matrix. A run that was killed goes
on when it is given the same `output`.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from jaxspec.agent.bench import AgentConfig, Bench
from jaxspec.agent.evidence import Errors
from jaxspec.agent.hypotheses import CAUSES, ORDINARY, UNKNOWN, Star
from jaxspec.agent.loop import Budget, Worked, work
from jaxspec.agent.planners import Action, Brief, Knowledge, Plan, Planner, rules, symptoms
from jaxspec.amortised.storage import load_weights
from jaxspec.errors import InputError
from jaxspec.physics.forward import SHIPPED, forward_model
from jaxspec.posterior.model import PosteriorModel
from jaxspec.runs import begin, named_key, plain, resumable, write_json
from jaxspec.simulation.nuisances import CONFIGS
from jaxspec.simulation.problems import PROBLEMS, Problems, simulate_problems
from jaxspec.simulation.simulator import Simulator

log = logging.getLogger(__name__)

INPUT, OUTPUT = "checkpoint", "folder"
RULES, EVERYTHING, INFER = "rules", "everything", "infer"


@dataclass(frozen=True)
class Settings:
    """How many stars, and how they are worked on.

    Attributes:
        checkpoint: folder of a trained posterior; none: the weights in the package.
        seed: of all random numbers.
        n: stars of each cause.
        snr: range of S/N per pixel.
        causes: some of them; none: all.
        simulated: configuration of the simulations: pure, on which the model is exactly right, or robust.
        variants: how stars are worked on: rules, rules without knowledge, everything (all hypotheses).
        learn: stars of each cause of the self-play before; 0: use the knowledge in the package.
        agent: draws, errors of the model.
        budget: what a star may cost.
        forward: the forward model: folder of an emulator, or dotted name of a function of an instrument.
    """

    checkpoint: str | None = None
    seed: int = 1
    n: int = 10
    snr: tuple[float, float] = (30.0, 100.0)
    causes: tuple[str, ...] | None = None
    simulated: str = "pure"
    variants: tuple[str, ...] = (RULES, EVERYTHING)
    learn: int = 0
    agent: AgentConfig = field(default_factory=lambda: AgentConfig(errors=Errors(floor=0.0, line_error=0.0)))
    budget: Budget = field(default_factory=Budget)
    forward: str = SHIPPED

    def __post_init__(self):
        for name, known, given in (
            ("causes", PROBLEMS, self.causes or ()),
            ("variants", VARIANTS, self.variants),
            ("simulated", CONFIGS, (self.simulated,)),
        ):
            wrong = [x for x in given if x not in known]
            if wrong:
                raise InputError(name, repr(wrong[0]), f"one of {', '.join(known)}", "check the spelling")


def everything(brief: Brief) -> Plan:
    """Fit every hypothesis and take the one of the highest evidence: what the procedure is compared with."""
    spectrum = yield Action("look_at_spectrum", {})
    yield Action("infer", {})
    names = [c for c in CAUSES if c != UNKNOWN]
    if spectrum.get("prior") == "training":
        names.remove("wrong prior")
    compared: Any = {}
    for name in names:
        compared = yield Action("compare", {"hypotheses": [name]})
    best = compared["best"]
    source = "infer" if best == ORDINARY else best
    yield Action("conclude", {"cause": best, "labels_from": source})
    return None


VARIANTS: dict[str, tuple[Planner, bool]] = {
    RULES: (rules, True),
    "rules without knowledge": (rules, False),
    EVERYTHING: (everything, False),
}


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """Simulate, work, count; returns the metrics."""
    posterior, where = load_weights(settings.checkpoint)
    begin(folder, settings, [where])
    star = Star(forward_model(settings.forward, posterior.instrument))
    simulator = Simulator(star.forward, config=CONFIGS[settings.simulated])
    knowledge = Knowledge.load()
    if settings.learn:
        knowledge = learn(star, posterior, simulator, settings, folder)
    causes = settings.causes or tuple(PROBLEMS)
    kept = plain(settings) | {"n": 0, "causes": 0, "variants": 0, "knowledge": plain(knowledge)}
    names = [f"{cause}_{i}" for cause in causes for i in range(settings.n)]
    rows: list[dict[str, Any]] = []
    stars = {cause: problems(cause, settings, simulator, "trial") for cause in causes}
    for variant in (INFER, *settings.variants):
        for item in tqdm(
            resumable(names, kept, folder / "done" / variant.replace(" ", "_")),
            total=len(names),
            desc=variant,
        ):
            cause, _, number = item.name.rpartition("_")
            make: Callable[[], dict[str, Any]] = partial(
                one, star, posterior, stars[cause], int(number), variant, knowledge, settings
            )
            rows.append({"variant": variant} | json.loads(str(item.result(make)["row"])))
    metrics = {
        name: summary([r for r in rows if r["variant"] == name]) for name in (INFER, *settings.variants)
    }
    economy(rows, metrics)
    write_json(folder / "agent_trial.json", {"metrics": metrics, "rows": rows})
    show_tables(metrics)
    if RULES in metrics:
        from jaxspec.diagnostics.plots import save

        save(draw(metrics[RULES]["confusion"]), folder / "confusion.png")
    return metrics


def problems(cause: str, settings: Settings, simulator: Simulator, purpose: str, n: int = 0) -> Problems:
    """The stars of a cause: with a larger `n`, the same ones and more."""
    key = named_key(settings.seed, f"{purpose} {cause}")
    wanted, pieces = n or settings.n, []
    for i in range(-(-wanted // 10)):
        pieces.append(simulate_problems(cause, jax.random.fold_in(key, i), simulator, 10, settings.snr))
    first = pieces[0]
    return dataclasses.replace(
        first,
        flux=np.concatenate([p.flux for p in pieces])[:wanted],
        ivar=np.concatenate([p.ivar for p in pieces])[:wanted],
        labels=np.concatenate([p.labels for p in pieces])[:wanted],
        facts={name: np.concatenate([p.facts[name] for p in pieces])[:wanted] for name in first.facts},
    )


def bench(
    star: Star, posterior: PosteriorModel, stars: Problems, i: int, settings: Settings, purpose: str = ""
) -> Bench:
    """The bench of one simulated star."""
    config = dataclasses.replace(settings.agent, prior=stars.prior)
    return Bench(star, posterior, f"{purpose}{stars.cause} {i}", stars.flux[i], stars.ivar[i], config)


def one(
    star: Star,
    posterior: PosteriorModel,
    stars: Problems,
    i: int,
    variant: str,
    knowledge: Knowledge,
    settings: Settings,
) -> dict[str, Any]:
    """The result of one way of working on one star."""
    at = bench(star, posterior, stars, i, settings)
    facts = {name: float(values[i]) for name, values in stars.facts.items()}
    truth = stars.labels[i].astype(float)
    row: dict[str, Any] = {"cause": stars.cause, "i": i, "fittable": stars.fittable, "facts": facts}
    if variant == INFER:
        result = at.infer(at.start().setup)
        median, error, flag = result.labels[0, :], result.errors[0, :], int(result.flags[0])
        row |= {"said": "", "n_fits": 1, "status": "done", "snr": float(result.posterior.snr[0])}
    else:
        planner, knows = VARIANTS[variant]
        worked: Worked = work(at, planner, knowledge if knows else Knowledge(), settings.budget)
        said = worked.conclusion
        median, error = worked.posterior.median[0], worked.posterior.error[0]
        flag = int(worked.posterior.flags[0])
        best = max((t.evidence.log_evidence for t in worked.state.tries), default=np.nan)
        row |= {
            "said": said.cause,
            "p_cause": said.p_cause,
            "labels_from": said.labels_from,
            "n_fits": worked.state.n_fits,
            "status": worked.status,
            "best_log_evidence": best,
            "evidence": {t.hypothesis: t.evidence.log_evidence for t in worked.state.tries},
            "seconds": sum(s.seconds for s in worked.steps),
        }
    row |= {"pull": ((median - truth) / error).tolist(), "flags": flag, "off": (median - truth).tolist()}
    return {"row": np.array(json.dumps(plain(row)))}


def learn(
    star: Star, posterior: PosteriorModel, simulator: Simulator, settings: Settings, folder: Path
) -> Knowledge:
    """Self-play: which symptoms came with which cause, for stars of another seed than the trial's."""
    looked = plain(settings) | {"n": 0, "causes": 0, "variants": 0, "learn": 0}
    knowledge = Knowledge(origin=f"self-play on {settings.learn} simulated stars of each cause")
    names = [f"{cause}_{i}" for cause in PROBLEMS for i in range(settings.learn)]
    stars = {cause: problems(cause, settings, simulator, "learning", settings.learn) for cause in PROBLEMS}
    for item in tqdm(resumable(names, looked, folder / "learned"), total=len(names), desc="self-play"):
        cause, _, number = item.name.rpartition("_")

        def make(cause: str = cause, number: str = number) -> dict[str, Any]:
            at = bench(star, posterior, stars[cause], int(number), settings, "learning ")
            seen: list[str] = []
            work(at, partial(_first_look, seen=seen), budget=settings.budget)
            return {"seen": np.array(json.dumps(seen))}

        knowledge = knowledge.with_star(cause, tuple(json.loads(str(item.result(make)["seen"]))))
    knowledge.save(folder / "knowledge.json")
    return knowledge


def _first_look(brief: Brief, seen: list[str]) -> Plan:
    """The first steps of the rules: what the symptoms are."""
    spectrum = yield Action("look_at_spectrum", {})
    yield Action("infer", {})
    velocity = yield Action("measure_velocity", {})
    yield Action("compare", {"hypotheses": [ORDINARY]})
    look = yield Action("look_at_fit", {"hypothesis": ORDINARY})
    seen += symptoms(spectrum, velocity, look)
    yield Action("conclude", {"cause": UNKNOWN, "labels_from": "none", "p_cause": 0.0})
    return None


# --- counting


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Confusion, recall and F1 of each cause, root mean square pull of the labels where a fit is possible,
    and the share flagged where it is not."""
    causes = list(dict.fromkeys(row["cause"] for row in rows))
    said = [*causes, *(c for c in CAUSES if c not in causes)]
    confusion = {c: {s: sum(r["cause"] == c and r["said"] == s for r in rows) for s in said} for c in causes}
    out: dict[str, Any] = {"confusion": confusion, "n": len(rows)}
    by_cause, f1 = {}, []
    for cause in causes:
        own = [row for row in rows if row["cause"] == cause]
        hit = confusion[cause][cause]
        claimed = sum(confusion[c][cause] for c in causes)
        recall, precision = hit / len(own), hit / claimed if claimed else 0.0
        score = 2.0 * recall * precision / (recall + precision) if recall + precision else 0.0
        f1.append(score)
        pulls = np.array([row["pull"] for row in own], float)
        by_cause[cause] = {
            "n": len(own),
            "recall": recall,
            "precision": precision,
            "f1": score,
            "rms_pull": rms(pulls) if own[0]["fittable"] else None,
            "median_pull": float(np.median(np.abs(pulls)) / 0.6745) if own[0]["fittable"] else None,
            "flagged": float(np.mean([row["flags"] != 0 for row in own])),
            "median_fits": float(np.median([row["n_fits"] for row in own])),
        }
    out["by_cause"] = by_cause
    out["macro_f1"] = float(np.mean(f1))
    out["accuracy"] = float(np.mean([row["said"] == row["cause"] for row in rows]))
    fittable = [row for row in rows if row["fittable"]]
    out["rms_pull"] = rms(np.array([row["pull"] for row in fittable], float)) if fittable else None
    named = [row for row in fittable if row["said"] == row["cause"]]
    out["rms_pull_named"] = rms(np.array([row["pull"] for row in named], float)) if named else None
    out["median_fits"] = float(np.median([row["n_fits"] for row in rows]))
    return out


def rms(pulls: Float[np.ndarray, "n l"]) -> float:
    """Root mean square of pulls: 1 where errors hold."""
    return float(np.sqrt(np.mean(np.square(pulls))))


def economy(rows: list[dict[str, Any]], metrics: dict[str, Any]) -> None:
    """Share of stars in which each way reached the highest evidence of all hypotheses (within 5 % of the
    gain over an ordinary star, or within 5 in its logarithm)."""
    full = {(r["cause"], r["i"]): r["evidence"] for r in rows if r["variant"] == EVERYTHING}
    for name in metrics:
        own = [r for r in rows if r["variant"] == name and (r["cause"], r["i"]) in full and "evidence" in r]
        if own and name != EVERYTHING:
            reached = []
            for row in own:
                known = full[row["cause"], row["i"]]
                gain = max(known.values()) - known[ORDINARY]
                # Fits under another setup are of other pixels: only those of the first setup count.
                mine = max(v for k, v in row["evidence"].items()) - known[ORDINARY]
                reached.append(mine >= min(0.95 * gain, gain - 5.0) if gain > 5.0 else mine >= gain - 5.0)
            metrics[name]["reached_best_evidence"] = float(np.mean(reached))


def show_tables(metrics: dict[str, Any]) -> None:
    """Print them."""
    for name, found in metrics.items():
        print(
            f"\n{name}: {found['n']} stars, accuracy {found['accuracy']:.3f}, macro-F1 "
            f"{found['macro_f1']:.3f}, rms pull {found['rms_pull'] or np.nan:.2f} (cause named: "
            f"{found['rms_pull_named'] or np.nan:.2f}), median fits {found['median_fits']:.0f}"
        )
        heads = {"n": 4, "recall": 8, "prec.": 8, "F1": 7, "rms pull": 10, "med. pull": 11, "flagged": 9}
        print(f"{'cause':<24}" + "".join(f"{h:>{w}}" for h, w in heads.items()) + f"{'fits':>6}")
        for cause, row in found["by_cause"].items():
            pull = "-" if row["rms_pull"] is None else f"{row['rms_pull']:.2f}"
            middle = "-" if row["median_pull"] is None else f"{row['median_pull']:.2f}"
            print(
                f"{cause:<24}{row['n']:>4}{row['recall']:>8.2f}{row['precision']:>8.2f}{row['f1']:>7.2f}{pull:>10}"
                f"{middle:>11}{row['flagged']:>9.2f}{row['median_fits']:>6.0f}"
            )


def draw(confusion: dict[str, dict[str, int]]) -> Any:
    """The confusion matrix as a picture."""
    import matplotlib.pyplot as plt

    from jaxspec.diagnostics import plots

    causes = list(confusion)
    said = [
        name
        for name in next(iter(confusion.values()))
        if name in causes or any(r[name] for r in confusion.values())
    ]
    matrix = np.array([[confusion[c][s] for s in said] for c in causes], float)
    share = matrix / matrix.sum(axis=1, keepdims=True)
    with plots.style():
        figure, ax = plt.subplots(
            figsize=(0.62 * len(said) + 2.4, 0.45 * len(causes) + 2.0), layout="constrained"
        )
        ax.imshow(share, cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
        for i, j in np.argwhere(matrix > 0):
            colour = "white" if share[i, j] > 0.5 else plots.INK
            ax.text(j, i, f"{matrix[i, j]:.0f}", ha="center", va="center", color=colour)
        ax.set_xticks(range(len(said)), said, rotation=40, ha="right")
        ax.set_yticks(range(len(causes)), causes)
        ax.set(xlabel="cause named by the agent", ylabel="true cause")
        ax.tick_params(length=0)
    return figure
