"""Resolving power of a spectrum whose file does not state it, judged from the width of its lines.

In velocity, a spectrum is the star's convolved with a profile; of two spectra with like lines, the logarithm
of the ratio of their power spectra is therefore linear in the squared frequency, with minus the difference of
the two profiles' variances as its slope and the difference of line strengths as a constant. The template
fixes one of them.
"""

import numpy as np
from scipy.interpolate import CubicSpline

from jaxspec.instruments import FWHM_PER_SIGMA, SPEED_OF_LIGHT, Arm, Instrument
from jaxspec.io.collection import Template, measure_velocity
from jaxspec.io.spectrum import SpectrumFile
from jaxspec.spectra import rebin

STEP = 2.0  # km/s
FREQUENCIES = (0.06, 0.45)  # rad per km/s: features between 100 and 14 km/s
SHARPER = 1.1  # below this factor in R the difference is within what rotation and turbulence do
MAX_RESOLVING_POWER = 120_000.0


def judge_resolving_power(file: SpectrumFile, instrument: Instrument, template: Template) -> float | None:
    """R of a file that is clearly sharper than the instrument, or None: it is then used as it is.

    `template` holds the model's own spectra of slowly rotating stars on the instrument's pixels. What the
    star's rotation adds counts as lower resolution, so that after convolution the star looks like a slow
    rotator; nothing is ever sharpened. Good to about 15 %. Raises `InputError` when no velocity can be
    measured.
    """
    velocity = (
        measure_velocity(file, instrument, template).velocity if file.velocity is None else file.velocity
    )
    wavelength = file.rest_wavelength(velocity)
    sharpest = None
    for arm in instrument.arms:
        excess = _excess_variance(wavelength, file, arm, instrument, template)
        if excess is None:
            continue
        nominal = SPEED_OF_LIGHT / (FWHM_PER_SIGMA * float(np.median(arm.resolution(arm.wavelength))))
        variance = max(nominal**2 + excess, (SPEED_OF_LIGHT / (FWHM_PER_SIGMA * MAX_RESOLVING_POWER)) ** 2)
        power = SPEED_OF_LIGHT / (FWHM_PER_SIGMA * np.sqrt(variance))
        if excess < 0 and nominal / np.sqrt(variance) > SHARPER and (sharpest is None or power > sharpest):
            sharpest = float(power)
    return sharpest


def _excess_variance(
    wavelength, file: SpectrumFile, arm: Arm, instrument: Instrument, template: Template
) -> float | None:
    """Variance [km^2/s^2] of the file's lines minus that of the best template's, or None without enough
    pixels."""
    low, high = max(arm.low + 1.0, wavelength[0]), min(arm.high - 1.0, wavelength[-1])
    inside = (wavelength > low - 1.0) & (wavelength < high + 1.0)
    if high - low < 50.0 or inside.sum() < 500:
        return None
    edges = np.exp(np.arange(np.log(low), np.log(high), STEP / SPEED_OF_LIGHT))
    flux, ivar = rebin(wavelength[inside], file.flux[inside], file.ivar[inside], edges)
    good = ivar > 0
    if good.mean() < 0.9:
        return None
    x = np.arange(len(flux))
    flux = np.interp(x, x[good], flux[good])
    frequency = 2 * np.pi * np.fft.rfftfreq(len(flux), STEP)
    observed = _power(flux)
    # Where no line reaches there is only noise.
    noise = np.median(observed[frequency > 1.2])
    known = instrument.slices[arm.name]
    centres = 0.5 * (edges[1:] + edges[:-1])
    fits = []
    for model in template.flux[:, known]:
        expected = _power(CubicSpline(template.wavelength[known], model)(centres))
        bins = np.arange(FREQUENCIES[0], FREQUENCIES[1], 0.03)
        which = np.digitize(frequency, bins) - 1
        rows = []
        for i in range(len(bins) - 1):
            seen, want = (np.mean(p[which == i]) for p in (observed - noise, expected))
            if seen < 3.0 * noise or want < 1e-5 * expected.max():
                break
            rows.append((0.5 * (bins[i] + bins[i + 1]), np.log(seen / want)))
        if len(rows) >= 5:
            k, ratio = np.array(rows).T
            slope, constant = np.polyfit(k**2, ratio, 1)
            fits.append((np.std(ratio - slope * k**2 - constant) / len(rows), -slope))
    return min(fits)[1] if fits else None


def _power(flux: np.ndarray) -> np.ndarray:
    """Power spectrum of the depth of the lines, tapered at both ends."""
    n = len(flux)
    position = np.linspace(-1, 1, n)
    smooth = np.polynomial.chebyshev.chebval(position, np.polynomial.chebyshev.chebfit(position, flux, 4))
    taper = np.minimum(1.0, np.minimum(np.arange(n), np.arange(n)[::-1]) / (0.05 * n))
    return np.abs(np.fft.rfft((flux / smooth - 1.0) * np.sin(0.5 * np.pi * taper) ** 2)) ** 2
