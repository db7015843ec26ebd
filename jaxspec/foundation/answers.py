"""Answers to requests: mixtures of Gaussians in the quantities' own units."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from astropy.table import Column, QTable
from jaxtyping import Float, Int
from scipy.special import logsumexp, ndtr

import jaxspec
from jaxspec.errors import InputError
from jaxspec.foundation.table import STELLAR, Quantity, short

OUTSIDE, NOTHING_GIVEN = FLAGS = 1, 2
LEGEND = "0 safe; 1 a given value is outside the range of the training stars; 2 nothing was given: the prior"


def quantity(name: str) -> Quantity:
    """Unit and description of a quantity; a coefficient has neither."""
    return STELLAR.get(name, Quantity(name, "", "coefficient of a Gaia XP spectrum"))


@dataclass(frozen=True, eq=False)
class Answer:
    """Independent distributions of some quantities of some stars (see `FoundationModel.sample` for joint
    ones).

    Attributes:
        names: of the quantities asked for.
        log_weight, mean, scale: of the components of each mixture, `[n, r, c]`, in the quantities' units.
        flags: bits of `FLAGS`, `[n]`; 0 is safe.
        source: identifiers of the stars.
    """

    names: tuple[str, ...]
    log_weight: Float[np.ndarray, "n r c"]
    mean: Float[np.ndarray, "n r c"]
    scale: Float[np.ndarray, "n r c"]
    flags: Int[np.ndarray, " n"]
    source: Int[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.mean)

    def index(self, name: str) -> int:
        """The column of a quantity.

        Raises: InputError for one that was not asked for.
        """
        if name not in self.names:
            raise InputError("quantity", repr(name), f"one of {short(self.names)}", "ask for it")
        return self.names.index(name)

    def widened(self, offset: Float[np.ndarray, " r"], slope: Float[np.ndarray, " r"]) -> Answer:
        """The answers with widths times exp(offset + slope log(width)), by quantity; means stay.

        A negative slope widens narrow answers more than wide ones: networks are too sure where they are given
        most.
        """
        centre = self.expectation[..., None]
        factor = np.exp(offset + slope * np.log(self.deviation))[..., None]
        mean = centre + factor * (self.mean - centre)
        return dataclasses.replace(self, mean=mean, scale=self.scale * factor)

    def measured(self, value: Float[np.ndarray, "n r"], error: Float[np.ndarray, "n r"]) -> Answer:
        """The answers after a further measurement of each quantity with a Gaussian error, by Bayes' theorem;
        as they are where `value` is not a number. An error of 0 is taken as a thousandth of the width."""
        known = np.isfinite(value)[..., None]
        value = np.where(known, value[..., None], 0.0)
        error = np.maximum(np.where(known, error[..., None], 1.0), 1e-3 * self.deviation[..., None])
        total = self.scale**2 + error**2
        log_weight = self.log_weight - 0.5 * ((value - self.mean) ** 2 / total + np.log(total))
        log_weight = log_weight - logsumexp(log_weight, axis=-1, keepdims=True)
        mean = (self.mean * error**2 + value * self.scale**2) / total
        scale = self.scale * error / np.sqrt(total)
        parts = ((log_weight, self.log_weight), (mean, self.mean), (scale, self.scale))
        new = [np.where(known, after, before) for after, before in parts]
        return Answer(self.names, new[0], new[1], new[2], self.flags, self.source)

    @property
    def expectation(self) -> Float[np.ndarray, "n r"]:
        """Means of the distributions."""
        return (np.exp(self.log_weight) * self.mean).sum(-1)

    @property
    def deviation(self) -> Float[np.ndarray, "n r"]:
        """Standard deviations of the distributions."""
        second = (np.exp(self.log_weight) * (self.scale**2 + self.mean**2)).sum(-1)
        return np.sqrt(np.maximum(second - self.expectation**2, 0.0))

    def cdf(
        self, value: Float[np.ndarray, "n r"], error: Float[np.ndarray, "n r"] | float = 0.0
    ) -> np.ndarray:
        """Probability of less than `value`; with an `error`, of a measurement of that error."""
        scale = np.sqrt(self.scale**2 + np.asarray(error)[..., None] ** 2)
        z = (np.asarray(value)[..., None] - self.mean) / scale
        return (np.exp(self.log_weight) * ndtr(z)).sum(-1)

    def log_prob(
        self, value: Float[np.ndarray, "n r"], error: Float[np.ndarray, "n r"] | float = 0.0
    ) -> Float[np.ndarray, "n r"]:
        """Log-density at `value` per unit of the quantity; with an `error`, of a measurement of that
        error."""
        variance = self.scale**2 + np.asarray(error)[..., None] ** 2
        z = (np.asarray(value)[..., None] - self.mean) ** 2 / variance
        return logsumexp(self.log_weight - 0.5 * (z + np.log(2.0 * np.pi * variance)), axis=-1)

    def quantile(self, q: float, error: Float[np.ndarray, "n r"] | float = 0.0) -> Float[np.ndarray, "n r"]:
        """Where the cumulative distribution is `q`, by bisection to a millionth of a width."""
        low = (self.mean - 12.0 * self.scale).min(-1) - 12.0 * np.asarray(error)
        high = (self.mean + 12.0 * self.scale).max(-1) + 12.0 * np.asarray(error)
        for _ in range(40):
            middle = 0.5 * (low + high)
            below = self.cdf(middle, error) < q
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return 0.5 * (low + high)

    @property
    def median(self) -> Float[np.ndarray, "n r"]:
        """Medians of the distributions."""
        return self.quantile(0.5)

    @property
    def error(self) -> Float[np.ndarray, "n r"]:
        """Half the width of the central 68 % interval."""
        return 0.5 * (self.quantile(0.84) - self.quantile(0.16))

    def sample(self, rng: np.random.Generator, n: int) -> Float[np.ndarray, "d n r"]:
        """Draws of each quantity by itself."""
        cumulative = np.cumsum(np.exp(self.log_weight), -1)
        u = rng.random((n, *self.mean.shape[:2], 1))
        component = np.minimum((u > cumulative[None]).sum(-1), self.mean.shape[-1] - 1)[..., None]
        mean, scale = (
            np.take_along_axis(np.broadcast_to(x, (n, *x.shape)), component, -1)[..., 0]
            for x in (self.mean, self.scale)
        )
        return mean + scale * rng.standard_normal(mean.shape)

    def table(self) -> QTable:
        """One row a star: `source_id`, then `NAME, e_NAME, NAME_p16, NAME_p84` for each quantity, then
        `flags`."""
        table = QTable()
        table["source_id"] = Column(self.source, description="identifier of the star")
        quantiles = {q: self.quantile(q) for q in (0.16, 0.5, 0.84)}
        for i, name in enumerate(self.names):
            kind = quantity(name)
            columns = (
                (name, quantiles[0.5], "median"),
                (f"e_{name}", 0.5 * (quantiles[0.84] - quantiles[0.16]), "half the central 68 % interval"),
                (f"{name}_p16", quantiles[0.16], "16th percentile"),
                (f"{name}_p84", quantiles[0.84], "84th percentile"),
            )
            for column, values, text in columns:
                table[column] = Column(
                    values[:, i].astype(np.float32),
                    unit=kind.unit or None,
                    description=f"{kind.description}: {text}",
                )
        table["flags"] = Column(self.flags, description=LEGEND)
        table.meta["CREATOR"] = f"jaxspec {jaxspec.__version__}"
        return table
