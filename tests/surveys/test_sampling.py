"""NUTS on a Gaussian: its moments, the same numbers for the same key, and from where it was saved."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.runs import resumable
from jaxspec.surveys.density import Gaussian, Objective
from jaxspec.surveys.model import Batch
from jaxspec.surveys.sampling import NutsConfig, run_nuts
from tests.surveys.skies import gaussian

CONFIG = NutsConfig(chains=2, warmup=100, draws=400, round=100, threads=1)
MEAN, COVARIANCE = gaussian(3)
# Coordinates as a rough fit gives them: half a width off, and a third too narrow.
START = Gaussian(MEAN + 0.5 * np.sqrt(np.diag(COVARIANCE)), np.linalg.cholesky(COVARIANCE) / 1.5)


class Target(Objective):
    def __init__(self):
        self.batch, self.precision = Batch((), 0, (), ()), np.linalg.inv(COVARIANCE)

    def negative(self, flat, blocks):
        return 0.5 * (flat - MEAN) @ self.precision @ (flat - MEAN)


@pytest.fixture(scope="module")
def run():
    def once(config=CONFIG, folder=None):
        items = list(resumable([f"chain_{i}" for i in range(config.chains)], {"nuts": config}, folder))
        with jax.enable_x64(True):
            return run_nuts(Target(), START, jax.random.key(0), config, items)

    return once


@pytest.fixture(scope="module")
def chains(run):
    return run()


def test_draws_have_the_moments_of_the_density(chains):
    flat = START.mean + chains.u.reshape(-1, 3) @ START.root.T
    z = (flat - MEAN) / np.sqrt(np.diag(COVARIANCE))
    # 800 draws, hardly correlated: a mean is known to 0.04 and a covariance to 0.05.
    assert np.abs(z.mean(axis=0)).max() < 0.2
    white = np.linalg.solve(np.linalg.cholesky(COVARIANCE), (flat - MEAN).T)
    np.testing.assert_allclose(np.cov(white), np.eye(3), atol=0.25)
    assert not chains.diverged.any() and chains.steps.min() >= 1
    assert 0.5 < chains.acceptance.mean() < 1.0
    assert chains.u.shape == (2, 400, 3) and not np.array_equal(chains.u[0], chains.u[1])


def test_a_saved_run_has_the_same_numbers_and_goes_on_only_as_it_was(run, chains, tmp_path):
    saved = run(folder=tmp_path)
    again = run(folder=tmp_path)
    for name in ("u", "diverged", "steps", "acceptance"):
        np.testing.assert_array_equal(getattr(saved, name), getattr(chains, name))
        np.testing.assert_array_equal(getattr(again, name), getattr(chains, name))
    with pytest.raises(InputError):
        run(dataclasses.replace(CONFIG, draws=300), folder=tmp_path)


@pytest.mark.parametrize("name", ["chains", "warmup", "draws", "round", "threads"])
def test_settings_below_one_are_refused(name):
    with pytest.raises(InputError, match=rf"nuts\.{name}"):
        NutsConfig(**{name: 0})
