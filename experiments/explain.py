"""Where the network looked for each label, with Hydra's overrides and sweeps: `jaxspec explain` otherwise.

    python -m experiments.explain                                  simulated stars
    python -m experiments.explain spectra="night1/*.fits"          observed ones

See `jaxspec.commands.explain`.
"""

from pathlib import Path

from astropy.table import Table
from omegaconf import DictConfig

from experiments.common import launch, settings
from jaxspec.commands import explain


def run(cfg: DictConfig, folder: Path) -> Table:
    """The table of scores."""
    return explain.run(settings(explain.Settings, cfg), folder)


if __name__ == "__main__":
    launch(run, "explain")
