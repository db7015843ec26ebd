"""Recalibration after the fact: the marginal posteriors of a network, stretched and shifted so that simulated
truths lie in them as often as they should at their S/N.

A split conformal predictive system (Vovk, Petej, Nouretdinov, Manokhin & Gammerman 2020, Neurocomputing 397,
292) whose score is the error in units of the star's own posterior, above and below its median, and whose
calibration set is local: simulations of about the same S/N with the same arms. Medians and the ends of
central 68 % intervals then hold what they state for any network, on average over the stars of the
simulations; the order of the draws in each label, and so how labels go together, stays.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from jaxspec.errors import InputError
from jaxspec.labels import LabelSet
from jaxspec.posterior.results import Posterior

# Levels at which draws and truths are matched: whole and half standard deviations of a Gaussian.
LEVELS = stats.norm.cdf(np.arange(-2.0, 2.01, 0.5))
N_KNOTS = 7
# Simulations that a knot needs: 8 beyond each outermost level.
FEWEST = 350


@dataclass(frozen=True)
class Recalibration:
    """What is made of standardised draws at each S/N, linear in its logarithm, constant beyond the ends.

    Attributes:
        labels: names of the labels, in the order of the tables.
        snr: S/N per pixel at which the tables are stated, increasing.
        drawn: for each set of observed arms (`hr10+hr21`), knot, label and one of `LEVELS`, the quantile of
            the network's draws, as differences from the star's median in units of its half-widths.
        found: the same of the truths: where draws at `drawn` are put.
    """

    labels: tuple[str, ...]
    snr: tuple[float, ...]
    drawn: Mapping[str, Any]
    found: Mapping[str, Any]

    @classmethod
    def fit(cls, posterior: Posterior, truth: Float[np.ndarray, "n l"], arms: np.ndarray) -> Recalibration:
        """From the network's posteriors of simulated spectra of known labels, and their sets of `arms` (see
        `observed_arms`), over the S/N of the simulations. Sets of arms with few spectra are left out.

        Raises: InputError when there are too few spectra.
        """
        draws, truths = _standardise(posterior, truth)
        log_snr = np.log(np.maximum(posterior.snr, 1e-3))
        low, high = np.quantile(log_snr, [0.005, 0.995])
        knots = np.linspace(low, high, N_KNOTS)
        drawn, found = {}, {}
        for which in np.unique(arms):
            rows = np.flatnonzero(arms == which)
            if len(rows) < FEWEST:
                continue
            n = max(FEWEST, len(rows) // 5)
            near = [rows[np.argsort(np.abs(log_snr[rows] - x), kind="stable")[:n]] for x in knots]
            # The positions (n + 1) p make the quantiles conformal: a new truth is below with probability p.
            here = [np.quantile(truths[some], LEVELS, axis=0, method="weibull").T for some in near]
            found[str(which)] = np.round(here, 5).tolist()
            drawn[str(which)] = np.round([_pooled(draws[:, some]) for some in near], 5).tolist()
        if not found:
            raise InputError(
                "recalibration",
                f"{len(arms)} spectra",
                f"{FEWEST} or more with the same arms",
                "simulate more",
            )
        return cls(posterior.label_set.names, tuple(np.exp(knots).tolist()), drawn, found)

    def apply(self, posterior: Posterior, arms: np.ndarray) -> Posterior:
        """The recalibrated posterior, with the network's own draws kept as `raw`. `stats` gains
        `recalibrated`: 0 for stars whose set of arms was not calibrated, and which stay as they are.

        Raises: InputError when the labels are not those of the tables.
        """
        label_set = posterior.label_set
        if label_set.names != self.labels:
            raise InputError(
                "recalibration", f"labels {self.labels}", f"{label_set.names}", "calibrate these labels"
            )
        known = np.isin(arms.astype(str), list(self.found))
        z = _unconstrained(label_set, posterior.draws)
        middle, below, above = _centre(z)
        new, log_slope = z.copy(), np.zeros(z.shape[:2])
        for i in np.flatnonzero(known):
            for j, tables in enumerate(zip(*self._at(str(arms[i]), posterior.snr[i]), strict=True)):
                offset = z[:, i, j] - middle[i, j]
                width = np.where(offset > 0, above[i, j], below[i, j])
                t, slope = _follow(offset / width, *tables)
                stretched = np.where(t > 0, above[i, j], below[i, j])
                new[:, i, j] = middle[i, j] + t * stretched
                log_slope[:, i] += np.log(slope * stretched / width)
        change = np.asarray(label_set.log_det(new)) - np.asarray(label_set.log_det(z)) + log_slope
        return dataclasses.replace(
            posterior,
            draws=np.where(known[:, None], np.asarray(label_set.to_labels(new)), posterior.draws),
            log_prob=np.where(known, posterior.log_prob - change, posterior.log_prob),
            raw=posterior.draws,
            stats={**posterior.stats, "recalibrated": known.astype(float)},
        )

    def _at(self, arms: str, snr: float) -> tuple[np.ndarray, np.ndarray]:
        """Both tables `[l, q]` at one S/N."""
        position = np.interp(np.log(max(snr, 1e-3)), np.log(self.snr), np.arange(len(self.snr)))
        k = min(int(position), len(self.snr) - 2)
        share = position - k
        both = (np.asarray(table[arms]) for table in (self.drawn, self.found))
        drawn, found = ((1.0 - share) * table[k] + share * table[k + 1] for table in both)
        return drawn, found

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Recalibration:
        """From `dataclasses.asdict`, with tuples or lists."""
        return cls(tuple(stored["labels"]), tuple(stored["snr"]), stored["drawn"], stored["found"])


def _unconstrained(label_set: LabelSet, labels: np.ndarray) -> np.ndarray:
    """Labels on the scale without bounds, where any stretch stays a label; those on a bound just inside."""
    margin = 1e-6 * (label_set.high - label_set.low)
    inside = np.clip(np.asarray(labels, float), label_set.low + margin, label_set.high - margin)
    return np.asarray(label_set.to_unconstrained(inside), float)


def _centre(z: Float[np.ndarray, "s ..."]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Median of draws, and how far their central 68 % go below and above."""
    low, middle, high = np.quantile(z, stats.norm.cdf([-1.0, 0.0, 1.0]), axis=0)
    return middle, np.maximum(middle - low, 1e-6), np.maximum(high - middle, 1e-6)


def _standardise(posterior: Posterior, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draws `[s, n, l]` and truths `[n, l]` as differences from each star's median in its half-widths."""
    z = _unconstrained(posterior.label_set, posterior.draws)
    middle, below, above = _centre(z)
    true = _unconstrained(posterior.label_set, truth)
    return tuple((x - middle) / np.where(x > middle, above, below) for x in (z, true))


def _pooled(draws: Float[np.ndarray, "s n l"]) -> Float[np.ndarray, "l q"]:
    """Quantiles of the standardised draws of many stars together."""
    return np.quantile(draws.reshape(-1, draws.shape[2]), LEVELS, axis=0).T


def _follow(t: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The increasing function that goes from `x` to `y` in straight pieces, and its slope; beyond the ends
    it goes on with the slope between the middle and the end."""
    x, y = (np.maximum.accumulate(v) + 1e-4 * np.arange(len(v)) for v in (x, y))
    half = len(x) // 2
    slopes = np.diff(y) / np.diff(x)
    low, high = (y[half] - y[0]) / (x[half] - x[0]), (y[-1] - y[half]) / (x[-1] - x[half])
    value = np.interp(t, x, y) + low * np.minimum(t - x[0], 0.0) + high * np.maximum(t - x[-1], 0.0)
    piece = np.searchsorted(x, t)
    return value, np.concatenate([[low], slopes, [high]])[piece]
