"""How good answers are: errors against the catalogue, and whether stated widths hold."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxspec.foundation.answers import Answer
from jaxspec.foundation.model import FoundationModel
from jaxspec.foundation.table import Table
from jaxspec.foundation.tasks import Task

MAD = 1.4826  # of a Gaussian: standard deviation over median absolute deviation


def residual_metrics(residual: Float[np.ndarray, " n"]) -> dict[str, float]:
    """Median, robust standard deviation and root mean square of estimate minus catalogue."""
    residual = residual[np.isfinite(residual)]
    middle = np.median(residual)
    return {
        "bias": float(middle),
        "scatter": float(MAD * np.median(np.abs(residual - middle))),
        "rmse": float(np.sqrt(np.mean(residual**2))),
    }


def answer_metrics(answer: Answer, stars: Table) -> dict[str, dict[str, float]]:
    """Metrics of each quantity of an answer, against the catalogue's values with their errors.

    `coverage_68` and `coverage_95` are shares of stars whose catalogue value lies in the central interval of
    the answer convolved with the catalogue's error; `z` is the robust standard deviation of residuals in
    units of that interval (1 is right), `width` the median error that the answer states, `nll` the mean
    negative log-density of the catalogue's values, `chi2` the mean square of residuals in units of the
    standard deviation of answer and catalogue.
    """
    truth = stars.columns(answer.names)
    error = np.nan_to_num(truth.errors)
    value = np.where(np.isfinite(truth.values), truth.values, 0.0)
    below, density = answer.cdf(value, error), answer.log_prob(value, error)
    median, width = answer.median, answer.error
    half = 0.5 * (answer.quantile(0.84, error) - answer.quantile(0.16, error))
    total = np.hypot(answer.deviation, error)
    metrics = {}
    for i, name in enumerate(answer.names):
        known = np.isfinite(truth.values[:, i])
        residual = (median - value)[known, i]
        p = below[known, i]
        metrics[name] = residual_metrics(residual) | {
            "coverage_68": float(np.mean(np.abs(p - 0.5) < 0.34134)),
            "coverage_95": float(np.mean(np.abs(p - 0.5) < 0.475)),
            "z": float(MAD * np.median(np.abs(residual / half[known, i]))),
            "width": float(np.median(width[known, i])),
            "nll": float(-np.mean(density[known, i])),
            "chi2": float(np.mean(((answer.expectation - value)[known, i] / total[known, i]) ** 2)),
            "n": int(known.sum()),
        }
    return metrics


def binned_coverage(
    answer: Answer, stars: Table, by: str, n_bins: int = 3
) -> dict[str, list[dict[str, float]]]:
    """Coverage in bins of another quantity with equal numbers of stars, with what chance alone does to it."""
    truth, edges_of = stars.columns(answer.names), stars.columns([by]).values[:, 0]
    error = np.nan_to_num(truth.errors)
    below = answer.cdf(np.nan_to_num(truth.values), error)
    edges = np.nanquantile(edges_of, np.linspace(0.0, 1.0, n_bins + 1))
    out: dict[str, list[dict[str, float]]] = {name: [] for name in answer.names}
    for low, high in itertools.pairwise(edges):
        within = (edges_of >= low) & (edges_of <= high)
        for i, name in enumerate(answer.names):
            p = below[within & np.isfinite(truth.values[:, i]), i]
            share = float(np.mean(np.abs(p - 0.5) < 0.34134))
            out[name].append({
                "low": float(low), "high": float(high), "coverage_68": share,
                "by_chance": float(np.sqrt(0.6827 * 0.3173 / max(len(p), 1))),
            })  # fmt: skip
    return out


def evaluate_task(model: FoundationModel, task: Task, stars: Table, seed: int = 0) -> dict[str, Any]:
    """Metrics of one task, by quantity."""
    return answer_metrics(model.predict(task.shown(stars, seed), task.asked), stars)


def fitted_temperature(
    model: FoundationModel, tasks: Mapping[str, Task], stars: Table
) -> dict[str, tuple[float, float]]:
    """Offset and slope of `Answer.widened` for each quantity that make the stars' values most probable, with
    the same weight for every task that asks for it.

    Stars must be apart from those of the training.
    """
    pairs = [
        (offset, slope) for offset in np.linspace(-0.4, 0.4, 33) for slope in np.linspace(-0.3, 0.15, 10)
    ]
    total: dict[str, np.ndarray] = {}
    logs: dict[str, list[np.ndarray]] = {}
    answers = []
    for task in tasks.values():
        answer = model.predict(task.shown(stars, 1), task.asked)
        truth = stars.columns(task.asked)
        answers.append((answer, truth))
        for i, name in enumerate(task.asked):
            logs.setdefault(name, []).append(np.log(answer.deviation[:, i]))
    pivot = {name: float(np.mean(np.concatenate(parts))) for name, parts in logs.items()}
    for answer, truth in answers:
        value, error = np.nan_to_num(truth.values), np.nan_to_num(truth.errors)
        known = np.isfinite(truth.values)
        centre = np.array([pivot[name] for name in answer.names])
        for k, (offset, slope) in enumerate(pairs):
            changed = answer.widened(offset - slope * centre, np.full(len(centre), slope))
            density = np.where(known, changed.log_prob(value, error), 0.0).sum(0)
            for i, name in enumerate(answer.names):
                total.setdefault(name, np.zeros(len(pairs)))[k] += density[i]
    best = {name: pairs[int(np.argmax(density))] for name, density in total.items()}
    return {name: (float(o - s * pivot[name]), float(s)) for name, (o, s) in best.items()}
