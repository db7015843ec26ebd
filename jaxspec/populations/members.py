"""Which group a star belongs to: probabilities with their spread, and how unlike all groups the star is."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from jaxspec.populations.stars import Stars


class Members(NamedTuple):
    """Memberships of n stars in g groups.

    Attributes:
        probability: of each group; a row sums to 1, or to less where a method leaves stars ungrouped.
        spread: standard deviation of the probability among repetitions of the fit, or of the draws.
        novelty: probability that a star of the fitted population would be less unusual; near 1 for a star
            that is unlike all groups.
    """

    probability: Float[np.ndarray, "n g"]
    spread: Float[np.ndarray, "n g"]
    novelty: Float[np.ndarray, " n"]

    @property
    def group(self) -> Int[np.ndarray, " n"]:
        """The most probable group of each star, from 1; 0 where it belongs to none with more probability."""
        rest = 1.0 - self.probability.sum(1)
        return np.where(self.probability.max(1) >= rest, self.probability.argmax(1) + 1, 0)


@runtime_checkable
class Model(Protocol):
    """A fitted method: it knows its labels and says of any stars where they belong."""

    labels: tuple[str, ...]

    @property
    def n_groups(self) -> int:
        """Number of groups."""
        ...

    def members(self, stars: Stars) -> Members:
        """Memberships of stars that have the model's labels, in any order; missing ones are NaN."""
        ...

    def to_arrays(self) -> dict[str, np.ndarray]:
        """What is stored; `from_arrays` of the class takes it and the labels."""
        ...
