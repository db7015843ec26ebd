"""The masks: each variable is moved by those before it, by all of them, and by none after."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxspec.flows import Autoregressive
from tests.flows.test_bijections import randomised


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_jacobian_is_lower_triangular(depth):
    """Above the diagonal exactly zero, in any number of layers; below it nothing is cut off."""
    layer = randomised(Autoregressive(5, 2, width=16, depth=depth, rngs=nnx.Rngs(0)))
    context = jnp.array([[0.4, -1.0]])
    x = jax.random.normal(jax.random.key(0), (1, 5))
    jacobian = jax.jacfwd(lambda x: layer.bijector(context).forward(x))(x)[0, :, 0, :]
    assert (np.triu(jacobian, 1) == 0).all()
    assert (np.abs(jacobian[np.tril_indices(5)]) > 1e-4).all()


def test_every_variable_sees_the_context():
    """The first one too, which no other variable moves."""
    layer = randomised(Autoregressive(4, 3, width=12, rngs=nnx.Rngs(0)))
    x = jax.random.normal(jax.random.key(0), (1, 4))
    slopes = jax.jacfwd(lambda c: layer.bijector(c).forward(x))(jnp.ones((1, 3)))[0, :, 0, :]
    assert (np.abs(slopes) > 1e-4).all()
