"""The report of a cross-calibration: the printed offsets, stars held out, known truth, and the pictures."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table

from jaxspec.diagnostics import survey_plots
from jaxspec.diagnostics.calibration import robust_scatter
from jaxspec.diagnostics.plots import save
from jaxspec.errors import InputError
from jaxspec.labels import LabelSet
from jaxspec.surveys.observations import Sky, Survey
from jaxspec.surveys.predict import Calibrated
from jaxspec.surveys.results import Calibration
from jaxspec.surveys.simulate import PIVOT, Truth

log = logging.getLogger(__name__)

# Pairs of surveys with fewer common stars get no figure of residuals.
FEW = 8
# What stands in the column `label` for terms of a survey as a whole.
ALL = "all"
MOST_FIGURES = 12


def print_offsets(offsets: Table) -> None:
    """Zero points and slopes of every survey, one line for each label."""
    terms = [t for t in dict.fromkeys(offsets["term"]) if t != "outlier_rate"]
    pivot = ", ".join(f"{name} {value:g}" for name, value in offsets.meta["pivot"].items())
    print(f"\noffsets, survey minus common scale, at {pivot}; slopes per 1000 K and per dex")
    print(f"{'survey':<14}{'label':<8}" + "".join(f"{term:>20}" for term in terms))
    for survey in dict.fromkeys(offsets["survey"]):
        for label in dict.fromkeys(offsets["label"][offsets["survey"] == survey]):
            if label == ALL:
                continue
            cells = {}
            for row in offsets[(offsets["survey"] == survey) & (offsets["label"] == label)]:
                digits = 1 if row["unit"].startswith("K") else 3
                cells[row["term"]] = f"{row['mean']:+.{digits}f} ± {row['sd']:.{digits}f}"
            print(f"{survey:<14}{label:<8}" + "".join(f"{cells.get(term, ''):>20}" for term in terms))
        rest = offsets[(offsets["survey"] == survey) & (offsets["label"] == ALL)]
        print(" " * 14 + ", ".join(f"{row['term']} {row['mean']:.3f} ± {row['sd']:.3f}" for row in rest))
    print(flush=True)


# --- stars held out


@dataclass(frozen=True)
class HeldOut:
    """Stars that one survey shares with others, each taken out of it in turn: the stars' numbers `[m]`, what
    the survey reported of them, what was predicted without those reports, and its error, all `[m, l]`."""

    survey: str
    star: np.ndarray
    reported: np.ndarray
    predicted: np.ndarray
    error: np.ndarray


def hold_out(
    sky: Sky, survey: str, folds: int, seed: int, predict: Callable[[Sky], Calibrated]
) -> HeldOut | None:
    """Predict the common stars of a survey: `predict` of a sky without a part of their rows gives its reports
    for all stars, once for each of `folds` parts. None where it shares fewer than five stars."""
    s = sky.index(survey)
    one = sky.surveys[s]
    elsewhere = np.zeros(sky.n_stars, bool)
    for k, other in enumerate(sky.surveys):
        if k != s:
            elsewhere[other.star] = True
    common = np.unique(one.star[elsewhere[one.star]])
    if folds == 0 or len(common) < 5:
        return None
    if not 2 <= folds <= len(common):
        raise InputError(
            "folds", f"{folds}", f"0, or 2 to {len(common)}, the number of common stars", "change it"
        )
    part = np.random.default_rng(seed).permutation(len(common)) % folds
    found = np.full((2, len(common), len(sky.label_set)), np.nan)
    for k in range(folds):
        log.info(
            "part %d of %d of the %d stars that %s shares is kept from it", k + 1, folds, len(common), survey
        )
        out = np.isin(one.star, common[part == k])
        surveys = tuple(_rows(x, ~out) if i == s else x for i, x in enumerate(sky.surveys))
        stars = predict(replace(sky, surveys=surveys))
        found[:, part == k] = stars.mean[common[part == k]], stars.error[common[part == k]]
    first = np.array([np.flatnonzero(one.star == star)[0] for star in common])
    return HeldOut(survey, common, one.values[first], *found)


def _rows(survey: Survey, keep: np.ndarray) -> Survey:
    return replace(
        survey,
        star=survey.star[keep],
        values=survey.values[keep],
        covariance=survey.covariance[keep],
        flagged=survey.flagged[keep],
    )


def compare_held_out(held: HeldOut, label_set: LabelSet) -> dict[str, Any]:
    """Bias (predicted minus reported), scatter (standard deviation and robust) and reduced chi-square of the
    predictions, by label; of all labels also the standard error of the chi-square, as stars scatter."""
    out: dict[str, Any] = {"survey": held.survey, "stars": len(held.star), "labels": {}}
    z = (held.predicted - held.reported) / held.error
    for j, name in enumerate(label_set.names):
        there = np.isfinite(z[:, j])
        if there.any():
            difference = (held.predicted - held.reported)[there, j]
            out["labels"][name] = {
                "n": int(there.sum()),
                "bias": float(difference.mean()),
                "scatter": float(difference.std()),
                "robust_scatter": float(robust_scatter(difference)),
                "predicted_error": float(np.median(held.error[there, j])),
                "chi2": float(np.mean(z[there, j] ** 2)),
            }
    out["chi2"] = float(np.nanmean(z**2))
    # Labels of one star go together, stars do not.
    there = np.isfinite(z).any(axis=1)
    by_star = np.nansum(np.where(np.isfinite(z), z**2 - out["chi2"], 0.0)[there], axis=1)
    out["chi2_error"] = float(np.sqrt(np.sum(by_star**2)) / max(np.isfinite(z).sum(), 1))
    return out


def print_held_out(found: dict[str, Any]) -> None:
    """The outcome of `compare_held_out`, a line for each label."""
    print(f"{found['stars']} stars of {found['survey']}, predicted without its reports of them")
    keys = ("n", "bias", "scatter", "robust_scatter", "predicted_error", "chi2")
    print(f"{'':<8}" + "".join(f"{key:>17}" for key in keys))
    for name, values in found["labels"].items():
        print(f"{name:<8}" + "".join(f"{values[key]:>17.3g}" for key in keys))
    print(f"reduced chi-square {found['chi2']:.2f} ± {found['chi2_error']:.2f}\n", flush=True)


# --- known truth


def check_truth(result: Calibration, calibrated: Calibrated, sky: Sky, truth: Truth) -> dict[str, Any]:
    """Of a simulated sky: z-scores and coverage of the offsets at a star in the middle, and errors of the
    calibrated labels of stars without an outlier among their rows. All of a survey's stars share the error of
    its offset, so that one sky's coverage scatters by far more than its number of stars says."""
    free = [k for k, survey in enumerate(sky.surveys) if not survey.anchor]
    place = np.concatenate([PIVOT, np.full(truth.labels.shape[1] - len(PIVOT), PIVOT[2])])[None]
    scores = []
    for k in free:
        mean, sd = result.offset(sky.surveys[k].name, place)
        scores.append((mean[0] - truth.offset(k, place)[0]) / sd[0])
    z = np.array(scores)
    seen = np.isfinite(calibrated.mean).all(1)
    for k in free:
        seen[sky.surveys[k].star[truth.outlier[k]]] = False
    error = (calibrated.mean - truth.labels)[seen]
    star_z = error / calibrated.error[seen]
    return {
        "stars": int(seen.sum()),
        "offset_z": {sky.surveys[k].name: row for k, row in zip(free, z, strict=True)},
        "offset_coverage_90": float(np.mean(np.abs(z) < 1.645)),
        "label_rms": dict(zip(sky.label_set.names, np.sqrt(np.mean(error**2, axis=0)), strict=True)),
        "label_chi2": dict(zip(sky.label_set.names, np.mean(star_z**2, axis=0), strict=True)),
        "label_coverage_90": float(np.mean(np.abs(star_z) < 1.645)),
    }


def print_truth(found: dict[str, Any]) -> None:
    """The outcome of `check_truth`, in a few lines."""
    print("planted offsets: z-scores of the inferred ones in a star in the middle")
    for name, z in found["offset_z"].items():
        print(f"  {name:<12}" + "".join(f"{value:>+7.2f}" for value in z))
    print(
        f"  {found['offset_coverage_90']:.2f} of them within 90 % intervals; of the calibrated labels "
        f"{found['label_coverage_90']:.2f} ({found['stars']} stars)\n",
        flush=True,
    )


# --- pictures


def draw(folder: Path, result: Calibration, sky: Sky, calibrated: Calibrated, held: HeldOut | None) -> None:
    """Residuals of pairs of surveys, offsets, scatter, predictive checks, held-out stars."""
    labels = sky.label_set
    z = {}
    for a, b in _pairs(sky)[:MOST_FIGURES]:
        before, after, error, star = differences(result, sky, calibrated, a, b)
        name = f"{sky.names[b]} - {sky.names[a]}"
        z[name] = after / error
        figure = survey_plots.plot_residuals(calibrated.mean[star], before, after, labels, title=name)
        save(figure, folder / f"residuals_{sky.names[a]}_{sky.names[b]}.png")
    if z:
        save(survey_plots.plot_predictive(z, labels), folder / "predictive.png")
    grid, offsets = _offset_draws(result, calibrated)
    pivot = ", ".join(f"{labels.labels[j].latex} {result.scales.pivot[j]:g}" for j in result.scales.inputs)
    title = f"along each label the others at {pivot}; bands of 68 and 95 %"
    save(survey_plots.plot_offsets(grid, offsets, labels, title), folder / "offsets.png")
    free = [s for s in range(len(sky.surveys)) if not result.is_anchor[s]]
    step = result.scales.step
    scatter, inflation, quoted = {}, {}, {}
    for s in free:
        own = np.sqrt(np.diagonal(result.terms["scatter"][:, s], axis1=1, axis2=2)) * step
        scatter[result.names[s]] = np.where(result.measured[s], own, np.nan)
        inflation[result.names[s]] = np.where(result.measured[s], result.terms["inflation"][:, s], np.nan)
        quoted[result.names[s]] = np.sqrt(result.typical_error[s]) * step
    save(survey_plots.plot_scatter(scatter, inflation, labels, quoted), folder / "scatter.png")
    if held is not None:
        figure = survey_plots.plot_held_out(held.predicted, held.error, held.reported, labels, held.survey)
        save(figure, folder / "held_out.png")


def _pairs(sky: Sky) -> list[tuple[int, int]]:
    """Pairs of surveys with enough common stars that measure a label in common, most stars first."""
    found = []
    for a in range(len(sky.surveys)):
        for b in range(a + 1, len(sky.surveys)):
            one, two = sky.surveys[a], sky.surveys[b]
            n = len(np.intersect1d(one.star, two.star))
            if n >= FEW and (one.measured & two.measured).any():
                found.append((n, a, b))
    return [(a, b) for _, a, b in sorted(found, reverse=True)]


def differences(result: Calibration, sky: Sky, calibrated: Calibrated, a: int, b: int):
    """Survey `b` minus survey `a` on the stars that both have, as published and with the offsets taken out,
    the error that the model expects of the latter, all `[m, l]`, and the stars `[m]`."""
    one, two = sky.surveys[a], sky.surveys[b]
    star, i, j = np.intersect1d(one.star, two.star, return_indices=True)
    before = two.values[j] - one.values[i]
    after, variance = before.copy(), np.zeros(before.shape)
    for sign, survey, rows in ((-1.0, one, i), (1.0, two, j)):
        s = result.index(survey.name)
        mean, sd = result.offset(survey.name, calibrated.mean[star])
        after = after - sign * mean
        own = np.diagonal(result.terms["scatter"][:, s].mean(0)) * result.scales.step**2
        factor = np.mean(result.terms["inflation"][:, s] ** 2, axis=0)
        noise = factor * np.diagonal(survey.covariance[rows], axis1=1, axis2=2)
        variance = variance + noise + sd**2 + own
    return before, after, np.sqrt(variance), star


def _offset_draws(result: Calibration, calibrated: Calibrated, n: int = 60):
    """Grids of the trend labels over the middle 95 % of the stars, and draws of all offsets there."""
    scales = result.scales
    rows = np.isfinite(calibrated.mean).all(1)
    low, high = np.quantile(calibrated.mean[rows], [0.025, 0.975], axis=0)
    free = [name for s, name in enumerate(result.names) if not result.is_anchor[s]]
    grid: dict[str, np.ndarray] = {}
    offsets: dict[str, dict[str, np.ndarray]] = {name: {} for name in free}
    for j in scales.inputs:
        label = result.label_set.names[j]
        grid[label] = np.linspace(low[j], high[j], n)
        place = np.tile(scales.pivot, (n, 1))
        place[:, j] = grid[label]
        u = scales.to_model(place) @ scales.input_matrix.T
        x = np.concatenate([np.ones((n, 1)), result.basis.values(u)], axis=1)
        for name in offsets:
            s = result.index(name)
            draws = np.einsum("gp,dlp->dgl", x, result.coefficients[:500, s]) * scales.step
            offsets[name][label] = np.where(result.measured[s], draws, np.nan)
    return grid, offsets
