"""Each fault does to a spectrum what it says."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.instruments import SPEED_OF_LIGHT, Arm, Instrument
from jaxspec.simulation.faults import FAULTS, Stars, hot_star, shift, simulate_fault, smooth
from jaxspec.simulation.nuisances import PURE
from jaxspec.simulation.prior import StellarPrior
from jaxspec.simulation.simulator import Simulator
from tests.toy import ToyForwardModel

N = 6
WINDOWS = Instrument(
    "windows", (Arm("blue", 5440.0, 5510.0, 0.1, 20_000.0), Arm("red", 8490.0, 8560.0, 0.1, 18_000.0))
)


@pytest.fixture(scope="module")
def spectra():
    """Spectra with each fault, and the same stars with the same noise without."""
    config = dataclasses.replace(PURE, cosmics=0.0, gap_probability=0.0, truncation_probability=0.0)
    simulator = Simulator(ToyForwardModel(WINDOWS), config=config)
    key = jax.random.key(0)
    return {
        fault: [np.asarray(x) for x in simulate_fault(fault, key, simulator, N)] for fault in (None, *FAULTS)
    }


def test_there_are_ten_and_all_differ(spectra):
    plain = spectra[None][0]
    assert len(FAULTS) == 10 and plain.shape == (N, WINDOWS.n_pixels)
    for fault in FAULTS:
        flux, ivar = spectra[fault]
        assert np.isfinite(flux).all() and (ivar > 0).mean() > 0.9
        assert np.abs(flux - plain).max(axis=1).min() > 0.1, fault


def test_signal_to_noise_is_as_asked(spectra):
    _, ivar = spectra[None]
    assert 35.0 < np.median(np.sqrt(ivar[ivar > 0])) < 70.0


def test_emission_is_at_the_calcium_lines(spectra):
    change = spectra["emission in the Ca triplet"][0] - spectra[None][0]
    near = np.abs(WINDOWS.wavelength[:, None] - [8498.02, 8542.09]).min(axis=1) < 0.3
    assert np.median(change[:, near], axis=1).min() > 0.15
    assert np.abs(np.median(change[:, WINDOWS.slices["blue"]])) < 0.02


def test_cosmic_rays_hit_one_per_cent(spectra):
    flux, ivar = spectra["cosmic rays"]
    hit = (flux - spectra[None][0]) * np.sqrt(ivar) > 4.5
    assert 0.006 < hit.mean() < 0.014


def test_lamp_has_no_lines(spectra):
    flux, ivar = spectra["flat lamp"]
    # Continuum and noise alone: the residuals of a smooth curve are noise.
    for where in WINDOWS.slices.values():
        for row, weight in zip(flux[:, where], ivar[:, where], strict=True):
            x = np.linspace(-1, 1, row.size)
            residual = row - np.polynomial.chebyshev.chebval(x, np.polynomial.chebyshev.chebfit(x, row, 6))
            z = residual[weight > 0] * np.sqrt(weight[weight > 0])
            assert 0.5 < np.mean(z**2) < 1.8


def test_noise_has_no_star(spectra):
    flux, _ = spectra["noise only"]
    assert np.abs(np.corrcoef(flux[0], spectra[None][0][0])[0, 1]) < 0.1 and 0.2 < flux.std() < 0.4


def test_hot_stars_have_paschen_lines():
    """On a star without other lines: 8502.5 and 8545.4 A are deep, half way between them is not."""
    one = np.ones((N, WINDOWS.n_pixels))
    flux = hot_star(Stars(np.random.default_rng(0), WINDOWS, one, lambda low, high: one))
    at = [flux[:, np.argmin(np.abs(WINDOWS.wavelength - w))] for w in (8502.48, 8545.38, 8524.0)]
    assert np.all(at[0] < 0.9) and np.all(at[1] < at[0]) and np.all(at[2] > at[0] + 0.08)


def test_bands_have_heads(spectra):
    """TiO takes light to the red of 5448 A, C2 to the blue of 5502 A."""
    w = WINDOWS.wavelength
    for fault, red, blue in (
        ("M star", (5448.4, 5452.0), (5444.0, 5448.0)),
        ("carbon star", (5502.2, 5506.0), (5498.0, 5501.7)),
    ):
        flux = spectra[fault][0]
        inside, outside = (red, blue) if fault == "M star" else (blue, red)
        low, high = (np.quantile(flux[:, (w > a) & (w < b)], 0.8, axis=1) for a, b in (inside, outside))
        assert np.median(low / high) < 0.9, fault


def test_shift_and_smooth():
    w = WINDOWS.wavelength
    line = 1.0 - 0.5 * np.exp(-0.5 * ((w - 8525.0) / 0.5) ** 2)
    moved = shift(WINDOWS, line[None], np.array([100.0]))[0]
    assert abs(w[np.argmin(moved)] - 8525.0 * (1.0 + 100.0 / SPEED_OF_LIGHT)) < 0.1
    blurred = smooth(WINDOWS, line[None], np.array([30.0]))[0]
    width = np.hypot(0.5, 8525.0 * 30.0 / SPEED_OF_LIGHT)
    np.testing.assert_allclose(1.0 - blurred.min(), 0.5 * 0.5 / width, rtol=0.02)
    np.testing.assert_allclose((1.0 - blurred).sum(), (1.0 - line).sum(), rtol=1e-3)


def test_unknown_fault_is_named():
    with pytest.raises(InputError, match="flat lamp"):
        simulate_fault("flare", jax.random.key(0), Simulator(ToyForwardModel(WINDOWS)), 2)


def test_a_prior_without_cool_stars_is_named():
    prior = StellarPrior(polygon=((5000.0, 3.5), (6000.0, 3.5), (6000.0, 4.8), (5000.0, 4.8)))
    with pytest.raises(InputError, match="0 stars of the prior between 0 and 4200 K"):
        simulate_fault("M star", jax.random.key(0), Simulator(ToyForwardModel(WINDOWS), prior), 2)
