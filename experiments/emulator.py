"""Train an emulator of the synthesis, for GIRAFFE or for any other windows.

    python -m experiments.emulator [n_stars=6400 n_test=320] [processes=2] [output=DIR]
    python -m experiments.emulator coverage=4most_hrs lines=FILE         also weave_hr, moons_ri

Synthesises stars from the prior in chunks (about 0.4 s a star and core; a killed run goes on where it stopped
when it is started again with the same output=DIR), fits a basis and a network, measures the error on stars
that were never trained on, and writes the folder `emulator`, `metrics.json` and a plot of the error. Other
commands use it by `forward=DIR/emulator`; to ship it, copy `emulator` to `jaxspec/physics/data/`.
"""

import logging
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from omegaconf import DictConfig
from scipy.sparse import block_diag
from tqdm import tqdm

from experiments.common import begin, launch
from jaxspec.errors import InputError
from jaxspec.labels import NINE_LABELS
from jaxspec.physics.broadening import VelocityGrid
from jaxspec.physics.emulator_fit import emulator_errors, fit_emulator, gaussian_resampling, with_summary
from jaxspec.physics.linelists import read_line_list
from jaxspec.physics.model import StellarModel
from jaxspec.physics.synthesis import Window
from jaxspec.physics.turbulence import vmic_calibration
from jaxspec.runs import Item, checksum, named_key, package_data, resumable, versions, write_json
from jaxspec.simulation.nuisances import PURE
from jaxspec.simulation.prior import StellarPrior

log = logging.getLogger(__name__)
CHUNK = 32  # stars in one file


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
    low, high = min(w[0] for w in windows), max(w[1] for w in windows)
    read = read_line_list(lines, low=low - 50.0, high=high + 50.0, molecules="skip", ions="skip")
    return StellarModel.create(tuple(Window(*window) for window in windows), lines=read)


def synthesise_chunks(
    windows: list[list[float]], calibrated: bool, lines: str | None, chunks: dict[int, Item], seed: int,
    spread: float,
) -> None:  # fmt: skip
    """Synthesise whole chunks, each into its file. One worker's share."""
    model = stellar_model(windows, calibrated, lines)
    spectra = jax.jit(lambda labels, vmic: jax.lax.map(lambda star: model(*star), (labels, vmic)))
    for chunk, item in chunks.items():
        labels, vmic = design(seed, chunk, spread)
        flux = np.asarray(spectra(labels, vmic))
        if not np.isfinite(flux).all():
            raise FloatingPointError(
                f"chunk {chunk}: flux of {np.asarray(labels)[~np.isfinite(flux).all(1)]}"
            )
        item.save(labels=labels, vmic=vmic, flux=flux)


def chunks_of(cfg: DictConfig, windows: list[list[float]], folder: Path) -> list[Item]:
    """The pieces of the training set, which depend on all that the synthesis reads.

    Raises: InputError where the folder has spectra that these settings would not make.
    """
    settings = {
        **{name: cfg[name] for name in ("calibrated", "vmic_spread", "seed")},
        "windows": windows,
        "lines": None if cfg.lines is None else checksum(cfg.lines),
        "chunk": CHUNK,
        # The shipped emulator is in it, which is what this command makes anew.
        "data": {name: x for name, x in package_data().items() if not name.startswith("emulator")},
    }
    names = [f"chunk_{chunk:05d}" for chunk in range(-(-cfg.n_stars // CHUNK))]
    return list(resumable(names, settings, folder))


def synthesise(cfg: DictConfig, windows: list[list[float]], chunks: list[Item]) -> None:
    """Have the chunks that are missing made by `processes` workers."""
    missing = {chunk: item for chunk, item in enumerate(chunks) if not item.done}
    with (
        ProcessPoolExecutor(cfg.processes, mp_context=get_context("spawn")) as pool,
        tqdm(total=len(chunks), initial=len(chunks) - len(missing), desc="synthesis", unit="chunk") as bar,
    ):
        shares = [dict(list(missing.items())[k :: cfg.processes]) for k in range(cfg.processes)]
        jobs = [
            pool.submit(synthesise_chunks, windows, cfg.calibrated, cfg.lines, s, cfg.seed, cfg.vmic_spread)
            for s in shares
            if s
        ]
        while not all(job.done() for job in jobs):
            time.sleep(2)
            bar.update(sum(item.done for item in chunks) - bar.n)
        for job in jobs:
            job.result()


def on_grids(chunks: list[Item], windows: list[list[float]], grids: tuple[VelocityGrid, ...], sigma: float):
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


def run(cfg: DictConfig, folder: Path) -> None:
    """Synthesise, fit, measure, write."""
    windows = [[w.low, w.high, w.step] for w in cfg.windows]
    stellar_model(windows, cfg.calibrated, cfg.lines)  # bad input ends here, before workers start
    chunks = chunks_of(cfg, windows, folder / "spectra")
    begin(cfg, folder, [cfg.lines] if cfg.lines else [])
    grids = tuple(VelocityGrid(w.grid_start, cfg.velocity_step, w.grid_points) for w in cfg.windows)
    synthesise(cfg, windows, chunks)
    labels, vmic, flux = on_grids(chunks, windows, grids, cfg.base_sigma)

    train, held_out = slice(None, -cfg.n_test), slice(-cfg.n_test, None)
    emulator = fit_emulator(
        named_key(cfg.seed, "emulator"), labels[train], vmic[train], flux[train], grids=grids,
        base_sigma=cfg.base_sigma, label_set=NINE_LABELS, n_components=cfg.n_components,
        widths=tuple(cfg.widths),
        n_steps=cfg.n_steps, batch_size=cfg.batch_size, learning_rate=cfg.learning_rate,
    )  # fmt: skip
    summary, residual = emulator_errors(emulator, labels[held_out], vmic[held_out], flux[held_out])
    even = np.arange(cfg.n_test) % CHUNK < CHUNK // 2
    size = np.abs(residual)
    for part, rows in (("even", even), ("prior", ~even)):
        summary[f"mean_absolute_error_{part}"] = float(size[rows].mean())
        summary[f"percentile_99_{part}"] = float(np.percentile(size[rows], 99))
    summary |= {"n_train": len(flux) - cfg.n_test, "calibrated": cfg.calibrated, "seed": cfg.seed}
    summary |= {"versions": versions()}
    with_summary(emulator, summary).save(folder / "emulator")
    draw_errors(
        residual, labels[held_out], np.concatenate([g.wavelength for g in grids]), folder / "errors.png"
    )
    write_json(folder / "metrics.json", summary)
    log.info(
        "mean absolute error %.3f %% of the continuum, 99th percentile %.2f %%, on %d unseen stars",
        100 * summary["mean_absolute_error"], 100 * summary["percentile_99"], cfg.n_test,
    )  # fmt: skip


if __name__ == "__main__":
    launch(run, "emulator")
