"""A transformer over patches of a spectrum, placed by their wavelengths.

Cells and patches are counted from ln(wavelength) = 0, not from the first pixel of a detector. A token is
therefore the same whichever pixels surround it, and one set of weights reads the grid of any instrument. What
depends on the grid (`PatchGrid`, and the mean and scale of each pixel) is no weight.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from jaxspec.networks.base import Encoder
from jaxspec.networks.blocks import ResidualDense
from jaxspec.networks.config import EncoderConfig
from jaxspec.networks.inputs import pixel_features

N_FREQUENCIES = 32
LONGEST_PERIOD = 4.0  # in ln(wavelength): from the ultraviolet to the infrared without ambiguity


# Compared by identity: it is a constant of the network it belongs to, and too long to hash at every call.
@dataclass(frozen=True, eq=False)
class PatchGrid:
    """Which pixels make up the `k` cells of `t` patches.

    Attributes:
        pixels: `m` pixel numbers for each cell, filled up with zeros.
        used: whether an entry of `pixels` is meant.
        centre: ln(wavelength in A) of the middle of each patch.
        width: of a patch in ln(wavelength).
    """

    pixels: Int[np.ndarray, "t k m"]
    used: Bool[np.ndarray, "t k m"]
    centre: Float[np.ndarray, " t"]
    width: float


def cut_patches(wavelength: Float[np.ndarray, " p"], cell: float, patch_cells: int) -> PatchGrid:
    """Cells of `cell` in ln(wavelength), `patch_cells` to a patch; no patch holds pixels of two arms.

    Args:
        wavelength: pixel centres in A, ascending; an arm ends where the step to the next pixel is more than
            three times that before.
    """
    log_wavelength = np.log(np.asarray(wavelength, np.float64))
    step = np.diff(log_wavelength)
    arm = np.concatenate([[0, 0], np.cumsum(step[1:] > 3.0 * step[:-1])])[: len(log_wavelength)]
    count = np.floor(log_wavelength / cell).astype(np.int64)
    keys = np.stack([arm, count // patch_cells], 1)
    patches, patch = np.unique(keys, axis=0, return_inverse=True)
    place = patch.reshape(-1) * patch_cells + count % patch_cells
    # Wavelengths ascend, so the pixels of a cell stand together.
    first = np.searchsorted(place, place, side="left")
    member = np.arange(len(place)) - first
    most = int(member.max()) + 1
    pixels, used = (np.zeros((len(patches) * patch_cells, most), kind) for kind in (np.int32, bool))
    pixels[place, member], used[place, member] = np.arange(len(place)), True
    shape = (len(patches), patch_cells, most)
    centre = (patches[:, 1] + 0.5) * patch_cells * cell
    return PatchGrid(pixels.reshape(shape), used.reshape(shape), centre, patch_cells * cell)


def wavelength_code(centre: Float[np.ndarray, " t"], width: float) -> Float[np.ndarray, "t f"]:
    """Sines and cosines of ln(wavelength), with periods from two patches to `LONGEST_PERIOD`.

    (Vaswani et al. 2017, arXiv:1706.03762, section 3.5, of a physical position instead of an index.) Formed
    in float64: the shortest period is a ten-thousandth of ln(wavelength) itself.
    """
    angles = 2.0 * np.pi * centre[:, None] / np.geomspace(2.0 * width, LONGEST_PERIOD, N_FREQUENCIES)
    return np.concatenate([np.sin(angles), np.cos(angles)], 1).astype(np.float32)


class Attention(nnx.Module):
    """Pre-normalised self-attention with a skip, [b, t, n] -> [b, t, n]; masked tokens are not looked at.

    Starts as the identity.
    """

    def __init__(self, n: int, n_heads: int, *, rngs: nnx.Rngs):
        self.n_heads = n_heads
        self.norm = nnx.LayerNorm(n, rngs=rngs)
        self.enter = nnx.Linear(n, 3 * n, rngs=rngs)
        self.leave = nnx.Linear(n, n, kernel_init=nnx.initializers.zeros, rngs=rngs)

    def __call__(self, x: Float[Array, "b t n"], seen: Bool[Array, "b t"]) -> Float[Array, "b t n"]:
        y = self.enter(self.norm(x)).reshape(*x.shape[:2], 3, self.n_heads, -1)
        query, key, value = y[:, :, 0], y[:, :, 1], y[:, :, 2]
        y = jax.nn.dot_product_attention(query, key, value, mask=seen[:, None, None, :])
        return x + self.leave(y.reshape(x.shape))


class PatchTransformer(nnx.Module):
    """Features of a spectrum from its patches: embedding, attention blocks, pooling by learned queries.

    A patch without a good pixel is neither attended to nor pooled. What a flux means depends on where it is:
    the code of the wavelength scales the embedding as well as shifting it, so that even the part linear in
    the flux differs from patch to patch.
    """

    def __init__(self, config: EncoderConfig, wavelength: Float[np.ndarray, " p"], *, rngs: nnx.Rngs):
        self.clip, width = config.clip, config.token_width
        self.grid = cut_patches(wavelength, config.cell, config.patch_cells)
        self.n_features = config.n_queries * width
        self.embed = nnx.Linear(3 * config.patch_cells, width, rngs=rngs)
        self.place = nnx.Linear(2 * N_FREQUENCIES, 2 * width, rngs=rngs)
        self.attention = nnx.List(
            [Attention(width, config.n_heads, rngs=rngs) for _ in range(config.token_blocks)]
        )
        self.dense = nnx.List(
            [ResidualDense(width, expansion=2, rngs=rngs) for _ in range(config.token_blocks)]
        )
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.queries = nnx.Linear(width, config.n_queries, rngs=rngs)
        self.value = nnx.Linear(width, width, rngs=rngs)

    def tokens(
        self,
        flux: Float[Array, "b p"],
        ivar: Float[Array, "b p"],
        mean: Float[Array, " p"],
        scale: Float[Array, " p"],
    ) -> tuple[Float[Array, "b t n"], Bool[Array, "b t"]]:
        """Embedded patches, and which of them have a good pixel."""
        t, k, m = self.grid.pixels.shape
        pixels, used = self.grid.pixels.reshape(-1), self.grid.used.reshape(-1)
        ivar = jnp.where(used, jnp.take(ivar, pixels, axis=1), 0.0)
        flux = jnp.take(flux, pixels, axis=1)
        x = pixel_features(flux, ivar, mean[pixels], scale[pixels], bin_pixels=m, clip=self.clip)
        cells = jnp.stack([x.residual, x.weight - 1.0, x.log_snr - 3.0], -1)
        seen = (x.weight > 0).reshape(-1, t, k).any(-1)
        code = jnp.asarray(wavelength_code(self.grid.centre, self.grid.width))
        factor, shift = jnp.split(self.place(code), 2, -1)
        return self.embed(cells.reshape(-1, t, 3 * k)) * (1.0 + factor) + shift, seen

    def __call__(
        self,
        flux: Float[Array, "b p"],
        ivar: Float[Array, "b p"],
        mean: Float[Array, " p"],
        scale: Float[Array, " p"],
    ) -> Float[Array, "b f"]:
        x, seen = self.tokens(flux, ivar, mean, scale)
        for attention, dense in zip(self.attention, self.dense, strict=True):
            x = dense(attention(x, seen))
        # Where nothing was seen every weight is alike, and the sum is set to zero.
        logits = jnp.where(seen[..., None], self.queries(self.norm(x)), -1e9)
        weights = jnp.where(seen[..., None], jax.nn.softmax(logits, axis=1), 0.0)
        # The values are not normalised: the amplitude of a residual is the signal.
        return jnp.einsum("btq,btn->bqn", weights, self.value(x)).reshape(x.shape[0], -1)


class TransformerEncoder(Encoder):
    """The tokens alone: no weight belongs to a pixel, so the same weights read any instrument's grid.

    `wavelength` [p] are the pixel centres in A, ascending within and between arms.
    """

    def __init__(
        self,
        config: EncoderConfig,
        *,
        wavelength: Float[np.ndarray, " p"],
        rngs: nnx.Rngs,
    ):
        super().__init__(config, wavelength.size)
        self.tokens = PatchTransformer(config, wavelength, rngs=rngs)
        self.add_head(self.tokens.n_features, rngs)

    def features(self, flux: Float[Array, "b p"], ivar: Float[Array, "b p"]) -> Float[Array, "b f"]:
        return self.tokens(flux, ivar, self.mean[...], self.scale[...])
