"""Flow matching: what its loss must be where the answer is known, and that it learns what is not Gaussian."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from scipy import stats

from jaxspec.flows import FlowConfig, MatchingFlow
from tests.flows.test_flow import compiled
from tests.shaken import shaken

PLAIN = FlowConfig(coupling="matching", width=8, conditional_affine=False)


def test_loss_at_the_exact_field():
    """For z ~ N(0, 1) the untrained field is exact, and what is left is the variance of z - u given x_t.

    That is 1 / (t^2 + (1 - t)^2) per variable, pi / 2 averaged over t. With the conditional Gaussian the
    entropy of the normal comes on top. The scatter of these means over keys is 0.5 %.
    """
    z, context = jax.random.normal(jax.random.key(0), (20_000, 3)), jnp.zeros((20_000, 2))
    regression = 3 * np.pi / 2
    for config, expected in (
        (PLAIN, regression),
        (dataclasses.replace(PLAIN, conditional_affine=True), regression + stats.norm().entropy() * 3),
    ):
        flow = MatchingFlow(config, n_dim=3, n_context=2, rngs=nnx.Rngs(0))
        loss = jax.jit(lambda key, flow=flow: flow.loss(key, z, context).mean())
        np.testing.assert_allclose(loss(jax.random.key(1)), expected, rtol=0.02)
        # A wrong field costs its own mean square on top: here 0.3^2 in each variable.
        flow.field.last.bias[...] = jnp.full(3, 0.3)
        worse = jax.jit(lambda key, flow=flow: flow.loss(key, z, context).mean())(jax.random.key(1))
        np.testing.assert_allclose(worse - loss(jax.random.key(1)), 3 * 0.09, atol=0.06)


def test_regression_does_not_move_the_whitening():
    """The affine layer learns from its own likelihood alone: the other term cannot shrink its target."""
    flow = shaken(
        MatchingFlow(FlowConfig(coupling="matching", width=8), n_dim=3, n_context=2, rngs=nnx.Rngs(0)), 0.25
    )
    z, context = jax.random.normal(jax.random.key(0), (64, 3)), jax.random.normal(jax.random.key(1), (64, 2))

    @jax.jit
    def gradient(key):
        graph, params, rest = nnx.split(flow, nnx.Param, ...)
        found = jax.grad(lambda p: nnx.merge(graph, p, rest).loss(key, z, context).mean())(params)
        return nnx.to_pure_dict(found)

    one, two = gradient(jax.random.key(2)), gradient(jax.random.key(3))
    # Times and noises differ between the two keys; only the regression knows of them.
    for a, b in zip(jax.tree.leaves(one["affine"]), jax.tree.leaves(two["affine"]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert not np.allclose(one["field"]["last"]["kernel"], two["field"]["last"]["kernel"], rtol=1e-2)


def test_divergence_is_the_trace_of_the_jacobian():
    """The closed form against automatic differentiation, at one time for all and at a time for each star."""
    field = shaken(MatchingFlow(PLAIN, n_dim=5, n_context=2, rngs=nnx.Rngs(0)), 0.25).field
    x, context = jax.random.normal(jax.random.key(0), (6, 5)), jax.random.normal(jax.random.key(1), (6, 2))
    features = field.context_features(context)
    for t in (jnp.float32(0.3), jnp.linspace(0.0, 1.0, 6)):
        jacobian = jax.jacfwd(lambda x, t=t: field(t, x, features)[0])(x)
        expected = np.einsum("bibi->b", jacobian)
        assert np.ptp(expected) > 0.1
        np.testing.assert_allclose(field(t, x, features)[1], expected, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def two_humps():
    """A flow trained on z = c +- 1.2 + 0.4 noise, of which the conditional Gaussian sees only the mean."""

    def simulate(key, n):
        one, two, three = jax.random.split(key, 3)
        context, sign = jax.random.normal(one, (n, 1)), jax.random.rademacher(two, (n, 1), jnp.float32)
        return context + 1.2 * sign + 0.4 * jax.random.normal(three, (n, 1)), context

    flow = MatchingFlow(FlowConfig(coupling="matching", width=32), n_dim=1, n_context=1, rngs=nnx.Rngs(0))
    graph, params, rest = nnx.split(flow, nnx.Param, ...)
    optimiser = optax.adam(optax.cosine_decay_schedule(5e-3, 1500))

    @jax.jit
    def train(params):
        def step(carry, key):
            params, moments = carry
            z, context = simulate(key, 256)
            loss = lambda p: nnx.merge(graph, p, rest).loss(key, z, context).mean()  # noqa: E731
            updates, moments = optimiser.update(jax.grad(loss)(params), moments)
            return (optax.apply_updates(params, updates), moments), None

        keys = jax.random.split(jax.random.key(3), 1500)
        return jax.lax.scan(step, (params, optimiser.init(params)), keys)[0][0]

    z, context = simulate(jax.random.key(4), 4000)
    return nnx.merge(graph, train(params), rest), np.asarray(z), np.asarray(context)


def test_learns_two_humps(two_humps):
    """The mean loss of likelihood over the entropy: a Gaussian loses 0.45 nats here."""
    flow, z, context = two_humps
    exact = np.log(0.5 * sum(stats.norm(context + s, 0.4).pdf(z) for s in (-1.2, 1.2)))[:, 0]
    gaussian = stats.norm(context, np.sqrt(1.2**2 + 0.4**2)).logpdf(z)[:, 0]
    assert (exact - gaussian).mean() > 0.4
    found = compiled(flow, "log_prob")(jnp.asarray(z), jnp.asarray(context))
    assert 0 < (exact - found).mean() < 0.06


def test_solver_is_exact_enough(two_humps):
    """The default number of steps against eight times as many: two hundredths of a nat on a trained field."""
    flow, z, context = two_humps
    inputs = jnp.asarray(z), jnp.asarray(context)
    coarse = compiled(flow, "log_prob")(*inputs)
    flow.config = dataclasses.replace(flow.config, solver_steps=8 * flow.config.solver_steps)
    fine = compiled(flow, "log_prob")(*inputs)
    assert np.sqrt(np.mean((coarse - fine) ** 2)) < 0.02
