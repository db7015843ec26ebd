"""Posteriors of the labels of observed spectra, with Hydra's overrides and sweeps: `jaxspec infer` otherwise.

    python -m experiments.infer spectra="night1/*.fits" output=night1_labels
    python -m experiments.infer spectra=star.fits checkpoint=outputs/train/2026-11-22_10-00-00
    python -m experiments.infer spectra=star.fits checkpoint=[run1,run2,run3]    several networks as one
    python -m experiments.infer spectra=star.fits checkpoint=run1 dropout=16     parts of one as several

Writes `labels.fits` (one row a spectrum), `posterior.nc` (draws, ArviZ's schema), `metrics.json` (what was
refused and assumed), spectrum and corner plots. Seconds for a few files, after some twenty seconds of
compilation. A file that cannot be used is refused by name and the others go on; the exit status is 1 only
when none could be used.
"""

from pathlib import Path

from omegaconf import DictConfig

from experiments.common import launch, settings
from jaxspec.commands import infer


def run(cfg: DictConfig, folder: Path):
    """See `jaxspec.commands.infer.run`."""
    return infer.run(settings(infer.Settings, cfg), folder)


if __name__ == "__main__":
    launch(run, "infer")
