"""Teach the model of stars a quantity from few labels.

`stars` is a file as for `jaxspec stars predict`; `labels` a table (CSV, ECSV or FITS) with `source_id` and a
column for each quantity, known to the model or not, errors as e_NAME. Writes the folder of the new model,
and `metrics.json` with the widths' factors.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from jaxspec.errors import InputError
from jaxspec.foundation.finetuning import FinetuneConfig, finetune
from jaxspec.foundation.model import FoundationModel
from jaxspec.foundation.reading import read_labels, read_stars
from jaxspec.runs import begin, write_json

log = logging.getLogger(__name__)

INPUT, OUTPUT = "stars", "folder"


@dataclass(frozen=True)
class Settings:
    """From what is learnt, and how.

    Attributes:
        stars: file of spectra of the Gaia archive, or a table of quantities.
        labels: table with source_id and a column for each quantity.
        n: learn from so many of the stars; none: all.
        model: folder of a model; none: the one in the package.
        how: part of the network, steps and rate.
    """

    stars: str
    labels: str
    n: int | None = None
    model: str | None = None
    how: FinetuneConfig = field(default_factory=FinetuneConfig)


def run(settings: Settings, output: Path) -> FoundationModel:
    """Teach, save and return the model."""
    folder = begin(output, settings, [settings.stars, settings.labels])
    model = FoundationModel.load(settings.model)
    stars = read_stars(settings.stars, model.basis)
    stars = stars.columns(name for name in stars.names if name in model.names)
    labels = read_labels(settings.labels)
    _, here, there = np.intersect1d(stars.source, labels.source, return_indices=True)
    if not len(here):
        raise InputError(
            settings.labels, "no source_id of the spectra", "the same stars", "check the column source_id"
        )
    if settings.n is not None:
        chosen = np.sort(np.random.default_rng(settings.how.seed).permutation(len(here))[: settings.n])
        here, there = here[chosen], there[chosen]
    log.info("learning %s from %d stars", ", ".join(labels.names), len(here))
    taught = finetune(model, stars.rows(here), labels.rows(there), settings.how, folder / "training")
    taught.save(folder)
    write_json(
        folder / "metrics.json",
        {"stars": len(here), "factors": {name: taught.temperature[name] for name in labels.names}},
    )
    return taught
