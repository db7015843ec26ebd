"""Micro- and macroturbulence of ordinary stars, as calibrated functions of the stellar parameters."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def vmic_calibration(
    teff: Float[Array, "..."], logg: Float[Array, "..."], fe_h: Float[Array, "..."]
) -> Float[Array, "..."]:
    """Microturbulence (km/s) of the Gaia-ESO survey (Smiljanic et al. 2014, A&A 570, A122).

    The relation of M. Bergemann and V. Hoang. It jumps by about 0.2 km/s at log g = 3.5, where the relations
    for dwarfs and giants meet.
    """
    t, g = teff - 5500.0, logg - 4.0
    common = -0.14 * g - 0.005 * g**2 + 0.05 * fe_h + 0.01 * fe_h**2
    dwarf_t = jnp.maximum(t, -500.0)
    dwarf = 1.05 + 2.51e-4 * dwarf_t + 1.5e-7 * dwarf_t**2
    giant = 1.25 + 4.01e-4 * t + 3.1e-7 * t**2
    return jnp.where(logg >= 3.5, dwarf, giant) + common


def vmac_calibration(
    teff: Float[Array, "..."], logg: Float[Array, "..."], fe_h: Float[Array, "..."]
) -> Float[Array, "..."]:
    """Radial-tangential macroturbulence (km/s) of Doyle et al. (2014, MNRAS 444, 3592), eq. 8.

    It was measured on dwarfs of 5200-6400 K. Outside that range the ends are held; for giants (log g < 3.5)
    the relation at the cool end rises with falling gravity to the 5-7 km/s of bright giants (Carney et al.
    2008, AJ 135, 892). `fe_h` is accepted for a common signature; it has no effect.
    """
    t = jnp.clip(teff, 5200.0, 6400.0) - 5777.0
    g = jnp.clip(logg, 3.5, 4.7) - 4.44
    dwarf = 3.21 + 2.33e-3 * t + 2.00e-6 * t**2 - 2.00 * g
    return jnp.clip(dwarf, 1.0, 9.0) + 0.6 * jnp.maximum(3.5 - logg, 0.0) + 0.0 * fe_h
