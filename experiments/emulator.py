"""Train an emulator of the synthesis, for GIRAFFE or other windows, with Hydra's overrides and groups.

    python -m experiments.emulator [n_stars=6400 n_test=320] [processes=2] [output=DIR]
    python -m experiments.emulator coverage=4most_hrs lines=FILE         also weave_hr, moons_ri

See `jaxspec.commands.emulator`.
"""

from pathlib import Path

from omegaconf import DictConfig

from experiments.common import launch, settings
from jaxspec.commands import emulator
from jaxspec.physics.emulator import Emulator


def run(cfg: DictConfig, folder: Path) -> Emulator:
    """The emulator."""
    return emulator.run(settings(emulator.Settings, cfg), folder)


if __name__ == "__main__":
    launch(run, "emulator")
