"""The guide ends at the optimum that theory gives, and minibatches stand for all stars alike."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.surveys.density import Gaussian, Layout
from jaxspec.surveys.model import Batch, SurveyConfig, prepare
from jaxspec.surveys.observations import make_sky
from jaxspec.surveys.variational import FixedBatch, Minibatches, SviConfig, run_svi
from tests.surveys.skies import LABELS, gaussian, survey

MEAN, COVARIANCE = gaussian(3)


class Target(Layout):
    """A Gaussian in place of the model's density."""

    def __init__(self):
        self.size, self.precision = 3, jnp.asarray(np.linalg.inv(COVARIANCE))

    def log_density(self, flat, batch):
        return -0.5 * (flat - MEAN) @ self.precision @ (flat - MEAN)


def test_of_a_gaussian_the_guide_has_the_mean_and_the_conditional_widths():
    """A Gaussian without correlations is nearest to one with them, in the divergence that is minimised, when
    its precisions are the diagonal of the other's (Bishop 2006, section 10.1.2)."""
    start = Gaussian(MEAN + 0.7 * np.sqrt(np.diag(COVARIANCE)), np.diag(np.sqrt(np.diag(COVARIANCE))))
    config = SviConfig(steps=1500, learning_rate=0.03, particles=4, batch=1)
    with jax.enable_x64(True):
        found, losses = run_svi(Target(), FixedBatch(Batch((), 0, (), ())), start, jax.random.key(0), config)
    sigma = np.sqrt(np.diag(COVARIANCE))
    np.testing.assert_allclose(found.mean / sigma, MEAN / sigma, atol=0.05)
    conditional = np.diag(np.linalg.inv(COVARIANCE)) ** -0.5
    np.testing.assert_allclose(found.root, np.diag(conditional), rtol=0.06, atol=1e-9)
    assert len(losses) == 1500 and losses[-300:].mean() < losses[:50].mean()


@pytest.fixture(scope="module")
def minibatches():
    """60 stars that two surveys saw, 20 that three did, 12 of a group."""
    sky = make_sky(
        LABELS,
        [survey("a", range(92)), survey("bb", range(80)), survey("anchor", range(20), anchor=True)],
        92,
        np.where(np.arange(92) < 80, -1, 0),
    )
    structure, index = prepare(sky, SurveyConfig(components=1))
    layout = Layout.__new__(Layout)
    layout.structure = structure
    return Minibatches(sky, layout, index, 40), index


def test_batches_hold_as_many_of_each_stratum_and_weigh_for_the_rest(minibatches, rng):
    batches, index = minibatches
    batch = batches.draw(rng)
    sizes = [len(block.star) for block in batch.blocks]
    # Field stars of two and three measurements, then members of a group; at least eight of each.
    assert sizes == [round(40 * 60 / 92), round(40 * 20 / 92), 8] and batch.n_field == 2
    np.testing.assert_allclose([n * w for n, w in zip(sizes, batch.weight, strict=True)], [60, 20, 12])
    stars = np.concatenate([block.star for block in batch.blocks])
    assert len(set(stars.tolist())) == len(stars) and set(stars.tolist()) <= set(index.star.tolist())
    assert [block.survey.shape[1] for block in batch.blocks] == [2, 3, 1]


def test_every_star_is_drawn_as_often_as_another(minibatches, rng):
    batches, _ = minibatches
    counts, n = np.zeros(92), 60
    for _ in range(n):
        for block in batches.draw(rng).blocks:
            counts[np.asarray(block.star)] += 1
    for stratum, size in ((slice(20, 80), 26), (slice(0, 20), 9), (slice(80, 92), 8)):
        share = size / len(counts[stratum])
        # Five standard deviations of a count of draws.
        assert np.abs(counts[stratum] - n * share).max() < 5 * np.sqrt(n * share * (1 - share))


@pytest.mark.parametrize("name", ["batch", "steps", "particles", "subset", "round"])
def test_settings_below_one_are_refused(name):
    with pytest.raises(InputError, match=rf"svi\.{name}"):
        SviConfig(**{name: 0})
