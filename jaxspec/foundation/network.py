"""The transformer: tokens of what is known of a star in, distributions of what is asked out.

A token is a kind (which quantity), a value and its error. Each token adds a vector to a few learned latents,
which attend to one another and are read by requests, one for each quantity asked. Their number does not grow
with that of the tokens, as in a Perceiver (Jaegle et al. 2021, arXiv:2103.03206). The order of tokens never
enters: sums and attention are over sets. A missing quantity has no token.

The answer to a request is a mixture of Gaussians in units of the quantity's spread, so that it can be skewed
or have two peaks, and convolving it with a catalogue's error is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxspec.errors import InputError
from jaxspec.networks.base import ArrayLike
from jaxspec.networks.blocks import ResidualDense
from jaxspec.networks.transformer import Attention
from jaxspec.settings import PRESETS

N_FEATURES = 6
SMALLEST = 1e-3  # width of a component, in units of the quantity's spread


@dataclass(frozen=True)
class FoundationConfig:
    """Shape of the transformer.

    Attributes:
        width: of a latent, a multiple of n_heads.
        n_latents: number of latents.
        blocks: of attention and dense layers among the latents.
        n_heads: of every attention.
        expansion: of the dense layers.
        request_width: of a request.
        request_blocks: dense blocks of a request after it has read the latents.
        components: Gaussians of an answer.
        dropout: share of the units of the dense layers left out in each training step.
    """

    width: int = 128
    n_latents: int = 4
    blocks: int = 2
    n_heads: int = 4
    expansion: int = 2
    request_width: int = 128
    request_blocks: int = 1
    components: int = 3
    dropout: float = 0.1

    def __post_init__(self):
        if self.width % self.n_heads:
            raise InputError(
                "FoundationConfig.width", f"{self.width}", f"a multiple of {self.n_heads} heads", "change one"
            )
        if self.request_width % self.n_heads:
            raise InputError(
                "FoundationConfig.request_width",
                f"{self.request_width}",
                f"a multiple of {self.n_heads} heads",
                "change one",
            )


FOUNDATION_PRESETS = {
    "small": FoundationConfig(),
    "base": FoundationConfig(width=256, n_latents=16, blocks=6, n_heads=8, request_width=256, dropout=0.1),
}
PRESETS[FoundationConfig] = FOUNDATION_PRESETS


class Mixture(NamedTuple):
    """Mixtures of Gaussians, `[..., c]` each, in units of each quantity's spread.

    Attributes:
        log_weight: natural logs of the weights, which sum to one.
        mean, scale: of the components.
    """

    log_weight: Float[Array, "*n c"]
    mean: Float[Array, "*n c"]
    scale: Float[Array, "*n c"]

    def log_prob(
        self, value: Float[ArrayLike, "*n"], error: Float[ArrayLike, "*n"] | float = 0.0
    ) -> Float[Array, "*n"]:
        """Log-density of values that were measured with Gaussian errors: of the truth where `error` is 0."""
        variance = self.scale**2 + jnp.asarray(error)[..., None] ** 2
        z = (jnp.asarray(value)[..., None] - self.mean) ** 2 / variance
        return jax.nn.logsumexp(self.log_weight - 0.5 * (z + jnp.log(2.0 * jnp.pi * variance)), axis=-1)


class StarTransformer(nnx.Module):
    """Distributions of requested quantities, given tokens of others.

    Attributes:
        names: the quantities it knows, in the order of its tables.
        centre, spread: of each quantity over the training stars, `[k]`; set once, never trained.
        error_centre: typical natural log of a quantity's error over its spread, `[k]`.
    """

    def __init__(
        self,
        config: FoundationConfig,
        names: tuple[str, ...],
        centre: Float[np.ndarray, " k"],
        spread: Float[np.ndarray, " k"],
        log_error: Float[np.ndarray, " k"],
        *,
        rngs: nnx.Rngs,
    ):
        k, n, width = len(names), config.n_latents, config.width
        self.config, self.names = config, tuple(names)
        self.centre = nnx.Variable(jnp.asarray(centre, jnp.float32))
        self.spread = nnx.Variable(jnp.asarray(spread, jnp.float32))
        self.log_error = nnx.Variable(jnp.asarray(log_error, jnp.float32))
        normal = nnx.initializers.normal
        self.latents = nnx.Param(normal(0.3)(rngs.params(), (n, width)))
        # One affine map of the features for each kind: what a value means depends on what it is of.
        # Numbers that are mostly noise begin with less weight.
        share = 1.0 / (1.0 + 4.0 * np.exp(2.0 * np.asarray(log_error)))
        gain = jnp.asarray(np.clip(share, 0.1, 1.0) / np.sqrt(k), jnp.float32)[:, None, None]
        self.gather = nnx.Param(gain * normal(1.0)(rngs.params(), (k, N_FEATURES, n * width)))
        self.attention = nnx.List([Attention(width, config.n_heads, rngs=rngs) for _ in range(config.blocks)])
        self.dense = nnx.List(
            [ResidualDense(width, expansion=config.expansion, rngs=rngs) for _ in range(config.blocks)]
        )
        # Requests.
        r = config.request_width
        self.leave = nnx.LayerNorm(width, rngs=rngs)
        self.summary = nnx.Linear(n * width, r, rngs=rngs)
        self.read = nnx.Linear(width, 2 * r, rngs=rngs)
        self.requests = nnx.Param(normal(0.3)(rngs.params(), (k, r)))
        self.starts = nnx.Param(normal(0.3)(rngs.params(), (k, r)))
        self.replies = nnx.List(
            [ResidualDense(r, expansion=config.expansion, rngs=rngs) for _ in range(config.request_blocks)]
        )
        self.last = nnx.LayerNorm(r, rngs=rngs)
        self.answer = nnx.Param(normal(0.3 / np.sqrt(r))(rngs.params(), (k, r, 3 * config.components)))
        spacing = np.linspace(-1.0, 1.0, config.components) if config.components > 1 else np.zeros(1)
        bias = np.concatenate([np.zeros_like(spacing), spacing, np.zeros_like(spacing)])
        self.offset = nnx.Param(jnp.asarray(np.tile(bias, (k, 1)), jnp.float32))

    def features(
        self, kinds: Int[ArrayLike, " t"], value: Float[ArrayLike, "b t"], error: Float[ArrayLike, "b t"]
    ) -> Float[Array, "b t f"]:
        """The numbers that stand for a token; zeros where it is absent."""
        seen = jnp.isfinite(value)
        spread = self.spread[...][kinds]
        x = (jnp.where(seen, value, self.centre[...][kinds]) - self.centre[...][kinds]) / spread
        s = jnp.log(jnp.where(seen, jnp.maximum(error, 0.0), 0.0) / spread + SMALLEST)
        s = jnp.clip(s - self.log_error[...][kinds], -3.0, 3.0)
        x = jnp.clip(0.7 * x, -8.0, 8.0)
        stack = (x, jnp.arcsinh(3.0 * x), jnp.tanh(0.25 * x**2), jnp.ones_like(x), s, x * s)
        return jnp.stack(stack, -1) * seen[..., None]

    def encode(
        self,
        kinds: Int[ArrayLike, " t"],
        value: Float[ArrayLike, "b t"],
        error: Float[ArrayLike, "b t"],
        key: Array | None = None,
    ) -> Float[Array, "b n w"]:
        """The latents of stars. With a `key` units are left out at random, as in training."""
        config = self.config
        features = self.features(kinds, value, error)
        b, t, f = features.shape
        flat = features.reshape(b, t * f)
        x = self.latents[...] + (
            flat @ self.gather[...][kinds].reshape(t * f, self.gather.shape[-1])
        ).reshape(b, config.n_latents, config.width)
        for i, (attention, dense) in enumerate(zip(self.attention, self.dense, strict=True)):
            x = attention(x, jnp.ones(x.shape[:2], bool))
            x = dense(x, self._keep(key, i, (*x.shape[:-1], config.expansion * config.width)))
        return x

    def reply(
        self, latents: Float[Array, "b n w"], kinds: Int[ArrayLike, " r"], key: Array | None = None
    ) -> Mixture:
        """Distributions of the requested kinds, `[b, r, c]`."""
        config = self.config
        b, width = len(latents), config.request_width
        heads = (config.n_heads, width // config.n_heads)
        y = self.leave(latents)
        common = self.summary(y.reshape(b, -1))
        key_value = self.read(y).reshape(b, config.n_latents, 2, *heads)
        query = jnp.broadcast_to(self.requests[...][kinds], (b, len(kinds), width)).reshape(b, -1, *heads)
        x = jax.nn.dot_product_attention(query, key_value[:, :, 0], key_value[:, :, 1])
        x = x.reshape(b, len(kinds), width) + common[:, None] + self.starts[...][kinds]
        for i, dense in enumerate(self.replies):
            shape = (*x.shape[:-1], config.expansion * width)
            x = dense(x, self._keep(key, 100 + i, shape))
        out = jnp.einsum("brw,rwc->brc", self.last(x), self.answer[...][kinds]) + self.offset[...][kinds]
        weight, mean, scale = jnp.split(out, 3, -1)
        # Coefficients of spectra have long tails: means reach them exponentially, and widths grow along.
        mean = jnp.sinh(jnp.clip(mean, -7.0, 7.0))
        scale = SMALLEST + jax.nn.softplus(scale - 0.5) * jnp.sqrt(1.0 + 0.1 * mean**2)
        return Mixture(jax.nn.log_softmax(weight, -1), mean, scale)

    def _keep(self, key: Array | None, block: int, shape: tuple[int, ...]) -> Array | None:
        if key is None or self.config.dropout == 0.0:
            return None
        share = 1.0 - self.config.dropout
        return jax.random.bernoulli(jax.random.fold_in(key, block), share, shape) / share

    def standardised(
        self, kinds: Int[ArrayLike, " r"], value: Float[ArrayLike, "b r"], error: Float[ArrayLike, "b r"]
    ) -> tuple[Float[Array, "b r"], Float[Array, "b r"]]:
        """Values and errors in the units of `Mixture`."""
        spread = self.spread[...][kinds]
        return (jnp.asarray(value) - self.centre[...][kinds]) / spread, jnp.asarray(error) / spread
