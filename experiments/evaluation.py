"""How good is a trained posterior: numbers and plots on stars whose labels are known."""

import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import matplotlib.pyplot as plt
import numpy as np
from omegaconf import DictConfig

from experiments.data import Examples, Task, make_simulator, simulate_fully
from jaxspec import diagnostics
from jaxspec.amortised.amortised import AmortisedPosterior
from jaxspec.amortised.ensemble import Ensemble
from jaxspec.amortised.reweighting import sample_under
from jaxspec.amortised.storage import WEIGHTS
from jaxspec.diagnostics import calibration, cramer_rao, plots
from jaxspec.diagnostics.results import KnownStars
from jaxspec.fitting.importance import ImportanceConfig, importance_sample, trusted
from jaxspec.fitting.likelihood import LikelihoodConfig
from jaxspec.fitting.refine import refine_posterior
from jaxspec.physics.forward import forward_model
from jaxspec.runs import checksum, describe_device, named_key, versions
from jaxspec.simulation.nuisances import PURE, NuisanceConfig
from jaxspec.simulation.prior import StellarPrior
from jaxspec.simulation.simulator import SpectrumModel

log = logging.getLogger(__name__)


def evaluate(
    posterior: AmortisedPosterior | Ensemble,
    task: Task,
    cfg: DictConfig,
    folder: Path,
    weights: Sequence[Path] = (),
) -> dict[str, Any]:
    """Measures of every test set, of refined draws if `cfg.refine` says so: printed, returned, and with all
    tables and plots in `report.html`.

    Args:
        weights: folders of the stored posterior's networks, for the record; by default that of the training
            run.
    """
    metrics, sets = {}, []
    forward = forward_model(cfg.forward, cfg.instrument) if cfg.get("refine", False) else None
    for name, options in cfg.evaluation.sets.items() if task.simulator is not None else ():
        log.info("evaluating %s: %d simulated stars", name, options.n)
        simulator = make_simulator(cfg, options.get("nuisances"), options.get("prior"))
        stars, nuisances = simulate_fully(
            simulator, named_key(cfg.seed, f"test {name}"), options.n, options.get("snr")
        )
        known_prior = simulator.prior if options.get("prior_known", False) else None
        metrics[name], known = measure(posterior, stars, cfg, name, forward, simulator.config, known_prior)
        n = min(cfg.evaluation.n_bound, options.n)
        if n >= 10:
            known = replace(known, **bounds(simulator, stars, nuisances, n, named_key(cfg.seed, "bound")))
        sets.append(known)
    for name, stars in task.tests.items():
        metrics[name], known = measure(posterior, stars, cfg, name, forward)
        sets.append(known)
    if not sets:
        return metrics
    log.info("writing the report")
    weights = weights or [folder / "posterior"]
    found = diagnostics.report(
        folder / "report.html",
        sets,
        {
            "sha256 of the weights": {str(one): checksum(one / WEIGHTS) for one in weights},
            "refined": {False: "no", True: "by a fit"}.get(
                cfg.get("refine", False), "to the exact posterior"
            ),
            "seed": cfg.seed,
            "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "device": describe_device(),
            "versions": versions(),
        },
        f"Is it calibrated? {cfg.name}",
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


def measure(
    posterior: AmortisedPosterior | Ensemble,
    stars: Examples,
    cfg: DictConfig,
    name: str,
    forward: SpectrumModel | None = None,
    nuisances: NuisanceConfig = PURE,
    prior: StellarPrior | None = None,
) -> tuple[dict, KnownStars]:
    """Negative log-likelihood of one set, and its stars with their draws.

    With a `prior` the draws are those under it instead of the training's. With a `forward` model they are
    refined against it (the likelihood is the network's own all the same), if `cfg.refine` is "exact" to those
    of its likelihood with these `nuisances`. A catalogue's label is the true one plus an error: it is
    compared with draws that carry that error too.
    """
    begun = time.perf_counter()
    key = named_key(cfg.seed, f"draws {name}")
    result = sample_under(prior, posterior, key, stars.flux, stars.ivar, cfg.evaluation.n_draws)
    more = {}
    if prior is not None:
        more["prior_efficiency"] = float(np.median(result.stats["prior_efficiency"]))
    if forward is not None:
        arguments = (jax.random.fold_in(key, 2), forward, result, stars.flux, stars.ivar)
        if cfg.refine == "exact":
            result = importance_sample(*arguments, ImportanceConfig(LikelihoodConfig(nuisances)))
            worth = result.stats["efficiency"]
            more |= {"trusted": float(np.mean(trusted(result))), "efficiency": float(np.median(worth))}
            log.info(
                "%s: median efficiency %.2f, draws of %.1f %% of stars to be trusted",
                name,
                more["efficiency"],
                100 * more["trusted"],
            )
        else:
            result = refine_posterior(*arguments)
    seconds = time.perf_counter() - begun
    draws = result.draws
    if np.any(stars.errors > 0):
        noise = np.asarray(jax.random.normal(jax.random.fold_in(key, 1), draws.shape))
        draws = draws + stars.errors * noise
    values = {"nll": negative_log_likelihood(posterior, stars), "sampling_seconds": seconds, **more}
    return values, KnownStars(name, posterior.label_set, stars.labels, draws, stars.snr)


def negative_log_likelihood(
    posterior: AmortisedPosterior | Ensemble, stars: Examples, batch: int = 64
) -> float:
    """Mean of -ln q(labels | spectrum), densities per unit of all labels."""
    total = 0.0
    for i in range(0, len(stars.labels), batch):
        rows = slice(i, i + batch)
        total -= float(np.sum(posterior.log_prob(stars.labels[rows], stars.flux[rows], stars.ivar[rows])))
    return total / len(stars.labels)


def bounds(simulator, stars: Examples, nuisances, n: int, key) -> dict[str, np.ndarray]:
    """Smallest possible errors of the first `n` stars: `bound` from the spectrum alone, infinite where it
    tells nothing, and `bound_with_prior`, the error of the best Gaussian posterior."""
    first = jax.tree.map(lambda x: x[:n], nuisances)
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
