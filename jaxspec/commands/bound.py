"""The smallest possible errors of labels, and where in the spectrum the information is.

For each star of a table the Cramer-Rao bound of its labels from one spectrum: no unbiased estimate has
smaller errors. Writes `bound.ecsv`, and for each star a figure of the information by label along the
spectrum. Engine `synthesis` needs no emulator: it takes any instrument, with `lines=` any wavelengths, and
compiles for the better part of a minute (a few hundred angstroms of its list on two cores).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from astropy.table import Table
from tqdm import tqdm

from jaxspec.commands.lines import lines_for
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
from jaxspec.simulation.simulator import SpectrumModel

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
        instrument: a registered instrument, or the file of one (.yaml).
        snr: per pixel, for stars whose row has none.
        free: the labels to be found, the others known; none: all.
        unknown: beside the labels: usual (as simulated), vmic (that alone), or nothing.
        engine: emulator, or synthesis: exact, any instrument; compiles for a minute; none: synthesis with
            lines of your own, emulator otherwise.
        lines: a line list of your own (VALD, Kurucz, MOOG, Turbospectrum) for the synthesis; none: the
            shipped one.
        step: of the synthesis [A].
        calibrated: log gf of the synthesis, as the emulator's (true) or as published (false); none: true
            for the shipped lines.
        forward: the forward model, an emulator (.npz) or the dotted name of a function of an instrument.
    """

    labels: str
    instrument: str = "giraffe"
    snr: float = 100.0
    free: tuple[str, ...] | None = None
    unknown: str = "usual"
    engine: str | None = None
    lines: str | None = None
    step: float = 0.02
    calibrated: bool | None = None
    forward: str = SHIPPED

    def __post_init__(self):
        for name, known in (("unknown", UNKNOWN), ("engine", (*ENGINES, None))):
            if getattr(self, name) not in known:
                known = tuple(filter(None, known))
                fix = f"write {name}={next(iter(known))}"
                raise InputError(name, repr(getattr(self, name)), f"one of {', '.join(known)}", fix)


def model_of(settings: Settings) -> SpectrumModel:
    """The forward model: an emulator, or the synthesis with the shipped lines or those of a file.

    Raises: InputError for wavelengths that neither reaches, and settings that do not go together.
    """
    engine = settings.engine or ("emulator" if settings.lines is None else "synthesis")
    if engine == "emulator":
        if settings.lines is not None:
            raise InputError("lines", "a line list with engine=emulator", "none", "write engine=synthesis")
        return forward_model(settings.forward, settings.instrument)
    instrument = get_instrument(settings.instrument)
    calibrated = settings.lines is None if settings.calibrated is None else settings.calibrated
    lines = lines_for(settings.lines, [(arm.low, arm.high) for arm in instrument.arms])
    exact = ExactModel.for_instrument(instrument, step=settings.step, lines=lines, calibrated=calibrated)
    return exact  # type: ignore[return-value]  # made for an instrument, it has one


def run(settings: Settings, folder: Path) -> Table:
    """The bound of every star; returns the table that is written.

    Raises: InputError for stars out of range, and instruments that the engine does not reach.
    """
    stars = read_stars(settings.labels)
    forward = model_of(settings)
    begin(folder, settings, [settings.labels])
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
        "engine": "synthesis" if isinstance(forward, ExactModel) else "emulator",
        "lines": settings.lines or "shipped",
        "approximation": forward.approximation,
    }
    atomically(folder / "bound.ecsv", lambda p: table.write(p, format="ascii.ecsv", overwrite=True))
    return table
