"""Calibrate oscillator strengths on observed spectra of stars whose labels are known, with Hydra's overrides.

    python -m experiments.linelist folder_of_spectra=FOLDER [output=DIR]

See `jaxspec.commands.linelist`.
"""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from experiments.common import launch, settings
from jaxspec.commands import linelist


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """The metrics."""
    return linelist.run(settings(linelist.Settings, cfg), folder)


if __name__ == "__main__":
    launch(run, "linelist")
