"""Posteriors that hold simulated truths as often as they should, with Hydra's overrides and sweeps.

    python -m experiments.recalibrate checkpoint=FOLDER [n=10000] [n_test=5000]

See `jaxspec.commands.recalibrate`.
"""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from experiments.common import launch, settings
from jaxspec.commands import recalibrate


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """The metrics."""
    return recalibrate.run(settings(recalibrate.Settings, cfg), folder)


if __name__ == "__main__":
    launch(run, "recalibrate")
