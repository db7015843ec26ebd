"""Pictures of what shapes a spectrum: lines and elements by pixel. Each returns a Matplotlib figure.

Needs the `plots` extra (matplotlib).
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from jaxspec.diagnostics.plots import GREY, INK, style
from jaxspec.errors import InputError
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
