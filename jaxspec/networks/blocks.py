"""Residual building blocks in Flax NNX: 1-D convolutions for spectra and dense layers for vectors."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float


class StridedConv(nnx.Module):
    """1-D convolution with a stride, [b, m, n_in] -> [b, ceil(m / stride), n_out]; its kernel spans `kernel`
    strides.

    Neighbouring positions are first folded into channels, after which it is a plain convolution: XLA's
    gradient of a strided convolution is some three times slower on a CPU.
    """

    def __init__(self, n_in: int, n_out: int, *, kernel: int, stride: int, rngs: nnx.Rngs):
        self.stride = stride
        self.conv = nnx.Conv(n_in * stride, n_out, (kernel,), rngs=rngs)

    def __call__(self, x: Float[Array, "b m n_in"]) -> Float[Array, "b k n_out"]:
        return self.conv(fold(x, self.stride))


def fold(x: Float[Array, "b m c"], stride: int) -> Float[Array, "b k d"]:
    """Fold each `stride` neighbouring positions into channels, padding the end with zeros."""
    padding = -x.shape[1] % stride
    if padding:
        x = jnp.pad(x, ((0, 0), (0, padding), (0, 0)))
    return x.reshape(x.shape[0], x.shape[1] // stride, stride * x.shape[2])


class ResidualConv(nnx.Module):
    """Pre-activation residual block of two 1-D convolutions that halves the length, [b, m, n_in] -> [b, m /
    2, n_out].

    There is no normalisation: it would erase the amplitude of a residual, which is the signal, and its
    gradient costs more than the convolutions'. The second convolution starts at zero instead, so that a stack
    of blocks starts as a linear map (De & Smith 2020, arXiv:2002.10444).
    """

    def __init__(self, n_in: int, n_out: int, *, kernel: int, rngs: nnx.Rngs):
        self.conv_1 = StridedConv(n_in, n_out, kernel=kernel, stride=2, rngs=rngs)
        self.conv_2 = nnx.Conv(n_out, n_out, (kernel,), kernel_init=nnx.initializers.zeros, rngs=rngs)
        self.skip = nnx.Linear(2 * n_in, n_out, use_bias=False, rngs=rngs)

    def __call__(self, x: Float[Array, "b m n_in"]) -> Float[Array, "b k n_out"]:
        y = self.conv_2(jax.nn.gelu(self.conv_1(jax.nn.gelu(x))))
        return y + self.skip(fold(x, 2))


class ResidualDense(nnx.Module):
    """Pre-normalised residual block of two dense layers, [..., n] -> [..., n]; the identity at the start.

    `keep` [..., expansion * n] multiplies what is between the two layers (dropout).
    """

    def __init__(self, n: int, *, expansion: int = 1, rngs: nnx.Rngs):
        self.norm = nnx.LayerNorm(n, rngs=rngs)
        self.inner = nnx.Linear(n, expansion * n, rngs=rngs)
        self.outer = nnx.Linear(expansion * n, n, kernel_init=nnx.initializers.zeros, rngs=rngs)

    def __call__(
        self, x: Float[Array, "*batch n"], keep: Float[Array, "*batch m"] | None = None
    ) -> Float[Array, "*batch n"]:
        hidden = jax.nn.gelu(self.inner(self.norm(x)))
        return x + self.outer(hidden if keep is None else hidden * keep)
