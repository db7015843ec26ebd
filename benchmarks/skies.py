"""Many simulated skies: are the intervals of offsets right, and what is gained over polynomials?

    python -m benchmarks.skies [--skies 50] [--stars 2000] [--method nuts] [--draws 200] [--output FILE]

Each sky has four surveys, nine labels, 10 % of the stars in common and 1 % anchors
(`jaxspec.surveys.simulate`). Standardised errors of all zero points and trends must be standard normal. The
calibrated labels of stars without an outlier are compared with what polynomials of differences make of the
same rows (`jaxspec.surveys.pairwise`, the better of first and second degree, label by label). The output file
has a line for every sky; those that are finished are kept in a folder beside it, from which a run that was
killed goes on.
"""

import argparse
import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from scipy import stats

from jaxspec.labels import NINE_LABELS
from jaxspec.runs import atomically, resumable
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


def run_skies(n: int, n_stars: int, method: str, draws: int, folder: Path | None) -> Iterator[dict[str, Any]]:
    """Of each sky its seed, seconds, and results of `standardised` and `errors`; kept in `folder`."""
    simulation, model = SimulationConfig(n_stars=n_stars), SurveyConfig()
    how = FitConfig(nuts=NutsConfig(chains=2, draws=draws))
    settings = {"simulation": simulation, "model": model, "method": method, "fit": how}

    def measure(seed: int) -> dict[str, Any]:
        sky, truth = simulate_sky(seed, simulation)
        begun = time.perf_counter()
        result = fit(sky, model, jax.random.key(seed), method, how)
        seconds = {"seconds": time.perf_counter() - begun}
        parts = {"z": standardised(result, sky, truth), "rms": errors(result, sky, truth)}
        return seconds | {f"{part}/{name}": x for part, all_of in parts.items() for name, x in all_of.items()}

    for seed, item in enumerate(resumable([f"sky_{seed}" for seed in range(n)], settings, folder)):
        line: dict[str, Any] = {"seed": seed, "z": {}, "rms": {}}
        for name, array in item.result(partial(measure, seed)).items():
            part, _, term = name.partition("/")
            if term:
                line[part][term] = array.tolist()
            else:
                line[part] = array.item()
        yield line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--skies", type=int, default=50)
    parser.add_argument("--stars", type=int, default=2000)
    parser.add_argument("--method", default="nuts")
    parser.add_argument("--draws", type=int, default=200, help="of each of two chains of NUTS")
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmarks/skies.jsonl"))
    args = parser.parse_args()
    what = {"stars": args.stars, "method": args.method, "draws": args.draws}
    lines = []
    for line in run_skies(args.skies, args.stars, args.method, args.draws, args.output.with_suffix("")):
        seed = line["seed"]
        lines.append({"seed": seed, **what, **line})
        text = "".join(json.dumps(x) + "\n" for x in lines)
        atomically(args.output, lambda path, text=text: path.write_text(text))
        z = np.concatenate(list(line["z"].values()))
        print(
            f"sky {seed}: {np.mean(np.abs(z) < 1.645):.3f} within 90 %, {line['seconds']:.0f} s", flush=True
        )
    print(json.dumps(summary(lines), indent=2))


if __name__ == "__main__":
    main()
