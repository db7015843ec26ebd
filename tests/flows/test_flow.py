"""The conditional flow as a density: normalised, consistent with its own draws, able to learn a known
posterior.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from scipy import stats

from jaxspec.errors import InputError
from jaxspec.flows import ConditionalFlow, FlowConfig, make_flow
from jaxspec.flows.flow import layer_orders
from tests.flows.test_bijections import TAME
from tests.shaken import shaken

CONFIGS = {
    "spline": FlowConfig(n_layers=2, width=8, n_bins=5, **TAME),
    "affine": FlowConfig(coupling="affine", mixing="permutation", n_layers=2, width=8),
    "autoregressive": FlowConfig(coupling="autoregressive", n_layers=2, width=8),
    "matching": FlowConfig(coupling="matching", width=8),
}


def random_flow(config, n_dim, n_context=2, scale=0.15):
    flow = shaken(make_flow(config, n_dim=n_dim, n_context=n_context, rngs=nnx.Rngs(0)), scale)
    flow.set_standardisation(0.5 * np.arange(n_dim), 1.0 + 0.5 * np.arange(n_dim))
    return flow


def compiled(flow, method):
    graph, state = nnx.split(flow)
    if method == "log_prob":
        call = jax.jit(lambda s, z, c: nnx.merge(graph, s).log_prob(z, c))
    elif method == "only draws":
        call = jax.jit(lambda s, k, c, n: nnx.merge(graph, s).sample(k, c, n), static_argnums=3)
    else:
        call = jax.jit(lambda s, k, c, n: nnx.merge(graph, s).sample_and_log_prob(k, c, n), static_argnums=3)
    return lambda *arguments: call(state, *arguments)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("n_dim", [1, 2])
def test_density_integrates_to_one(name, n_dim):
    flow = random_flow(CONFIGS[name], n_dim)
    context = jnp.array([[0.3, -1.0]])
    axis = np.linspace(-30, 30, 6001 if n_dim == 1 else 401)
    grid = np.stack(np.meshgrid(*[axis] * n_dim, indexing="ij"), -1).reshape(-1, 1, n_dim)
    grid = 0.5 * np.arange(n_dim) + grid
    density = np.exp(compiled(flow, "log_prob")(jnp.array(grid, jnp.float32), context))
    np.testing.assert_allclose(density.sum() * (axis[1] - axis[0]) ** n_dim, 1.0, atol=5e-3)


@pytest.mark.parametrize("name", CONFIGS)
def test_draws_carry_their_log_prob(name):
    flow = random_flow(CONFIGS[name], 5)
    context = jax.random.normal(jax.random.key(0), (3, 2))
    draws, log_prob = compiled(flow, "sample")(jax.random.key(1), context, 200)
    assert draws.shape == (200, 3, 5) and log_prob.shape == (200, 3)
    np.testing.assert_allclose(compiled(flow, "log_prob")(draws, context), log_prob, atol=5e-3)
    only_draws = compiled(flow, "only draws")(jax.random.key(1), context, 200)
    np.testing.assert_allclose(only_draws, draws, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_draws_follow_the_density(name):
    """In one dimension the distribution of the draws is the integral of the density.

    Kolmogorov-Smirnov on 4,000 draws with a fixed key; the bar p > 1e-4 is the false-alarm rate of a changed
    key.
    """
    flow = random_flow(CONFIGS[name], 1)
    context = jnp.array([[1.0, 0.5]])
    draws = np.asarray(compiled(flow, "sample")(jax.random.key(3), context, 4000)[0])[:, 0, 0]
    axis = np.linspace(-25, 25, 20001)
    density = np.exp(compiled(flow, "log_prob")(jnp.array(axis[:, None, None], jnp.float32), context))[:, 0]
    cumulative = np.cumsum(density) * (axis[1] - axis[0])
    assert stats.kstest(draws, lambda x: np.interp(x, axis, cumulative)).pvalue > 1e-4


@pytest.mark.parametrize("name", CONFIGS)
def test_starts_as_the_standardised_normal(name):
    flow = make_flow(CONFIGS[name], n_dim=4, n_context=3, rngs=nnx.Rngs(0))
    location, scale = np.array([1.0, -2.0, 0.0, 5.0]), np.array([0.5, 1.0, 2.0, 3.0])
    flow.set_standardisation(location, scale)
    z = location + scale * np.random.default_rng(0).normal(size=(6, 4))
    context = jax.random.normal(jax.random.key(0), (6, 3))
    found = compiled(flow, "log_prob")(jnp.array(z, jnp.float32), context)
    np.testing.assert_allclose(found, stats.norm(location, scale).logpdf(z).sum(1), rtol=1e-5)


@pytest.mark.parametrize("n_dim", [2, 3, 4, 9])
def test_neighbouring_couplings_transform_every_variable(n_dim):
    orders, split = layer_orders(n_dim, 6, seed=1), n_dim // 2
    variables, transformed = np.arange(n_dim), []
    for order in orders:
        variables = variables[list(order)]
        transformed.append(set(variables[split:].tolist()))
    for first, second in zip(transformed[::2], transformed[1::2], strict=True):
        assert first | second == set(range(n_dim))


def test_wrong_shapes_are_refused():
    flow = ConditionalFlow(FlowConfig(n_layers=1), n_dim=2, n_context=3, rngs=nnx.Rngs(0))
    with pytest.raises(InputError, match="context"):
        flow.log_prob(jnp.ones((4, 2)), jnp.ones((4, 5)))
    with pytest.raises(InputError, match="z"):
        flow.log_prob(jnp.ones((4, 3)), jnp.ones((4, 3)))
    with pytest.raises(InputError, match="location"):
        flow.set_standardisation(jnp.ones(3), jnp.ones(3))
    with pytest.raises(InputError, match="positive"):
        flow.set_standardisation(jnp.ones(2), jnp.zeros(2))
    with pytest.raises(InputError, match="n_layers"):
        FlowConfig(n_layers=0)


@pytest.mark.parametrize("name", ["spline", "affine", "autoregressive"])
def test_layers_are_trained_by_likelihood(name):
    flow = random_flow(CONFIGS[name], 3)
    z, context = jax.random.normal(jax.random.key(0), (6, 3)), jax.random.normal(jax.random.key(1), (6, 2))
    graph, state = nnx.split(flow)

    @jax.jit
    def both(state, z, context):
        flow = nnx.merge(graph, state)
        return flow.loss(None, z, context), flow.log_prob(z, context)

    loss, log_prob = both(state, z, context)
    np.testing.assert_array_equal(loss, -log_prob)


# The others have the same loss and optimiser, and are densities with draws of their own in the tests above.
@pytest.mark.parametrize(
    "name", ["spline", *(pytest.param(k, marks=pytest.mark.slow) for k in CONFIGS if k != "spline")]
)
def test_recovers_the_posterior_of_a_linear_gaussian_problem(name):
    """z ~ N(0, 1), x = A z + noise: after some seconds of training, the analytic mean and covariance.

    And the average loss is within 0.05 nats of the entropy of the posterior, the least that any density can
    reach.
    """
    matrix = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    noise = 0.6
    precision = np.eye(3) + matrix.T @ matrix / noise**2
    covariance = np.linalg.inv(precision)

    def simulate(key, n):
        one, two = jax.random.split(key)
        z = jax.random.normal(one, (n, 3))
        return z, z @ matrix.T + noise * jax.random.normal(two, (n, 4))

    config = FlowConfig(coupling=name, n_layers=2, width=32, n_bins=5)
    flow = make_flow(config, n_dim=3, n_context=4, rngs=nnx.Rngs(0))
    graph, params, rest = nnx.split(flow, nnx.Param, ...)
    optimiser = optax.chain(
        optax.clip_by_global_norm(5.0), optax.adam(optax.cosine_decay_schedule(5e-3, 1200))
    )

    @jax.jit
    def train(params):
        def step(carry, key):
            params, moments = carry
            z, x = simulate(key, 256)
            gradient = jax.grad(lambda p: nnx.merge(graph, p, rest).loss(key, z, x).mean())(params)
            updates, moments = optimiser.update(gradient, moments)
            return (optax.apply_updates(params, updates), moments), None

        return jax.lax.scan(
            step, (params, optimiser.init(params)), jax.random.split(jax.random.key(7), 1200)
        )[0][0]

    trained = nnx.merge(graph, train(params), rest)
    z, x = simulate(jax.random.key(8), 4000)
    entropy = 0.5 * np.linalg.slogdet(2 * np.pi * np.e * covariance)[1]
    assert -compiled(trained, "log_prob")(z, x).mean() - entropy < 0.05
    draws = np.asarray(compiled(trained, "sample")(jax.random.key(9), x[:50], 2000)[0])
    mean = np.asarray(x[:50]) @ matrix @ covariance / noise**2
    sigma = np.sqrt(np.diag(covariance))
    # Typical errors, in units of the posterior's own width, over 50 stars.
    assert np.sqrt((((draws.mean(0) - mean) / sigma) ** 2).mean()) < 0.12
    found = np.mean([np.cov(draws[:, i].T) for i in range(50)], 0)
    np.testing.assert_allclose(found / np.outer(sigma, sigma), covariance / np.outer(sigma, sigma), atol=0.1)
