"""The survey model sampled here and in PyMC: effective draws a second, on the same sky in the same run.

    pip install "jaxspec[bench]"
    python -m benchmarks.surveys [--stars 2000] [--draws 900] [--peer-tune 300] [--peer-draws 150] [--no-peer]

Both sample the same posterior of the same simulated sky: four surveys, nine labels, true labels, components
and outliers summed out, the same priors, the same start. Each is used as it is meant to be: ours whitens by
a variational fit first, PyMC adapts a diagonal mass matrix. Time counts from the model to the last draw,
warm-up, the search for the mode and the variational fit with its compilation included, the compilation of
the chains not; beside it PyMC's draws alone. The effective size is the smallest and the median over all zero
points and trends. Prints a table and writes `outputs/benchmarks/surveys.json`.
"""

import argparse
import json
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

from jaxspec.runs import atomically, describe_device, versions
from jaxspec.surveys.density import (
    Layout,
    Objective,
    laplace,
    outlier_probability,
    separate,
)
from jaxspec.surveys.inference import FitConfig
from jaxspec.surveys.marginal import JITTER
from jaxspec.surveys.model import POPULATION_SPREAD, Batch, Structure, SurveyConfig, prepare, whole
from jaxspec.surveys.sampling import NutsConfig, run_nuts
from jaxspec.surveys.simulate import SimulationConfig, simulate_sky
from jaxspec.surveys.tied import arrange
from jaxspec.surveys.variational import FixedBatch, run_svi


def problem(n_stars: int) -> tuple[Layout, Batch]:
    """The sky's stars that tie surveys together, arranged once for both."""
    sky, _ = simulate_sky(0, SimulationConfig(n_stars=n_stars))
    structure, index = prepare(sky, SurveyConfig())
    layout = Layout(structure)
    blocks, n_field = arrange(sky, structure.scales, structure.basis, index, np.arange(len(index)))
    everything = whole(blocks, n_field)
    return layout, separate(everything, outlier_probability(layout, everything, layout.start))


def row(
    name: str, draws: np.ndarray, seconds: float, divergences: int, gradients: int, gradient_ms: float
) -> dict[str, Any]:
    """One line of the table from `draws [chain, draw, d]` of zero points and trends."""
    ess = effective_sample_size(draws)
    return {
        "sampler": name,
        "draws": int(draws.shape[0] * draws.shape[1]),
        "seconds": seconds,
        "ess_min": float(ess.min()),
        "ess_median": float(np.median(ess)),
        "ess_min_per_second": float(ess.min() / seconds),
        "ess_median_per_second": float(np.median(ess) / seconds),
        "r_hat": float(split_gelman_rubin(draws).max()),
        "divergences": divergences,
        "gradients": gradients,
        "gradient_ms": gradient_ms,
    }


def gradient_time(call, point: np.ndarray, repeats: int = 30) -> float:
    """Median milliseconds of one value and gradient."""
    call(point)
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        call(point)
        times.append(1e3 * (time.perf_counter() - begun))
    return float(np.median(times))


def ours(layout: Layout, batch: Batch, args: argparse.Namespace) -> dict[str, Any]:
    """NUTS as `fit` runs it."""
    objective = Objective(layout, batch)
    objective(layout.start)
    begun = time.perf_counter()
    gaussian = laplace(objective, layout.start)
    gaussian, _ = run_svi(layout, FixedBatch(batch), gaussian, jax.random.key(2), FitConfig().guide)
    chains = run_nuts(objective, gaussian, jax.random.key(1), NutsConfig(draws=args.draws))
    seconds = time.perf_counter() - begun - chains.compile_seconds
    flat = gaussian.mean + chains.u @ gaussian.root.T
    keep = offset_columns(layout)
    return row(
        "jaxspec (NumPyro)",
        flat[:, :, keep],
        seconds,
        int(chains.diverged.sum()),
        int(chains.steps.sum()),
        gradient_time(objective, gaussian.mean),
    )


def offset_columns(layout: Layout) -> np.ndarray:
    """Entries of the flat vector that are zero points and trends."""
    return np.concatenate(
        [
            np.arange(s.start, s.start + int(np.prod(s.shape)))
            for s in layout.sites
            if s.name in ("zero_point", "trend")
        ]
    )


def flatten(batch: Batch) -> dict[str, np.ndarray]:
    """All measurements in one list, the cells (star and configuration of outliers) in another, and the cells
    of each star."""
    names = ("survey", "values", "covariance", "present", "flagged")
    flat = {
        name: np.concatenate(
            [np.asarray(getattr(b, name)).reshape(-1, *getattr(b, name).shape[2:]) for b in batch.blocks]
        )
        for name in names
    }
    most = max(b.survey.shape[1] for b in batch.blocks)
    slots, inlier, member, cells = [], [], [], []
    first = 0
    for block, states in zip(batch.blocks, batch.states, strict=True):
        n, m = block.survey.shape
        for i in range(n):
            cells.append(np.arange(len(slots), len(slots) + len(states)))
            for state in states:
                slots.append(np.pad(first + i * m + np.arange(m), (0, most - m)))
                inlier.append(np.pad(np.where(state, -1.0, 1.0), (0, most - m)))
                member.append(block.member[i])
        first += n * m
    width = max(map(len, cells))
    return flat | {
        "slots": np.array(slots),
        "inlier": np.array(inlier),
        "member": np.array(member),
        "cells": np.array([np.pad(c, (0, width - len(c)), constant_values=-1) for c in cells]),
    }


def pymc_model(structure: Structure, batch: Batch):
    """The same model in PyMC, written with PyTensor's batched linear algebra."""
    import pymc as pm
    import pytensor.tensor as pt

    config, free, n = structure.config, structure.free, len(structure.scales.step)
    n_surveys, k = len(structure.names), len(structure.mixture.weight)
    data, inputs = flatten(batch), structure.scales.input_matrix
    lower, upper = np.tril_indices(n, -1), np.triu_indices(n, 1)
    into = np.eye(n_surveys)[:, free]
    with pm.Model() as model:
        zero = pm.Normal("zero_point", 0.0, config.zero_point, shape=(len(free), n))
        trend = pm.StudentT(
            "trend", nu=4.0, mu=0.0, sigma=config.trend_scale, shape=(len(free), n, len(inputs))
        )
        quoted = np.log(structure.typical_error[free] + JITTER)
        own = 2.0 * np.log(config.scatter)
        middle = 0.5 * np.logaddexp(quoted, own)
        log_noise = pm.Normal("log_noise", middle, config.noise_spread, shape=(len(free), n))
        share = pm.Normal("scatter_share", own - quoted, config.share_spread, shape=(len(free), n))
        log_scatter = log_noise - 0.5 * pt.softplus(-share)
        log_inflation = log_noise - 0.5 * (pt.softplus(share) + quoted)
        z = pm.Normal("correlation", 0.0, config.correlation, shape=(len(free), len(lower[0])))
        rate = np.log(config.outlier_rate / (1 - config.outlier_rate))
        logit = pm.Normal("outlier_logit", rate, 0.8, shape=n_surveys)
        flag = pm.Normal("outlier_flag", 2.0, 1.5, shape=n_surveys)
        log_width = pm.Normal("log_outlier_width", np.log(config.outlier_width), 0.4, shape=n_surveys)
        shift = pm.Normal("population_mean", 0.0, 1.0, shape=(k, n))
        diagonal = pm.Normal("population_scale", 0.0, POPULATION_SPREAD, shape=(k, n))
        shape = pm.Normal("population_shape", 0.0, POPULATION_SPREAD, shape=(k, len(upper[0])))

        zero = pt.as_tensor(into) @ zero
        trend = pt.tensordot(into, trend, 1)
        triangle = pt.zeros((len(free), n, n))[:, lower[0], lower[1]].set(z) + np.eye(n)
        triangle = triangle / pt.sqrt(pt.sum(triangle**2, axis=-1, keepdims=True))
        between = triangle @ triangle.transpose(0, 2, 1) * (1.0 - np.eye(n))
        of_noise = structure.errors_only[free].astype(float)[:, None, None] * between
        size = pt.exp(log_scatter)
        scatter = size[:, :, None] * (between - of_noise + np.eye(n)) * size[:, None, :]
        scatter, of_noise = pt.tensordot(into, scatter, 1), pt.tensordot(into, of_noise, 1)
        inflation = pt.exp(pt.as_tensor(into) @ log_inflation)

        survey, there = data["survey"], data["present"].astype(float)
        pairs = there[:, :, None] * there[:, None, :]
        factor = inflation[survey]
        factor = factor[:, :, None] * factor[:, None, :]
        noise = factor * data["covariance"] + scatter[survey] + JITTER * np.eye(n)
        size = pt.sqrt(pt.diagonal(noise, axis1=1, axis2=2))
        noise = noise + size[:, :, None] * of_noise[survey] * size[:, None, :]
        noise = noise * pairs + np.eye(n) * (1.0 - pairs)
        precision = pt.linalg.inv(noise) * pairs
        design = np.eye(n) + trend[survey] @ inputs
        residual = (data["values"] - zero[survey]) * there
        side = precision @ design
        information = design.transpose(0, 2, 1) @ side
        vector = pt.sum(side * residual[:, :, None], axis=1)
        quadratic = pt.sum(residual * pt.sum(precision * residual[:, None, :], axis=2), axis=1)
        log_det = pt.linalg.slogdet(noise)[1]
        count = there.sum(axis=1)
        odds = logit[survey] + data["flagged"] * flag[survey]
        good = -pt.softplus(odds) - 0.5 * (quadratic + log_det + count * np.log(2 * np.pi))
        width = (pt.exp(log_width)[:, None] * structure.width)[survey]
        far = (data["values"] - structure.centre[survey]) / width
        wild = -0.5 * far**2 - pt.log(width) - 0.5 * np.log(2 * np.pi)
        bad = -pt.softplus(-odds) + pt.sum(wild * there, axis=1)

        slots, inlier = data["slots"], data["inlier"]
        keep = (inlier > 0).astype(float)
        j = pt.sum(information[slots] * keep[:, :, None, None], axis=1)
        h = pt.sum(vector[slots] * keep[:, :, None], axis=1)
        constant = pt.sum(good[slots] * keep + bad[slots] * (inlier < 0), axis=1)

        chol = np.linalg.cholesky(structure.mixture.covariance)
        inverse = np.linalg.inv(chol)
        weight = pt.zeros((structure.n_classes, 1))
        if k > 1:
            base = np.log(structure.mixture.weight / structure.mixture.weight[0])[1:]
            free_weight = pm.Normal("population_weight", 0.0, 1.5, shape=(structure.n_classes, k - 1))
            weight = pt.concatenate([weight, base + free_weight], axis=1)
            weight = pt.special.log_softmax(weight, axis=1)
        parts = []
        for c in range(k):
            triangle = pt.zeros((n, n))[upper].set(shape[c]) + pt.diag(pt.exp(diagonal[c]))
            population_root = triangle @ inverse[c]
            population = population_root.T @ population_root
            mean = structure.mixture.mean[c] + chol[c] @ shift[c]
            total, pull = j + population, population @ mean
            rhs = h + pull
            covariance = pt.linalg.inv(total)
            moved = pt.sum(rhs * pt.sum(covariance * rhs[:, None, :], axis=2), axis=1)
            log_root = 2.0 * (pt.sum(diagonal[c]) + np.log(np.diag(inverse[c])).sum())
            parts.append(
                constant
                + weight[data["member"], c]
                + 0.5 * (moved - pt.dot(pull, mean) - pt.linalg.slogdet(total)[1] + log_root)
            )
        cells = pt.logsumexp(pt.stack(parts), axis=0)
        padded = pt.switch(data["cells"] >= 0, cells[np.maximum(data["cells"], 0)], -1e30)
        pm.Potential("stars", pt.sum(pt.logsumexp(padded, axis=1)))
    return model


def peer(layout: Layout, batch: Batch, args: argparse.Namespace) -> tuple[dict[str, Any], float]:
    """NUTS in PyMC, and by how much its log-density changes otherwise than ours: both must be one model."""
    import pymc as pm

    model = pymc_model(layout.structure, batch)
    start = {name: np.asarray(value) for name, value in layout.parameters(layout.start).items()}
    value_and_gradient = model.logp_dlogp_function(ravel_inputs=True)
    value_and_gradient.set_extra_values({})
    order = [variable.name for variable in value_and_gradient._grad_vars]

    def density(shift):
        point = np.concatenate([np.ravel(start[name]) + shift for name in order])
        return float(value_and_gradient(point)[0])

    objective = Objective(layout, batch)
    theirs, here = density(0.1) - density(0.0), objective(layout.start)[0] - objective(layout.start + 0.1)[0]
    gradient = gradient_time(value_and_gradient, np.concatenate([np.ravel(start[name]) for name in order]))
    begun = time.perf_counter()
    with model:
        trace = pm.sample(
            draws=args.peer_draws,
            tune=args.peer_tune,
            chains=2,
            cores=2,
            init="adapt_diag",  # from the same start, without jitter
            initvals=start,
            random_seed=1,
            progressbar=False,
            compute_convergence_checks=False,
        )
    seconds = time.perf_counter() - begun
    parts = [trace.posterior[name].values.reshape(2, args.peer_draws, -1) for name in ("zero_point", "trend")]
    stats = trace.sample_stats
    line = row(
        "PyMC",
        np.concatenate(parts, axis=2),
        seconds,
        int(stats["diverging"].values.sum()),
        int(stats["n_steps"].values.sum()),
        gradient,
    )
    line["drawing_seconds"] = float(stats["perf_counter_diff"].values.sum(axis=1).max())
    return line, theirs - here


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stars", type=int, default=2000)
    parser.add_argument("--draws", type=int, default=900, help="of each of our four chains")
    parser.add_argument("--peer-tune", type=int, default=300)
    parser.add_argument("--peer-draws", type=int, default=150, help="of each of PyMC's two chains")
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmarks/surveys.json"))
    args = parser.parse_args()
    result: dict[str, Any] = {"device": describe_device(), "versions": versions(), "stars": args.stars}
    with jax.enable_x64(True):
        layout, batch = problem(args.stars)
        result["parameters"] = layout.size
        result["rows"] = [ours(layout, batch, args)]
        if not args.no_peer:
            line, difference = peer(layout, batch, args)
            result["rows"].append(line)
            result["versions"] |= {name: metadata.version(name) for name in ("pymc", "pytensor")}
            result["difference_of_log_density"] = difference
            for what in ("ess_min_per_second", "ess_median_per_second"):
                result[f"ratio_{what}"] = result["rows"][0][what] / line[what]
            # Ours with all that comes before the draws, theirs without any of it.
            rate = line["ess_min"] / line["drawing_seconds"]
            result["ratio_to_drawing_alone"] = result["rows"][0]["ess_min_per_second"] / rate
    for line in result["rows"]:
        print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in line.items()))
    print({k: v for k, v in result.items() if k.startswith(("ratio", "difference"))})
    args.output.parent.mkdir(parents=True, exist_ok=True)
    atomically(args.output, lambda path: path.write_text(json.dumps(result, indent=2)))


if __name__ == "__main__":
    main()
