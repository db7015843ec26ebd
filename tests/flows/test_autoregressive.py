"""The masks: each variable is moved by those before it, by all of them, and by no other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxspec.flows import Autoregressive
from tests.shaken import shaken


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_parameters_read_only_what_comes_before(depth):
    """Their slopes are exactly zero on the diagonal and above it; below it nothing is cut off."""
    conditioner = shaken(Autoregressive(5, 2, width=16, depth=depth, rngs=nnx.Rngs(0)), 0.25).conditioner
    features = conditioner.context_features(jnp.array([[0.4, -1.0]]))
    x = jax.random.normal(jax.random.key(0), (1, 5))
    slopes = jax.jit(jax.jacfwd(lambda x: conditioner(x, features)))(x)[0, :, :, 0, :]
    for of_parameter in np.moveaxis(slopes, 1, 0):
        assert (np.triu(of_parameter) == 0).all()
        assert (np.abs(of_parameter[np.tril_indices(5, -1)]) > 1e-4).all()


def test_every_variable_sees_the_context():
    """The first one too, which no other variable moves."""
    layer = shaken(Autoregressive(4, 3, width=12, rngs=nnx.Rngs(0)), 0.25)
    x = jax.random.normal(jax.random.key(0), (1, 4))
    slopes = jax.jacfwd(lambda c: layer.bijector(c).forward(x))(jnp.ones((1, 3)))[0, :, 0, :]
    assert (np.abs(slopes) > 1e-4).all()
