"""Train a conditional flow, evaluate it, save it.

The folder gets `posterior/` (weights), `metrics.json`, `metrics.jsonl` (the training log), `checkpoints/`,
`config.yaml`, `provenance.json` and the plots. A run that was killed goes on from its last checkpoint, to the
same numbers, when it is started again with the same folder and settings.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import yaml
from flax import nnx

from jaxspec.amortised import fits
from jaxspec.amortised.amortised import AmortisedPosterior
from jaxspec.amortised.network import NetworkConfig, PosteriorNetwork
from jaxspec.amortised.storage import copy_weights, load_weights, save_posterior, weights_file
from jaxspec.commands.evaluate import EvaluationConfig, draw_loss, evaluate, negative_log_likelihood
from jaxspec.commands.tasks import SimulatedData, SurveyData, Task, load_task
from jaxspec.datasets import Dataset
from jaxspec.errors import InputError
from jaxspec.fitting.likelihood import LikelihoodConfig
from jaxspec.flows import FlowConfig
from jaxspec.networks import EncoderConfig
from jaxspec.reading import STORES
from jaxspec.runs import begin, checksum, named_key, plain, refuse_other_settings, versions, write_json
from jaxspec.settings import build
from jaxspec.training import ArraySource, OptimiserConfig, TrainConfig, fit

log = logging.getLogger(__name__)

OUTPUT = "folder"
# The settings that a run's data depend on: a folder in which others were trained is not gone on with.
DEFINING = ("data", "model", "fits", "instrument", "forward", "seed")
DEFINING_OF_TRAINER = ("batch", "n_steps", "optimiser")


@dataclass(frozen=True)
class Model:
    """The shape of the network.

    Attributes:
        encoder: fields of EncoderConfig; `base` is one of its presets.
        flow: fields of FlowConfig; `base` is one of its presets.
        error_floor: added to the errors of pixels in quadrature [of the continuum].
        point_weight: of the loss of a second head that gives point estimates; 0: without.
        fit_steps: Gauss-Newton steps before the forward model is linearised inside the network; none: without
            a fit.
    """

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    error_floor: float = 0.0025
    point_weight: float = 0.0
    fit_steps: int | None = None


@dataclass(frozen=True)
class Fits:
    """With `model.fit_steps`, what is learned before the flow is.

    Attributes:
        guess_steps: steps of the guess from which fits start.
        n_stars: fits that the flow learns from.
        batch: stars a step of the guess.
    """

    guess_steps: int = 5000
    n_stars: int = 98304
    batch: int = 64


@dataclass(frozen=True)
class Trainer:
    """How long to train and with what; see `TrainConfig`, whose fields it has beside the batch.

    Attributes:
        batch: stars a step.
        n_steps: whichever ends first, the steps or the time.
        max_seconds: soft budget; none: no limit.
        parallel: jit or pmap.
        n_devices: none: all.
        log_every, evaluate_every, checkpoint_every: steps between rows of the log, validations, checkpoints.
        progress: show a progress bar.
        optimiser: fields of OptimiserConfig.
    """

    batch: int = 128
    n_steps: int = 60_000
    max_seconds: float | None = None
    parallel: str = "jit"
    n_devices: int | None = None
    log_every: int = 100
    evaluate_every: int = 2000
    checkpoint_every: int = 1000
    keep_checkpoints: int = 2
    progress: bool = True
    optimiser: OptimiserConfig = OptimiserConfig(learning_rate=1e-3, warmup_steps=500, ema_decay=0.999)

    @property
    def config(self) -> TrainConfig:
        """The part that the training loop reads."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "batch"}
        return TrainConfig(**values)


@dataclass(frozen=True)
class Settings:
    """How a network is trained.

    Attributes:
        name: of the run, for titles and the record.
        seed: of weights, data and all else.
        instrument: a registered instrument.
        start_from: folder of a trained posterior or of a training run whose weights to begin with.
        forward: the forward model: folder of an emulator, or dotted name of a function of an instrument.
        data: simulations or a survey.
        model: shape of the network.
        trainer: steps, batch, optimiser.
        fits: with `model.fit_steps`.
        evaluation: the sets of stars on which the result is judged.
    """

    name: str = "train"
    seed: int = 1
    instrument: str = "giraffe"
    start_from: str | None = None
    forward: str = "jaxspec.physics.forward.load_forward_model"
    data: SimulatedData | SurveyData = field(default_factory=SimulatedData)
    model: Model = field(default_factory=Model)
    trainer: Trainer = Trainer()
    fits: Fits = Fits()
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)


class Trained(NamedTuple):
    """The outcome of a run: the posterior, the data it was trained on, and the metrics."""

    posterior: AmortisedPosterior
    task: Task
    metrics: dict[str, Any]


def read_settings(stored: Mapping[str, Any]) -> Settings:
    """The settings of a stored run (`provenance["config"]` of its weights)."""
    return build(Settings, {name: value for name, value in stored.items() if name != "output"})


def run(settings: Settings, folder: Path) -> Trained:
    """Train, evaluate, write everything into `folder`.

    Raises: InputError for a folder in which another configuration was trained.
    """
    refuse_other_run(settings, folder)
    stored, origin = starting_point(settings, folder)
    begin(folder, settings, data_inputs(settings), start_from=origin)
    task = load_task(
        settings.data, settings.instrument, settings.forward, settings.trainer.batch, settings.seed
    )
    network = make_network(settings, task)
    if stored is not None:
        start_from(network, stored, task, f"start_from={settings.start_from}")
    trainer = settings.trainer
    limit = "" if trainer.max_seconds is None else f", at most {trainer.max_seconds:.0f} s"
    log.info("training: %d steps of %d stars%s", trainer.n_steps, trainer.batch, limit)
    log.info("%.2f million weights, %d pixels", count_weights(network) / 1e6, task.instrument.n_pixels)
    begun = time.perf_counter()
    if network.linear_fit is not None:
        network, task = learn_to_fit(network, task, settings, folder)
    result = fit(
        network,
        task.loss,
        settings.trainer.config,
        key=named_key(settings.seed, "training"),
        directory=folder,
        evaluate=lambda model: {
            "validation": negative_log_likelihood(AmortisedPosterior(model, task.instrument), task.validation)
        },
        trained=task.trained,
        **task.batches,
    )
    draw_loss(result.history, folder / "loss.png")

    facts = {
        "name": settings.name,
        "config": plain(settings),
        "steps": int(result.state.step),
        "versions": versions(),
        "survey": task.facts,
        "start_from": origin,
    }
    posterior = AmortisedPosterior(result.model, task.instrument, task.prior, provenance=facts)
    if task.examples.n_stars >= 2 * network.config.encoder.n_context:
        posterior = posterior.with_reference(task.examples.flux, task.examples.ivar)
    save_posterior(posterior, folder / "posterior")

    tests = evaluate(
        posterior,
        task,
        settings.evaluation,
        folder,
        seed=settings.seed,
        name=settings.name,
        forward=settings.forward,
    )
    metrics = {
        "name": settings.name,
        "config": facts["config"],
        "steps": int(result.state.step),
        "finished": result.finished,
        "weights": count_weights(network),
        "seconds": time.perf_counter() - begun,
        "validation": [row["validation"] for row in result.history if "validation" in row][-1],
        "history": result.history,
        "survey": task.facts,
        "inferred_per_second": inference_rate(posterior, task.validation, settings.evaluation.n_draws),
        **tests,
    }
    if tests:
        metrics["leaderboard"] = leaderboard_row(settings, posterior, task, metrics, next(iter(tests)))
    write_json(folder / "metrics.json", metrics)
    log.info("done: %s", folder)
    return Trained(posterior, task, metrics)


def make_network(settings: Settings, task: Task) -> PosteriorNetwork:
    """The untrained network, with the standardisation of the examples."""
    network = PosteriorNetwork(
        network_config(settings),
        task.label_set,
        task.instrument.wavelength,
        rngs=nnx.Rngs(settings.seed),
        forward=None if task.simulator is None else task.simulator.forward,
    )
    network.set_statistics(
        *(jnp.asarray(x) for x in (task.examples.labels, task.examples.flux, task.examples.ivar))
    )
    return network


def learn_to_fit(
    network: PosteriorNetwork, task: Task, settings: Settings, folder: Path
) -> tuple[PosteriorNetwork, Task]:
    """The network with its guess trained, and the task that is left: to train its flow on fits of simulated
    stars. Both survive a kill: `guess/` and `fits/` in the run's folder."""
    config, seed, plan, simulator = settings.trainer.config, settings.seed, settings.fits, task.simulator
    assert simulator is not None  # a linear fit needs its forward model
    log.info("learning where to start fits from: %d steps", plan.guess_steps)
    guessed = fit(
        network,
        fits.guess_loss,
        dataclasses.replace(config, n_steps=plan.guess_steps, evaluate_every=0),
        key=named_key(seed, "guess"),
        directory=folder / "guess",
        trained=fits.GUESS,
        batch_fn=lambda key, step: simulator.simulate(key, plan.batch),
    )
    log.info("fitting %d simulated stars", plan.n_stars)
    known = fits.make_fits(
        guessed.model,
        simulator,
        named_key(seed, "fits"),
        plan.n_stars,
        folder / "fits",
        progress=config.progress,
    )
    source = ArraySource(known, settings.trainer.batch, seed=seed)
    return guessed.model, dataclasses.replace(
        task, loss=partial(fits.flow_loss, prior=task.prior), batches={"source": source}, trained=fits.FLOW
    )


def network_config(settings: Settings) -> NetworkConfig:
    """The shape of the network that a configuration names; a linear fit knows what the simulations vary.

    Raises: InputError for a linear fit of a network that no simulations train.
    """
    model, fit = settings.model, None
    if model.fit_steps is not None:
        if not isinstance(settings.data, SimulatedData):
            raise InputError(
                "model.fit_steps",
                f"{model.fit_steps} with data.kind={settings.data.kind}",
                "data=simulated, since only simulations teach where to start a fit",
                "leave it out",
            )
        fit = LikelihoodConfig(settings.data.nuisances, steps=model.fit_steps)
    return NetworkConfig(model.encoder, model.flow, model.error_floor, model.point_weight, fit)


def describe(settings: Settings) -> str:
    """Encoder, flow and seed in words."""
    config = network_config(settings)
    fitting = "" if config.linear_fit is None else "fitting "
    return f"{fitting}{config.encoder.kind} encoder, {config.flow.coupling} flow, seed {settings.seed}"


def starting_point(
    settings: Settings, folder: Path
) -> tuple[AmortisedPosterior | None, dict[str, str] | None]:
    """The stored posterior whose weights training starts from, or None, and what is recorded of it.

    A run that goes on from its own checkpoint needs no other weights; what it once started from stays on
    record.

    Raises: InputError when the folder has a guess that was begun with other weights, and as `load_weights`.
    """
    if any(path.name.isdigit() for path in (folder / "checkpoints").glob("*")):
        return None, earlier(folder).get("start_from")
    stored, origin = None, None
    if settings.start_from is not None:
        stored, where = load_weights(settings.start_from)
        origin = {"path": str(settings.start_from), "sha256": checksum(weights_file(where))}
    if (folder / "guess").exists():
        refuse_other_settings(f"{folder}, start_from", earlier(folder).get("start_from"), origin)
    return stored, origin


def start_from(network: PosteriorNetwork, stored: AmortisedPosterior, task: Task, where: str) -> None:
    """Give an untrained network the weights and standardisations of a stored posterior.

    Raises: InputError when it is for other labels or wavelengths, or its arrays have other shapes.
    """
    was, now = ([(x.name, x.low, x.high) for x in labels] for labels in (stored.label_set, task.label_set))
    if was != now:
        raise InputError(f"{where}, labels", f"{was}", f"{now}", "start from a network for these labels")
    copy_weights(stored.network, network, where)
    grids = stored.instrument.wavelength, task.instrument.wavelength
    if not np.allclose(*grids, rtol=0.0, atol=1e-3):
        its, ours = (f"{grid[0]:.2f}-{grid[-1]:.2f} A" for grid in grids)
        raise InputError(f"{where}, wavelengths", its, ours, "start from a network for this instrument")


def refuse_other_run(settings: Settings, folder: Path) -> None:
    """A folder in which another configuration was trained is not gone on with: its data would be
    another's."""
    path = folder / "config.yaml"
    if not path.exists() or not any((folder / name).exists() for name in ("checkpoints", "guess")):
        return
    was = defining(read_settings(yaml.safe_load(path.read_text())))
    refuse_other_settings(str(folder), was, defining(settings))
    # A file of the same name may hold other data by now.
    read = earlier(folder).get("checksums", {})
    refuse_other_settings(f"{folder}, data", read, {name: checksum(name) for name in read})


def earlier(folder: Path) -> dict[str, Any]:
    """The record of an earlier run in this folder."""
    record = folder / "provenance.json"
    return json.loads(record.read_text()) if record.exists() else {}


def defining(settings: Settings) -> dict[str, Any]:
    """The settings that the trained weights depend on."""
    values = plain(settings)
    trainer = {name: values["trainer"][name] for name in DEFINING_OF_TRAINER}
    return {**{name: values[name] for name in DEFINING}, "trainer": trainer}


def data_inputs(settings: Settings) -> list[str]:
    """Files whose checksums go into the provenance."""
    data = settings.data
    if isinstance(data, SimulatedData):
        return [] if data.residuals is None else [data.residuals]
    return [data.catalogue, *([data.spectra] if Path(data.spectra).suffix in STORES else [])]


def inference_rate(posterior: AmortisedPosterior, stars: Dataset, n_draws: int, batch: int = 64) -> float:
    """Spectra a second of `AmortisedPosterior.sample_normalised`, the compilation left out."""
    flux, ivar, key = stars.flux[:batch], stars.ivar[:batch], jax.random.key(0)
    posterior.sample_normalised(key, flux, ivar, n_draws)
    begun = time.perf_counter()
    posterior.sample_normalised(key, flux, ivar, n_draws)
    return len(flux) / (time.perf_counter() - begun)


def count_weights(network: nnx.Module) -> int:
    """Number of trained weights."""
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(network, nnx.Param)))


def leaderboard_row(
    settings: Settings, posterior: AmortisedPosterior, task: Task, metrics: dict[str, Any], test: str
) -> dict[str, Any]:
    """A run's row of a leaderboard, from its metrics on the evaluation set `test`."""
    config, labels = posterior.network.config, metrics[test]["all"]["labels"].values()
    relative = [x["error"] for x in labels] / np.std(task.examples.labels, axis=0)
    rates = [r["examples_per_second"] for r in metrics["history"] if r.get("examples_per_second")]
    return {
        "encoder": config.encoder.kind,
        "flow": config.flow.coupling,
        "seed": settings.seed,
        "nll": metrics[test]["nll"],
        "calibration_error": float(np.mean([values["calibration_error"] for values in labels])),
        "sharpness": float(np.exp(np.mean(np.log(relative)))),
        "parameters": metrics["weights"],
        "trained_per_second": float(np.median(rates)) if rates else None,
        "inferred_per_second": metrics["inferred_per_second"],
        "n_draws": settings.evaluation.n_draws,
        "steps": metrics["steps"],
        "status": "finished" if metrics["finished"] else "time up",
    }
