"""Modules with noise on their weights: at the start some layers are zero or the identity, hiding mistakes."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx


def shaken(module, scale: float, seed: int = 0):
    """The module with noise of this standard deviation added to every weight. The noise is NumPy's: JAX would
    compile one program for each shape."""
    graph, params, rest = nnx.split(module, nnx.Param, ...)
    rng = np.random.default_rng(seed)
    noisy = jax.tree.map(
        lambda x: jnp.asarray(np.asarray(x) + scale * rng.normal(size=x.shape), x.dtype), params
    )
    return nnx.merge(graph, noisy, rest)
