"""Linear layers that mix the variables between couplings: a fixed permutation, or a learned invertible
matrix.
"""

from collections.abc import Sequence

import distrax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float


class MatrixBijector(distrax.Bijector):
    """y = M (x - m) for M given with its inverse and log-determinant, [d, d] or one per star [b, d, d].

    Both directions are then matrix products: with many draws per star, a triangular solve per draw would
    dominate.
    """

    def __init__(
        self,
        matrix: Float[Array, "*b d d"],
        inverse: Float[Array, "*b d d"],
        log_det: Float[Array, "*b"],
        shift: Float[Array, "*b d"] | None = None,
    ):
        super().__init__(event_ndims_in=1, is_constant_jacobian=True)
        self._matrix, self._inverse, self._log_det, self._shift = matrix, inverse, log_det, shift

    def forward_and_log_det(self, x):
        """Image of `x` [..., d] and the log-determinant there [...]."""
        centred = x if self._shift is None else x - self._shift
        return jnp.einsum("...ij,...j->...i", self._matrix, centred), jnp.broadcast_to(
            self._log_det, x.shape[:-1]
        )

    def inverse_and_log_det(self, y):
        """Preimage of `y` [..., d] and the log-determinant of the inverse there [...]."""
        x = jnp.einsum("...ij,...j->...i", self._inverse, y)
        x = x if self._shift is None else x + self._shift
        return x, jnp.broadcast_to(-self._log_det, y.shape[:-1])


def unit_lower_inverse(matrix: Float[Array, "*b d d"]) -> Float[Array, "*b d d"]:
    """Inverse of lower-triangular matrices with ones on the diagonal (whose diagonal is not read).

    Forward substitution, written out: LAPACK's solver for such small batches is slower on a CPU, and waits on
    the threads that the program itself runs on.
    """
    n = matrix.shape[-1]
    identity = jnp.broadcast_to(jnp.eye(n, dtype=matrix.dtype), matrix.shape)
    rows: list[Array] = []
    for i in range(n):
        rows.append(identity[..., i, :] - sum(matrix[..., i, j, None] * rows[j] for j in range(i)))
    return jnp.stack(rows, -2)


class PermutationBijector(distrax.Bijector):
    """y[i] = x[order[i]]."""

    def __init__(self, order: Sequence[int]):
        super().__init__(event_ndims_in=1, is_constant_jacobian=True)
        self._order = np.asarray(order)
        self._inverse_order = np.argsort(self._order)

    def forward_and_log_det(self, x):
        """Reordered `x` [..., d] and zeros [...]."""
        return x[..., self._order], jnp.zeros(x.shape[:-1], x.dtype)

    def inverse_and_log_det(self, y):
        """`y` [..., d] in the original order and zeros [...]."""
        return y[..., self._inverse_order], jnp.zeros(y.shape[:-1], y.dtype)


class Permutation(nnx.Module):
    """A fixed permutation of the variables."""

    def __init__(self, order: Sequence[int]):
        self.order = tuple(int(i) for i in order)

    def bijector(self, context: Float[Array, "b c"]) -> distrax.Bijector:
        return PermutationBijector(self.order)


class LULinear(nnx.Module):
    """A learned invertible matrix M = P L D U, the one-by-one convolution of GLOW for vectors.

    P is a fixed permutation, L and U are unit triangular, D is diagonal and positive; the log-determinant is
    the sum of D's logs. Starts as P. (Kingma & Dhariwal 2018, arXiv:1807.03039, section 3.2.)
    """

    def __init__(self, order: Sequence[int]):
        self.order = tuple(int(i) for i in order)
        n = len(self.order)
        self.lower = nnx.Param(jnp.zeros((n, n)))
        self.upper = nnx.Param(jnp.zeros((n, n)))
        self.log_diagonal = nnx.Param(jnp.zeros(n))

    def bijector(self, context: Float[Array, "b c"]) -> distrax.Bijector:
        log_diagonal = self.log_diagonal[...]
        identity = jnp.eye(len(self.order), dtype=log_diagonal.dtype)
        lower = jnp.tril(self.lower[...], -1) + identity
        upper = jnp.triu(self.upper[...], 1) + identity
        diagonal = jnp.exp(log_diagonal)
        inverse = (unit_lower_inverse(upper.T).T / diagonal) @ unit_lower_inverse(lower)
        order = np.asarray(self.order)
        return MatrixBijector(((lower * diagonal) @ upper)[order], inverse[:, order], log_diagonal.sum())
