"""Small dense linear systems inside compiled loops.

On CPU `jnp.linalg.solve` calls LAPACK, whose batches wait on the same threads that run the program: with two
cores, programs with many small solves have been seen to hang for ever (JAX 0.10.2). The matrices here have 5
to 72 rows, so plain elimination in JAX serves.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def inverse(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Inverse by Gauss-Jordan elimination with partial pivoting, not for differentiation (see `solve`)."""
    n = matrix.shape[0]
    rows = np.arange(n)

    def eliminate(k, work):
        column = jnp.where(rows < k, -1.0, jnp.abs(work[:, k]))
        pivot = jnp.argmax(column)
        pivot_row, old_row = work[pivot], work[k]
        work = jnp.where((rows == pivot)[:, None], old_row, work)
        pivot_row = pivot_row / pivot_row[k]
        work = work - work[:, k][:, None] * pivot_row[None, :]
        return jnp.where((rows == k)[:, None], pivot_row, work)

    work = jnp.concatenate([matrix, jnp.eye(n, dtype=matrix.dtype)], axis=1)
    return jax.lax.fori_loop(0, n, eliminate, work)[:, n:]


@partial(jnp.vectorize, signature="(n,n),(n)->(n)")
def solve(matrix: Float[Array, "n n"], rhs: Float[Array, " n"]) -> Float[Array, " n"]:
    """Solution x of matrix x = rhs, over any leading axes; forward and reverse derivatives are exact.

    The inverse is held constant; one refinement step carries the derivatives, dx = A^-1 (db - dA x).
    """
    fixed = jax.lax.stop_gradient(inverse(jax.lax.stop_gradient(matrix)))
    first = jax.lax.stop_gradient(fixed @ rhs)
    return first + fixed @ (rhs - matrix @ first)
