"""The units in which the survey model computes: labels from a pivot in steps of the surveys' usual errors.

In them every offset, scatter and trend is of order one, so that one prior serves all labels.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Array, Float

from jaxspec.errors import InputError
from jaxspec.labels import LabelSet
from jaxspec.surveys.observations import Sky


@dataclass(frozen=True)
class Scales:
    """Where the model's coordinates have their origin, and how long their steps are.

    Attributes:
        pivot: the labels at which zero points are stated, in the labels' units.
        step: length of one model unit, in the labels' units.
        inputs: positions in the label set of the labels that trends run along.
        spread: half the range of the middle 68 % of stars in each of `inputs`, in the labels' units: over
            it, a trend coefficient of one changes the offset by one step.
        natural: the length along each of `inputs` per which slopes are reported: 1000 K, 1 dex.
    """

    pivot: Float[np.ndarray, " l"]
    step: Float[np.ndarray, " l"]
    inputs: tuple[int, ...]
    spread: Float[np.ndarray, " p"]
    natural: Float[np.ndarray, " p"]

    def to_model(self, labels: Float[np.ndarray, "*b l"]) -> Float[np.ndarray, "*b l"]:
        """Labels in model coordinates."""
        return (labels - self.pivot) / self.step

    def to_labels(self, model: Float[np.ndarray, "*b l"]) -> Float[np.ndarray, "*b l"]:
        """Model coordinates in the labels' units."""
        return self.pivot + self.step * model

    def covariance_to_model(self, covariance: Float[np.ndarray, "*b l l"]) -> Float[np.ndarray, "*b l l"]:
        """Covariances in model units."""
        return covariance / np.outer(self.step, self.step)

    def covariance_to_labels(self, covariance: Float[np.ndarray, "*b l l"]) -> Float[np.ndarray, "*b l l"]:
        """Covariances in the labels' units."""
        return covariance * np.outer(self.step, self.step)

    @property
    def input_matrix(self) -> Float[np.ndarray, "p l"]:
        """Trend inputs of model coordinates `t`: `input_matrix @ t`, of order one."""
        matrix = np.zeros((len(self.inputs), len(self.step)))
        for row, column in enumerate(self.inputs):
            matrix[row, column] = self.step[column] / self.spread[row]
        return matrix


def make_scales(sky: Sky, trend_labels: tuple[str, ...], pivot: dict[str, float] | None = None) -> Scales:
    """Scales from the sky's own values: the pivot is the median of each label, rounded, unless given.

    Raises `InputError` for a `pivot` of an unknown label.
    """
    label_set, pivot = sky.label_set, pivot or {}
    for name in pivot:
        label_set.index(name)
    inputs = tuple(label_set.index(name) for name in trend_labels if name in label_set.names)
    step = label_set.per_label("survey_step")
    quantiles = _quantiles(sky)
    centre = np.array(
        [
            pivot.get(name, float(np.round(middle / width) * width))
            for name, middle, width in zip(label_set.names, quantiles[1], step, strict=True)
        ]
    )
    half = 0.5 * (quantiles[2] - quantiles[0])
    spread = np.array([max(half[i], step[i]) for i in inputs])
    natural = np.array([1000.0 if label_set.labels[i].unit == "K" else 1.0 for i in inputs])
    return Scales(centre, step, inputs, spread, natural)


def _quantiles(sky: Sky, most: int = 50_000) -> Float[np.ndarray, "3 l"]:
    """The 16th, 50th and 84th percentile of each label, every survey counting alike."""
    rows, weights = [], []
    for survey in sky.surveys:
        values = np.asarray(survey.values[:: max(1, len(survey) // most)], float)
        rows.append(values)
        weights.append(np.full(len(values), 1.0 / len(values)))
    values, weight = np.concatenate(rows), np.concatenate(weights)
    found = np.empty((3, values.shape[1]))
    for label in range(values.shape[1]):
        there = ~np.isnan(values[:, label])
        order = np.argsort(values[there, label])
        cumulative = np.cumsum(weight[there][order])
        for i, q in enumerate((0.16, 0.5, 0.84)):
            found[i, label] = values[there, label][order][np.searchsorted(cumulative, q * cumulative[-1])]
    return found


def trend_names(label_set: LabelSet, scales: Scales) -> tuple[str, ...]:
    """Names of the terms of an offset: `zero_point`, then the labels that trends run along."""
    return ("zero_point", *(label_set.names[i] for i in scales.inputs))


def check_trend_labels(names: tuple[str, ...]) -> None:
    """Raise `InputError` for repeated names."""
    if len(set(names)) != len(names):
        raise InputError("trend_labels", f"{names}", "each label once", "remove the repetition")


def as_float(x: Array | np.ndarray) -> np.ndarray:
    """A float64 copy on the host."""
    return np.asarray(x, np.float64)


def typical_error(sky: Sky, scales: Scales) -> Float[np.ndarray, "s l"]:
    """Median quoted variance of each survey and label, model units; NaN where it is not measured."""
    result = np.full((len(sky.surveys), len(sky.label_set)), np.nan)
    for s, survey in enumerate(sky.surveys):
        rows = slice(None, None, max(1, len(survey) // 20_000))
        variance = np.diagonal(np.asarray(survey.covariance[rows], float), axis1=1, axis2=2)
        for label in np.flatnonzero(survey.measured):
            there = ~np.isnan(survey.values[rows, label])
            if there.any():
                result[s, label] = np.median(variance[there, label]) / scales.step[label] ** 2
    return result
