"""The resolving power judged from the lines is that with which they were made."""

import numpy as np
import pytest

from jaxspec.instruments import SPEED_OF_LIGHT, Arm, Instrument
from jaxspec.io import Assume, Template, read_spectrum
from jaxspec.io.sharpness import judge_resolving_power

INSTRUMENT = Instrument("one_arm", (Arm("blue", 5330.0, 5610.0, 0.05, 21_500.0),))
RNG = np.random.default_rng(4)
CENTRES, DEPTHS = RNG.uniform(5320, 5620, 350), RNG.uniform(0.05, 0.6, 350)


def lines(wavelength, resolving_power, rotation=4.0, strength=1.0):
    """Gaussian lines of a star whose own broadening is `rotation` km/s, seen at a resolving power."""
    width = np.hypot(SPEED_OF_LIGHT / 2.3548 / resolving_power, rotation)
    depth = strength * DEPTHS * 7.0 / width
    flux = np.ones_like(wavelength)
    for centre, d in zip(CENTRES, depth, strict=True):
        flux -= d * np.exp(-0.5 * ((wavelength / centre - 1) * SPEED_OF_LIGHT / width) ** 2)
    return flux


TEMPLATE = Template(INSTRUMENT.wavelength, lines(INSTRUMENT.wavelength, 21_500.0)[None])


def judged(tmp_path, resolving_power, *, snr=200.0, velocity=0.0, step=0.02, smooth=1, **star):
    wavelength = np.arange(5325.0, 5615.0, step)
    flux = lines(wavelength, resolving_power, **star)
    noise = np.random.default_rng(5).normal(0, 1 / snr, flux.size)
    flux += np.convolve(noise, np.ones(smooth) / smooth**0.5, "same")
    path = tmp_path / "star.txt"
    np.savetxt(
        path,
        np.column_stack([wavelength * (1 + velocity / SPEED_OF_LIGHT), flux, np.full(flux.size, 1 / snr)]),
    )
    file = read_spectrum(path, assume=Assume(medium="air", frame="unknown"))
    return judge_resolving_power(file, INSTRUMENT, TEMPLATE)


@pytest.mark.parametrize("resolving_power", [30_000.0, 47_000.0, 80_000.0])
@pytest.mark.parametrize("step", [0.02, 0.05])
def test_sharper_spectra_are_recognised(tmp_path, resolving_power, step):
    found = judged(tmp_path, resolving_power, velocity=-37.0, step=step)
    assert found == pytest.approx(resolving_power, rel=0.1 if resolving_power < 50_000 else 0.25)


@pytest.mark.parametrize("snr", [15.0, 40.0, 1000.0])
@pytest.mark.parametrize(("step", "smooth"), [(0.01, 1), (0.05, 1), (0.1, 1), (0.02, 3)])
def test_noise_moves_nothing_at_any_sampling(tmp_path, snr, step, smooth):
    """White noise in the pixels that the survey has, wider ones, and noise that resampling has smoothed."""
    assert judged(tmp_path, 21_500.0, snr=snr, step=step, smooth=smooth) is None
    assert judged(tmp_path, 40_000.0, snr=snr, step=step, smooth=smooth) == pytest.approx(40_000, rel=0.15)


def test_what_the_noise_hides_is_not_judged(tmp_path):
    """Weak lines: the noise alone would allow a third more or less."""
    for seen in (judged(tmp_path, r, snr=15.0, strength=0.03, step=0.05) for r in (21_500.0, 40_000.0)):
        assert seen is None


def test_strength_of_the_lines_does_not_matter(tmp_path):
    assert judged(tmp_path, 47_000.0, strength=0.4) == pytest.approx(47_000.0, rel=0.15)


@pytest.mark.parametrize("star", [{}, {"rotation": 9.0}])
def test_nominal_and_rotating_stars_are_left_as_they_are(tmp_path, star):
    assert judged(tmp_path, 21_500.0, **star) is None


def test_less_sharp_spectra_are_left_as_they_are(tmp_path):
    assert judged(tmp_path, 12_000.0) is None


def test_noise_does_not_look_sharp(tmp_path):
    assert judged(tmp_path, 21_500.0, snr=15.0) is None
