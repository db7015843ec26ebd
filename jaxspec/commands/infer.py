"""Posteriors of the labels of observed spectra.

Writes `labels.fits` (one row a spectrum), `posterior.nc` (draws, ArviZ's schema), `metrics.json` (what was
refused and assumed), spectrum and corner plots. A file that cannot be used is refused by name and the others
go on.
"""

from __future__ import annotations

import csv
import fnmatch
import json
import logging
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxspec.amortised.ensemble import load_ensemble
from jaxspec.diagnostics import plots
from jaxspec.errors import InputError
from jaxspec.fitting.check import FitConfig
from jaxspec.inference import Inference, InferenceConfig, infer
from jaxspec.io import find_files, write_datatree, write_table
from jaxspec.labels import LabelSet
from jaxspec.physics.forward import forward_model
from jaxspec.posterior import flags
from jaxspec.posterior.results import Posterior
from jaxspec.reading import ReaderConfig, read_for
from jaxspec.runs import begin, check_folder, named_key, write_json
from jaxspec.simulation.prior import StellarPrior
from jaxspec.simulation.simulator import SpectrumModel
from jaxspec.spectra import Spectra

log = logging.getLogger(__name__)

INPUT, OUTPUT = "spectra", "folder"
PLOTS = "plots"  # in metrics.json: names of the figures that were drawn
LONGEST = 100  # letters of a star's name in that of a file
SHIPPED = "shipped"
FAR_BELOW = "far below"  # in a note on the resolving power: said again beneath the table


@dataclass(frozen=True)
class Plots:
    """How many figures are drawn.

    Attributes:
        spectra: at most so many spectra with the models of their posteriors.
        corners: at most so many corner plots.
    """

    spectra: int = 50
    corners: int = 6


@dataclass(frozen=True)
class Settings:
    """How files are inferred.

    Attributes:
        spectra: a file, a glob pattern, a folder, a list of them, or a store (.h5).
        seed: of all random numbers.
        checkpoint: folder of a trained posterior or of a training run, or a list of them (several networks as
            one); none: the weights in the package.
        dropout: of a network that was trained with dropout, so many parts of it, mixed (Monte Carlo dropout).
        forward: the forward model: folder of an emulator, or dotted name of a function of an instrument.
        n_draws: draws of each star.
        literature: values printed beside, a CSV file; shipped: benchmark stars; none: nothing.
        prior: density of the stars where more is known of them (fields of StellarPrior); none: that of the
            training.
        refine: robust fits the labels of bright stars to the forward model, starting from the network; exact
            gives the model's own posterior, as if it were right; none keeps the network's draws.
        fit: of the check (fields of FitConfig).
        plots: numbers of figures.
        observed_max: up to so many spectra are written beside their draws into posterior.nc.
        reader: what to take where a file says nothing.
    """

    spectra: str | tuple[str, ...]
    seed: int = 1
    checkpoint: str | tuple[str, ...] | None = None
    dropout: int = 0
    forward: str = "jaxspec.physics.forward.load_forward_model"
    n_draws: int = 2000
    literature: str | None = SHIPPED
    prior: StellarPrior | None = None
    refine: str = "robust"
    fit: FitConfig = field(default_factory=FitConfig)
    plots: Plots = Plots()
    observed_max: int = 200
    reader: ReaderConfig = ReaderConfig()

    @property
    def inference(self) -> InferenceConfig:
        """The part that `infer` reads."""
        return InferenceConfig(self.n_draws, self.refine, self.prior, self.fit)


def run(settings: Settings, folder: Path) -> tuple[Posterior, dict[str, Any]]:
    """Read, infer, check, write; returns the posterior and the metrics."""
    config = settings.inference  # wrong values are refused before anything is read
    check_folder(folder)
    files = find_files(settings.spectra)
    posterior, checkpoints = load_ensemble(settings.checkpoint, settings.dropout, settings.seed)
    begin(folder, settings, [*checkpoints, *files])
    forward = forward_model(settings.forward, posterior.instrument)
    spectra, refused = read_for(files, forward, settings.reader, "reader settings")
    begun = time.perf_counter()
    key = named_key(settings.seed, "inference")
    result = infer(spectra, posterior, config, key=key, forward=forward)
    seconds = time.perf_counter() - begun
    return write(result, forward, folder, settings, refused, seconds)


def write(
    result: Inference,
    forward: SpectrumModel,
    folder: Path,
    settings: Settings,
    refused: Sequence[InputError] = (),
    seconds: float = np.nan,
    truth: np.ndarray | None = None,
    prefix: str = "",
) -> tuple[Posterior, dict[str, Any]]:
    """Files, plots and the printed table of an inference. `truth [n, l]` are the labels of simulated stars;
    values from the literature are looked up by file name."""
    posterior, spectra = result.posterior, result.spectra
    assert spectra is not None
    known, known_name = truth, "truth"
    if truth is None:
        known, known_name = literature(settings.literature, spectra, posterior.label_set), "literature"
    clear_plots(folder, prefix)
    header = {"REFUSED": len(refused), "PHYSICS": forward.approximation}
    write_table(folder / f"{prefix}labels.fits", result.table(), meta=header)
    write_datatree(
        folder / f"{prefix}posterior.nc", result.datatree(with_spectra=len(result) <= settings.observed_max)
    )
    names = file_names(posterior.names)
    metrics = {
        "n_spectra": len(result),
        "refused": [
            {"where": e.where, "found": e.found, "expected": e.expected, "fix": e.fix} for e in refused
        ],
        "seconds": seconds,
        "approximation": forward.approximation,
        "spectra": [
            {
                "source": name,
                "flags": flags.names(int(flag)),
                "usable": flags.usable(int(flag)),
                "snr": snr,
                "chi2": chi2,
                **_facts(meta),
            }
            for name, flag, snr, chi2, meta in zip(
                posterior.names,
                posterior.flags,
                posterior.snr,
                posterior.chi2,
                spectra.meta or [{}] * len(result),
                strict=True,
            )
        ],
        known_name: compare(posterior, known),
        PLOTS: _plots(settings.plots, names, prefix),
    }
    write_json(folder / f"{prefix}metrics.json", metrics)
    draw(settings.plots, folder, result, forward, known, known_name, prefix)
    print_table(posterior, known, known_name)
    for name, meta in zip(posterior.names, spectra.meta or [], strict=False):
        for note in meta.get("notes", ()):
            if FAR_BELOW in note:
                show(f"note: {name}: {note}")
    for error in refused:
        show(f"refused: {error}")
    log.info(
        "%d spectra in %.1f s, labels of %d usable, %d files refused; %s",
        *(len(result), seconds, int(result.usable.sum()), len(refused), folder),
    )
    return posterior, metrics


# --- known values


def literature(path: str | None, spectra: Spectra, label_set: LabelSet) -> np.ndarray | None:
    """Published labels `[n, l]` (NaN where not known) of stars recognised by file or star name, or None."""
    if path is None:
        return None
    where = Path(path)
    if path == SHIPPED:
        where = Path(str(resources.files("jaxspec.commands") / "benchmark_stars.csv"))
    if not where.exists():
        raise InputError(
            str(path),
            "no such file",
            "a CSV table of known labels",
            "write literature=FILE, or null",
        )
    with where.open() as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    known = np.full((spectra.n_stars, len(label_set)), np.nan)
    for i, name in enumerate(spectra.names):
        star = str(spectra.meta[i].get("star", "")) if spectra.meta else ""
        keys = [re.sub(r"[^a-z0-9]+", "_", text.lower()) for text in (Path(name).stem, star)]
        for row in rows:
            if any(fnmatch.fnmatch(key, pattern) for key in keys for pattern in row["pattern"].split()):
                known[i] = [float(row.get(label) or "nan") for label in label_set.names]
                break
    return known if np.isfinite(known).any() else None


def compare(result: Posterior, known: np.ndarray | None) -> dict[str, Any] | None:
    """Median and largest absolute difference from known labels, for each label."""
    if known is None:
        return None
    out = {}
    for j, name in enumerate(result.label_set.names):
        rows = np.isfinite(known[:, j])
        if rows.any():
            offset = (result.median - known)[rows, j]
            out[name] = {
                "n": int(rows.sum()),
                "bias": float(np.median(offset)),
                "median_absolute": float(np.median(np.abs(offset))),
                "largest": float(np.abs(offset).max()),
            }
    return out


def print_table(result: Posterior, known: np.ndarray | None, known_name: str) -> None:
    """One line a spectrum: medians with errors; below it, known values."""
    width = max([len(name) for name in result.names] + [8])
    show(
        "\n"
        + f"{'source':<{width}} "
        + "".join(f"{name:>14}" for name in result.label_set.names)
        + f"{'snr':>6}{'chi2':>7}  flags"
    )
    median, error = result.median, result.error
    for i, name in enumerate(result.names):
        cells = [
            f"{m:.0f} +- {e:.0f}" if label.unit == "K" else f"{m:.2f} +- {e:.2f}"
            for label, m, e in zip(result.label_set, median[i], error[i], strict=True)
        ]
        show(
            f"{name:<{width}} "
            + "".join(f"{c:>14}" for c in cells)
            + f"{result.snr[i]:>6.0f}{result.chi2[i]:>7.2f}  {flags.names(int(result.flags[i]))}"
        )
        if known is not None and np.isfinite(known[i]).any():
            cells = [
                "" if not np.isfinite(v) else f"{v:.0f}      " if label.unit == "K" else f"{v:.2f}        "
                for label, v in zip(result.label_set, known[i], strict=True)
            ]
            show(f"{'  ' + known_name:<{width}} " + "".join(f"{c:>14}" for c in cells))
    show("")


def show(line: str) -> None:
    """Print a line on any terminal: what its encoding lacks is escaped."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(line.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def _facts(meta: dict[str, Any]) -> dict[str, Any]:
    """Facts of how a file was read, for the record."""
    keys = (
        "path",
        "product",
        "star",
        "frame",
        "velocity",
        "velocity_error",
        "velocity_origin",
        "resolution",
        "assumed",
        "notes",
    )
    return {key: meta[key] for key in keys if key in meta}


# --- plots


def file_names(names: Sequence[str]) -> tuple[str, ...]:
    """A part of a file's name for each star, in plain letters, no two alike."""
    taken: set[str] = set()
    parts = []
    for name in names:
        part = base = re.sub(r"[^A-Za-z0-9._+-]+", "_", Path(name).name)[:LONGEST]
        number = 2
        while part.lower() in taken:
            part, number = f"{base}_{number}", number + 1
        taken.add(part.lower())  # some file systems know no capitals
        parts.append(part)
    return tuple(parts)


def _plots(config: Plots, names: Sequence[str], prefix: str) -> list[str]:
    """Names of all figures of a run."""
    spectra = [f"{prefix}spectrum_{name}.png" for name in names[: config.spectra]]
    return spectra + [f"{prefix}corner_{name}.png" for name in names[: config.corners]]


def clear_plots(folder: Path, prefix: str = "") -> None:
    """Delete the figures of an earlier run into the same folder, by that run's own record."""
    record = folder / f"{prefix}metrics.json"
    try:
        earlier = json.loads(record.read_text())
        sources = [str(row["source"]) for row in earlier["spectra"]]
        plots = earlier.get(PLOTS, _plots(Plots(len(sources), len(sources)), file_names(sources), prefix))
    except (OSError, ValueError, KeyError, TypeError):
        return
    for name in plots:
        path = folder / Path(str(name)).name
        if path.suffix == ".png":
            path.unlink(missing_ok=True)


def draw(
    config: Plots,
    folder: Path,
    result: Inference,
    forward: SpectrumModel,
    known: np.ndarray | None,
    known_name: str,
    prefix: str,
) -> None:
    """Spectrum with posterior predictive of every star, corner plots of the first few, up to the configured
    numbers."""
    posterior, parts = result.posterior, file_names(result.posterior.names)
    shown = [plots.plain_text(name) for name in posterior.names]
    for i in range(min(len(result), config.spectra)):
        model, band = predictive(forward, result, i)
        bits = flags.names(int(posterior.flags[i]))
        title = f"{shown[i]}   S/N {posterior.snr[i]:.0f}   chi2 {posterior.chi2[i]:.2f}   {bits}"
        figure = plots.plot_spectrum(result.flux[i], result.ivar[i], forward.instrument, model, band, title)
        plots.save(figure, folder / f"{prefix}spectrum_{parts[i]}.png")
    for i in range(min(len(result), config.corners)):
        truth = None if known is None else known[i]
        title = shown[i] + (SYSTEMATIC if _has_systematic(posterior.stats, i) else "")
        figure = plots.plot_corner(posterior.draws[:, i], posterior.label_set, truth, title, known_name)
        plots.save(figure, folder / f"{prefix}corner_{parts[i]}.png", dpi=110)


SYSTEMATIC = """
widened label by label by what the model misses:
these errors are drawn without correlations"""


def _has_systematic(stats: Mapping[str, np.ndarray], star: int) -> bool:
    """Whether a robust refinement drew this star's labels, with systematic errors in their widths."""
    refined, efficiency = stats.get("refined"), stats.get("efficiency")
    return refined is not None and bool(refined[star] > 0) and efficiency is None


def predictive(forward: SpectrumModel, result: Inference, star: int, n: int = 64):
    """Median model of a star with its fitted continuum, and the central 95 % of the models of its draws."""
    fit, posterior = result.fit, result.posterior
    assert fit is not None
    nuisances = jax.tree.map(lambda x: jnp.asarray(x[star]), fit.nuisances)
    rows = np.linspace(0, len(posterior.draws) - 1, n).astype(int)
    labels = np.concatenate([posterior.median[star : star + 1], posterior.draws[rows, star]])
    labels = labels.astype(np.float32)
    models = np.asarray(_models(forward, labels, nuisances))
    continuum = fit.model[star] / models[0]
    low, high = np.quantile(models[1:], [0.025, 0.975], axis=0)
    return fit.model[star], (low * continuum, high * continuum)


@eqx.filter_jit
def _models(forward, labels, nuisances):
    return jax.lax.map(lambda star: forward(star, nuisances), labels)
