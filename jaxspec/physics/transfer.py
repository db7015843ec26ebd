"""Formal solution of the transfer equation in a plane-parallel atmosphere."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxspec.linear import solve
from jaxspec.physics.constants import BOLTZMANN, PLANCK, SPEED_OF_LIGHT

# Gauss-Legendre on (0, 1): cosines of the emergent angles and their weights.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(5)
ANGLES = 0.5 * (_NODES + 1)
ANGLE_WEIGHTS = 0.5 * _WEIGHTS


def planck(wavelength: Float[Array, "..."], temperature: Float[Array, "..."]) -> Float[Array, "..."]:
    """Planck function B_lambda in erg s^-1 cm^-2 sr^-1 A^-1; `wavelength` in A, `temperature` in K."""
    exponent = PLANCK * SPEED_OF_LIGHT / BOLTZMANN * 1e8 / (wavelength * temperature)
    # 2 h c^2 / lambda^5 per A (1e-8), with lambda in units of 1e4 A = 1e-4 cm so that float32 holds it.
    return 2 * PLANCK * SPEED_OF_LIGHT**2 * 1e20 * 1e-8 / (wavelength * 1e-4) ** 5 / jnp.expm1(exponent)


def optical_depth(
    opacity: Float[Array, "... layers"], column_mass: Float[Array, "... layers"]
) -> Float[Array, "... layers"]:
    """Optical depth at each layer, from opacity (cm^2 g^-1) over `column_mass` (g cm^-2).

    Between layers opacity x column mass is a power law of the column mass, which is integrated exactly; above
    the first layer the opacity is constant.
    """
    integrand = opacity * column_mass
    first, second = integrand[..., :-1], integrand[..., 1:]
    ratio = jnp.log(second / first)
    small = jnp.abs(ratio) < 1e-2
    mean = jnp.where(small, 0.5 * (first + second), (second - first) / jnp.where(small, 1.0, ratio))
    steps = mean * jnp.log(column_mass[..., 1:] / column_mass[..., :-1])
    return jnp.concatenate([integrand[..., :1], steps], axis=-1)


def emergent_intensity(
    steps: Float[Array, "... layers"], source: Float[Array, "... layers"], angle: float
) -> Float[Array, "..."]:
    """Intensity leaving the surface at cosine `angle`; `steps` are the optical depths between layers.

    `steps` come from `optical_depth`. The source function is linear in optical depth between layers and
    constant above the first and below the last.
    """
    delta = steps / angle
    depth = jnp.cumsum(delta, axis=-1)
    transmission = jnp.exp(-depth)
    inner = delta[..., 1:]
    thin = inner < 1e-2
    safe = jnp.where(thin, 1.0, inner)
    absorbed = -jnp.expm1(-inner)
    ratio = jnp.where(thin, 1.0 - 0.5 * inner + inner**2 / 6, absorbed / safe)
    weight_far = ratio - (1.0 - absorbed)
    weight_near = 1.0 - ratio
    layers = transmission[..., :-1] * (weight_near * source[..., :-1] + weight_far * source[..., 1:])
    surface = -jnp.expm1(-delta[..., 0]) * source[..., 0]
    return surface + jnp.sum(layers, axis=-1) + transmission[..., -1] * source[..., -1]


def emergent_flux(
    steps: Float[Array, "... layers"], source: Float[Array, "... layers"]
) -> Float[Array, "..."]:
    """Astrophysical flux F = 2 pi int I mu dmu at the surface, in the source function's units times sr."""
    return sum(
        2 * np.pi * weight * angle * emergent_intensity(steps, source, angle)
        for angle, weight in zip(ANGLES, ANGLE_WEIGHTS, strict=True)
    )


def mean_intensity_with_scattering(
    steps: Float[Array, " layers"], thermal: Float[Array, " layers"], albedo: Float[Array, " layers"]
) -> Float[Array, " layers"]:
    """Mean intensity J of coherent isotropic scattering, S = (1 - albedo) B + albedo J, solved exactly.

    The Lambda operator is the dense matrix of the same piecewise-linear formal solution as
    `emergent_intensity`, in and out along each ray; (1 - Lambda albedo) J = Lambda (1 - albedo) B.
    """
    n = steps.shape[-1]
    operator = jnp.zeros((n, n))
    for angle, weight in zip(ANGLES, ANGLE_WEIGHTS, strict=True):
        operator = operator + 0.5 * weight * _ray_operator(steps / angle)
    return solve(jnp.eye(n) - operator * albedo[None, :], operator @ ((1.0 - albedo) * thermal))


def _ray_operator(delta: Float[Array, " layers"]) -> Float[Array, "layers layers"]:
    """Matrix that takes the source function to the sum of inward and outward intensities at each layer."""
    inner = delta[1:]
    absorbed = -jnp.expm1(-inner)
    ratio = jnp.where(
        inner < 1e-2, 1.0 - 0.5 * inner + inner**2 / 6, absorbed / jnp.where(inner < 1e-2, 1.0, inner)
    )
    transmission = 1.0 - absorbed
    near, far = 1.0 - ratio, ratio - transmission  # weights of the receiving and the emitting end
    n = delta.shape[0]
    unit = jnp.eye(n)

    def outward(row, k):
        row = transmission[k] * row + near[k] * unit[k] + far[k] * unit[k + 1]
        return row, row

    def inward(row, k):
        row = transmission[k] * row + near[k] * unit[k + 1] + far[k] * unit[k]
        return row, row

    bottom = unit[n - 1]
    top = -jnp.expm1(-delta[0]) * unit[0]
    _, up = jax.lax.scan(outward, bottom, jnp.arange(n - 2, -1, -1))
    _, down = jax.lax.scan(inward, top, jnp.arange(n - 1))
    return jnp.concatenate([up[::-1], bottom[None]]) + jnp.concatenate([top[None], down])
