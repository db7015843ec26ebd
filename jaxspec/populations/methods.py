"""All methods by name: fitted, applied, stored and read in the same way."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxspec import artefacts
from jaxspec.errors import InputError
from jaxspec.labels import LABELS
from jaxspec.populations.hdbscan import HdbscanModel
from jaxspec.populations.members import Model
from jaxspec.populations.mixture_model import MixtureModel
from jaxspec.populations.stars import Stars
from jaxspec.populations.two_process import TwoProcessModel

METHODS: dict[str, Any] = {
    "mixture": MixtureModel,
    "two_process": TwoProcessModel,
    "hdbscan": HdbscanModel,
}
KIND = "populations"
REMAKE = "fit it again with jaxspec populations"


def fit(stars: Stars, method: str = "mixture", groups: int | None = None, seed: int = 1) -> Model:
    """Fit a method to stars; the model says of these and of other stars where they belong.

    Args:
        groups: how many; None: as many as the method finds.

    Raises: InputError for an unknown method, and for stars that it cannot be fitted to.
    """
    return METHODS[check_method(method)].fit(stars, groups, seed)


def check_method(method: str) -> str:
    """Raises: InputError for a name that is no method."""
    if method not in METHODS:
        fix = f"write method={next(iter(METHODS))}"
        raise InputError("method", repr(method), f"one of {', '.join(METHODS)}", fix)
    return method


def save(model: Model, folder: str | os.PathLike, provenance: Mapping[str, Any] | None = None) -> Path:
    """Write a fitted model as an artefact, which `load` reads."""
    method = next(name for name, cls in METHODS.items() if type(model) is cls)
    settings = {"method": method, "labels": list(model.labels), "groups": model.n_groups}
    known = [LABELS[name] for name in model.labels if name in LABELS]
    ranges = {label.name: {"low": label.low, "high": label.high, "unit": label.unit} for label in known}
    domain = {**artefacts.domain(), "labels": ranges or None}
    return artefacts.save(folder, KIND, model.to_arrays(), settings, domain, provenance)


def load(folder: str | os.PathLike) -> Model:
    """Read a model that `save` wrote.

    Raises: InputError for a folder without one, or a damaged one.
    """
    stored = artefacts.load(folder, KIND, REMAKE)
    with artefacts.understood(str(folder), stored.config, REMAKE):
        cls = METHODS[check_method(stored.settings["method"])]
        return cls.from_arrays(tuple(stored.settings["labels"]), stored.arrays)
