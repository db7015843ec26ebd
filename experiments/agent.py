"""Does the agent find what is wrong with a spectrum? Simulated problem stars whose cause is known.

    python -m experiments.agent n=10                 the table of causes beside plain inference
    python -m experiments.agent n=10 learn=6         self-play first: what symptoms mean

See `jaxspec.commands.agent_trial`.
"""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from experiments.common import launch, settings
from jaxspec.commands import agent_trial


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """The metrics."""
    return agent_trial.run(settings(agent_trial.Settings, cfg), folder)


if __name__ == "__main__":
    launch(run, "agent")
