"""Rotation, macroturbulence, line-spread function, pixel and Doppler shift, in one Fourier transform.

On a grid uniform in ln(wavelength) each of them is a convolution in velocity with a known transform, so the
product of the transforms is applied at once, and each is smooth in its parameter.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from jaxspec.instruments import FWHM_PER_SIGMA, SPEED_OF_LIGHT


class VelocityGrid(eqx.Module):
    """`n` air wavelengths from `start` (A), `step` km/s apart: uniform in ln(wavelength)."""

    start: float = eqx.field(static=True)
    step: float = eqx.field(static=True)
    n: int = eqx.field(static=True)

    @property
    def wavelength(self) -> Float[np.ndarray, " n"]:
        return self.start * np.exp(self.step / SPEED_OF_LIGHT * np.arange(self.n))

    @property
    def frequency(self) -> Float[np.ndarray, " frequencies"]:
        """Angular frequencies (rad per km/s) of the real Fourier transform on this grid."""
        return (2 * np.pi * np.fft.rfftfreq(self.n, self.step)).astype(np.float32)

    def position(self, wavelength: Float[np.ndarray, " p"]) -> Float[np.ndarray, " p"]:
        """Fractional index of air wavelengths (A) on the grid."""
        return np.log(wavelength / self.start) * SPEED_OF_LIGHT / self.step


def bessel_j1(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Bessel function J1 for x >= 0, error below 1e-7 (Abramowitz & Stegun 1964, eqs. 9.4.4 and 9.4.6)."""
    t = jnp.square(jnp.minimum(x, 3.0) / 3.0)
    inner = (0.5, -0.56249985, 0.21093573, -0.03954289, 0.00443319, -0.00031761, 0.00001109)
    near = x * jnp.polyval(jnp.asarray(inner[::-1]), t)
    far = jnp.maximum(x, 3.0)
    u = 3.0 / far
    size = (0.79788456, 0.00000156, 0.01659667, 0.00017105, -0.00249511, 0.00113653, -0.00020033)
    angle = (-2.35619449, 0.12499612, 0.00005650, -0.00637879, 0.00074348, 0.00079824, -0.00029166)
    outer = jnp.polyval(jnp.asarray(size[::-1]), u) * jnp.cos(far + jnp.polyval(jnp.asarray(angle[::-1]), u))
    return jnp.where(x < 3.0, near, outer / jnp.sqrt(far))


def rotation_transform(
    frequency: Float[ArrayLike, " f"], vsini: Float[Array, ""], limb_darkening: float = 0.6
) -> Float[Array, " f"]:
    """Transform of the rotation profile with linear limb darkening; `vsini` in km/s.

    Gray (2005), eq. 18.14; Carroll (1933).
    """
    x = frequency * vsini
    small = x < 0.1
    safe = jnp.where(small, 1.0, x)
    disk = jnp.where(small, 1 - x**2 / 8, 2 * bessel_j1(safe) / safe)
    darkened = jnp.where(small, 2 / 3 - x**2 / 15, 2 * (jnp.sin(safe) - safe * jnp.cos(safe)) / safe**3)
    return ((1 - limb_darkening) * disk + limb_darkening * darkened) / (1 - limb_darkening / 3)


def macroturbulence_transform(
    frequency: Float[ArrayLike, " f"], vmac: Float[Array, ""]
) -> Float[Array, " f"]:
    """Transform of the radial-tangential profile with equal halves (Gray 2005, eq. 17.6), `vmac` in km/s."""
    x = jnp.square(0.5 * frequency * vmac)
    small = x < 1e-3
    return jnp.where(small, 1 - 0.5 * x, -jnp.expm1(-x) / jnp.where(small, 1.0, x))


def gaussian_transform(frequency: Float[ArrayLike, " f"], variance: Float[Array, ""]) -> Float[Array, " f"]:
    """Transform of a Gaussian of `variance` (km/s)^2."""
    return jnp.exp(-0.5 * frequency**2 * variance)


def pixel_transform(frequency: Float[ArrayLike, " f"], width: float) -> Float[Array, " f"]:
    """Transform of the mean over a pixel of `width` km/s."""
    return jnp.sinc(frequency * width / (2 * np.pi))


def convolve(
    flux: Float[Array, " n"], transform: Float[Array, " f"], shift: Float[Array, ""], grid: VelocityGrid
) -> Float[Array, " n"]:
    """Convolve continuum-normalised `flux` and move it by `shift` km/s (positive to the red)."""
    phase = jnp.exp(-1j * (grid.frequency * shift))
    return 1.0 + jnp.fft.irfft(jnp.fft.rfft(flux - 1.0) * transform * phase, n=grid.n)


def lsf_variance(resolving_power: Float[ArrayLike, "..."]) -> Float[Any, "..."] | float:
    """Variance (km/s)^2 of a Gaussian line-spread function of R = lambda / FWHM."""
    return (SPEED_OF_LIGHT / (FWHM_PER_SIGMA * resolving_power)) ** 2


class Resampler(eqx.Module):
    """Cubic interpolation from a uniform grid to fixed positions, as one small matrix a block of pixels.

    Contiguous slices and matrix products run ten times faster than gathering four neighbours per pixel.
    """

    starts: np.ndarray  # first grid point of each block
    matrices: Float[Array, "blocks width pixels"]
    n_pixels: int = eqx.field(static=True)

    @staticmethod
    def create(position: Float[np.ndarray, " p"], n: int, block: int = 64) -> "Resampler":
        """For fractional `position` (increasing) on a grid of `n` points.

        Weights are those of Lagrange's polynomial through four neighbours.
        """
        first = np.clip(np.floor(position).astype(int) - 1, 0, n - 4)
        t = position - first
        weights = np.stack(
            [
                -(t - 1) * (t - 2) * (t - 3) / 6,
                t * (t - 2) * (t - 3) / 2,
                -t * (t - 1) * (t - 3) / 2,
                t * (t - 1) * (t - 2) / 6,
            ]
        )
        n_blocks = -(-len(position) // block)
        pixel = np.arange(len(position))
        starts = first[::block]
        width = int(np.max(first - starts[pixel // block])) + 4
        starts = np.minimum(starts, n - width)
        matrices = np.zeros((n_blocks, width, block), np.float32)
        for k in range(4):
            matrices[pixel // block, first + k - starts[pixel // block], pixel % block] = weights[k]
        return Resampler(starts.astype(np.int32), jnp.asarray(matrices), len(position))

    def __call__(self, flux: Float[Array, " n"]) -> Float[Array, " p"]:
        width = self.matrices.shape[1]
        pieces = jax.vmap(lambda start: jax.lax.dynamic_slice_in_dim(flux, start, width))(
            jnp.asarray(self.starts)
        )
        return jnp.einsum("bw,bwp->bp", pieces, self.matrices).reshape(-1)[: self.n_pixels]
