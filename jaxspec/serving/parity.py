"""Whether exported files do what the model does, on spectra of every awkward kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from jaxspec.amortised.amortised import AmortisedPosterior
from jaxspec.errors import InputError
from jaxspec.physics.forward import Nuisances

N_STARS, N_DRAWS = 256, 4
TOLERANCE = 5e-6  # relative: to the size of a number, or to the range of a label
SLACK = 4.0  # times what rounding of the inputs does in JAX itself

Run = Callable[[str, Mapping[str, np.ndarray]], dict[str, np.ndarray]]
"""Runs the graph of a name on its inputs."""


def posterior_inputs(posterior: AmortisedPosterior, n: int = N_STARS, seed: int = 0) -> dict[str, np.ndarray]:
    """Raw spectra with noise of S/N 5 to 300, on any flux scale, with noise to draw by and labels to judge.

    Every fourth spectrum lacks an arm or has stretches of masked pixels, whose flux is NaN; the first has no
    pixel at all. The first labels are a millionth of their range inside of their bounds.
    """
    rng, instrument, label_set = np.random.default_rng(seed), posterior.instrument, posterior.label_set
    width = label_set.high - label_set.low
    labels = label_set.low + width * rng.uniform(0.02, 0.98, (N_DRAWS, n, len(label_set)))
    few = min(16, n)
    edge = rng.random((few, len(label_set))) < 0.5
    labels[0, :few] = np.where(edge, label_set.low + 1e-6 * width, labels[0, :few])
    labels[1, :few] = label_set.high - 1e-6 * width
    flux = _clean(posterior, rng, n)
    snr = np.exp(rng.uniform(np.log(5.0), np.log(300.0), n))[:, None]
    flux = flux + rng.normal(size=flux.shape) / snr
    ivar = np.broadcast_to(snr**2, flux.shape).copy()
    slices = list(instrument.slices.values())
    for i in range(0, n, 4):
        ivar[i, slices[(i // 4) % len(slices)]] = 0.0
    for i in range(1, n, 4):
        start = rng.integers(0, flux.shape[1])
        ivar[i, start : start + flux.shape[1] // 10] = 0.0
        ivar[i, rng.random(flux.shape[1]) < 0.05] = 0.0
    ivar[0] = 0.0
    scale = np.exp(rng.normal(0.0, 3.0, (n, 1)))
    return {
        "flux": np.where(ivar > 0.0, flux * scale, np.nan).astype(np.float32),
        "ivar": (ivar / scale**2).astype(np.float32),
        "noise": rng.normal(size=labels.shape).astype(np.float32),
        "labels": labels.astype(np.float32),
    }


def _clean(posterior: AmortisedPosterior, rng: np.random.Generator, n: int) -> Float[np.ndarray, "n p"]:
    """Noiseless spectra: by the forward model of a network that has one, else about the mean spectrum."""
    network, label_set = posterior.network, posterior.label_set
    mean, scale = (np.asarray(x[...]) for x in (network.encoder.mean, network.encoder.scale))
    if network.linear_fit is None:
        return mean + scale * rng.normal(size=(n, 1)) * rng.normal(size=(1, mean.size))
    key = jax.random.key(int(rng.integers(1 << 31)))
    if posterior.prior is not None:
        labels = posterior.prior.sample(key, n)
    else:
        labels = label_set.low + (label_set.high - label_set.low) * rng.uniform(0.3, 0.7, (n, len(label_set)))
    nuisances = np.tile([1.2, 3.0, 3.0, 0.0, 0.95], (n, 1)) + 0.1 * rng.normal(size=(n, 5))
    forward = network.linear_fit.forward
    one = jax.jit(lambda row, nuisance: forward(row, Nuisances(*nuisance)))
    rows = zip(labels.astype(np.float32), nuisances.astype(np.float32), strict=True)
    return np.stack([np.asarray(one(*row)) for row in rows])


def chain(run: Run, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The numbers that users get from the four graphs of a posterior, one after the other."""
    prepared = run("prepare", {k: inputs[k] for k in ("flux", "ivar")})
    context = run("encode", prepared)["context"]
    drawn = run("sample", {"context": context, "noise": inputs["noise"]})
    judged = run("log_prob", {"context": context, "labels": inputs["labels"]})
    return {
        "normalised_flux": prepared["normalised_flux"],
        "labels": drawn["labels"],
        "log_prob of draws": drawn["log_prob"],
        "log_prob": judged["log_prob"],
    }


def nudged(inputs: Mapping[str, np.ndarray], seed: int = 1) -> dict[str, np.ndarray]:
    """The same inputs, each number moved by up to one unit of its last place; but labels, as beside a bound
    the density truly changes by that."""
    rng = np.random.default_rng(seed)
    moved = dict(inputs)
    for name in inputs.keys() - {"labels"}:
        up = np.where(rng.random(inputs[name].shape) < 0.5, np.inf, -np.inf).astype(np.float32)
        moved[name] = np.where(inputs[name] == 0.0, inputs[name], np.nextafter(inputs[name], up))
    return moved


def differences(
    found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], ranges: Mapping[str, Any]
) -> dict[str, Float[np.ndarray, ...]]:
    """Relative differences of each quantity, infinite where only one is finite: to the number itself or
    `ranges` (1 where there is none), whichever is larger."""
    result = {}
    for name, right in expected.items():
        size = np.maximum(
            np.abs(np.nan_to_num(right, nan=0.0, posinf=0.0, neginf=0.0)), ranges.get(name, 1.0)
        )
        same = (found[name] == right) | (np.isnan(found[name]) & np.isnan(right))
        with np.errstate(invalid="ignore"):
            off = np.abs(np.asarray(found[name], float) - right) / size
        result[name] = np.where(same, 0.0, np.where(np.isfinite(off), off, np.inf))
    return result


def judge(
    where: str,
    found: Mapping[str, np.ndarray],
    expected: Mapping[str, np.ndarray],
    rounded: Mapping[str, np.ndarray],
    ranges: Mapping[str, Any],
) -> dict[str, dict[str, float]]:
    """The largest and median differences by quantity, and what they may be: `TOLERANCE`, or `SLACK` times
    what the model itself changes by when its inputs are rounded elsewhere (`rounded`), which no other program
    can beat.

    Raises: InputError naming the quantity that differs by more, or is finite in one of the two only.
    """
    report: dict[str, Any] = {}
    off, floor = differences(found, expected, ranges), differences(rounded, expected, ranges)
    for name in expected:
        values = report[name] = {}
        for kind, summary in (("largest", np.max), ("median", np.median)):
            rounding = float(summary(floor[name][np.isfinite(floor[name])]))
            limit = max(TOLERANCE, SLACK * rounding)
            difference = float(summary(off[name]))
            values |= {kind: difference, f"{kind}_allowed": limit, f"{kind}_of_rounding": rounding}
            if not difference <= limit:
                at = tuple(int(i) for i in np.unravel_index(np.argmax(off[name]), off[name].shape))
                raise InputError(
                    f"{where}, {name}",
                    f"a {kind} relative difference of {difference:.1e} from the model (worst at {at})",
                    f"at most {limit:.1e}",
                    "nothing was written: report it with the versions of jax2onnx and onnxruntime",
                )
    return report
