"""How good is a stored posterior: the measures of `experiments.train`, for any weights, refined on demand.

    python -m experiments.evaluate                                  the weights in the package
    python -m experiments.evaluate checkpoint=FOLDER refine=robust  as `experiments.infer` would give them
    python -m experiments.evaluate checkpoint=[run1,run2,run3]      several networks as one
    python -m experiments.evaluate refine=exact                     the forward model's own posteriors

Tests on the data it was trained for and on the sets of `conf/evaluation/`: simulations with an exact model,
both arms and fixed S/N. Prints a table for each set and writes `report.html` (all tables and plots on one
page, to open in a browser), `metrics.json`, and the plots one by one. A quarter of an hour on two cores, and
with `refine=` one or two seconds a star more.
"""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from experiments.common import launch, settings
from jaxspec.commands import evaluate


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """See `jaxspec.commands.evaluate.run`."""
    return evaluate.run(settings(evaluate.Settings, cfg), folder)


if __name__ == "__main__":
    launch(run, "evaluate")
