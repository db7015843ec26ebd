"""Train and evaluate a conditional flow.

    python -m experiments.train experiment=giraffe_demo       4 minutes on two cores
    python -m experiments.train experiment=giraffe_robust     hours on two cores, minutes on an accelerator
    python -m experiments.train experiment=giraffe_survey data.spectra=FOLDER data.catalogue=TABLE
    python -m experiments.train encoder=hybrid flow=autoregressive    any encoder with any flow, by its name
    python -m experiments.train --multirun encoder=residual,hybrid flow=spline,matching seed=1,2 output=FOLDER

The output folder gets `posterior/` (what `experiments.infer checkpoint=` takes), `metrics.json`,
`metrics.jsonl` (the training log), `checkpoints/`, `config.yaml`, `provenance.json` and the plots. A run that
was killed goes on from its last checkpoint, to the same numbers, when it is started again with the same
output=FOLDER. A sweep (`--multirun`) numbers its runs inside the folder and keeps a leaderboard there.
Started again, it leaves finished runs alone and goes on with the one that was interrupted.
"""

import dataclasses
import json
import logging
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from experiments import leaderboard
from experiments.common import begin, build, launch
from experiments.data import STORES, Task, load_task
from experiments.evaluation import draw_loss, evaluate, negative_log_likelihood
from jaxspec.amortised import fits
from jaxspec.amortised.amortised import AmortisedPosterior
from jaxspec.amortised.network import NetworkConfig, PosteriorNetwork
from jaxspec.amortised.storage import WEIGHTS, copy_weights, load_weights, save_posterior
from jaxspec.errors import InputError
from jaxspec.fitting.likelihood import LikelihoodConfig
from jaxspec.flows import FLOW_PRESETS, FlowConfig
from jaxspec.networks import ENCODER_PRESETS, EncoderConfig
from jaxspec.runs import checksum, named_key, versions, write_json
from jaxspec.simulation.nuisances import CONFIGS, NuisanceConfig
from jaxspec.training import ArraySource, NonFiniteLossError, OptimiserConfig, TrainConfig, fit

log = logging.getLogger(__name__)


class Trained(NamedTuple):
    posterior: AmortisedPosterior
    task: Task
    metrics: dict[str, Any]


def run_or_job(cfg: DictConfig, folder: Path) -> None:
    """A run by itself, or one job of a sweep."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        job(cfg, folder)
    else:
        run(cfg, folder)


def job(cfg: DictConfig, folder: Path) -> None:
    """Run one job of a sweep, unless it is finished, and bring the sweep's leaderboard up to date.

    A loss that is not finite fails the job, not the sweep.
    """
    log.info("job %d of %d: %s", int(folder.name) + 1, leaderboard.count_jobs(folder.parent), describe(cfg))
    if leaderboard.is_finished(cfg, folder):
        log.info("finished before: left alone")
    else:
        try:
            run(cfg, folder)
        except NonFiniteLossError as error:
            log.error("%s failed: %s", folder, error)
            write_json(folder / leaderboard.FAILURE, {"status": "failed", "error": str(error)})
    rows = leaderboard.update(folder.parent)
    print(f"\nleaderboard of {folder.parent}:\n{leaderboard.format_rows(rows)}\n", flush=True)


def run(cfg: DictConfig, folder: Path) -> Trained:
    """Train as configured, evaluate, write everything into `folder`."""
    refuse_other_run(cfg, folder)
    stored, origin = starting_point(cfg, folder)
    begin(cfg, folder, data_inputs(cfg), start_from=origin)
    task = load_task(cfg)

    network = make_network(cfg, task)
    if stored is not None:
        start_from(network, stored, task, f"start_from={cfg.start_from}")
    config = train_config(cfg)
    log.info("%.2f million weights, %d pixels", count_weights(network) / 1e6, task.instrument.n_pixels)
    begun = time.perf_counter()
    if network.linear_fit is not None:
        network, task = learn_to_fit(network, task, cfg, folder)
    result = fit(
        network,
        task.loss,
        config,
        key=named_key(cfg.seed, "training"),
        directory=folder,
        evaluate=lambda model: {
            "validation": negative_log_likelihood(AmortisedPosterior(model, task.instrument), task.validation)
        },
        trained=task.trained,
        **task.batches,
    )
    draw_loss(result.history, folder / "loss.png")

    facts = {
        "name": cfg.name,
        "config": OmegaConf.to_container(cfg, resolve=True),
        "steps": int(result.state.step),
        "versions": versions(),
        "survey": task.facts,
        "start_from": origin,
    }
    posterior = AmortisedPosterior(result.model, task.instrument, task.prior, provenance=facts)
    if len(task.examples.flux) >= 2 * network.config.encoder.n_context:
        posterior = posterior.with_reference(task.examples.flux, task.examples.ivar)
    save_posterior(posterior, folder / "posterior")

    tests = evaluate(posterior, task, cfg, folder)
    metrics = {
        "name": cfg.name,
        "config": facts["config"],
        "steps": int(result.state.step),
        "finished": result.finished,
        "weights": count_weights(network),
        "seconds": time.perf_counter() - begun,
        "validation": [row["validation"] for row in result.history if "validation" in row][-1],
        "history": result.history,
        "survey": task.facts,
        "inferred_per_second": leaderboard.inference_rate(posterior, task.validation, cfg.evaluation.n_draws),
        **tests,
    }
    metrics["leaderboard"] = leaderboard.row(cfg, posterior, task, metrics, next(iter(tests)))
    write_json(folder / "metrics.json", metrics)
    log.info("done: %s", folder)
    return Trained(posterior, task, metrics)


def make_network(cfg: DictConfig, task: Task) -> PosteriorNetwork:
    """The untrained network, with the standardisation of the examples."""
    network = PosteriorNetwork(
        network_config(cfg),
        task.label_set,
        task.instrument.wavelength,
        rngs=nnx.Rngs(cfg.seed),
        forward=None if task.simulator is None else task.simulator.forward,
    )
    network.set_statistics(
        *(jnp.asarray(x) for x in (task.examples.labels, task.examples.flux, task.examples.ivar))
    )
    return network


def learn_to_fit(
    network: PosteriorNetwork, task: Task, cfg: DictConfig, folder: Path
) -> tuple[PosteriorNetwork, Task]:
    """The network with its guess trained, and the task that is left: to train its flow on fits of simulated
    stars. Both survive a kill: `guess/` and `fits/` in the run's folder."""
    config = train_config(cfg)
    log.info("learning where to start fits from: %d steps", cfg.fits.guess_steps)
    guessed = fit(
        network,
        fits.guess_loss,
        dataclasses.replace(config, n_steps=cfg.fits.guess_steps, evaluate_every=0),
        key=named_key(cfg.seed, "guess"),
        directory=folder / "guess",
        trained=fits.GUESS,
        batch_fn=lambda key, step: task.simulator.simulate(key, cfg.fits.batch),
    )
    log.info("fitting %d simulated stars", cfg.fits.n_stars)
    known = fits.make_fits(
        guessed.model,
        task.simulator,
        named_key(cfg.seed, "fits"),
        cfg.fits.n_stars,
        folder / "fits",
        progress=config.progress,
    )
    source = ArraySource(known, cfg.trainer.batch, seed=cfg.seed)
    return guessed.model, dataclasses.replace(
        task, loss=partial(fits.flow_loss, prior=task.prior), batches={"source": source}, trained=fits.FLOW
    )


def network_config(cfg: DictConfig) -> NetworkConfig:
    """The shape of the network that a configuration names; a linear fit knows what the simulations vary.

    Raises: InputError for a linear fit of a network that no simulations train.
    """
    steps, fit = cfg.model.get("fit_steps"), None
    if steps is not None:
        if cfg.data.kind != "simulated":
            raise InputError(
                "model.fit_steps",
                f"{steps} with data.kind={cfg.data.kind}",
                "data=simulated, since only simulations teach where to start a fit",
                "leave it out",
            )
        fit = LikelihoodConfig(build(NuisanceConfig, cfg.data.nuisances, CONFIGS), steps=steps)
    return NetworkConfig(
        build(EncoderConfig, cfg.model.encoder, ENCODER_PRESETS),
        build(FlowConfig, cfg.model.flow, FLOW_PRESETS),
        cfg.model.error_floor,
        cfg.model.get("point_weight", 0.0),
        fit,
    )


def describe(cfg: DictConfig) -> str:
    """Encoder, flow and seed in words."""
    config = network_config(cfg)
    fitting = "" if config.linear_fit is None else "fitting "
    return f"{fitting}{config.encoder.kind} encoder, {config.flow.coupling} flow, seed {cfg.seed}"


def starting_point(cfg: DictConfig, folder: Path) -> tuple[AmortisedPosterior | None, dict[str, str] | None]:
    """The stored posterior whose weights training starts from, or None, and what is recorded of it.

    A run that goes on from its own checkpoint needs no other weights; what it once started from stays on
    record.
    """
    if any(path.name.isdigit() for path in (folder / "checkpoints").glob("*")):
        record = folder / "provenance.json"
        return None, json.loads(record.read_text()).get("start_from") if record.exists() else None
    if cfg.start_from is None:
        return None, None
    stored, where = load_weights(cfg.start_from)
    return stored, {"path": str(cfg.start_from), "sha256": checksum(where / WEIGHTS)}


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
        was, now = (f"{grid[0]:.2f}-{grid[-1]:.2f} A" for grid in grids)
        raise InputError(f"{where}, wavelengths", was, now, "start from a network for this instrument")


def train_config(cfg: DictConfig) -> TrainConfig:
    """How long to train and with what."""
    values = OmegaConf.to_container(cfg.trainer, resolve=True)
    values.pop("batch")
    optimiser = build(OptimiserConfig, values.pop("optimiser"))
    return build(TrainConfig, {**values, "optimiser": optimiser})


def refuse_other_run(cfg: DictConfig, folder: Path) -> None:
    """A folder in which another configuration was trained is not gone on with: its data would be
    another's."""
    path = folder / "config.yaml"
    if not path.exists() or not any((folder / name).exists() for name in ("checkpoints", "guess")):
        return
    old = OmegaConf.load(path)
    for part in (
        "data",
        "model",
        "fits",
        "instrument",
        "forward",
        "seed",
        "trainer.batch",
        "trainer.n_steps",
        "trainer.optimiser",
    ):
        was, now = (OmegaConf.select(c, part) for c in (old, cfg))
        was, now = (
            OmegaConf.to_container(x, resolve=True) if OmegaConf.is_config(x) else x for x in (was, now)
        )
        if was != now:
            raise InputError(
                f"{folder}, {part}", f"{was} of an earlier run", f"{now}", "choose another output= folder"
            )


def data_inputs(cfg: DictConfig) -> list[str]:
    """Files whose checksums go into the provenance."""
    if cfg.data.kind != "survey":
        learned = cfg.data.get("residuals")
        return [] if learned is None else [learned]
    return [cfg.data.catalogue, *([cfg.data.spectra] if Path(cfg.data.spectra).suffix in STORES else [])]


def count_weights(network: nnx.Module) -> int:
    """Number of trained weights."""
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(network, nnx.Param)))


if __name__ == "__main__":
    launch(run_or_job, "train")
