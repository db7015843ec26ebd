"""The spline against Distrax's, which has the same formulas and another search."""

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspec.flows.spline import RationalQuadraticSpline

BINS, BOUND, MIN_BIN = 6, 4.0, 0.05


def both(scale: float):
    raw = scale * jax.random.normal(jax.random.key(0), (400, 3, 3 * BINS + 1))
    theirs = distrax.RationalQuadraticSpline(
        raw, -BOUND, BOUND, boundary_slopes="identity", min_bin_size=MIN_BIN, min_knot_slope=1e-3
    )
    return RationalQuadraticSpline(raw[..., : 2 * BINS], raw[..., 2 * BINS :], BOUND, MIN_BIN), theirs


@pytest.mark.parametrize("direction", ["forward_and_log_det", "inverse_and_log_det"])
@pytest.mark.parametrize("scale", [0.0, 0.3, 1.0])
def test_agrees_with_distrax(direction, scale):
    """To rounding, inside and outside of the range and at its ends."""
    ours, theirs = both(scale)
    x = 3.0 * jax.random.normal(jax.random.key(1), (400, 3))
    x = x.at[:3].set(jnp.array([[-BOUND], [BOUND], [0.0]]))
    for a, b in zip(*(getattr(s, direction)(x) for s in (ours, theirs)), strict=True):
        np.testing.assert_allclose(a, b, rtol=3e-5, atol=3e-5)


def test_is_the_identity_outside_and_lets_no_nan_through():
    ours, _ = both(1.0)
    x = jnp.full((400, 3), 40.0).at[0].set(-40.0).at[1].set(jnp.nan)
    for direction in ("forward_and_log_det", "inverse_and_log_det"):
        y, log_det = getattr(ours, direction)(x)
        np.testing.assert_array_equal(y, x)
        np.testing.assert_array_equal(np.delete(log_det, 1, 0), 0.0)
        slope = jax.grad(lambda x, direction=direction: jnp.sum(getattr(ours, direction)(x)[0][0]))(x)
        assert np.isfinite(slope).all()
