"""Input and output of evaluators: stars whose labels are known; numbers, a verdict, tables, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxspec.diagnostics.calibration import check_draws, summarise
from jaxspec.errors import InputError
from jaxspec.labels import LabelSet


@dataclass(frozen=True, eq=False)
class KnownStars:
    """A set of stars with true labels and posterior draws, as all evaluators take it.

    Attributes:
        name: of the set.
        truth: labels `[n, l]`.
        draws: posterior draws `[s, n, l]`.
        snr: signal-to-noise per pixel, `[n]`.
        bound: standard errors of the Cramer-Rao bound of the first stars, `[m, l]`, m <= n; infinite where a
            spectrum tells nothing.
        bound_with_prior: standard errors of a Gaussian reference, whose precision is that of the bound plus
            the inverse covariance of the prior. It is no bound: the exact posterior knows the prior's shape
            too and may be narrower.
    """

    name: str
    label_set: LabelSet
    truth: Float[np.ndarray, "n l"]
    draws: Float[np.ndarray, "s n l"]
    snr: Float[np.ndarray, " n"]
    bound: Float[np.ndarray, "m l"] | None = None
    bound_with_prior: Float[np.ndarray, "m l"] | None = None

    def __post_init__(self):
        check_draws(self.truth, self.draws)
        if self.truth.shape[1] != len(self.label_set) or len(self.snr) != len(self.truth):
            raise InputError(
                f"stars {self.name}",
                f"{self.truth.shape[1]} labels, {len(self.snr)} values of S/N",
                f"{len(self.label_set)} labels and S/N of {len(self.truth)} stars",
                "give all of the same stars",
            )

    @cached_property
    def summary(self) -> dict[str, Any]:
        """`jaxspec.diagnostics.calibration.summarise`."""
        return summarise(self.truth, self.draws, self.snr, self.label_set.names)

    @property
    def labels(self) -> dict[str, dict[str, float]]:
        """The summary of each label, of all stars."""
        return self.summary["all"]["labels"]


class Table(NamedTuple):
    """Rows of text; the first column names the row, `flagged` holds (row, column) of what failed."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    flagged: frozenset[tuple[int, int]] = frozenset()


class Picture(NamedTuple):
    """A figure as PNG, with how to read it."""

    name: str
    caption: str
    png: bytes


class Result(NamedTuple):
    """Outcome of one evaluator.

    Attributes:
        values: plain numbers, ready for JSON.
        passed: None where there is nothing to pass.
        verdict: what was found and the limit, in words.
    """

    name: str
    title: str
    values: dict[str, Any]
    passed: bool | None
    verdict: str
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()
