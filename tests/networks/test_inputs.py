"""The inputs of the encoder: masks are obeyed, averages are the optimal ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.networks.inputs import fold_sum, input_statistics, pixel_features, segment_means


def test_bins_are_averaged_with_inverse_variance(rng):
    flux, ivar = (
        rng.normal(1.0, 0.1, (3, 12)).astype(np.float32),
        rng.uniform(1, 9, (3, 12)).astype(np.float32),
    )
    mean, scale = np.full(12, 0.9, np.float32), np.full(12, 0.2, np.float32)
    x = pixel_features(*map(jnp.array, (flux, ivar, mean, scale)), bin_pixels=3)
    expected = np.average(((flux - mean) / scale).reshape(3, 4, 3), axis=2, weights=ivar.reshape(3, 4, 3))
    np.testing.assert_allclose(x.residual, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.expm1(x.log_snr) ** 2, ivar.reshape(3, 4, 3).sum(2), rtol=1e-4)


def test_masked_pixels_are_never_read(rng):
    """NaN, infinite or merely different flux under ivar = 0 changes neither the features nor their
    gradients."""
    flux, ivar = rng.normal(1.0, 0.1, (2, 20)).astype(np.float32), np.full((2, 20), 4.0, np.float32)
    ivar[:, 3:9] = 0.0
    mean, scale = jnp.ones(20), jnp.full(20, 0.1)

    def total(flux, ivar):
        return sum(jnp.sum(jnp.sin(f)) for f in pixel_features(flux, ivar, mean, scale, bin_pixels=4))

    reference = jax.value_and_grad(total, (0, 1))(jnp.array(flux), jnp.array(ivar))
    for bad in (np.nan, np.inf, -1e30):
        spoilt = np.where(ivar > 0, flux, bad)
        value, gradients = jax.value_and_grad(total, (0, 1))(jnp.array(spoilt), jnp.array(ivar))
        assert value == reference[0]
        for found, expected in zip(gradients, reference[1], strict=True):
            np.testing.assert_array_equal(found, expected)
            assert np.isfinite(found).all()


def test_a_star_without_pixels_is_all_zeros():
    x = pixel_features(jnp.full((1, 8), jnp.nan), jnp.zeros((1, 8)), jnp.ones(8), jnp.ones(8), bin_pixels=2)
    for feature in x:
        np.testing.assert_array_equal(feature, np.zeros((1, 4)))


def test_padding_is_like_masked_pixels(rng):
    flux, ivar = rng.normal(1, 0.1, (2, 10)).astype(np.float32), np.full((2, 10), 5.0, np.float32)
    short = pixel_features(jnp.array(flux), jnp.array(ivar), jnp.ones(10), jnp.ones(10), bin_pixels=4)
    padded = [np.pad(a, ((0, 0), (0, 2))) for a in (flux, ivar)]
    long = pixel_features(*map(jnp.array, padded), jnp.ones(12), jnp.ones(12), bin_pixels=4)
    for a, b in zip(short, long, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_folds_and_segments(rng):
    x = rng.normal(size=(2, 24)).astype(np.float32)
    np.testing.assert_allclose(fold_sum(jnp.array(x), 4), x.reshape(2, 6, 4).sum(2), rtol=1e-5, atol=1e-6)
    uneven = np.stack([x[:, :5].mean(1), x[:, 5:10].mean(1), x[:, 10:13].mean(1)], 1)
    np.testing.assert_allclose(segment_means(jnp.array(x[:, :13]), 3), uneven, rtol=1e-5, atol=1e-6)


def test_statistics_ignore_masked_pixels(rng):
    flux = rng.normal(0.8, 0.05, (4000, 6)).astype(np.float32)
    ivar = (rng.uniform(size=flux.shape) < 0.7).astype(np.float32)
    ivar[:, 5] = 0.0
    flux[ivar == 0] = np.nan
    mean, scale = input_statistics(jnp.array(flux), jnp.array(ivar))
    np.testing.assert_allclose(mean[:5], 0.8, atol=0.005)
    np.testing.assert_allclose(scale[:5], 0.05, rtol=0.1)
    assert mean[5] == 1.0 and scale[5] == np.float32(0.01)
    with pytest.raises(InputError, match="input_statistics"):
        input_statistics(jnp.ones((2, 3)), jnp.ones((2, 4)))
