"""Method `mixture`: groups of Gaussian components, behind each star's errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import chi2

from jaxspec.errors import InputError
from jaxspec.populations.groups import merge
from jaxspec.populations.members import Members
from jaxspec.populations.mixture import (
    PRIOR_SHARE,
    Mixture,
    arrange,
    climb,
    fit_path,
    responsibilities,
)
from jaxspec.populations.stars import Scale, Stars

MOST_COMPONENTS = 12
FIT_STARS = 8192  # of more stars, so many are fitted
REPEATS, REPEAT_STEPS = 6, 15  # fits of resampled stars, for the spread


@dataclass(frozen=True)
class MixtureModel:
    """A fitted mixture with its groups.

    Attributes:
        labels: by which the stars are grouped.
        scale: of the labels.
        mixture: in scaled labels.
        group: of each component.
        repeats: fits of resampled stars, each with the same components.
    """

    labels: tuple[str, ...]
    scale: Scale
    mixture: Mixture
    group: Int[np.ndarray, " k"]
    repeats: tuple[Mixture, ...]

    @classmethod
    def fit(
        cls, stars: Stars, groups: int | None = None, seed: int = 1, most: int = MOST_COMPONENTS
    ) -> MixtureModel:
        """Fit the mixture whose Bayesian information criterion is lowest among 1 to `most` components (at
        least `groups`), then merge its components to groups (`groups.merge`).

        Raises: InputError for fewer stars than two for each number of a component, and for more groups than
            components that so many stars allow.
        """
        size = len(stars.labels)
        each = 1 + size + size * (size + 1) // 2
        if len(stars) < 2 * size + 2:
            fix = "give more stars, or fewer labels, or apply a fitted model (--model)"
            raise InputError("stars", f"{len(stars)}", f"{2 * size + 2} or more for {size} labels", fix)
        wanted = 1 if groups is None else groups
        if not 1 <= wanted <= most or (wanted > 1 and len(stars) <= 2 * each * wanted):
            able = max(1, min(most, (len(stars) - 1) // (2 * each)))
            raise InputError("groups", f"{wanted}", f"1 to {able} for {len(stars)} stars", "ask for fewer")
        rng = np.random.default_rng(seed)
        scale = Scale.of(stars)
        some = stars
        if len(stars) > FIT_STARS:
            some = stars.rows(np.sort(rng.choice(len(stars), FIT_STARS, replace=False)))
        data = arrange(*scale.apply(some))
        path = fit_path(data, most, least=wanted)
        mixture = min(path[wanted - 1 :], key=lambda step: step[1])[0]
        prior = PRIOR_SHARE * np.asarray(path[0][0].covariance[0]) + 1e-6 * np.eye(size)
        repeats = []
        for _ in range(REPEATS):
            weight = data.weight * rng.poisson(1.0, len(data.weight))
            repeats.append(climb(mixture, data._replace(weight=weight), prior, REPEAT_STEPS)[0])
        return cls(stars.labels, scale, mixture, merge(mixture, groups, seed), tuple(repeats))

    @property
    def n_groups(self) -> int:
        """Number of groups."""
        return int(self.group.max()) + 1

    def members(self, stars: Stars) -> Members:
        """Memberships, the mean of those of all repeated fits; their standard deviation is the spread."""
        values, covariance = self.scale.apply(stars.select(self.labels))
        each = self._each(values, covariance)
        share, _, distance = responsibilities(self.mixture, values, covariance)
        measured = (~np.isnan(values)).sum(1)
        novelty = (share * chi2.cdf(distance, measured[:, None])).sum(1)
        return Members(np.mean(each, axis=0), np.std(each, axis=0), novelty)

    def probabilities(
        self, values: Float[np.ndarray, "n l"], covariance: Float[np.ndarray, "n l l"]
    ) -> Float[np.ndarray, "n g"]:
        """Probability of each group of scaled labels, of which all may be missing."""
        return np.mean(self._each(values, covariance), axis=0)

    def _each(self, values: np.ndarray, covariance: np.ndarray) -> list[np.ndarray]:
        """The same of each repeated fit."""
        table = np.eye(self.n_groups)[self.group]
        return [responsibilities(mixture, values, covariance)[0] @ table for mixture in self.repeats]

    def centres(self) -> Float[np.ndarray, "g l"]:
        """Mean labels of each group, in their units."""
        weight = np.asarray(self.mixture.weight) * np.eye(self.n_groups)[self.group].T
        mean = weight @ np.asarray(self.mixture.mean) / weight.sum(1, keepdims=True)
        return mean * self.scale.unit + self.scale.shift

    def to_arrays(self) -> dict[str, np.ndarray]:
        """What is stored."""
        arrays = {"shift": self.scale.shift, "unit": self.scale.unit, "group": self.group}
        for name in Mixture._fields:
            arrays[name] = np.asarray(getattr(self.mixture, name))
            arrays[f"repeat_{name}"] = np.stack([np.asarray(getattr(x, name)) for x in self.repeats])
        return arrays

    @classmethod
    def from_arrays(cls, labels: tuple[str, ...], arrays: Mapping[str, np.ndarray]) -> MixtureModel:
        """The model that `to_arrays` describes."""
        mixture = Mixture(*(arrays[name] for name in Mixture._fields))
        repeats = tuple(
            Mixture(*parts)
            for parts in zip(*(arrays[f"repeat_{name}"] for name in Mixture._fields), strict=True)
        )
        return cls(labels, Scale(arrays["shift"], arrays["unit"]), mixture, arrays["group"], repeats)
