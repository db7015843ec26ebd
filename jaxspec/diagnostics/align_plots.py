"""Pictures of alignments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from jaxspec.diagnostics.plots import BLUE, GREY, INK, RED, style
from jaxspec.labels import LabelSet


def plot_alignment(metrics: Mapping[str, Any], label_set: LabelSet) -> Figure:
    """RMSE of each method over that of no adaptation, label by label, between it (1) and the ceiling; and the
    coverage of its 68 % intervals. The method that the gate chose is drawn in red."""
    methods = {k: v for k, v in metrics["methods"].items() if k not in ("none", "ceiling")}
    none, top = (metrics["methods"][k]["labels"] for k in ("none", "ceiling"))
    names, x = label_set.names, np.arange(len(label_set))
    chosen = metrics["gate"]["method"]
    markers = "osD^vP*X<>hp"
    with style():
        figure, (left, right) = plt.subplots(
            2, 1, figsize=(7.0, 5.0), sharex=True, layout="constrained", height_ratios=(3, 2)
        )
        limit = np.array([top[k]["rmse"] / none[k]["rmse"] for k in names])
        left.fill_between(x, limit, 1.0, color=GREY, alpha=0.25, lw=0, label="gap to training on the target")
        left.axhline(1.0, color=INK, lw=0.8)
        right.axhline(0.68, color=INK, lw=0.8)
        spread = np.linspace(-0.25, 0.25, max(len(methods), 2))
        shades = plt.get_cmap("viridis")(np.linspace(0.05, 0.8, max(len(methods), 1)))
        entries = [("no adaptation", none, BLUE, "_", 0.0)]
        entries += [
            (f"{name} (chosen)" if name == chosen else name, entry["labels"],
             RED if name == chosen else shades[i], markers[i % len(markers)], spread[i])
            for i, (name, entry) in enumerate(methods.items())
        ]  # fmt: skip
        for name, table, colour, marker, offset in entries:
            if name != "no adaptation":
                ratio = [table[k]["rmse"] / none[k]["rmse"] for k in names]
                left.plot(x + offset, ratio, marker, color=colour, ms=5, label=name)
            size = 12 if marker == "_" else 5
            right.plot(
                x + offset, [table[k]["coverage_68"] for k in names], marker, color=colour, ms=size,
                label=name if marker == "_" else None,
            )  # fmt: skip
        left.set(ylabel="RMSE / without adaptation")
        left.legend(fontsize=7, ncols=4)
        top_edge = left.get_ylim()[1]
        left.set_ylim(None, top_edge + 0.25 * (top_edge - left.get_ylim()[0]))
        right.set(ylabel="share in 68 %", xticks=x, ylim=(0.0, 1.0))
        right.set_xticklabels([label.latex for label in label_set])
        right.legend(fontsize=7, loc="lower right")
        left.set_title(f"{metrics['source']} to {metrics['target']}")
    return figure
