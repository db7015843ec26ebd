"""The data of the survey model: the labels that each survey reports, and which rows are the same star."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxspec.errors import InputError
from jaxspec.labels import LabelSet

# Rows are checked in blocks, so that tables mapped from disk are never read whole.
_BLOCK = 100_000
# Rows from which on a label that never changes is no measurement.
_FEW = 5


@dataclass(frozen=True)
class Survey:
    """The measurements of one survey: one row per measurement, rows already resolved to stars.

    Attributes:
        name: the survey's name, used in results and messages.
        star: `[m]`, index of the row's star in `0..n_stars-1` of the `Sky`; a star may be repeated (visits).
        values: `[m, l]`, labels in the order and units of the sky's `LabelSet`; NaN is missing.
        covariance: `[m, l, l]`, of the quoted errors, in products of the labels' units. Entries of missing
            labels are ignored.
        flagged: `[m]`, the survey's own bad-star bits say that the row is suspect: raises the probability
            that it is an outlier.
        anchor: the survey is the absolute reference. Its offset is held at zero, its errors are believed.
        zero_point_error: `[l]`, for an anchor, one-sigma uncertainty of its zero point in each label's unit;
            none means exact.
        errors_only: only the diagonal of `covariance` is known. How errors of one label go with another's is
            then inferred, but for an anchor, where they are taken as independent.

    Raises `InputError` for shapes that do not match, infinite values, and errors that are not positive.
    """

    # Shapes are checked below, where the message can say what to do.
    name: str
    star: Int[np.ndarray, " _"]
    values: Float[np.ndarray, "_ _"]
    covariance: Float[np.ndarray, "_ _ _"]
    flagged: Bool[np.ndarray, " _"]
    anchor: bool = False
    zero_point_error: Float[np.ndarray, " _"] | None = None
    errors_only: bool = False

    def __post_init__(self):
        where = f"survey {self.name}"
        if not self.name:
            raise InputError("survey name", "an empty name", "a name", "name every survey")
        n_rows, n_labels = self.values.shape
        if n_rows == 0:
            raise InputError(where, "no rows", "one or more measurements", "check its file and its cuts")
        for field, expected in (
            ("star", (n_rows,)),
            ("covariance", (n_rows, n_labels, n_labels)),
            ("flagged", (n_rows,)),
        ):
            shape = np.shape(getattr(self, field))
            if shape != expected:
                raise InputError(
                    f"{where}, {field}", f"shape {shape}", f"{expected}", "give one entry per row of values"
                )
        if self.zero_point_error is not None:
            error = self.zero_point_error
            if error.shape != (n_labels,) or not np.all(np.isfinite(error) & (error >= 0)):
                raise InputError(
                    f"{where}, zero_point_error",
                    f"{error}",
                    f"{n_labels} finite numbers >= 0",
                    "give one uncertainty per label, 0 where the scale is exact",
                )
            if not self.anchor:
                raise InputError(
                    f"{where}, zero_point_error",
                    "an uncertainty for a survey that is not an anchor",
                    "anchor=True, or none",
                    "the offset of other surveys is inferred, not given",
                )
        for start in range(0, n_rows, _BLOCK):
            self._check_rows(slice(start, start + _BLOCK))

    def _check_rows(self, rows: slice) -> None:
        values, covariance = self.values[rows], self.covariance[rows]
        present = ~np.isnan(values)
        if np.isinf(values).any():
            row = rows.start + int(np.argwhere(np.isinf(values))[0, 0])
            raise InputError(
                f"survey {self.name}, values of row {row}",
                "an infinite value",
                "numbers, NaN where missing",
                "turn the survey's sentinels into NaN",
            )
        variance = np.diagonal(covariance, axis1=1, axis2=2)
        bad = present & ~(np.isfinite(variance) & (variance > 0))
        if bad.any():
            row, label = (int(i) for i in np.argwhere(bad)[0])
            raise InputError(
                f"survey {self.name}, covariance of row {rows.start + row}, label {label}",
                f"a variance of {variance[row, label]} for a value that is there ({bad.sum()} such)",
                "a positive finite variance",
                "give an error for every value, or set the value to NaN",
            )
        pairs = present[:, :, None] & present[:, None, :]
        entries = np.where(pairs, covariance, 0.0)
        asymmetric = ~np.isclose(entries, np.swapaxes(entries, 1, 2), rtol=1e-3, atol=1e-30)
        limit = np.sqrt(np.where(present, variance, 1.0))
        too_large = np.abs(entries) > 1.000001 * limit[:, :, None] * limit[:, None, :]
        wrong = (asymmetric | too_large | ~np.isfinite(entries)).any(axis=(1, 2))
        if wrong.any():
            raise InputError(
                f"survey {self.name}, covariance of row {rows.start + int(np.argmax(wrong))}",
                "a matrix that is not symmetric or has correlations beyond 1",
                "a covariance matrix of the labels that are there",
                "check how it was assembled; use a diagonal one where only errors are known",
            )

    def __len__(self) -> int:
        return len(self.star)

    @property
    def measured(self) -> Bool[np.ndarray, " l"]:
        """Which labels the survey measures for at least one star."""
        return (~np.isnan(self.values)).any(axis=0)


@dataclass(frozen=True)
class Sky:
    """All surveys together, and what is known of which star is which.

    Attributes:
        label_set: the labels, with names and units: the meaning of the last axis of every survey's values.
        surveys: one entry per survey, anchors among them.
        n_stars: number of stars.
        group: index of the group of one composition (an open cluster) a star belongs to, -1 for none.

    Raises `InputError` for no or equally named surveys, stars out of range, and labels that nobody measures.
    """

    label_set: LabelSet
    surveys: tuple[Survey, ...]
    n_stars: int
    group: Int[np.ndarray, " _"]

    def __post_init__(self):
        names = self.names
        if not names or len(set(names)) != len(names):
            raise InputError("sky.surveys", f"names {names}", "one or more, each name once", "rename one")
        if self.group.shape != (self.n_stars,):
            raise InputError(
                "sky.group",
                f"shape {self.group.shape}",
                f"({self.n_stars},)",
                "give -1 for stars of no group",
            )
        for survey in self.surveys:
            if survey.values.shape[1] != len(self.label_set):
                raise InputError(
                    f"survey {survey.name}, values",
                    f"{survey.values.shape[1]} labels",
                    f"{len(self.label_set)} ({', '.join(self.label_set.names)})",
                    "order the columns like the label set, NaN for labels the survey does not have",
                )
            low, high = int(survey.star.min()), int(survey.star.max())
            if low < 0 or high >= self.n_stars:
                raise InputError(
                    f"survey {survey.name}, star",
                    f"indices {low} to {high}",
                    f"0 to {self.n_stars - 1}",
                    "index the stars of the sky",
                )
        measured = np.any([survey.measured for survey in self.surveys], axis=0)
        if not measured.all():
            missing = [name for name, there in zip(self.label_set.names, measured, strict=True) if not there]
            raise InputError(
                f"label {', '.join(missing)}",
                "no value in any survey",
                "labels that at least one survey measures",
                f"leave {'it' if len(missing) == 1 else 'them'} out of the label set, or check the columns",
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the surveys."""
        return tuple(survey.name for survey in self.surveys)

    def index(self, name: str) -> int:
        """Position of a survey by name. Raises `InputError` for a name that is not there."""
        if name not in self.names:
            raise InputError(
                "survey name", repr(name), f"one of {', '.join(self.names)}", "check the spelling"
            )
        return self.names.index(name)


def check_varied(sky: Sky) -> None:
    """Refuse a label that is one number in a whole survey, to a thousandth of its errors.

    Such a column is a default of a pipeline or a fill value: its scatter and its trend with that label cannot
    be inferred, and the fit breaks down or believes it. Raises `InputError` naming the survey and the label.
    """
    for survey in sky.surveys:
        values, rows = survey.values[:_BLOCK], slice(None, None, max(1, len(survey) // _BLOCK))
        error = np.sqrt(np.diagonal(survey.covariance[:_BLOCK], axis1=1, axis2=2))
        for j, name in enumerate(sky.label_set.names):
            there = ~np.isnan(values[:, j])
            if there.sum() < _FEW or np.ptp(values[there, j]) > 1e-3 * np.median(error[there, j]):
                continue
            every = survey.values[rows, j]
            if np.nanmax(every) - np.nanmin(every) > 1e-3 * np.median(error[there, j]):
                continue
            raise InputError(
                f"survey {survey.name}, label {name}",
                f"{values[there, j][0]:g} in all {int(there.sum())} rows that have it",
                "values that differ from star to star",
                f"leave {name} out of the columns of {survey.name}, or name the column that was measured",
            )


def diagonal(error: Float[np.ndarray, "m l"]) -> Float[np.ndarray, "m l l"]:
    """Covariances of independent one-sigma errors; NaN errors (of missing labels) become 0."""
    error = np.asarray(error)
    return np.where(np.isnan(error), 0.0, error)[:, :, None] ** 2 * np.eye(error.shape[1])


def make_sky(label_set: LabelSet, surveys: Sequence[Survey], n_stars: int | None = None, group=None) -> Sky:
    """A `Sky` with the number of stars and the groups filled in where they are not given."""
    if n_stars is None:
        n_stars = 1 + max((int(survey.star.max()) for survey in surveys), default=-1)
    group = np.full(n_stars, -1) if group is None else np.asarray(group)
    return Sky(label_set, tuple(surveys), n_stars, group)
