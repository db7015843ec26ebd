"""Is a spectrum that the network should not believe flagged?

    python -m experiments.screen [checkpoint=FOLDER]            ten faults and ordinary stars, as stored
    python -m experiments.screen calibrate=3000 n=200           limits calibrated and stored before that

Simulates stars with each fault of `jaxspec.diagnostics.faults` and ordinary ones as the network was trained
on, sends them through what `experiments.infer` does, and prints which share is flagged OUT_OF_RANGE or
BAD_FIT. Writes `screen.json` and `screen.png`, one spectrum of each fault with its best model. A second or
two a star with `refine=true`, a quarter of that without. With `calibrate=N`, the limits of all statistics by
S/N and observed arms come from N simulations first, and are written into the weights' `config.json`.
"""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import jax
import matplotlib.pyplot as plt
import numpy as np
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from experiments.common import begin, forward_model, launch, load_checkpoint, named_key, versions, write_json
from experiments.data import make_simulator
from experiments.infer import infer_normalised
from jaxspec.diagnostics import plots
from jaxspec.diagnostics.faults import FAULTS, simulate_fault
from jaxspec.errors import InputError
from jaxspec.posterior.amortised import AmortisedPosterior
from jaxspec.posterior.check import FitConfig, statistics
from jaxspec.posterior.flags import Flag
from jaxspec.posterior.limits import Limits, observed_arms
from jaxspec.posterior.simulator import Simulator, SpectrumModel
from jaxspec.posterior.storage import WEIGHTS, store_limits

log = logging.getLogger(__name__)

BATCH = 64
ORDINARY = "ordinary stars"


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Calibrate if asked for, simulate, infer, count.

    Raises: InputError when the stored weights do not say what they were trained with, or were trained on a
        survey.
    """
    posterior, where = load_checkpoint(cfg.checkpoint)
    stored = posterior.provenance.get("config")
    if stored is None or posterior.prior is None:
        raise InputError(
            str(where), "no simulations that it was trained on", "weights of experiments.train", "train them"
        )
    begin(cfg, folder, [where / WEIGHTS], trained_with=stored)
    simulator = make_simulator(OmegaConf.create(stored))
    forward = forward_model(cfg.forward, posterior.instrument)
    if cfg.calibrate:
        limits = calibrate(posterior, forward, simulator, cfg)
        facts = {"simulations": cfg.calibrate, "seed": cfg.seed, "versions": versions()}
        store_limits(limits, where, facts)
        posterior = dataclasses.replace(posterior, limits=limits)
    rows, examples = {}, {}
    for fault in (None, *FAULTS):
        name = fault or ORDINARY
        n = cfg.n if fault else 5 * cfg.n
        flagged, examples[name] = screen(posterior, forward, simulator, fault, n, cfg)
        rows[name] = flagged
        print(
            f"{name:<28}{n:>6}{flagged['flagged']:>9.1%}{flagged['out_of_range']:>14.1%}"
            f"{flagged['bad_fit']:>10.1%}",
            flush=True,
        )
    metrics = {
        "weights": str(where),
        "snr": cfg.snr,
        "refine": cfg.refine,
        "n": cfg.n,
        "shares": rows,
        "versions": versions(),
    }
    write_json(folder / "screen.json", metrics)
    draw(examples, forward, folder / "screen.png")
    return metrics


def calibrate(
    posterior: AmortisedPosterior, forward: SpectrumModel, simulator: Simulator, cfg: DictConfig
) -> Limits:
    """Limits from stars as the network was trained on. The fit is judged at the network's medians: a refined
    fit is no worse."""
    plain = dataclasses.replace(posterior, limits=None)
    pieces = []
    for i in tqdm(range(-(-cfg.calibrate // BATCH)), unit="batch", desc="calibrate"):
        key = jax.random.fold_in(named_key(cfg.seed, "limits"), i)
        stars = simulator.simulate(key, BATCH)
        one = (plain, forward, stars.flux, stars.ivar, jax.random.fold_in(key, 1), cfg.n_draws)
        result, fit = infer_normalised(*one, FitConfig(), refine=False)
        arms = observed_arms(np.asarray(stars.ivar), posterior.instrument)
        network = {"novelty": result.stats["novelty"], "snr": result.snr, "arms": arms}
        pieces.append({**network, **statistics(fit)})
    found = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    snr, arms = found.pop("snr"), found.pop("arms")
    return Limits.fit(found, snr, arms, cfg.false_alarms)


def screen(
    posterior: AmortisedPosterior,
    forward: SpectrumModel,
    simulator: Simulator,
    fault: str | None,
    n: int,
    cfg: DictConfig,
) -> tuple[dict[str, float], tuple[np.ndarray, np.ndarray, np.ndarray, str]]:
    """Shares of `n` stars that are flagged, and the first one's flux, ivar, best model and flags."""
    flags, example = [], None
    key = named_key(cfg.seed, f"screen {fault}")
    for i, start in enumerate(range(0, n, BATCH)):
        one = jax.random.fold_in(key, i)
        flux, ivar = simulate_fault(fault, one, simulator, BATCH, cfg.snr)
        rows = slice(0, min(BATCH, n - start))
        batch = (posterior, forward, flux[rows], ivar[rows], jax.random.fold_in(one, 1), cfg.n_draws)
        result, fit = infer_normalised(*batch, FitConfig(), cfg.refine)
        flags.append(result.flags)
        if example is None:
            example = np.asarray(flux[0]), np.asarray(ivar[0]), fit.model[0], int(result.flags[0])
    flags = np.concatenate(flags)
    out, bad = (flags & int(flag) > 0 for flag in (Flag.OUT_OF_RANGE, Flag.BAD_FIT))
    shares = {"flagged": out | bad, "out_of_range": out, "bad_fit": bad}
    return {name: float(np.mean(x)) for name, x in shares.items()}, example


def draw(examples: dict[str, tuple], forward: SpectrumModel, path: Path) -> None:
    """One spectrum of each kind with its best model, the middle of the last arm."""
    arm = list(forward.instrument.slices.values())[-1]
    wavelength = forward.instrument.wavelength[arm]
    with plots.style():
        figure, axes = plt.subplots(
            -(-len(examples) // 2),
            2,
            figsize=(11.0, 1.5 * -(-len(examples) // 2)),
            sharex=True,
            layout="constrained",
        )
        for ax in axes.flat[len(examples) :]:
            ax.axis("off")
        for ax, (name, (flux, ivar, model, flags)) in zip(axes.flat, examples.items(), strict=False):
            seen = np.where(ivar > 0, flux, np.nan)[arm]
            ax.plot(wavelength, seen, color=plots.GREY, lw=0.5)
            ax.plot(wavelength, model[arm], color=plots.RED, lw=0.7)
            hit = [f.name for f in (Flag.OUT_OF_RANGE, Flag.BAD_FIT) if flags & f]
            ax.set_title(f"{name}: {', '.join(hit) or 'no flag'}", fontsize=8, loc="left")
            low, high = np.nanquantile(seen, [0.002, 0.998])
            ax.set(
                xlim=(8490.0, 8680.0) if len(wavelength) > 5000 else None,
                ylim=(min(low, 0.2), max(high, 1.2)),
            )
    plots.save(figure, path)


if __name__ == "__main__":
    launch(run, "screen")
