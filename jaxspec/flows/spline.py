"""The monotone rational-quadratic spline, in operations that leave JAX as they are.

Distrax has one of its own with the same formulas; its search for the bin does not export to ONNX.
"""

from typing import NamedTuple

import distrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

MIN_SLOPE = 1e-3  # at a knot


class _Knot(NamedTuple):
    x: Float[Array, "..."]
    y: Float[Array, "..."]
    slope: Float[Array, "..."]


class RationalQuadraticSpline(distrax.Bijector):
    """y = s(x) on [-bound, bound] for each element, the identity outside.

    (Durkan et al. 2019, arXiv:1906.04032, equations 4 to 8; both ends have slope 1.)

    Args:
        sizes: raw widths of the `k` bins, then their raw heights, `[..., 2 k]`; all 0 makes them even.
        slopes: raw slopes at the `k + 1` knots; 0 is slope 1. The first and last are not read.
        bound: half the range.
        min_bin: least width and height of a bin.
    """

    def __init__(
        self, sizes: Float[Array, "*n m"], slopes: Float[Array, "*n j"], bound: float, min_bin: float
    ):
        super().__init__(event_ndims_in=0)
        self._bound = bound
        widths, heights = jnp.split(sizes, 2, axis=-1)
        self._x, self._y = (_knots(raw, bound, min_bin) for raw in (widths, heights))
        # Softplus of this is 1 less the least slope.
        offset = np.log(np.expm1(1.0 - MIN_SLOPE)).astype(slopes.dtype)
        inner = jax.nn.softplus(slopes[..., 1:-1] + offset) + MIN_SLOPE
        end = jnp.ones_like(slopes[..., :1])
        self._slopes = jnp.concatenate([end, inner, end], axis=-1)

    def _bin(self, value: Float[Array, "..."], edges: Float[Array, "..."]) -> tuple[_Knot, _Knot]:
        """The knots to the left and right of each value, the first two of values below all `edges`.

        Element by element, without a gather or a sum over bins: both are slow somewhere.
        """
        numbers = range(edges.shape[-1])
        knots = [_Knot(*(x[..., i] for x in (self._x, self._y, self._slopes))) for i in numbers]
        left, right = knots[:2]
        for i in range(1, len(knots) - 1):
            beyond = value >= edges[..., i]
            left, right = (
                _Knot(*(jnp.where(beyond, new, old) for new, old in zip(knots[j], end, strict=True)))
                for j, end in ((i, left), (i + 1, right))
            )
        return left, right

    def forward_and_log_det(self, x):
        """Image of each element of `x` [...] and the logarithm of the derivative there [...]."""
        inside = jnp.abs(x) < self._bound
        start, x = x, jnp.where(inside, x, 0.0)  # a NaN outside must not reach the derivatives inside
        left, right = self._bin(x, self._x)
        width, height = right.x - left.x, right.y - left.y
        slope = height / width
        # Clipped where x is outside, so that no derivative is a NaN there.
        z = jnp.clip((x - left.x) / width, 0.0, 1.0)
        bend, log_det = _bend_and_log_det(z, slope, left.slope, right.slope)
        y = left.y + height * (slope * z * z + left.slope * (z - z * z)) / bend
        return jnp.where(inside, y, start), jnp.where(inside, log_det, 0.0)

    def inverse_and_log_det(self, y):
        """Preimage of each element of `y` [...] and the logarithm of the inverse's derivative there [...]."""
        inside = jnp.abs(y) < self._bound
        start, y = y, jnp.where(inside, y, 0.0)
        left, right = self._bin(y, self._y)
        width, height = right.x - left.x, right.y - left.y
        slope = height / width
        w = jnp.clip((y - left.y) / height, 0.0, 1.0)
        # The root in [0, 1] of a z^2 + b z + c, in the form that loses no digits for either sign of b.
        b = left.slope - (left.slope + right.slope - 2.0 * slope) * w
        a, c = slope - b, -slope * w
        square = b * b - 4.0 * a * c
        tiny = float(jnp.finfo(y.dtype).tiny)
        root = jnp.where(square > 0.0, jnp.sqrt(jnp.maximum(square, tiny)), 0.0)
        z = jnp.where(b >= 0.0, 2.0 * c, root - b) / jnp.where(b >= 0.0, -b - root, 2.0 * a)
        z = jnp.clip(z, 0.0, 1.0)
        _, log_det = _bend_and_log_det(z, slope, left.slope, right.slope)
        return jnp.where(inside, width * z + left.x, start), jnp.where(inside, -log_det, 0.0)


def _knots(raw: Float[Array, "*n k"], bound: float, min_bin: float) -> Float[Array, "*n j"]:
    """Positions of the ends of bins, from their raw sizes."""
    k = raw.shape[-1]
    sizes = jax.nn.softmax(raw, axis=-1) * (2.0 * bound - k * min_bin) + min_bin
    end = jnp.full_like(raw[..., :1], bound)
    return jnp.concatenate([-end, jnp.cumsum(sizes[..., :-1], axis=-1) - bound, end], axis=-1)


def _bend_and_log_det(
    z: Float[Array, "*n"], slope: Float[Array, "*n"], left: Float[Array, "*n"], right: Float[Array, "*n"]
) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    """The denominator of equation 4 at `z` of a bin's width, and the logarithm of the derivative (5), from
    the bin's mean slope and those at its ends."""
    both = z - z * z
    bend = slope + (left + right - 2.0 * slope) * both
    top = right * z * z + 2.0 * slope * both + left * (1.0 - z) ** 2
    return bend, 2.0 * jnp.log(slope) + jnp.log(top) - 2.0 * jnp.log(bend)
