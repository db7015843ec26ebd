"""Errors of a survey's spectra that the model does not know, learned from the results of inference.

Reads the spectra and their best models from `posterior.nc` of one or several folders of results (`infer`
keeps them of up to `observed_max` spectra), leaves out those of which a flag says that the model does not fit
or the input is not usable, and writes the folder `residuals`, its picture `residuals.png` and `metrics.json`:
seconds for ten spectra, ten minutes for 400 on two cores. A network is then trained on simulations with
errors of this kind:

    python -m experiments.train experiment=giraffe_robust +data.residuals=FOLDER/residuals
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from jaxspec.diagnostics.plots import plot_residuals, save
from jaxspec.errors import InputError
from jaxspec.instruments import Instrument, get_instrument
from jaxspec.posterior.flags import Flag
from jaxspec.runs import begin, write_json
from jaxspec.simulation.residuals import ResidualModel, fit_residuals, without_outliers

log = logging.getLogger(__name__)

INPUT, OUTPUT = "results", "folder"
UNFIT = Flag.BAD_FIT | Flag.NOT_CHECKED | Flag.NO_DATA


@dataclass(frozen=True)
class Settings:
    """Whose errors.

    Attributes:
        results: folder of results of `jaxspec infer`, or a list of them.
        instrument: a registered instrument, that of the results.
    """

    results: str | tuple[str, ...]
    instrument: str = "giraffe"


def run(settings: Settings, folder: Path) -> ResidualModel:
    """Read, learn, write; returns the errors that were learned.

    Raises: InputError for results without spectra and their models, or of another instrument.
    """
    instrument = get_instrument(settings.instrument)
    results = [settings.results] if isinstance(settings.results, str) else settings.results
    files = [Path(one) / "posterior.nc" if Path(one).is_dir() else Path(one) for one in results]
    pieces = [read(path, instrument) for path in files]
    begin(folder, settings, files)
    residual, ivar, flags = (np.concatenate(column) for column in zip(*pieces, strict=True))
    good = (flags & int(UNFIT)) == 0
    log.info("%d spectra, of which %d fit and are usable", len(good), good.sum())
    residual, ivar = residual[good], ivar[good]
    kept = without_outliers(residual, ivar)
    outliers = float(np.mean(kept[ivar > 0.0] == 0.0)) if (ivar > 0.0).any() else 0.0
    log.info("%.2f %% of the pixels lie far off those of other spectra: left out", 100.0 * outliers)
    ivar = kept
    found, gain = fit_residuals(residual, ivar)
    found.save(folder / "residuals", instrument)
    save(plot_residuals(residual, ivar, found, instrument), folder / "residuals.png")
    metrics: dict[str, Any] = {
        "spectra": len(good),
        "used": int(good.sum()),
        "outliers": outliers,
        "factors": len(found.components),
        "gain": gain,
    }
    metrics["rms"] = rms(found, instrument)
    write_json(folder / "metrics.json", metrics)
    print("factors   gain in ln density of left-out spectra per pixel, over the stated noise alone")
    best = max(gain, key=lambda k: gain[k])
    for k, value in gain.items():
        print(f"{'none' if k < 0 else k:>7}   {value:.4f}{'  taken' if k == best else ''}")
    for name, (shared, own) in metrics["rms"].items():
        print(f"{name}: {100 * shared:.2f} % of the continuum shared by pixels, {100 * own:.2f} % not")
    return found


def read(
    path: Path, instrument: Instrument
) -> tuple[Float[np.ndarray, "n p"], Float[np.ndarray, "n p"], Int[np.ndarray, " n"]]:
    """Residuals, ivar and flags of one file of results."""
    try:
        with xr.open_datatree(path, engine="h5netcdf") as tree:
            groups = {name: group.dataset for name, group in tree.children.items()}
            observed = {name: groups["observed_data"][name].values for name in ("flux", "model", "ivar")}
            flags = groups["constant_data"]["flags"].values
    except (OSError, KeyError, ValueError) as error:
        raise InputError(
            str(path),
            f"no spectra with their models ({type(error).__name__}: {str(error)[:120]})",
            "a posterior.nc that jaxspec infer wrote with them",
            "infer the spectra with observed_max= at least as large as their number",
        ) from error
    if observed["flux"].shape[1] != instrument.n_pixels:
        raise InputError(
            str(path),
            f"{observed['flux'].shape[1]} pixels",
            f"the {instrument.n_pixels} of {instrument.name}",
            "give instrument= that of the results",
        )
    return observed["flux"] - observed["model"], observed["ivar"], flags


def rms(found: ResidualModel, instrument: Instrument) -> dict[str, tuple[float, float]]:
    """Of each arm the root mean square of errors that pixels share, and of those that each has by itself."""
    shared = np.sum(np.square(np.asarray(found.components, float)), axis=0)
    own = np.square(np.asarray(found.scatter, float))
    return {
        arm: (float(np.sqrt(np.mean(shared[where]))), float(np.sqrt(np.mean(own[where]))))
        for arm, where in instrument.slices.items()
    }
