"""One normaliser for all spectra, simulated and observed, so that nothing can tell them apart by it.

What it divides by is not the true continuum, which no spectrum shows between blended lines, but a smooth
curve near the upper envelope that is defined by the same arithmetic for every spectrum. A forward model is
compared with data after going through it too.

Per arm, a Chebyshev series of low degree is fitted by asymmetric least squares (an expectile: Newey & Powell
1987, Econometrica 55, 819): what lies below the curve, the lines, pulls with 1 - tau, the rest with tau. An
expectile climbs with the noise, by 7 % from S/N 300 to 10 in the Sun; here the softer pull starts only half a
noise sigma below the curve, which keeps it within 1 %. The problem stays convex, with one answer that varies
continuously with the data.

The products of two Chebyshev polynomials are sums of two others, T_i T_j = (T_{i+j} + T_{|i-j|}) / 2, so the
normal equations need only 2 degree + 1 weighted moments, a thin matrix product per iteration over all stars.
"""

from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxspec.instruments import Instrument
from jaxspec.linear import solve


class ContinuumConfig(NamedTuple):
    """How `normalise` fits; hashable. A trained network holds for the values it was trained with."""

    degree: int = 4  # of the Chebyshev series of an arm
    tau: float = 0.9  # weight of pixels on or above the curve; 1 - tau for pixels below, i.e. lines
    warm_iterations: int = 6  # on every `stride`-th pixel
    stride: int = 4
    iterations: int = 3  # on all pixels, without cosmic rays
    line_depth: float = 0.5  # [noise sigma] below the curve down to which a pixel counts as on it
    cosmic_sigma: float = 6.0  # [noise sigma] and
    cosmic_height: float = 0.2  # [of the curve] above it, from which a pixel counts as a cosmic ray
    pixel_scatter: float = 0.3  # [of the mean flux] noise beyond which a pixel loses weight
    ridge: float = 1.0  # [pixels] that pull the k-th coefficient to zero, times k^2


DEFAULT = ContinuumConfig()
CEILING = 4.0  # [mean flux of an arm] above anything a continuum reaches


@lru_cache(maxsize=32)
def _chebyshev(n_pixels: int, degree: int) -> np.ndarray:
    """T_0 ... T_{2 degree} over an arm, float32 [n_pixels, 2 degree + 1]. The grid is linear, so positions
    are enough."""
    x = (2.0 * np.arange(n_pixels) + 1.0) / n_pixels - 1.0
    return np.polynomial.chebyshev.chebvander(x, 2 * degree).astype(np.float32)


def normalise(
    flux: Float[Array, "*n p"],
    ivar: Float[Array, "*n p"],
    instrument: Instrument,
    config: ContinuumConfig = DEFAULT,
) -> tuple[Float[Array, "*n p"], Float[Array, "*n p"]]:
    """Flux divided by its pseudo-continuum, arm by arm, and the ivar times its square.

    `flux` and `ivar` are on `instrument.wavelength`, in any unit: the result does not depend on the scale.
    Pure, and fit for `jit`, `vmap` and `grad`; static in `instrument` and `config`. Pixels with ivar 0 are
    never read and come out as flux 1, ivar 0; so does a whole arm without pixels, and any pixel where the
    curve is not positive (a spectrum of negative flux has no continuum to be divided by).
    """
    curve = continuum(flux, ivar, instrument, config)
    good = (ivar > 0) & (curve > 0)
    safe = jnp.where(good, curve, 1.0)
    return jnp.where(good, jnp.where(good, flux, 1.0) / safe, 1.0), jnp.where(good, ivar * safe * safe, 0.0)


def continuum(
    flux: Float[Array, "*n p"],
    ivar: Float[Array, "*n p"],
    instrument: Instrument,
    config: ContinuumConfig = DEFAULT,
) -> Float[Array, "*n p"]:
    """The pseudo-continuum that `normalise` divides by, in the unit of the flux; 0 over an arm without
    pixels."""
    parts = [_fit_arm(flux[..., s], ivar[..., s], config) for s in instrument.slices.values()]
    return jnp.concatenate(parts, axis=-1)


def _fit_arm(flux: Array, ivar: Array, config: ContinuumConfig) -> Array:
    n_pixels, n = flux.shape[-1], config.degree + 1
    moments = jnp.asarray(_chebyshev(n_pixels, config.degree), flux.dtype)
    basis = moments[:, :n]
    # Products of polynomials i and j are half the sum of moments i + j and |i - j|.
    i, j = np.indices((n, n))
    ridge = jnp.asarray(np.diag(config.ridge * np.arange(n) ** 2.0), flux.dtype)

    good = ivar > 0
    flux = jnp.where(good, flux, 0.0)
    n_good = jnp.sum(good, -1, keepdims=True, dtype=flux.dtype)
    scale = jnp.sum(jnp.abs(flux), -1, keepdims=True) / jnp.maximum(n_good, 1)
    for _ in range(
        2
    ):  # the mean without what towers over it: one cosmic ray can hold most of the light of an arm
        scale = jnp.sum(jnp.minimum(jnp.abs(flux), CEILING * scale), -1, keepdims=True) / jnp.maximum(
            n_good, 1
        )
    scale = jnp.where(scale > 0, scale, 1.0)
    y = flux / scale
    clipped = jnp.minimum(y, CEILING)
    precision = jnp.where(good, ivar, 0.0) * scale * scale
    sigma = jax.lax.rsqrt(jnp.where(good, precision, 1.0))
    # Saturates, so that one pixel with a wildly large ivar cannot take over, and all good pixels count alike.
    weight = precision / (precision + config.pixel_scatter**-2)

    # A Newton step from the residuals of the last curve rather than a fit to the flux: their sums are small,
    # and so is what float32 loses in them.
    def step(coefficients, residual, w, stride=1):
        m = w @ moments[::stride]
        b = (w * residual) @ basis[::stride] - coefficients @ ridge
        a = 0.5 * (m[..., i + j] + m[..., abs(i - j)]) + ridge
        # Without pixels the matrix is singular; any other will do for no step at all.
        a = a + jnp.where(m[..., :1, None] > 0, 0.0, 1.0) * jnp.eye(n, dtype=a.dtype)
        return coefficients + solve(a, b)

    def asymmetry(residual, sigma):
        noise = config.line_depth * sigma
        # Slope tau down to the noise and 1 - tau beyond, joined without a jump.
        line = (1.0 - config.tau) + (2.0 * config.tau - 1.0) * noise / jnp.maximum(-residual, noise)
        return jnp.where(residual < -noise, line, config.tau)

    # The first curves run far below the continuum of a star full of lines, which must not be taken for cosmic
    # rays: until the curve has risen, bright pixels are held down rather than rejected. A sample of pixels is
    # enough.
    few = slice(None, None, config.stride)
    clipped, few_weight, few_sigma = jnp.minimum(y[..., few], CEILING), weight[..., few], sigma[..., few]

    def warm(coefficients, _):
        residual = clipped - coefficients @ basis[few].T
        return step(coefficients, residual, few_weight * asymmetry(residual, few_sigma), config.stride), None

    def full(coefficients, _):
        curve = coefficients @ basis.T
        residual = y - curve
        bright = config.cosmic_height * jnp.abs(curve)
        cosmic = (residual > config.cosmic_sigma * sigma) & (residual > bright)
        w = jnp.where(cosmic, 0.0, weight * asymmetry(residual, sigma))
        return step(coefficients, residual, w), None

    # From the mean flux, which is 1 in these units.
    coefficients = jnp.broadcast_to(jnp.eye(n, dtype=y.dtype)[0], (*y.shape[:-1], n))
    coefficients, _ = jax.lax.scan(warm, coefficients, length=config.warm_iterations)
    coefficients, _ = jax.lax.scan(full, coefficients, length=config.iterations)
    return (coefficients @ basis.T) * jnp.where(n_good > 0, scale, 0.0)
