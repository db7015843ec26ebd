"""What can the checks of calibration see? Planted faults of every size through every diagnostic.

    python -m experiments.power                                  all sizes: more than an hour on one core
    python -m experiments.power sizes=[50,500] sets=50           a smaller one

No network and no spectra: posteriors are Gaussians that are right but for one fault. Writes `power.ecsv`,
`power.md` and `power.png`; a killed run goes on with the same output=FOLDER.
"""

from pathlib import Path

from omegaconf import DictConfig

from experiments.common import launch, settings
from jaxspec.commands import power


def run(cfg: DictConfig, folder: Path):
    """See `jaxspec.commands.power.run`."""
    return power.run(settings(power.Settings, cfg), folder)


if __name__ == "__main__":
    launch(run, "power")
