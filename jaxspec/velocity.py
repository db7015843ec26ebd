"""Radial velocity of a spectrum against a template at rest, with the error the likelihood gives it.

Two steps. The chi2 of the template at every velocity of a coarse grid, by cross-correlation on a logarithmic
wavelength grid, where a Doppler shift is a translation, finds the peak. Least squares in velocity and a
multiplicative polynomial, with the template evaluated exactly at each shift (the data are never resampled),
then finds the velocity and, from the curvature of chi2 at the minimum (Zucker 2003, MNRAS 342, 1291, for
noise known per pixel), its error. Host code in float64.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.interpolate import CubicSpline
from scipy.signal import fftconvolve

from jaxspec.errors import InputError
from jaxspec.instruments import SPEED_OF_LIGHT
from jaxspec.spectra import validate


class RadialVelocity(NamedTuple):
    velocity: float  # km/s, positive when receding
    error: float  # km/s, one sigma


def radial_velocity(
    wavelength: Float[np.ndarray, " p"],
    flux: Float[np.ndarray, " p"],
    ivar: Float[np.ndarray, " p"],
    template_wavelength: Float[np.ndarray, " q"],
    template_flux: Float[np.ndarray, " q"],
    *,
    max_velocity: float = 500.0,
    degree: int = 3,
) -> RadialVelocity:
    """Velocity of a star from its spectrum and a template that is at rest; both wavelengths in A and one
    medium.

    The star is modelled as the shifted template times a polynomial of `degree`, so the flux may be in any
    unit. The error is the marginal one of that fit; where the template does not describe the star to within
    the noise (reduced chi2 above 1), it is scaled up by the root of it. Pixels with ivar 0, or shifted off
    the template, are not used. Velocities are searched within +-`max_velocity` km/s.

    Raises `InputError` when fewer than 50 good pixels overlap the template at every velocity searched, when
    the template has gaps of value (NaN), or when the best velocity is at the edge of the search.
    """
    wavelength, template_wavelength = _float64(wavelength), _float64(template_wavelength)
    flux, ivar, template_flux = _float64(flux), _float64(ivar), _float64(template_flux)
    validate(flux, ivar, wavelength, where="spectrum for radial_velocity")
    validate(
        template_flux, np.ones_like(template_flux), template_wavelength, where="template for radial_velocity"
    )
    good = (ivar > 0) & _within(wavelength, template_wavelength, max_velocity)
    if good.sum() < 50:
        raise InputError(
            "radial_velocity",
            f"{good.sum()} good pixels that the template covers at all velocities up to {max_velocity} km/s",
            "50 or more",
            "use a template of the same range with a margin, the same medium, or search fewer velocities",
        )
    x, y, sigma = np.log(wavelength[good]), flux[good], 1.0 / np.sqrt(ivar[good])
    template = CubicSpline(np.log(template_wavelength), template_flux)

    velocities, chi2 = _coarse_chi2(x, y, sigma, template, max_velocity)
    best = int(np.argmin(chi2))
    if best in (0, velocities.size - 1):
        raise InputError(
            "radial_velocity",
            f"the best match at the edge of the search, {velocities[best]:.0f} km/s",
            "a minimum of chi2 inside it",
            "raise max_velocity, or check that spectrum and template are of the same kind and medium",
        )
    return _refine(x, y, sigma, template, _log_shift(velocities[best]), degree)


def _float64(values) -> np.ndarray:
    return np.asarray(values, np.float64)


def _log_shift(velocity):
    """Shift in ln(wavelength) of a relativistic radial velocity in km/s: atanh(v / c)."""
    return np.arctanh(velocity / SPEED_OF_LIGHT)


def _within(wavelength: np.ndarray, template: np.ndarray, max_velocity: float) -> np.ndarray:
    # The same pixels at every velocity, or chi2 could be lowered by shifting pixels out of sight.
    stretch = np.exp(_log_shift(max_velocity) + 1e-12)
    return (wavelength / stretch >= template[0]) & (wavelength * stretch <= template[-1])


def _coarse_chi2(x, y, sigma, template: CubicSpline, max_velocity: float) -> tuple[np.ndarray, np.ndarray]:
    """Velocities [km/s] about one pixel apart and chi2 at each, minimised over a linear function of the
    template.

    With weights w = 1/sigma^2, chi2 follows from sums of w t(v), w t(v)^2 and w y t(v) over pixels; on the
    logarithmic grid each is a correlation, done by FFT for all velocities at once. Pixels go to the nearest
    grid point: half a pixel of blur, harmless for finding the peak.
    """
    step = np.median(np.diff(x))
    reach = int(np.ceil(_log_shift(max_velocity) / step))
    index = np.rint((x - x[0]) / step).astype(int)
    n = index[-1] + 1
    w = 1.0 / sigma**2
    y = (y - np.average(y, weights=w)) / np.sqrt(np.average((y - np.average(y, weights=w)) ** 2, weights=w))
    grid = np.clip(x[0] + step * np.arange(-reach, n + reach), template.x[0], template.x[-1])
    t = template(grid)
    t = (t - t.mean()) / max(t.std(), 1e-300)

    def correlate(weights, values):
        binned = np.bincount(index, weights, n)
        # Entry k is sum_i binned[i] values[i + k]: the template read k - reach steps redward, a star
        # approaching.
        return fftconvolve(values, binned[::-1], mode="valid")

    s1, s2, sy = correlate(w, t), correlate(w, t * t), correlate(w * y, t)
    s0, syy = w.sum(), np.sum(w * y * y)
    spread = np.maximum(s2 - s1**2 / s0, 1e-9 * s2.max())  # y has zero weighted mean
    # A star is never the template turned upside down.
    chi2 = syy - np.maximum(sy, 0.0) ** 2 / spread
    velocities = -SPEED_OF_LIGHT * np.tanh(step * (np.arange(chi2.size) - reach))
    return velocities, chi2


def _refine(x, y, sigma, template: CubicSpline, shift: float, degree: int) -> RadialVelocity:
    """Gauss-Newton in shift and polynomial coefficients from a start within a line width of the minimum."""
    slope = template.derivative()
    position = 2.0 * (x - x[0]) / (x[-1] - x[0]) - 1.0
    polynomials = np.polynomial.legendre.legvander(position, degree)
    limit = 2.0 * np.median(np.diff(x))

    def fit(shift):
        basis = polynomials * (template(x - shift) / sigma)[:, None]
        coefficients, *_ = np.linalg.lstsq(basis, y / sigma, rcond=None)
        return basis, coefficients, y / sigma - basis @ coefficients

    basis, coefficients, residual = fit(shift)
    for _ in range(50):
        moved = -(polynomials @ coefficients) * slope(x - shift) / sigma
        # What of the shift's effect the polynomial cannot imitate: its norm is the information on the
        # velocity.
        moved -= basis @ np.linalg.lstsq(basis, moved, rcond=None)[0]
        information = moved @ moved
        step = np.clip(moved @ residual / information, -limit, limit) if information > 0 else 0.0
        # A full step may overshoot between blended lines: halve it until chi2 falls.
        while True:
            trial = fit(shift + step)
            if trial[2] @ trial[2] <= residual @ residual or abs(step) < 1e-12:
                break
            step *= 0.5
        shift += step
        basis, coefficients, residual = trial
        if abs(step) < 1e-10:  # 0.03 m/s
            break
    reduced = residual @ residual / max(x.size - degree - 2, 1)
    error = np.sqrt(max(reduced, 1.0) / information) if information > 0 else np.inf
    derivative = SPEED_OF_LIGHT / np.cosh(shift) ** 2
    return RadialVelocity(float(SPEED_OF_LIGHT * np.tanh(shift)), float(derivative * error))
