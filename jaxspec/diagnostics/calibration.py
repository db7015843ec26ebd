"""How good are posteriors whose truth is known: bias, scatter, coverage and simulation-based calibration, of
all stars and by signal-to-noise and label.

Everything is plain NumPy over `truth [n_star, n_label]` and `draws [n_draws, n_star, n_label]`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from jaxspec.diagnostics.bands import uniformity
from jaxspec.errors import InputError

LEVELS = np.linspace(0.05, 0.95, 19)
AWAY = 3.0  # of a reference from the mean of a posterior, in its standard deviations (root mean square)
SNR_BINS = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)
LABEL_BINS = {
    "teff": (3000.0, 4500.0, 5000.0, 5500.0, 6000.0, 6500.0, 8000.0),
    "logg": (0.0, 1.0, 2.0, 3.0, 4.0, 4.5, 5.5),
    "fe_h": (-5.0, -2.0, -1.5, -1.0, -0.5, 0.0, 1.0),
}


def robust_scatter(x: Float[np.ndarray, n * l]) -> Float[np.ndarray, "*l"]:
    """The median absolute deviation from the median along the first axis, as the standard deviation of the
    Gaussian that has it."""
    return np.asarray(stats.median_abs_deviation(x, axis=0, scale="normal"))


def check_draws(
    truth: Float[np.ndarray, "n l"], draws: Float[np.ndarray, "s ..."]
) -> tuple[Float[np.ndarray, "n l"], Float[np.ndarray, "s n l"]]:
    """Truth and draws as arrays.

    Raises: InputError when they are not of the same stars and labels.
    """
    truth, draws = np.asarray(truth), np.asarray(draws)
    if draws.ndim != 3 or draws.shape[1:] != truth.shape:
        raise InputError(
            "calibration: draws",
            f"shape {draws.shape}",
            f"[n_draws, {truth.shape}]",
            "give the draws of the same stars and labels",
        )
    return truth, draws


def ranks(
    truth: Float[np.ndarray, "n l"], draws: Float[np.ndarray, "s n l"], seed: int = 0
) -> Int[np.ndarray, "n l"]:
    """Number of draws below the truth, uniform on 0 ... s for exact posteriors (simulation-based calibration,
    Talts et al. 2018, arXiv:1804.06788).

    The truth's place among draws that equal it is random, from `seed`: a truth at a bound where many draws
    lie, or one that was rounded as the draws were, has no place of its own.
    """
    truth, draws = check_draws(truth, draws)
    return _place(np.sum(draws < truth, axis=0), np.sum(draws == truth, axis=0), seed)


def _place(below: np.ndarray, equal: np.ndarray, seed: int) -> np.ndarray:
    """Ranks with ties broken evenly at random."""
    if not equal.any():
        return below
    return below + np.random.default_rng(seed).integers(0, equal, endpoint=True)


def coverage(
    truth: Float[np.ndarray, "n l"],
    draws: Float[np.ndarray, "s n l"],
    levels: Float[np.ndarray, " q"] = LEVELS,
) -> Float[np.ndarray, "q l"]:
    """Fraction of stars whose truth lies in the central interval of each nominal level."""
    # Half a step inwards: with s draws the truth's rank has s + 1 places.
    u = (ranks(truth, draws) + 0.5) / (draws.shape[0] + 1)
    return np.mean(2.0 * np.abs(u - 0.5) < np.asarray(levels)[:, None, None], axis=1)


def calibration_error(
    truth: Float[np.ndarray, "n l"],
    draws: Float[np.ndarray, "s n l"],
    levels: Float[np.ndarray, " q"] = LEVELS,
) -> Float[np.ndarray, " l"]:
    """Mean absolute difference between empirical and nominal coverage of the central intervals, per label."""
    return np.mean(np.abs(coverage(truth, draws, levels) - np.asarray(levels)[:, None]), axis=0)


def chance_calibration_error(n: int, n_draws: int, level: float = 0.99) -> float:
    """Calibration error that an exact posterior of `n` stars exceeds with probability 1 - `level`, by
    simulation (10,000 sets, to a few per cent)."""
    u = (np.arange(n_draws + 1) + 0.5) / (n_draws + 1)
    exact = np.mean(2.0 * np.abs(u - 0.5) < LEVELS[:, None], axis=1)
    counts = np.random.default_rng(0).multinomial(n, np.diff(exact, prepend=0.0, append=1.0), 10_000)
    covered = np.cumsum(counts[:, :-1], axis=1) / n
    return float(np.quantile(np.mean(np.abs(covered - LEVELS), axis=1), level))


def tarp_ranks(
    truth: Float[np.ndarray, "n l"], draws: Float[np.ndarray, "s n l"], seed: int = 0
) -> Int[np.ndarray, " n"]:
    """Number of draws nearer to a random point than the truth is: uniform on 0 ... s for posteriors that are
    right in all labels at once (TARP, Lemos et al. 2023, arXiv:2302.03026, algorithm 2).

    The random point of a star is another star's truth; distances are in units of the truths' scatter. What
    is seen beside `ranks` are wrong correlations between labels.
    """
    truth, draws = np.asarray(truth, float), np.asarray(draws)
    n = len(truth)
    if n < 2:
        raise InputError("tarp_ranks: truth", f"{n} stars", "two or more", "give more stars")
    scale = np.maximum(robust_scatter(truth), 1e-12)
    # Moved on along one random circle, no star is its own reference.
    order = np.random.default_rng(seed).permutation(n)
    reference = np.empty_like(truth)
    reference[order] = truth[np.roll(order, 1)]
    far = np.sum(np.square((truth - reference) / scale), axis=1)
    away = np.sum(np.square((draws - reference) / scale), axis=2)
    return _place(np.sum(away < far, axis=0), np.sum(away == far, axis=0), seed)


def near_tarp_ranks(
    truth: Float[np.ndarray, "n l"], draws: Float[np.ndarray, "s n l"], seed: int = 0
) -> Int[np.ndarray, " n"]:
    """As `tarp_ranks`, with reference points near each star's posterior and distances in units of its width;
    uniform on 0 ... s - s // 2.

    Seen from another star, a narrow posterior is a point, and the distance to it one projection of the
    errors: with errors much smaller than the population `tarp_ranks` sees little. Here the reference is the
    mean of the posterior plus `AWAY` of its standard deviations in a random direction. Both are those of half
    of the draws and the other half is ranked, as a reference may depend on the spectrum but on nothing that
    it is compared with.

    Raises: InputError for fewer than four draws.
    """
    truth, draws = check_draws(truth, draws)
    half = len(draws) // 2
    if half < 2:
        raise InputError("near_tarp_ranks: draws", f"{len(draws)}", "four or more", "draw more")
    mean, scale = draws[:half].mean(axis=0), np.maximum(draws[:half].std(axis=0), 1e-12)
    away = np.random.default_rng(seed).normal(size=truth.shape)
    away *= AWAY * np.sqrt(truth.shape[1]) / np.linalg.norm(away, axis=1, keepdims=True)
    far = np.sum(np.square((truth - mean) / scale - away), axis=1)
    distance = np.sum(np.square((draws[half:] - mean) / scale - away), axis=2)
    return _place(np.sum(distance < far, axis=0), np.sum(distance == far, axis=0), seed)


def summarise(
    truth: Float[np.ndarray, "n l"],
    draws: Float[np.ndarray, "s n l"],
    snr: Float[np.ndarray, " n"],
    label_names: Sequence[str],
    bound: Float[np.ndarray, "n l"] | None = None,
    bins: Sequence[float] = SNR_BINS,
) -> dict[str, Any]:
    """All measures as nested plain numbers, ready for JSON: for all stars, and for each bin of S/N, Teff,
    log g and [Fe/H] that holds at least ten.

    Bins in a label are of its posterior median, never of the truth: of stars chosen by their truth even an
    exact posterior has another coverage (near the edge of a prior it errs to one side), while what is known
    from the data alone may choose stars freely.

    Args:
        snr: signal-to-noise per pixel of each star.
        bound: smallest possible standard error of each star's labels (`jaxspec.diagnostics.cramer_rao`), if
            known.
        bins: edges in S/N; those of the labels are `LABEL_BINS`.

    Returns: `{"all": {...}, "by_snr": [{"snr": [low, high], ...}, ...], "by_teff": ...}`; each holds `n` and,
        for every label under `labels`, `bias` (median of estimate minus truth), `scatter` (robust), `error`
        (median stated error), `pull` (robust scatter in units of the stated error), `calibration_error`,
        `coverage_68`, `sbc_p` (p-value that ranks are uniform) and, with `bound`, `over_bound` (robust
        scatter of (estimate - truth) / bound); and for all labels at once `tarp_p` and `tarp_near_p`, the
        p-values that `tarp_ranks` and `near_tarp_ranks` are uniform.
    """
    truth, draws, snr = np.asarray(truth, float), np.asarray(draws), np.asarray(snr, float)
    p16, median, p84 = np.quantile(draws, [0.16, 0.5, 0.84], axis=0)
    offset, error = median - truth, 0.5 * (p84 - p16)

    def measure(rows):
        values = {
            "bias": np.median(offset[rows], axis=0),
            "scatter": robust_scatter(offset[rows]),
            "error": np.median(error[rows], axis=0),
            "pull": robust_scatter(offset[rows] / np.maximum(error[rows], 1e-12)),
            "calibration_error": calibration_error(truth[rows], draws[:, rows]),
            "coverage_68": coverage(truth[rows], draws[:, rows], np.array([0.68]))[0],
            "sbc_p": uniformity(ranks(truth[rows], draws[:, rows]), draws.shape[0]),
        }
        if bound is not None:
            values["over_bound"] = robust_scatter(offset[rows] / np.asarray(bound)[rows])
        labels = {name: {key: float(v[i]) for key, v in values.items()} for i, name in enumerate(label_names)}
        far = uniformity(tarp_ranks(truth[rows], draws[:, rows])[:, None], draws.shape[0])[0]
        near = near_tarp_ranks(truth[rows], draws[:, rows])[:, None]
        near = uniformity(near, draws.shape[0] - draws.shape[0] // 2)[0]
        return {"n": int(rows.sum()), "labels": labels, "tarp_p": float(far), "tarp_near_p": float(near)}

    out = {"all": measure(np.ones(len(snr), bool))}
    medians = {name: median[:, i] for i, name in enumerate(label_names) if name in LABEL_BINS}
    for name, values in {"snr": snr, **medians}.items():
        out[f"by_{name}"] = []
        for low, high in itertools.pairwise(bins if name == "snr" else LABEL_BINS[name]):
            rows = (values >= low) & (values < high)
            if rows.sum() >= 10:
                out[f"by_{name}"].append({name: [float(low), float(high)], **measure(rows)})
    return out


def format_summary(summary: dict[str, Any], units: Sequence[str] | None = None) -> str:
    """The summary as a text table: one line per label, and one for all labels at once; all stars."""
    labels = summary["all"]["labels"]
    keys = list(next(iter(labels.values())))
    lines = [f"{'label':<8}" + "".join(f"{key:>18}" for key in keys)]
    for i, (name, values) in enumerate(labels.items()):
        unit = f" [{units[i]}]" if units else ""
        lines.append(f"{name + unit:<8}" + "".join(f"{values[key]:>18.4g}" for key in keys))
    far, near = (summary["all"][key] for key in ("tarp_p", "tarp_near_p"))
    lines.append(f"all labels at once (TARP): p = {far:.3g}, near the posteriors {near:.3g}")
    return "\n".join(lines)
