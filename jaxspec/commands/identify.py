"""Which lines shape which pixels of a star: a table, a picture, and the absorption by element and pixel.

For every star of a table the folder gets `NAME_lines.ecsv` (wavelength, species, lower level, log gf; depth
and equivalent width alone with the continuum; the line's share of the absorption at its centre: the rest is
blends), `NAME_lines.png`, and `NAME_pixels.npz` (`wavelength`, `flux`, `elements`, `share` [element, pixel]).
Unbroadened, LTE. Both windows of GIRAFFE take some 6 s a star after a minute of compilation.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units as u
from astropy.table import QTable
from tqdm import tqdm

from jaxspec.commands.stars import calibrated_vmic, read_stars, stem
from jaxspec.diagnostics.line_plots import plot_identification
from jaxspec.diagnostics.plots import save
from jaxspec.errors import InputError
from jaxspec.instruments import get_instrument
from jaxspec.physics.identify import Identification, line_identifier
from jaxspec.physics.linelists import read_line_list
from jaxspec.physics.model import StellarModel
from jaxspec.physics.synthesis import Window
from jaxspec.runs import atomically, begin

log = logging.getLogger(__name__)

INPUT, OUTPUT = "labels", "folder"
COLUMNS = {
    "wavelength": (u.AA, "air wavelength"),
    "species": (None, "element and ionisation stage"),
    "energy": (u.eV, "excitation energy of the lower level"),
    "log_gf": (None, "log10 of the oscillator strength times the statistical weight"),
    "depth": (None, "1 - flux at the line's centre, of the line alone with the continuum"),
    "equivalent_width": (u.mAA, "equivalent width of the line alone with the continuum"),
    "share": (None, "the line's share of the absorption at its centre; the rest is blends"),
}


@dataclass(frozen=True)
class Settings:
    """Whose lines, and where.

    Attributes:
        labels: table (CSV, ECSV or FITS) with a column for each label, optional vmic [km/s] and source.
        instrument: a registered instrument, whose arms are the windows.
        windows: (low, high) [A] each, instead of an instrument's.
        lines: a line list of your own (VALD, Kurucz, MOOG, Turbospectrum); none: the shipped one.
        calibrated: log gf calibrated on the Sun and benchmark stars (true), or as published (false).
        step: of the pixels [A].
        smallest_width: lines that are weaker than this alone with the continuum are left out of the table
            [mA].
        ranges: (low, high) [A] each, to draw; none: 12 A about the middle of each window.
    """

    labels: str
    instrument: str = "giraffe"
    windows: tuple[tuple[float, float], ...] | None = None
    lines: str | None = None
    calibrated: bool = False
    step: float = 0.02
    smallest_width: float = 1.0
    ranges: tuple[tuple[float, float], ...] | None = None

    def __post_init__(self):
        if not 0.002 <= self.step <= 0.1:
            raise InputError(
                "step", f"{self.step} A", "0.002 to 0.1 A, to resolve the lines", "write step=0.02"
            )


def run(settings: Settings, folder: Path) -> dict[str, QTable]:
    """Identify the lines of every star of the table; returns the tables that are written, by star.

    Raises: InputError for stars out of range and line lists that cannot be read.
    """
    begin(folder, settings, [settings.labels, *([settings.lines] if settings.lines else [])])
    stars = read_stars(settings.labels)
    vmic = calibrated_vmic(stars)
    windows = settings.windows
    if windows is None:
        windows = tuple((arm.low, arm.high) for arm in get_instrument(settings.instrument).arms)
    model = StellarModel.create(
        tuple(Window(low, high, settings.step) for low, high in windows),
        calibrated=settings.calibrated,
        lines=read_line_list(settings.lines) if settings.lines else None,
    )
    middle = [(max(low, (low + high) / 2 - 6), min(high, (low + high) / 2 + 6)) for low, high in windows]
    identify, tables = line_identifier(model), {}
    for i in tqdm(range(len(stars)), unit="star", desc="identify"):
        name = stem(stars.names[i])
        identified = identify(stars.labels[i], float(vmic[i]))
        table = line_table(identified, settings.smallest_width)
        table.meta = {
            "source": stars.names[i],
            "approximation": model.approximation,
            "vmic": float(vmic[i]),
            **dict(zip(model.label_set.names, map(float, stars.labels[i]), strict=True)),
        }
        atomically(folder / f"{name}_lines.ecsv", partial(table.write, format="ascii.ecsv", overwrite=True))
        arrays: dict[str, Any] = {
            "wavelength": identified.wavelength,
            "flux": identified.flux,
            "elements": np.array(identified.elements),
            "share": identified.share.astype(np.float32),
        }
        atomically(folder / f"{name}_pixels.npz", partial(np.savez_compressed, **arrays))
        figure = plot_identification(identified, settings.ranges or middle, title=stars.names[i])
        save(figure, folder / f"{name}_lines.png")
        log.info("%s: %d lines of %g mA or more", stars.names[i], len(table), settings.smallest_width)
        tables[stars.names[i]] = table
    return tables


def line_table(identified: Identification, smallest_width: float) -> QTable:
    """The lines of at least some width (mA), with units and descriptions."""
    lines = identified.lines[identified.lines.equivalent_width >= smallest_width]
    table = QTable()
    for name, (unit, description) in COLUMNS.items():
        values = getattr(lines, name)
        values = values if values.dtype.kind == "U" else np.round(values, 3 if name != "depth" else 4)
        table[name] = values if unit is None else values * unit
        table[name].info.description = description
    return table
