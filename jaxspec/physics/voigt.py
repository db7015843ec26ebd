"""The Voigt function H(a, v)."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_N = 16
FAR = 64.0  # v^2 + a^2, beyond which the profile is a Lorentzian


def _weideman_coefficients(n: int) -> tuple[float, np.ndarray]:
    """Scale L and coefficients of Weideman (1994, SIAM J. Numer. Anal. 31, 1497), eq. 38."""
    m = 2 * n
    k = np.arange(-m + 1, m)
    length = np.sqrt(n / np.sqrt(2))
    t = length * np.tan(k * np.pi / m / 2)
    f = np.concatenate([[0.0], np.exp(-(t**2)) * (length**2 + t**2)])
    return float(length), np.real(np.fft.fft(np.fft.fftshift(f)))[1 : n + 1][::-1] / (2 * m)


_LENGTH, _COEFFICIENTS = _weideman_coefficients(_N)


def _core(a: Float[Array, "..."], v: Float[Array, "..."]) -> tuple[Array, Array]:
    """Real and imaginary part of the Faddeeva function w(v + i a), Weideman's rational approximation."""
    # Z = (L + i z) / (L - i z) with z = v + i a.
    below = (_LENGTH + a) ** 2 + v * v  # |L - i z|^2
    inverse = 1.0 / below
    z_re = ((_LENGTH - a) * (_LENGTH + a) - v * v) * inverse
    z_im = 2.0 * _LENGTH * v * inverse
    p_re, p_im = jnp.full_like(z_re, _COEFFICIENTS[0]), jnp.zeros_like(z_re)
    for c in _COEFFICIENTS[1:]:
        p_re, p_im = p_re * z_re - p_im * z_im + c, p_re * z_im + p_im * z_re
    # w = 2 p / (L - i z)^2 + 1 / (sqrt(pi) (L - i z)), with 1 / (L - i z) = (L + a + i v) / |L - i z|^2.
    u_re, u_im = (_LENGTH + a) * inverse, v * inverse
    square_re, square_im = u_re * u_re - u_im * u_im, 2.0 * u_re * u_im
    real = 2.0 * (p_re * square_re - p_im * square_im) + u_re / np.sqrt(np.pi)
    imaginary = 2.0 * (p_re * square_im + p_im * square_re) + u_im / np.sqrt(np.pi)
    return real, imaginary


def voigt(a: Float[Array, "..."], v: Float[Array, "..."]) -> Float[Array, "..."]:
    """H(a, v) = (a / pi) int exp(-y^2) / ((v - y)^2 + a^2) dy, for a >= 0; int H dv = sqrt(pi).

    Weideman's rational approximation in real arithmetic (it uses no transcendental function) near the core,
    and the Lorentzian with its first Doppler correction where v^2 + a^2 > 64. Against the Faddeeva function
    the error for a < 3 is below 1e-4 of H(a, 0) and, beyond v = 5, below 0.1 % of the value itself; 2 % in
    the inner wings (v = 5 to 8) of undamped lines (a = 1e-4).
    """
    core, _ = _core(a, v)
    r2 = v * v + a * a
    return jnp.where(r2 > FAR, _wing(a, v, r2), core)


def voigt_and_slopes(a: Float[Array, "..."], v: Float[Array, "..."]) -> tuple[Array, Array, Array]:
    """H(a, v) as by `voigt`, and its derivatives by a and by v.

    In the core from w' = -2 z w + 2 i / sqrt(pi), at hardly more than the cost of H alone.
    """
    real, imaginary = _core(a, v)
    core_a = 2.0 * (v * imaginary + a * real) - 2.0 / np.sqrt(np.pi)
    core_v = 2.0 * (a * imaginary - v * real)
    # Farther out these are differences of nearly equal numbers. There, with q = 1 / z^2,
    # w' = -i / sqrt(pi) q (1 + 3 q / 2 + 15 q^2 / 4 + 105 q^3 / 8).
    r2 = v * v + a * a
    outside = r2 > 30.0
    inverse = 1.0 / jnp.where(outside, r2, 30.0)
    q_re, q_im = (v * v - a * a) * inverse * inverse, -2.0 * a * v * inverse * inverse
    p_re, p_im = jnp.full_like(q_re, 13.125), jnp.zeros_like(q_re)
    for c in (3.75, 1.5, 1.0, 0.0):
        p_re, p_im = p_re * q_re - p_im * q_im + c, p_re * q_im + p_im * q_re
    wing_a, wing_v = p_re / np.sqrt(np.pi), p_im / np.sqrt(np.pi)
    far = r2 > FAR
    return (
        jnp.where(far, _wing(a, v, r2), real),
        jnp.where(outside, wing_a, core_a),
        jnp.where(outside, wing_v, core_v),
    )


def _wing(a: Float[Array, "..."], v: Float[Array, "..."], r2: Float[Array, "..."]) -> Float[Array, "..."]:
    """The Lorentzian with its first Doppler correction, where r2 = v^2 + a^2 > FAR."""
    safe = jnp.maximum(r2, FAR)
    return a / (np.sqrt(np.pi) * safe) * (1.0 + (1.5 * v * v - 0.5 * a * a) / safe / safe)
