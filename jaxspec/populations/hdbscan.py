"""Method `hdbscan`: density-based groups (Campello et al. 2013), averaged over draws of what the stars are.

HDBSCAN takes points, not errors. Here it is given draws of each star's labels from its posterior under the
population (a deconvolved mixture), so that the points have the population's density and not that of the
noise; the groups of each draw are matched with those of the first. Needs scikit-learn (extra `populations`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree

from jaxspec.populations.extras import scikit_learn
from jaxspec.populations.members import Members
from jaxspec.populations.mixture import posterior_draws
from jaxspec.populations.mixture_model import MixtureModel
from jaxspec.populations.stars import Stars

FIT_STARS, DRAWS = 3000, 10
NEIGHBOURS = 5  # that vote about a star that was not clustered


@dataclass(frozen=True)
class HdbscanModel:
    """Draws of the fitted stars `[d, n, l]` (scaled) with the group of each `[d, n]`, -1 for none."""

    labels: tuple[str, ...]
    population: MixtureModel
    draws: Float[np.ndarray, "d n l"]
    group: Int[np.ndarray, "d n"]
    seed: int = 1

    @classmethod
    def fit(cls, stars: Stars, groups: int | None = None, seed: int = 1) -> HdbscanModel:
        """Cluster draws of the stars; of more than `FIT_STARS`, so many at random. With `groups`, the
        smallest size of a cluster is the one that gives so many, or nearly so, in the first draw.

        Raises: InputError as `MixtureModel.fit`, and without scikit-learn.
        """
        cluster = scikit_learn("cluster")
        population = MixtureModel.fit(stars, None, seed)
        rng = np.random.default_rng(seed)
        if len(stars) > FIT_STARS:
            stars = stars.rows(rng.choice(len(stars), FIT_STARS, replace=False))
        draws = posterior_draws(population.mixture, *population.scale.apply(stars), rng, DRAWS)
        sizes = [max(5, int(len(stars) * share)) for share in (0.005, 0.01, 0.02, 0.04, 0.08, 0.15)]
        sizes = sorted(set(sizes)) if groups is not None else [max(10, len(stars) // 50)]

        def labelled(points: np.ndarray, size: int) -> np.ndarray:
            made = cluster.HDBSCAN(min_cluster_size=size, min_samples=min(10, size), copy=True)
            return made.fit_predict(points)

        first = [labelled(draws[0], size) for size in sizes]
        missed = [abs(int(found.max()) + 1 - (groups or 0)) for found in first]
        best = int(np.argmin(missed)) if groups is not None else 0
        reference = first[best]
        group = [reference] + [match(labelled(points, sizes[best]), reference) for points in draws[1:]]
        return cls(stars.labels, population, draws, np.array(group), seed)

    @property
    def n_groups(self) -> int:
        """Number of groups; one where nothing clusters."""
        return max(1, int(self.group.max()) + 1)

    def members(self, stars: Stars) -> Members:
        """Shares of the draws of a star whose neighbours are in each group; the rest is in none. The spread
        is that of so many draws."""
        values, covariance = self.population.scale.apply(stars.select(self.labels))
        rng = np.random.default_rng(self.seed + 1)
        count, size = self.n_groups, len(self.draws)
        draws = posterior_draws(self.population.mixture, values, covariance, rng, size)
        votes = np.zeros((len(stars), count + 1))
        for points, fitted, group in zip(draws, self.draws, self.group, strict=True):
            _, near = cKDTree(fitted).query(points, k=min(NEIGHBOURS, len(fitted)))
            near = near.reshape(len(points), -1)
            for g in range(-1, count):
                votes[:, g] += (group[near] == g).mean(1)
        share = votes[:, :count] / size
        return Members(share, np.sqrt(share * (1.0 - share) / size), votes[:, -1] / size)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """What is stored."""
        own = {"draws": self.draws, "draw_group": self.group, "seed": np.array(self.seed)}
        return {**self.population.to_arrays(), **own}

    @classmethod
    def from_arrays(cls, labels: tuple[str, ...], arrays: Mapping[str, np.ndarray]) -> HdbscanModel:
        """The model that `to_arrays` describes."""
        population = MixtureModel.from_arrays(labels, arrays)
        return cls(labels, population, arrays["draws"], arrays["draw_group"], int(arrays["seed"]))


def match(group: Int[np.ndarray, " n"], reference: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """The groups renumbered so that they share most stars with those of `reference`; groups that have no
    partner there are -1."""
    mine, theirs = int(group.max()) + 1, int(reference.max()) + 1
    if not mine or not theirs:
        return np.full_like(group, -1)
    both = (group >= 0) & (reference >= 0)
    shared = np.zeros((mine, theirs))
    np.add.at(shared, (group[both], reference[both]), 1.0)
    renamed = np.full(mine, -1)
    rows, columns = linear_sum_assignment(-shared)
    renamed[rows] = columns
    return np.where(group >= 0, renamed[group], -1)
