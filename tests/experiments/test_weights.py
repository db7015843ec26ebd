"""The weights in the package are of the code that they come with: stars simulated as they were trained."""

import jax
import numpy as np
import pytest

from jaxspec.amortised.storage import load_weights
from jaxspec.commands.tasks import trained_simulator
from jaxspec.diagnostics.calibration import calibration_error
from jaxspec.posterior.flags import Flag
from jaxspec.simulation.simulator import simulate_many

N_STARS = 256


@pytest.fixture(scope="module")
def shipped():
    """Known stars and what the weights in the package say of them."""
    posterior, folder = load_weights(None)
    _, simulator = trained_simulator(posterior, folder)
    stars = simulate_many(simulator, jax.random.key(29), N_STARS)
    return stars, posterior.sample_normalised(jax.random.key(30), stars.flux, stars.ivar, 300), posterior


def test_truths_are_where_the_draws_are(shipped):
    stars, result, _ = shipped
    # 0.018 in the median and 0.05 in one label of a hundred by chance.
    assert calibration_error(stars.labels, result.draws).max() < 0.07
    pull = (stars.labels - result.median) / result.draws.std(axis=0)
    np.testing.assert_allclose(np.quantile(pull, [0.16, 0.5, 0.84]), [-1.0, 0.0, 1.0], atol=0.1)


def test_the_posterior_knows_what_the_prior_does_not(shipped):
    stars, result, _ = shipped
    bright = result.snr > 50.0
    width = np.median(result.draws[:, bright].std(axis=0), axis=0)
    assert bright.sum() > 60 and np.all(width < 0.15 * stars.labels.std(axis=0))


def test_ordinary_stars_have_draws_within_the_prior_and_few_are_out_of_range(shipped):
    _, result, posterior = shipped
    out = (result.flags & int(Flag.OUT_OF_RANGE)) > 0
    assert out.mean() < 0.05
    assert np.asarray(posterior.prior.supports(result.draws))[:, ~out].all()
