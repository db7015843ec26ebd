"""Pictures of what shapes a spectrum: lines and elements by pixel. Each returns a Matplotlib figure.

Needs the `plots` extra (matplotlib).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Bool, Float
from matplotlib.figure import Figure

from jaxspec.diagnostics.information import Information
from jaxspec.diagnostics.plots import GREY, INK, style
from jaxspec.errors import InputError
from jaxspec.instruments import Instrument
from jaxspec.labels import LabelSet
from jaxspec.physics.identify import Identification, strongest

COLOURS = ("#2f6db3", "#c8442f", "#3a8f5c", "#d99a2b", "#7a55a8", "#2a9d9d", "#b5588a", "#7d6b4f")


def plot_identification(
    found: Identification,
    ranges: Sequence[tuple[float, float]],
    n_labels: int = 18,
    title: str = "",
) -> Figure:
    """The spectrum in some ranges (A), its strongest lines by name, and whose absorption each pixel holds.

    Under every stretch of spectrum stands 1 - flux, divided among the elements in stacked colours: those with
    the largest part of all that is shown have a colour, the others are grey. A label reads species,
    wavelength and central depth of the line alone with the continuum.

    Raises InputError where a range holds no pixel.
    """
    inside = [(found.wavelength >= low) & (found.wavelength <= high) for low, high in ranges]
    for (low, high), use in zip(ranges, inside, strict=True):
        if not use.any():
            raise InputError(
                "ranges", f"{low:g}-{high:g} A",
                f"within {found.wavelength[0]:g}-{found.wavelength[-1]:g} A", "correct the range",
            )  # fmt: skip
    absorption = np.clip(found.absorption, 0.0, None)
    total = sum(absorption[:, use].sum(axis=1) for use in inside)
    main = np.argsort(-total)[: len(COLOURS)]
    main = main[total[main] > 0.002 * total.sum()]
    with style():
        figure, axes = plt.subplots(
            2 * len(ranges), 1, figsize=(10.0, 3.6 * len(ranges)), height_ratios=[3.0, 1.3] * len(ranges),
            squeeze=False, layout="constrained",
        )  # fmt: skip
        for k, ((low, high), use) in enumerate(zip(ranges, inside, strict=True)):
            ax, share = axes[2 * k, 0], axes[2 * k + 1, 0]
            x, flux = found.wavelength[use], found.flux[use]
            ax.plot(x, flux, color=INK, lw=0.8)
            _name_lines(ax, strongest(found, n_labels, low, high), x, flux, low, high)
            ax.set(xlim=(low, high), ylim=(min(-0.02, flux.min() - 0.02), 1.85), ylabel="normalised flux")
            ax.set_yticks([0.0, 0.25, 0.5, 0.75, 1.0])
            ax.tick_params(labelbottom=False)
            base = np.zeros(len(x))
            others = absorption[:, use].sum(axis=0) - absorption[main][:, use].sum(axis=0)
            layers = [(found.elements[e], absorption[e, use], c) for e, c in zip(main, COLOURS, strict=False)]
            for name, part, colour in (*layers, ("others", np.clip(others, 0.0, None), GREY)):
                share.fill_between(x, base, base + part, color=colour, lw=0, label=name)
                base = base + part
            share.set(xlim=(low, high), ylim=(0.0, 1.05 * base.max() + 1e-6), ylabel="1 - flux")
            if k == 0:
                ax.set_title(title, loc="left")
                share.legend(
                    ncols=9, fontsize=7.5, loc="lower right", bbox_to_anchor=(1.0, 1.0), handlelength=1.0
                )
        axes[-1, 0].set_xlabel("wavelength in air [Å]")
    return figure


def plot_information(
    information: Information, instrument: Instrument, label_set: LabelSet, title: str = "", n_marks: int = 6
) -> Figure:
    """Where in the spectrum the information on each label is, arm by arm.

    Blue: the share of 1 / sigma^2 in each pixel's neighbourhood (1 A) when nothing else is known; grey above
    the axis' line: when all else is known, to the same scale of its own largest. The `n_marks` angstroms that
    tell most have their wavelength written. At the left the bound, and in brackets what it would be if all
    else were known.
    """
    notes = []
    for row, name in enumerate(information.names):
        unit = f" {label_set[name].unit}" if label_set[name].unit else ""
        digits = 1 if label_set[name].unit == "K" else 4
        alone = 1.0 / np.sqrt(max(information.known[row].sum(), 1e-300))
        notes.append(f"{information.sigma[name]:.{digits}f}{unit} ({alone:.{digits}f})")
    return _plot_shares(
        information.names, information.marginal, information.known, instrument, label_set, notes,
        "share of the information per Å", title=title, n_marks=n_marks,
    )  # fmt: skip


def plot_saliency(
    influence: Float[np.ndarray, "l p"],
    best: Float[np.ndarray, "l p"],
    instrument: Instrument,
    label_set: LabelSet,
    near: Mapping[str, Bool[np.ndarray, " p"]] | None = None,
    title: str = "",
    n_marks: int = 6,
) -> Figure:
    """Where in the spectrum the network looked for each label, arm by arm, beside the best linear estimate.

    Blue: the share of the squared `influence` (see `saliency`; of one star, or averaged over a population) in
    each angstrom; grey: the same of the `best` linear estimate. Red bars at the top: pixels `near` lines of
    the label's own element, by label. The `n_marks` angstroms looked at most have their wavelength
    written.
    """
    key = "blue: network; grey: best linear estimate" + ("; red: the element's lines" if near else "")
    return _plot_shares(
        label_set.names, np.square(influence), np.square(best), instrument, label_set,
        [""] * len(label_set), "share of the squared influence per Å", near, f"{title}   ({key})", n_marks,
    )  # fmt: skip


def _plot_shares(
    names: Sequence[str],
    front: Float[np.ndarray, "l p"],
    back: Float[np.ndarray, "l p"],
    instrument: Instrument,
    label_set: LabelSet,
    notes: Sequence[str],
    quantity: str,
    near: Mapping[str, Bool[np.ndarray, " p"]] | None = None,
    title: str = "",
    n_marks: int = 6,
) -> Figure:
    """For each label what each angstrom has of two sums over pixels, the first as a line, the second grey."""
    n, arms = len(names), list(zip(instrument.arms, instrument.slices.values(), strict=True))
    with style():
        figure, axes = plt.subplots(
            n, len(arms), figsize=(10.5, 1.05 * n + 0.9), squeeze=False, sharex="col", sharey="row",
            width_ratios=[arm.high - arm.low for arm, _ in arms], layout="constrained",
        )  # fmt: skip
        for row, name in enumerate(names):
            peak = 0.0
            for column, (arm, where) in enumerate(arms):
                ax = axes[row, column]
                edges = np.arange(arm.low, arm.high + 1.0, 1.0)
                centres = 0.5 * (edges[1:] + edges[:-1])
                x = instrument.wavelength[where]
                share, behind = (
                    np.histogram(x, edges, weights=part[row, where])[0] / max(part[row].sum(), 1e-300)
                    for part in (front, back)
                )
                ax.fill_between(centres, behind, step="mid", color=GREY, alpha=0.55, lw=0)
                ax.step(centres, share, where="mid", color=COLOURS[0], lw=0.9)
                chosen: list[float] = []
                for k in np.argsort(-share)[:n_marks]:
                    if share[k] > 0.015 and all(abs(centres[k] - other) > 14.0 for other in chosen):
                        chosen.append(centres[k])
                        ax.annotate(f"{centres[k]:.0f}", (centres[k], share[k]), fontsize=6.5, ha="center",
                                    va="bottom", textcoords="offset points", xytext=(0, 1))  # fmt: skip
                if near and name in near:
                    ax.fill_between(x, 0.93, 1.0, where=near[name][where], color=COLOURS[1], lw=0,
                                    transform=ax.get_xaxis_transform())  # fmt: skip
                peak = max(peak, share.max(), behind.max())
                ax.set(xlim=(arm.low, arm.high))
                if row == n - 1:
                    ax.set_xlabel(f"{arm.name}: wavelength [Å]")
            axes[row, 0].set_ylabel(label_set[name].latex, rotation=0, ha="right", va="center", labelpad=4)
            axes[row, 0].text(0.008, 0.93, notes[row], fontsize=8,
                              transform=axes[row, 0].transAxes, va="top")  # fmt: skip
            axes[row, 0].set_ylim(0.0, 1.5 * peak + 1e-9)
        axes[0, 0].set_title(title, loc="left")
        figure.supylabel(quantity, fontsize=9)
    return figure


def _name_lines(ax, lines, x, flux, low: float, high: float) -> None:
    """Names above the spectrum, moved apart where they would overlap, with a thread down to each line."""
    spacing = (high - low) / 62
    place = np.clip(np.asarray(lines.wavelength, float), low + spacing, high - spacing)
    for _ in range(300):  # neighbours push each other away
        gaps = np.diff(place)
        push = 0.5 * np.maximum(spacing - gaps, 0.0)
        if push.max(initial=0.0) < 1e-3 * spacing:
            break
        place[:-1] -= push
        place[1:] += push
        place = np.clip(place, low + 0.5 * spacing, high - 0.5 * spacing)
    for at, centre, species, depth in zip(place, lines.wavelength, lines.species, lines.depth, strict=True):
        bottom = np.interp(centre, x, flux)
        ax.plot([centre, centre, at], [min(bottom + 0.03, 1.0), 1.02, 1.1], color=GREY, lw=0.5)
        ax.text(at, 1.12, f"{species} {centre:.2f}  {depth:.2f}", rotation=90, ha="center", va="bottom",
                fontsize=6.5)  # fmt: skip
