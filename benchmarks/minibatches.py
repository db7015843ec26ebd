"""Many stars by minibatches: time, memory, and offsets beside chains on some of the same stars.

    python -m benchmarks.minibatches [--stars 20000 100000] [--subset 2000] [--output FILE]

Simulated skies (`jaxspec.surveys.simulate`: four surveys, nine labels, 10 % of the stars in common, 1 %
anchors) are fitted with `method="svi"`, each in a process of its own. For each: seconds with all compilation
included, the memory of the sky in its process before the fit and the most that the fit added to it (the
tables themselves grow with the stars and are not counted), and errors of the inferred offsets in standard
deviations against those planted. The first `--subset` stars of the largest sky are also fitted with
`method="nuts"`; offsets of dwarfs and giants, hot and cool, rich and poor, are then compared, in units of
the chains' standard deviation. Linux only (memory is read from /proc).
"""

import argparse
import json
import multiprocessing
import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.skies import standardised
from jaxspec.runs import atomically, describe_device, versions
from jaxspec.surveys.inference import fit
from jaxspec.surveys.model import SurveyConfig
from jaxspec.surveys.observations import Sky, make_sky
from jaxspec.surveys.results import Calibration
from jaxspec.surveys.simulate import PIVOT, SPREAD, SimulationConfig, simulate_sky

SEED = 0


def first_stars(sky: Sky, n: int) -> Sky:
    """The sky of the first `n` stars."""
    surveys = []
    for survey in sky.surveys:
        keep = survey.star < n
        rows = {name: getattr(survey, name)[keep] for name in ("star", "values", "covariance", "flagged")}
        surveys.append(replace(survey, **rows))
    return make_sky(sky.label_set, surveys, n, sky.group[:n])


def offsets(result: Calibration) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of all offsets for a star in the middle and one a spread away in each of
    the trends' labels."""
    stars = np.tile(result.scales.pivot, (4, 1))
    stars[:, :3] = PIVOT + SPREAD * np.concatenate([np.zeros((1, 3)), np.eye(3)])
    free = [name for name, anchor in zip(result.names, result.is_anchor, strict=True) if not anchor]
    found = [result.offset(name, stars) for name in free]
    return np.array([x[0] for x in found]), np.array([x[1] for x in found])


def spread(z: np.ndarray) -> dict[str, float]:
    """Summary of standardised differences."""
    return {
        "n": int(z.size),
        "sd": float(np.std(z)),
        "within_90": float(np.mean(np.abs(z) < 1.645)),
        "largest": float(np.abs(z).max()),
    }


def resident() -> float:
    """GB of memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e9


def fit_many(n_stars: int) -> tuple[dict[str, Any], tuple[np.ndarray, np.ndarray]]:
    """One line of the table, and the offsets."""
    sky, truth = simulate_sky(SEED, SimulationConfig(n_stars=n_stars))
    before = resident()
    most, done = before, threading.Event()

    def watch():
        nonlocal most
        while not done.wait(0.1):
            most = max(most, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    begun = time.perf_counter()
    result = fit(sky, SurveyConfig(), jax.random.key(SEED), "svi")
    seconds = time.perf_counter() - begun
    done.set()
    watcher.join()
    z = np.concatenate([np.array(x) for x in standardised(result, sky, truth).values()])
    line = {
        "stars": n_stars,
        "seconds": seconds,
        "gb_before": before,
        "gb_added": most - before,
        "against_planted": spread(z),
    }
    return line, offsets(result)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stars", type=int, nargs="+", default=[20_000, 100_000])
    parser.add_argument("--subset", type=int, default=2000)
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmarks/minibatches.json"))
    args = parser.parse_args()
    result: dict[str, Any] = {"device": describe_device(), "versions": versions(), "svi": []}
    for n_stars in sorted(args.stars):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            line, many = pool.apply(fit_many, (n_stars,))
        result["svi"].append(line)
        print(json.dumps(line), flush=True)
    sky, _ = simulate_sky(SEED, SimulationConfig(n_stars=max(args.stars)))
    chains = fit(first_stars(sky, args.subset), SurveyConfig(), jax.random.key(SEED), "nuts")
    few = offsets(chains)
    result["nuts"] = {"stars": args.subset, **vars(chains.diagnostics)}
    result["svi_minus_nuts"] = spread((many[0] - few[0]) / few[1])
    result["sd_svi_over_nuts"] = float(np.median(many[1] / few[1]))
    print(json.dumps({name: result[name] for name in ("nuts", "svi_minus_nuts", "sd_svi_over_nuts")}))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    atomically(args.output, lambda path: path.write_text(json.dumps(result, indent=2)))


if __name__ == "__main__":
    main()
