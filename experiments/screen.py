"""Is a spectrum that the network should not believe flagged?

    python -m experiments.screen [checkpoint=FOLDER]            ten faults and ordinary stars, as stored
    python -m experiments.screen calibrate=3000 n=200           limits calibrated and stored before that

Simulates stars with each fault of `jaxspec.simulation.faults` and ordinary ones as the network was trained
on, sends them through what `experiments.infer` does, and prints which share is flagged OUT_OF_RANGE or
BAD_FIT. Writes `screen.json` and `screen.png`, one spectrum of each fault with its best model. A second or
two a star with `refine=true`, a quarter of that without; a run that was killed goes on with the next fault
when it is given the same `output`. With `calibrate=N`, the limits of all statistics by
S/N and observed arms come from N simulations first, and are written into the weights' `config.json`.
"""

import dataclasses
import logging
from pathlib import Path
from typing import Any, NamedTuple

import jax
import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float, Int
from omegaconf import DictConfig
from tqdm import tqdm

from experiments.common import begin, launch
from jaxspec.amortised.amortised import AmortisedPosterior
from jaxspec.amortised.storage import load_weights, store_calibrated, weights_file
from jaxspec.commands.tasks import trained_simulator
from jaxspec.diagnostics import plots
from jaxspec.fitting.check import statistics
from jaxspec.inference import InferenceConfig, infer_normalised
from jaxspec.physics.forward import forward_model
from jaxspec.posterior.flags import Flag
from jaxspec.posterior.limits import Limits, observed_arms
from jaxspec.runs import checksum, named_key, resumable, versions, write_json
from jaxspec.simulation.faults import FAULTS, simulate_fault
from jaxspec.simulation.simulator import Simulator, SpectrumModel

log = logging.getLogger(__name__)

BATCH = 64
# Pixels of a spectrum in the picture.
MOST_DRAWN = 4000
ORDINARY = "ordinary stars"


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Calibrate if asked for, simulate, infer, count.

    Raises: InputError when the stored weights do not say what they were trained with, or were trained on a
        survey.
    """
    posterior, where = load_weights(cfg.checkpoint)
    stored, simulator = trained_simulator(posterior, where)
    begin(cfg, folder, [weights_file(where)], trained_with=stored)
    forward = forward_model(cfg.forward, posterior.instrument)
    if cfg.calibrate:
        limits = calibrate(posterior, forward, simulator, cfg)
        facts = {"simulations": cfg.calibrate, "seed": cfg.seed, "versions": versions()}
        store_calibrated(limits, where, facts)
        posterior = dataclasses.replace(posterior, limits=limits)
    settings = {name: cfg[name] for name in ("seed", "snr", "refine", "n", "n_draws", "forward")}
    settings |= {"weights": checksum(where)}
    rows, examples = {}, {}
    faults = {fault or ORDINARY: fault for fault in (None, *FAULTS)}
    models = {"simulator": simulator, "forward_model": forward}
    for item in resumable(faults, settings | models, folder / "screened"):
        name, fault = item.name, faults[item.name]
        n = cfg.n if fault else 5 * cfg.n
        arrays = item.result(lambda f=fault, n=n: screen(posterior, forward, simulator, f, n, cfg)._asdict())
        stars = Screened(**arrays)
        rows[name], examples[name] = shares(stars.flags), stars
        print(
            f"{name:<28}{n:>6}{rows[name]['flagged']:>9.1%}{rows[name]['out_of_range']:>14.1%}"
            f"{rows[name]['bad_fit']:>10.1%}",
            flush=True,
        )
    metrics = {**settings, "shares": rows, "versions": versions()}
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
        how = InferenceConfig(cfg.n_draws, "none")
        inferred = infer_normalised(jax.random.fold_in(key, 1), plain, forward, stars.flux, stars.ivar, how)
        result, fit = inferred.posterior, inferred.fit
        arms = observed_arms(np.asarray(stars.ivar), posterior.instrument)
        # Weights that were trained on few stars have no reference to measure novelty by.
        novelty = {name: x for name, x in result.stats.items() if name == "novelty"}
        pieces.append({"snr": result.snr, "arms": arms, **novelty, **statistics(fit)})
    found = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    snr, arms = found.pop("snr"), found.pop("arms")
    return Limits.fit(found, snr, arms, cfg.false_alarms)


class Screened(NamedTuple):
    """Flags of the stars with one fault, and the first one's flux, ivar and best model."""

    flags: Int[np.ndarray, " n"]
    flux: Float[np.ndarray, " p"]
    ivar: Float[np.ndarray, " p"]
    model: Float[np.ndarray, " p"]


def screen(
    posterior: AmortisedPosterior,
    forward: SpectrumModel,
    simulator: Simulator,
    fault: str | None,
    n: int,
    cfg: DictConfig,
) -> Screened:
    """What is said of `n` stars with a fault."""
    flags, example = [], None
    key = named_key(cfg.seed, f"screen {fault}")
    for i, start in enumerate(tqdm(range(0, n, BATCH), unit="batch", desc=fault or ORDINARY, leave=False)):
        one = jax.random.fold_in(key, i)
        flux, ivar = simulate_fault(fault, one, simulator, BATCH, cfg.snr)
        rows = slice(0, min(BATCH, n - start))
        how = InferenceConfig(cfg.n_draws, cfg.refine)
        result = infer_normalised(jax.random.fold_in(one, 1), posterior, forward, flux[rows], ivar[rows], how)
        flags.append(result.flags)
        if example is None:
            example = np.asarray(flux[0]), np.asarray(ivar[0]), result.fit.model[0]
    return Screened(np.concatenate(flags), *example)


def shares(flags: Int[np.ndarray, " n"]) -> dict[str, float]:
    """Which part has either of the two flags, and each."""
    out, bad = (flags & int(flag) > 0 for flag in (Flag.OUT_OF_RANGE, Flag.BAD_FIT))
    found = {"flagged": out | bad, "out_of_range": out, "bad_fit": bad}
    return {name: float(np.mean(x)) for name, x in found.items()}


def draw(examples: dict[str, Screened], forward: SpectrumModel, path: Path) -> None:
    """One spectrum of each kind with its best model, where the last arm has most in lines."""
    arm = list(forward.instrument.slices.values())[-1]
    wavelength = forward.instrument.wavelength[arm]
    depth = np.cumsum(1.0 - examples[ORDINARY].model[arm])
    width = min(MOST_DRAWN, len(wavelength) - 1)
    first = int(np.argmax(depth[width:] - depth[:-width]))
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
        for ax, (name, stars) in zip(axes.flat, examples.items(), strict=False):
            seen = np.where(stars.ivar > 0, stars.flux, np.nan)[arm]
            ax.plot(wavelength, seen, color=plots.GREY, lw=0.5)
            ax.plot(wavelength, stars.model[arm], color=plots.RED, lw=0.7)
            hit = [f.name for f in (Flag.OUT_OF_RANGE, Flag.BAD_FIT) if stars.flags[0] & int(f)]
            ax.set_title(f"{name}: {', '.join(hit) or 'no flag'}", fontsize=8, loc="left")
            low, high = np.nanquantile(seen, [0.002, 0.998])
            ax.set(
                xlim=(wavelength[first], wavelength[first + width]),
                ylim=(min(low, 0.2), max(high, 1.2)),
            )
    plots.save(figure, path)


if __name__ == "__main__":
    launch(run, "screen")
