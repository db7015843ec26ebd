"""Whether to adapt a network to a survey, and how: decided from the survey's spectra without its labels.

Alignment of surveys that differ in their stars and not in their instrument harms (Elsemueller et al. 2025,
arXiv:2502.04949). The evidence that tells the two apart is a fresh classifier's: if it cannot tell the
summaries of both surveys apart, or no longer once the source's stars are weighted as the target's are, there
is nothing to align.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jaxspec.errors import InputError


@dataclass(frozen=True)
class Evidence:
    """Facts about one method that are known without labels of the target.

    Attributes:
        auc: of a fresh classifier between summaries of source and target (`separability`).
        auc_weighted: the same with the source's stars weighted by the estimated label shift.
        loss: importance-weighted mean -ln density of held-out source stars.
        width: geometric mean over labels of the target's posterior widths over the source's scatter.
        change: RMS change of the target's labels against no adaptation, in widths of its posteriors.
        shift: total variation between the label distributions, by the method's posteriors.
        coverage: of 68 % intervals for simulated targets, where a simulator of the target is at hand.
    """

    auc: float
    auc_weighted: float
    loss: float
    width: float
    change: float = 0.0
    shift: float = 0.0
    coverage: float | None = None


@dataclass(frozen=True)
class GateConfig:
    """Where the gate draws its lines.

    Attributes:
        alike: AUC up to which two surveys count as alike.
        failed: AUC above which an alignment has failed.
        gain: by how much a method has to lower the AUC of no adaptation, as a share of its excess over one
            half.
        loss: by how much the loss on the source may rise [nats per star].
        coverage: by how much the coverage of simulated targets may be off.
    """

    alike: float = 0.6
    failed: float = 0.9
    gain: float = 0.1
    loss: float = 1.0
    coverage: float = 0.1


@dataclass(frozen=True)
class Decision:
    """The method that is chosen, why, and what is said against each of the others.

    Attributes:
        method: by name; "none" for no adaptation.
        reason: one sentence.
        refused: a sentence for each method that may not be used.
        weights: whether the stars should be weighted: the surveys differ in them.
    """

    method: str
    reason: str
    refused: dict[str, str]
    weights: bool = False


def decide(evidence: Mapping[str, Evidence], config: GateConfig = GateConfig()) -> Decision:
    """Choose among the methods of `evidence`, which has "none".

    Raises: InputError without evidence of "none".
    """
    if "none" not in evidence:
        raise InputError("gate", f"evidence of {', '.join(evidence) or 'nothing'}", "of none too", "train it")
    none = evidence["none"]
    others = {name: e for name, e in evidence.items() if name != "none"}
    refused = {name: why for name, e in others.items() if (why := _refusal(e, none, config))}
    weights = none.shift > 0.15
    if none.auc <= config.alike:
        reason = (
            f"the surveys look alike, AUC {none.auc:.2f} <= {config.alike:.2f}: there is nothing to align"
        )
        return Decision("none", reason, refused, weights)
    if none.auc_weighted <= config.alike:
        reason = (
            f"the surveys differ in their stars (shift {none.shift:.2f}), not in their spectra: AUC "
            f"{none.auc:.2f}, but {none.auc_weighted:.2f} once stars are weighted; use the weights as prior"
        )
        return Decision("none", reason, refused, True)
    allowed = {name: e for name, e in others.items() if name not in refused}
    if not allowed:
        reason = f"the spectra differ (AUC {none.auc_weighted:.2f}), but no method may be used"
        return Decision("none", reason, refused, weights)
    best = min(allowed, key=lambda name: (allowed[name].auc_weighted, allowed[name].loss))
    left, cost = allowed[best].auc_weighted, allowed[best].loss - none.loss
    reason = (
        f"the spectra differ (AUC {none.auc_weighted:.2f}); {best} leaves {left:.2f}, the least of "
        f"{len(allowed)} methods allowed, at a loss of {cost:+.2f} on the source"
    )
    return Decision(best, reason, refused, weights)


def _refusal(e: Evidence, none: Evidence, config: GateConfig) -> str:
    if e.auc_weighted > config.failed:
        return (
            f"a failed alignment: a discriminator still wins, AUC {e.auc_weighted:.2f} > {config.failed:.2f}"
        )
    if e.auc_weighted - 0.5 > (1.0 - config.gain) * (none.auc_weighted - 0.5):
        return f"it aligns nothing: AUC {e.auc_weighted:.2f}, {none.auc_weighted:.2f} without it"
    if e.loss - none.loss > config.loss:
        return f"it costs {e.loss - none.loss:.2f} nats on the source, more than {config.loss:.2f}"
    if e.coverage is not None and abs(e.coverage - 0.68) > config.coverage:
        return f"68 % intervals of simulated targets hold {e.coverage:.2f}"
    return ""
