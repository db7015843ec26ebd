"""One model of stars: trained on Gaia XP spectra of APOGEE stars, put to every task beside its baselines.

    python -m experiments.pretrain output=outputs/stars          about an hour on two cores
    python -m experiments.pretrain data.split_seed=3 trainer.max_seconds=600 with_baselines=false

Needs `pip install "jaxspec[xp]"`. Writes `model`, `metrics.json`, `metrics.md` and figures; a killed run goes
on with the same output=FOLDER. See `jaxspec.commands.pretrain`.
"""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from experiments.common import launch, settings
from jaxspec.commands import pretrain


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """The metrics."""
    return pretrain.run(settings(pretrain.Settings, cfg), folder)


if __name__ == "__main__":
    launch(run, "pretrain")
