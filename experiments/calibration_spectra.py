"""`python -m experiments.calibrate surveys=spectra`: offsets planted in spectra, inferred through a flow.

Writes `recovery.ecsv` (what was planted and what was inferred, by survey, label and term), `pool.npz` (what
the flow says of every spectrum: the next run in this folder starts from it) and `metrics.json` (z-scores and
coverage over all skies).
"""

import dataclasses
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table
from omegaconf import DictConfig

from experiments.common import begin, build, checksum, forward_model, load_checkpoint, write_json
from jaxspec.io import atomically
from jaxspec.labels import LabelSet
from jaxspec.posterior.amortised import AmortisedPosterior
from jaxspec.posterior.simulator import SpectrumModel
from jaxspec.surveys.observations import Sky, Survey
from jaxspec.surveys.results import Calibration
from jaxspec.surveys.spectral_sky import (
    NAMES,
    Pool,
    Recovery,
    SpectralConfig,
    compare,
    cut_sky,
    draw_supported,
    measure_offset,
    observe_pool,
    pick,
)

log = logging.getLogger(__name__)

TERMS = ("zero_point", "teff", "logg", "fe_h")
ARRAYS = ("values", "covariance", "flagged")
# Central 90 and 68 % of a Gaussian.
LEVELS = {"coverage_90": 1.645, "coverage_68": 0.994}


def recover(
    cfg: DictConfig, folder: Path, fit_sky: Callable[[DictConfig, Sky], Calibration]
) -> tuple[Calibration, dict[str, Any]]:
    """Spectra, likelihoods, a fit to every sky; the last fit and the metrics of all."""
    config = build(SpectralConfig, cfg.spectra)
    posterior, checkpoint = load_checkpoint(cfg.checkpoint)
    begin(cfg, folder, [checkpoint])
    forward = forward_model(cfg.forward, posterior.instrument)
    begun = time.perf_counter()
    pool = make_pool(folder / "pool.npz", posterior, forward, config, cfg.seed, checksum(checkpoint))
    seconds = {"spectra": time.perf_counter() - begun}
    reference = np.arange(config.n_reference)
    offsets = tuple(
        measure_offset(pool.labels[reference], pick(s, reference, reference)) for s in pool.surveys
    )
    found, results = [], []
    for k in range(config.n_skies):
        rows = config.n_reference + k * config.n_stars + np.arange(config.n_stars)
        sky = cut_sky(pool, rows, posterior.label_set, config, cfg.seed + k)
        results = [fit_sky(cfg, sky)]
        found.append(compare(results[0], offsets))
        z = found[-1].z
        log.info(
            "sky %d of %d: rms z %.2f, coverage of 90 %% intervals %.2f",
            *(k + 1, config.n_skies, np.sqrt(np.mean(z**2)), np.mean(np.abs(z) < LEVELS["coverage_90"])),
        )
    recovery = Recovery(*(np.stack(parts) for parts in zip(*found, strict=True)))
    seconds["fits"] = time.perf_counter() - begun - seconds["spectra"]
    table = recovery_table(recovery, posterior.label_set)
    atomically(folder / "recovery.ecsv", lambda p: table.write(p, format="ascii.ecsv", overwrite=True))
    print_recovery(table)
    metrics = {
        **summary(recovery),
        "skies": config.n_skies,
        "stars": config.n_stars,
        "outliers_of_reference": {n: o.outliers for n, o in zip(NAMES, offsets, strict=True)},
        "flagged": {s.name: float(s.flagged.mean()) for s in pool.surveys},
        "label_chi2": {s.name: label_chi2(pool.labels, s, posterior.label_set) for s in pool.surveys},
        "z": recovery.z,
        "seconds": seconds,
    }
    write_json(folder / "metrics.json", metrics)
    print(
        f"{config.n_skies} skies: coverage of 90 % intervals {metrics['coverage_90']:.3f} (zero points "
        f"{metrics['zero_point']['coverage_90']:.3f}), rms z {metrics['rms_z']:.2f}; {folder}\n",
        flush=True,
    )
    return results[0], metrics


def make_pool(
    path: Path,
    posterior: AmortisedPosterior,
    forward: SpectrumModel,
    config: SpectralConfig,
    seed: int,
    weights: str,
) -> Pool:
    """The pool of a configuration: from `path` if that holds it, otherwise simulated and stored there."""
    stated = json.dumps([dataclasses.asdict(config), seed, weights])
    if path.exists():
        with np.load(path) as stored:
            if str(stored["stated"]) == stated:
                star = np.arange(len(stored["labels"]))
                surveys = (Survey(n, star, *(stored[f"{n}/{a}"] for a in ARRAYS)) for n in NAMES)
                return Pool(stored["labels"], tuple(surveys))
    labels = draw_supported(posterior, config.n_reference + config.n_skies * config.n_stars, seed)
    log.info("%d stars, two spectra each", len(labels))
    pool = observe_pool(posterior, forward, labels, config, seed)
    arrays = {f"{s.name}/{a}": getattr(s, a) for s in pool.surveys for a in ARRAYS}
    with path.with_suffix(".partial").open("wb") as file:
        np.savez(file, stated=stated, labels=pool.labels, **arrays)
    path.with_suffix(".partial").replace(path)
    return pool


def label_chi2(labels: np.ndarray, survey: Survey, label_set: LabelSet) -> dict[str, float]:
    """Median squared deviation from the linear offset over the quoted variance, 1 for honest errors."""
    offset = measure_offset(labels, survey)
    variance = np.median(np.diagonal(survey.covariance, axis1=1, axis2=2), axis=0)
    return dict(zip(label_set.names, (offset.scatter**2 / variance).tolist(), strict=True))


def summary(recovery: Recovery) -> dict[str, Any]:
    """Coverage and rms z of everything, and by survey and by term."""

    def of(z: np.ndarray) -> dict[str, float]:
        inside = {name: float(np.mean(np.abs(z) < level)) for name, level in LEVELS.items()}
        return {**inside, "rms_z": float(np.sqrt(np.mean(z**2))), "mean_z": float(np.mean(z)), "n": z.size}

    z = recovery.z  # sky, survey, label, term
    parts = {name: of(z[:, s]) for s, name in enumerate(NAMES)} | {
        name: of(z[..., t]) for t, name in enumerate(TERMS)
    }
    return {**of(z), **parts}


def recovery_table(recovery: Recovery, label_set: LabelSet) -> Table:
    """One row for each survey, label and term: planted value and its error, mean and scatter over the skies
    of what was inferred, typical stated error, rms z and coverage. Zero points are taken relative to the
    planted one at each sky's pivot, and stated at the first sky's."""
    rows = []
    for s, name in enumerate(NAMES):
        for j, label in enumerate(label_set):
            for t, term in enumerate(TERMS):
                at = (slice(None), s, j, t)
                planted, z = recovery.planted[at], recovery.z[at]
                difference = recovery.inferred[at] - planted
                rows.append(
                    (
                        *(name, label.name, term, planted[0], recovery.planted_error[at][0]),
                        *(planted[0] + difference.mean(), difference.std(), np.median(recovery.error[at])),
                        *(np.sqrt(np.mean(z**2)), np.mean(np.abs(z) < LEVELS["coverage_90"])),
                    )
                )
    columns = ("survey", "label", "term", "planted", "planted_error", "inferred", "scatter", "error")
    return Table(rows=rows, names=(*columns, "rms_z", "coverage_90"))


def print_recovery(table: Table) -> None:
    """Zero points, planted and inferred."""
    print("\nzero points: planted (from the reference stars); inferred, mean of all skies; error of one sky")
    print(f"{'survey':<10}{'label':<7}{'planted':>20}{'inferred':>11}{'error':>8}{'rms z':>7}{'in 90 %':>9}")
    for row in table[table["term"] == "zero_point"]:
        digits = 1 if row["label"] == "teff" else 3
        planted = f"{row['planted']:+.{digits}f} ± {row['planted_error']:.{digits}f}"
        print(
            f"{row['survey']:<10}{row['label']:<7}{planted:>20}{row['inferred']:>+11.{digits}f}"
            f"{row['error']:>8.{digits}f}{row['rms_z']:>7.2f}{row['coverage_90']:>9.2f}"
        )
    print(flush=True)
