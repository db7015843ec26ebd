"""Pictures of posteriors and of how good they are. Each function returns a Matplotlib figure; nothing is
shown or saved here.

Needs the `plots` extra (matplotlib, corner).
"""

from __future__ import annotations

import io
import os
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import matplotlib.ticker
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from jaxspec.diagnostics.calibration import robust_scatter
from jaxspec.instruments import Arm, Instrument
from jaxspec.labels import LabelSet
from jaxspec.simulation.residuals import ResidualModel

DPI = 170
TITLE_WIDTH = 120  # letters of a line above a spectrum
INK, BLUE, RED, GREY = "#1b2838", "#2f6db3", "#c8442f", "#9aa5b1"

STYLE = {
    "figure.dpi": 110,
    "font.size": 9.5,
    # The family by its own name: a generic one would be looked up only when the figure is drawn, outside this
    # style.
    "font.family": "STIXGeneral",
    "mathtext.fontset": "stix",
    "axes.linewidth": 0.7,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 9.0,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.top": True,
    "ytick.right": True,
    "legend.frameon": False,
    "text.color": INK,
}


@contextmanager
def style():
    """The house style, for a `with` block."""
    with mpl.rc_context(STYLE):
        yield


def save(figure: Figure, path: str | os.PathLike | io.BytesIO, dpi: int = DPI) -> None:
    """Write a figure (the format follows from the name; PNG into an open file) and free its memory."""
    figure.savefig(path, dpi=dpi, bbox_inches="tight", facecolor="white")
    plt.close(figure)


def plain_text(text: str) -> str:
    """A name as a title can show it: dollar signs begin no formula, and what is no letter shows as `?`."""
    shown = "".join(c if c.isprintable() else "?" for c in text)
    return shown.replace("$", r"\$")


def axis_label(label) -> str:
    """A label's symbol with its unit."""
    return f"{label.latex} [{label.unit}]" if label.unit else label.latex


def plot_recovery(
    truth: Float[np.ndarray, "n l"],
    draws: Float[np.ndarray, "s n l"],
    label_set: LabelSet,
    snr: Float[np.ndarray, " n"] | None = None,
) -> Figure:
    """Estimate minus truth against truth for every label, coloured by S/N, with its bias and robust
    scatter."""
    n = len(label_set)
    columns = min(3, n)
    rows = -(-n // columns)
    p16, median, p84 = np.quantile(draws, [0.16, 0.5, 0.84], axis=0)
    with style():
        figure, axes = plt.subplots(
            rows, columns, figsize=(3.1 * columns, 2.35 * rows), squeeze=False, layout="constrained"
        )
        points: Any = None
        for i, label in enumerate(label_set):
            ax, offset = axes.flat[i], median[:, i] - truth[:, i]
            scatter = robust_scatter(offset)
            ax.axhline(0.0, color=INK, lw=0.7, zorder=1)
            ax.errorbar(
                truth[:, i],
                offset,
                [median[:, i] - p16[:, i], p84[:, i] - median[:, i]],
                fmt="none",
                ecolor=GREY,
                elinewidth=0.4,
                alpha=0.35,
                zorder=2,
            )
            colour = (
                {"color": BLUE}
                if snr is None
                else {"c": np.log10(snr), "cmap": "viridis", "vmin": np.log10(5), "vmax": np.log10(300)}
            )
            points = ax.scatter(
                truth[:, i], offset, s=5.0, lw=0.0, alpha=0.9, zorder=3, rasterized=True, **colour
            )
            limit = np.quantile(np.abs(offset), 0.985) * 1.35 + 1e-9
            ax.set_ylim(-limit, limit)
            ax.set_xlabel(axis_label(label))
            ax.set_ylabel(rf"$\Delta$ {label.latex}")
            text = f"bias {_sig(float(np.median(offset)))}, scatter {_sig(float(scatter))}" + (
                f" {label.unit}" if label.unit else ""
            )
            ax.text(
                0.03,
                0.96,
                text,
                transform=ax.transAxes,
                va="top",
                fontsize=7.5,
                bbox={"fc": "white", "ec": "none", "alpha": 0.75, "pad": 1.0},
            )
        for ax in axes.flat[n:]:
            ax.remove()
        if snr is not None:
            bar = figure.colorbar(points, ax=axes, aspect=45, pad=0.01, fraction=0.02)
            ticks = [5, 10, 30, 100, 300]
            bar.set_ticks(np.log10(ticks).tolist(), labels=[str(t) for t in ticks])
            bar.set_label("S/N per pixel")
    return figure


def plot_corner(
    draws: Float[np.ndarray, "s l"],
    label_set: LabelSet,
    truth: Float[np.ndarray, " l"] | None = None,
    title: str = "",
    truth_name: str = "truth",
) -> Figure:
    """One star's posterior, label against label, with the truth or a literature value where known (NaN: not
    known)."""
    import corner

    known = None if truth is None else [None if not np.isfinite(v) else float(v) for v in truth]
    # Draws far out must not shrink the picture.
    low, high = np.quantile(draws, [0.002, 0.998], axis=0)
    pad = 0.06 * (high - low) + 1e-9
    if known is not None:
        # A truth just outside the bulk stays visible; one far away is cut.
        for i, value in enumerate(known):
            if value is not None and low[i] - 2 * (high[i] - low[i]) < value < high[i] + 2 * (
                high[i] - low[i]
            ):
                low[i], high[i] = min(low[i], value), max(high[i], value)
    with style():
        figure = plt.figure(figsize=(1.15 * len(label_set) + 0.6,) * 2)
        corner.corner(
            np.asarray(draws, np.float64),
            fig=figure,
            labels=[axis_label(label) for label in label_set],
            range=list(zip(low - pad, high + pad, strict=True)),
            truths=known,
            truth_color=RED,
            color=BLUE,
            bins=28,
            smooth=0.9,
            smooth1d=0.7,
            levels=(0.393, 0.865),
            plot_datapoints=False,
            fill_contours=True,
            max_n_ticks=3,
            label_kwargs={"fontsize": 9},
            labelpad=0.12,
            hist_kwargs={"lw": 1.0},
            truth_kwargs={"lw": 0.8},
        )
        figure.subplots_adjust(left=0.09, right=0.99, bottom=0.09, top=0.99, wspace=0.06, hspace=0.06)
        p16, median, p84 = np.quantile(draws, [0.16, 0.5, 0.84], axis=0)
        lines = [_estimate(label, median[i], p16[i], p84[i]) for i, label in enumerate(label_set)]
        figure.text(0.985, 0.975, "\n".join(lines), ha="right", va="top", fontsize=10, linespacing=1.5)
        if title or known is not None:
            head = title + (
                f"\nred: {truth_name}" if known is not None and any(v is not None for v in known) else ""
            )
            figure.text(0.55, 0.975, head.strip(), ha="center", va="top", fontsize=11, linespacing=1.5)
    return figure


def plot_spectrum(
    flux: Float[np.ndarray, " p"],
    ivar: Float[np.ndarray, " p"],
    instrument: Instrument,
    model: Float[np.ndarray, " p"],
    band: tuple[Float[np.ndarray, " p"], Float[np.ndarray, " p"]] | None = None,
    title: str = "",
    windows: Mapping[str, Sequence[tuple[float, float]]] | None = None,
) -> Figure:
    """The normalised spectrum of one star with its posterior predictive and the residuals, arm by arm. Arms
    that were not observed are left out, and named beneath.

    Args:
        model: the median model including the fitted continuum.
        band: lower and upper model of the draws, shaded.
        windows: wavelength ranges [A] to show of each arm, by its name; by default two halves of each.
    """
    panels, observed = [], _observed_arms(ivar, instrument)
    for arm in observed:
        middle = 0.5 * (arm.low + arm.high)
        chosen = (windows or {}).get(arm.name, [(arm.low, middle), (middle, arm.high)])
        panels += [(arm, *window) for window in chosen]
    wavelength, good = instrument.wavelength, ivar > 0.0
    sigma = 1.0 / np.sqrt(np.where(good, ivar, 1.0))
    with style():
        title = "\n".join(textwrap.wrap(title, TITLE_WIDTH, break_on_hyphens=False)) if title else ""
        above = 0.28 + 0.16 * title.count("\n")
        height = 1.75 * len(panels) + 0.32 + above
        figure = plt.figure(figsize=(9.5, height))
        outer = figure.add_gridspec(
            len(panels), 1, left=0.065, right=0.99, bottom=0.42 / height, top=1.0 - above / height, hspace=0.2
        )
        for i, (arm, low, high) in enumerate(panels):
            inner = outer[i].subgridspec(2, 1, height_ratios=[3, 1], hspace=0.0)
            ax, rest = inner.subplots(sharex=True, squeeze=False)[:, 0]
            inside = (wavelength >= low) & (wavelength < high)
            x, seen = wavelength[inside], good[inside]
            f, e, m = flux[inside], sigma[inside], model[inside]
            shown = np.where(seen, f, np.nan)
            if not seen.any():
                ax.text(
                    0.5,
                    0.12,
                    "not observed",
                    transform=ax.transAxes,
                    ha="center",
                    color=GREY,
                    fontsize=10,
                    style="italic",
                )
            ax.plot(x, shown, color=INK, lw=0.6, drawstyle="steps-mid", label="observed")
            if band is not None:
                ax.fill_between(
                    x,
                    band[0][inside],
                    band[1][inside],
                    color=RED,
                    alpha=0.3,
                    lw=0,
                    label="posterior predictive",
                )
            ax.plot(x, m, color=RED, lw=0.7, alpha=0.9, label="median model" if band is not None else "model")
            bottom = np.nanmin(np.append(shown, m)) if seen.any() else np.min(m)
            top = np.nanquantile(shown, 0.995) if seen.any() else 1.0
            ax.set(
                ylabel="flux", xlim=(low, high), ylim=(max(bottom - 0.06, -0.1), max(top, np.max(m)) + 0.08)
            )
            ax.tick_params(labelbottom=False)
            ax.text(0.006, 0.06, f"{arm.name}", transform=ax.transAxes, color=GREY, fontsize=8)
            rest.fill_between(
                x,
                np.where(seen, -e, np.nan),
                np.where(seen, e, np.nan),
                color=GREY,
                alpha=0.4,
                lw=0,
                step="mid",
            )
            rest.plot(x, np.where(seen, f - m, np.nan), color=INK, lw=0.5, drawstyle="steps-mid")
            rest.axhline(0.0, color=RED, lw=0.6)
            spread = np.quantile(np.abs((f - m)[seen]), 0.97) * 1.6 if seen.any() else 0.1
            limit = float(np.clip(spread, 0.015, 0.5))
            rest.set(ylim=(-limit, limit), ylabel="resid.")
            tick = float(f"{0.6 * limit:.1g}")
            rest.set_yticks([-tick, 0.0, tick], labels=[f"{-tick:g}", "0", f"{tick:g}"])
            ax.yaxis.set_major_locator(mpl.ticker.MaxNLocator(4, prune="lower"))
            for part in (ax, rest):
                part.yaxis.set_label_coords(-0.045, 0.5)
            if i == 0:
                ax.set_title(title, loc="left", pad=4)
                handles = ax.get_legend_handles_labels()
        # Beneath the panels: above them a long title would run into it.
        figure.legend(
            *handles, loc="lower right", bbox_to_anchor=(0.99, 0.0), ncols=3, fontsize=8, borderpad=0.2
        )
        rest.set_xlabel("wavelength in air [Å]" if instrument.medium == "air" else "wavelength in vacuum [Å]")
        missing = [arm.name for arm in instrument.arms if arm not in observed]
        if missing:
            text = f"not observed: {', '.join(missing)}"
            figure.text(0.01, 0.06 / height, text, color=GREY, fontsize=8, style="italic")
    return figure


def _observed_arms(ivar: Float[np.ndarray, " p"], instrument: Instrument) -> tuple[Arm, ...]:
    """The arms with a pixel that counts; all of them where there is none at all."""
    seen = tuple(arm for arm in instrument.arms if (ivar[instrument.slices[arm.name]] > 0.0).any())
    return seen or instrument.arms


def plot_residuals(
    residual: Float[np.ndarray, "n p"],
    ivar: Float[np.ndarray, "n p"],
    found: ResidualModel,
    instrument: Instrument,
) -> Figure:
    """What was learned of residuals beside what they are beyond the stated noise, and the factors that
    pixels share, arm by arm; in per cent of the continuum."""
    used = ivar > 0.0
    n = np.maximum(used.sum(axis=0), 1)
    excess = np.where(used, residual**2 - 1.0 / np.where(used, ivar, 1.0), 0.0).sum(axis=0) / n
    excess = np.where(used.any(axis=0), 100.0 * np.sqrt(np.maximum(excess, 0.0)), np.nan)
    components = 100.0 * np.asarray(found.components, float)
    shared = np.sqrt(np.sum(components**2, axis=0))
    both = np.hypot(shared, 100.0 * np.asarray(found.scatter, float))
    arms = {arm: where for arm, where in instrument.slices.items() if used[:, where].any()}
    with style():
        figure, axes = plt.subplots(
            2 * len(arms), 1, figsize=(9.5, 4.2 * len(arms)), layout="constrained", squeeze=False
        )
        for (top, bottom), (arm, where) in zip(axes.reshape(-1, 2), arms.items(), strict=True):
            x = instrument.wavelength[where]
            top.plot(x, excess[where], color=GREY, lw=0.8, label="residuals beyond the stated noise")
            top.plot(x, both[where], color=RED, lw=0.6, label="learned")
            top.plot(x, shared[where], color=BLUE, lw=0.6, label="of that, shared by pixels")
            top.set(ylabel="rms [%]", xlim=(x[0], x[-1]), ylim=(0.0, None))
            for j, one in enumerate(components[:3, where]):
                bottom.plot(x, one, lw=0.6, color=(BLUE, RED, INK)[j], label=f"factor {j + 1}")
            bottom.set(ylabel="factor [%]", xlim=(x[0], x[-1]))
            top.set_title(f"{arm}, {int(used[:, where].any(axis=1).sum())} spectra", loc="left", pad=3)
            if not len(components):
                bottom.text(0.5, 0.6, "no factor", transform=bottom.transAxes, ha="center", color=GREY)
            for ax in (top, bottom)[: 1 + bool(len(components))]:
                ax.legend(ncols=3, loc="lower right", bbox_to_anchor=(1.0, 1.0), fontsize=8, borderpad=0.2)
        bottom.set_xlabel(
            "wavelength in air [Å]" if instrument.medium == "air" else "wavelength in vacuum [Å]"
        )
    return figure


def _sig(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 10 else f"{value:.3f}" if abs(value) < 1 else f"{value:.1f}"


def _estimate(label, median, p16, p84):
    digits = int(np.clip(1 - np.floor(np.log10(max(p84 - p16, 1e-6) / 2)), 0, 3))
    up, down = f"{p84 - median:.{digits}f}", f"{median - p16:.{digits}f}"
    unit = "" if label.unit in ("", "dex") else f" {label.unit}"
    return rf"{label.latex} = ${median:.{digits}f}^{{+{up}}}_{{-{down}}}${unit}"
