"""Pictures of calibration: ranks, coverage, the joint test, bins, sharpness and the local test, each beside
what chance alone allows. As in `jaxspec.diagnostics.plots`, nothing is shown or saved here.

Needs the `plots` extra (matplotlib).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from jaxspec.diagnostics.bands import LEVEL, Band, rank_distribution, rank_points, simultaneous_band
from jaxspec.diagnostics.calibration import coverage, ranks
from jaxspec.diagnostics.classifier import LocalTest
from jaxspec.diagnostics.plots import BLUE, GREY, INK, RED, axis_label, style
from jaxspec.labels import LabelSet

NAMES = {"snr": "S/N per pixel"}


def plot_sbc(
    truth: Float[np.ndarray, "n l"], draws: Float[np.ndarray, "s n l"], label_set: LabelSet
) -> Figure:
    """Distribution of each truth's rank among the draws minus the uniform one, with the band that the curves
    of all labels stay within together in 99 % of sets."""
    places, n_draws = ranks(truth, draws), draws.shape[0]
    columns = min(3, len(label_set))
    rows = -(-len(label_set) // columns)
    with style():
        figure, axes = plt.subplots(
            rows,
            columns,
            figsize=(2.5 * columns, 1.75 * rows),
            sharex=True,
            sharey=True,
            squeeze=False,
            layout="constrained",
        )
        band = _rank_band(len(truth), n_draws, 1.0 - (1.0 - LEVEL) / len(label_set))
        for i, label in enumerate(label_set):
            _rank_difference(axes.flat[i], places[:, i], n_draws, band)
            axes.flat[i].text(0.04, 0.93, label.latex, transform=axes.flat[i].transAxes, va="top")
        for ax in axes.flat[len(label_set) :]:
            ax.remove()
        _symmetric(axes.flat[: len(label_set)])
        figure.supxlabel("rank of the truth among the draws (0: below all, 1: above all)", fontsize=9)
        figure.supylabel("cumulative fraction $-$ uniform", fontsize=9)
    return figure


def plot_tarp(rank: Int[np.ndarray, " n"], n_draws: int) -> Figure:
    """Distribution of `tarp_ranks` minus the uniform one: expected coverage of all labels at once against the
    nominal one, with its 99 % band."""
    with style():
        figure, ax = plt.subplots(figsize=(4.2, 2.7), layout="constrained")
        _rank_difference(ax, rank, n_draws, _rank_band(len(rank), n_draws, LEVEL))
        _symmetric([ax])
        ax.set(xlabel="nominal coverage of all labels at once", ylabel="empirical $-$ nominal")
    return figure


def _rank_band(n: int, n_draws: int, level: float) -> Band:
    return simultaneous_band(n, rank_points(n_draws) / (n_draws + 1), level)


def _rank_difference(ax: Axes, rank: Int[np.ndarray, " n"], n_draws: int, band: Band) -> None:
    found = rank_distribution(rank[:, None], rank_points(n_draws))[:, 0]
    outside = (found < band.low - 1e-9) | (found > band.high + 1e-9)
    x = np.concatenate([[0.0], band.at, [1.0]])
    low, high = ([0.0, *(edge - band.at), 0.0] for edge in (band.low, band.high))
    ax.fill_between(x, low, high, color=GREY, alpha=0.35, lw=0)
    ax.axhline(0.0, color=INK, lw=0.7, ls="--")
    difference = np.array([0.0, *(found - band.at), 0.0])
    ax.plot(x, difference, color=BLUE, lw=1.2)
    ax.plot(band.at[outside], difference[1:-1][outside], ls="none", marker="o", ms=2.2, color=RED)
    ax.set_xlim(0, 1)
    ax.set_xticks([0.0, 0.25, 0.5, 0.75, 1.0], ["0", "", "0.5", "", "1"])


def _symmetric(axes: Sequence[Axes] | np.ndarray) -> None:
    largest = max(max(abs(ax.dataLim.y0), abs(ax.dataLim.y1)) for ax in axes)
    for ax in axes:
        ax.set_ylim(-1.35 * largest, 1.35 * largest)


def plot_coverage(
    truth: Float[np.ndarray, "n l"], draws: Float[np.ndarray, "s n l"], label_set: LabelSet
) -> Figure:
    """Empirical against nominal coverage of central intervals, with the band that the curves of all labels
    stay within together in 99 % of sets."""
    levels = np.linspace(0.02, 0.98, 49)
    values, n = coverage(truth, draws, levels), truth.shape[0]
    places = (np.arange(len(draws) + 1) + 0.5) / (len(draws) + 1)
    at, first = np.unique(np.mean(2.0 * np.abs(places - 0.5) < levels[:, None], axis=1), return_index=True)
    keep = first[(at > 0.0) & (at < 1.0)]
    band = simultaneous_band(n, at[(at > 0.0) & (at < 1.0)], 1.0 - (1.0 - LEVEL) / len(label_set))
    colours = label_colours(label_set)
    with style():
        figure, (ax, rest) = plt.subplots(
            2, 1, figsize=(3.9, 5.0), sharex=True, height_ratios=[2.4, 1], layout="constrained"
        )
        ax.fill_between(
            levels[keep], band.low, band.high, color=GREY, alpha=0.35, lw=0, label="99 % by chance"
        )
        low, high = band.low - levels[keep], band.high - levels[keep]
        rest.fill_between(levels[keep], low, high, color=GREY, alpha=0.35, lw=0)
        ax.plot([0, 1], [0, 1], color=INK, lw=0.7, ls="--")
        rest.axhline(0.0, color=INK, lw=0.7, ls="--")
        for i, label in enumerate(label_set):
            error = np.mean(np.abs(values[:, i] - levels))
            ax.plot(levels, values[:, i], color=colours[i], lw=1.1, label=f"{label.latex}  {error:.3f}")
            rest.plot(levels, values[:, i] - levels, color=colours[i], lw=1.1)
        ax.set(xlim=(0, 1), ylim=(0, 1), ylabel="empirical coverage")
        ax.legend(
            fontsize=8,
            loc="upper left",
            title=f"calibration error, {n} stars",
            title_fontsize=8,
            handlelength=1.4,
            labelspacing=0.25,
        )
        largest = max(
            0.05, 1.15 * np.max(np.abs(values - levels[:, None])), 1.1 * np.max(np.abs([low, high]))
        )
        rest.set(xlabel="nominal coverage", ylabel="difference", ylim=(-largest, largest))
    return figure


def plot_bins(summary: Mapping[str, Any], label_set: LabelSet) -> Figure:
    """Coverage of the central 68 % interval in every bin of `jaxspec.diagnostics.calibration.summarise`, with
    the range that holds each point by itself in 99 % of sets."""
    quantities = [name.removeprefix("by_") for name in summary if name.startswith("by_") and summary[name]]
    colours = label_colours(label_set)
    columns = min(2, len(quantities))
    rows = -(-len(quantities) // columns)
    with style():
        figure, axes = plt.subplots(
            rows,
            columns,
            figsize=(3.9 * columns, 2.5 * rows),
            sharey=True,
            squeeze=False,
            layout="constrained",
        )
        for ax, quantity in zip(axes.flat, quantities, strict=False):
            bins = summary[f"by_{quantity}"]
            x, n = np.arange(len(bins)), np.array([row["n"] for row in bins])
            low, high = stats.binom.ppf([[0.005], [0.995]], n, 0.68) / n
            ax.bar(x, high - low, 0.8, low, color=GREY, alpha=0.35, lw=0)
            ax.axhline(0.68, color=INK, lw=0.7, ls="--")
            spread = np.linspace(-0.3, 0.3, len(label_set)) if len(label_set) > 1 else [0.0]
            for i, label in enumerate(label_set):
                y = [row["labels"][label.name]["coverage_68"] for row in bins]
                ax.plot(x + spread[i], y, ls="none", marker="o", ms=3.2, color=colours[i], label=label.latex)
            edges = [
                f"{low:g} to {high:g}\n{row['n']}".replace("-", "−")
                for row in bins
                for low, high in [row[quantity]]
            ]
            ax.set_xticks(x, edges, fontsize=7.5)
            ax.tick_params(axis="x", which="both", length=0)
            ax.set_xlim(-0.6, len(bins) - 0.4)
            ax.set_xlabel(
                NAMES.get(quantity) or f"posterior median of {_axis(label_set, quantity)}", fontsize=9
            )
        for ax in axes.flat[len(quantities) :]:
            ax.remove()
        handles, names = axes[0, 0].get_legend_handles_labels()
        figure.legend(
            handles, names, loc="outside upper center", ncols=len(names), fontsize=8, handletextpad=0
        )
        figure.supylabel("coverage of the 68 % interval", fontsize=9)
    return figure


def plot_sharpness(values: Mapping[str, Mapping[str, float]], label_set: LabelSet) -> Figure:
    """Stated and reached errors of each label, in units of the best possible error.

    Args:
        values: by name of the measure, a number for each label.
    """
    x = np.arange(len(label_set))
    with style():
        figure, ax = plt.subplots(figsize=(1.2 + 0.62 * len(label_set), 2.8), layout="constrained")
        ax.axhline(1.0, color=INK, lw=0.7, ls="--")
        looks = zip(values.items(), (BLUE, RED, GREY), ("o", "s", "^"), (-0.13, 0.0, 0.13), strict=False)
        for (name, by_label), colour, marker, shift in looks:
            y = [by_label[label.name] for label in label_set]
            ax.plot(x + shift, y, ls="none", marker=marker, color=colour, ms=5, label=name)
        ax.set_xticks(x, [label.latex for label in label_set])
        ax.tick_params(axis="x", which="both", length=0)
        ax.set(ylabel="in units of the Gaussian reference", xlim=(-0.5, len(label_set) - 0.5))
        ax.set_ylim(0.0, 1.15 * max(ax.dataLim.y1, 1.2))
        figure.legend(loc="outside upper center", ncols=len(values), fontsize=8)
    return figure


def plot_local(found: LocalTest, estimate: Float[np.ndarray, "n l"], label_set: LabelSet) -> Figure:
    """Where the classifier tells truths from draws: its mean score beside those of classifiers with nothing
    to learn, and the stars in the plane of the first two labels.

    Args:
        estimate: posterior median of each star.
    """
    with style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.1), layout="constrained")
        null = np.sqrt(found.null.mean(axis=1))
        left.hist(null, bins=20, color=GREY, alpha=0.6, label="nothing to learn")
        left.axvline(
            np.sqrt(found.statistic.mean()), color=RED, lw=1.5, label=f"found, p = {found.p_global:.3g}"
        )
        left.set(xlabel="rms distance of the answer from 1/2", ylabel="classifiers")
        left.legend(fontsize=8.5, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, borderaxespad=0.2)
        local = found.p <= 0.05
        both = ("teff", "logg")
        names = both if set(both) <= set(label_set.names) else label_set.names[:2]
        x, y = (label_set.column(estimate, name) for name in (names[0], names[-1]))
        right.scatter(x[~local], y[~local], s=6, color=GREY, lw=0, label="p > 0.05")
        right.scatter(
            x[local], y[local], s=9, color=RED, lw=0, label=f"p ≤ 0.05: {local.mean():.0%} of stars"
        )
        right.set(xlabel=_axis(label_set, names[0]), ylabel=_axis(label_set, names[-1]))
        if names == both:
            right.invert_xaxis()
            right.invert_yaxis()
        right.legend(
            fontsize=8.5,
            loc="lower left",
            bbox_to_anchor=(0.0, 1.0),
            ncols=2,
            borderaxespad=0.2,
            markerscale=1.5,
        )
    return figure


def label_colours(label_set: LabelSet) -> np.ndarray:
    """One colour for each label."""
    return plt.get_cmap("turbo")(np.linspace(0.06, 0.94, len(label_set)))


def _axis(label_set, name):
    return axis_label(label_set[name])
