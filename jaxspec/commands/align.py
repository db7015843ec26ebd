"""One network for two surveys: align it with a target without labels, and say whether that helps.

Each method is trained on the source's labels and both surveys' spectra, and judged on stars of the target
whose labels it did not see. A gate chooses among the methods from unlabelled data alone. Writes
`metrics.json`, the table `align.md` and `align.png`. A killed run goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxspec.amortised.network import NetworkConfig
from jaxspec.amortised.reweighting import resample
from jaxspec.commands.align_data import AlignData, load_data
from jaxspec.datasets import Dataset
from jaxspec.errors import InputError
from jaxspec.flows import FlowConfig
from jaxspec.labels import LabelSet
from jaxspec.networks import EncoderConfig
from jaxspec.posterior.results import Posterior
from jaxspec.runs import atomically, begin, named_key, resumable, write_json
from jaxspec.surveys.adapt import Survey, align, log_densities, posterior_draws, summaries
from jaxspec.surveys.alignment import ALIGNMENTS, AlignedNetwork, AlignmentConfig
from jaxspec.surveys.comparators import compare
from jaxspec.surveys.gate import Evidence, GateConfig, decide
from jaxspec.surveys.label_shift import effective_number, fit_label_shift, tempered
from jaxspec.surveys.pairs import PairConfig
from jaxspec.surveys.scores import errors, gap_closed, probe, ridge, separability
from jaxspec.training import OptimiserConfig, TrainConfig

log = logging.getLogger(__name__)

OUTPUT = "folder"
WEIGHTS = "+weights"
CEILING, BRIDGE, NONE = "ceiling", "bridge", "none"
QUANTILES = (0.025, 0.16, 0.84, 0.975)

NETWORK = NetworkConfig(
    EncoderConfig(
        n_context=64, bin_pixels=1, projection_width=128, weight_bins=25, stem_channels=0, n_segments=4,
        head_width=128, head_blocks=2, dropout=0.1,
    ),
    FlowConfig(coupling="affine", n_layers=2, width=64, depth=1),
    error_floor=0.0025,
)  # fmt: skip
"""Small enough for a thousand pixels and a minute on one core."""


@dataclass(frozen=True)
class Settings:
    """Which surveys, and how they are aligned.

    Attributes:
        source: simulated, xp:near, or an .npz file with labels.
        target: a kind of simulated difference (instrument, model, labels, both, same), xp:far, or an .npz
            file.
        method: names of `methods`, with commas or as a list; NAME+weights also weights the stars.
        methods: settings of each method.
        bridge: also train on stars of the source made to look like the target's, where physics says how.
        comparators: other libraries' methods on the same summaries (extra bench).
        seeds: of the trainings; all figures are means over them.
        n_steps: of each training.
        batch: stars of each survey in a step.
        learning_rate: at its highest.
        n_draws: posterior draws of each star.
        model: encoder and flow.
        pair: of simulated surveys.
        gate: where the gate draws its lines.
    """

    source: str = "simulated"
    target: str = "instrument"
    method: str | tuple[str, ...] = "cdan,dann,mmd,coral,none"
    methods: dict[str, AlignmentConfig] = field(default_factory=lambda: dict(ALIGNMENTS))
    bridge: bool = True
    comparators: bool = False
    seeds: tuple[int, ...] = (0,)
    n_steps: int = 1000
    batch: int = 128
    learning_rate: float = 2e-3
    n_draws: int = 200
    model: NetworkConfig = NETWORK
    pair: PairConfig = PairConfig()
    gate: GateConfig = GateConfig()

    def __post_init__(self):
        for name in self.names:
            if name.removesuffix(WEIGHTS) not in self.methods:
                raise InputError("method", repr(name), f"of {list(self.methods)}", "write method=cdan,none")

    @property
    def names(self) -> tuple[str, ...]:
        """The methods to train, no adaptation first: the others are compared with it."""
        given = self.method.split(",") if isinstance(self.method, str) else list(self.method)
        wanted = [name.strip() for name in given if name.strip()]
        return tuple(dict.fromkeys([NONE, *wanted]))


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """Train, judge and decide; returns what `metrics.json` holds."""
    inputs = [name for name in (settings.source, settings.target) if name.endswith(".npz")]
    begin(folder, settings, inputs)
    data = load_data(settings.source, settings.target, settings.pair, seed=0)
    rows = list(settings.names)
    if settings.bridge and data.bridge is not None:
        rows.append(BRIDGE)
    if data.scored:
        rows.append(CEILING)
    known = dict(vars(settings))
    for name in ("method", "seeds", "comparators", "bridge", "gate"):
        known.pop(name)
    results: dict[str, list[dict[str, np.ndarray]]] = {}
    for seed in settings.seeds:
        base: dict[str, np.ndarray] | None = None
        for item in resumable([f"{name}_seed{seed}" for name in rows], known, folder / "trained"):
            name = item.name.rpartition("_seed")[0]
            log.info("%s, seed %d", name, seed)
            result = item.result(partial(trained, name, data, settings, seed, base))
            base = result if name == NONE else base
            results.setdefault(name, []).append(result)
    metrics = summarise(results, data, settings)
    write_json(folder / "metrics.json", metrics)
    text = as_markdown(metrics, data.label_set)
    atomically(folder / "align.md", lambda p: p.write_text(text))
    print(text)
    if data.scored:
        from jaxspec.diagnostics import plots
        from jaxspec.diagnostics.align_plots import plot_alignment

        plots.save(plot_alignment(metrics, data.label_set), folder / "align.png")
    return metrics


# --- one training


def trained(
    name: str, data: AlignData, settings: Settings, seed: int, base: Mapping[str, np.ndarray] | None
) -> dict[str, np.ndarray]:
    """Train one method and keep what its scores and evidence need, as arrays by name.

    Args:
        base: the result of no adaptation, which gives the weights of the stars.
    """
    config = settings.methods.get(name.removesuffix(WEIGHTS), ALIGNMENTS["none"])
    weight = base["weight"] if name.endswith(WEIGHTS) and base is not None else None
    source = Survey("source", data.source, labelled=True, weight=weight)
    target = Survey("target", data.target, labelled=False)
    if name == CEILING:
        source, target = Survey("target", data.target, True), Survey("source", data.source, False)
    elif name == BRIDGE:
        source = Survey("source", data.source, True, augment=data.bridge)
    network = align(
        (source, target),
        data.label_set,
        config,
        settings.model,
        TrainConfig(
            settings.n_steps,
            OptimiserConfig(settings.learning_rate, ema_decay=0.99),
            log_every=min(100, settings.n_steps),
        ),
        key=named_key(seed, name),
        size=settings.batch,
        seed=seed,
    )
    return judged(network, data, settings, seed, weight, with_prior=name == NONE)


def judged(
    network: AlignedNetwork,
    data: AlignData,
    settings: Settings,
    seed: int,
    weight: np.ndarray | None,
    with_prior: bool = False,
) -> dict[str, np.ndarray]:
    """Posteriors of the held-out stars, and the evidence of the gate."""
    key, n = named_key(seed, "judged"), settings.n_draws
    draws = posterior_draws(network, data.target_test, key, n)
    shift = fit_label_shift(data.source.labels, draws, weight=weight, seed=seed)
    a, b = summaries(network, data.source_test), summaries(network, data.target_test)
    ratio = tempered(shift.ratio(data.source_test.labels))
    log_density = log_densities(network, data.source_test)
    scale = data.source.labels.std(axis=0)
    own = draws.std(axis=0)
    out = {
        **kept(draws),
        "own_width": own,
        "auc": separability(a, b, seed=seed),
        "auc_weighted": separability(a, b, ratio, seed=seed),
        "loss": -np.average(log_density, weights=ratio),
        "width": np.exp(np.mean(np.log(np.maximum(own / scale, 1e-6)))),
        "shift": shift.size,
        "weight": tempered(shift.ratio(data.source.labels)),
        "source_summary": a.astype(np.float32),
        "target_summary": b.astype(np.float32),
        "train_summary": summaries(network, data.source.rows(slice(0, 6000))).astype(np.float32),
        "unlabelled_summary": summaries(network, data.target.rows(slice(0, 6000))).astype(np.float32),
    }
    if with_prior:
        many = posterior_draws(network, data.target_test, jax.random.fold_in(key, 1), 2 * n)
        under = under_shift(key, many, data.label_set, shift.log_ratio(many), n)
        out |= {f"prior_{k}": v for k, v in kept(under).items()}
        alike = posterior_draws(network, standardised_like(data), jax.random.fold_in(key, 2), n)
        out |= {f"standardised_{k}": v for k, v in kept(alike).items()}
    return {name: np.asarray(value) for name, value in out.items()}


def kept(draws: np.ndarray) -> dict[str, np.ndarray]:
    """Mean and quantiles of draws [d, n, l]."""
    return {"mean": draws.mean(axis=0, dtype=np.float64), "quantiles": np.quantile(draws, QUANTILES, axis=0)}


def under_shift(key: Any, draws: np.ndarray, labels: LabelSet, log_ratio: np.ndarray, n: int) -> np.ndarray:
    """Draws under the target's density of labels."""
    n_star = draws.shape[1]
    nothing = np.zeros(n_star)
    names = tuple(map(str, range(n_star)))
    log_prob = np.zeros(draws.shape[:2])
    posterior = Posterior(draws, log_prob, labels, names, nothing, nothing, nothing.astype(np.int64))
    return resample(key, posterior, log_ratio, n).draws


def standardised_like(data: AlignData) -> Dataset:
    """The target's held-out stars with mean and scatter of each pixel made those of the source: the simplest
    alignment of all (batch normalisation by survey; Li et al. 2016, arXiv:1603.04779)."""
    (m_s, s_s), (m_t, s_t) = (
        (x.flux.mean(axis=0), np.maximum(x.flux.std(axis=0), 1e-4)) for x in (data.source, data.target)
    )
    test = data.target_test
    return test._replace(flux=(test.flux - m_t) / s_t * s_s + m_s, ivar=test.ivar * (s_t / s_s) ** 2)


# --- what is written


def summarise(
    results: dict[str, list[dict[str, np.ndarray]]], data: AlignData, settings: Settings
) -> dict[str, Any]:
    """Scores, evidence and the decision, as means over the seeds."""
    names = data.label_set.names
    evidence = {
        name: _evidence(name, r, results[NONE]) for name, r in results.items() if name not in (CEILING,)
    }
    choice = {k: e for k, e in evidence.items() if k != BRIDGE}
    decisions = [
        decide({k: _evidence(k, [results[k][i]], [results[NONE][i]]) for k in choice}, settings.gate)
        for i in range(len(settings.seeds))
    ]
    decision = decide(choice, settings.gate)
    log.info("the gate chooses %s: %s", decision.method, decision.reason)
    methods: dict[str, Any] = {}
    for name, repeats in results.items():
        entry: dict[str, Any] = {
            "failed": name in evidence and evidence[name].auc_weighted > settings.gate.failed
        }
        if name in evidence:
            entry |= asdict(evidence[name])
        if data.scored:
            entry["labels"] = _scores(repeats, data)
            r2 = [probe(r["target_summary"], data.target_test.labels, data.label_set) for r in repeats]
            entry["probe_r2"] = {label: float(np.mean([x[label] for x in r2])) for label in names}
        methods[name] = entry
    metrics: dict[str, Any] = {
        "source": settings.source, "target": settings.target, "seeds": list(settings.seeds),
        "stars": {k: getattr(data, k).n_stars for k in ("source", "target", "source_test", "target_test")},
        "gate": {**asdict(decision), "by_seed": [d.method for d in decisions]},
        "effective_stars": float(np.mean([effective_number(r["weight"]) for r in results[NONE]])),
        "methods": methods,
    }  # fmt: skip
    if data.scored:
        metrics["baselines"] = baselines(results[NONE], data)
        if settings.comparators:
            metrics["comparators"] = compared(results[NONE][0], data)
        for group in ("methods", "baselines", "comparators"):
            for entry in metrics.get(group, {}).values():
                for label, values in entry.get("labels", {}).items():
                    none, top = (methods[k]["labels"][label]["rmse"] for k in (NONE, CEILING))
                    values["gap_closed"] = gap_closed(none, top, values["rmse"])
    return metrics


def _evidence(name: str, repeats: list[dict[str, np.ndarray]], none: list[dict[str, np.ndarray]]) -> Evidence:
    def mean(what):
        return float(np.mean([r[what] for r in repeats]))

    change = [
        np.sqrt(np.mean(((r["mean"] - b["mean"]) / np.maximum(b["own_width"], 1e-9)) ** 2))
        for r, b in zip(repeats, none, strict=True)
    ]
    return Evidence(
        mean("auc"), mean("auc_weighted"), mean("loss"), mean("width"), float(np.mean(change)), mean("shift")
    )


def _scores(repeats: list[dict[str, np.ndarray]], data: AlignData, prefix: str = "") -> dict[str, Any]:
    """Means over repeats of the scores of each label, and the scatter of the RMSE."""
    truth, out = np.asarray(data.target_test.labels, np.float64), {}  # type: tuple[np.ndarray, dict[str, Any]]
    for i, label in enumerate(data.label_set.names):
        each = []
        for r in repeats:
            error = r[f"{prefix}mean"][:, i] - truth[:, i]
            entry = errors(error)
            if f"{prefix}quantiles" in r:
                low95, low68, high68, high95 = r[f"{prefix}quantiles"][:, :, i]
                entry["coverage_68"] = float(np.mean((truth[:, i] >= low68) & (truth[:, i] <= high68)))
                entry["coverage_95"] = float(np.mean((truth[:, i] >= low95) & (truth[:, i] <= high95)))
            each.append(entry)
        means = {k: float(np.mean([e[k] for e in each])) for k in each[0]}
        out[label] = {**means, "rmse_by_seed": [e["rmse"] for e in each]}
    return out


def baselines(none: list[dict[str, np.ndarray]], data: AlignData) -> dict[str, Any]:
    """The boring ways: the source's mean, a ridge regression on the pixels, the network without adaptation on
    standardised pixels, and its posteriors under the estimated density of the target's stars."""
    test = data.target_test
    constant = np.tile(data.source.labels.mean(axis=0), (test.n_stars, 1))
    pixels = ridge(data.source.flux, data.source.labels)(test.flux)
    guesses = {"source_mean": constant, "ridge_on_pixels": pixels}
    out = {name: {"labels": _scores([{"mean": guess}], data)} for name, guess in guesses.items()}
    out["none_standardised"] = {"labels": _scores(none, data, "standardised_")}
    out["none_under_shift"] = {"labels": _scores(none, data, "prior_")}
    return out


def compared(none: dict[str, np.ndarray], data: AlignData) -> dict[str, Any]:
    """Other libraries' methods on the summaries of no adaptation, beside a ridge regression without any."""
    labels = data.source.labels[: len(none["train_summary"])].astype(np.float64)
    plain = ridge(none["train_summary"], labels)(none["target_summary"])
    out: dict[str, Any] = {"ridge_on_summary": {"labels": _scores([{"mean": plain}], data)}}
    arrays = (none["train_summary"], labels, none["unlabelled_summary"], none["target_summary"])
    for entry in compare(*arrays):
        found: dict[str, Any] = {"seconds": entry.seconds}
        if entry.prediction is None:
            found["problem"] = entry.problem
        else:
            found["labels"] = _scores([{"mean": entry.prediction}], data)
        out[entry.name] = found
    return out


def as_markdown(metrics: Mapping[str, Any], labels: LabelSet) -> str:
    """One row a method: RMSE of each label, coverage, AUC, and the gap closed; then the gate."""
    names = labels.names
    head = ["method", *names, "68 % holds", "95 % holds", "gap closed", "AUC", "AUC weighted", "probe R2"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for group in ("methods", "baselines", "comparators"):
        for name, entry in metrics.get(group, {}).items():
            cells = [name + (" (failed)" if entry.get("failed") else "")]
            table = entry.get("labels")
            if table is None:
                lines.append(f"| {name} | {entry.get('problem', '')} " + "| " * (len(head) - 2) + "|")
                continue
            cells += [f"{table[k]['rmse']:.4g} ({table[k]['bias']:+.2g})" for k in names]
            for c in ("coverage_68", "coverage_95"):
                has = [table[k][c] for k in names if c in table[k]]
                cells.append(f"{np.mean(has):.2f}" if has else "")
            gaps = [table[k]["gap_closed"] for k in names if table[k]["gap_closed"] is not None]
            cells.append(f"{np.median(gaps):.2f}" if gaps else "no gap")
            cells += [f"{entry[k]:.2f}" if k in entry else "" for k in ("auc", "auc_weighted")]
            r2 = entry.get("probe_r2")
            cells.append(f"{np.mean(list(r2.values())):.2f}" if r2 else "")
            lines.append("| " + " | ".join(cells) + " |")
    gate = metrics["gate"]
    lines += ["", "RMSE (bias) by label; the gap is the median over the labels.", ""]
    lines += [f"Gate: {gate['method']}. {gate['reason']}. By seed: {', '.join(gate['by_seed'])}.", ""]
    lines += [f"- {name} refused: {why}." for name, why in gate["refused"].items()]
    return "\n".join(lines) + "\n"
