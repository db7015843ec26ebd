import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import wofz

from jaxspec.physics.voigt import voigt, voigt_and_slopes


def exact(a, v):
    """H(a, v) is the real part of the Faddeeva function of v + i a."""
    return wofz(v + 1j * a).real


A = np.concatenate([[0.0], np.geomspace(1e-5, 3.0, 40)])[:, None]
V = np.concatenate([np.linspace(0.0, 12.0, 241), np.geomspace(12.0, 1e4, 60)])[None, :]


def test_agrees_with_the_faddeeva_function():
    ours = np.asarray(voigt(jnp.asarray(A, jnp.float32), jnp.asarray(V, jnp.float32)))
    assert np.max(np.abs(ours - exact(A, V)) / exact(A, 0 * V)) < 1e-4


@pytest.mark.parametrize(("a", "tolerance"), [(1e-4, 0.02), (1e-2, 1e-3), (1.0, 1e-3)])
def test_wings_are_right_in_proportion_to_themselves(a, tolerance):
    v = np.geomspace(5.0, 1e4, 200)
    ours = np.asarray(voigt(jnp.full(v.shape, a, jnp.float32), jnp.asarray(v, jnp.float32)))
    np.testing.assert_allclose(ours, exact(a, v), rtol=tolerance)


@pytest.mark.parametrize("a", [0.0, 1e-3, 0.1, 1.0])
def test_area_is_the_root_of_pi(a, x64):
    # Beyond the grid's end the Lorentzian's tail holds 2 a / (sqrt(pi) v_end).
    v = np.sinh(np.linspace(-12.0, 12.0, 20001))
    area = np.trapezoid(np.asarray(voigt(jnp.full(v.shape, a), jnp.asarray(v))), v)
    assert area + 2 * a / np.sqrt(np.pi) / v[-1] == pytest.approx(np.sqrt(np.pi), rel=2e-5)


def test_is_even_and_falls_with_distance():
    v = jnp.linspace(0.0, 30.0, 3001)
    for a in (1e-3, 0.05, 1.0):
        profile = voigt(jnp.full_like(v, a), v)
        np.testing.assert_array_equal(profile, voigt(jnp.full_like(v, a), -v))
        # The rational approximation may ripple by its own error, 1e-5 of the centre, and no more.
        assert np.all(np.diff(profile) < 1e-5 * profile[0])


def test_derivatives_are_those_of_the_faddeeva_function(x64):
    """dH/dv = -2 (v H - a Im w) and dH/da = 2 (v Im w + a H) - 2 / sqrt(pi)."""
    a, v = (
        x.ravel() for x in np.broadcast_arrays(np.geomspace(0.01, 2.0, 7)[:, None], np.linspace(0.0, 6.0, 25))
    )
    by_a, by_v = (
        np.asarray(jax.vmap(jax.grad(voigt, argnums=i))(jnp.asarray(a), jnp.asarray(v))) for i in (0, 1)
    )
    w = wofz(v + 1j * a)
    np.testing.assert_allclose(by_v, -2 * (v * w.real - a * w.imag), atol=2e-4)
    np.testing.assert_allclose(by_a, 2 * (v * w.imag + a * w.real) - 2 / np.sqrt(np.pi), atol=2e-4)


@pytest.mark.parametrize("a", [1e-4, 1e-2, 1.0, 3.0])
def test_slopes_in_single_precision(a):
    """Near the centre to 1e-6 of the profile's height, in the wings in proportion to themselves."""
    v = np.concatenate([np.linspace(0.0, 8.0, 400), np.geomspace(8.0, 1e4, 100)])
    arguments = jnp.full(v.shape, a, jnp.float32), jnp.asarray(v, jnp.float32)
    found, by_a, by_v = voigt_and_slopes(*arguments)
    np.testing.assert_allclose(found, voigt(*arguments), rtol=1e-5, atol=1e-6)
    z = v + 1j * a
    w = wofz(z)
    near = np.abs(z) < 100  # beyond, the exact expression cancels in double precision too
    slope = np.where(near, -2 * z * w + 2j / np.sqrt(np.pi), -1j / np.sqrt(np.pi) / z**2 * (1 + 1.5 / z**2))
    wing = np.abs(z) ** 2 > 30.5
    np.testing.assert_allclose(by_v[wing], slope.real[wing], rtol=2e-3, atol=1e-12)
    np.testing.assert_allclose(by_a[wing], -slope.imag[wing], rtol=2e-3, atol=1e-12)
    np.testing.assert_allclose(by_v, slope.real, atol=2e-6)
    np.testing.assert_allclose(by_a, -slope.imag, atol=2e-6)
