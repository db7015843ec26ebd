"""Offsets planted in spectra, inferred through a flow: `calibrate` with `surveys=spectra`.

Writes `recovery.ecsv` (what was planted and what was inferred, by survey, kind of star and label), the folder
`pool` (what the flow says of every spectrum: the next run in this folder starts from it) and `metrics.json`
(z-scores and coverage over all skies).
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.table import Table

from jaxspec.amortised.amortised import AmortisedPosterior
from jaxspec.amortised.storage import load_weights
from jaxspec.labels import LabelSet
from jaxspec.physics.forward import forward_model
from jaxspec.runs import atomically, begin, checksum, package_data, resumable, write_json
from jaxspec.simulation.simulator import SpectrumModel
from jaxspec.surveys.observations import Sky, Survey
from jaxspec.surveys.results import Calibration
from jaxspec.surveys.spectral_sky import (
    NAMES,
    STARS,
    Offset,
    Pool,
    Recovery,
    SpectralConfig,
    compare,
    cut_sky,
    draw_supported,
    observe_pool,
)

if TYPE_CHECKING:
    from jaxspec.commands.calibrate import Settings

log = logging.getLogger(__name__)

ARRAYS = ("values", "covariance", "flagged")
# Central 90 and 68 % of a Gaussian.
LEVELS = {"coverage_90": 1.645, "coverage_68": 0.994}


def recover(
    settings: Settings, folder: Path, fit_sky: Callable[[Settings, Sky], Calibration]
) -> tuple[Calibration, dict[str, Any]]:
    """Spectra, likelihoods, a fit to every sky; the last fit and the metrics of all."""
    config = settings.spectra
    posterior, checkpoint = load_weights(settings.checkpoint)
    begin(folder, settings, [checkpoint])
    forward = forward_model(settings.forward, posterior.instrument)
    begun = time.perf_counter()
    stated = {"spectra": config, "seed": settings.seed, "weights": checksum(checkpoint)}
    stated["forward"] = checksum(settings.forward) if Path(settings.forward).exists() else settings.forward
    stated["data"] = package_data()  # the shipped emulator is in it
    pool = make_pool(folder / "pool", stated, posterior, forward, config, settings.seed)
    seconds = {"spectra": time.perf_counter() - begun}
    # Differences of spectra bend the offsets of labels, and one sky after another is fitted.
    model = {"trend": "quadratic", **settings.model}
    method = "laplace" if settings.method == "auto" else settings.method
    settings = dataclasses.replace(settings, model=model, method=method)
    reference = pool.first(config.n_reference)
    found, result = [], None
    for k in range(config.n_skies):
        rows = config.n_reference + k * config.n_stars + np.arange(config.n_stars)
        result = fit_sky(settings, cut_sky(pool, rows, posterior.label_set, config, settings.seed + k))
        found.append(compare(result, reference))
        log.info("sky %d of %d: rms z %.2f", k + 1, config.n_skies, np.sqrt(np.mean(found[-1].z ** 2)))
    seconds["fits"] = time.perf_counter() - begun - seconds["spectra"]
    arrays = zip(*(one[:4] for one in found), strict=True)
    planted, planted_error, inferred, error = map(np.stack, arrays)
    recovery = Recovery(planted, planted_error, inferred, error, found[0].offsets)
    table = recovery_table(recovery, posterior.label_set)
    atomically(folder / "recovery.ecsv", lambda p: table.write(p, format="ascii.ecsv", overwrite=True))
    print_recovery(table)
    metrics = {
        **summary(recovery),
        "skies": config.n_skies,
        "stars": config.n_stars,
        "trend": settings.model["trend"],
        "method": settings.method,
        "reference": {
            survey.name: {
                "outliers": offset.outliers,
                "flagged": int(survey.flagged.sum()),
                "label_chi2": label_chi2(offset, survey, posterior.label_set),
            }
            for survey, offset in zip(reference.surveys, recovery.offsets, strict=True)
        },
        "z": recovery.z,
        "seconds": seconds,
    }
    write_json(folder / "metrics.json", metrics)
    print(
        f"{config.n_skies} skies: {metrics['coverage_90']:.3f} of offsets within 90 % intervals, "
        f"rms z {metrics['rms_z']:.2f}; {folder}\n",
        flush=True,
    )
    assert result is not None
    return result, metrics


def make_pool(
    folder: Path,
    stated: Mapping[str, Any],
    posterior: AmortisedPosterior,
    forward: SpectrumModel,
    config: SpectralConfig,
    seed: int,
) -> Pool:
    """The pool of a configuration: what `folder` holds of it, otherwise simulated and kept there.

    Raises: InputError when the folder's pool is of others than the settings that are `stated`.
    """

    def simulate() -> dict[str, np.ndarray]:
        labels = draw_supported(posterior, config.n_reference + config.n_skies * config.n_stars, seed)
        log.info("%d stars, two spectra each", len(labels))
        pool = observe_pool(posterior, forward, labels, config, seed)
        return {
            "labels": pool.labels,
            **{f"{s.name}/{a}": getattr(s, a) for s in pool.surveys for a in ARRAYS},
        }

    (item,) = resumable(["pool"], stated, folder)
    arrays = item.result(simulate)
    star = np.arange(len(arrays["labels"]))
    surveys = []
    for name in NAMES:
        values, covariance, flagged = (arrays[f"{name}/{array}"] for array in ARRAYS)
        surveys.append(Survey(name, star, values, covariance, flagged))
    return Pool(arrays["labels"], tuple(surveys))


def label_chi2(offset: Offset, survey: Survey, label_set: LabelSet) -> dict[str, float]:
    """Variance about the mean offset over the quoted one, 1 for honest errors; both are medians."""
    variance = np.median(np.diagonal(survey.covariance, axis1=1, axis2=2), axis=0)
    return dict(zip(label_set.names, (offset.scatter**2 / variance).tolist(), strict=True))


def summary(recovery: Recovery) -> dict[str, Any]:
    """Coverage and z-scores of everything, and by survey and by kind of star."""

    def of(z: np.ndarray) -> dict[str, float]:
        inside = {name: float(np.mean(np.abs(z) < level)) for name, level in LEVELS.items()}
        return {**inside, "rms_z": float(np.sqrt(np.mean(z**2))), "mean_z": float(np.mean(z)), "n": z.size}

    z = recovery.z  # sky, survey, star, label
    surveys = {name: of(z[:, s]) for s, name in enumerate(NAMES)}
    stars = {name: of(z[:, :, m]) for m, name in enumerate(STARS)}
    return {**of(z), "by_survey": surveys, "by_star": stars}


def recovery_table(recovery: Recovery, label_set: LabelSet) -> Table:
    """One row for each survey, kind of star and label: planted offset with its error, mean and scatter over
    the skies of what was inferred, the error that a sky typically states, rms z and coverage."""
    rows = []
    for s, name in enumerate(NAMES):
        for m, star in enumerate(STARS):
            for j, label in enumerate(label_set):
                at = (slice(None), s, m, j)
                inferred, z = recovery.inferred[at], recovery.z[at]
                rows.append(
                    (
                        *(name, star, label.name),
                        *(recovery.planted[at].mean(), recovery.planted_error[at].mean()),
                        *(inferred.mean(), inferred.std(), np.median(recovery.error[at])),
                        *(np.sqrt(np.mean(z**2)), np.mean(np.abs(z) < LEVELS["coverage_90"])),
                    )
                )
    columns = ("survey", "star", "label", "planted", "planted_error", "inferred", "scatter", "error")
    return Table(rows=rows, names=(*columns, "rms_z", "coverage_90"))


def print_recovery(table: Table) -> None:
    """Offsets of dwarfs and giants, planted and inferred."""
    print("\noffsets: planted (on the reference stars); inferred (mean of all skies); error of one sky")
    print(f"{'survey':<9}{'star':<7}{'label':<6}{'planted':>18}{'inferred':>10}{'error':>8}{'rms z':>7}")
    for row in table[np.isin(table["star"], ("dwarf", "giant"))]:
        digits = 1 if row["label"] == "teff" else 3
        planted = f"{row['planted']:+.{digits}f} ± {row['planted_error']:.{digits}f}"
        print(
            f"{row['survey']:<9}{row['star']:<7}{row['label']:<6}{planted:>18}"
            f"{row['inferred']:>+10.{digits}f}{row['error']:>8.{digits}f}{row['rms_z']:>7.2f}"
        )
    print(flush=True)
