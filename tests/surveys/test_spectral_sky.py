"""Planted differences do to spectra what they say, and mean offsets are measured with honest errors."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.labels import NINE_LABELS
from jaxspec.physics.forward import Nuisances
from jaxspec.surveys.observations import Survey, diagonal
from jaxspec.surveys.simulate import ERROR, PIVOT, SPREAD, draw_stars
from jaxspec.surveys.spectral_sky import NAMES, Pool, SpectralConfig, cut_sky, measure_offset, plant
from tests.toy import ToyForwardModel

SUN = jnp.asarray([5772.0, 4.44] + [0.0] * 7, jnp.float32)
STILL = Nuisances(*(jnp.asarray(x, jnp.float32) for x in (1.0, 3.0, 2.0, 0.0, 1.0)))


def test_planted_differences_are_in_the_spectra():
    toy = ToyForwardModel()
    same = SpectralConfig(slope=0.0, ripple=0.0, resolution=1.0, line_error=0.0)
    flux = np.asarray(toy(SUN, STILL))
    np.testing.assert_allclose(plant(toy, same, 1)(SUN, STILL), flux, rtol=1e-6)

    tilted = SpectralConfig(slope=0.02, ripple=0.0, resolution=1.0, line_error=0.0)
    for where in toy.instrument.slices.values():
        ratio = (np.asarray(plant(toy, tilted, 1)(SUN, STILL)) / flux)[where]
        np.testing.assert_allclose(ratio, np.linspace(0.99, 1.01, len(ratio)), rtol=1e-5)

    lines = plant(toy, SpectralConfig(slope=0.0, ripple=0.0, resolution=1.0), 1)
    strength = np.asarray(lines.strength)
    assert abs(np.log(strength).std() - 0.15 * np.sqrt(2 / 3)) < 0.03  # straight lines between knots
    there = flux < 0.99
    depth = np.log(np.asarray(lines(SUN, STILL))[there]) / np.log(flux[there])
    np.testing.assert_allclose(depth, strength[there], rtol=1e-3)

    blurred = SpectralConfig(slope=0.0, ripple=0.0, line_error=0.0)
    expected = toy(SUN, STILL._replace(resolution=jnp.asarray(0.93, jnp.float32)))
    np.testing.assert_allclose(plant(toy, blurred, 1)(SUN, STILL), expected, rtol=1e-6)


def observed(rng, n: int, coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray, Survey]:
    """Stars, functions of them, and a survey with that offset, one row in a hundred nonsense."""
    labels = draw_stars(rng, n)
    x = np.column_stack([np.ones(n), (labels[:, :3] - PIVOT) / SPREAD])
    error = np.tile(ERROR, (n, 1)) * np.exp(rng.normal(0.0, 0.3, (n, 1)))
    values = labels + x @ coefficients.T + error * rng.normal(size=error.shape)
    values[::100] += 50 * ERROR
    return x, labels, Survey("a", np.arange(n), values, diagonal(error), np.zeros(n, bool))


def test_offsets_are_measured_within_their_errors(rng):
    coefficients = ERROR[:, None] * rng.normal(size=(9, 4))
    z = []
    for _ in range(20):
        found = measure_offset(*observed(rng, 400, coefficients))
        sd = np.sqrt(np.diagonal(found.covariance, axis1=1, axis2=2))
        z.append((found.coefficients - coefficients) / sd)
        assert 4 <= found.outliers <= 10
        np.testing.assert_allclose(found.scatter / ERROR, 1.05, atol=0.25)
    z = np.array(z)  # 720 numbers, nearly independent
    assert 0.92 < np.sqrt(np.mean(z**2)) < 1.12
    mean, error = found.at(np.array([[1.0, 0.0, 0.0, 0.0]]))
    np.testing.assert_allclose(mean[0], found.coefficients[:, 0])
    np.testing.assert_allclose(error[0], np.sqrt(found.covariance[:, 0, 0]))


def test_every_sky_has_the_stars_it_says(rng):
    _, labels, survey = observed(rng, 300, np.zeros((9, 4)))
    pool = Pool(labels, tuple(replace(survey, name=name) for name in NAMES))
    rows = np.arange(100, 300)
    sky = cut_sky(pool, rows, NINE_LABELS, SpectralConfig(), seed=3)
    assert sky.names == (*NAMES, "anchor")
    a, b, gold = (s.star for s in sky.surveys)
    assert len(gold) == 30 and len(np.intersect1d(a, b)) == 70 + 12
    assert len(np.union1d(a, b)) == sky.n_stars == 200
    np.testing.assert_array_equal(sky.surveys[0].values, survey.values[rows[a]])
    assert np.all(np.abs(sky.surveys[2].values - labels[rows[gold]]) < 5 * 0.3 * ERROR)


def test_skies_without_anchors_are_refused():
    with pytest.raises(InputError, match="anchors"):
        SpectralConfig(anchors=0.0)
