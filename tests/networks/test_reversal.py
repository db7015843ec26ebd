"""Reversed gradients have the sign and size that the paper gives them."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxspec.networks.reversal import reverse_gradient


def test_the_value_passes_and_the_gradient_turns_round():
    x = jnp.array([1.0, -2.0, 3.0])
    assert np.array_equal(reverse_gradient(x, 0.7), x)
    plain = jax.grad(lambda v: jnp.sum(v**3))(x)
    turned = jax.jit(jax.grad(lambda v: jnp.sum(reverse_gradient(v, 0.7) ** 3)))(x)
    np.testing.assert_allclose(turned, -0.7 * plain, rtol=1e-6)


def test_what_follows_learns_and_what_comes_before_unlearns():
    """Of f = d * e * x, a discriminator d descends and an encoder e ascends."""

    def f(weights):
        return weights["d"] * reverse_gradient(weights["e"] * jnp.float32(2.0), 0.5)

    gradient = jax.grad(f)({"d": jnp.float32(3.0), "e": jnp.float32(5.0)})
    assert float(gradient["d"]) == 10.0
    assert float(gradient["e"]) == -0.5 * 6.0


def test_the_strength_may_be_traced():
    value = jax.jit(lambda x, s: jax.grad(lambda v: jnp.sum(reverse_gradient(v, s)))(x))
    np.testing.assert_allclose(value(jnp.ones(2), jnp.float32(2.0)), [-2.0, -2.0])
