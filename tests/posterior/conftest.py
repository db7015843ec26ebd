"""A toy survey that several tests look at: compiled once."""

import dataclasses

import jax
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
    """512 stars as the default configuration draws them."""
    return simulator.simulate(jax.random.key(7), 512)


@pytest.fixture(scope="session")
def bright(toy):
    """64 stars with both arms at S/N 300 and nothing masked."""
    config = dataclasses.replace(PURE, only_arm=(), snr_range=(300.0, 300.0), bad_pixels=0.0, cosmics=0.0)
    return Simulator(toy, config=config).simulate(jax.random.key(8), 64)
