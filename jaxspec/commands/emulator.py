"""Train an emulator of the synthesis, for GIRAFFE or for any other windows.
Synthesises stars from the prior in chunks (about 0.4 s a star and core; a killed run goes on where it stopped
when it is started again with the same folder), fits a basis and a network, measures the error on stars
that were never trained on, and writes the folder `emulator`, `metrics.json` and a plot of the error. Other
commands use it by `forward=FOLDER/emulator`; to ship it, copy `emulator` to `jaxspec/physics/data/`.
"""

from __future__ import annotations

import logging
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from scipy.sparse import block_diag
from tqdm import tqdm

from jaxspec.commands.lines import lines_for
from jaxspec.errors import InputError
from jaxspec.labels import NINE_LABELS
from jaxspec.physics.broadening import VelocityGrid
from jaxspec.physics.emulator import Emulator
from jaxspec.physics.emulator_fit import emulator_errors, fit_emulator, gaussian_resampling, with_summary
from jaxspec.physics.model import StellarModel
from jaxspec.physics.synthesis import Window
from jaxspec.physics.turbulence import vmic_calibration
from jaxspec.runs import Item, begin, checksum, named_key, package_data, resumable, versions, write_json
from jaxspec.simulation.nuisances import PURE
from jaxspec.simulation.prior import StellarPrior
from jaxspec.stopping import deferred, keep

log = logging.getLogger(__name__)
OUTPUT = "folder"
CHUNK = 32  # stars in one file


@dataclass(frozen=True)
class Coverage:
    """A stretch of wavelengths that the emulator covers.

    Attributes:
        low, high: ends of the synthesis [A].
        step: of the synthesis [A].
        grid_start: first wavelength of the velocity grid [A].
        grid_points: of the velocity grid.
    """

    low: float
    high: float
    step: float
    grid_start: float
    grid_points: int

    @property
    def synthesis(self) -> list[float]:
        """Ends and step of the synthesis [A]."""
        return [self.low, self.high, self.step]


# GIRAFFE's HR10 and HR21.
GIRAFFE = (Coverage(5327.5, 5612.5, 0.03, 5328.0, 7776), Coverage(8476.0, 8984.0, 0.044, 8476.8, 8704))


@dataclass(frozen=True)
class Settings:
    """Wavelengths, and how the emulator is trained.

    Attributes:
        seed: of all random numbers.
        windows: what is covered; by default GIRAFFE's HR10 and HR21.
        calibrated: log gf as calibrated on the Sun and benchmark stars (true), or as published (false).
        lines: a line list of your own (VALD, Kurucz, MOOG, Turbospectrum) that covers the windows; none: the
            shipped one.
        velocity_step: of the grids [km/s].
        base_sigma: Gaussian broadening of the emulated spectra [km/s]; every instrument must be broader.
        vmic_spread: half width of vmic about the calibration [km/s].
        n_stars: stars that are synthesised.
        n_test: of these, the last ones, which are not trained on; whole chunks of 32.
        processes: that synthesise.
        n_components: of the basis.
        widths: of the network's layers.
        n_steps: of the training.
        batch_size: spectra of one step.
        learning_rate: of Adam.
    """

    seed: int = 2026
    windows: tuple[Coverage, ...] = GIRAFFE
    calibrated: bool = True
    lines: str | None = None
    velocity_step: float = 2.0
    base_sigma: float = 3.0
    vmic_spread: float = 0.6
    n_stars: int = 10_048
    n_test: int = 2048
    processes: int = 2
    n_components: int = 160
    widths: tuple[int, ...] = (512, 512)
    n_steps: int = 30_000
    batch_size: int = 512
    learning_rate: float = 2e-3


def design(seed: int, chunk: int, vmic_spread: float) -> tuple[jax.Array, jax.Array]:
    """Labels and vmic of one chunk: half from the prior itself, half spread evenly over its whole range."""
    even, real, turbulence = jax.random.split(jax.random.fold_in(jax.random.key(seed), chunk), 3)
    flat = StellarPrior(fe_h_uniform=1.0, x_fe_uniform=1.0)
    labels = jnp.concatenate([flat.sample(even, CHUNK // 2), StellarPrior().sample(real, CHUNK // 2)])
    labels = labels.astype(jnp.float32)
    offset = jax.random.uniform(turbulence, (CHUNK,), minval=-vmic_spread, maxval=vmic_spread)
    vmic = vmic_calibration(*NINE_LABELS.stellar(labels))
    return labels, jnp.clip(vmic + offset, *PURE.vmic_range)


def stellar_model(windows: list[list[float]], calibrated: bool, lines: str | None) -> StellarModel:
    """The synthesis of these windows, with the shipped lines or those of a file (molecules are left out)."""
    if lines is None:
        return StellarModel.create(tuple(Window(*window) for window in windows), calibrated=calibrated)
    if calibrated:
        raise InputError(
            "calibrated", "true beside lines=FILE", "false", "corrections are for the shipped lines"
        )
    read = lines_for(lines, [(w[0], w[1]) for w in windows])
    return StellarModel.create(tuple(Window(*window) for window in windows), lines=read)


STOP: Any = None  # in a worker: set when the command is told to stop


def prepare_worker(stop: Any) -> None:
    """Leave signals to the parent process, which says by `stop` when to end after a chunk."""
    global STOP
    STOP = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def synthesise_chunks(
    windows: list[list[float]], calibrated: bool, lines: str | None, chunks: dict[int, Item], seed: int,
    spread: float,
) -> None:  # fmt: skip
    """Synthesise whole chunks, each into its file. One worker's share."""
    model = stellar_model(windows, calibrated, lines)
    spectra = jax.jit(lambda labels, vmic: jax.lax.map(lambda star: model(*star), (labels, vmic)))
    for chunk, item in chunks.items():
        if STOP is not None and STOP.is_set():
            return
        labels, vmic = design(seed, chunk, spread)
        flux = np.asarray(spectra(labels, vmic))
        if not np.isfinite(flux).all():
            raise FloatingPointError(
                f"chunk {chunk}: flux of {np.asarray(labels)[~np.isfinite(flux).all(1)]}"
            )
        item.save(labels=labels, vmic=vmic, flux=flux)


def chunks_of(settings: Settings, folder: Path) -> list[Item]:
    """The pieces of the training set, which depend on all that the synthesis reads.

    Raises: InputError where the folder has spectra that these settings would not make.
    """
    stated = {
        **{name: getattr(settings, name) for name in ("calibrated", "vmic_spread", "seed")},
        "windows": [window.synthesis for window in settings.windows],
        "lines": None if settings.lines is None else checksum(settings.lines),
        "chunk": CHUNK,
        # The shipped emulator is in it, which is what this command makes anew.
        "data": {name: x for name, x in package_data().items() if not name.startswith("emulator")},
    }
    names = [f"chunk_{chunk:05d}" for chunk in range(-(-settings.n_stars // CHUNK))]
    return list(resumable(names, stated, folder))


def synthesise(settings: Settings, windows: list[list[float]], chunks: list[Item]) -> None:
    """Have the chunks that are missing made by `processes` workers."""
    missing = {chunk: item for chunk, item in enumerate(chunks) if not item.done}
    given = (windows, settings.calibrated, settings.lines)
    context = get_context("spawn")
    stop = context.Event()
    with (
        deferred() as request,
        ProcessPoolExecutor(settings.processes, context, prepare_worker, (stop,)) as pool,
        tqdm(total=len(chunks), initial=len(chunks) - len(missing), desc="synthesis", unit="chunk") as bar,
    ):
        shares = [dict(list(missing.items())[k :: settings.processes]) for k in range(settings.processes)]
        jobs = [
            pool.submit(synthesise_chunks, *given, share, settings.seed, settings.vmic_spread)
            for share in shares
            if share
        ]
        while not all(job.done() for job in jobs):
            time.sleep(2)
            bar.update(sum(item.done for item in chunks) - bar.n)
            if request:
                stop.set()  # workers end their chunks first
        for job in jobs:
            job.result()
        keep(f"{sum(item.done for item in chunks)} of {len(chunks)} chunks")
        request.stop()


def on_grids(
    chunks: list[Item], windows: list[list[float]], grids: tuple[VelocityGrid, ...], sigma: float
) -> tuple[Float[np.ndarray, "n l"], Float[np.ndarray, " n"], Float[np.ndarray, "n p"]]:
    """Labels, vmic and flux of all chunks, the flux broadened by `sigma` km/s and sampled on the velocity
    grids."""
    wavelengths = [Window(*window).wavelength for window in windows]
    resample = block_diag(
        [gaussian_resampling(w, g, sigma) for w, g in zip(wavelengths, grids, strict=True)], format="csr"
    )
    labels, vmic, flux = [], [], []
    for item in tqdm(chunks, desc="resampling", unit="chunk"):
        arrays = item.load()
        labels.append(arrays["labels"])
        vmic.append(arrays["vmic"])
        flux.append((resample @ arrays["flux"].T).T.astype(np.float32))
    return np.concatenate(labels), np.concatenate(vmic), np.concatenate(flux)


def draw_errors(residual: np.ndarray, labels: np.ndarray, wavelength: np.ndarray, path: Path) -> None:
    """Mean absolute error along the spectrum, and of each star against its temperature and metallicity."""
    size = 100 * np.abs(residual)
    figure, axes = plt.subplots(2, 2, figsize=(11, 6), layout="constrained")
    for axis, low, high in ((axes[0, 0], 0, 7000), (axes[0, 1], 7000, 1e5)):
        use = (wavelength > low) & (wavelength < high)
        axis.plot(wavelength[use], size[:, use].mean(axis=0), lw=0.6)
        axis.set(xlabel="wavelength (Å)", ylabel="mean absolute error (%)")
    for axis, column, name in ((axes[1, 0], "teff", "$T_{eff}$ (K)"), (axes[1, 1], "fe_h", "[Fe/H] (dex)")):
        axis.plot(NINE_LABELS.column(labels, column), size.mean(axis=1), ".", ms=3)
        axis.set(xlabel=name, ylabel="mean absolute error (%)", yscale="log")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def run(settings: Settings, folder: Path) -> Emulator:
    """Synthesise, fit, measure, write; returns the emulator.

    Raises: InputError for a folder with spectra of other settings, and lines that do not reach.
    """
    windows = [window.synthesis for window in settings.windows]
    stellar_model(windows, settings.calibrated, settings.lines)  # bad input ends here, before workers start
    chunks = chunks_of(settings, folder / "spectra")
    begin(folder, settings, [settings.lines] if settings.lines else [])
    grids = tuple(VelocityGrid(w.grid_start, settings.velocity_step, w.grid_points) for w in settings.windows)
    synthesise(settings, windows, chunks)
    labels, vmic, flux = on_grids(chunks, windows, grids, settings.base_sigma)

    train, held_out = slice(None, -settings.n_test), slice(-settings.n_test, None)
    emulator = fit_emulator(
        named_key(settings.seed, "emulator"), labels[train], vmic[train], flux[train], grids=grids,
        base_sigma=settings.base_sigma, label_set=NINE_LABELS, n_components=settings.n_components,
        widths=settings.widths,
        n_steps=settings.n_steps, batch_size=settings.batch_size, learning_rate=settings.learning_rate,
    )  # fmt: skip
    summary, residual = emulator_errors(emulator, labels[held_out], vmic[held_out], flux[held_out])
    even = np.arange(settings.n_test) % CHUNK < CHUNK // 2
    size = np.abs(residual)
    for part, rows in (("even", even), ("prior", ~even)):
        summary[f"mean_absolute_error_{part}"] = float(size[rows].mean())
        summary[f"percentile_99_{part}"] = float(np.percentile(size[rows], 99))
    summary |= {
        "n_train": len(flux) - settings.n_test,
        "calibrated": settings.calibrated,
        "seed": settings.seed,
    }
    summary |= {"versions": versions()}
    emulator = with_summary(emulator, summary)
    emulator.save(folder / "emulator")
    draw_errors(
        residual, labels[held_out], np.concatenate([g.wavelength for g in grids]), folder / "errors.png"
    )
    write_json(folder / "metrics.json", summary)
    log.info(
        "mean absolute error %.3f %% of the continuum, 99th percentile %.2f %%, on %d unseen stars",
        100 * summary["mean_absolute_error"], 100 * summary["percentile_99"], settings.n_test,
    )  # fmt: skip
    return emulator
