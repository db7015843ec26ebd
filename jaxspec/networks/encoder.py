"""The residual encoder, with or without tokens of a transformer beside it: flux and inverse variance of a
star to a context vector, in milliseconds on a CPU."""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from jaxspec.errors import InputError
from jaxspec.networks.base import Encoder
from jaxspec.networks.blocks import ResidualConv, StridedConv
from jaxspec.networks.config import EncoderConfig
from jaxspec.networks.inputs import pixel_features, segment_means
from jaxspec.networks.transformer import PatchTransformer, TransformerEncoder


def make_encoder(config: EncoderConfig, grid: Float[np.ndarray, " p"] | int, *, rngs: nnx.Rngs) -> Encoder:
    """The encoder that `config.kind` names.

    Args:
        grid: wavelengths of the pixels (A); their number alone is enough for "residual".

    Raises: InputError when another kind gets no wavelengths.
    """
    wavelength = None if isinstance(grid, int) else np.asarray(grid)
    if config.kind == "residual":
        n_pixels = grid if isinstance(grid, int) else np.size(grid)
        return SpectrumEncoder(config, n_pixels=n_pixels, rngs=rngs)
    if wavelength is None:
        raise InputError(
            f"the {config.kind} encoder",
            f"{grid} pixels without wavelengths",
            "the wavelength of every pixel",
            "pass Instrument.wavelength",
        )
    if config.kind == "transformer":
        return TransformerEncoder(config, wavelength=wavelength, rngs=rngs)
    return SpectrumEncoder(config, n_pixels=wavelength.size, wavelength=wavelength, rngs=rngs)


class SpectrumEncoder(Encoder):
    """A dense projection and residual convolutions, each with the width that `config` gives it.

    Position along the spectrum is kept to the end (nothing is averaged over wavelength), since what a line
    means depends on where it is. With `wavelength` [p] (A) a `PatchTransformer` reads the spectrum too.
    """

    def __init__(
        self,
        config: EncoderConfig,
        *,
        n_pixels: int,
        wavelength: Float[np.ndarray, " p"] | None = None,
        rngs: nnx.Rngs,
    ):
        super().__init__(config, n_pixels)
        n_bins = -(-n_pixels // config.bin_pixels)
        n_features = 2 * config.n_segments
        if config.projection_width > 0:
            n_weights = -(-n_bins // config.weight_bins)
            self.projection = nnx.Linear(n_bins + n_weights, config.projection_width, rngs=rngs)
            n_features += config.projection_width
        if config.stem_channels > 0:
            self.stem = StridedConv(
                3, config.stem_channels, kernel=config.stem_kernel, stride=config.stem_stride, rngs=rngs
            )
            channels, length, blocks = config.stem_channels, -(-n_bins // config.stem_stride), []
            for n_out in config.block_channels:
                blocks.append(ResidualConv(channels, n_out, kernel=config.block_kernel, rngs=rngs))
                channels, length = n_out, -(-length // 2)
            self.blocks = nnx.List(blocks)
            self.squeeze = nnx.Linear(channels, config.flat_channels, rngs=rngs)
            self.flatten = nnx.Linear(length * config.flat_channels, config.conv_width, rngs=rngs)
            n_features += config.conv_width
        self.tokens = None if wavelength is None else PatchTransformer(config, wavelength, rngs=rngs)
        if self.tokens is not None:
            n_features += self.tokens.n_features
        self.add_head(n_features, rngs)

    def features(self, flux: Float[Array, "b p"], ivar: Float[Array, "b p"]) -> Float[Array, "b f"]:
        config, mean, scale = self.config, self.mean[...], self.scale[...]
        x = pixel_features(flux, ivar, mean, scale, bin_pixels=config.bin_pixels, clip=config.clip)
        weighted = x.residual * x.weight
        features = [
            segment_means(x.log_snr, config.n_segments) - 3.0,
            segment_means((x.weight > 0).astype(flux.dtype), config.n_segments) - 1.0,
        ]
        if config.projection_width > 0:
            n_weights = -(-x.weight.shape[-1] // config.weight_bins)
            weights = segment_means(x.weight, n_weights) - 1.0
            features.append(self.projection(jnp.concatenate([weighted, weights], -1)))
        if config.stem_channels > 0:
            y = self.stem(jnp.stack([x.residual, x.weight - 1.0, x.log_snr - 3.0], -1))
            for block in self.blocks:
                y = block(y)
            y = self.squeeze(y)
            features.append(self.flatten(y.reshape(y.shape[0], -1)))
        if self.tokens is not None:
            features.append(self.tokens(flux, ivar, mean, scale))
        return jnp.concatenate(features, -1)
