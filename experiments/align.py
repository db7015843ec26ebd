"""One network for two surveys, with Hydra's overrides and sweeps: `jaxspec align` otherwise.

    python -m experiments.align source=simulated target=instrument method=cdan,dann,mmd,coral,none output=DIR

See `jaxspec.commands.align`.
"""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from experiments.common import launch, settings
from jaxspec.commands import align


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """What `metrics.json` holds."""
    return align.run(settings(align.Settings, cfg), folder)


if __name__ == "__main__":
    launch(run, "align")
