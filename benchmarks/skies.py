"""Many simulated skies: are the intervals of offsets right, and what is gained over polynomials?

    python -m benchmarks.skies [--skies 50] [--stars 2000] [--method nuts] [--draws 200] [--output FILE]

Each sky has four surveys, nine labels, 10 % of the stars in common and 1 % anchors
(`jaxspec.surveys.simulate`). Standardised errors of all zero points and trends must be standard normal. The
calibrated labels of stars without an outlier are compared with what polynomials of differences make of the
same rows (`jaxspec.surveys.pairwise`, the better of first and second degree, label by label). Every finished
sky is a line of the output file: a run that was killed goes on from there.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from scipy import stats

from jaxspec.labels import NINE_LABELS
from jaxspec.surveys.inference import FitConfig, fit
from jaxspec.surveys.model import SurveyConfig
from jaxspec.surveys.observations import Sky
from jaxspec.surveys.pairwise import pairwise_labels
from jaxspec.surveys.predict import calibrate_sky
from jaxspec.surveys.results import Calibration
from jaxspec.surveys.sampling import NutsConfig
from jaxspec.surveys.simulate import SPREAD, SimulationConfig, Truth, simulate_sky

# Units of the trends in the table of offsets: per 1000 K and per dex.
UNIT = np.array([1000.0, 1.0, 1.0])
TERMS = ("zero_point", "teff", "logg", "fe_h")


def standardised(result: Calibration, sky: Sky, truth: Truth) -> dict[str, list[float]]:
    """Errors of zero points and trends in units of their standard deviations, by term."""
    table = result.offsets()
    pivot = result.scales.pivot[None]
    free = {survey.name: s for s, survey in enumerate(sky.surveys) if not survey.anchor}
    z: dict[str, list[float]] = {term: [] for term in TERMS}
    for row in table:
        if row["term"] in z and row["label"] in NINE_LABELS.names:
            s, label = free[row["survey"]], NINE_LABELS.index(row["label"])
            if row["term"] == "zero_point":
                planted = truth.offset(s, pivot)[0, label]
            else:
                j = TERMS.index(row["term"]) - 1
                planted = truth.trend[s, label, j] / SPREAD[j] * UNIT[j]
            z[row["term"]].append(float((row["mean"] - planted) / row["sd"]))
    return z


def errors(result: Calibration, sky: Sky, truth: Truth) -> dict[str, list[float]]:
    """Root mean square errors of calibrated labels over good rows, by label: of the joint model, of the
    better polynomial, and of the values as reported."""
    joint = calibrate_sky(result, sky).mean
    polynomials = [pairwise_labels(sky, degree) for degree in (1, 2)]
    found: dict[str, list[np.ndarray]] = {"joint": [], "degree_1": [], "degree_2": [], "reported": []}
    for s, survey in enumerate(sky.surveys):
        if survey.anchor:
            continue
        good = ~truth.outlier[s][:, None] & np.isfinite(survey.values)
        good &= np.isfinite(polynomials[1][s]) & np.isfinite(polynomials[0][s])
        true = truth.labels[survey.star]
        for name, values in (
            ("joint", joint[survey.star]),
            ("degree_1", polynomials[0][s]),
            ("degree_2", polynomials[1][s]),
            ("reported", survey.values),
        ):
            found[name].append(np.where(good, values - true, np.nan))
    rms = {name: np.sqrt(np.nanmean(np.concatenate(x) ** 2, axis=0)) for name, x in found.items()}
    rms["pairwise"] = np.minimum(rms.pop("degree_1"), rms.pop("degree_2"))
    return {name: x.tolist() for name, x in rms.items()}


def summary(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Coverage, spread and normality by term over all skies, and the joint model's gain by label."""
    out: dict[str, Any] = {"skies": len(lines), "seconds": float(np.median([x["seconds"] for x in lines]))}
    for term in TERMS:
        by_sky = np.array([x["z"][term] for x in lines])
        # Offsets of one sky go together; those of one survey and label in many skies are independent.
        each = stats.kstest(by_sky, "norm", axis=0).pvalue
        z = by_sky.ravel()
        out[term] = {
            "n": len(z),
            "coverage_90": float(np.mean(np.abs(z) < stats.norm.ppf(0.95))),
            "mean": float(z.mean()),
            "sd": float(z.std()),
            "ks_p": float(stats.kstest(z, "norm").pvalue),
            "ks_of_each_below_0.05": float(np.mean(each < 0.05)),
            "ks_of_each_smallest": float(each.min()),
        }
    rms = {
        name: np.sqrt(np.mean(np.square([x["rms"][name] for x in lines]), axis=0)) for name in lines[0]["rms"]
    }
    out["rms"] = {name: dict(zip(NINE_LABELS.names, x.tolist(), strict=True)) for name, x in rms.items()}
    gain = rms["pairwise"] / rms["joint"]
    out["pairwise_over_joint"] = dict(zip(NINE_LABELS.names, gain.tolist(), strict=True))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--skies", type=int, default=50)
    parser.add_argument("--stars", type=int, default=2000)
    parser.add_argument("--method", default="nuts")
    parser.add_argument("--draws", type=int, default=200, help="of each of two chains of NUTS")
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmarks/skies.jsonl"))
    args = parser.parse_args()
    args.output.parent.mkdir(parents=True, exist_ok=True)
    what = {"stars": args.stars, "method": args.method, "draws": args.draws}
    settings = FitConfig(nuts=NutsConfig(chains=2, draws=args.draws))
    lines = []
    if args.output.exists():
        lines = [json.loads(line) for line in args.output.read_text().splitlines()]
        lines = [x for x in lines if {k: x[k] for k in what} == what and x["seed"] < args.skies]
    for seed in sorted(set(range(args.skies)) - {x["seed"] for x in lines}):
        sky, truth = simulate_sky(seed, SimulationConfig(n_stars=args.stars))
        begun = time.perf_counter()
        result = fit(sky, SurveyConfig(), jax.random.key(seed), args.method, settings)
        line = {
            "seed": seed,
            **what,
            "seconds": time.perf_counter() - begun,
            "z": standardised(result, sky, truth),
            "rms": errors(result, sky, truth),
        }
        lines.append(line)
        with args.output.open("a") as file:
            file.write(json.dumps(line) + "\n")
        z = np.concatenate(list(line["z"].values()))
        print(
            f"sky {seed}: {np.mean(np.abs(z) < 1.645):.3f} within 90 %, {line['seconds']:.0f} s", flush=True
        )
    print(json.dumps(summary(lines), indent=2))


if __name__ == "__main__":
    main()
