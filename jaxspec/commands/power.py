"""What the checks of calibration can see: the share of faulty posteriors that each of them fails.

Posteriors with one planted fault of known size (`jaxspec.diagnostics.power`) go through every diagnostic at
a rate of 1 % of false alarms, which the row without a fault checks. Writes `power.ecsv`, the table `power.md`
and `power.png`. A killed run goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from astropy.table import Table
from tqdm import tqdm

from jaxspec.diagnostics import plots
from jaxspec.diagnostics.power import DIAGNOSTICS, FAULTS, Fault, power
from jaxspec.errors import InputError
from jaxspec.runs import atomically, begin, resumable

OUTPUT = "folder"


@dataclass(frozen=True)
class Settings:
    """How much is tried.

    Attributes:
        seed: of all random numbers.
        sizes: numbers of stars in a set.
        sets: of each fault and size; a share is known to half its inverse root.
        sets_without: of each size without a fault, to see the rate of false alarms.
        n_draws: draws of each star.
        diagnostics: which of ranks, coverage, tarp, tarp near and lc2st.
        most_local: larger sets are not put to lc2st, whose time grows as their square.
    """

    seed: int = 1
    sizes: tuple[int, ...] = (50, 200, 1000, 5000, 20_000)
    sets: int = 20
    sets_without: int = 200
    n_draws: int = 200
    diagnostics: tuple[str, ...] = tuple(DIAGNOSTICS)
    most_local: int = 200

    def __post_init__(self):
        for name in self.diagnostics:
            if name not in DIAGNOSTICS:
                raise InputError(
                    "diagnostics", repr(name), f"of {list(DIAGNOSTICS)}", "write diagnostics=[ranks]"
                )


def run(settings: Settings, folder: Path) -> Table:
    """Try all faults on all diagnostics; returns the table of shares."""
    begin(folder, settings)
    jobs = {f"{n}_{i:02d}": (n, fault) for n in settings.sizes for i, fault in enumerate(FAULTS)}
    tried: dict[str, Any] = {"seed": settings.seed, "n_draws": settings.n_draws, "sets": settings.sets}
    tried |= {"sets_without": settings.sets_without, "diagnostics": settings.diagnostics}
    tried |= {"most_local": settings.most_local}
    rows = []
    for item in tqdm(list(resumable(jobs, tried, folder / "tried")), unit="fault"):
        n, fault = jobs[item.name]
        sets = settings.sets if fault[0] != "none" else settings.sets_without
        names = [name for name in settings.diagnostics if name != "lc2st" or n <= settings.most_local]
        share = item.result(lambda n=n, f=fault, s=sets, d=names: shares(f, n, s, d, settings))
        rows += [(name, *fault, n, sets, float(share[name])) for name in names]
    table = Table(rows=rows, names=("diagnostic", "fault", "size", "stars", "sets", "power"))
    atomically(folder / "power.ecsv", lambda p: table.write(p, format="ascii.ecsv", overwrite=True))
    text = as_markdown(table, settings)
    atomically(folder / "power.md", lambda p: p.write_text(text))
    plots.save(draw(table, settings), folder / "power.png")
    print(text)
    return table


def shares(
    fault: Fault, n: int, sets: int, diagnostics: Sequence[str], settings: Settings
) -> dict[str, np.ndarray]:
    """Share of the sets that each diagnostic fails."""
    failed = power(fault, n, sets, diagnostics, settings.n_draws, settings.seed)
    return {name: np.array(share) for name, share in failed.items()}


def as_markdown(table: Table, settings: Settings) -> str:
    """One row a fault; in each cell the shares of all sizes."""
    sizes = " / ".join(f"{n:,}" for n in settings.sizes)
    lines = [f"Share that fails, of sets of {sizes} stars.", ""]
    lines += [
        "| fault | " + " | ".join(settings.diagnostics) + " |",
        "|---|" + "---|" * len(settings.diagnostics),
    ]
    for fault, size in FAULTS:
        cells = []
        for diagnostic in settings.diagnostics:
            chosen = (table["diagnostic"] == diagnostic) & (table["fault"] == fault) & (table["size"] == size)
            of_size = {int(row["stars"]): row["power"] for row in table[chosen]}
            shown = (f"{of_size[n]:.2f}" if n in of_size else "–" for n in settings.sizes)
            cells.append(" / ".join(shown))
        name = "no fault (false alarms)" if fault == "none" else f"{fault} {size:g}"
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def draw(table: Table, settings: Settings) -> plt.Figure:
    """Power against the factor by which errors are wrong, one panel a number of stars."""
    with plots.style():
        figure, axes = plt.subplots(
            1, len(settings.sizes), figsize=(2.3 * len(settings.sizes), 2.6), sharey=True, squeeze=False,
            layout="constrained",
        )  # fmt: skip
        for ax, n in zip(axes[0], settings.sizes, strict=True):
            for diagnostic in settings.diagnostics:
                chosen = (table["diagnostic"] == diagnostic) & (table["fault"] == "errors times")
                rows = table[chosen & (table["stars"] == n)]
                if len(rows):
                    ax.plot(rows["size"], rows["power"], marker="o", ms=3, lw=1.0, label=diagnostic)
            ax.axhline(0.01, color=plots.GREY, lw=0.8, ls=":")
            ax.set(xscale="log", xlabel="stated / right errors", title=f"{n:,} stars", ylim=(-0.03, 1.03))
        axes[0, 0].set_ylabel("share that fails")
        axes[0, 0].legend(fontsize=7)
    return figure
