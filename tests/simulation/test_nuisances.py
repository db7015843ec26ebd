"""Draws of broadening and velocity have the distributions that the configuration states."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxspec.errors import InputError
from jaxspec.simulation.nuisances import PURE, ROBUST, NuisanceConfig, draw_nuisances

N = 20_000
# Kolmogorov-Smirnov statistic that N draws of the right distribution exceed once in ten thousand times.
KS = stats.kstwo.isf(1e-4, N)
LABELS = jnp.asarray(
    np.random.default_rng(0).uniform([4000.0, 0.5, -2.5], [7000.0, 5.0, 0.5], (N, 3)), jnp.float32
)


def vmic(teff, logg, fe_h):
    """Always far from the configured limits, and another number for every order of the labels."""
    return 1.0 + 0.1 * (teff / 1000.0) + 0.01 * logg - 0.03 * fe_h


def vmac(teff, logg, fe_h):
    return 6.0 - 0.2 * logg + 0.0 * teff + 0.1 * fe_h


def draw(config, labels=LABELS, key=0):
    drawn = draw_nuisances(jax.random.key(key), tuple(labels.T), config, vmic, vmac)
    return type(drawn)(*(np.asarray(x, float) for x in drawn))


@pytest.fixture(scope="module", params=[PURE, ROBUST], ids=["pure", "robust"])
def drawn(request):
    return request.param, draw(request.param)


def below(values, cdf):
    """Largest distance between the distribution of draws and the stated one."""
    return stats.ks_1samp(values, cdf).statistic


def test_turbulence_scatters_about_its_calibration(drawn):
    config, found = drawn
    teff, logg, fe_h = np.asarray(LABELS, float).T
    for values, expected, scatter in (
        (found.vmic, vmic(teff, logg, fe_h), config.vmic_scatter),
        (found.vmac, vmac(teff, logg, fe_h), config.vmac_scatter),
    ):
        assert below((values - expected) / scatter, stats.norm.cdf) < KS


def test_rotation_is_exponential_with_a_uniform_tail(drawn):
    config, found = drawn

    def cdf(v):
        slow = stats.expon(scale=config.vsini_scale).cdf(v)
        fast = stats.uniform(0.0, config.vsini_max).cdf(v)
        return (1.0 - config.vsini_fast) * slow + config.vsini_fast * fast

    assert below(found.vsini, cdf) < KS
    assert found.vsini.min() >= 0.0 and found.vsini.max() <= config.vsini_max
    # Eight scales out nearly all are of the tail, up to the very limit.
    tail = found.vsini[found.vsini > 8.0 * config.vsini_scale]
    beyond = stats.uniform(8.0 * config.vsini_scale, config.vsini_max - 8.0 * config.vsini_scale)
    assert stats.ks_1samp(tail, beyond.cdf).pvalue > 1e-4


def test_velocities_are_of_two_gaussians(drawn):
    config, found = drawn

    def cdf(v):
        usual, wide = (stats.norm.cdf(v / s) for s in (config.velocity_error, config.velocity_tail_error))
        return (1.0 - config.velocity_tail) * usual + config.velocity_tail * wide

    assert below(found.velocity, cdf) < KS


def test_resolving_power_scatters_about_its_mean(drawn):
    config, found = drawn
    z = (found.resolution - config.resolution_mean) / config.resolution_scatter
    assert below(z, stats.norm.cdf) < KS


def test_no_two_of_them_go_together(drawn):
    """Residuals about the calibrations, by rank; 4.5 standard deviations of ten correlations."""
    found = drawn[1]
    teff, logg, fe_h = np.asarray(LABELS, float).T
    rows = (found.vmic - vmic(teff, logg, fe_h), found.vmac - vmac(teff, logg, fe_h), *found[2:])
    correlation = stats.spearmanr(np.stack(rows, axis=1)).statistic
    assert np.abs(correlation[np.triu_indices(5, 1)]).max() < 4.5 / np.sqrt(N)


def test_limits_hold_the_mass_beyond_them():
    config = dataclasses.replace(
        PURE, vmic_scatter=1.0, vmic_range=(1.0, 2.0), vmac_range=(5.0, 5.5), resolution_scatter=0.3
    )
    labels = jnp.tile(jnp.asarray([5000.0, 0.0, 0.0]), (N, 1))  # vmic 1.5, vmac 6
    found = draw(config, labels)
    for values, low, high, mean, scatter in (
        (found.vmic, 1.0, 2.0, 1.5, 1.0),
        (found.vmac, 5.0, 5.5, 6.0, 1.0),
        (found.resolution, 0.7, 1.3, 1.0, 0.3),
    ):
        low, high = np.float32(low), np.float32(high)
        assert values.min() == low and values.max() == high
        for share, expected in (
            (np.mean(values == low), stats.norm(mean, scatter).cdf(low)),
            (np.mean(values == high), stats.norm(mean, scatter).sf(high)),
        ):
            assert abs(share - expected) < 4.5 * np.sqrt(expected * (1.0 - expected) / N)


def test_the_key_decides():
    labels = LABELS[:7]
    first, again, other = draw(PURE, labels), draw(PURE, labels), draw(PURE, labels, key=1)
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert (a != c).all()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"vmic_scatter": -0.1}, "vmic_scatter"),
        ({"vmac_range": (-1.0, 12.0)}, "vmac_range"),
        ({"snr_range": (0.0, 100.0)}, "snr_range"),
        ({"snr_range": (100.0, 10.0)}, "snr_range"),
        ({"only_arm": (0.6, 0.6)}, "only_arm"),
        ({"only_arm": (-0.1, 0.2)}, "only_arm"),
    ],
)
def test_impossible_settings_are_refused_by_name(change, field):
    with pytest.raises(InputError, match=rf"nuisances\.{field}"):
        NuisanceConfig(**change)


def test_whole_numbers_of_a_configuration_file_are_those_numbers():
    config = NuisanceConfig(only_arm=(0, 0), snr_range=(10, 100), vmic_range=(1, 2))
    assert config == NuisanceConfig(only_arm=(0.0, 0.0), snr_range=(10.0, 100.0), vmic_range=(1.0, 2.0))
    assert all(type(v) is float for v in (*config.snr_range, *config.only_arm, *config.vmic_range))
