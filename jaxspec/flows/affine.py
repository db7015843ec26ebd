"""A full affine map given by the context: a Gaussian with a star's own mean and covariance, which the rest
reshapes.
"""

import distrax
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from jaxspec.flows.linear import MatrixBijector, unit_lower_inverse


def soft_clamp(x: Float[Array, "*n"], limit: float) -> Float[Array, "*n"]:
    """`x` near 0, bent to stay within +-`limit`: (2/pi) limit atan(x pi / (2 limit)); slope 1 at 0."""
    return (2.0 / np.pi) * limit * jnp.arctan(x * (np.pi / (2.0 * limit)))


class ConditionalAffine(nnx.Module):
    """u = A(c) (z - m(c)) with A lower triangular: whitens a Gaussian posterior of any centre, width and
    correlation.

    Spectra of S/N 5 and 300 have posteriors 60 times apart in width. With this layer next to the data the
    couplings only have to learn shape. A is a Cholesky factor of the precision, which grows as the S/N does;
    its log-diagonal is kept within +-`clamp` (default: widths from 3e-4 to 3e3). Starts as the identity.
    """

    def __init__(self, n_dim: int, n_context: int, *, width: int, clamp: float = 8.0, rngs: nnx.Rngs):
        self.n_dim, self.clamp = n_dim, clamp
        self.hidden = nnx.Linear(n_context, width, rngs=rngs)
        n_out = 2 * n_dim + n_dim * (n_dim - 1) // 2
        # The context enters the last layer directly too: centres are near-linear in what a good encoder
        # gives.
        self.last = nnx.Linear(width + n_context, n_out, kernel_init=nnx.initializers.zeros, rngs=rngs)

    def bijector(self, context: Float[Array, "b c"]) -> distrax.Bijector:
        n = self.n_dim
        parameters = self.last(jnp.concatenate([context, jax.nn.gelu(self.hidden(context))], -1))
        shift, log_diagonal, below = parameters[..., :n], parameters[..., n : 2 * n], parameters[..., 2 * n :]
        log_diagonal = soft_clamp(log_diagonal, self.clamp)
        diagonal = jnp.exp(log_diagonal)
        rows, columns = np.tril_indices(n, -1)
        unit = jnp.zeros((*below.shape[:-1], n, n), below.dtype).at[..., rows, columns].set(below)
        unit = unit + jnp.eye(n, dtype=below.dtype)
        # Row scaling of a unit-triangular matrix: correlations keep their meaning as the widths change with
        # S/N.
        inverse_unit = unit_lower_inverse(unit)
        return MatrixBijector(
            diagonal[..., :, None] * unit, inverse_unit / diagonal[..., None, :], log_diagonal.sum(-1), shift
        )
