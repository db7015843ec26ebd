"""The flat vector of the survey model's parameters, and the Gaussian at the mode of a density."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.surveys.density import Layout, Objective, curvature_root, laplace, separate
from jaxspec.surveys.model import SurveyConfig, prepare, whole
from jaxspec.surveys.observations import make_sky
from jaxspec.surveys.tied import arrange
from tests.surveys.skies import LABELS, gaussian, survey


class Gaussian(Objective):
    """The negative log of a Gaussian, with a steeper wall where asked: mode and curvature stay the same."""

    def __init__(self, mean, precision, quartic=0.0):
        self.mean, self.precision, self.quartic = mean, precision, quartic

    def __call__(self, flat):
        d = flat - self.mean
        half = 0.5 * d @ self.precision @ d
        return half + self.quartic * half**2, (1.0 + 2.0 * self.quartic * half) * (self.precision @ d)


@pytest.mark.parametrize("quartic", [0.0, 0.05])
def test_the_gaussian_is_that_of_mode_and_curvature(quartic):
    mean, covariance = gaussian(6)
    covariance = covariance / 200.0  # nowhere wider than the prior, whose width is the limit
    objective = Gaussian(mean, np.linalg.inv(covariance), quartic)
    found = laplace(objective, mean + 3.0 * np.ones(6))
    sigma = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(found.mean / sigma, mean / sigma, atol=5e-3)
    unit = np.outer(sigma, sigma)
    np.testing.assert_allclose(found.root @ found.root.T / unit, covariance / unit, atol=2e-3)
    np.testing.assert_array_equal(np.triu(found.root, 1), 0.0)


def test_directions_without_curvature_get_the_priors_width():
    """A flat direction and one in which the density is not concave: variance ten, as documented by 0.1."""
    objective = Gaussian(np.zeros(3), np.diag([4.0, 0.0, -1.0]))
    root = curvature_root(objective, np.zeros(3))
    np.testing.assert_allclose(root @ root.T, np.diag([0.25, 10.0, 10.0]), atol=1e-8)


def test_a_density_that_is_not_finite_is_refused():
    with pytest.raises(InputError, match="a likelihood that is not finite"):
        laplace(Gaussian(np.full(2, np.nan), np.eye(2)), np.zeros(2))


@pytest.fixture(scope="module")
def layout():
    sky = make_sky(LABELS, [survey("a"), survey("bb"), survey("anchor", range(10), anchor=True)])
    structure, index = prepare(sky, SurveyConfig(components=1))
    blocks, n_field = arrange(sky, structure.scales, structure.basis, index, np.arange(len(index)))
    return Layout(structure), whole(blocks, n_field)


def test_the_flat_vector_holds_every_number_once(layout):
    layout = layout[0]
    flat = np.arange(layout.size, dtype=np.float32)
    parameters = layout.parameters(jnp.asarray(flat))
    assert parameters["zero_point"].shape == (2, 2) and parameters["trend"].shape == (2, 2, 2)
    joined = np.concatenate([np.ravel(parameters[site.name]) for site in layout.sites])
    np.testing.assert_array_equal(joined, flat)
    names = layout.names()
    assert len(names) == len(set(names)) == layout.size
    place = names.index("trend[1, 0, 1]")
    assert parameters["trend"][1, 0, 1] == place


def test_terms_follow_from_the_vector(layout):
    """Zero points are those of the vector, of an anchor zero; the start has the starting offsets."""
    layout = layout[0]
    np.testing.assert_array_equal(
        layout.parameters(jnp.asarray(layout.start))["zero_point"],
        np.asarray(layout.structure.start[:2], np.float32),
    )
    flat = layout.start.copy()
    place = layout.names().index("zero_point[1, 0]")
    flat[place] = 0.7
    terms, population = layout.terms(jnp.asarray(flat))
    np.testing.assert_allclose(terms.zero_point[1, 0], 0.7, rtol=1e-6)
    assert not np.asarray(terms.zero_point[2]).any() and not np.asarray(terms.trend[2]).any()
    np.testing.assert_allclose(population.mean, layout.structure.mixture.mean, rtol=1e-5)


def test_stars_are_parted_by_their_likely_outliers(layout):
    batch = layout[1]
    probability = [np.zeros(block.survey.shape) for block in batch.blocks]
    probability[0][3, 1] = 0.5
    apart = separate(batch, probability)
    clear, rest = apart.blocks[:2]
    assert rest.star.tolist() == [batch.blocks[0].star[3]]
    # Those without a likely outlier know one configuration: none is an outlier.
    assert apart.states[0].shape[0] == 1 and not apart.states[0].any()
    assert len(apart.states[1]) == len(batch.states[0])
    stars = np.concatenate([block.star for block in apart.blocks])
    assert sorted(stars) == sorted(np.concatenate([block.star for block in batch.blocks]))
    assert apart.n_field == len(apart.blocks) == len(batch.blocks) + 1
    np.testing.assert_array_equal(np.sort(np.append(clear.star, rest.star)), np.sort(batch.blocks[0].star))
