"""The shape of a spectrum encoder, of any kind."""

from dataclasses import dataclass
from typing import Literal

from jaxspec.errors import InputError
from jaxspec.settings import PRESETS

KINDS = ("residual", "transformer", "hybrid")


@dataclass(frozen=True)
class EncoderConfig:
    """Shape of the encoder that `make_encoder` builds; the defaults suit about 17,000 pixels.

    "residual" is `SpectrumEncoder` with two paths. The projection is one dense matrix on weighted residuals:
    for faint stars the best estimate of a label *is* a weighted sum of residuals, and a matrix learns its
    weights in minutes. The convolutions add what is not linear in the flux. Either can be switched off with a
    width of 0. "transformer" is `TransformerEncoder`, which knows pixels by their wavelength alone, and
    "hybrid" is `SpectrumEncoder` with the transformer's tokens as a third path.

    Attributes:
        kind: residual, transformer or hybrid, as above.
        n_context: length of the context vector.
        bin_pixels: neighbouring pixels averaged by ivar before anything else.
        clip: residuals are clipped at this many scales.
        projection_width: outputs of the dense path; 0: none.
        weight_bins: the dense path sees the weights averaged over this many bins: they are smooth but for
            gaps.
        stem_channels: channels after the strided stem; 0: no convolutions.
        stem_stride: in bins.
        stem_kernel: in strides: 2 makes neighbouring windows overlap by half.
        block_channels: one residual block each, every one halving the length.
        block_kernel: width of their kernels.
        flat_channels: channels kept per position when the map is flattened: position carries the meaning.
        conv_width: outputs of the convolutional path.
        n_segments: stretches whose mean log S/N and coverage the head sees.
        cell: of ln(wavelength), 6 km/s: the transformer averages pixels within such cells.
        patch_cells: cells of a patch, which is one token.
        token_width: length of a token.
        token_blocks: blocks of attention.
        n_heads: of each attention.
        n_queries: of the attention that pools the tokens.
        head_width: of the dense layers behind all paths.
        head_blocks: number of these.
        dropout: share of the units of the head's blocks that each training step leaves out.
    """

    kind: Literal["residual", "transformer", "hybrid"] = "residual"
    n_context: int = 128
    bin_pixels: int = 2
    clip: float = 20.0
    projection_width: int = 192
    weight_bins: int = 8
    stem_channels: int = 24
    stem_stride: int = 16
    stem_kernel: int = 2
    block_channels: tuple[int, ...] = (32, 48)
    block_kernel: int = 3
    flat_channels: int = 8
    conv_width: int = 128
    n_segments: int = 32
    cell: float = 2e-5
    patch_cells: int = 64
    token_width: int = 96
    token_blocks: int = 3
    n_heads: int = 4
    n_queries: int = 16
    head_width: int = 384
    head_blocks: int = 3
    dropout: float = 0.0

    def __post_init__(self):
        if self.kind not in KINDS:
            raise InputError(
                "EncoderConfig.kind", repr(self.kind), f"one of {KINDS}", "set it to such a value"
            )
        if self.projection_width <= 0 and self.stem_channels <= 0:
            raise InputError(
                "EncoderConfig",
                "projection_width=0 and stem_channels=0",
                "at least one path",
                "give one of the two a positive width",
            )
        if not 0.0 <= self.dropout < 1.0:
            raise InputError(
                "EncoderConfig.dropout", str(self.dropout), "a share from 0 to less than 1", "use about 0.1"
            )
        if not 0 < self.cell < 0.1:
            raise InputError(
                "EncoderConfig.cell", str(self.cell), "a small step of ln(wavelength)", "use about 2e-5"
            )
        if self.n_heads < 1 or self.token_width < 1 or self.token_width % self.n_heads:
            raise InputError(
                "EncoderConfig.token_width",
                f"{self.token_width} for {self.n_heads} heads",
                "a multiple of n_heads",
                "set it to such a value",
            )
        for name in (
            *("n_context", "bin_pixels", "stem_kernel", "stem_stride", "n_segments", "head_width"),
            *("patch_cells", "n_queries"),
        ):
            if getattr(self, name) < 1:
                raise InputError(
                    f"EncoderConfig.{name}",
                    str(getattr(self, name)),
                    "a positive integer",
                    "set it to such a value",
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
        token_width=64,
        token_blocks=2,
        n_queries=8,
        head_width=192,
        head_blocks=2,
    ),
}
PRESETS[EncoderConfig] = ENCODER_PRESETS
