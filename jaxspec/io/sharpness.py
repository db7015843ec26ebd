"""Resolving power of a spectrum whose file does not state it, judged from the width of its lines.

In velocity, a spectrum is the star's convolved with a profile. The Fourier transforms of two spectra with
like lines differ by those of their profiles: for Gaussians by exp(-D k^2 / 2), where D is the difference of
the two variances and k the frequency. The factor is measured as a transfer function, from the product of the
spectrum's transform with that of a template whose profile is known. Noise is not correlated with the
template, so that it widens the error of D and does not shift D, however large it is and whatever its own
spectrum.
"""

from typing import NamedTuple

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.optimize import least_squares

from jaxspec.instruments import FWHM_PER_SIGMA, SPEED_OF_LIGHT, Arm, Instrument
from jaxspec.io.collection import Template, measure_velocity
from jaxspec.io.spectrum import SpectrumFile
from jaxspec.resampling import rebin

STEP = 2.0  # km/s
FREQUENCIES = (0.06, 0.45)  # rad per km/s: features between 100 and 14 km/s
BIN = 0.03  # rad per km/s
SAMPLED = 0.8  # of the highest frequency that the file's pixels hold, up to which it is used
FEWEST_BINS = 5
FAINTEST = 1e-7  # mean power of the template in a bin, as a share of its highest: below is only rounding
ROUNDS = 4  # of fit and weights
SHARPER = 1.1  # below this factor in R the difference is within what rotation and turbulence do
SIGNIFICANT = 3.0  # standard errors by which a spectrum must be sharper
PRECISION = 0.05  # largest relative error of R from the noise, with which it is judged at all
MAX_RESOLVING_POWER = 120_000.0


class Excess(NamedTuple):
    """Variance of the lines of a spectrum minus that of a template's, and its error [km^2/s^2]; the share of
    the spectrum that the template leaves."""

    variance: float
    error: float
    left: float


def judge_resolving_power(file: SpectrumFile, instrument: Instrument, template: Template) -> float | None:
    """R of a file that is clearly sharper than the instrument, or None: it is then used as it is.

    `template` holds the model's own spectra of slowly rotating stars on the instrument's pixels. What the
    star's rotation adds counts as lower resolution, so that after convolution the star looks like a slow
    rotator; nothing is ever sharpened. Good to 15 % below R = 60,000, and less so above, where the star's own
    broadening is as wide as the profile. None where the noise does not allow as much. Raises `InputError`
    when no velocity can be measured.
    """
    velocity = (
        measure_velocity(file, instrument, template).velocity if file.velocity is None else file.velocity
    )
    wavelength = file.rest_wavelength(velocity)
    variances, weights = [], []
    for arm in instrument.arms:
        excess = _excess_variance(wavelength, file, arm, instrument, template)
        if excess is None:
            continue
        nominal = _sigma(float(np.median(arm.resolution(arm.wavelength))))
        variance = max(nominal**2 + excess.variance, _sigma(MAX_RESOLVING_POWER) ** 2)
        # Where the profile is far narrower than the instrument's it no longer matters how narrow it is.
        precise = excess.error < 2.0 * PRECISION * max(variance, (0.5 * nominal) ** 2)
        sharper = excess.variance < -SIGNIFICANT * excess.error and nominal**2 > SHARPER**2 * variance
        if precise and sharper:
            variances.append(variance)
            weights.append(excess.error**-2)
    if not variances:
        return None
    return float(_sigma(1.0) / np.sqrt(np.average(variances, weights=weights)))


def _sigma(resolving_power: float) -> float:
    """Standard deviation [km/s] of a Gaussian profile."""
    return SPEED_OF_LIGHT / (FWHM_PER_SIGMA * resolving_power)


def _excess_variance(
    wavelength, file: SpectrumFile, arm: Arm, instrument: Instrument, template: Template
) -> Excess | None:
    """Excess over the template that resembles the file most, or None without enough pixels."""
    low, high = max(arm.low + 1.0, wavelength[0]), min(arm.high - 1.0, wavelength[-1])
    inside = (wavelength > low - 1.0) & (wavelength < high + 1.0)
    if high - low < 50.0 or inside.sum() < 500:
        return None
    pixels, ivar = wavelength[inside], file.ivar[inside]
    edges = np.exp(np.arange(np.log(low), np.log(high), STEP / SPEED_OF_LIGHT))
    known = instrument.slices[arm.name]
    # The template goes through the file's own pixels, whose effect is then in both.
    models = np.stack([CubicSpline(template.wavelength[known], m)(pixels) for m in template.flux[:, known]])
    flux, new_ivar = rebin(pixels, file.flux[inside], ivar, edges)
    good = new_ivar > 0
    if good.mean() < 0.9:
        return None
    observed = _depth(flux, good)
    expected = [_depth(row, good) for row in rebin(pixels, models, np.ones_like(models), edges)[0]]
    # A gap is filled with the template, which has lines there too.
    pairs = [(np.fft.rfft(np.where(good, observed, model)), np.fft.rfft(model)) for model in expected]
    width = SPEED_OF_LIGHT * float(np.median(np.diff(pixels) / pixels[1:]))
    frequency = 2 * np.pi * np.fft.rfftfreq(len(observed), STEP)
    edges_k = np.arange(FREQUENCIES[0], min(FREQUENCIES[1], SAMPLED * np.pi / width), BIN)
    found = [excess for pair in pairs if (excess := _compare(*pair, frequency, edges_k))]
    return min(found, key=lambda excess: excess.left) if found else None


def _compare(observed, expected, frequency, edges) -> Excess | None:
    """Excess of one transform over another: least squares of all frequencies, weighted by the power that is
    left in each bin of them."""
    which = np.digitize(frequency, edges) - 1
    n_bins = len(edges) - 1
    power = np.array([np.mean(np.abs(expected[which == i]) ** 2) for i in range(n_bins)])
    n_bins = int(np.argmin(np.append(power > FAINTEST * np.max(np.abs(expected) ** 2), False)))
    if n_bins < FEWEST_BINS:
        return None
    used = (which >= 0) & (which < n_bins)
    k, o, t, which = frequency[used], observed[used], expected[used], which[used]

    def model(p):
        # p: strength of the lines, difference of variances, error of the velocity
        return p[0] * np.exp(-0.5 * p[1] * k**2 - 1j * k * p[2]) * t

    def misfit(p, sigma):
        difference = (o - model(p)) / sigma
        return np.concatenate([difference.real, difference.imag])

    p, sigma = np.array([np.abs(np.vdot(t, o)) / np.vdot(t, t).real, 0.0, 0.0]), np.abs(o).mean()
    for _ in range(ROUNDS):
        fit = least_squares(misfit, p, args=(sigma,), x_scale=[0.1, 5.0, 0.5])
        p, left = fit.x, np.abs(o - model(fit.x)) ** 2
        # Half of it in the real part, half in the imaginary one.
        level = np.bincount(which, left) / np.bincount(which) / 2.0
        sigma = np.sqrt(np.maximum(level, 1e-20 * np.abs(o).max() ** 2))[which]
    if not fit.success or p[0] <= 0.0:
        return None
    error = np.sqrt(np.linalg.pinv(fit.jac.T @ fit.jac)[1, 1])
    return Excess(float(p[1]), float(error), float(left.sum() / np.sum(np.abs(o) ** 2)))


def _depth(flux: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Depth of the lines, tapered at both ends."""
    n = len(flux)
    position = np.linspace(-1, 1, n)
    continuum = np.polynomial.chebyshev.chebfit(position[good], flux[good], 4)
    smooth = np.polynomial.chebyshev.chebval(position, continuum)
    taper = np.minimum(1.0, np.minimum(np.arange(n), np.arange(n)[::-1]) / (0.05 * n))
    return (flux / smooth - 1.0) * np.sin(0.5 * np.pi * taper) ** 2
