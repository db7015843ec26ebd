"""Figures of what the model has learnt."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import astropy.units as u
import matplotlib.pyplot as plt
import numpy as np

from jaxspec.diagnostics import plots
from jaxspec.foundation.extinction import Curve, laws
from jaxspec.foundation.model import FoundationModel
from jaxspec.foundation.table import ATMOSPHERE, Table
from jaxspec.foundation.tasks import Task

TITLES = {"teff": "Teff [K]", "logg": "log g", "fe_h": "[Fe/H]", "alpha_m": "[alpha/M]"}


def draw_tasks(model: FoundationModel, tasks: Mapping[str, Task], test: Table, folder: Path) -> None:
    """`labels.png`: labels from the whole spectrum and from RP alone, against the catalogue."""
    with plots.style():
        shown = [name for name in ("xp", "rp_alone") if name in tasks]
        figure, axes = plt.subplots(
            len(shown), 4, figsize=(11.0, 2.9 * len(shown)), layout="constrained", squeeze=False
        )
        for row, name in zip(axes, shown, strict=True):
            answer = model.predict(tasks[name].shown(test), ATMOSPHERE)
            truth, estimate = test.columns(ATMOSPHERE).values, answer.median
            for i, (ax, label) in enumerate(zip(row, ATMOSPHERE, strict=True)):
                low, high = np.quantile(truth[:, i], (0.002, 0.998))
                ax.hexbin(
                    truth[:, i], estimate[:, i], gridsize=60, bins="log", mincnt=1, lw=0.1, cmap="viridis",
                    extent=(low, high, low, high), rasterized=True,
                )  # fmt: skip
                ax.plot([low, high], [low, high], color=plots.GREY, lw=0.8)
                ax.set(xlim=(low, high), ylim=(low, high), xlabel=f"APOGEE {TITLES[label]}")
            row[0].set_ylabel("from " + {"xp": "the XP spectrum", "rp_alone": "RP alone"}[name])
        plots.save(figure, folder / "labels.png")
        plt.close(figure)


def draw_extinction(curve: Curve, fits: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """The curve with the scatter over the stars, and the published laws at the R_V that fit it best."""
    with plots.style():
        figure, ax = plt.subplots(figsize=(6.0, 3.6), layout="constrained")
        for arm in (curve.wavelength < 640.0, curve.wavelength > 640.0):
            ax.fill_between(curve.wavelength[arm], curve.low[arm], curve.high[arm], alpha=0.3, lw=0)
            ax.plot(curve.wavelength[arm], curve.ratio[arm], lw=1.5)
        x = np.linspace(340.0, 1020.0, 200)
        for (name, law), style in zip(laws().items(), ("-", "--", ":"), strict=True):
            best = law(Rv=fits[name]["r_v"])
            ax.plot(
                x, best(x * u.nm) / best(550.0 * u.nm), color="black", lw=0.8, ls=style,
                label=f"{name}, $R_V$ = {fits[name]['r_v']:.2f}",
            )  # fmt: skip
        ax.set(xlabel="wavelength [nm]", ylabel=r"$A(\lambda)\,/\,A(550\,\mathrm{nm})$", ylim=(0.2, 2.0))
        ax.legend(fontsize=8)
        plots.save(figure, path)
        plt.close(figure)
