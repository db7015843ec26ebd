"""Is a spectrum that the network should not believe flagged?
Simulates stars with each fault of `jaxspec.simulation.faults` and ordinary ones as the network was trained
on, sends them through what `jaxspec infer` does, and prints which share is flagged OUT_OF_RANGE or
BAD_FIT. Writes `screen.json` and `screen.png`, one spectrum of each fault with its best model. A second or
two a star with `refine=robust`, a quarter of that without; a run that was killed goes on with the next fault
when it is given the same `output`. With `calibrate=N`, the limits of all statistics by
S/N and observed arms come from N simulations first, and are written into the weights' `config.json`.
"""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float, Int
from tqdm import tqdm

from jaxspec.amortised.amortised import AmortisedPosterior
from jaxspec.amortised.storage import load_weights, store_calibrated, weights_file
from jaxspec.commands.tasks import trained_simulator
from jaxspec.diagnostics import plots
from jaxspec.fitting.check import statistics
from jaxspec.inference import ROBUST, InferenceConfig, infer_normalised, refinement
from jaxspec.physics.forward import SHIPPED, forward_model
from jaxspec.posterior.flags import Flag
from jaxspec.posterior.limits import Limits, observed_arms
from jaxspec.runs import begin, checksum, named_key, resumable, versions, write_json
from jaxspec.simulation.faults import FAULTS, simulate_fault
from jaxspec.simulation.simulator import Simulator, SpectrumModel

log = logging.getLogger(__name__)

INPUT, OUTPUT = "checkpoint", "folder"
BATCH = 64
# Pixels of a spectrum in the picture.
MOST_DRAWN = 4000
ORDINARY = "ordinary stars"


@dataclass(frozen=True)
class Settings:
    """Whose flags, and on how many simulated stars.

    Attributes:
        checkpoint: folder of a trained posterior or of a training run; none: the weights in the package.
        seed: of all random numbers.
        calibrate: simulations, as trained, from which limits are calibrated anew and stored with the weights;
            0: as stored.
        false_alarms: of each of the four limits.
        n: stars with each fault, and five times as many without.
        snr: per pixel.
        refine: none, robust or exact, as for inference.
        n_draws: of each star.
        forward: the forward model, an emulator (.npz) or the dotted name of a function of an instrument.
    """

    checkpoint: str | None = None
    seed: int = 1
    calibrate: int = 0
    false_alarms: float = 0.005
    n: int = 200
    snr: float = 50.0
    refine: str = ROBUST
    n_draws: int = 200
    forward: str = SHIPPED

    def __post_init__(self):
        object.__setattr__(self, "refine", refinement(self.refine))


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """Calibrate if asked for, simulate, infer, count.

    Raises: InputError when the stored weights do not say what they were trained with, or were trained on a
        survey.
    """
    posterior, where = load_weights(settings.checkpoint)
    stored, simulator = trained_simulator(posterior, where)
    begin(folder, settings, [weights_file(where)], trained_with=stored)
    forward = forward_model(settings.forward, posterior.instrument)
    if settings.calibrate:
        limits = calibrate(posterior, forward, simulator, settings)
        facts = {"simulations": settings.calibrate, "seed": settings.seed, "versions": versions()}
        store_calibrated(limits, where, facts)
        posterior = dataclasses.replace(posterior, limits=limits)
    stated = {name: getattr(settings, name) for name in ("seed", "snr", "refine", "n", "n_draws", "forward")}
    stated |= {"weights": checksum(where)}
    rows, examples = {}, {}
    faults = {fault or ORDINARY: fault for fault in (None, *FAULTS)}
    models = {"simulator": simulator, "forward_model": forward}

    def screened(fault: str | None, n: int) -> dict[str, np.ndarray]:
        return screen(posterior, forward, simulator, fault, n, settings)._asdict()

    for item in resumable(faults, stated | models, folder / "screened"):
        name, fault = item.name, faults[item.name]
        n = settings.n if fault else 5 * settings.n
        stars = Screened(**item.result(partial(screened, fault, n)))
        rows[name], examples[name] = shares(stars.flags), stars
        print(
            f"{name:<28}{n:>6}{rows[name]['flagged']:>9.1%}{rows[name]['out_of_range']:>14.1%}"
            f"{rows[name]['bad_fit']:>10.1%}",
            flush=True,
        )
    metrics = {**stated, "shares": rows, "versions": versions()}
    write_json(folder / "screen.json", metrics)
    draw(examples, forward, folder / "screen.png")
    return metrics


def calibrate(
    posterior: AmortisedPosterior, forward: SpectrumModel, simulator: Simulator, settings: Settings
) -> Limits:
    """Limits from stars as the network was trained on. The fit is judged at the network's medians: a refined
    fit is no worse."""
    plain = dataclasses.replace(posterior, limits=None)
    pieces = []
    for i in tqdm(range(-(-settings.calibrate // BATCH)), unit="batch", desc="calibrate"):
        key = jax.random.fold_in(named_key(settings.seed, "limits"), i)
        stars = simulator.simulate(key, BATCH)
        how = InferenceConfig(settings.n_draws, "none")
        inferred = infer_normalised(jax.random.fold_in(key, 1), plain, forward, stars.flux, stars.ivar, how)
        result, fit = inferred.posterior, inferred.fit
        assert fit is not None
        arms = observed_arms(np.asarray(stars.ivar), posterior.instrument)
        # Weights that were trained on few stars have no reference to measure novelty by.
        novelty = {name: x for name, x in result.stats.items() if name == "novelty"}
        pieces.append({"snr": result.snr, "arms": arms, **novelty, **statistics(fit)})
    found = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    snr, arms = found.pop("snr"), found.pop("arms")
    return Limits.fit(found, snr, arms, settings.false_alarms)


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
    settings: Settings,
) -> Screened:
    """Flags of `n` stars with a fault."""
    flags, example = [], None
    key = named_key(settings.seed, f"screen {fault}")
    for i, start in enumerate(tqdm(range(0, n, BATCH), unit="batch", desc=fault or ORDINARY, leave=False)):
        one = jax.random.fold_in(key, i)
        flux, ivar = simulate_fault(fault, one, simulator, BATCH, settings.snr)
        rows = slice(0, min(BATCH, n - start))
        how = InferenceConfig(settings.n_draws, settings.refine)
        result = infer_normalised(jax.random.fold_in(one, 1), posterior, forward, flux[rows], ivar[rows], how)
        flags.append(result.flags)
        if example is None:
            assert result.fit is not None
            example = np.asarray(flux[0]), np.asarray(ivar[0]), result.fit.model[0]
    assert example is not None
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
            hit = [str(f.name) for f in (Flag.OUT_OF_RANGE, Flag.BAD_FIT) if stars.flags[0] & int(f)]
            ax.set_title(f"{name}: {', '.join(hit) or 'no flag'}", fontsize=8, loc="left")
            low, high = np.nanquantile(seen, [0.002, 0.998])
            ax.set(
                xlim=(wavelength[first], wavelength[first + width]),
                ylim=(min(low, 0.2), max(high, 1.2)),
            )
    plots.save(figure, path)
