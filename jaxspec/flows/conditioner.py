"""The network inside a coupling layer, split into what depends on the star and what depends on the draw."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float


class Conditioner(nnx.Module):
    """Parameters of a coupling from the untouched half of the variables and the context.

    ``context_features`` reads the context, once per star; calling the conditioner with its result costs only
    the small matrices, for every draw. The last layer starts at zero, so every coupling starts as the
    identity.
    """

    def __init__(self, n_in: int, n_context: int, n_out: int, *, width: int, depth: int, rngs: nnx.Rngs):
        self.from_context = nnx.Linear(n_context, width, rngs=rngs)
        # With nothing untouched (a one-dimensional flow) the parameters depend on the context alone.
        self.from_variables = nnx.Linear(n_in, width, use_bias=False, rngs=rngs) if n_in > 0 else None
        self.hidden = nnx.List([nnx.Linear(width, width, rngs=rngs) for _ in range(depth - 1)])
        self.last = nnx.Linear(width, n_out, kernel_init=nnx.initializers.zeros, rngs=rngs)

    def context_features(self, context: Float[Array, "b c"]) -> Float[Array, "b w"]:
        return self.from_context(context)

    def __call__(self, x: Float[Array, "*n n_in"], features: Float[Array, "b w"]) -> Float[Array, "*n n_out"]:
        y = features if self.from_variables is None else features + self.from_variables(x)
        y = jax.nn.gelu(y)
        for layer in self.hidden:
            y = y + jax.nn.gelu(layer(y))
        y = self.last(y)
        return jnp.broadcast_to(y, (*x.shape[:-1], y.shape[-1]))
