"""The functions of Teff, log g and [Fe/H] that a survey's offset is made of."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from jaxspec.errors import InputError

KINDS = ("linear", "quadratic", "spline")
# Knots of the natural cubic spline, in spreads from the pivot: outside the outer two it goes on straight.
KNOTS = (-2.0, -0.7, 0.7, 2.0)


@dataclass(frozen=True)
class Basis:
    """An additive basis over `n_inputs` standardised inputs `u` (0 at the pivot, 1 a spread above it).

    `linear` is `u` itself, with which true labels can be marginalised exactly. `quadratic` and `spline` add
    curvature; the model is then linearised about each star's preliminary labels, which neglects curvature
    over one measurement error and nothing else. All functions but `u` have zero value and slope at the pivot.

    Raises `InputError` for an unknown `kind`.
    """

    kind: str
    n_inputs: int

    def __post_init__(self):
        if self.kind not in KINDS:
            raise InputError("trend", repr(self.kind), f"one of {', '.join(KINDS)}", "check the spelling")

    @property
    def per_input(self) -> int:
        """Functions of each input."""
        return {"linear": 1, "quadratic": 2, "spline": len(KNOTS) - 1}[self.kind]

    @property
    def size(self) -> int:
        """Number of functions in all."""
        return self.per_input * self.n_inputs

    @property
    def is_linear(self) -> bool:
        return self.kind == "linear"

    def values(self, u: Float[np.ndarray, "n j"]) -> Float[np.ndarray, "n p"]:
        """The functions at `u`, those of one input side by side."""
        return np.stack(self._functions(u)[0], axis=-1).reshape(len(u), self.size)

    def slopes(self, u: Float[np.ndarray, "n j"]) -> Float[np.ndarray, "n p j"]:
        """Their derivatives by each input."""
        derivative = np.stack(self._functions(u)[1], axis=-1)
        result = np.zeros((len(u), self.n_inputs, self.per_input, self.n_inputs))
        for j in range(self.n_inputs):
            result[:, j, :, j] = derivative[:, j]
        return result.reshape(len(u), self.size, self.n_inputs)

    def _functions(self, u) -> tuple[list[np.ndarray], list[np.ndarray]]:
        values, slopes = [u], [np.ones_like(u)]
        if self.kind == "quadratic":
            values.append(0.5 * u**2)
            slopes.append(u)
        if self.kind == "spline":
            at_zero = _spline(np.zeros(1))
            for (value, slope), (value0, slope0) in zip(_spline(u), at_zero, strict=True):
                values.append(value - value0 - slope0 * u)
                slopes.append(slope - slope0)
        return values, slopes


def _spline(u) -> list[tuple[np.ndarray, np.ndarray]]:
    """The non-linear functions of a natural cubic spline and their derivatives (Hastie, Tibshirani & Friedman
    2009, Elements of Statistical Learning, eq. 5.4-5.5), per squared spread."""
    last, before = KNOTS[-1], KNOTS[-2]

    def cubic(knot):
        x = np.maximum(u - knot, 0.0)
        y = np.maximum(u - last, 0.0)
        return (x**3 - y**3) / (last - knot), 3.0 * (x**2 - y**2) / (last - knot)

    value_b, slope_b = cubic(before)
    return [
        ((value - value_b) / (last - KNOTS[0]), (slope - slope_b) / (last - KNOTS[0]))
        for value, slope in (cubic(knot) for knot in KNOTS[:-2])
    ]
