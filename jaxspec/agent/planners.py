"""Who decides the next step. A planner is a generator: it yields actions and is sent their observations.

`rules` is a decision procedure of the field's practice: look, infer, look at the residuals, form the most
likely hypothesis, test it by evidence, mend one thing, infer again. It is deterministic and needs no network.
What symptoms have meant before (`Knowledge`) decides in which order it tests.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxspec.agent.hypotheses import CAUSES, ORDINARY, UNKNOWN
from jaxspec.errors import InputError
from jaxspec.runs import write_json

Observation = Mapping[str, Any]


class Action(NamedTuple):
    """A step: which tool with which arguments, what is suspected, why, what it cost to decide, and how a
    star that it concludes ended, where not as planned."""

    tool: str
    arguments: dict[str, Any]
    hypothesis: str = ""
    reason: str = ""
    tokens: int = 0
    status: str = ""


# Returns what ended it where it did not conclude.
Plan = Generator[Action, Observation, str | None]
Planner = Callable[["Brief"], Plan]


class Brief(NamedTuple):
    """Facts that a planner has of a star before it begins: its name, the page of knowledge, and the folder of
    pictures."""

    star: str
    knowledge: Knowledge
    folder: Path | None = None


# --- symptoms and what they have meant

# Residuals beyond so many standard errors are a symptom.
STRUCTURE, RIPPLE, EMISSION, HYDROGEN = 6.0, 30.0, 8.0, 10.0
SHIFT = 8.0  # km/s
SECOND = 0.05  # gain of a second velocity
WORST_CHI2 = 2.5  # of an arm, beyond which nothing explains a spectrum
SURE = 5.0  # difference of log evidence by which a hypothesis is better


def symptoms(spectrum: Observation, velocity: Observation, look: Observation) -> tuple[str, ...]:
    """The star's oddities, in the words by which knowledge is kept, from three observations."""
    found = []
    kms, error = velocity.get("velocity_kms"), velocity.get("error_kms")
    if kms is not None and abs(kms) > SHIFT and error is not None and abs(kms) > 5.0 * error:
        found.append("shifted")
    two = velocity.get("two_velocities", {})
    if (two.get("gain") or 0.0) > SECOND and (two.get("ratio") or 0.0) > 0.15:
        found.append("two velocities")
    power = {r["arm"]: r["power"] or 0.0 for r in look.get("ripples", ())}
    strong = [arm for arm, p in power.items() if p > RIPPLE]
    if strong and len(strong) == len(power) and len(power) > 1:
        found.append("ripples in all arms")
    elif strong:
        found.append("ripples in one arm")
    structure = [v or 0.0 for v in look.get("structure_sigma", {}).values()]
    if structure and max(structure) > 15.0 * STRUCTURE:
        found.append("gross misfit")
    elif structure and max(structure) > STRUCTURE:
        found.append("misfit")
    if structure and min(structure) < -0.5 * STRUCTURE:
        found.append("lines too sharp or blunt")
    if (look.get("triplet_emission_sigma") or 0.0) > EMISSION:
        found.append("light in the triplet")
    if (look.get("paschen_absorption_sigma") or 0.0) > HYDROGEN:
        found.append("light missing at hydrogen lines")
    if "teff" in look.get("at_limits", ()):
        found.append("temperature at its limit")
    if spectrum.get("prior", "training") != "training":
        found.append("restrictive prior")
    return tuple(found)


def explained(look: Observation) -> bool:
    """Whether the residuals of a fit look like noise."""
    structure = [v or 0.0 for v in look.get("structure_sigma", {}).values()]
    ripple = [r["power"] or 0.0 for r in look.get("ripples", ())]
    return (
        max(map(abs, structure), default=0.0) < STRUCTURE
        and max(ripple, default=0.0) < RIPPLE
        and abs(look.get("triplet_emission_sigma") or 0.0) < EMISSION
        and (look.get("paschen_absorption_sigma") or 0.0) < HYDROGEN
    )


@dataclass(frozen=True)
class Knowledge:
    """How often symptoms came with causes: a plain table, learned from stars whose cause was known.

    Attributes:
        stars: number of stars of each cause.
        counts: for each symptom, in how many stars of each cause it was seen.
        origin: where the counts come from, in words.
    """

    stars: Mapping[str, int] = field(default_factory=dict)
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    origin: str = "nothing learned"

    def rank(self, seen: tuple[str, ...]) -> list[str]:
        """Causes from the most to the least likely, given the symptoms seen and not seen (naive Bayes with
        one added to each count); the order of `CAUSES` without counts."""
        models = [cause for cause in CAUSES if cause not in (ORDINARY, UNKNOWN)]

        def score(cause: str) -> float:
            n = self.stars.get(cause, 0)
            chances = {
                name: (by_cause.get(cause, 0) + 1.0) / (n + 2.0) for name, by_cause in self.counts.items()
            }
            return sum(np.log(p if name in seen else 1.0 - p) for name, p in chances.items())

        return sorted(models, key=lambda cause: -score(cause))

    def with_star(self, cause: str, seen: tuple[str, ...]) -> Knowledge:
        """The table with one more star."""
        stars = dict(self.stars)
        stars[cause] = stars.get(cause, 0) + 1
        counts = {name: dict(by_cause) for name, by_cause in self.counts.items()}
        for name in seen:
            row = counts.setdefault(name, {})
            row[cause] = row.get(cause, 0) + 1
        return Knowledge(stars, counts, self.origin)

    def page(self) -> str:
        """The table as text for a planner that reads."""
        lines = [f"What symptoms have meant ({self.origin}; stars of each cause: {dict(self.stars)})."]
        for name, by_cause in sorted(self.counts.items()):
            rows = sorted(by_cause.items(), key=lambda item: -item[1])
            shares = ", ".join(f"{cause} {n}/{self.stars.get(cause, n)}" for cause, n in rows)
            lines.append(f"- {name}: {shares}")
        return "\n".join(lines)

    def save(self, path: str | Path) -> Path:
        """Write the table as JSON."""
        return write_json(path, {"origin": self.origin, "stars": self.stars, "counts": self.counts})

    @staticmethod
    def load(path: str | Path | None = None) -> Knowledge:
        """Read a table; without a path, the one in the package.

        Raises: InputError for a file that is none.
        """
        path = Path(str(resources.files("jaxspec.agent") / "knowledge.json")) if path is None else Path(path)
        try:
            stored = json.loads(path.read_text())
            return Knowledge(stored["stars"], stored["counts"], str(stored["origin"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"knowledge {path}",
                f"no table ({error})",
                "a file that Knowledge.save wrote",
                "check the path",
            ) from error


NOTHING = Knowledge()


# --- the procedure


# Causes whose fit says nothing about the star's labels.
WITHOUT_LABELS = ("hot star", UNKNOWN)


def rules(brief: Brief) -> Plan:
    """The decision procedure."""
    spectrum = yield Action("look_at_spectrum", {}, "", "know the data before the model")
    inferred = yield Action("infer", {}, ORDINARY, "the network's labels, and whether they fit")
    if "error" in inferred:
        yield Action("conclude", {"cause": UNKNOWN, "labels_from": "none", "reason": str(inferred["error"])})
        return None
    velocity = yield Action(
        "measure_velocity", {}, "wrong velocity", "is the spectrum at rest, with one star in it?"
    )
    compared = yield Action(
        "compare", {"hypotheses": [ORDINARY]}, ORDINARY, "what an ordinary star leaves over"
    )
    look = yield Action("look_at_fit", {"hypothesis": ORDINARY}, ORDINARY, "residuals tell the cause")
    if "error" in compared or "error" in look:
        text = str(compared.get("error") or look.get("error"))
        yield Action("conclude", {"cause": UNKNOWN, "labels_from": "infer", "reason": text})
        return None
    seen = symptoms(spectrum, velocity, look)
    restricted = spectrum.get("prior", "training") != "training"
    clean = explained(look) and not {"shifted", "two velocities"} & set(seen)
    order = [c for c in brief.knowledge.rank(seen) if restricted or c != "wrong prior"]
    if clean:
        silent = ["wrong prior"] * restricted + ["scattered light", "wrong resolving power"]
        text = "residuals are noise: only what labels can imitate is left to ask about"
        answer = yield Action("compare", {"hypotheses": silent}, "", text)
        compared = compared if "error" in answer else answer
        best = compared["best"]
    else:
        best, look_best = ORDINARY, look
        for cause in order:
            why = f"symptoms: {', '.join(seen) or 'residuals'}"
            answer = yield Action("compare", {"hypotheses": [cause]}, cause, why)
            if "error" in answer:
                continue
            compared = answer
            if compared["best"] == cause:
                best = cause
                text = f"does {cause} leave only noise?"
                look_best = yield Action("look_at_fit", {"hypothesis": cause}, cause, text)
                if explained(look_best):
                    break
        if (
            not explained(look_best)
            and max((c or 0.0) for c in look_best["chi2_by_arm"].values()) > WORST_CHI2
        ):
            best = UNKNOWN
    probability = (compared["hypotheses"].get(best) or {}).get("probability", 0.5)
    gain = (compared["hypotheses"][ORDINARY] or {}).get("log_evidence_below_best") or 0.0
    if best != ORDINARY and best != UNKNOWN and gain < SURE:
        best = ORDINARY
        probability = compared["hypotheses"][ORDINARY]["probability"]
    return (yield from _mend(best, compared, probability, seen))


def _mend(best: str, compared: Observation, probability: float, seen: tuple[str, ...]) -> Plan:
    """The remedy of a cause, and the conclusion."""
    reason = _because(best, compared, seen)
    if best != ORDINARY:
        yield Action("plot", {}, best, "the picture that convinces")
    labels_from = "infer" if best == ORDINARY else best
    if best == "wrong velocity":
        kms = compared["parameters_of_best"]["velocity"]["value"]
        yield Action("set_velocity", {"velocity": kms}, best, "take the shift out")
        yield Action("infer", {}, best, "labels of the spectrum at rest")
        labels_from = "infer"
    elif best == "wrong prior":
        yield Action("set_prior", {"prior": "training"}, best, "the spectrum contradicts the run's prior")
        yield Action("infer", {}, best, "labels under the wider prior")
        labels_from = "infer"
    elif best in WITHOUT_LABELS:
        labels_from = "none"
    yield Action(
        "conclude",
        {
            "cause": best,
            "labels_from": labels_from,
            "p_cause": float(np.clip(probability, 0.0, 1.0)),
            "reason": reason,
        },
        best,
        reason,
    )
    return None


def _because(best: str, compared: Observation, seen: tuple[str, ...]) -> str:
    row = compared["hypotheses"].get(ORDINARY, {})
    gain = row.get("log_evidence_below_best") or 0.0
    shown = f"symptoms: {', '.join(seen)}" if seen else "no symptoms"
    if best == ORDINARY:
        return f"an ordinary star explains the spectrum ({shown})"
    if best == UNKNOWN:
        return f"no hypothesis leaves only noise ({shown})"
    return f"{CAUSES[best]}: log evidence higher by {gain:g} than an ordinary star's ({shown})"


PLANNERS: dict[str, Planner] = {"rules": rules}
