"""Where the network looked for each label, and whether the lines of that element are there.

    python -m experiments.explain                                  simulated stars
    python -m experiments.explain spectra="night1/*.fits"          observed ones

For every star `NAME_saliency.png` and `NAME_saliency.npz` (`wavelength`, `labels`, and of each label and
pixel how one standard deviation of the pixel's noise moves the posterior's `mean` and `width`, in the
label's unit); for all of them together `population.png`, `population_width.png` and the table `scores.ecsv`:
which share of the pixels that matter most is on lines of the label's own element, beside the share of all
pixels that is and that of the best linear estimate. Lines are identified in the exact synthesis at the
star's median labels: a minute of compilation, then some ten seconds a star on two cores.
"""

import logging
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from astropy.table import Table
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from experiments.common import begin, build, launch
from jaxspec import settings as library
from jaxspec.amortised.amortised import AmortisedPosterior
from jaxspec.amortised.network import floored_ivar
from jaxspec.amortised.storage import load_weights
from jaxspec.diagnostics.cramer_rao import prior_precision
from jaxspec.diagnostics.information import fisher_information
from jaxspec.diagnostics.line_plots import plot_saliency
from jaxspec.diagnostics.plots import save
from jaxspec.diagnostics.saliency import Score, near_lines, saliency, score
from jaxspec.errors import InputError
from jaxspec.io import find_files
from jaxspec.physics.forward import forward_model
from jaxspec.physics.identify import line_identifier
from jaxspec.physics.model import StellarModel
from jaxspec.physics.synthesis import Window
from jaxspec.physics.turbulence import vmic_calibration
from jaxspec.reading import ReaderConfig, read_for
from jaxspec.runs import atomically, named_key
from jaxspec.simulation.nuisances import CONFIGS, NuisanceConfig
from jaxspec.simulation.prior import StellarPrior
from jaxspec.simulation.simulator import Simulator, SpectrumModel

log = logging.getLogger(__name__)


def run(cfg: DictConfig, folder: Path) -> Table:
    """Maps, pictures and scores of every star; returns the table of scores."""
    posterior, checkpoint = load_weights(cfg.checkpoint)
    files = (
        []
        if cfg.spectra is None
        else find_files(list(cfg.spectra) if OmegaConf.is_config(cfg.spectra) else cfg.spectra)
    )
    begin(cfg, folder, [checkpoint, *files])
    forward = forward_model(cfg.forward, posterior.instrument)
    names, flux, ivar, refused = stars(cfg, posterior, forward)
    label_set, instrument = posterior.label_set, posterior.instrument
    key = named_key(cfg.seed, "explain")
    labels = np.median(posterior.sample_normalised(key, flux, ivar, 500).draws, axis=0)
    prior = posterior.prior or StellarPrior()
    precision = prior_precision(np.asarray(prior.sample(jax.random.fold_in(key, 1), 4000)))
    model = StellarModel.create(
        tuple(Window(arm.low, arm.high, cfg.step) for arm in instrument.arms), calibrated=True
    )
    identify = line_identifier(model)
    rows, shares, lines = [], [], []
    for i in tqdm(range(len(names)), unit="star", desc="explain"):
        one = slice(i, i + 1)
        maps = saliency(
            posterior,
            flux[one],
            ivar[one],
            jax.random.fold_in(key, 2 + i),
            cfg.method,
            cfg.n_draws,
            cfg.n_steps,
        )
        mean, width = maps.mean[0], maps.width[0]
        trusted = np.asarray(floored_ivar(jnp.asarray(ivar[i]), posterior.network.config.error_floor))
        information = fisher_information(forward, labels[i], np.sqrt(trusted), prior=precision)
        best = np.sqrt(information.marginal)
        try:
            found = identify(labels[i], float(vmic_calibration(*map(jnp.float32, labels[i][:3]))))
            near = near_lines(label_set, found.lines, instrument, cfg.smallest_width)
            scores = score(label_set, near, mean, best, ivar[i] > 0.0, cfg.top)
        except InputError as error:  # no pixels, or no atmosphere: the others go on
            refused.append(InputError(names[i], error.found, error.expected, error.fix))
            continue
        rows += [(names[i], name, *value) for name, value in scores.items()]
        shares.append([_unit(mean), _unit(best), _unit(width)])
        lines.append(near)
        stem = re.sub(r"[^\w.+-]+", "_", names[i])
        figure = plot_saliency(mean, best, instrument, label_set, near, title=names[i])
        save(figure, folder / f"{stem}_saliency.png")
        arrays = {"wavelength": instrument.wavelength, "labels": np.array(label_set.names)}
        arrays |= {"mean": mean.astype(np.float32), "width": width.astype(np.float32)}
        atomically(folder / f"{stem}_saliency.npz", lambda p, a=arrays: np.savez_compressed(p, **a))
    for error in refused:
        print(f"refused: {error}")
    if not rows:
        raise InputError("explain", "no star that could be used", "one or more", "see what was refused")
    influence, best, width = (np.sqrt(np.mean(np.square(x), axis=0)) for x in zip(*shares, strict=True))
    usual = {name: np.mean([near[name] for near in lines], axis=0) > 0.5 for name in lines[0]}
    for name, front in (("population", influence), ("population_width", width)):
        title = f"{'mean' if name == 'population' else 'width'} of the posterior, {len(shares)} stars"
        save(plot_saliency(front, best, instrument, label_set, usual, title), folder / f"{name}.png")
    table = Table(rows=rows, names=("source", "label", *Score._fields))
    table.meta = {"method": cfg.method, "top": cfg.top, "smallest_width_mA": cfg.smallest_width}
    atomically(folder / "scores.ecsv", lambda p: table.write(p, format="ascii.ecsv", overwrite=True))
    print_scores(table)
    return table


def stars(cfg: DictConfig, posterior: AmortisedPosterior, forward: SpectrumModel):
    """Names, normalised flux and ivar of the stars, and the files that were refused."""
    if cfg.spectra is not None:
        spectra, refused = read_for(
            list(cfg.spectra) if OmegaConf.is_config(cfg.spectra) else cfg.spectra,
            forward,
            library.build(ReaderConfig, OmegaConf.to_container(cfg.reader)),
        )
        return spectra.names, *posterior.prepare(spectra), refused
    nuisances = build(NuisanceConfig, cfg.nuisances, CONFIGS)
    simulator = Simulator(forward, posterior.prior or StellarPrior(), nuisances)
    key_labels, key_rest = jax.random.split(named_key(cfg.seed, "simulated"))
    labels = simulator.prior.sample(key_labels, cfg.n_stars)
    snr = np.full(cfg.n_stars, cfg.snr, np.float32)
    found = jax.tree.map(np.asarray, simulator.observe(key_rest, labels, snr))
    names = [
        f"star_{i + 1}_{teff:.0f}_{logg:.1f}_{fe_h:+.1f}"
        for i, (teff, logg, fe_h) in enumerate(found.labels[:, :3])
    ]
    return names, found.flux, found.ivar, []


def print_scores(table: Table) -> None:
    """Medians over stars, label by label."""
    print(
        f"{'label':8s}{'on its lines':>14s}{'chance':>9s}{'best linear':>13s}{'x chance':>10s}{'x best':>8s}"
    )
    for name in dict.fromkeys(table["label"]):
        rows = table[table["label"] == name]
        share, chance, best = (float(np.median(rows[column])) for column in Score._fields)
        ratios = (share / x if x > 0 else np.nan for x in (chance, best))
        print("{:8s}{:14.2f}{:9.3f}{:13.2f}{:10.1f}{:8.2f}".format(name, share, chance, best, *ratios))


def _unit(influence: np.ndarray) -> np.ndarray:
    """Every label's map with squares that add up to 1, so that all stars count alike."""
    norm = np.sqrt(np.sum(np.square(influence), axis=1, keepdims=True))
    return influence / np.where(norm > 0, norm, 1.0)


if __name__ == "__main__":
    launch(run, "explain")
