"""Properties every bijection of `jaxspec.flows` must have, over one dictionary of constructors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxspec.flows import (
    AffineCoupling,
    Autoregressive,
    ConditionalAffine,
    ConditionalFlow,
    FlowConfig,
    LULinear,
    MatchingFlow,
    Permutation,
    SplineCoupling,
)
from tests.shaken import shaken

N_DIM, N_CONTEXT, N_STARS = 5, 3, 4
SIZES = dict(n_dim=N_DIM, n_context=N_CONTEXT)
ORDER = (3, 0, 4, 1, 2)
# Random weights are wilder than trained ones; these limits keep every spline invertible in float32.
SOLVER_STEPS = 64
TAME = dict(min_bin=0.25, slope_clamp=2.5)

# name -> constructor; a new layer belongs here and is then held to every test below.
BIJECTIONS = {
    "affine coupling": lambda rngs: AffineCoupling(**SIZES, width=8, rngs=rngs),
    "spline coupling": lambda rngs: SplineCoupling(**SIZES, width=8, n_bins=5, bound=3.0, **TAME, rngs=rngs),
    "autoregressive": lambda rngs: Autoregressive(**SIZES, width=8, rngs=rngs),
    "conditional affine": lambda rngs: ConditionalAffine(**SIZES, width=8, rngs=rngs),
    "LU": lambda rngs: LULinear(ORDER),
    "permutation": lambda rngs: Permutation(ORDER),
    "spline flow": lambda rngs: ConditionalFlow(
        FlowConfig(n_layers=2, width=8, n_bins=4, **TAME), **SIZES, rngs=rngs
    ),
    "affine flow": lambda rngs: ConditionalFlow(
        FlowConfig(coupling="affine", mixing="permutation", n_layers=2, width=8, conditional_affine=False),
        **SIZES,
        rngs=rngs,
    ),
    "autoregressive flow": lambda rngs: ConditionalFlow(
        FlowConfig(coupling="autoregressive", n_layers=2, width=8), **SIZES, rngs=rngs
    ),
    # A solver is as exact as its steps are short; with these it meets the bars of the closed forms.
    "matching flow": lambda rngs: MatchingFlow(
        FlowConfig(coupling="matching", width=8, solver_steps=SOLVER_STEPS), **SIZES, rngs=rngs
    ),
}


def as_dtype(model, dtype):
    graph, state = nnx.split(model)
    return nnx.merge(graph, jax.tree.map(lambda x: x.astype(dtype), state))


def inputs(dtype=jnp.float32, n_draws=None):
    shape = (N_STARS, N_DIM) if n_draws is None else (n_draws, N_STARS, N_DIM)
    x = 1.5 * jax.random.normal(jax.random.key(1), shape, dtype)
    return x, jax.random.normal(jax.random.key(2), (N_STARS, N_CONTEXT), dtype)


def run(model, method):
    """A compiled call of one method of the module's bijector."""
    graph, state = nnx.split(model)
    call = jax.jit(lambda state, x, c: getattr(nnx.merge(graph, state).bijector(c), method)(x))
    return lambda x, context: call(state, x, context)


@pytest.fixture(params=BIJECTIONS, scope="module")
def model(request):
    return shaken(BIJECTIONS[request.param](nnx.Rngs(0)), 0.25)


def test_inverse_float32(model):
    """As exact as the map's own flatness lets float32 be: rounding of y, carried back by the derivatives of x
    and of the log-determinant."""
    x, context = inputs(n_draws=7)
    y, log_det = run(model, "forward_and_log_det")(x, context)
    back, inverse_log_det = run(model, "inverse_and_log_det")(y, context)
    assert y.shape == x.shape and log_det.shape == x.shape[:-1] and y.dtype == jnp.float32
    graph, state = nnx.split(model)

    def one(state, y, c):
        return nnx.merge(graph, state).bijector(c[None]).inverse_and_log_det(y[None])

    jacobian, slope = jax.jit(jax.vmap(jax.vmap(jax.jacfwd(one, 1), (None, 0, 0)), (None, 0, None)))(
        state, y, context
    )
    jacobian, slope = jacobian[..., 0, :, :], slope[..., 0, :]
    rounding = 8 * np.finfo(np.float32).eps * np.maximum(np.abs(y), 1.0)
    allowed = np.einsum("...ij,...j->...i", np.abs(jacobian), rounding)
    assert np.all(np.abs(back - x) <= allowed)
    allowed = 2e-3 + np.einsum("...j,...j->...", np.abs(slope), rounding)
    assert np.all(np.abs(inverse_log_det + log_det) <= allowed)


def test_inverse_and_jacobian_x64(model, x64):
    """In double precision the inverse is exact to 1e-9 and the log-determinant is that of autodiff's
    Jacobian.
    """
    x, context = inputs(jnp.float64)
    double = as_dtype(model, jnp.float64)
    y, log_det = run(double, "forward_and_log_det")(x, context)
    back, inverse_log_det = run(double, "inverse_and_log_det")(y, context)
    np.testing.assert_allclose(back, x, atol=1e-9)
    np.testing.assert_allclose(inverse_log_det, -log_det, atol=1e-9)
    graph, state = nnx.split(double)

    def one(state, x, c):
        return nnx.merge(graph, state).bijector(c[None]).forward_and_log_det(x[None])[0][0]

    jacobian = jax.jit(jax.vmap(jax.jacfwd(one, 1), (None, 0, 0)))(state, x, context)
    np.testing.assert_allclose(np.linalg.slogdet(jacobian)[1], log_det, atol=1e-9)


def test_float32_agrees_with_x64(model, x64):
    """The bar is a few hundred float32 roundings: what a log-likelihood loses, not what a wrong formula
    would.
    """
    x, context = inputs(jnp.float32)
    y, log_det = run(model, "forward_and_log_det")(x, context)
    double = as_dtype(model, jnp.float64)
    y64, log_det64 = run(double, "forward_and_log_det")(x.astype(jnp.float64), context.astype(jnp.float64))
    np.testing.assert_allclose(y, y64, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(log_det, log_det64, atol=1e-4)


def test_jit_is_eager_and_vmap_is_batch(model):
    x, context = inputs()
    y, log_det = run(model, "forward_and_log_det")(x, context)
    eager = model.bijector(context).forward_and_log_det(x)
    np.testing.assert_allclose(y, eager[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(log_det, eager[1], rtol=1e-4, atol=1e-5)
    graph, state = nnx.split(model)
    alone = jax.jit(
        jax.vmap(
            lambda s, x, c: nnx.merge(graph, s).bijector(c[None]).forward_and_log_det(x[None]), (None, 0, 0)
        )
    )(state, x, context)
    np.testing.assert_allclose(alone[0][:, 0], y, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(alone[1][:, 0], log_det, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", BIJECTIONS)
def test_starts_as_a_permutation(name):
    """As initialised nothing is stretched: each variable comes out once, and the volume is 1."""
    x, context = inputs()
    y, log_det = run(BIJECTIONS[name](nnx.Rngs(3)), "forward_and_log_det")(x, context)
    np.testing.assert_allclose(np.sort(y, -1), np.sort(x, -1), atol=1e-5)
    np.testing.assert_allclose(log_det, 0.0, atol=1e-5)


def test_far_outliers_stay_finite(model):
    """A label far outside what training has seen gives a low density, not a NaN, and a finite gradient."""
    x, context = inputs()
    graph, state = nnx.split(model)

    def density(x):
        y, log_det = nnx.merge(graph, state).bijector(context).forward_and_log_det(x)
        return (log_det - 0.5 * (y**2).sum(-1)).sum()

    value_and_gradient = jax.jit(jax.value_and_grad(density))
    for scale in (10.0, 1e3):
        value, gradient = value_and_gradient(scale * x)
        assert np.isfinite(value) and np.isfinite(gradient).all()
