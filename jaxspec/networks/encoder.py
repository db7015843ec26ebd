"""The spectrum encoder: flux and inverse variance of a star to a context vector, in milliseconds on a CPU."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from jaxspec.errors import InputError
from jaxspec.networks.blocks import ResidualConv, ResidualDense, StridedConv
from jaxspec.networks.inputs import pixel_features, segment_means

ArrayLike = jax.Array | np.ndarray


@dataclass(frozen=True)
class EncoderConfig:
    """Shape of a `SpectrumEncoder`; the defaults suit about 17,000 pixels.

    Two paths read the spectrum. The projection is one dense matrix on weighted residuals: for faint stars the
    best estimate of a label *is* a weighted sum of residuals, and a matrix learns its weights in minutes. The
    convolutions add what is not linear in the flux. Either can be switched off with a width of 0.
    """

    n_context: int = 128  # length of the context vector
    bin_pixels: int = 2  # neighbouring pixels averaged by ivar before anything else
    clip: float = 20.0  # residuals are clipped at this many scales
    projection_width: int = 192  # outputs of the dense path; 0: none
    weight_bins: int = (
        8  # the dense path sees the weights averaged over this many bins: they are smooth but for gaps
    )
    stem_channels: int = 24  # channels after the strided stem; 0: no convolutions
    stem_stride: int = 16  # in bins
    stem_kernel: int = 2  # in strides: 2 makes neighbouring windows overlap by half
    block_channels: tuple[int, ...] = (32, 48)  # one residual block each, every one halving the length
    block_kernel: int = 3
    flat_channels: int = (
        8  # channels kept per position when the map is flattened: position carries the meaning
    )
    conv_width: int = 128  # outputs of the convolutional path
    n_segments: int = 32  # stretches whose mean log S/N and coverage the head sees
    head_width: int = 384
    head_blocks: int = 3

    def __post_init__(self):
        if self.projection_width <= 0 and self.stem_channels <= 0:
            raise InputError(
                "EncoderConfig",
                "projection_width=0 and stem_channels=0",
                "at least one path",
                "give one of the two a positive width",
            )
        for name in ("n_context", "bin_pixels", "stem_kernel", "stem_stride", "n_segments", "head_width"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"EncoderConfig.{name}",
                    str(getattr(self, name)),
                    "a positive integer",
                    "correct the configuration",
                )


ENCODER_PRESETS: dict[str, EncoderConfig] = {
    "default": EncoderConfig(),
    "small": EncoderConfig(
        n_context=64,
        bin_pixels=4,
        projection_width=96,
        weight_bins=4,
        stem_channels=16,
        block_channels=(24,),
        flat_channels=4,
        conv_width=48,
        head_width=192,
        head_blocks=2,
    ),
}


class SpectrumEncoder(nnx.Module):
    """Context of a star from its normalised flux and inverse variance.

    A missing pixel, or a whole missing arm, is `ivar == 0`; the flux there is never read. Position along the
    spectrum is kept to the end (nothing is averaged over wavelength), since what a line means depends on
    where it is.
    """

    def __init__(self, config: EncoderConfig = EncoderConfig(), *, n_pixels: int, rngs: nnx.Rngs):
        self.config = config
        self.n_pixels = n_pixels
        # Plain variables, not parameters: set once from the training set, never trained.
        self.mean = nnx.Variable(jnp.ones(n_pixels))
        self.scale = nnx.Variable(jnp.full(n_pixels, 0.1))
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

    def __call__(self, flux: Float[Array, "b p"], ivar: Float[Array, "b p"]) -> Float[Array, "b c"]:
        if flux.shape != ivar.shape or flux.shape[-1] != self.n_pixels:
            raise InputError(
                "SpectrumEncoder: flux, ivar",
                f"shapes {flux.shape} and {ivar.shape}",
                f"[n, {self.n_pixels}] for both",
                "put the spectra on the encoder's wavelength grid",
            )
        config = self.config
        x = pixel_features(
            flux, ivar, self.mean[...], self.scale[...], bin_pixels=config.bin_pixels, clip=config.clip
        )
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
        y = self.enter(jnp.concatenate(features, -1))
        for block in self.head:
            y = block(y)
        return self.leave(y)
