"""Looks at a spectrum as an astronomer takes them at a glance: velocities in the cross-correlation, ripples,
emission, and the windows that a model misses most, with the lines that sit there. Nothing here is fitted."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.ndimage import uniform_filter1d
from scipy.signal import fftconvolve

from jaxspec.agent.evidence import Data
from jaxspec.agent.hypotheses import FRINGE_PERIODS, TRIPLET_REACH, etalon
from jaxspec.catalogues.solar import GREVESSE2007
from jaxspec.errors import InputError
from jaxspec.instruments import SPEED_OF_LIGHT
from jaxspec.physics.lines import LineList
from jaxspec.simulation.faults import CALCIUM_TRIPLET, PASCHEN
from jaxspec.velocity import radial_velocity

SYMBOLS = (
    "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr "
    "Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta "
    "W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U"
).split()
SHOWN_VELOCITY = 400.0
NEAR = 0.25  # A, from a window's ends, within which a line is named
TEMPERATURE = 5040.0  # K, at which lines are ranked: theta = 1


class Peaks(NamedTuple):
    """Of the cross-correlation: the best pair of velocities [km/s], the share of the scatter that it explains
    beyond one velocity, and the secondary's weight over the primary's."""

    first: float
    second: float
    gain: float
    ratio: float


def velocity(
    data: Data, templates: Float[np.ndarray, "t p"], max_velocity: float = SHOWN_VELOCITY
) -> tuple[float, float, int] | None:
    """Radial velocity and its error [km/s] against the template that gives the smallest error, and its place;
    None where none can be measured."""
    wavelength = data.instrument.wavelength
    ivar = np.where(data.good, data.sigma**-2.0, 0.0)
    best: tuple[float, float, int] | None = None
    for i, template in enumerate(templates):
        try:
            found = radial_velocity(
                wavelength, data.flux, ivar, wavelength, template, max_velocity=max_velocity
            )
        except InputError:
            continue
        if best is None or found.error < best[1]:
            best = (found.velocity, found.error, i)
    return best


def two_velocities(
    data: Data, template: Float[np.ndarray, " p"], reach: float = 250.0, apart: float = 20.0
) -> Peaks:
    """The two velocities that explain a spectrum best as two copies of a template (the two-dimensional
    cross-correlation of Zucker & Mazeh 1994, ApJ 420, 806, with one template for both stars)."""
    numerator, data_square, template_square = 0.0, 0.0, 0.0
    auto: Any = 0.0
    step = 2.0
    n = int(reach / step)
    for where in data.instrument.slices.values():
        good = data.good[where]
        if good.sum() < 100:
            continue
        x = np.log(data.instrument.wavelength[where]) * SPEED_OF_LIGHT
        grid = np.arange(x[0], x[-1], step)
        weight = np.interp(grid, x, good.astype(float)) > 0.99
        d, t = (
            np.interp(grid, x, 1.0 - values[where]) for values in (_filled(data.flux, data.good), template)
        )
        d, t = (_filtered(np.where(weight, v, 0.0)) for v in (d, t))
        noise = float(np.mean(data.sigma[where][good] ** 2))
        middle = len(grid) - 1
        numerator = numerator + fftconvolve(d, t[::-1])[middle - n : middle + n + 1] / noise
        auto = auto + fftconvolve(t, t[::-1])[middle - 2 * n : middle + 2 * n + 1] / noise
        data_square += float(d @ d) / noise
        template_square += float(t @ t) / noise
    if template_square == 0.0:
        return Peaks(0.0, 0.0, 0.0, 0.0)
    single = numerator / np.sqrt(data_square * template_square)
    alike = auto / template_square
    velocities = step * np.arange(-n, n + 1)
    i, j = np.triu_indices(len(velocities), int(apart / step))
    a = np.clip(alike[2 * n + (j - i)], -0.98, 0.98)
    c1, c2 = single[i], single[j]
    weight1, weight2 = c1 - a * c2, c2 - a * c1
    both = (c1**2 - 2.0 * c1 * c2 * a + c2**2) / (1.0 - a**2)
    both = np.where((weight1 > 0.0) & (weight2 > 0.0), both, 0.0)
    best = int(np.argmax(both))
    one = float(np.max(np.maximum(single, 0.0)) ** 2)
    first, second = velocities[i[best]], velocities[j[best]]
    w1, w2 = weight1[best], weight2[best]
    if w2 > w1:
        first, second, w1, w2 = second, first, w2, w1
    gain = (float(both[best]) - one) / max(1.0 - one, 1e-6)
    return Peaks(float(first), float(second), max(gain, 0.0), float(w2 / max(w1, 1e-9)))


def _filtered(values):
    wide = 400
    return values - uniform_filter1d(values, wide, mode="nearest")


def _filled(values, good):
    return np.where(good, values, 1.0)


class Ripple(NamedTuple):
    """The strongest periodic residual of an arm: period [A], amplitude [of the continuum], power over what
    noise gives on average."""

    arm: str
    period: float
    amplitude: float
    power: float


def ripples(
    data: Data, model: Float[np.ndarray, " p"], periods: tuple[float, float] = FRINGE_PERIODS
) -> list[Ripple]:
    """Of each arm with pixels, by the periodogram of flux / model in the coordinate of an etalon."""
    out = []
    for name, where in data.instrument.slices.items():
        good = data.good[where]
        if good.sum() < 100:
            continue
        x = etalon(data.instrument.wavelength[where])
        scale = np.maximum(model[where], 0.1)
        limit = 5.0 * data.sigma[where] / scale
        ratio = np.where(good, np.clip((data.flux[where] - model[where]) / scale, -limit, limit), 0.0)
        weight = np.where(good, (scale / data.sigma[where]) ** 2, 0.0)
        step = (x[-1] - x[0]) / (len(x) - 1)
        grid = np.arange(x[0], x[-1], step)
        y = np.interp(grid, x, weight * ratio)
        n = 8 * len(grid)
        frequency = np.fft.rfftfreq(n, step)
        transform = np.fft.rfft(y, n)
        use = (frequency > 1.0 / periods[1]) & (frequency < 1.0 / periods[0])
        total = float(weight.sum())
        # Of noise the real and imaginary parts have variance total / 2.
        power = np.abs(transform[use]) ** 2 / max(total, 1e-12)
        best = int(np.argmax(power))
        amplitude = 2.0 * np.sqrt(power[best] / max(total, 1e-12))
        out.append(Ripple(name, float(1.0 / frequency[use][best]), float(amplitude), float(power[best])))
    return out


def line_emission(data: Data, model: Float[np.ndarray, " p"]) -> float:
    """Mean residual in the cores of the Ca II triplet, in standard errors; 0 where they were not observed."""
    wavelength = data.instrument.wavelength
    near = np.zeros(wavelength.size, bool)
    for centre in CALCIUM_TRIPLET:
        near |= np.abs(wavelength - centre) < 0.5 * TRIPLET_REACH
    return _mean_in_errors(data, model, near)


def paschen_absorption(data: Data, model: Float[np.ndarray, " p"]) -> float:
    """Mean deficit of light about the Paschen lines relative to between them, in standard errors."""
    wavelength = data.instrument.wavelength
    near, far = np.zeros(wavelength.size, bool), np.zeros(wavelength.size, bool)
    for centre in PASCHEN:
        distance = np.abs(wavelength - centre)
        near |= distance < 6.0
        far |= (distance > 14.0) & (distance < 25.0)
    return -_mean_in_errors(data, model, near) + _mean_in_errors(data, model, far & ~near)


def _mean_in_errors(data, model, where):
    use = where & data.good
    if use.sum() < 10:
        return 0.0
    weight = data.weight[use] / data.sigma[use] ** 2
    return float(np.sum(weight * (data.flux - model)[use]) / np.sqrt(np.sum(weight)))


def structure(data: Data, model: Float[np.ndarray, " p"]) -> dict[str, float]:
    """Correlation of residuals half a resolution element apart, by arm, beyond what the stated errors of the
    model make of it, in standard errors: near 0 where only noise is left."""
    out = {}
    for arm, where in zip(data.instrument.arms, data.instrument.slices.values(), strict=True):
        good = data.good[where]
        middle = 0.5 * (arm.low + arm.high)
        lag = max(round(0.5 * middle / float(arm.resolution(middle)) / arm.step), 1)
        z = np.where(good, np.clip((data.flux - model)[where] / data.sigma[where], -4.0, 4.0), 0.0)
        pairs = good[lag:] & good[:-lag]
        # Pixels count as fewer than one where the model's error, which neighbours share, dominates.
        count = np.where(good, 1.0 / np.where(good, data.weight[where], 1.0), 1.0)
        pixels = max(data.errors.length / arm.step, 1.0)
        share = (count - 1.0) / max(pixels - 1.0, 1.0)
        excess = np.sum((z[lag:] * z[:-lag] - np.sqrt(share[lag:] * share[:-lag])) * pairs)
        spread = np.sqrt(max(float(np.sum(count[lag:] * pairs)), 1.0))
        out[arm.name] = float(excess / spread) if pairs.any() else 0.0
    return out


def worst_windows(
    data: Data, model: Float[np.ndarray, " p"], n: int = 5, width: float = 2.0
) -> list[dict[str, Any]]:
    """The windows [A] that the model misses most: mean squared residual in errors, mean residual, and the
    strongest lines there."""
    rows = []
    for arm, where in zip(data.instrument.arms, data.instrument.slices.values(), strict=True):
        size = max(round(width / arm.step), 1)
        good = data.good[where]
        residual = np.where(good, (data.flux - model)[where], 0.0)
        z2 = np.minimum((residual / data.sigma[where]) ** 2, 25.0)
        wavelength = data.instrument.wavelength[where]
        for start in range(0, len(good) - size + 1, size):
            part = slice(start, start + size)
            if good[part].sum() >= size // 2:
                chi2 = float(z2[part].sum() / good[part].sum())
                low, high = wavelength[part][0], wavelength[part][-1]
                mean = float(residual[part].sum() / good[part].sum())
                rows.append((chi2, float(low), float(high), mean, arm.name))
    rows.sort(reverse=True)
    return [
        {
            "arm": arm,
            "low": round(low, 2),
            "high": round(high, 2),
            "chi2": round(chi2, 2),
            "mean_residual": round(mean, 4),
            "lines": lines_near(low, high),
        }
        for chi2, low, high, mean, arm in rows[:n]
    ]


def lines_near(low: float, high: float, n: int = 3) -> list[str]:
    """The strongest lines of a solar-like star between two wavelengths [A], such as "Fe I 5365.40"."""
    wavelength, strength, names = _ranked()
    inside = np.flatnonzero((wavelength >= low - NEAR) & (wavelength <= high + NEAR))
    best = inside[np.argsort(-strength[inside])][:n]
    return [f"{names[i]} {wavelength[i]:.2f}" for i in best if strength[i] > -3.0]


@lru_cache(maxsize=1)
def _ranked():
    lines = LineList.load()
    abundance = np.array([GREVESSE2007.get(f"{SYMBOLS[int(z)].lower()}_h", 3.0) for z in lines.element])
    strength = np.asarray(lines.log_gf) - np.asarray(lines.energy) * 5040.0 / TEMPERATURE + abundance - 4.5
    # A neutral metal is mostly ionised in the Sun.
    strength = strength - np.where(np.asarray(lines.stage) == 0, 1.0, 0.0)
    names = [
        f"{SYMBOLS[int(z)]} {'I' * (int(s) + 1)}" for z, s in zip(lines.element, lines.stage, strict=True)
    ]
    return np.asarray(lines.wavelength, float), strength, names
