"""Pictures of chemical populations: who belongs where, whether the probabilities hold, what can be told
apart.

Each function takes plain arrays and returns a Matplotlib figure, in the style of `plots`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from jaxspec.diagnostics.plots import BLUE, GREY, INK, RED, style

COLOURS = (BLUE, RED, "#3f8f5f", "#8a5fb0", "#c28e2c", "#4fa3b5", "#7a4b3a", "#5a5a5a")
SHOWN, PANELS = 6000, 6  # most stars and panels in a picture


def plot_members(
    values: Float[np.ndarray, "n l"],
    labels: Sequence[str],
    probability: Float[np.ndarray, "n g"],
    names: Sequence[str] = (),
    seed: int = 1,
) -> Figure:
    """Each label against the first, stars coloured by their most probable group and fainter where that is
    less sure. At most six panels, and a random few thousand of many stars."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(values))[:SHOWN]
    group, sure = probability[rows].argmax(1), probability[rows].max(1)
    names = names or [f"group {g + 1}" for g in range(probability.shape[1])]
    others = list(range(1, len(labels)))[:PANELS] or [0]
    columns = min(3, len(others))
    with style():
        figure, axes = plt.subplots(
            -(-len(others) // columns),
            columns,
            figsize=(3.3 * columns, 2.6 * -(-len(others) // columns)),
            squeeze=False,
            layout="constrained",
        )
        for ax, j in zip(axes.flat, others, strict=False):
            for g, name in enumerate(names):
                mine = group == g
                colour = np.full((np.count_nonzero(mine), 4), to_rgba(COLOURS[g % len(COLOURS)]))
                colour[:, 3] = 0.15 + 0.7 * sure[mine] ** 2
                ax.scatter(values[rows[mine], 0], values[rows[mine], j], s=5, linewidths=0, color=colour)
                text = f"{name} ({probability[:, g].sum():.0f})"
                ax.plot([], [], "o", ms=4, mew=0, color=COLOURS[g % len(COLOURS)], label=text)
            ax.set_xlabel(bracket(next(iter(labels))))
            ax.set_ylabel(bracket(labels[j]))
            shown = values[:, j][np.isfinite(values[:, j])]
            low, high = np.quantile(shown, [0.002, 0.998])
            ax.set_ylim(low - 0.15 * (high - low) - 1e-3, high + 0.15 * (high - low) + 1e-3)
        for ax in axes.flat[len(others) :]:
            ax.set_axis_off()
        axes[0, 0].legend(fontsize=7.5, handletextpad=0.2, loc="lower left")
    return figure


def plot_reliability(
    curves: Mapping[str, tuple[Float[np.ndarray, " n"], np.ndarray]], bins: int = 10
) -> Figure:
    """Of stars given a probability, the share that belongs: one curve for each method, from its probabilities
    and whether the stars belong. Bars are binomial errors; bins with fewer than ten stars are left out."""
    with style():
        figure, ax = plt.subplots(figsize=(4.2, 3.8), layout="constrained")
        ax.plot([0, 1], [0, 1], color=GREY, lw=1.0)
        for i, (name, (probability, belongs)) in enumerate(curves.items()):
            index = np.clip((probability * bins).astype(int), 0, bins - 1)
            used = [b for b in range(bins) if np.count_nonzero(index == b) >= 10]
            x = [probability[index == b].mean() for b in used]
            y = np.array([belongs[index == b].mean() for b in used])
            count = np.array([np.count_nonzero(index == b) for b in used])
            error = np.sqrt(np.maximum(y * (1 - y), 0.25 / count) / count)
            colour = COLOURS[i % len(COLOURS)]
            ax.errorbar(x, y, error, fmt="o-", ms=3.5, lw=1.1, capsize=0, color=colour, label=name)
        ax.set_xlabel("probability of membership")
        ax.set_ylabel("share that belongs")
        ax.legend(fontsize=8, loc="upper left")
    return figure


def plot_map(
    x: Sequence[float],
    curves: Mapping[str, Mapping[str, Sequence[float]]],
    x_label: str,
    log: bool = False,
) -> Figure:
    """Scores against one property of a survey: a panel for each score, a curve for each class."""
    with style():
        figure, axes = plt.subplots(
            1, len(curves), figsize=(3.4 * len(curves), 2.9), squeeze=False, sharey=True, layout="constrained"
        )
        for ax, (score, classes) in zip(axes[0], curves.items(), strict=True):
            for i, (name, y) in enumerate(classes.items()):
                ax.plot(x, y, "o-", ms=3.5, lw=1.2, color=COLOURS[i % len(COLOURS)], label=name)
            if log:
                ax.set_xscale("log")
            ax.set_ylim(-0.02, 1.03)
            ax.set_title(score, color=INK)
            ax.set_xlabel(x_label)
        axes[0, 0].legend(fontsize=8, loc="lower left")
    return figure


def bracket(label: str) -> str:
    """The field's way to write a label: [Mg/Fe] for `mg_fe`."""
    element, _, below = label.partition("_")
    if below in ("h", "fe") and len(element) <= 2:
        return f"[{element.capitalize()}/{below.capitalize()}]"
    return label
