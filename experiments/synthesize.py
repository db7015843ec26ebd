"""Spectra for a table of labels, with Hydra's overrides and sweeps: `jaxspec synthesize` otherwise.

    python -m experiments.synthesize labels=stars.csv instrument=giraffe_hr10 output=stars.h5
    python -m experiments.synthesize labels=stars.csv instrument=native output=native.h5 step=0.01

See `jaxspec.commands.synthesize`.
"""

from pathlib import Path

from omegaconf import DictConfig

from experiments.common import launch, settings
from jaxspec.commands import synthesize
from jaxspec.runs import begin


def run(cfg: DictConfig, folder: Path) -> Path:
    """The path of the store."""
    chosen = settings(synthesize.Settings, cfg)
    begin(folder, chosen, [chosen.labels])
    return synthesize.run(chosen, cfg.output)


if __name__ == "__main__":
    launch(run, "synthesize")
