"""The base of all encoders: features of a spectrum, and one head that makes a context of them."""

import abc

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from jaxspec.errors import InputError
from jaxspec.networks.blocks import ResidualDense
from jaxspec.networks.config import EncoderConfig

ArrayLike = jax.Array | np.ndarray


class Encoder(nnx.Module):
    """Context of a star from its normalised flux and inverse variance.

    A missing pixel, or a whole missing arm, is `ivar == 0`; the flux there is never read. An encoder gives
    `features`; its constructor ends with `add_head`.
    """

    def __init__(self, config: EncoderConfig, n_pixels: int):
        self.config = config
        self.n_pixels = n_pixels
        # Plain variables, not parameters: set once from the training set, never trained.
        self.mean = nnx.Variable(jnp.ones(n_pixels))
        self.scale = nnx.Variable(jnp.full(n_pixels, 0.1))

    @abc.abstractmethod
    def features(self, flux: Float[Array, "b p"], ivar: Float[Array, "b p"]) -> Float[Array, "b f"]:
        """Features of each spectrum, from which the head makes the context."""

    def add_head(self, n_features: int, rngs: nnx.Rngs) -> None:
        """Make the dense layers from features to context."""
        config = self.config
        self.enter = nnx.Linear(n_features, config.head_width, rngs=rngs)
        self.head = nnx.List([ResidualDense(config.head_width, rngs=rngs) for _ in range(config.head_blocks)])
        self.leave = nnx.Linear(config.head_width, config.n_context, rngs=rngs)

    def set_input_statistics(self, mean: Float[ArrayLike, " p"], scale: Float[ArrayLike, " p"]) -> None:
        """Store the mean spectrum and per-pixel scale of the training set (see `input_statistics`); before
        training.
        """
        mean, scale = jnp.asarray(mean, jnp.float32), jnp.asarray(scale, jnp.float32)
        for name, value in (("mean", mean), ("scale", scale)):
            if value.shape != (self.n_pixels,):
                raise InputError(
                    f"set_input_statistics: {name}",
                    f"shape {value.shape}",
                    f"({self.n_pixels},)",
                    "compute it on the encoder's own pixel grid",
                )
        if not (bool(jnp.isfinite(mean).all()) and bool((jnp.isfinite(scale) & (scale > 0)).all())):
            raise InputError(
                "set_input_statistics",
                "a value that is not finite, or a scale that is not positive",
                "finite means and positive scales",
                "compute them with jaxspec.networks.input_statistics",
            )
        self.mean[...], self.scale[...] = mean, scale

    def keep(self, key: PRNGKeyArray, block: int, shape: tuple[int, ...]) -> Float[Array, "..."]:
        """Factors of dropout for one block of the head: 0 with probability `config.dropout`, else such that
        their mean is 1."""
        share = 1.0 - self.config.dropout
        return jax.random.bernoulli(jax.random.fold_in(key, block), share, shape) / share

    def __call__(
        self, flux: Float[Array, "b p"], ivar: Float[Array, "b p"], key: PRNGKeyArray | None = None
    ) -> Float[Array, "b c"]:
        """The context. With a `key` units are left out of each star's head at random, as in training."""
        if flux.shape != ivar.shape or flux.shape[-1] != self.n_pixels:
            raise InputError(
                f"{type(self).__name__}: flux, ivar",
                f"shapes {flux.shape} and {ivar.shape}",
                f"[n, {self.n_pixels}] for both",
                "put the spectra on the encoder's wavelength grid",
            )
        y = self.enter(self.features(flux, ivar))
        drop = key if self.config.dropout > 0.0 else None
        for i, block in enumerate(self.head):
            y = block(y, None if drop is None else self.keep(drop, i, y.shape))
        return self.leave(y)
