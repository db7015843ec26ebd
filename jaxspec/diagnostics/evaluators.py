"""Small evaluators with one interface: each takes stars whose labels are known and returns what it measured,
a verdict with its limit, tables and pictures.

    for evaluate in EVALUATORS:
        result = evaluate(stars)

A verdict that rests on a p-value fails at p <= 0.01 for all labels (or bins) together: one exact posterior
in a hundred fails it. With enough stars any posterior does, for none is exact; how much it matters is said by
the calibration error, whose verdict leaves room for 0.02.

Needs the `plots` extra (matplotlib).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from jaxspec.diagnostics import calibration_plots, plots
from jaxspec.diagnostics.bands import LEVEL
from jaxspec.diagnostics.calibration import chance_calibration_error, robust_scatter, tarp_ranks
from jaxspec.diagnostics.classifier import local_test
from jaxspec.diagnostics.results import KnownStars, Picture, Result, Table

FALSE_ALARM = 1.0 - LEVEL
TOLERANCE = 0.02  # of the calibration error
N_PLOTTED = 800
N_LOCAL = 1000
QUANTITIES = {"snr": "S/N per pixel", "teff": "Teff [K]", "logg": "log g [dex]", "fe_h": "[Fe/H] [dex]"}


def accuracy(stars: KnownStars) -> Result:
    """Bias, scatter and stated error of each label."""
    rows = {
        text: {name: values[key] for name, values in stars.labels.items()}
        for text, key in (
            ("bias", "bias"),
            ("scatter", "scatter"),
            ("stated error", "error"),
            ("scatter / stated error", "pull"),
        )
    }
    some = slice(0, N_PLOTTED)
    picture = _picture(
        "recovery",
        plots.plot_recovery(stars.truth[some], stars.draws[:, some], stars.label_set, stars.snr[some]),
        "Posterior median minus truth, against the truth, with 68 % intervals. A slope means that the "
        "posterior falls back on its prior, as it should where the spectrum tells little.",
    )
    caption = "Median offset, robust scatter (1.48 median absolute deviations), median stated error."
    pull = {name: values["pull"] for name, values in stars.labels.items()}
    return Result(
        "accuracy",
        "Accuracy",
        {"pull": pull},
        None,
        f"scatter is {min(pull.values()):.2f} to {max(pull.values()):.2f} times the stated error",
        (_table(stars, caption, rows, units=True),),
        (picture,),
    )


def rank_uniformity(stars: KnownStars) -> Result:
    """Simulation-based calibration: are the ranks of the truths uniform (Talts et al. 2018,
    arXiv:1804.06788)?"""
    p = {name: values["sbc_p"] for name, values in stars.labels.items()}
    limit = FALSE_ALARM / len(p)
    failed = [name for name, value in p.items() if value <= limit]
    lowest = min(p, key=p.__getitem__)
    picture = _picture(
        "sbc",
        calibration_plots.plot_sbc(stars.truth, stars.draws, stars.label_set),
        "How many truths rank lower than they should. Inside the grey band (99 % for all labels together) it "
        "is chance. First up, then down: errors too small; first down, then up: too large; one hill: "
        "estimates too high; one valley: too low.",
    )
    return Result(
        "ranks",
        "Ranks (simulation-based calibration)",
        {"p": p, "limit": limit, "failed": failed},
        not failed,
        f"lowest p {_p_value(p[lowest])} ({lowest}), {len(failed)} of {len(p)} labels fail; "
        f"limit {limit:.1g} for each",
        (_table(stars, "p-value that the ranks are uniform.", {"p": p}, failed, _p_value),),
        (picture,),
    )


def interval_coverage(stars: KnownStars) -> Result:
    """Coverage of central intervals and its mean error over all levels."""
    error = {name: values["calibration_error"] for name, values in stars.labels.items()}
    chance = chance_calibration_error(len(stars.truth), len(stars.draws), 1.0 - FALSE_ALARM / len(error))
    limit = max(TOLERANCE, chance)
    failed = [name for name, value in error.items() if value > limit]
    largest = max(error, key=error.__getitem__)
    picture = _picture(
        "coverage",
        calibration_plots.plot_coverage(stars.truth, stars.draws, stars.label_set),
        "Fraction of truths inside central intervals against their nominal fraction, with the 99 % band for "
        "all labels together. Above the diagonal: errors too large; below: too small.",
    )
    caption = "Mean difference between empirical and nominal coverage; coverage of the 68 % interval."
    inside = {name: values["coverage_68"] for name, values in stars.labels.items()}
    rows = {"calibration error": error, "68 % interval": inside}
    return Result(
        "coverage",
        "Coverage",
        {"calibration_error": error, "limit": limit, "chance": chance, "failed": failed},
        not failed,
        f"largest calibration error {error[largest]:.3f} ({largest}); limit {limit:.3f}, the larger of "
        f"{TOLERANCE} and of what an exact posterior reaches by chance ({chance:.3f})",
        (_table(stars, caption, rows, failed),),
        (picture,),
    )


def joint_coverage(stars: KnownStars) -> Result:
    """Coverage of all labels at once by distances to random points (TARP), far from each posterior and near
    it."""
    far, near = (stars.summary["all"][name] for name in ("tarp_p", "tarp_near_p"))
    n_draws, limit = len(stars.draws), 0.5 * FALSE_ALARM
    picture = _picture(
        "tarp",
        calibration_plots.plot_tarp(tarp_ranks(stars.truth, stars.draws), n_draws),
        "Coverage of balls about random points (TARP) with its 99 % band: what it sees beside the ranks are "
        "wrong correlations between labels.",
    )
    verdict = (
        f"p {_p_value(far)}, with points near the posterior {_p_value(near)}; limit {limit:.2g} for each"
    )
    values = {"p": far, "p_near": near, "limit": limit}
    title = "Joint coverage (TARP)"
    return Result("tarp", title, values, min(far, near) > limit, verdict, (), (picture,))


def coverage_by_bins(stars: KnownStars) -> Result:
    """Coverage in bins of S/N and of the posterior medians of Teff, log g and [Fe/H]."""
    found = {name: rows for name in QUANTITIES if (rows := stars.summary.get(f"by_{name}"))}
    names = stars.label_set.names
    title, header = "Coverage by bins", ["stars", *names]
    if not any(found.values()):
        return Result("bins", title, {"p": {}}, None, "no bin holds ten stars")
    limit, p, tables = FALSE_ALARM / (len(names) * len(found)), {}, []
    for quantity, bins in found.items():
        cells = np.array([[row["labels"][name]["sbc_p"] for name in names] for row in bins])
        # Bins of one quantity share no star: their p-values are independent.
        combined = stats.combine_pvalues(cells, method="fisher", axis=0).pvalue
        p[quantity] = dict(zip(names, map(float, combined), strict=True))
        rows = []
        for row in bins:
            inside = (row["labels"][name]["coverage_68"] for name in names)
            rows.append([_range(*row[quantity]), str(row["n"]), *(f"{x:.2f}" for x in inside)])
        rows.append(["p of all bins", "", *map(_p_value, combined)])
        flagged = {(len(bins), j + 2) for j in np.flatnonzero(combined <= limit).tolist()}
        low = np.argwhere((cells <= FALSE_ALARM) & (combined <= limit)).tolist()
        flagged |= {(i, j + 2) for i, j in low}
        of = QUANTITIES[quantity] + ("" if quantity == "snr" else ", posterior median")
        caption = f"Coverage of the 68 % interval by {of}; p: the ranks are uniform in all bins."
        tables.append(Table(caption, [of.split(" [")[0], *header], rows, frozenset(flagged)))
    failed = [[quantity, name] for quantity, of in p.items() for name in names if of[name] <= limit]
    picture = _picture(
        "bins",
        calibration_plots.plot_bins(stars.summary, stars.label_set),
        "Coverage of the 68 % interval; below each bin its edges and its number of stars. A point is in the "
        "grey bar 99 % of the time by chance. Bins are of posterior medians, not of truths: of stars chosen "
        "by their truth even an exact posterior covers another fraction.",
    )
    return Result(
        "bins",
        title,
        {"p": p, "limit": limit, "failed": failed},
        not failed,
        f"{len(failed)} of {len(names) * len(found)} labels in bins of a quantity fail; limit {limit:.1g}",
        tuple(tables),
        (picture,),
    )


def sharpness(stars: KnownStars) -> Result:
    """Scatter and stated errors in units of the Cramer-Rao bound, and of a Gaussian reference that knows the
    prior's covariance (no bound, see `KnownStars`)."""
    title, names = "Sharpness", stars.label_set.names
    if stars.bound is None or stars.bound_with_prior is None or len(stars.bound) < 10:
        return Result("sharpness", title, {}, None, "no bounds of ten stars were given")
    n = len(stars.bound)
    p16, median, p84 = np.quantile(stars.draws[:, :n], [0.16, 0.5, 0.84], axis=0)
    offset, error = median - stars.truth[:n], 0.5 * (p84 - p16)

    def of_each(measure: Callable, x: np.ndarray, sigma: np.ndarray) -> dict[str, float]:
        # A label that a spectrum says nothing of has no bound in that star.
        ratio = np.where(np.isfinite(sigma), x / sigma, np.nan)
        kept = [column[np.isfinite(column)] for column in ratio.T]
        return {
            name: float(measure(x)) if len(x) else float("nan") for name, x in zip(names, kept, strict=True)
        }

    values: dict[str, Any] = {"n": n}
    for kind, sigma in (("cramer_rao", stars.bound), ("with_prior", stars.bound_with_prior)):
        values[kind] = of_each(lambda x: robust_scatter(x[:, None])[0], offset, sigma)
        values[f"stated_over_{kind}"] = of_each(np.median, error, sigma)
        values[f"median_sigma_{kind}"] = dict(zip(names, map(float, np.median(sigma, axis=0)), strict=True))
    columns = {
        "bound": "median_sigma_cramer_rao",
        "scatter / bound": "cramer_rao",
        "stated error / bound": "stated_over_cramer_rao",
        "Gaussian reference": "median_sigma_with_prior",
        "scatter / Gaussian reference": "with_prior",
        "stated error / Gaussian reference": "stated_over_with_prior",
    }
    rows = {text: values[key] for text, key in columns.items()}
    shown = {"scatter": values["with_prior"], "stated error": values["stated_over_with_prior"]}
    picture = _picture(
        "sharpness",
        calibration_plots.plot_sharpness(shown, stars.label_set),
        "Scatter and stated error in units of a Gaussian reference: the information of the spectrum plus "
        "that of a Gaussian with the prior's covariance. It is no bound: where the prior matters, the exact "
        "posterior knows the prior's shape and is narrower (0.86 to 0.98 of it at S/N 20).",
    )
    ratio = values["with_prior"]
    stated = values["stated_over_with_prior"]
    return Result(
        "sharpness",
        title,
        values,
        None,
        f"scatter {min(ratio.values()):.2f} to {max(ratio.values()):.2f}, stated error "
        f"{min(stated.values()):.2f} to {max(stated.values()):.2f} times the Gaussian reference",
        (_table(stars, f"Medians over {n} stars.", rows, units=True),),
        (picture,),
    )


def local_calibration(stars: KnownStars) -> Result:
    """The local classifier test (L-C2ST) of the first thousand stars."""
    name, title = "lc2st", "Local test (L-C2ST)"
    n_draws, n, n_label = stars.draws.shape
    if n < 20 or n_draws < 4 * n_label:
        return Result(name, title, {}, None, f"left out: {n} stars with {n_draws} draws are too few")
    first = slice(0, N_LOCAL)
    found = local_test(stars.truth[first], stars.draws[:, first])
    local, snr = found.p <= 0.05, stars.snr[first]
    rows = []
    for row in stars.summary["by_snr"]:
        low, high = row["snr"]
        inside = (snr >= low) & (snr < high)
        if inside.any():
            rows.append([_range(low, high), str(inside.sum()), f"{local[inside].mean():.2f}"])
    picture = _picture(
        "lc2st",
        calibration_plots.plot_local(found, np.median(stars.draws[:, first], axis=0), stars.label_set),
        "Left: how well a classifier tells truths from draws, beside classifiers with nothing to learn. "
        "Right: the stars (posterior medians) where it does better than 95 % of those. Stars share one "
        "classifier: look at where they are, not at how many.",
    )
    caption = "Fraction of stars with p ≤ 0.05 by S/N per pixel; 0.05 is expected, give or take a lot."
    return Result(
        name,
        title,
        {"p": found.p_global, "limit": FALSE_ALARM, "n": len(local), "share_local": float(local.mean())},
        found.p_global > FALSE_ALARM,
        f"p {_p_value(found.p_global)} over {len(local)} stars; limit {FALSE_ALARM:.2g}",
        (Table(caption, ["S/N per pixel", "stars", "p ≤ 0.05"], rows),),
        (picture,),
    )


EVALUATORS: tuple[Callable[[KnownStars], Result], ...] = (
    accuracy,
    rank_uniformity,
    interval_coverage,
    joint_coverage,
    local_calibration,
    coverage_by_bins,
    sharpness,
)


def _picture(name: str, figure: Figure, caption: str) -> Picture:
    buffer = io.BytesIO()
    plots.save(figure, buffer)
    return Picture(name, caption, buffer.getvalue())


def _table(
    stars: KnownStars,
    caption: str,
    rows: Mapping[str, Mapping[str, float]],
    failed: Sequence[str] = (),
    write: Callable[[float], str] | None = None,
    units: bool = False,
) -> Table:
    """One column for each label; the first row is marked where a label failed."""
    names = stars.label_set.names
    text = [[row, *((write or _number)(values[name]) for name in names)] for row, values in rows.items()]
    flagged = frozenset((0, j) for j, name in enumerate(names, start=1) if name in failed)
    header = [
        f"{label.name} [{label.unit}]" if units and label.unit else label.name for label in stars.label_set
    ]
    return Table(caption, ["", *header], text, flagged)


def _range(low: float, high: float) -> str:
    return f"{low:g} to {high:g}".replace("-", "−")


def _number(value: float) -> str:
    digits = 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    # Adding 0 takes the sign from a rounded -0.
    return f"{round(value, digits) + 0.0:.{digits}f}" if np.isfinite(value) else "–"


def _p_value(p: float) -> str:
    return "< 1e-6" if p < 1e-6 else f"{p:.2g}"
