"""The whole way in one run (`make run`): train a small flow, evaluate it, infer stars, draw the plots.

    python -m experiments.demo [spectra="FOLDER/*.fits"]

Seven or eight minutes on two cores, four of them training. Ends with a table of held-out simulated stars
beside their true labels (and of the real files given, beside literature values where known). The plots are in
the output folder: `report.html` (how good the posteriors are, on one page), `recovery_as_trained.png`,
`coverage_as_trained.png`, `corner_*.png`, `spectrum_*.png`.
"""

import dataclasses
import logging
from pathlib import Path

import jax
import numpy as np
from omegaconf import DictConfig, OmegaConf

from experiments.common import launch
from jaxspec import inference
from jaxspec.commands import infer, train
from jaxspec.reading import read_for
from jaxspec.runs import named_key
from jaxspec.settings import build
from jaxspec.spectra import Spectra

log = logging.getLogger(__name__)


def run(cfg: DictConfig, folder: Path) -> None:
    """Train, evaluate, infer held-out stars of several S/N, then the files given."""
    values = OmegaConf.to_container(cfg, resolve=True)
    own = {field.name for field in dataclasses.fields(train.Settings)}
    trained = train.run(build(train.Settings, {k: v for k, v in values.items() if k in own}), folder)
    how = {k: values[k] for k in ("seed", "literature", "n_draws", "fit", "plots", "observed_max", "reader")}
    how = build(infer.Settings, {**how, "refine": "none", "spectra": cfg.spectra or ""})
    simulator = trained.task.simulator

    log.info("inferring %d held-out simulated stars", cfg.n_stars)
    key_labels, key_rest = jax.random.split(named_key(cfg.seed, "demonstration"))
    labels = simulator.prior.sample(key_labels, cfg.n_stars)
    snr = np.geomspace(150.0, 15.0, cfg.n_stars).astype(np.float32)
    stars = jax.tree.map(np.asarray, simulator.observe(key_rest, labels, snr))
    names = [f"star_{i + 1}_snr{round(float(s))}" for i, s in enumerate(snr)]
    spectra = Spectra.create(stars.flux, stars.ivar, trained.posterior.instrument.wavelength, names=names)
    model = trained.posterior, how.inference
    key = named_key(cfg.seed, "inference")
    result = inference.infer(spectra, *model, key=key, forward=simulator.forward)
    infer.write(result, simulator.forward, folder, how, truth=stars.labels, prefix="simulated_")

    if cfg.spectra is not None:
        spectra, refused = read_for(how.spectra, simulator.forward, how.reader)
        result = inference.infer(spectra, *model, key=key, forward=simulator.forward)
        infer.write(result, simulator.forward, folder, how, refused)
    log.info("tables and plots are in %s", folder)


if __name__ == "__main__":
    launch(run, "demo")
