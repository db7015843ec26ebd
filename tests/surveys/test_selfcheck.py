"""Skies simulated for the self-check come from the model that is fitted to them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxspec.errors import InputError
from jaxspec.surveys.density import Layout
from jaxspec.surveys.model import SurveyConfig, prepare, whole
from jaxspec.surveys.observations import make_sky
from jaxspec.surveys.selfcheck import prior_draw, simulate_blocks, variational_sbc
from jaxspec.surveys.tied import arrange
from tests.surveys.skies import LABELS, survey

N = 1500


@pytest.fixture(scope="module")
def layout():
    """Stars that a survey and an anchor share."""
    sky = make_sky(LABELS, [survey("a", range(N)), survey("anchor", range(N), anchor=True)])
    structure, index = prepare(sky, SurveyConfig(components=1))
    blocks, n_field = arrange(sky, structure.scales, structure.basis, index, np.arange(len(index)))
    return Layout(structure), whole(blocks, n_field)


def flat_with(layout, **values):
    flat = layout.start.copy()
    for site in layout.sites:
        if site.name in values:
            flat[site.start : site.start + int(np.prod(site.shape))] = np.ravel(values[site.name])
    return flat


def simulated(layout, batch, flat, seed=0):
    """Values `[n, 2, l]` as the two surveys report them."""
    (block,) = simulate_blocks(layout, batch, flat, np.random.default_rng(seed))
    return np.asarray(block.values, float)


def test_values_have_the_moments_of_the_terms(layout):
    """Differences to the anchor: offset, scatter and both noises; the anchor's values: the population."""
    layout, batch = layout
    zero = np.array([[1.5, -0.5]])
    flat = flat_with(layout, zero_point=zero, trend=0.0, outlier_logit=-50.0, outlier_flag=0.0)
    values = simulated(layout, batch, flat)
    terms, population = jax.tree.map(lambda x: np.asarray(x, float), layout.terms(jnp.asarray(flat)))
    quoted = np.asarray(batch.blocks[0].covariance[0], float)
    factor = terms.inflation[0]
    noise = np.outer(factor, factor) * quoted[0] + terms.scatter[0] + quoted[1]
    difference = values[:, 0] - values[:, 1]
    sigma = np.sqrt(np.diag(noise))
    assert np.abs((difference.mean(axis=0) - zero[0]) / sigma).max() < 4 / np.sqrt(N)
    ratio = np.cov(difference.T) / np.outer(sigma, sigma)
    np.testing.assert_allclose(ratio, noise / np.outer(sigma, sigma), atol=5 * np.sqrt(2 / N))
    spread = np.linalg.inv(population.root[0].T @ population.root[0]) + quoted[1]
    size = np.sqrt(np.diag(spread))
    assert np.abs((values[:, 1].mean(axis=0) - population.mean[0]) / size).max() < 4 / np.sqrt(N)
    unit = np.outer(size, size)
    np.testing.assert_allclose(np.cov(values[:, 1].T) / unit, spread / unit, atol=5 * np.sqrt(2 / N))


def test_outliers_come_as_often_and_lie_as_wide_as_told(layout):
    layout, batch = layout
    width = np.log(200.0)
    flat = flat_with(layout, trend=0.0, outlier_logit=np.log(0.25 / 0.75), log_outlier_width=width)
    values = simulated(layout, batch, flat, 1)
    terms = layout.terms(jnp.asarray(flat))[0]
    # Two hundred widths: all but a few hundredths of the outliers lie far from every star.
    z = (values - np.asarray(terms.outlier_centre)) / np.asarray(terms.outlier_width)
    far = np.abs(z).max(axis=2) > 0.1
    expected = 0.25 * (1.0 - (2 * stats.norm.cdf(0.1) - 1.0) ** 2)
    assert np.abs(far.mean(axis=0) - expected).max() < 4 * np.sqrt(0.19 / N)
    assert abs(z[far].std() - 1.0) < 0.1


def test_slopes_act_on_the_stars_own_labels(layout):
    layout, batch = layout
    trend = np.zeros((1, 2, 2))
    trend[0, 1, 0] = 2.0
    common = dict(zero_point=0.0, outlier_logit=-50.0, outlier_flag=0.0, log_noise=-8.0)
    values = simulated(layout, batch, flat_with(layout, trend=trend, **common))
    # A survey with hardly any noise: the difference in log g goes with the anchor's temperature.
    u = values[:, 1] @ layout.structure.scales.input_matrix.T
    slope = np.polyfit(u[:, 0], values[:, 0, 1] - values[:, 1, 1], 1)[0]
    along = layout.structure.scales.input_matrix[0, 0]
    error = float(batch.blocks[0].covariance[0, 1, 0, 0]) * along**2
    # The anchor's error flattens the line by the share of its variance.
    np.testing.assert_allclose(slope, 2.0 * (1.0 - error / u[:, 0].var()), rtol=0.05)


def test_draws_are_of_the_prior(layout):
    """Zero points have the configured width; the draws of one key are the same."""
    layout, _ = layout
    place = layout.names().index("zero_point[0, 0]")
    flag = layout.names().index("outlier_flag[0]")
    draws = np.stack([prior_draw(layout, jax.random.key(i)) for i in range(60)])
    assert stats.kstest(draws[:, place] / 3.0, "norm").pvalue > 1e-3
    assert stats.kstest((draws[:, flag] - 2.0) / 1.5, "norm").pvalue > 1e-3
    np.testing.assert_array_equal(prior_draw(layout, jax.random.key(0)), draws[0])


def test_samplers_are_not_checked_here():
    sky = make_sky(LABELS, [survey(), survey("bb")])
    with pytest.raises(InputError, match="method"):
        variational_sbc(sky, SurveyConfig(), jax.random.key(0), method="nuts")
