"""What ordinary spectra do not exceed: limits of the statistics by which a spectrum that the model cannot be
right for is recognised, calibrated on simulations at a stated rate of false alarms.

Each statistic depends on the noise and on which arms were observed, so the limit does too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxspec.errors import InputError
from jaxspec.instruments import Instrument

# An arm with a smaller share of its pixels tells next to nothing that another arm would not.
USABLE_SHARE = 0.2
N_KNOTS, FEWEST = 7, 60


@dataclass(frozen=True)
class Limits:
    """Limits of positive statistics as functions of S/N, linear in its logarithm, constant beyond the ends.

    Attributes:
        false_alarms: share of ordinary spectra beyond the limit of one statistic.
        snr: S/N per pixel at which limits are stated, increasing.
        levels: for each statistic and each set of observed arms (`hr10+hr21`), the limits at `snr`.
    """

    false_alarms: float
    snr: tuple[float, ...]
    levels: Mapping[str, Mapping[str, tuple[float, ...]]]

    @classmethod
    def fit(
        cls,
        values: Mapping[str, Float[np.ndarray, " n"]],
        snr: Float[np.ndarray, " n"],
        arms: np.ndarray,
        false_alarms: float = 0.005,
    ) -> Limits:
        """From positive statistics of simulated spectra of known `snr` and sets of `arms` (see
        `observed_arms`).

        The logarithm's median and upper half-width follow S/N; in units of these the quantile is taken over
        all S/N together. Sets of arms with few spectra are left out.

        Raises: InputError when there are too few spectra for the rate.
        """
        log_snr = np.log(np.asarray(snr, float))
        knots = np.linspace(log_snr.min(), log_snr.max(), N_KNOTS)
        levels: dict[str, dict[str, tuple[float, ...]]] = {name: {} for name in values}
        for which in np.unique(arms):
            rows = np.flatnonzero(arms == which)
            if len(rows) < max(2.0 / false_alarms, FEWEST):
                continue
            nearest = max(FEWEST, len(rows) // 5)
            for name, value in values.items():
                x = np.log(np.asarray(value, float)[rows])
                near = [
                    x[np.argsort(np.abs(log_snr[rows] - knot), kind="stable")[:nearest]] for knot in knots
                ]
                middle = np.array([np.median(part) for part in near])
                width = np.array([np.quantile(part, 0.84) for part in near]) - middle + 1e-6
                z = (x - np.interp(log_snr[rows], knots, middle)) / np.interp(log_snr[rows], knots, width)
                far = np.quantile(z, 1.0 - false_alarms, method="higher")
                levels[name][str(which)] = tuple(np.exp(middle + far * width).tolist())
        if not all(levels.values()):
            raise InputError(
                "limits",
                f"{len(log_snr)} spectra",
                f"{2.0 / false_alarms:.0f} or more with the same arms for {false_alarms:.1%} of false alarms",
                "simulate more",
            )
        return cls(false_alarms, tuple(np.exp(knots).tolist()), levels)

    def at(self, name: str, snr: Float[np.ndarray, " n"], arms: np.ndarray) -> Float[np.ndarray, " n"]:
        """Limit of a statistic for each spectrum; of a set of arms that was not calibrated, the highest of
        all."""
        x, knots = np.log(np.maximum(snr, 1e-3)), np.log(self.snr)
        by_arms = {which: np.interp(x, knots, level) for which, level in self.levels[name].items()}
        highest = np.max([*by_arms.values()], axis=0)
        return np.select([arms == which for which in by_arms], [*by_arms.values()], highest)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Limits:
        """From `dataclasses.asdict`, with tuples or lists."""
        levels = {
            name: {arms: tuple(level) for arms, level in by_arms.items()}
            for name, by_arms in stored["levels"].items()
        }
        return cls(stored["false_alarms"], tuple(stored["snr"]), levels)


def observed_arms(ivar: Float[np.ndarray, "n p"], instrument: Instrument) -> np.ndarray:
    """Names of the arms with a fair share of usable pixels, joined with `+`, for each spectrum `[n]`."""
    names = np.array(list(instrument.slices))
    return np.array(["+".join(names[row]) for row in usable_arms(ivar, instrument)], dtype=object)


def usable_arms(ivar: Float[np.ndarray, "n p"], instrument: Instrument) -> np.ndarray:
    """Which arms of each spectrum have a fair share of usable pixels `[n, a]`."""
    good = np.asarray(ivar) > 0.0
    share = [good[:, where].mean(axis=1) for where in instrument.slices.values()]
    return np.stack(share, axis=1) >= USABLE_SHARE
