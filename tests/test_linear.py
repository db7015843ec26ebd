import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxspec.linear import cholesky, inverse, solve


@pytest.mark.parametrize("n", [1, 5, 20, 72])
def test_inverse_and_solution_are_those_of_lapack(n, rng):
    matrix = rng.normal(size=(n, n)) + 3 * np.eye(n)
    rhs = rng.normal(size=n)
    np.testing.assert_allclose(inverse(jnp.asarray(matrix, jnp.float32)), np.linalg.inv(matrix), atol=2e-4)
    x = solve(jnp.asarray(matrix, jnp.float32), jnp.asarray(rhs, jnp.float32))
    np.testing.assert_allclose(x, np.linalg.solve(matrix, rhs), atol=2e-4)


def test_pivots_where_the_diagonal_vanishes():
    matrix = np.array([[0.0, 2.0, 0.0], [0.0, 0.0, 4.0], [1.0, 0.0, 0.0]])
    np.testing.assert_allclose(inverse(jnp.asarray(matrix, jnp.float32)), np.linalg.inv(matrix), atol=1e-7)


def test_leading_axes(rng):
    matrix = rng.normal(size=(4, 3, 6, 6)) + 4 * np.eye(6)
    rhs = rng.normal(size=(3, 6))
    ours = solve(jnp.asarray(matrix, jnp.float32), jnp.asarray(rhs, jnp.float32))
    expected = np.linalg.solve(matrix, np.broadcast_to(rhs, (4, 3, 6))[..., None])[..., 0]
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_derivatives_by_matrix_and_by_right_hand_side(rng, x64):
    matrix, rhs = rng.normal(size=(5, 5)) + 3 * np.eye(5), rng.normal(size=5)
    check_grads(
        jax.jit(solve),
        (jnp.asarray(matrix), jnp.asarray(rhs)),
        order=1,
        modes=("fwd", "rev"),
        atol=1e-6,
        rtol=1e-6,
    )


def test_roots_are_those_of_lapack_and_finite_without_one(rng):
    half = rng.normal(size=(5, 9, 12)) * 10.0 ** rng.uniform(-2, 2, (5, 9, 1))
    matrix = half @ half.swapaxes(1, 2)
    scale = np.sqrt(np.diagonal(matrix, axis1=1, axis2=2))[:, :, None]
    found = np.asarray(cholesky(jnp.asarray(matrix, jnp.float32)))
    np.testing.assert_allclose(found / scale, np.linalg.cholesky(matrix) / scale, atol=1e-4)
    twice = jnp.asarray([[1.0, 1.0], [1.0, 1.0]])
    np.testing.assert_allclose(cholesky(twice), [[1.0, 0.0], [1.0, 1e-3]], atol=1e-6)
