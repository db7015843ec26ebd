"""What each diagnostic can see: posteriors with one planted fault of known size, and the share of them that
fails.

Stars have Gaussian posteriors whose widths spread over two decades about an eighth of the population's, with
correlated labels. All faults are of the draws; truths are what they should be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from jaxspec.diagnostics.bands import LEVEL, uniformity
from jaxspec.diagnostics.calibration import (
    calibration_error,
    chance_calibration_error,
    near_tarp_ranks,
    ranks,
    tarp_ranks,
)
from jaxspec.diagnostics.classifier import local_test
from jaxspec.errors import InputError

FALSE_ALARM = 1.0 - LEVEL
N_LABELS, CORRELATION = 9, 0.5
MOST_LOCAL = 1000  # stars of the local test, as in reports

Fault = tuple[str, float]
FAULTS: tuple[Fault, ...] = (
    ("none", 0.0),
    *(("errors times", size) for size in (0.1, 0.3, 0.5, 0.8, 0.9, 0.95, 1.05, 1.1, 1.25, 2.0, 3.0)),
    *(("bias in sigma", size) for size in (0.05, 0.1, 0.3, 1.0, 3.0)),
    *(("errors of one label times", size) for size in (0.5, 0.8, 1.25)),
    *(("errors of a tenth of the stars times", size) for size in (0.3, 0.5, 3.0)),
    ("heavy tails, t of degrees", 3.0),
    ("two labels swapped", 1.0),
    ("correlations left out", 1.0),
    ("draws of another star", 1.0),
)


def stars_with(
    rng: np.random.Generator, fault: Fault, n: int, n_draws: int
) -> tuple[Float[np.ndarray, "n l"], Float[np.ndarray, "s n l"]]:
    """Truths of `n` stars and posterior draws that have the fault.

    Raises: InputError for an unknown fault.
    """
    name, size = fault
    width = 0.125 * 10.0 ** rng.uniform(-1.0, 1.0, (n, 1))
    root = np.linalg.cholesky((1.0 - CORRELATION) * np.eye(N_LABELS) + CORRELATION)
    centre = rng.normal(size=(n, N_LABELS))
    truth = centre + width * (rng.normal(size=(n, N_LABELS)) @ root.T)
    z = rng.normal(size=(n_draws, n, N_LABELS))
    if name == "heavy tails, t of degrees":
        # Of the same variance, so that only the shape is wrong.
        z *= np.sqrt((size - 2.0) / rng.chisquare(size, (n_draws, n, 1)))
    error = z if name == "correlations left out" else z @ root.T
    if name == "errors times":
        error *= size
    elif name == "bias in sigma":
        error += size
    elif name == "errors of one label times":
        error[..., 0] *= size
    elif name == "errors of a tenth of the stars times":
        error[:, rng.random(n) < 0.1] *= size
    draws = centre + width * error
    if name == "two labels swapped":
        draws[..., [0, 1]] = draws[..., [1, 0]]
    elif name == "draws of another star":
        draws = np.roll(draws, 1, axis=1)
    elif name not in {known for known, _ in FAULTS}:
        raise InputError(
            "fault", repr(name), f"one of {sorted({k for k, _ in FAULTS})}", "choose one of these"
        )
    return truth, draws


def _ranks_fail(truth, draws):
    return uniformity(ranks(truth, draws), len(draws)).min() <= FALSE_ALARM / truth.shape[1]


def _coverage_fails(truth, draws):
    # Without the tolerance of reports, which forgives what does not matter.
    chance = chance_calibration_error(len(truth), len(draws), 1.0 - FALSE_ALARM / truth.shape[1])
    return calibration_error(truth, draws).max() > chance


def _tarp_fails(truth, draws):
    return uniformity(tarp_ranks(truth, draws)[:, None], len(draws))[0] <= FALSE_ALARM


def _near_tarp_fails(truth, draws):
    ranked = len(draws) - len(draws) // 2
    return uniformity(near_tarp_ranks(truth, draws)[:, None], ranked)[0] <= FALSE_ALARM


def _local_fails(truth, draws):
    first = slice(0, MOST_LOCAL)
    return local_test(truth[first], draws[:, first]).p_global <= FALSE_ALARM


DIAGNOSTICS: dict[str, Callable[[np.ndarray, np.ndarray], bool]] = {
    "ranks": _ranks_fail,
    "coverage": _coverage_fails,
    "tarp": _tarp_fails,
    "tarp near": _near_tarp_fails,
    "lc2st": _local_fails,
}


def power(
    fault: Fault,
    n: int,
    sets: int,
    diagnostics: Sequence[str] = tuple(DIAGNOSTICS),
    n_draws: int = 200,
    seed: int = 0,
) -> dict[str, float]:
    """Share of `sets` sets of `n` stars with a fault that each diagnostic fails, at 1 % of false alarms."""
    failed = dict.fromkeys(diagnostics, 0)
    for i in range(sets):
        stars = stars_with(np.random.default_rng([seed, i, n]), fault, n, n_draws)
        for name in diagnostics:
            failed[name] += bool(DIAGNOSTICS[name](*stars))
    return {name: count / sets for name, count in failed.items()}
