"""The whole way in one run: labels with the weights in the package, then a small network of one's own.

Stars are simulated, so that their true labels can be printed beside; the files given are inferred too. The
folder gets `shipped_labels.fits` first, then what `jaxspec.commands.train` writes, and
`simulated_labels.fits` by the network that was trained, each with its plots.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxspec import inference
from jaxspec.amortised.storage import load_weights
from jaxspec.commands import infer, train
from jaxspec.commands.tasks import trained_simulator
from jaxspec.fitting.check import FitConfig
from jaxspec.posterior.model import PosteriorModel
from jaxspec.reading import ReaderConfig, read_for
from jaxspec.runs import check_folder, named_key
from jaxspec.simulation.simulator import Simulator
from jaxspec.spectra import Spectra

log = logging.getLogger(__name__)

OUTPUT = "folder"
BRIGHTEST, FAINTEST = 150.0, 15.0  # S/N per pixel of the simulated stars


@dataclass(frozen=True)
class Settings:
    """The part of a demonstration that is no training.

    Attributes:
        spectra: real files to infer too; none: simulated stars alone.
        shipped: begin with the weights in the package.
        literature: values printed beside, a CSV file; shipped: benchmark stars; none: nothing.
        n_draws: draws of each star.
        fit: of the check.
        n_stars: simulated stars to infer.
        plots: numbers of figures.
        observed_max: up to so many spectra are written beside their draws.
        reader: what to take where a file says nothing.
    """

    spectra: str | tuple[str, ...] | None = None
    shipped: bool = True
    literature: str | None = infer.SHIPPED
    n_draws: int = 2000
    fit: FitConfig = field(default_factory=FitConfig)
    n_stars: int = 6
    plots: infer.Plots = infer.Plots(spectra=8, corners=1)
    observed_max: int = 200
    reader: ReaderConfig = ReaderConfig()


def run(training: train.Settings, settings: Settings, folder: Path) -> train.Trained:
    """Infer with the weights in the package, train, and infer with the network that was trained."""
    check_folder(folder)
    if settings.shipped:
        posterior, where = load_weights(None)
        _, simulator = trained_simulator(posterior, where)
        log.info("labels of simulated stars by the weights in the package")
        label(posterior, simulator, settings, folder, training.seed, inference.ROBUST, "shipped_")
        log.info("now a small network of your own; its labels will be less exact")
    trained = train.run(training, folder)
    own = trained.task.simulator
    assert own is not None  # a demonstration trains on simulations
    label(trained.posterior, own, settings, folder, training.seed, inference.NONE, "simulated_")
    log.info("tables and plots are in %s", folder)
    return trained


def label(
    posterior: PosteriorModel,
    simulator: Simulator,
    settings: Settings,
    folder: Path,
    seed: int,
    refine: str,
    prefix: str,
) -> None:
    """Infer simulated stars of several S/N, then the files given; print and write both."""
    how = infer.Settings(
        settings.spectra or (),
        seed=seed,
        n_draws=settings.n_draws,
        literature=settings.literature,
        refine=refine,
        fit=settings.fit,
        plots=settings.plots,
        observed_max=settings.observed_max,
        reader=settings.reader,
    )
    stars, names = simulated(simulator, settings.n_stars, seed)
    spectra = Spectra.create(stars.flux, stars.ivar, posterior.instrument.wavelength, names=names)
    model = posterior, how.inference
    key = named_key(seed, "inference")
    result = inference.infer(spectra, *model, key=key, forward=simulator.forward)
    infer.write(result, simulator.forward, folder, how, truth=stars.labels, prefix=prefix)
    if settings.spectra is not None:
        spectra, refused = read_for(settings.spectra, simulator.forward, settings.reader, "reader settings")
        result = inference.infer(spectra, *model, key=key, forward=simulator.forward)
        files = "" if prefix == "simulated_" else prefix.replace("_", "_files_")
        infer.write(result, simulator.forward, folder, how, refused, prefix=files)


def simulated(simulator: Simulator, n: int, seed: int):
    """Stars that no training has seen, the first the brightest, and a name for each."""
    key_labels, key_rest = jax.random.split(named_key(seed, "demonstration"))
    labels = simulator.prior.sample(key_labels, n)
    snr = np.geomspace(BRIGHTEST, FAINTEST, n).astype(np.float32)
    stars = jax.tree.map(np.asarray, simulator.observe(key_rest, labels, jnp.asarray(snr)))
    return stars, [f"star_{i + 1}_snr{round(float(s))}" for i, s in enumerate(snr)]
