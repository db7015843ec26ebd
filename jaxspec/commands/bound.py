"""The smallest possible errors of labels, and where in the spectrum the information is.

For each star of a table the Cramer-Rao bound of its labels from one spectrum: no unbiased estimate has
smaller errors. Writes `bound.ecsv`, and for each star a figure of the information by label along the
spectrum. Engine `synthesis` needs no emulator and takes any registered instrument; it compiles for the
better part of a minute (a few hundred angstroms of its list on two cores).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from astropy.table import Table
from tqdm import tqdm

from jaxspec.commands.stars import calibrated_vmic, read_stars, stem
from jaxspec.diagnostics.cramer_rao import BoundConfig
from jaxspec.diagnostics.information import (
    NOTHING,
    ONLY_VMIC,
    USUAL,
    calibrated_nuisances,
    fisher_information,
)
from jaxspec.diagnostics.line_plots import plot_information
from jaxspec.diagnostics.plots import save
from jaxspec.errors import InputError
from jaxspec.instruments import get_instrument
from jaxspec.physics.exact import ExactModel
from jaxspec.physics.forward import SHIPPED, forward_model
from jaxspec.runs import atomically, begin

log = logging.getLogger(__name__)

INPUT, OUTPUT = "labels", "folder"
UNKNOWN: dict[str, BoundConfig] = {"usual": USUAL, "vmic": ONLY_VMIC, "nothing": NOTHING}
ENGINES = ("emulator", "synthesis")


@dataclass(frozen=True)
class Settings:
    """Whose bound, and what is unknown.

    Attributes:
        labels: table (CSV, ECSV or FITS) with a column for each label, optional vmic,
            vsini [km/s], snr and source.
        instrument: a registered instrument.
        snr: per pixel, for stars whose row has none.
        free: the labels to be found, the others known; none: all.
        unknown: beside the labels: usual (as simulated), vmic (that alone), or nothing.
        engine: emulator, or synthesis: exact, any instrument; compiles for a minute.
        step: of the synthesis [A].
        calibrated: log gf of the synthesis, as the emulator's (true) or as published (false).
        forward: the forward model, an emulator (.npz) or the dotted name of a function of an instrument.
    """

    labels: str
    instrument: str = "giraffe"
    snr: float = 100.0
    free: tuple[str, ...] | None = None
    unknown: str = "usual"
    engine: str = "emulator"
    step: float = 0.02
    calibrated: bool = True
    forward: str = SHIPPED

    def __post_init__(self):
        for name, known in (("unknown", UNKNOWN), ("engine", ENGINES)):
            if getattr(self, name) not in known:
                fix = f"write {name}={next(iter(known))}"
                raise InputError(name, repr(getattr(self, name)), f"one of {', '.join(known)}", fix)


def run(settings: Settings, folder: Path) -> Table:
    """The bound of every star; returns the table that is written.

    Raises: InputError for stars out of range, and instruments that the engine does not reach.
    """
    begin(folder, settings, [settings.labels])
    stars = read_stars(settings.labels)
    if settings.engine == "emulator":
        forward = forward_model(settings.forward, settings.instrument)
    else:
        instrument = get_instrument(settings.instrument)
        exact = ExactModel.for_instrument(instrument, step=settings.step, calibrated=settings.calibrated)
        forward = exact  # type: ignore[assignment]  # made for an instrument, it has one
    vmic, rows = calibrated_vmic(stars), []
    for i in tqdm(range(len(stars)), unit="star", desc="bound"):
        labels = stars.labels[i].astype(np.float32)
        nuisances = calibrated_nuisances(jax.numpy.asarray(labels))._replace(vmic=vmic[i])
        if np.isfinite(stars.vsini[i]):
            nuisances = nuisances._replace(vsini=stars.vsini[i])
        snr = float(stars.snr[i]) if np.isfinite(stars.snr[i]) else float(settings.snr)
        bound = fisher_information(
            forward, labels, snr, settings.free, nuisances=nuisances, config=UNKNOWN[settings.unknown]
        )
        rows.append({"source": stars.names[i], "snr": snr, **bound.sigma})
        log.info("%s: %s", stars.names[i], ", ".join(f"{k} {v:.4g}" for k, v in bound.sigma.items()))
        title = f"{stars.names[i]}, S/N {snr:g} per pixel: bound, and in brackets with all else known"
        figure = plot_information(bound, forward.instrument, forward.label_set, title)
        save(figure, folder / f"{stem(stars.names[i])}_information.png")
    table = Table(rows)
    for name in bound.names:
        table[name].unit = forward.label_set[name].unit
        table[name].description = f"smallest standard error of {name}"
    table.meta = {
        "instrument": settings.instrument,
        "unknown": settings.unknown,
        "engine": settings.engine,
        "approximation": forward.approximation,
    }
    atomically(folder / "bound.ecsv", lambda p: table.write(p, format="ascii.ecsv", overwrite=True))
    return table
