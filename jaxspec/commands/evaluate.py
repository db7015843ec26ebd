"""How good is a stored posterior: numbers and plots on stars whose labels are known.

Tests on the data it was trained for, and on simulated sets: an exact model, both arms and fixed S/N. Prints a
table for each set and writes `report.html` (all tables and plots on one page), `metrics.json`, and the plots
one by one.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import matplotlib.pyplot as plt
import numpy as np

from jaxspec import diagnostics
from jaxspec.amortised.ensemble import load_ensemble
from jaxspec.amortised.storage import weights_file
from jaxspec.commands.tasks import Task, load_task
from jaxspec.datasets import Dataset
from jaxspec.diagnostics import calibration, cramer_rao, plots
from jaxspec.diagnostics.results import KnownStars
from jaxspec.errors import InputError
from jaxspec.fitting.importance import ImportanceConfig, trusted
from jaxspec.fitting.likelihood import LikelihoodConfig
from jaxspec.inference import EXACT, NONE, ROBUST, InferenceConfig, infer_normalised, refinement
from jaxspec.physics.forward import forward_model
from jaxspec.posterior.model import PosteriorModel
from jaxspec.runs import begin, checksum, describe_device, named_key, versions, write_json
from jaxspec.simulation.nuisances import PURE, NuisanceConfig
from jaxspec.simulation.prior import StellarPrior
from jaxspec.simulation.simulator import Simulator, SpectrumModel, simulate_many

log = logging.getLogger(__name__)

OUTPUT = "folder"
BOTH_ARMS = replace(PURE, only_arm=(0.0, 0.0))


@dataclass(frozen=True)
class TestSet:
    """Simulated stars to be tested on.

    Attributes:
        n: number of stars.
        snr: of all per pixel, or the ends of a range over which it is even; none: as in training.
        nuisances: distributions of everything but labels and S/N; none: those of the training.
        prior: density of the labels; none: that of the training.
        prior_known: draws are those under `prior`.
    """

    __test__ = False  # pytest would collect it

    n: int
    snr: float | tuple[float, float] | None = None
    nuisances: NuisanceConfig | None = None
    prior: StellarPrior | None = None
    prior_known: bool = False


def standard_sets() -> dict[str, TestSet]:
    """Held-out simulations: as trained, and with an exact model and both arms at fixed S/N per pixel."""
    return {
        "as_trained": TestSet(2000),
        "snr100": TestSet(1000, 100.0, BOTH_ARMS),
        "snr20": TestSet(1000, 20.0, BOTH_ARMS),
    }


@dataclass(frozen=True)
class EvaluationConfig:
    """On which stars a posterior is judged.

    Attributes:
        n_draws: draws of each star.
        n_bound: stars of each set whose Cramer-Rao bound is computed; fewer than 10: none.
        sets: simulated stars by the name of the set.
    """

    n_draws: int = 1000
    n_bound: int = 128
    sets: dict[str, TestSet] = field(default_factory=standard_sets)


@dataclass(frozen=True)
class Settings:
    """Weights and stars of an evaluation.

    Attributes:
        checkpoint: folder of a trained posterior or of a training run, or a list of them (several networks as
            one); none: the weights in the package.
        seed: of all random numbers.
        dropout: of a network that was trained with dropout, so many parts of it, mixed (Monte Carlo dropout).
        refine: none, the network's own draws; robust, as `infer` gives them; exact, the forward model's own
            posteriors.
        evaluation: the sets of stars.
    """

    checkpoint: str | tuple[str, ...] | None = None
    seed: int = 1
    dropout: int = 0
    refine: str = NONE
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """Evaluate stored weights, write, and return the metrics.

    Raises: InputError when the stored weights do not say what they were trained with, and for another
        `refine`.
    """
    from jaxspec.commands.train import read_settings  # which evaluates what it trained

    refine = refinement(settings.refine)
    posterior, where = load_ensemble(settings.checkpoint, settings.dropout, settings.seed)
    stored = posterior.provenance.get("config")
    if stored is None:
        raise InputError(
            str(where[0]),
            "no configuration of its training",
            "weights of experiments.train",
            "train them again",
        )
    begin(folder, settings, [weights_file(one) for one in where], trained_with=stored)
    trained = read_settings(stored)
    task = load_task(trained.data, trained.instrument, trained.forward, trained.trainer.batch, trained.seed)
    metrics = {
        "weights": [str(one) for one in where],
        "refine": refine,
        "versions": versions(),
        **evaluate(
            posterior,
            task,
            settings.evaluation,
            folder,
            seed=settings.seed,
            name=trained.name,
            forward=trained.forward,
            refine=refine,
            weights=where,
        ),
    }
    write_json(folder / "metrics.json", metrics)
    log.info("done: %s", folder)
    return metrics


def evaluate(
    posterior: PosteriorModel,
    task: Task,
    config: EvaluationConfig,
    folder: Path,
    *,
    seed: int,
    name: str,
    forward: str,
    refine: str = NONE,
    weights: Sequence[Path] = (),
) -> dict[str, Any]:
    """Measures of every test set, of refined draws on demand: printed, returned, and with all tables and
    plots in `report.html`.

    Args:
        forward: the forward model by name (see `forward_model`).
        weights: folders of the stored posterior's networks, for the record; by default that of the training
            run.
    """
    metrics, sets = {}, []
    model = forward_model(forward, posterior.instrument) if task.simulator is None else task.simulator.forward
    for set_name, options in config.sets.items() if task.simulator is not None else ():
        assert task.simulator is not None
        log.info("evaluating %s: %d simulated stars", set_name, options.n)
        simulator = other_simulator(task.simulator, options)
        stars = simulate_many(simulator, named_key(seed, f"test {set_name}"), options.n, options.snr)
        how = InferenceConfig(
            config.n_draws,
            refine,
            simulator.prior if options.prior_known else None,
            exact=ImportanceConfig(LikelihoodConfig(simulator.config)),
            check=False,
        )
        metrics[set_name], known = measure(posterior, stars, set_name, model, how, seed)
        n = min(config.n_bound, options.n)
        if n >= 10:
            known = replace(known, **bounds(simulator, stars, n, named_key(seed, "bound")))
        sets.append(known)
    for set_name, stars in task.tests.items():
        how = InferenceConfig(
            config.n_draws, refine, exact=ImportanceConfig(LikelihoodConfig(PURE)), check=False
        )
        metrics[set_name], known = measure(posterior, stars, set_name, model, how, seed)
        sets.append(known)
    if not sets:
        return metrics
    log.info("writing the report")
    weights = weights or [folder / "posterior"]
    found = diagnostics.report(
        folder / "report.html",
        sets,
        {
            "sha256 of the weights": {str(one): checksum(weights_file(one)) for one in weights},
            "refined": {NONE: "no", ROBUST: "by a fit", EXACT: "to the exact posterior"}[refine],
            "seed": seed,
            "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "device": describe_device(),
            "versions": versions(),
        },
        f"Is it calibrated? {name}",
    )
    for known in sets:
        metrics[known.name].update(known.summary)
        metrics[known.name]["checks"] = {
            result.name: {"passed": result.passed, "verdict": result.verdict, **result.values}
            for result in found[known.name]
        }
        for picture in (picture for result in found[known.name] for picture in result.pictures):
            (folder / f"{picture.name}_{known.name}.png").write_bytes(picture.png)
        print_table(known, metrics[known.name])
    return metrics


def other_simulator(simulator: Simulator, options: TestSet) -> Simulator:
    """The simulator of the training with the prior and the nuisances of a test set; with other nuisances it
    has none of the errors that were learned from real spectra."""
    return Simulator(
        simulator.forward,
        options.prior or simulator.prior,
        options.nuisances or simulator.config,
        simulator.vmic_calibration,
        simulator.vmac_calibration,
        simulator.residuals if options.nuisances is None else None,
    )


def measure(
    posterior: PosteriorModel,
    stars: Dataset,
    name: str,
    forward: SpectrumModel,
    config: InferenceConfig,
    seed: int,
) -> tuple[dict[str, Any], KnownStars]:
    """Negative log-likelihood of one set (the network's own, not refined), and its stars with their draws.

    A catalogue's label is the true one plus an error: it is compared with draws that carry that error too.
    """
    begun = time.perf_counter()
    key = named_key(seed, f"draws {name}")
    result = infer_normalised(key, posterior, forward, stars.flux, stars.ivar, config).posterior
    seconds = time.perf_counter() - begun
    values = {"nll": negative_log_likelihood(posterior, stars), "sampling_seconds": seconds}
    if config.prior is not None:
        values["prior_efficiency"] = float(np.median(result.stats["prior_efficiency"]))
    if config.refine == EXACT:
        values["trusted"] = float(np.mean(trusted(result)))
        values["efficiency"] = float(np.median(result.stats["efficiency"]))
        text = "%s: median efficiency %.2f, draws of %.1f %% of stars to be trusted"
        log.info(text, name, values["efficiency"], 100 * values["trusted"])
    draws = result.draws
    if stars.errors is not None and np.any(stars.errors > 0):
        noise = np.asarray(jax.random.normal(jax.random.fold_in(key, 1), draws.shape))
        draws = draws + stars.errors * noise
    return values, KnownStars(name, posterior.label_set, np.asarray(stars.labels), draws, stars.measured_snr)


def negative_log_likelihood(posterior: PosteriorModel, stars: Dataset, batch: int = 64) -> float:
    """Mean of -ln q(labels | spectrum), densities per unit of all labels."""
    total = 0.0
    for i in range(0, len(stars.labels), batch):
        rows = slice(i, i + batch)
        total -= float(np.sum(posterior.log_prob(stars.labels[rows], stars.flux[rows], stars.ivar[rows])))
    return total / len(stars.labels)


def bounds(simulator, stars: Dataset, n: int, key) -> dict[str, Any]:
    """Smallest possible errors of the first `n` stars: `bound` from the spectrum alone, infinite where it
    tells nothing, and `bound_with_prior`, the Gaussian reference (see `KnownStars`)."""
    first = jax.tree.map(lambda x: x[:n], stars.nuisances)
    # As little known beforehand as the simulations vary it; of the pixels that the network sees (`ivar > 0`).
    usual = cramer_rao.BoundConfig().nuisances
    config = cramer_rao.BoundConfig(usual._replace(resolution=simulator.config.resolution_scatter))
    bound = cramer_rao.cramer_rao(
        simulator.forward,
        stars.labels[:n],
        first,
        stars.ivar[:n],
        config,
        simulated=simulator.config,
        residuals=simulator.residuals,
    )
    precision = cramer_rao.prior_precision(np.asarray(simulator.prior.sample(key, 20_000)))
    return {"bound": bound.sigma, "bound_with_prior": _with_prior(bound.covariance, precision)}


def _with_prior(covariance: np.ndarray, precision: np.ndarray) -> np.ndarray:
    sigma = []
    for star in covariance:
        known = np.isfinite(np.diag(star))
        total = precision.copy()
        total[np.ix_(known, known)] += np.linalg.inv(star[np.ix_(known, known)])
        sigma.append(np.sqrt(np.diag(np.linalg.inv(total))))
    return np.array(sigma)


def print_table(stars: KnownStars, values: dict[str, Any]) -> None:
    """Print one set's table and verdicts."""
    units = [label.unit for label in stars.label_set]
    print(f"\n{stars.name}: {len(stars.truth)} stars, -ln q = {values['nll']:.3f}")
    print(calibration.format_summary(values, units))
    for name, check in values["checks"].items():
        word = {True: "pass", False: "FAIL", None: "-"}[check["passed"]]
        print(f"{name:<10}{word:<6}{check['verdict']}")
    print(flush=True)


def draw_loss(history: list[dict[str, Any]], path: Path) -> None:
    """Training and validation loss against the step."""
    with plots.style():
        figure, ax = plt.subplots(figsize=(5.0, 3.2), layout="constrained")
        for key, colour, name in (
            ("loss", plots.GREY, "training"),
            ("validation", plots.RED, "validation, averaged weights"),
        ):
            rows = [(row["step"], row[key]) for row in history if key in row]
            if rows:
                ax.plot(
                    *np.array(rows).T,
                    color=colour,
                    label=name,
                    marker="o" if len(rows) < 20 else None,
                    ms=2.5,
                    lw=1.1,
                )
        values = [row[key] for row in history for key in ("loss", "validation") if key in row]
        low, high = np.quantile(values, [0.0, 0.9])
        ax.set(
            xlabel="step",
            ylabel=r"$-\ln q(\mathrm{labels}\,|\,\mathrm{spectrum})$",
            ylim=(low - 0.1 * (high - low) - 0.1, high + 0.4 * (high - low) + 0.1),
        )
        ax.legend()
    plots.save(figure, path)
