"""Several surveys on one scale, with Hydra's overrides and sweeps: `jaxspec calibrate` otherwise.

    python -m experiments.calibrate surveys=my_surveys.yaml output=calibrated [predict=SURVEY]
    python -m experiments.calibrate surveys=simulated
    python -m experiments.calibrate surveys=spectra

See `jaxspec.commands.calibrate` and docs/surveys.md.
"""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from experiments.common import launch, settings
from jaxspec.commands import calibrate
from jaxspec.surveys.results import Calibration


def run(cfg: DictConfig, folder: Path) -> tuple[Calibration, dict[str, Any]]:
    """The fit and the metrics."""
    return calibrate.run(settings(calibrate.Settings, cfg), folder)


if __name__ == "__main__":
    launch(run, "calibrate")
