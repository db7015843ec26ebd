"""How well chemically distinct populations are found where they are known, with Hydra's overrides and sweeps.

    python -m experiments.populations truth=mock [map=true]
    python -m experiments.populations truth=bensby

See `jaxspec.commands.populations_truth` and docs/populations.md; for a catalogue of your own,
`jaxspec populations`.
"""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from experiments.common import launch, settings
from jaxspec.commands import populations_truth


def run(cfg: DictConfig, folder: Path) -> Any:
    """The table of scores."""
    return populations_truth.run(settings(populations_truth.Settings, cfg), folder)


if __name__ == "__main__":
    launch(run, "populations")
