"""Spectra for a table of labels, by exact synthesis or by the emulator, into an HDF5 store.

    python -m experiments.synthesize labels=stars.csv instrument=giraffe_hr10 output=stars.h5
    python -m experiments.synthesize labels=stars.csv instrument=native output=native.h5 step=0.01

`labels` is CSV, ECSV or FITS with a column for each label, and optionally `vmic` (km/s; calibrated
otherwise), `vsini` (km/s; 0 otherwise), `snr` per pixel (noiseless where empty) and `source`. `native` is the
unbroadened, continuum-normalised flux in both windows; instruments add rotation, calibrated macroturbulence,
their line-spread function and pixels. Spectra are at rest. About 0.6 s a star; the same command goes on with
an unfinished store. Datasets: `flux`, `ivar` [n, p] (1e8 where noiseless), `wavelength` [p], `labels/NAME`,
`columns/NAME`.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from omegaconf import DictConfig
from tqdm import tqdm

from experiments.common import begin, launch
from jaxspec.catalogues import Catalogue, read_label_table
from jaxspec.errors import InputError
from jaxspec.io import SpectraStore
from jaxspec.labels import NINE_LABELS
from jaxspec.physics import turbulence
from jaxspec.physics.atmosphere import AtmosphereGrid
from jaxspec.physics.emulator_fit import gaussian_resampling
from jaxspec.physics.forward import Nuisances, forward_model
from jaxspec.physics.model import StellarModel
from jaxspec.physics.synthesis import Window
from jaxspec.runs import checksum, named_key, package_data, versions

log = logging.getLogger(__name__)

# For what the line list, the atmospheres and the calibrations hold: [X/Fe] is limited, not only [X/H].
X_FE = (-0.6, 0.9)
NOISELESS = 1e8  # inverse variance where no noise was added


def run(cfg: DictConfig, folder: Path) -> Path:
    """Synthesise the stars that the store does not hold yet."""
    begin(cfg, folder, [cfg.labels])
    stars = read_stars(cfg.labels)
    engine = native(cfg) if cfg.instrument == "native" else through_instrument(cfg)
    vmic = calibrated_vmic(stars)
    vmac = _calibrated(turbulence.vmac_calibration, stars)
    vsini = np.where(np.isfinite(stars.vsini), stars.vsini, 0.0)
    if cfg.instrument == "native":
        vmac, vsini = np.zeros(len(stars)), np.zeros(len(stars))
        if np.nansum(stars.vsini) > 0:
            log.warning("%s: column vsini is not used, native spectra are unbroadened", cfg.labels)
    if np.isfinite(stars.velocity).any():
        log.warning("%s: column of velocities is not used, spectra are at rest", cfg.labels)

    store = SpectraStore.open_or_create(
        cfg.output,
        engine.wavelength,
        capacity=len(stars),
        labels={label.name: label.unit for label in NINE_LABELS},
        columns={"vmic": "km/s", "vmac": "km/s", "vsini": "km/s", "snr": ""},
        provenance={
            "instrument": cfg.instrument,
            "engine": cfg.engine,
            "approximation": engine.approximation,
            "step": cfg.step,
            "calibrated": str(cfg.calibrated),
            "seed": cfg.seed,
            "labels": checksum(cfg.labels),
            "forward": checksum(cfg.forward) if Path(cfg.forward).exists() else cfg.forward,
            "data": package_data(),
            "medium": "air",
            "frame": "rest",
            "versions": versions(),
        },
    )
    with store, tqdm(total=len(stars), initial=len(store), unit="star", disable=not cfg.progress) as bar:
        if len(store):
            log.info("%s: %d of %d stars are there already", cfg.output, len(store), len(stars))
        for i in range(len(store), len(stars)):
            nuisances = Nuisances(vmic[i], vmac[i], vsini[i], 0.0, 1.0)
            flux = engine.synthesise(stars.labels[i], nuisances)
            if not np.isfinite(flux).all():
                raise InputError(
                    f"{cfg.labels} row {i}",
                    "a spectrum that is not finite",
                    "a star in range",
                    "remove the row",
                )
            flux, ivar = add_noise(flux, stars.snr[i], cfg.seed, i)
            row = [vmic[i], vmac[i], vsini[i], stars.snr[i]]
            store.append(flux, ivar, stars.labels[i], columns=row, names=[stars.names[i]])
            bar.update()
    log.info("%s: %d spectra of %d pixels", cfg.output, len(stars), len(engine.wavelength))
    return Path(cfg.output)


def read_stars(path: str) -> Catalogue:
    """The table, with every row checked against the range that synthesis is made for."""
    stars = read_label_table(path)
    fe_h = stars.labels[:, NINE_LABELS.index("fe_h")]
    for j, label in enumerate(NINE_LABELS):
        if label.name.endswith("_h") and label.name != "fe_h":
            x_fe = stars.labels[:, j] - fe_h
            bad = ~((x_fe >= X_FE[0]) & (x_fe <= X_FE[1]))
            if bad.any():
                row = int(np.flatnonzero(bad)[0])
                raise InputError(
                    f"{path} column {label.name} row {row}",
                    f"{stars.labels[row, j]:g} at fe_h {fe_h[row]:g} ({int(bad.sum())} such rows)",
                    f"{label.name} - fe_h between {X_FE[0]:g} and {X_FE[1]:g} dex",
                    "remove the row; columns are [X/H], not [X/Fe]",
                )
    atmospheres = AtmosphereGrid.load()
    for name, nodes in (("teff", atmospheres.teff), ("logg", atmospheres.logg), ("fe_h", atmospheres.m_h)):
        values = stars.labels[:, NINE_LABELS.index(name)]
        bad = (values < nodes[0]) | (values > nodes[-1])
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise InputError(
                f"{path} column {name} row {row}",
                f"{values[row]:g} ({int(bad.sum())} such rows)",
                f"{nodes[0]:g} to {nodes[-1]:g}, where there are model atmospheres",
                "remove the row",
            )
    for name, values, high in (("vmic", stars.vmic, 5.0), ("vsini", stars.vsini, 200.0)):
        if (values > high).any():
            row = int(np.flatnonzero(values > high)[0])
            raise InputError(
                f"{path} column {name} row {row}", f"{values[row]:g} km/s", f"at most {high:g}", "correct it"
            )
    if (stars.snr == 0).any():
        row = int(np.flatnonzero(stars.snr == 0)[0])
        raise InputError(
            f"{path} column snr row {row}", "0", "a positive S/N, or no value for no noise", "correct it"
        )
    return stars


def calibrated_vmic(stars: Catalogue) -> np.ndarray:
    """vmic (km/s) of every star: the table's own where it has one, else the calibration's."""
    return np.where(np.isfinite(stars.vmic), stars.vmic, _calibrated(turbulence.vmic_calibration, stars))


class Engine(NamedTuple):
    """What makes spectra: wavelengths (A), the function from labels and nuisances of a star to its flux, and
    whether that is in LTE."""

    wavelength: np.ndarray
    synthesise: Callable[[np.ndarray, Nuisances], np.ndarray]
    approximation: str


def native(cfg: DictConfig) -> Engine:
    """Exact synthesis, unbroadened."""
    if cfg.engine != "synthesis":
        raise InputError("engine", repr(cfg.engine), "synthesis for instrument=native", "drop engine=")
    if not 0.002 <= cfg.step <= 0.1:
        raise InputError("step", f"{cfg.step} A", "0.002 to 0.1 A, to resolve the lines", "correct it")
    windows = tuple(Window(low, high, cfg.step) for low, high in cfg.windows)
    model = StellarModel.create(windows, calibrated=bool(cfg.calibrated))
    # A closure: the model's tables are constants, as the shapes of what it computes follow from them.
    compiled = jax.jit(lambda labels, vmic: model(labels, vmic))
    return Engine(
        model.wavelength,
        lambda labels, nuisances: np.asarray(compiled(*_star(labels, nuisances.vmic))),
        model.approximation,
    )


def through_instrument(cfg: DictConfig) -> Engine:
    """Spectra on an instrument's pixels."""
    forward = forward_model(cfg.forward, cfg.instrument)
    wavelength = forward.instrument.wavelength
    if cfg.engine == "emulator":
        if cfg.calibrated is False:
            raise InputError(
                "calibrated", "false with engine=emulator", "true or null", "use engine=synthesis"
            )
        compiled = eqx.filter_jit(forward)
        return Engine(
            wavelength,
            lambda labels, nuisances: np.asarray(compiled(*_star(labels, nuisances))),
            forward.approximation,
        )
    if cfg.engine != "synthesis":
        raise InputError("engine", repr(cfg.engine), "synthesis or emulator", "correct it")
    # The emulator's own grids and base broadening, filled by the synthesis instead of the network.
    grids = list(dict.fromkeys(response.grid for response in forward.responses))
    windows = tuple(Window(g.wavelength[0] - 0.5, g.wavelength[-1] + 0.5, cfg.step) for g in grids)
    model = StellarModel.create(windows, calibrated=cfg.calibrated is None or cfg.calibrated)
    resample = [
        gaussian_resampling(w.wavelength, g, forward.emulator.base_sigma)
        for w, g in zip(windows, grids, strict=True)
    ]
    ends = np.cumsum([len(w.wavelength) for w in windows])[:-1]
    compiled = jax.jit(lambda labels, vmic: model(labels, vmic))
    respond = eqx.filter_jit(
        lambda parts, nuisances: jnp.concatenate(
            [r(parts[grids.index(r.grid)], nuisances) for r in forward.responses]
        )
    )

    def synthesise(labels: np.ndarray, nuisances: Nuisances) -> np.ndarray:
        flux = np.split(np.asarray(compiled(*_star(labels, nuisances.vmic)), np.float64), ends)
        parts = [jnp.asarray(matrix @ f, jnp.float32) for matrix, f in zip(resample, flux, strict=True)]
        return np.asarray(respond(parts, jax.tree.map(jnp.float32, nuisances)))

    return Engine(wavelength, synthesise, model.approximation)


def add_noise(flux: np.ndarray, snr: float, seed: int, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Flux with Gaussian noise of 1/snr of the continuum, and its ivar; the noise of a row does not depend on
    the other rows."""
    if not np.isfinite(snr):
        return flux, np.full(flux.shape, NOISELESS)
    key = jax.random.fold_in(named_key(seed, "noise"), row)
    return flux + np.asarray(jax.random.normal(key, flux.shape)) / snr, np.full(flux.shape, snr**2)


def _star(labels, nuisances):
    return jnp.asarray(labels, jnp.float32), jax.tree.map(jnp.float32, nuisances)


def _calibrated(calibration, stars: Catalogue) -> np.ndarray:
    return np.asarray(
        calibration(*(jnp.asarray(stars.labels[:, j], jnp.float32) for j in range(3))), np.float64
    )


if __name__ == "__main__":
    launch(run, "synthesize")
