"""The smallest possible errors of labels, with Hydra's overrides and sweeps: `jaxspec bound` otherwise.

    python -m experiments.bound labels=stars.csv instrument=giraffe snr=100 [unknown=vmic] [engine=synthesis]

See `jaxspec.commands.bound`.
"""

from pathlib import Path

from astropy.table import Table
from omegaconf import DictConfig

from experiments.common import launch, settings
from jaxspec.commands import bound


def run(cfg: DictConfig, folder: Path) -> Table:
    """The table of bounds."""
    return bound.run(settings(bound.Settings, cfg), folder)


if __name__ == "__main__":
    launch(run, "bound")
