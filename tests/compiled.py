"""Networks compiled as a whole: operation by operation each of hundreds is a program to compile."""

import jax
from flax import nnx


def compiled(network, function, *arguments):
    """`function(network, *arguments)`."""
    graph, state = nnx.split(network)
    return jax.jit(lambda state, *a: function(nnx.merge(graph, state), *a))(state, *arguments)
