"""Spectra for a table of labels, by exact synthesis or by the emulator, into an HDF5 store.

The table is CSV, ECSV or FITS with a column for each label, and optionally `vmic` (km/s; calibrated
otherwise), `vsini` (km/s; 0 otherwise), `snr` per pixel (noiseless where empty) and `source`. Instrument
`native` is the unbroadened, continuum-normalised flux in both windows; others add rotation, calibrated
macroturbulence, their line-spread function and pixels. With `lines=FILE` any wavelengths will do. Spectra are
at rest. About 0.6 s a star; the same command goes on with an unfinished store. Datasets: `flux`, `ivar`
[n, p] (1e8 where noiseless), `wavelength` [p], `labels/NAME`, `columns/NAME`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from jaxspec.commands.lines import lines_for
from jaxspec.commands.stars import calibrated, calibrated_vmic, read_stars
from jaxspec.errors import InputError
from jaxspec.instruments import get_instrument
from jaxspec.io import SpectraStore
from jaxspec.labels import NINE_LABELS
from jaxspec.physics import turbulence
from jaxspec.physics.emulator_fit import gaussian_resampling
from jaxspec.physics.exact import ExactModel
from jaxspec.physics.forward import SHIPPED, ForwardModel, Nuisances, forward_model
from jaxspec.physics.model import StellarModel
from jaxspec.physics.synthesis import Window
from jaxspec.runs import checksum, named_key, package_data, plain, versions
from jaxspec.stopping import deferred, keep

log = logging.getLogger(__name__)

INPUT, OUTPUT = "labels", "file"
NATIVE = "native"
SYNTHESIS, EMULATOR = "synthesis", "emulator"
NOISELESS = 1e8  # inverse variance where no noise was added


@dataclass(frozen=True)
class Settings:
    """Stars, wavelengths and method of a synthesis.

    Attributes:
        labels: table (CSV, ECSV or FITS) with columns by label name, optional vmic,
            vsini [km/s], snr and source.
        seed: of the noise.
        instrument: a registered instrument, the file of one (.yaml), or native: unbroadened, in windows,
            pixels of `step`.
        step: of native pixels and of the synthesis [A].
        engine: synthesis, or emulator: thousands of stars a second, instruments only.
        lines: a line list of your own (VALD, Kurucz, MOOG, Turbospectrum), for any wavelengths; none: the
            shipped one.
        calibrated: log gf calibrated on stars (true) or as published (false); none: true for instruments
            with the shipped lines, else false.
        forward: the forward model, an emulator (.npz) or the dotted name of a function of an instrument.
        windows: of instrument native, (low, high) [A] each.
        progress: show a bar.
    """

    labels: str
    seed: int = 1
    instrument: str = "giraffe"
    step: float = 0.02
    engine: str = SYNTHESIS
    lines: str | None = None
    calibrated: bool | None = None
    forward: str = SHIPPED
    windows: tuple[tuple[float, float], ...] = ((5330.0, 5610.0), (8480.0, 8980.0))
    progress: bool = True


def run(settings: Settings, output: str | Path) -> Path:
    """Synthesise the stars that the store `output` does not hold yet; returns its path.

    Raises: InputError for stars out of range, settings that do not go together, and a store that was begun
        with others.
    """
    path = settings.labels
    stars = read_stars(path)
    engine = native(settings) if settings.instrument == NATIVE else through_instrument(settings)
    vmic = calibrated_vmic(stars)
    vmac = calibrated(turbulence.vmac_calibration, stars)
    vsini = np.where(np.isfinite(stars.vsini), stars.vsini, 0.0)
    if settings.instrument == NATIVE:
        vmac, vsini = np.zeros(len(stars)), np.zeros(len(stars))
        if np.nansum(stars.vsini) > 0:
            log.warning("%s: column vsini is not used, native spectra are unbroadened", path)
    if np.isfinite(stars.velocity).any():
        log.warning("%s: column of velocities is not used, spectra are at rest", path)

    store = SpectraStore.open_or_create(
        output,
        engine.wavelength,
        capacity=len(stars),
        labels={label.name: label.unit for label in NINE_LABELS},
        columns={"vmic": "km/s", "vmac": "km/s", "vsini": "km/s", "snr": ""},
        provenance={
            "instrument": settings.instrument,
            "engine": settings.engine,
            "approximation": engine.approximation,
            "step": settings.step,
            "calibrated": str(settings.calibrated),
            "seed": settings.seed,
            "labels": checksum(path),
            "forward": checksum(settings.forward) if Path(settings.forward).exists() else settings.forward,
            "data": package_data(),
            **own_inputs(settings),
            "medium": "air",
            "frame": "rest",
            "versions": versions(),
        },
    )
    hidden = not settings.progress
    bar = tqdm(total=len(stars), initial=len(store), unit="star", disable=hidden)
    with deferred() as request, store, bar:
        if len(store):
            log.info("%s: %d of %d stars are there already", output, len(store), len(stars))
        for i in range(len(store), len(stars)):
            nuisances = Nuisances(vmic[i], vmac[i], vsini[i], 0.0, 1.0)
            flux = engine.synthesise(stars.labels[i], nuisances)
            if not np.isfinite(flux).all():
                raise InputError(
                    f"{path} row {i}", "a spectrum that is not finite", "a star in range", "remove the row"
                )
            flux, ivar = add_noise(flux, stars.snr[i], settings.seed, i)
            row = [vmic[i], vmac[i], vsini[i], stars.snr[i]]
            store.append(flux, ivar, stars.labels[i], columns=row, names=[stars.names[i]])
            bar.update()
            keep(f"star {i + 1} of {len(stars)}")
            if i + 1 < len(stars):
                request.stop()
    log.info("%s: %d spectra of %d pixels", output, len(stars), len(engine.wavelength))
    return Path(output)


def own_inputs(settings: Settings) -> dict[str, Any]:
    """Facts that spectra depend on where lines or an instrument of one's own are used."""
    own: dict[str, Any] = {} if settings.lines is None else {"lines": checksum(settings.lines)}
    if settings.instrument != NATIVE and Path(settings.instrument).exists():
        own["arms"] = plain(get_instrument(settings.instrument).arms)
    return own


class Engine(NamedTuple):
    """A way to make spectra.

    Attributes:
        wavelength: of the pixels [A, air].
        synthesise: from labels and nuisances of a star to its flux `[p]`.
        approximation: "LTE" or "NLTE (...)".
    """

    wavelength: np.ndarray
    synthesise: Callable[[np.ndarray, Nuisances], np.ndarray]
    approximation: str


def native(settings: Settings) -> Engine:
    """Exact synthesis, unbroadened."""
    if settings.engine != SYNTHESIS:
        raise InputError(
            "engine", repr(settings.engine), "synthesis for instrument=native", "write engine=synthesis"
        )
    if not 0.002 <= settings.step <= 0.1:
        raise InputError(
            "step", f"{settings.step} A", "0.002 to 0.1 A, to resolve the lines", "write step=0.02"
        )
    windows = tuple(Window(low, high, settings.step) for low, high in settings.windows)
    lines = lines_for(settings.lines, settings.windows)
    model = StellarModel.create(windows, calibrated=bool(settings.calibrated), lines=lines)
    # A closure: the model's tables are constants, as the shapes of what it computes follow from them.
    compiled = jax.jit(lambda labels, vmic: model(labels, vmic))
    return Engine(
        model.wavelength,
        lambda labels, nuisances: np.asarray(compiled(*_star(labels, nuisances.vmic))),
        model.approximation,
    )


def through_instrument(settings: Settings) -> Engine:
    """Spectra on an instrument's pixels.

    Raises: InputError for settings that do not go together, and an emulator that does not reach.
    """
    if settings.lines is not None:
        return with_own_lines(settings)
    forward = forward_model(settings.forward, settings.instrument)
    wavelength = forward.instrument.wavelength
    if settings.engine == EMULATOR:
        if settings.calibrated is False:
            raise InputError(
                "calibrated", "false with engine=emulator", "true or null", "use engine=synthesis"
            )
        compiled = eqx.filter_jit(forward)
        return Engine(
            wavelength,
            lambda labels, nuisances: np.asarray(compiled(*_star(labels, nuisances))),
            forward.approximation,
        )
    if settings.engine != SYNTHESIS:
        raise InputError("engine", repr(settings.engine), "synthesis or emulator", "write engine=synthesis")
    if not isinstance(forward, ForwardModel):
        raise InputError(
            "forward",
            settings.forward,
            "one that has an emulator's grids",
            "leave it out, or write engine=emulator",
        )
    # The emulator's own grids and base broadening, filled by the synthesis instead of the network.
    grids = list(dict.fromkeys(response.grid for response in forward.responses))
    windows = tuple(Window(g.wavelength[0] - 0.5, g.wavelength[-1] + 0.5, settings.step) for g in grids)
    use_calibrated = settings.calibrated is None or settings.calibrated
    model = StellarModel.create(windows, calibrated=use_calibrated)
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


def with_own_lines(settings: Settings) -> Engine:
    """Exact synthesis of any wavelengths, without an emulator, on an instrument's pixels."""
    if settings.engine != SYNTHESIS:
        raise InputError("engine", repr(settings.engine), "synthesis with lines=", "write engine=synthesis")
    instrument = get_instrument(settings.instrument)
    lines = lines_for(settings.lines, [(arm.low, arm.high) for arm in instrument.arms])
    model = ExactModel.for_instrument(
        instrument, step=settings.step, lines=lines, calibrated=bool(settings.calibrated)
    )
    compiled = jax.jit(lambda labels, nuisances: model(labels, nuisances))
    return Engine(
        instrument.wavelength,
        lambda labels, nuisances: np.asarray(compiled(*_star(labels, nuisances))),
        model.approximation,
    )


def add_noise(
    flux: Float[np.ndarray, " p"], snr: float, seed: int, row: int
) -> tuple[Float[np.ndarray, " p"], Float[np.ndarray, " p"]]:
    """Flux with Gaussian noise of 1/snr of the continuum, and its ivar; the noise of a row does not depend on
    the other rows."""
    if not np.isfinite(snr):
        return flux, np.full(flux.shape, NOISELESS)
    key = jax.random.fold_in(named_key(seed, "noise"), row)
    return flux + np.asarray(jax.random.normal(key, flux.shape)) / snr, np.full(flux.shape, snr**2)


def _star(labels, nuisances):
    return jnp.asarray(labels, jnp.float32), jax.tree.map(jnp.float32, nuisances)
