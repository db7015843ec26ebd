"""A toy survey that several tests look at: compiled once."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from jaxspec.posterior.nuisances import PURE
from jaxspec.posterior.simulator import Simulator
from tests.toy import ToyForwardModel


@pytest.fixture(scope="session")
def toy():
    return ToyForwardModel()


@pytest.fixture(scope="session")
def simulator(toy):
    return Simulator(toy)


@pytest.fixture(scope="session")
def survey(simulator):
    """4,096 stars as the default configuration draws them."""
    batches = [simulator.simulate(jax.random.fold_in(jax.random.key(7), i), 512) for i in range(8)]
    return jax.tree.map(lambda *x: jnp.concatenate(x), *batches)


@pytest.fixture(scope="session")
def bright(toy):
    """64 stars with both arms at S/N 300 and nothing masked."""
    config = dataclasses.replace(PURE, only_arm=(), snr_range=(300.0, 300.0), bad_pixels=0.0, cosmics=0.0)
    return Simulator(toy, config=config).simulate(jax.random.key(8), 64)
