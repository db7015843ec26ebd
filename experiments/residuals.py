"""Errors of a survey's spectra that the model does not know, with Hydra's overrides and sweeps.

    python -m experiments.residuals results=night1_labels [output=FOLDER]

See `jaxspec.commands.residuals`.
"""

from pathlib import Path

from omegaconf import DictConfig

from experiments.common import launch, settings
from jaxspec.commands import residuals
from jaxspec.simulation.residuals import ResidualModel


def run(cfg: DictConfig, folder: Path) -> ResidualModel:
    """The errors that were learned."""
    return residuals.run(settings(residuals.Settings, cfg), folder)


if __name__ == "__main__":
    launch(run, "residuals")
