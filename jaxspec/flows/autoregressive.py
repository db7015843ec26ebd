"""The masked autoregressive layer: every variable is shifted and scaled given all those before it."""

import distrax
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from jaxspec.flows.affine import soft_clamp


class Autoregressive(nnx.Module):
    """y_i = x_i exp(s_i) + t_i with s_i and t_i given by the context and x_1 ... x_{i-1}; |s| below `clamp`.

    (Papamakarios et al. 2017, arXiv:1705.07057, equations 3 and 4, there written with the inverse scale.) All
    variables are transformed in one pass of the network from data to normal, the direction of training; the
    inverse finds one variable after the other, in d passes. Starts as the identity.
    """

    def __init__(
        self, n_dim: int, n_context: int, *, width: int, depth: int = 2, clamp: float = 1.9, rngs: nnx.Rngs
    ):
        self.n_dim, self.clamp = n_dim, clamp
        self.conditioner = MaskedConditioner(n_dim, n_context, 2, width=width, depth=depth, rngs=rngs)

    def bijector(self, context: Float[Array, "b c"]) -> distrax.Bijector:
        features = self.conditioner.context_features(context)

        def shift_and_log_scale(x: Float[Array, "*n d"]) -> tuple[Float[Array, "*n d"], Float[Array, "*n d"]]:
            parameters = self.conditioner(x, features)
            return parameters[..., 0], soft_clamp(parameters[..., 1], self.clamp)

        return AutoregressiveBijector(shift_and_log_scale, self.n_dim)


class AutoregressiveBijector(distrax.Bijector):
    """y = x exp(s(x)) + t(x), where entry i of `shift_and_log_scale(x) = t, s` reads entries of x below i."""

    def __init__(self, shift_and_log_scale, n_dim: int):
        super().__init__(event_ndims_in=1)
        self._shift_and_log_scale, self._n_dim = shift_and_log_scale, n_dim

    def forward_and_log_det(self, x):
        """Image of `x` [..., d] and the log-determinant there [...]."""
        shift, log_scale = self._shift_and_log_scale(x)
        return x * jnp.exp(log_scale) + shift, log_scale.sum(-1)

    def inverse_and_log_det(self, y):
        """Preimage of `y` [..., d] and the log-determinant of the inverse there [...]."""

        def find(carry, i):
            x, _ = carry
            shift, log_scale = self._shift_and_log_scale(x)
            x = jnp.where(jnp.arange(self._n_dim) == i, (y - shift) * jnp.exp(-log_scale), x)
            # In the last pass every scale has seen the variables that it reads.
            return (x, -log_scale.sum(-1)), None

        start = (jnp.zeros_like(y), jnp.zeros(y.shape[:-1], y.dtype))
        return jax.lax.scan(find, start, jnp.arange(self._n_dim))[0]


class MaskedConditioner(nnx.Module):
    """Parameters [..., d, n_out] of which those of variable i read the context and the variables before i.

    The masks are those of MADE (Germain et al. 2015, arXiv:1502.03509, equations 8 and 9): hidden unit k has
    a degree m_k in 0 ... d - 1, reads the variables up to m_k (counted from 1) and hidden units of no higher
    degree, and is read by the variables beyond m_k. Units of degree 0 know the context alone. As in
    `Conditioner`, the context is read once per star, hidden layers are residual and the last starts at zero.
    """

    def __init__(self, n_dim: int, n_context: int, n_out: int, *, width: int, depth: int, rngs: nnx.Rngs):
        self.n_dim, self.n_out = n_dim, n_out
        self.from_context = nnx.Linear(n_context, width, rngs=rngs)
        self.from_variables = nnx.Linear(n_dim, width, use_bias=False, rngs=rngs)
        self.hidden = nnx.List([nnx.Linear(width, width, rngs=rngs) for _ in range(depth - 1)])
        self.last = nnx.Linear(width, n_dim * n_out, kernel_init=nnx.initializers.zeros, rngs=rngs)

    def context_features(self, context: Float[Array, "b c"]) -> Float[Array, "b w"]:
        return self.from_context(context)

    def __call__(self, x: Float[Array, "*n d"], features: Float[Array, "b w"]) -> Float[Array, "*n d n_out"]:
        variables = np.arange(1, self.n_dim + 1)
        degrees = np.arange(features.shape[-1]) % self.n_dim
        y = features + x @ _masked(self.from_variables, variables[:, None] <= degrees)
        y = jax.nn.gelu(y)
        for layer in self.hidden:
            y = y + jax.nn.gelu(y @ _masked(layer, degrees[:, None] <= degrees) + _bias(layer))
        readers = np.repeat(variables, self.n_out)
        y = y @ _masked(self.last, degrees[:, None] < readers) + _bias(self.last)
        return y.reshape(*x.shape[:-1], self.n_dim, self.n_out)


def _masked(layer: nnx.Linear, mask: np.ndarray) -> Float[Array, "n m"]:
    return jnp.where(mask, layer.kernel[...], 0.0)


def _bias(layer: nnx.Linear) -> Float[Array, " m"]:
    assert layer.bias is not None
    return layer.bias[...]
