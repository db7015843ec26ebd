"""The chains that refinement is held against: mirrors at the prior's edges, and the classifier."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC, NUTS

from benchmarks.refinement import mirrored, mirrored_in, tell_apart
from jaxspec.labels import label_set
from jaxspec.simulation.prior import HR, StellarPrior, inside_polygon

POLYGON = StellarPrior().polygon
SCALE = label_set(*HR).step.astype(np.float32)


def beside(side: int, along: float, away: float) -> jax.Array:
    """A point `away` (in units of the density) outside of a side, or inside where negative."""
    begin, end = (np.array(POLYGON[(side + i) % len(POLYGON)]) / SCALE for i in (0, 1))
    across = np.array([-1.0, 1.0]) * (end - begin)[::-1] / np.linalg.norm(end - begin)
    foot = begin + along * (end - begin)
    if inside_polygon(jnp.asarray((foot + 1e-3 * across) * SCALE), POLYGON):
        across = -across
    return jnp.asarray((foot + away * across) * SCALE, jnp.float32)


@pytest.mark.parametrize("side", range(len(POLYGON)))
@pytest.mark.parametrize("along", [0.3, 0.5, 0.7])
def test_points_outside_of_the_prior_are_mirrored_at_its_nearest_side(side, along):
    inside, outside = beside(side, along, -0.05), beside(side, along, 0.05)
    assert inside_polygon(inside, POLYGON) and not inside_polygon(outside, POLYGON)
    np.testing.assert_array_equal(mirrored_in(POLYGON, inside), inside)
    image = mirrored_in(POLYGON, outside)
    np.testing.assert_allclose(image / SCALE, inside / SCALE, atol=1e-4)
    # A mirror neither stretches nor shrinks.
    turned = jax.jacfwd(lambda x: mirrored_in(POLYGON, x * SCALE) / SCALE)(outside / SCALE)
    np.testing.assert_allclose(np.linalg.det(turned), -1.0, atol=1e-4)
    np.testing.assert_allclose(turned @ turned.T, np.eye(2), atol=1e-4)


@pytest.mark.parametrize(("x", "image"), [(-0.3, 0.3), (0.0, 0.0), (0.4, 0.4), (1.0, 1.0), (1.2, 0.8)])
def test_an_interval_is_mirrored_at_both_ends(x, image):
    np.testing.assert_allclose(mirrored(x, 0.0, 1.0), image, atol=1e-6)


@pytest.mark.slow
def test_mirrored_chains_sample_a_density_that_the_prior_cuts():
    """Half a Gaussian, whose middle is on a side of the prior: half-normal across it, normal along it."""
    side, width = 0, 0.02
    middle, outwards = beside(side, 0.5, 0.0) / SCALE, beside(side, 0.5, 1.0) / SCALE
    across = outwards - middle
    along = across[::-1] * np.array([-1.0, 1.0])

    def model():
        z = numpyro.sample("z", dist.ImproperUniform(dist.constraints.real_vector, (), (2,)))
        x = mirrored_in(POLYGON, (middle + width * z) * SCALE) / SCALE
        numpyro.deterministic("x", (x - middle) / width)
        numpyro.factor("density", -0.5 * (((x - middle) / width) ** 2).sum())

    chains = MCMC(
        NUTS(model),
        num_warmup=200,
        num_samples=1000,
        num_chains=4,
        chain_method="vectorized",
        progress_bar=False,
    )
    chains.run(jax.random.key(0), init_params={"z": np.full((4, 2), -0.1, np.float32) * across})
    x = np.asarray(chains.get_samples()["x"])
    depth, place = -x @ across, x @ along
    assert depth.min() > -1e-3
    np.testing.assert_allclose(depth.mean(), np.sqrt(2.0 / np.pi), atol=0.06)
    np.testing.assert_allclose(depth.std(), np.sqrt(1.0 - 2.0 / np.pi), atol=0.06)
    np.testing.assert_allclose([place.mean(), place.std()], [0.0, 1.0], atol=0.1)


@pytest.mark.parametrize(("shift", "least", "most"), [(0.0, 0.44, 0.56), (1.0, 0.62, 0.74), (3.0, 0.9, 0.96)])
def test_the_classifier_sees_what_differs_and_nothing_else(rng, shift, least, most):
    """Two normals a distance apart are told by the best of classifiers in a share Phi(distance / 2)."""
    one, other = rng.normal(size=(2, 600, 3))
    other[:, 0] += shift
    assert least <= tell_apart(one, other, 0) <= most
