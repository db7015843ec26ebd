"""Configurations composed in the test's own process, and one tiny trained posterior that several tests
use."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from experiments import train
from experiments.common import CONF
from jaxspec.commands.train import Trained
from tests.experiments.toys import TINY


def configured(name: str, *overrides: str) -> DictConfig:
    """The configuration that `python -m experiments.NAME OVERRIDES` would run with."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, list(overrides))


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> tuple[Trained, Path]:
    """A tiny flow trained on the toy survey, and its run folder."""
    folder = tmp_path_factory.mktemp("trained")
    return train.run(configured("train", *TINY, f"output={folder}"), folder), folder
