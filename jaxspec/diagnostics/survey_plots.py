"""Pictures of a cross-calibration: what the surveys differ by, before and after, and whether that is
believable.

Each function takes plain arrays and returns a Matplotlib figure, in the style of `plots`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from scipy import stats

from jaxspec.diagnostics.calibration import robust_scatter
from jaxspec.diagnostics.plots import BLUE, GREY, INK, RED, axis_label, style
from jaxspec.labels import LabelSet

COLOURS = (BLUE, RED, "#3f8f5f", "#8a5fb0", "#c28e2c", "#4fa3b5", "#7a4b3a", "#5a5a5a")


def plot_residuals(
    labels: Float[np.ndarray, "n l"],
    before: Float[np.ndarray, "n l"],
    after: Float[np.ndarray, "n l"],
    label_set: LabelSet,
    against: Sequence[str] = ("teff", "logg", "fe_h"),
    title: str = "",
) -> Figure:
    """Differences of two surveys on the stars they share, as published (`before`) and with both offsets taken
    out (`after`), against the stars' `labels` on the common scale. NaN where either has no value."""
    rows = [j for j in range(len(label_set)) if np.isfinite(before[:, j]).any()]
    against = [name for name in against if name in label_set.names]
    with style():
        figure, axes = plt.subplots(
            len(rows),
            len(against),
            figsize=(3.0 * len(against) + 0.6, 1.35 * len(rows) + 0.7),
            squeeze=False,
            sharex="col",
            sharey="row",
            layout="constrained",
        )
        for i, j in enumerate(rows):
            label = label_set.labels[j]
            shown = np.concatenate([before[:, j], after[:, j]])
            limit = 1.35 * float(np.nanquantile(np.abs(shown), 0.97)) + 1e-9
            for k, name in enumerate(against):
                ax, x = axes[i, k], label_set.column(labels, name)
                ax.axhline(0.0, color=INK, lw=0.7)
                for values, colour, z in ((before[:, j], GREY, 2), (after[:, j], BLUE, 3)):
                    ax.plot(x, values, "o", ms=2.2, mew=0, color=colour, alpha=0.75, zorder=z)
                    ax.plot(*_running_median(x, values), color=colour, lw=1.6, zorder=z + 2)
                ax.set_ylim(-limit, limit)
                if i == len(rows) - 1:
                    ax.set_xlabel(axis_label(label_set[name]))
            axes[i, 0].set_ylabel(rf"$\Delta$ {label.latex}")
            text = f"before {_summary(before[:, j])}, after {_summary(after[:, j])}"
            box = {"fc": "white", "ec": "none", "alpha": 0.7, "pad": 0.8}
            axes[i, -1].text(
                0.98,
                0.95,
                text,
                transform=axes[i, -1].transAxes,
                ha="right",
                va="top",
                fontsize=6.5,
                bbox=box,
            )
        figure.suptitle(f"{title}   grey: as published, blue: calibrated", fontsize=9)
    return figure


def _running_median(x: np.ndarray, y: np.ndarray, most: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Medians of `y` in bins of equally many stars; nothing where there are fewer than twelve."""
    there = np.isfinite(x) & np.isfinite(y)
    if there.sum() < 12:
        return np.array([]), np.array([])
    order = np.argsort(x[there])
    parts = np.array_split(order, min(most, there.sum() // 6))
    return (
        np.array([np.median(x[there][part]) for part in parts]),
        np.array([np.median(y[there][part]) for part in parts]),
    )


def plot_offsets(
    grid: Mapping[str, Float[np.ndarray, " g"]],
    offsets: Mapping[str, Mapping[str, Float[np.ndarray, "s g l"]]],
    label_set: LabelSet,
    title: str = "",
) -> Figure:
    """Every survey's offset from the common scale along each of the trend labels, others at the pivot, with
    its 68 and 95 % bands.

    Args:
        grid: values of each trend label along which offsets are drawn.
        offsets: for each survey and trend label, posterior draws of the offsets of all labels on that grid;
            NaN for labels that the survey does not have.
    """
    names = list(grid)
    with style():
        figure, axes = plt.subplots(
            len(label_set),
            len(names),
            figsize=(3.0 * len(names) + 0.6, 1.3 * len(label_set) + 0.8),
            squeeze=False,
            sharex="col",
            sharey="row",
            layout="constrained",
        )
        for j, label in enumerate(label_set):
            for k, name in enumerate(names):
                ax = axes[j, k]
                ax.axhline(0.0, color=INK, lw=0.7, ls="--")
                for i, (survey, draws) in enumerate(offsets.items()):
                    values = draws[name][:, :, j]
                    if not np.isfinite(values).any():
                        continue
                    low, p16, middle, p84, high = np.quantile(values, [0.025, 0.16, 0.5, 0.84, 0.975], axis=0)
                    colour = COLOURS[i % len(COLOURS)]
                    ax.fill_between(grid[name], low, high, color=colour, alpha=0.13, lw=0)
                    ax.fill_between(grid[name], p16, p84, color=colour, alpha=0.28, lw=0)
                    ax.plot(grid[name], middle, color=colour, lw=1.2, label=survey)
                if j == len(label_set) - 1:
                    ax.set_xlabel(axis_label(label_set[name]))
            axes[j, 0].set_ylabel(rf"$\delta$ {label.latex}")
        handles = {}
        for ax in axes.flat:
            handles.update(dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True)))
        figure.legend(
            handles.values(), handles.keys(), loc="outside upper center", ncols=min(6, max(1, len(handles)))
        )
        if title:
            figure.supxlabel(title, fontsize=8)
    return figure


def plot_scatter(
    scatter: Mapping[str, Float[np.ndarray, "s l"]],
    inflation: Mapping[str, Float[np.ndarray, "s l"]],
    label_set: LabelSet,
    quoted: Mapping[str, Float[np.ndarray, " l"]] | None = None,
) -> Figure:
    """Posterior of every survey's own scatter, label by label, and of the factors on its quoted errors (with
    bars of one sigma). Dots mark the median quoted error where given."""
    names = list(scatter)
    columns = min(5, len(label_set) + 1)
    rows = -(-(len(label_set) + 1) // columns)
    with style():
        figure, axes = plt.subplots(
            rows, columns, figsize=(2.1 * columns, 1.9 * rows), squeeze=False, layout="constrained"
        )
        for j, label in enumerate(label_set):
            ax = axes.flat[j]
            for i, name in enumerate(names):
                _violin(ax, scatter[name][:, j], i)
                if quoted is not None and np.isfinite(quoted[name][j]):
                    ax.plot([i - 0.35, i + 0.35], [quoted[name][j]] * 2, color=INK, lw=0.9, ls=":")
            ax.set_ylim(bottom=0.0)
            ax.set_title(f"own scatter, {axis_label(label)}")
        ax = axes.flat[len(label_set)]
        for i, name in enumerate(names):
            low, middle, high = np.quantile(inflation[name], [0.16, 0.5, 0.84], axis=0)
            place = np.arange(len(label_set)) + 0.16 * (i - 0.5 * (len(names) - 1))
            bars = (middle - low, high - middle)
            ax.errorbar(place, middle, bars, fmt="o", ms=2.5, lw=0.9, color=COLOURS[i % len(COLOURS)])
        ax.axhline(1.0, color=INK, lw=0.7, ls="--")
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter(NullFormatter())
        ax.set_title("factor on quoted errors")
        ax.set_xticks(range(len(label_set)), [one.latex for one in label_set], rotation=60, fontsize=6)
        ax.tick_params(axis="x", length=0, top=False)
        for ax in axes.flat[: len(label_set)]:
            ax.set_xticks(range(len(names)), names, rotation=35, ha="right", fontsize=7)
            ax.tick_params(axis="x", length=0, top=False)
            ax.set_xlim(-0.6, len(names) - 0.4)
        for ax in axes.flat[len(label_set) + 1 :]:
            ax.remove()
    return figure


def _violin(ax, draws: np.ndarray, place: int) -> None:
    draws = draws[np.isfinite(draws)]
    if draws.size < 2 or np.ptp(draws) == 0:
        return
    colour = COLOURS[place % len(COLOURS)]
    for body in ax.violinplot(draws, [place], widths=0.75, showextrema=False)["bodies"]:
        body.set(facecolor=colour, alpha=0.35, edgecolor=colour)
    low, middle, high = np.quantile(draws, [0.16, 0.5, 0.84])
    ax.errorbar(place, middle, [[middle - low], [high - middle]], fmt="o", ms=3, lw=1.2, color=colour)


def plot_predictive(z: Mapping[str, Float[np.ndarray, "n l"]], label_set: LabelSet) -> Figure:
    """Differences between what a survey reports and what its other surveys' measurements predict, in units of
    the predicted error: a standard normal where the model is right. NaN where there is none."""
    columns = min(3, len(label_set))
    rows = -(-len(label_set) // columns)
    x = np.linspace(-5, 5, 201)
    with style():
        figure, axes = plt.subplots(
            rows,
            columns,
            figsize=(2.9 * columns, 1.9 * rows),
            sharex=True,
            squeeze=False,
            layout="constrained",
        )
        for j, label in enumerate(label_set):
            ax = axes.flat[j]
            ax.plot(x, stats.norm.pdf(x), color=INK, lw=0.8, ls="--")
            lines = []
            for i, (name, values) in enumerate(z.items()):
                one = values[:, j][np.isfinite(values[:, j])]
                if one.size < 5:
                    continue
                edges = np.linspace(-5, 5, 1 + int(np.clip(2.0 * one.size**0.5, 8, 40)))
                density, _ = np.histogram(np.clip(one, -4.99, 4.99), edges, density=True)
                ax.stairs(density, edges, color=COLOURS[i % len(COLOURS)], lw=1.1, label=name)
                lines.append(f"{one.mean():+.2f} ± {robust_scatter(one):.2f}")
            ax.text(0.03, 0.95, label.latex, transform=ax.transAxes, va="top")
            text = "\n".join(lines) or "no common stars"
            ax.text(0.97, 0.95, text, transform=ax.transAxes, va="top", ha="right", fontsize=6.5)
            ax.set(xlim=(-5, 5), ylim=(0, None), yticks=[])
        for ax in axes.flat[len(label_set) :]:
            ax.remove()
        handles = {}
        for ax in axes.flat[: len(label_set)]:
            handles.update(dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True)))
        figure.legend(
            handles.values(), handles.keys(), loc="outside upper center", ncols=min(5, max(1, len(handles)))
        )
        figure.supxlabel("(reported - predicted) / predicted error", fontsize=9)
    return figure


def plot_held_out(
    predicted: Float[np.ndarray, "n l"],
    error: Float[np.ndarray, "n l"],
    reported: Float[np.ndarray, "n l"],
    label_set: LabelSet,
    survey: str,
) -> Figure:
    """What a survey reports for stars that were kept from it, against what was predicted: its scatter, and
    chi-square per star. NaN where it has no value."""
    rows = [j for j in range(len(label_set)) if np.isfinite(reported[:, j] - predicted[:, j]).sum() > 1]
    columns = min(3, max(1, len(rows)))
    n_rows = max(1, -(-len(rows) // columns))
    with style():
        figure, axes = plt.subplots(
            n_rows, columns, figsize=(3.0 * columns, 2.3 * n_rows), squeeze=False, layout="constrained"
        )
        for i, j in enumerate(rows):
            ax, label = axes.flat[i], label_set.labels[j]
            there = np.isfinite(reported[:, j]) & np.isfinite(predicted[:, j])
            x, difference = reported[there, j], predicted[there, j] - reported[there, j]
            ax.axhline(0.0, color=INK, lw=0.7)
            ax.errorbar(
                x, difference, error[there, j], fmt="o", ms=3, color=BLUE, ecolor=GREY, elinewidth=0.7, mew=0
            )
            limit = 1.3 * float(np.max(np.abs(difference))) + 1e-9
            ax.set(
                ylim=(-limit, limit),
                xlabel=axis_label(label),
                ylabel=rf"predicted - {survey}" if i % columns == 0 else "",
            )
            chi2 = float(np.mean((difference / error[there, j]) ** 2))
            text = (
                f"{there.sum()} stars, bias {_figure(float(difference.mean()))}, "
                f"scatter {_figure(float(difference.std()))}, χ² {chi2:.2f}"
            )
            ax.set_title(text, fontsize=7.5)
        for ax in axes.flat[len(rows) :]:
            ax.remove()
    return figure


def _summary(values: np.ndarray) -> str:
    """Median and robust scatter of the finite values."""
    there = values[np.isfinite(values)]
    return f"{_figure(float(np.median(there)))} ± {_figure(float(robust_scatter(there)))}"


def _figure(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 10 else f"{value:.3f}" if abs(value) < 1 else f"{value:.1f}"
