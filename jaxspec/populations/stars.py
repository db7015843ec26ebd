"""Stars to be grouped: labels by name, with each star's covariance; missing labels are NaN."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from jaxspec.errors import InputError

# The smallest spread [dex, or a label's own unit] by which a label is scaled: of one that never varies.
SMALLEST = 1e-3


@dataclass(frozen=True)
class Stars:
    """Labels of n stars with their errors.

    Attributes:
        labels: names, such as `fe_h` or `mg_fe`, in the order of the last axis.
        values: NaN where not measured.
        covariance: of the measurement errors; rows and columns of missing labels are not read.
        names: of the stars.
    """

    labels: tuple[str, ...]
    values: Float[np.ndarray, "n l"]
    covariance: Float[np.ndarray, "n l l"]
    names: tuple[str, ...] = ()

    def __post_init__(self):
        n, count = self.values.shape
        if len(set(self.labels)) != len(self.labels) or len(self.labels) != count or not count:
            fix = "name each column of the values once"
            raise InputError("labels", ", ".join(self.labels) or "none", f"{count} different names", fix)
        if self.covariance.shape != (n, count, count):
            raise InputError("covariance", f"shape {self.covariance.shape}", f"({n}, {count}, {count})", "")
        if not self.names:
            object.__setattr__(self, "names", tuple(str(i) for i in range(n)))
        if len(self.names) != n:
            raise InputError("names", f"{len(self.names)}", f"{n}, one a star", "name every star")
        self._check_numbers()

    def _check_numbers(self) -> None:
        bad = np.isinf(self.values)
        if bad.any():
            row, j = map(int, np.argwhere(bad)[0])
            where, fix = f"label {self.labels[j]} of star {self.names[row]}", "write NaN where not measured"
            raise InputError(where, "an infinite value", "a number", fix)
        there = self.measured
        variance = self.variance
        bad = there & ~(np.isfinite(variance) & (variance >= 0.0))
        if bad.any():
            row, j = map(int, np.argwhere(bad)[0])
            where = f"error of {self.labels[j]} of star {self.names[row]}"
            fix = "give an error, or no value, for it"
            raise InputError(where, f"variance {variance[row, j]:g}", "a number that is not negative", fix)
        empty = np.flatnonzero(~there.any(1))
        if len(empty):
            found = f"{len(empty)} stars without any label, from {self.names[empty[0]]} on"
            raise InputError("stars", found, "one label or more of each", "leave them out")

    @classmethod
    def with_errors(
        cls,
        labels: Sequence[str],
        values: Float[np.ndarray, "n l"],
        errors: Float[np.ndarray, "n l"],
        names: Sequence[str] = (),
    ) -> Stars:
        """Stars whose errors are independent, one standard deviation for each label."""
        covariance = np.asarray(errors, float)[:, :, None] ** 2 * np.eye(len(labels))
        return cls(tuple(labels), np.asarray(values, float), covariance, tuple(names))

    def __len__(self) -> int:
        return len(self.values)

    @property
    def measured(self) -> np.ndarray:
        """Which labels are measured `[n, l]`."""
        return ~np.isnan(self.values)

    @property
    def variance(self) -> Float[np.ndarray, "n l"]:
        """Squared errors."""
        return np.diagonal(self.covariance, axis1=1, axis2=2)

    @property
    def errors(self) -> Float[np.ndarray, "n l"]:
        """Standard errors; NaN where not measured."""
        return np.where(self.measured, np.sqrt(np.maximum(self.variance, 0.0)), np.nan)

    def rows(self, which) -> Stars:
        """Some of the stars: indices, a slice or a mask."""
        index = np.arange(len(self))[which]
        names = tuple(self.names[i] for i in index)
        values, covariance = self.values[index], self.covariance[index]
        return dataclasses.replace(self, values=values, covariance=covariance, names=names)

    def select(self, labels: Sequence[str]) -> Stars:
        """The labels of these names, in this order.

        Raises: InputError naming a label that the stars do not have.
        """
        for name in labels:
            if name not in self.labels:
                fix = "give these labels, or fit a model without it"
                raise InputError("labels", f"no {name}", f"{', '.join(self.labels)} only", fix)
        place = np.array([self.labels.index(name) for name in labels])
        covariance = self.covariance[:, place[:, None], place]
        return Stars(tuple(labels), self.values[:, place], covariance, self.names)

    def relative_to_iron(self) -> Stars:
        """The same stars with each [X/H] turned into [X/Fe], and covariances that follow; stars without
        [Fe/H] lose these labels. Without `fe_h` among the labels nothing changes."""
        return self._relative("_h", "_fe", -1.0)

    def relative_to_hydrogen(self) -> Stars:
        """The same stars with each [X/Fe] turned into [X/H]; the inverse of `relative_to_iron`."""
        return self._relative("_fe", "_h", 1.0)

    def _relative(self, old: str, new: str, sign: float) -> Stars:
        names = tuple(
            f"{name.removesuffix(old)}{new}" if name.endswith(old) and name != "fe_h" else name
            for name in self.labels
        )
        if "fe_h" not in self.labels or names == self.labels or len(set(names)) < len(names):
            return self
        iron = self.labels.index("fe_h")
        changed = np.array([a != b for a, b in zip(names, self.labels, strict=True)])
        matrix = np.eye(len(names))
        matrix[changed, iron] = sign
        values = self.values.copy()
        values[:, changed] += sign * self.values[:, [iron]]
        lost = np.isnan(values).all(1)  # stars with abundances relative to an iron that they do not have
        if lost.any():
            found = f"{lost.sum()} stars without [Fe/H], such as {self.names[int(np.argmax(lost))]}"
            raise InputError("label fe_h", found, "iron where [X/Fe] is wanted", "leave these stars out")
        pairs = self.measured[:, :, None] & self.measured[:, None, :]
        covariance = matrix @ np.where(pairs, self.covariance, 0.0) @ matrix.T
        return Stars(names, values, covariance, self.names)


@dataclass(frozen=True)
class Scale:
    """Shift and unit of each label, by which methods see them: median and robust spread."""

    shift: Float[np.ndarray, " l"]
    unit: Float[np.ndarray, " l"]

    @classmethod
    def of(cls, stars: Stars) -> Scale:
        """Raises: InputError for a label that no star has."""
        for name, there in zip(stars.labels, np.atleast_1d(stars.measured.any(0)), strict=True):
            if not there:
                raise InputError(f"label {name}", "no star that has it", "one or more", "leave it out")
        low, shift, high = np.nanquantile(stars.values, [0.16, 0.5, 0.84], axis=0)
        return cls(shift, np.maximum(0.5 * (high - low), SMALLEST))

    def apply(self, stars: Stars) -> tuple[np.ndarray, np.ndarray]:
        """Values `[n, l]` (NaN: missing) and covariances `[n, l, l]` in these units; those of missing labels
        are 0."""
        there = stars.measured
        pairs = there[:, :, None] & there[:, None, :]
        covariance = np.where(pairs, stars.covariance, 0.0) / (self.unit[:, None] * self.unit)
        return (stars.values - self.shift) / self.unit, covariance
