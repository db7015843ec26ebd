"""Which lines shape which pixels of a star: a table, a picture, and the absorption by element and pixel.

    python -m experiments.identify labels=stars.csv output=FOLDER [windows=[[5500,5560]]] [lines=my.vald]

`labels` is a table as for `experiments.synthesize`. For every star the folder gets `NAME_lines.ecsv`
(wavelength, species, lower level, log gf; depth and equivalent width alone with the continuum; the line's
share of the absorption at its centre: the rest is blends), `NAME_lines.png`, and `NAME_pixels.npz`
(`wavelength`, `flux`, `elements`, `share` [element, pixel]). Unbroadened, LTE. Both windows of GIRAFFE take
some 6 s a star after a minute of compilation.
"""

import logging
import re
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.table import QTable
from omegaconf import DictConfig
from tqdm import tqdm

from experiments.common import begin, launch
from experiments.synthesize import calibrated_vmic, read_stars
from jaxspec.diagnostics.line_plots import plot_identification
from jaxspec.diagnostics.plots import save
from jaxspec.errors import InputError
from jaxspec.instruments import get_instrument
from jaxspec.physics.identify import Identification, line_identifier
from jaxspec.physics.linelists import read_line_list
from jaxspec.physics.model import StellarModel
from jaxspec.physics.synthesis import Window
from jaxspec.runs import atomically

log = logging.getLogger(__name__)

COLUMNS = {
    "wavelength": (u.AA, "air wavelength"),
    "species": (None, "element and ionisation stage"),
    "energy": (u.eV, "excitation energy of the lower level"),
    "log_gf": (None, "log10 of the oscillator strength times the statistical weight"),
    "depth": (None, "1 - flux at the line's centre, of the line alone with the continuum"),
    "equivalent_width": (u.mAA, "equivalent width of the line alone with the continuum"),
    "share": (None, "the line's share of the absorption at its centre; the rest is blends"),
}


def run(cfg: DictConfig, folder: Path) -> None:
    """Identify the lines of every star of the table."""
    begin(cfg, folder, [cfg.labels, *([cfg.lines] if cfg.lines else [])])
    stars = read_stars(cfg.labels)
    vmic = calibrated_vmic(stars)
    if cfg.windows is None:
        windows = [(arm.low, arm.high) for arm in get_instrument(cfg.instrument).arms]
    else:
        windows = [tuple(window) for window in cfg.windows]
    if not 0.002 <= cfg.step <= 0.1:
        raise InputError("step", f"{cfg.step} A", "0.002 to 0.1 A, to resolve the lines", "correct it")
    model = StellarModel.create(
        tuple(Window(low, high, cfg.step) for low, high in windows),
        calibrated=cfg.calibrated,
        lines=read_line_list(cfg.lines) if cfg.lines else None,
    )
    ranges = cfg.ranges or [(max(low, (low + high) / 2 - 6), min(high, (low + high) / 2 + 6))
                            for low, high in windows]  # fmt: skip
    identify = line_identifier(model)
    for i in tqdm(range(len(stars)), unit="star", desc="identify"):
        found = identify(stars.labels[i], float(vmic[i]))
        name = re.sub(r"[^\w.+-]+", "_", stars.names[i])
        table = line_table(found, cfg.smallest_width)
        table.meta = {
            "source": stars.names[i],
            "approximation": model.approximation,
            "vmic": float(vmic[i]),
            **dict(zip(model.label_set.names, map(float, stars.labels[i]), strict=True)),
        }
        atomically(
            folder / f"{name}_lines.ecsv",
            lambda p, t=table: t.write(p, format="ascii.ecsv", overwrite=True),
        )
        np.savez_compressed(
            folder / f"{name}_pixels.npz",
            wavelength=found.wavelength, flux=found.flux, elements=np.array(found.elements),
            share=found.share.astype(np.float32),
        )  # fmt: skip
        save(plot_identification(found, ranges, title=stars.names[i]), folder / f"{name}_lines.png")
        log.info("%s: %d lines of %g mA or more", stars.names[i], len(table), cfg.smallest_width)


def line_table(found: Identification, smallest_width: float) -> QTable:
    """The lines of at least some width (mA), with units and descriptions."""
    lines = found.lines[found.lines.equivalent_width >= smallest_width]
    table = QTable()
    for name, (unit, description) in COLUMNS.items():
        values = getattr(lines, name)
        values = values if values.dtype.kind == "U" else np.round(values, 3 if name != "depth" else 4)
        table[name] = values if unit is None else values * unit
        table[name].info.description = description
    return table


if __name__ == "__main__":
    launch(run, "identify")
