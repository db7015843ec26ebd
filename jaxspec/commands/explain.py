"""Where the network looked for each label, and whether the lines of that element are there.

Of observed spectra, or without any of simulated stars. For every star `NAME_saliency.png` and
`NAME_saliency.npz` (`wavelength`, `labels`, and of each label and pixel how one standard deviation of the
pixel's noise moves the posterior's `mean`, in the label's unit; of networks without a fit inside also its
`width`); for all of them together `population.png` (and `population_width.png`) and the table `scores.ecsv`:
which share of the pixels that matter most is on lines of the label's own element, beside the share of all
pixels that is and that of the best linear estimate. Lines are identified in the exact synthesis at the star's
median labels: a minute of compilation, then some ten seconds a star on two cores.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from astropy.table import Table
from jaxtyping import Float
from tqdm import tqdm

from jaxspec.amortised.amortised import AmortisedPosterior
from jaxspec.amortised.network import floored_ivar
from jaxspec.amortised.storage import load_weights
from jaxspec.commands.stars import STELLAR, stem
from jaxspec.diagnostics.cramer_rao import prior_precision
from jaxspec.diagnostics.information import fisher_information
from jaxspec.diagnostics.line_plots import plot_saliency
from jaxspec.diagnostics.plots import save
from jaxspec.diagnostics.saliency import Score, near_lines, saliency, score
from jaxspec.errors import InputError
from jaxspec.io import find_files
from jaxspec.physics.forward import SHIPPED, forward_model
from jaxspec.physics.identify import line_identifier
from jaxspec.physics.model import StellarModel
from jaxspec.physics.synthesis import Window
from jaxspec.physics.turbulence import vmic_calibration
from jaxspec.reading import ReaderConfig, read_for
from jaxspec.runs import atomically, begin, named_key
from jaxspec.simulation.nuisances import NuisanceConfig
from jaxspec.simulation.prior import StellarPrior
from jaxspec.simulation.simulator import Simulator, SpectrumModel

log = logging.getLogger(__name__)

INPUT, OUTPUT = "spectra", "folder"


@dataclass(frozen=True)
class Settings:
    """Which stars, and how the network is asked.

    Attributes:
        spectra: a file, a glob pattern, a folder, a list of them, or a store (.h5); none: simulated stars.
        seed: of all random numbers.
        checkpoint: folder of a trained posterior or of a training run; none: the weights in the package.
        forward: the forward model, an emulator (.npz) or the dotted name of a function of an instrument.
        n_stars: simulated stars, when no spectra are given.
        snr: per pixel, of the simulated stars.
        nuisances: of the simulated stars; `base` is pure or robust.
        method: gradient, smooth or integrated.
        n_draws: of the flow.
        n_steps: spectra that smooth and integrated average over.
        step: of the synthesis that identifies the lines [A].
        smallest_width: weaker lines do not count as lines [mA].
        top: fraction of pixels that are held against the lines.
        reader: what to take where a file says nothing.
    """

    spectra: str | tuple[str, ...] | None = None
    seed: int = 1
    checkpoint: str | None = None
    forward: str = SHIPPED
    n_stars: int = 8
    snr: float = 50.0
    nuisances: NuisanceConfig = NuisanceConfig(only_arm=(0.0, 0.0))
    method: str = "smooth"
    n_draws: int = 128
    n_steps: int = 16
    step: float = 0.02
    smallest_width: float = 5.0
    top: float = 0.01
    reader: ReaderConfig = ReaderConfig()


def run(settings: Settings, folder: Path) -> Table:
    """Maps, pictures and scores of every star; returns the table of scores.

    Raises: InputError when no star could be used, for an unknown method, and as `load_weights`.
    """
    posterior, checkpoint = load_weights(settings.checkpoint)
    files = [] if settings.spectra is None else find_files(settings.spectra)
    begin(folder, settings, [checkpoint, *files])
    forward = forward_model(settings.forward, posterior.instrument)
    names, flux, ivar, refused = stars(settings, posterior, forward)
    label_set, instrument = posterior.label_set, posterior.instrument
    key = named_key(settings.seed, "explain")
    labels = np.median(posterior.sample_normalised(key, flux, ivar, 500).draws, axis=0)
    prior = posterior.prior or StellarPrior()
    precision = prior_precision(np.asarray(prior.sample(jax.random.fold_in(key, 1), 4000)))
    model = StellarModel.create(
        tuple(Window(arm.low, arm.high, settings.step) for arm in instrument.arms), calibrated=True
    )
    identify = line_identifier(model)
    rows, shares, lines = [], [], []
    for i in tqdm(range(len(names)), unit="star", desc="explain"):
        row = slice(i, i + 1)
        maps = saliency(
            posterior,
            flux[row],
            ivar[row],
            jax.random.fold_in(key, 2 + i),
            settings.method,
            settings.n_draws,
            settings.n_steps,
        )
        mean, width = maps.mean[0], None if maps.width is None else maps.width[0]
        trusted = np.asarray(floored_ivar(jnp.asarray(ivar[i]), posterior.network.config.error_floor))
        information = fisher_information(forward, labels[i], np.sqrt(trusted), prior=precision)
        best = np.sqrt(information.marginal)
        stellar = (jnp.float32(labels[i][label_set.index(name)]) for name in STELLAR)
        vmic = float(vmic_calibration(*stellar))
        try:
            near = near_lines(label_set, identify(labels[i], vmic).lines, instrument, settings.smallest_width)
            scores = score(label_set, near, mean, best, ivar[i] > 0.0, settings.top)
        except InputError as error:  # no pixels, or no atmosphere: the others go on
            refused.append(InputError(names[i], error.found, error.expected, error.fix))
            continue
        rows += [(names[i], name, *value) for name, value in scores.items()]
        shares.append([_unit(x) for x in (mean, best, width) if x is not None])
        lines.append(near)
        name = stem(names[i])
        figure = plot_saliency(mean, best, instrument, label_set, near, title=names[i])
        save(figure, folder / f"{name}_saliency.png")
        arrays: dict[str, Any] = {"wavelength": instrument.wavelength, "labels": np.array(label_set.names)}
        arrays |= {"mean": mean.astype(np.float32)}
        if width is not None:
            arrays["width"] = width.astype(np.float32)
        atomically(folder / f"{name}_saliency.npz", partial(np.savez_compressed, **arrays))
    for refusal in refused:
        print(f"refused: {refusal}")
    if not rows:
        raise InputError("explain", "no star that could be used", "one or more", "see what was refused")
    influence, best, *widths = (np.sqrt(np.mean(np.square(x), axis=0)) for x in zip(*shares, strict=True))
    if not widths:
        print("no maps of the width: the network has a fit inside, through which its derivative does not go")
    usual = {name: np.mean([near[name] for near in lines], axis=0) > 0.5 for name in lines[0]}
    fronts = [("population", "mean", influence), *(("population_width", "width", x) for x in widths)]
    for name, quantity, front in fronts:
        title = f"{quantity} of the posterior, {len(shares)} stars"
        save(plot_saliency(front, best, instrument, label_set, usual, title), folder / f"{name}.png")
    table = Table(rows=rows, names=("source", "label", *Score._fields))
    table.meta = {
        "method": settings.method,
        "top": settings.top,
        "smallest_width_mA": settings.smallest_width,
    }
    atomically(folder / "scores.ecsv", lambda p: table.write(p, format="ascii.ecsv", overwrite=True))
    print_scores(table)
    return table


def stars(
    settings: Settings, posterior: AmortisedPosterior, forward: SpectrumModel
) -> tuple[Sequence[str], Float[np.ndarray, "s p"], Float[np.ndarray, "s p"], list[InputError]]:
    """Names, normalised flux and ivar of the stars, and the errors of files that were refused."""
    if settings.spectra is not None:
        spectra, refused = read_for(settings.spectra, forward, settings.reader, "reader settings")
        return spectra.names, *posterior.prepare(spectra), refused
    simulator = Simulator(forward, posterior.prior or StellarPrior(), settings.nuisances)
    key_labels, key_rest = jax.random.split(named_key(settings.seed, "simulated"))
    labels = simulator.prior.sample(key_labels, settings.n_stars)
    snr = jnp.full(settings.n_stars, settings.snr, jnp.float32)
    simulated = simulator.observe(key_rest, labels, snr)
    columns = (np.asarray(labels)[:, posterior.label_set.index(name)] for name in STELLAR)
    names = [
        f"star_{i + 1}_{teff:.0f}_{logg:.1f}_{fe_h:+.1f}"
        for i, (teff, logg, fe_h) in enumerate(zip(*columns, strict=True))
    ]
    return names, np.asarray(simulated.flux), np.asarray(simulated.ivar), []


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
