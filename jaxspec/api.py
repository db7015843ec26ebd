"""The functions behind `jaxspec.NAME`: what a notebook calls."""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxspec.amortised.amortised import AmortisedPosterior
from jaxspec.amortised.ensemble import Ensemble, load_ensemble
from jaxspec.amortised.storage import load_weights
from jaxspec.commands.tasks import trained_simulator
from jaxspec.datasets import Dataset
from jaxspec.diagnostics import report
from jaxspec.foundation.model import FoundationModel
from jaxspec.inference import Inference, InferenceConfig, infer, read_spectra
from jaxspec.io import read_table
from jaxspec.posterior.flags import usable
from jaxspec.runs import named_key
from jaxspec.settings import build
from jaxspec.simulation.simulator import simulate_many

__all__ = [
    "Inference",
    "InferenceConfig",
    "bound",
    "calibrate",
    "evaluate",
    "explain",
    "find_populations",
    "infer",
    "load_posterior",
    "load_stars",
    "read_spectra",
    "read_table",
    "report",
    "simulate",
    "synthesize",
    "train",
    "usable",
]


def load_posterior(
    path: str | os.PathLike | Sequence[str | os.PathLike] | None = None,
) -> AmortisedPosterior | Ensemble:
    """Trained weights, ready to infer with: those in the package, or those of a folder of training; of a list
    of folders the ensemble.

    Raises: InputError for a folder without weights.
    """
    return load_ensemble(path)[0]


def load_stars(path: str | os.PathLike | None = None) -> FoundationModel:
    """The model of stars, ready to be asked: the one in the package, or that of a folder.

    Raises: InputError for a folder without one.
    """
    return FoundationModel.load(path)


def simulate(
    n: int, path: str | os.PathLike | None = None, *, snr: float | None = None, seed: int = 1
) -> Dataset:
    """`n` simulated stars as the weights in `path` (by default those in the package) were trained on:
    normalised spectra, with the labels and nuisances behind them.

    Args:
        snr: of all stars per pixel; by default drawn as in training.

    Raises: InputError for weights that were trained on a survey.
    """
    posterior, folder = load_weights(path)
    _, simulator = trained_simulator(posterior, folder)
    return simulate_many(simulator, named_key(seed, "simulated"), n, snr)


def train(output: str | os.PathLike, **settings: Any) -> AmortisedPosterior:
    """Train a network as `experiments.train` does, and return the posterior. The same call goes on after a
    kill.

    `settings` are those of `jaxspec.commands.train.Settings`, nested ones as mappings:
    `train("outputs/mine", trainer={"n_steps": 4000})`.
    """
    return _run("train", output, settings).posterior


def evaluate(output: str | os.PathLike, **settings: Any) -> dict[str, Any]:
    """Measure weights on stars whose labels are known (`jaxspec.commands.evaluate.Settings`); returns the
    metrics."""
    return _run("evaluate", output, settings)


def synthesize(labels: str | os.PathLike, output: str | os.PathLike, **settings: Any) -> Path:
    """Spectra for a table of labels by exact synthesis (`jaxspec.commands.synthesize.Settings`) into the HDF5
    store `output`; returns its path."""
    return _run("synthesize", output, {"labels": str(labels), **settings})


def calibrate(output: str | os.PathLike, **settings: Any) -> Any:
    """Put survey catalogues on one scale (`jaxspec.commands.calibrate.Settings`)."""
    return _run("calibrate", output, settings)


def find_populations(catalogue: str | os.PathLike, output: str | os.PathLike, **settings: Any) -> Any:
    """Chemically distinct groups of the stars of a catalogue (`jaxspec.commands.populations.Settings`).

    Returns: the memberships (`probability [n, g]`, `spread [n, g]`, `novelty [n]`, `group [n]`) and the
    fitted model, whose `members(stars)` says the same of other stars.
    """
    return _run("populations", output, {"catalogue": str(catalogue), **settings})


def explain(output: str | os.PathLike, **settings: Any) -> Any:
    """Where the network looked for each label (`jaxspec.commands.explain.Settings`)."""
    return _run("explain", output, settings)


def bound(output: str | os.PathLike, **settings: Any) -> Any:
    """The smallest errors that spectra of an instrument allow (`jaxspec.commands.bound.Settings`)."""
    return _run("bound", output, settings)


def _run(command: str, output: str | os.PathLike, settings: dict[str, Any]) -> Any:
    module = importlib.import_module(f"jaxspec.commands.{command}")
    values = dict(settings)
    if "output" in {field.name for field in dataclasses.fields(module.Settings)}:
        values["output"] = str(output)
    return module.run(build(module.Settings, values), Path(output))
