"""Functions that offsets are made of: slopes are their derivatives, splines are natural cubic ones."""

import numpy as np
import pytest
from scipy.interpolate import CubicSpline

from jaxspec.errors import InputError
from jaxspec.surveys.basis import KINDS, KNOTS, Basis

U = np.linspace(-3.5, 3.5, 141)


@pytest.mark.parametrize("kind", KINDS)
def test_slopes_are_derivatives(kind, rng):
    basis, u, step = Basis(kind, 2), rng.normal(0.0, 1.5, (50, 2)), 1e-6
    slopes = basis.slopes(u)
    assert basis.values(u).shape == (50, basis.size) and slopes.shape == (50, basis.size, 2)
    for j in range(2):
        by = step * np.eye(2)[j]
        numerical = (basis.values(u + by) - basis.values(u - by)) / (2.0 * step)
        np.testing.assert_allclose(slopes[:, :, j], numerical, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_linear_function_has_a_slope_at_the_pivot(kind):
    basis = Basis(kind, 3)
    np.testing.assert_array_equal(basis.values(np.zeros((1, 3))), np.zeros((1, basis.size)))
    expected = np.zeros((basis.size, 3))
    expected[np.arange(3) * basis.per_input, np.arange(3)] = 1.0
    np.testing.assert_allclose(basis.slopes(np.zeros((1, 3)))[0], expected, atol=1e-15)


def test_quadratics_are_in_the_quadratic_basis_and_lines_in_the_linear_one():
    line = Basis("linear", 1)
    np.testing.assert_array_equal(line.values(U[:, None]), U[:, None])
    assert line.is_linear and not Basis("quadratic", 1).is_linear
    values = Basis("quadratic", 1).values(U[:, None])
    np.testing.assert_allclose(values @ [3.0, -4.0], 3.0 * U - 2.0 * U**2)


def test_any_natural_cubic_spline_of_the_knots_is_in_the_spline_basis(rng):
    """Four knots: with a constant, four functions span all of them. Outside they go on straight."""
    natural = CubicSpline(KNOTS, rng.normal(size=len(KNOTS)), bc_type="natural")
    low, high = KNOTS[0], KNOTS[-1]
    truth = np.where(
        U < low,
        natural(low) + natural(low, 1) * (U - low),
        np.where(U > high, natural(high) + natural(high, 1) * (U - high), natural(U)),
    )
    design = np.column_stack([np.ones(len(U)), Basis("spline", 1).values(U[:, None])])
    assert np.linalg.matrix_rank(design) == 4
    solution = np.linalg.lstsq(design, truth, rcond=None)[0]
    np.testing.assert_allclose(design @ solution, truth, atol=1e-10)


def test_an_unknown_kind_is_refused():
    with pytest.raises(InputError, match="trend: found 'cubic'"):
        Basis("cubic", 1)
