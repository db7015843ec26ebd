"""How good is a trained posterior: numbers and plots on stars whose labels are known."""

import logging
import time
from pathlib import Path
from typing import Any

import jax
import matplotlib.pyplot as plt
import numpy as np
from omegaconf import DictConfig

from experiments.common import forward_model, named_key
from experiments.data import Examples, Task, make_simulator, simulate_fully
from jaxspec.diagnostics import calibration, cramer_rao, plots
from jaxspec.posterior.amortised import AmortisedPosterior
from jaxspec.posterior.refine import refine_posterior
from jaxspec.posterior.simulator import SpectrumModel

log = logging.getLogger(__name__)
N_PLOTTED = 800


def evaluate(posterior: AmortisedPosterior, task: Task, cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Measures of every test set, printed, drawn and returned; of refined draws if `cfg.refine` says so."""
    metrics = {}
    forward = forward_model(cfg.forward, cfg.instrument) if cfg.get("refine", False) else None
    for name, options in cfg.evaluation.sets.items() if task.simulator is not None else ():
        log.info("evaluating %s: %d simulated stars", name, options.n)
        simulator = make_simulator(cfg, options.get("nuisances"))
        stars, nuisances = simulate_fully(
            simulator, named_key(cfg.seed, f"test {name}"), options.n, options.get("snr")
        )
        values, draws = measure(posterior, stars, cfg, name, forward)
        n = min(cfg.evaluation.n_bound, options.n)
        if n >= 10:
            values["over_bound"] = over_bound(
                simulator, stars, nuisances, draws, n, named_key(cfg.seed, "bound")
            )
        metrics[name] = values
        draw(stars, draws, posterior, folder, name)
        report(name, values, posterior)
    for name, stars in task.tests.items():
        metrics[name], draws = measure(posterior, stars, cfg, name, forward)
        draw(stars, draws, posterior, folder, name)
        report(name, metrics[name], posterior)
    return metrics


def measure(
    posterior: AmortisedPosterior,
    stars: Examples,
    cfg: DictConfig,
    name: str,
    forward: SpectrumModel | None = None,
) -> tuple[dict, np.ndarray]:
    """`jaxspec.diagnostics.calibration.summarise` of one set, its negative log-likelihood, and the draws.

    With a `forward` model the draws are refined against it (the likelihood is the network's own all the
    same). A catalogue's label is the true one plus an error: it is compared with draws that carry that error
    too.
    """
    begun = time.perf_counter()
    key = named_key(cfg.seed, f"draws {name}")
    result = posterior.sample_normalised(key, stars.flux, stars.ivar, cfg.evaluation.n_draws)
    if forward is not None:
        result = refine_posterior(jax.random.fold_in(key, 2), forward, result, stars.flux, stars.ivar)
    seconds = time.perf_counter() - begun
    draws = result.draws
    if np.any(stars.errors > 0):
        noise = np.asarray(jax.random.normal(jax.random.fold_in(key, 1), draws.shape))
        draws = draws + stars.errors * noise
    summary = calibration.summarise(stars.labels, draws, stars.snr, posterior.label_set.names)
    summary["nll"] = negative_log_likelihood(posterior, stars)
    summary["sampling_seconds"] = seconds
    return summary, draws


def negative_log_likelihood(posterior: AmortisedPosterior, stars: Examples, batch: int = 64) -> float:
    """Mean of -ln q(labels | spectrum), densities per unit of all labels."""
    total = 0.0
    for i in range(0, len(stars.labels), batch):
        rows = slice(i, i + batch)
        total -= float(np.sum(posterior.log_prob(stars.labels[rows], stars.flux[rows], stars.ivar[rows])))
    return total / len(stars.labels)


def over_bound(simulator, stars: Examples, nuisances, draws: np.ndarray, n: int, key) -> dict[str, Any]:
    """Robust scatter of (median - truth) in units of the Cramer-Rao bound of each of the first `n` stars.

    `cramer_rao` is the bound from the spectrum alone, over stars for which it is finite; `with_prior` adds
    what the prior knows (the error of the best Gaussian posterior) and is finite always.
    """
    names = simulator.forward.label_set.names
    first = jax.tree.map(lambda x: x[:n], nuisances)
    # As little known beforehand as the simulations vary it; of the pixels that the network sees (`ivar > 0`).
    usual = cramer_rao.BoundConfig().nuisances
    config = cramer_rao.BoundConfig(usual._replace(resolution=simulator.config.resolution_scatter))
    bound = cramer_rao.cramer_rao(simulator.forward, stars.labels[:n], first, stars.ivar[:n], config)
    precision = cramer_rao.prior_precision(np.asarray(simulator.prior.sample(key, 20_000)))
    offset = np.median(draws[:, :n], axis=0) - stars.labels[:n]
    out = {}
    for label, sigma in (
        ("cramer_rao", bound.sigma),
        ("with_prior", _with_prior(bound.covariance, precision)),
    ):
        ratio = np.where(np.isfinite(sigma), offset / sigma, np.nan)
        scatter = [calibration.robust_scatter(r[np.isfinite(r)][:, None]).item() for r in ratio.T]
        out[label] = dict(zip(names, scatter, strict=True))
        out[f"median_sigma_{label}"] = dict(zip(names, map(float, np.median(sigma, axis=0)), strict=True))
    return {"n": n, **out}


def _with_prior(covariance: np.ndarray, precision: np.ndarray) -> np.ndarray:
    sigma = []
    for star in covariance:
        known = np.isfinite(np.diag(star))
        total = precision.copy()
        total[np.ix_(known, known)] += np.linalg.inv(star[np.ix_(known, known)])
        sigma.append(np.sqrt(np.diag(np.linalg.inv(total))))
    return np.array(sigma)


def report(name: str, values: dict[str, Any], posterior: AmortisedPosterior) -> None:
    """Print one set's table."""
    units = [label.unit for label in posterior.label_set]
    print(f"\n{name}: {values['all']['n']} stars, -ln q = {values['nll']:.3f}")
    print(calibration.format_summary(values, units))
    for kind in ("cramer_rao", "with_prior") if "over_bound" in values else ():
        ratios = ", ".join(f"{k} {v:.2f}" for k, v in values["over_bound"][kind].items())
        print(f"scatter over the Cramer-Rao bound ({kind}, {values['over_bound']['n']} stars): {ratios}")
    print(flush=True)


def draw(stars: Examples, draws: np.ndarray, posterior: AmortisedPosterior, folder: Path, name: str) -> None:
    """Recovery, coverage and rank plots of one set."""
    some = slice(0, N_PLOTTED)
    plots.save(
        plots.plot_recovery(stars.labels[some], draws[:, some], posterior.label_set, stars.snr[some]),
        folder / f"recovery_{name}.png",
    )
    plots.save(plots.plot_coverage(stars.labels, draws, posterior.label_set), folder / f"coverage_{name}.png")
    plots.save(plots.plot_sbc(stars.labels, draws, posterior.label_set), folder / f"sbc_{name}.png")


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
