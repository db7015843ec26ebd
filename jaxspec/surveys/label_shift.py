"""Surveys of different stars: the ratio of their densities of labels, from posteriors alone.

The target's posteriors, averaged over its stars, say where its stars are, but each of them is drawn towards
the stars of the training. Expectation and maximisation take that out (Saerens, Latinne & Decaestecker 2002,
Neural Computation 14, 21, for classes; here the classes are soft cells of label space). Spectra of stars with
the same labels must look alike in both surveys: where they do not, align first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.cluster.vq import kmeans2
from scipy.special import softmax

from jaxspec.errors import InputError

STEPS = 200


@dataclass(frozen=True, eq=False)
class LabelShift:
    """The density of labels of a target survey over that of a source survey, cell by cell.

    Attributes:
        location, scale: of the source's labels, which standardise them.
        centres: of the cells, in standardised labels.
        width: of the border between two cells.
        source, target: shares of the stars in each cell.
    """

    location: Float[np.ndarray, " l"]
    scale: Float[np.ndarray, " l"]
    centres: Float[np.ndarray, "k l"]
    width: float
    source: Float[np.ndarray, " k"]
    target: Float[np.ndarray, " k"]

    def cells(self, labels: Float[np.ndarray, "*n l"]) -> Float[np.ndarray, "*n k"]:
        """How much of a star belongs to each cell."""
        x = (np.asarray(labels, np.float64) - self.location) / self.scale
        squares = np.sum(x**2, axis=-1)[..., None] - 2.0 * x @ self.centres.T
        return softmax(-(squares + np.sum(self.centres**2, axis=1)) / (2.0 * self.width**2), axis=-1)

    def ratio(self, labels: Float[np.ndarray, "*n l"]) -> Float[np.ndarray, "*n"]:
        """Target density over source density at given labels."""
        return self.cells(labels) @ (self.target / self.source)

    def log_ratio(self, labels: Float[np.ndarray, "*n l"]) -> Float[np.ndarray, "*n"]:
        """ln of `ratio`: what `jaxspec.amortised.reweighting.resample` wants."""
        return np.log(np.maximum(self.ratio(labels), 1e-12))

    @property
    def size(self) -> float:
        """Total variation between the two shares of cells: 0 for the same stars, 1 for none alike."""
        return float(0.5 * np.sum(np.abs(self.target - self.source)))


def fit_label_shift(
    labels: Float[np.ndarray, "n l"],
    draws: Float[np.ndarray, "s m l"],
    n_cells: int = 24,
    weight: Float[np.ndarray, " n"] | None = None,
    prior: float = 1.0,
    seed: int = 0,
) -> LabelShift:
    """The density ratio from labels of the source and posterior draws of the target's stars.

    Expectation and maximisation stops early, where stars that were left out say so.

    Args:
        labels: of the source's stars, on which the posterior was trained.
        draws: of each star of the target, under the source's density of labels.
        n_cells: cells of label space (k-means of the source's labels); fewer for few stars.
        weight: of the source's stars, if the training weighted them: draws are then under that density.
        prior: pseudo-counts in each cell, which keep a cell without stars from ruling the rest.

    Raises: InputError for labels and draws of different length, or fewer than two stars for each cell.
    """
    labels, draws = np.asarray(labels, np.float64), np.asarray(draws, np.float64)
    if labels.ndim != 2 or draws.ndim != 3 or draws.shape[-1] != labels.shape[-1]:
        found = f"shapes {labels.shape} and {draws.shape}"
        raise InputError("fit_label_shift", found, "[n, l] and [draws, m, l]", "give the same labels")
    if len(labels) < 2 * n_cells:
        raise InputError("fit_label_shift", f"{len(labels)} stars", f"{2 * n_cells}", "give fewer n_cells")
    location, scale = labels.mean(axis=0), np.maximum(labels.std(axis=0), 1e-9)
    x = (labels - location) / scale
    centres, which = kmeans2(x, n_cells, minit="++", seed=seed, iter=30)
    used = np.bincount(which, minlength=n_cells) > 0
    centres = centres[used]
    inner = np.sqrt(np.mean(np.sum((x - centres[(np.cumsum(used) - 1)[which]]) ** 2, axis=1) / x.shape[1]))
    shift = LabelShift(
        location, scale, centres, 0.5 * float(inner) + 1e-3, np.ones(len(centres)), np.ones(len(centres))
    )
    w = np.ones(len(labels)) if weight is None else np.asarray(weight, np.float64)
    source = np.maximum((w / w.sum()) @ shift.cells(labels), 1e-6)
    source = source / source.sum()
    star = shift.cells(draws).mean(axis=0)  # p(cell | spectrum) under the source's density
    # Cells that spectra cannot tell apart make this a deconvolution, which takes noise for structure if it
    # goes on for long. It stops where the likelihood of stars that were left out is highest.
    half = np.random.default_rng(seed).permutation(len(star)) % 2 == 0
    gain = np.zeros(STEPS + 1)
    for fitted, left in ((star[half], star[~half]), (star[~half], star[half])):
        path = _shares(fitted, source, prior, STEPS)
        gain += np.log(left @ (path / source).T).mean(axis=0)
    target = _shares(star, source, prior, int(np.argmax(gain)))[-1]
    return LabelShift(location, scale, centres, shift.width, source, target)


def _shares(star, source, prior, steps):
    """Shares of the cells [steps + 1, k] after each step of expectation and maximisation."""
    path = [source]
    for _ in range(steps):
        share = star * (path[-1] / source)
        counts = (share / share.sum(axis=1, keepdims=True)).sum(axis=0) + prior * source * len(source)
        path.append(counts / counts.sum())
    return np.stack(path)


def tempered(weight: Float[np.ndarray, " n"], limit: float = 10.0) -> Float[np.ndarray, " n"]:
    """Weights with mean 1 and none above `limit`: one star must not own a batch."""
    weight = np.asarray(weight, np.float64)
    clipped = np.minimum(weight / weight.mean(), limit)
    return clipped / clipped.mean()


def effective_number(weight: Float[np.ndarray, " n"]) -> float:
    """The number of equally weighted stars that tell as much (Kish 1965)."""
    weight = np.asarray(weight, np.float64)
    return float(weight.sum() ** 2 / np.sum(weight**2))
