"""Which lines shape which pixels of a star, with Hydra's overrides and sweeps: `jaxspec identify` otherwise.

    python -m experiments.identify labels=stars.csv output=FOLDER [windows=[[5500,5560]]] [lines=my.vald]

See `jaxspec.commands.identify`.
"""

from pathlib import Path

from astropy.table import QTable
from omegaconf import DictConfig

from experiments.common import launch, settings
from jaxspec.commands import identify


def run(cfg: DictConfig, folder: Path) -> dict[str, QTable]:
    """Tables of lines, by star."""
    return identify.run(settings(identify.Settings, cfg), folder)


if __name__ == "__main__":
    launch(run, "identify")
