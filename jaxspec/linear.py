"""Small dense linear systems inside compiled loops.

On CPU `jnp.linalg.solve` calls LAPACK, whose batches wait on the same threads that run the program: with two
cores, programs with many small solves have been seen to hang for ever (JAX 0.10.2). The matrices here have 5
to 72 rows, so plain elimination in JAX serves.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float


def inverse(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Inverse by Gauss-Jordan elimination with partial pivoting, not for differentiation (see `solve`)."""
    n = matrix.shape[0]
    rows = np.arange(n)

    def eliminate(k, work):
        column = jnp.where(rows < k, -1.0, jnp.abs(work[:, k]))
        pivot = jnp.argmax(column)
        old_row = work[k]
        pivot_row = jnp.sum(jnp.where((rows == pivot)[:, None], work, 0.0), axis=0)
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


@jax.custom_jvp
def inverse_and_log_det(
    matrix: Float[Array, "*n l l"],
) -> tuple[Float[Array, "*n l l"], Float[Array, "*n"]]:
    """Inverses and log-determinants of positive definite matrices: Gauss-Jordan elimination without pivots.

    The matrices run along the last axis while it works, which is what a processor's vector units want: twice
    as fast as one matrix at a time. Derivatives come from the inverse itself, which is cheaper than
    differentiating the elimination.
    """
    *shape, size, _ = matrix.shape
    rows = jnp.arange(size)

    def eliminate(k, state):
        work, log_det = state
        pivot, column, here = work[k, k], work[:, k], rows == k
        row = jnp.where(here[:, None], 1.0 / pivot, work[k] / pivot)
        rest = jnp.where(here[None, :, None], 0.0, work) - column[:, None] * row[None]
        return jnp.where(here[:, None, None], row[None], rest), log_det + jnp.log(pivot)

    work = jnp.moveaxis(matrix.reshape(-1, size, size), 0, -1)
    start = (work, jnp.zeros(work.shape[-1], matrix.dtype))
    work, log_det = jax.lax.fori_loop(0, size, eliminate, start)
    return jnp.moveaxis(work, -1, 0).reshape(matrix.shape), log_det.reshape(shape)


@inverse_and_log_det.defjvp
def _inverse_and_log_det_jvp(primals, tangents):
    (matrix,), (change,) = primals, tangents
    inverse, log_det = inverse_and_log_det(matrix)
    product = inverse @ change
    return (inverse, log_det), (-product @ inverse, jnp.trace(product, axis1=-2, axis2=-1))


def median_of(values: Float[Array, " n"], used: Bool[Array, " n"]) -> Float[Array, ""]:
    """Median of the values that are used, 0 where none is; the mean of the middle two of an even number.

    `jnp.nanmedian` does the same through NaN and a gather, neither of which other runtimes agree on.
    """
    n = jnp.sum(used, dtype=jnp.int32)
    rank = jnp.arange(values.size, dtype=jnp.int32)
    values = jnp.sort(jnp.where(used, values, jnp.inf))
    middle = (rank == (n - 1) // 2) | (rank == n // 2)
    total = jnp.sum(jnp.where(middle & (rank < n), values, 0.0))
    return total / jnp.where(n % 2 == 1, 1.0, 2.0)


def cholesky(matrix: Float[Array, "*n l l"], floor: float = 1e-6) -> Float[Array, "*n l l"]:
    """Lower-triangular roots of symmetric matrices, written out row by row; what rounding leaves of a pivot
    is at least `floor` of its diagonal element, so that the root is always finite and invertible."""
    size = matrix.shape[-1]
    scale = jnp.sqrt(jnp.diagonal(matrix, axis1=-2, axis2=-1))
    work = matrix / scale[..., :, None] / scale[..., None, :]
    columns = []
    for k in range(size):
        column = work[..., :, k] / jnp.sqrt(jnp.maximum(work[..., k, k], floor))[..., None]
        column = jnp.where(np.arange(size) >= k, column, 0.0)
        column = column.at[..., k].set(jnp.sqrt(jnp.maximum(work[..., k, k], floor)))
        work = work - column[..., :, None] * column[..., None, :]
        columns.append(column)
    return jnp.stack(columns, axis=-1) * scale[..., :, None]
