"""The smallest possible errors of labels, and where in the spectrum the information is.

    python -m experiments.bound labels=stars.csv instrument=giraffe snr=100 [unknown=vmic] [engine=synthesis]

For each star of the table the Cramer-Rao bound of its labels from one spectrum: no unbiased estimate has
smaller errors. Writes `bound.ecsv`, and for each star a figure of the information by label along the
spectrum. `engine=synthesis` needs no emulator and takes any registered instrument; it compiles for the
better part of a minute (a few hundred angstroms of its list on two cores).
"""

import logging
import re
from pathlib import Path

import jax
import numpy as np
from astropy.table import Table
from omegaconf import DictConfig
from tqdm import tqdm

from experiments.common import begin, launch
from experiments.synthesize import calibrated_vmic, read_stars
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
from jaxspec.physics.forward import forward_model
from jaxspec.runs import atomically

log = logging.getLogger(__name__)
UNKNOWN: dict[str, BoundConfig] = {"usual": USUAL, "vmic": ONLY_VMIC, "nothing": NOTHING}


def run(cfg: DictConfig, folder: Path) -> Table:
    """The bound of every star; returns the table that is written."""
    begin(cfg, folder, [cfg.labels])
    stars = read_stars(cfg.labels)
    if cfg.unknown not in UNKNOWN:
        raise InputError("unknown", repr(cfg.unknown), ", ".join(UNKNOWN), "give one of these")
    if cfg.engine not in ("emulator", "synthesis"):
        raise InputError("engine", repr(cfg.engine), "emulator or synthesis", "correct it")
    if cfg.engine == "emulator":
        forward = forward_model(cfg.forward, cfg.instrument)
    else:
        instrument = get_instrument(cfg.instrument)
        forward = ExactModel.for_instrument(instrument, step=cfg.step, calibrated=cfg.calibrated)
    vmic, rows = calibrated_vmic(stars), []
    for i in tqdm(range(len(stars)), unit="star", desc="bound"):
        labels = stars.labels[i].astype(np.float32)
        nuisances = calibrated_nuisances(jax.numpy.asarray(labels))._replace(vmic=vmic[i])
        if np.isfinite(stars.vsini[i]):
            nuisances = nuisances._replace(vsini=stars.vsini[i])
        snr = float(stars.snr[i]) if np.isfinite(stars.snr[i]) else float(cfg.snr)
        found = fisher_information(
            forward, labels, snr, cfg.free, nuisances=nuisances, config=UNKNOWN[cfg.unknown]
        )
        rows.append({"source": stars.names[i], "snr": snr, **found.sigma})
        log.info("%s: %s", stars.names[i], ", ".join(f"{k} {v:.4g}" for k, v in found.sigma.items()))
        title = f"{stars.names[i]}, S/N {snr:g} per pixel: bound, and in brackets with all else known"
        figure = plot_information(found, forward.instrument, forward.label_set, title)
        name = re.sub(r"[^\w.+-]+", "_", stars.names[i])
        save(figure, folder / f"{name}_information.png")
    table = Table(rows)
    for name in found.names:
        table[name].unit = forward.label_set[name].unit
        table[name].description = f"smallest standard error of {name}"
    table.meta = {"instrument": cfg.instrument, "unknown": cfg.unknown, "engine": cfg.engine,
                  "approximation": forward.approximation}  # fmt: skip
    atomically(folder / "bound.ecsv", lambda p: table.write(p, format="ascii.ecsv", overwrite=True))
    return table


if __name__ == "__main__":
    launch(run, "bound")
