"""Is a spectrum that the network should not believe flagged? With Hydra's overrides and sweeps.

    python -m experiments.screen [checkpoint=FOLDER]            ten faults and ordinary stars, as stored
    python -m experiments.screen calibrate=3000 n=200           limits calibrated and stored before that

See `jaxspec.commands.screen`.
"""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from experiments.common import launch, settings
from jaxspec.commands import screen


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """The metrics."""
    return screen.run(settings(screen.Settings, cfg), folder)


if __name__ == "__main__":
    launch(run, "screen")
