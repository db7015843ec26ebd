"""Parts of the survey model: where it starts from, and what its parameters mean."""

import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import handlers

from jaxspec.errors import InputError
from jaxspec.labels import label_set
from jaxspec.surveys.mixture import Mixture
from jaxspec.surveys.model import (
    SurveyConfig,
    _correlation_root,
    group_population,
    prepare,
    sample_population,
    sample_terms,
    spread_out,
    starting_offsets,
    whole,
)
from jaxspec.surveys.observations import diagonal, make_sky
from jaxspec.surveys.tied import Measurements, arrange, index_ties
from tests.surveys.skies import LABELS, survey


@pytest.fixture(scope="module")
def structure():
    sky = make_sky(LABELS, [survey("a"), survey("bb"), survey("anchor", range(10), anchor=True)])
    return prepare(sky, SurveyConfig(components=2))[0]


@pytest.mark.parametrize("anchored", [True, False])
def test_offsets_without_noise_are_found_exactly(anchored, rng):
    """Of stars that all surveys saw, the difference of two surveys is that of their offsets."""
    n, planted = 12, np.array([[0.0, 0.0], [1.5, -0.4], [-0.7, 2.0]])
    truth = rng.normal(size=(n, 2))
    star, s = np.tile(np.arange(n), 3), np.repeat(np.arange(3), n)
    values = truth[star] + planted[s]
    values[3, 0] = values[n + 5, 1] = np.nan
    rows = Measurements(
        star, s, values, np.tile(np.eye(2), (3 * n, 1, 1)), np.zeros(3 * n, bool), np.zeros((3, 2, 2)),
        np.zeros((3, 2)), 0,
    )  # fmt: skip
    keep = np.diag([0.0, 1.0, 1.0]) if anchored else np.eye(3) - 1.0 / 3.0
    found = starting_offsets(rows, np.tile(keep, (2, 1, 1)), rounds=60)
    expected = planted if anchored else planted - planted.mean(axis=0)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_free_numbers_become_correlation_matrices(rng):
    z = rng.normal(0.0, 2.0, (40, 6))
    root = np.asarray(_correlation_root(jnp.asarray(z), 4), float)
    matrix = root @ np.swapaxes(root, 1, 2)
    np.testing.assert_allclose(np.diagonal(matrix, axis1=1, axis2=2), 1.0, rtol=1e-6)
    np.testing.assert_array_equal(root * np.triu(np.ones((4, 4)), 1), 0.0)
    assert np.linalg.eigvalsh(matrix).min() > 0.0
    # Of two labels the free number is r / sqrt(1 - r^2).
    r = np.array([0.0, 0.6, -0.9])
    two = _correlation_root(jnp.asarray(r / np.sqrt(1 - r**2))[:, None], 2)
    np.testing.assert_allclose((two @ jnp.swapaxes(two, 1, 2))[:, 0, 1], r, atol=1e-6)


def parameters_of(structure, function):
    with handlers.seed(rng_seed=0), handlers.trace() as trace:
        function(structure)
    return {name: np.asarray(site["value"], float) for name, site in trace.items()}


def at(structure, function, **values):
    """The terms where all free numbers are zero but those given."""
    parameters = {name: jnp.zeros(v.shape) for name, v in parameters_of(structure, function).items()}
    parameters |= {name: jnp.asarray(value) for name, value in values.items()}
    with handlers.block(), handlers.seed(rng_seed=0), handlers.substitute(data=parameters):
        return function(structure)


def test_a_population_without_departures_is_the_mixture_it_starts_from(structure):
    found, start = at(structure, sample_population), structure.mixture
    precision = np.swapaxes(np.asarray(found.root), 1, 2) @ np.asarray(found.root)
    np.testing.assert_allclose(found.mean, start.mean, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(precision, np.linalg.inv(start.covariance), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.log_det, np.linalg.slogdet(precision)[1], rtol=1e-3, atol=1e-4)
    for weights in np.exp(np.asarray(found.log_weight)):
        np.testing.assert_allclose(weights, start.weight, rtol=1e-5)


def test_departures_keep_root_and_determinant_together(structure, rng):
    shapes = {k: v.shape for k, v in parameters_of(structure, sample_population).items()}
    values = {k: rng.normal(0.0, 0.5, s).astype(np.float32) for k, s in shapes.items()}
    found = at(structure, sample_population, **values)
    precision = np.swapaxes(np.asarray(found.root, float), 1, 2) @ np.asarray(found.root, float)
    np.testing.assert_allclose(found.log_det, np.linalg.slogdet(precision)[1], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.exp(np.asarray(found.log_weight)).sum(axis=1), 1.0, rtol=1e-6)


def test_scatter_and_factor_share_the_noise(structure):
    """Whatever the share, quoted variance times the factor squared, and scatter, add up to the noise."""
    quoted = structure.typical_error[:2] + 1e-6
    for share in (-2.0, 0.0, 3.0):
        terms = at(
            structure, sample_terms, log_noise=np.full((2, 2), 0.3), scatter_share=np.full((2, 2), share)
        )
        scatter = np.diagonal(np.asarray(terms.scatter), axis1=1, axis2=2)[:2]
        factor = np.asarray(terms.inflation)[:2]
        np.testing.assert_allclose(quoted * factor**2 + scatter, np.exp(0.6), rtol=1e-4)
        np.testing.assert_allclose(scatter / np.exp(0.6), 1.0 / (1.0 + np.exp(-share)), rtol=1e-4)
    # An anchor's errors are believed.
    assert np.all(np.asarray(terms.inflation)[2] == 1.0) and not np.asarray(terms.scatter)[2].any()


def test_members_of_a_group_share_abundances_and_nothing_else():
    labels = label_set("teff", "fe_h")
    rng = np.random.default_rng(0)
    surveys = [
        survey(
            name,
            range(6),
            values=np.column_stack([rng.normal(5500, 300, 6), rng.normal(0.1, 0.05, 6)]),
            covariance=diagonal(np.tile([50.0, 0.05], (6, 1))),
        )
        for name in ("a", "bb")
    ]
    sky = make_sky(labels, surveys, 6, np.array([0, 0, 0, 1, 1, -1]))
    structure, index = prepare(sky, SurveyConfig(components=1))
    blocks, n_field = arrange(sky, structure.scales, structure.basis, index, np.arange(len(index)))
    block = whole(blocks, n_field).blocks[n_field]
    terms = at(structure, sample_population, group=np.array([[1.0], [-2.0]]))
    prior = group_population(terms, structure.group_prior, block)
    mean, covariance = structure.mixture.moments
    width = 2.0 * np.sqrt(covariance[1, 1])
    for star, member, centre in zip(block.star, block.member, prior.mean, strict=True):
        assert sky.group[star] == member
        np.testing.assert_allclose(centre, [[mean[0], mean[1] + width * (1.0, -2.0)[member]]], rtol=1e-4)
    # Abundances scatter as within a group (one step here), temperatures as twice the whole population.
    expected = [1.0 / (4.0 * covariance[0, 0]), 1.0]
    np.testing.assert_allclose(prior.precision[0], np.diag(expected), rtol=1e-4)


def test_stars_to_start_from_are_spread_over_all():
    sky = make_sky(LABELS, [survey("a", range(50)), survey("bb", range(50))])
    index = index_ties(sky)
    assert spread_out(index, 100).tolist() == list(range(50))
    assert spread_out(index, 8).tolist() == [0, 7, 14, 21, 28, 35, 42, 49]


@pytest.mark.parametrize(
    "change",
    [
        {"zero_point": 0.0}, {"scatter": -1.0}, {"outlier_rate": 1.0}, {"components": 0},
        {"trend_labels": ("teff", "teff")},
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(change):
    with pytest.raises(InputError, match=next(iter(change))):
        SurveyConfig(**change)


def test_moments_of_the_start_are_those_of_groups(structure):
    mixture = Mixture(*structure.mixture)
    mean, covariance = mixture.moments
    np.testing.assert_allclose(structure.group_prior.moments, [mean, np.diag(covariance)])
