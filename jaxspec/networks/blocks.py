"""Residual building blocks in Flax NNX: 1-D convolutions for spectra and dense layers for vectors."""

import jax
from flax import nnx
from jaxtyping import Array, Float


class ResidualConv(nnx.Module):
    """Pre-activation residual block of two 1-D convolutions, [b, m, n_in] -> [b, m / stride, n_out].

    Layer normalisation acts over the channels of each position, so masked stretches of a spectrum do not change the
    statistics of the observed ones (group normalisation over positions would).
    """

    def __init__(self, n_in: int, n_out: int, *, kernel: int, stride: int, rngs: nnx.Rngs):
        self.norm_1 = nnx.LayerNorm(n_in, rngs=rngs)
        self.conv_1 = nnx.Conv(n_in, n_out, (kernel,), strides=(stride,), rngs=rngs)
        self.norm_2 = nnx.LayerNorm(n_out, rngs=rngs)
        self.conv_2 = nnx.Conv(n_out, n_out, (kernel,), kernel_init=nnx.initializers.zeros, rngs=rngs)
        self.skip = (
            None
            if n_in == n_out and stride == 1
            else nnx.Conv(n_in, n_out, (stride,), strides=(stride,), use_bias=False, rngs=rngs)
        )

    def __call__(self, x: Float[Array, "b m n_in"]) -> Float[Array, "b k n_out"]:
        y = self.conv_1(jax.nn.gelu(self.norm_1(x)))
        y = self.conv_2(jax.nn.gelu(self.norm_2(y)))
        return y + (x if self.skip is None else self.skip(x))


class ResidualDense(nnx.Module):
    """Pre-normalised residual block of two dense layers, [..., n] -> [..., n]; the identity at the start."""

    def __init__(self, n: int, *, expansion: int = 1, rngs: nnx.Rngs):
        self.norm = nnx.LayerNorm(n, rngs=rngs)
        self.inner = nnx.Linear(n, expansion * n, rngs=rngs)
        self.outer = nnx.Linear(expansion * n, n, kernel_init=nnx.initializers.zeros, rngs=rngs)

    def __call__(self, x: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
        return x + self.outer(jax.nn.gelu(self.inner(self.norm(x))))
