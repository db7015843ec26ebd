"""How good is a stored posterior: the measures of `experiments.train`, for any weights, refined on demand.

    python -m experiments.evaluate                                the weights in the package
    python -m experiments.evaluate checkpoint=FOLDER refine=true  as `experiments.infer` would give them
    python -m experiments.evaluate checkpoint=[run1,run2,run3]    several networks as one
    python -m experiments.evaluate refine=exact                   the forward model's own posteriors

Tests on the data it was trained for and on the sets of `conf/evaluation/`: simulations with an exact model,
both arms and fixed S/N. Prints a table for each set and writes `report.html` (all tables and plots on one
page, to open in a browser), `metrics.json`, and the plots one by one. A quarter of an hour on two cores, and
with `refine=` one or two seconds a star more.
"""

import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.common import begin, launch
from experiments.data import load_task
from experiments.evaluation import evaluate
from jaxspec.amortised.ensemble import load_ensemble
from jaxspec.amortised.storage import WEIGHTS
from jaxspec.errors import InputError
from jaxspec.runs import versions, write_json

log = logging.getLogger(__name__)


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Evaluate, write, and return the metrics.

    Raises: InputError when the stored weights do not say what they were trained with, and for another
        `refine`.
    """
    if cfg.refine not in (False, True, "exact"):
        raise InputError("refine", repr(cfg.refine), "false, true or exact", "choose one")
    posterior, where = load_ensemble(cfg.checkpoint, cfg.dropout, cfg.seed)
    stored = posterior.provenance.get("config")
    if stored is None:
        raise InputError(
            str(where[0]),
            "no configuration of its training",
            "weights of experiments.train",
            "train them again",
        )
    begin(cfg, folder, [one / WEIGHTS for one in where], trained_with=stored)
    task = load_task(OmegaConf.create(stored))
    task_cfg = OmegaConf.create({**stored, **{key: cfg[key] for key in ("evaluation", "seed", "refine")}})
    metrics = {
        "weights": [str(one) for one in where],
        "refine": cfg.refine,
        "versions": versions(),
        **evaluate(posterior, task, task_cfg, folder, where),
    }
    write_json(folder / "metrics.json", metrics)
    log.info("done: %s", folder)
    return metrics


if __name__ == "__main__":
    launch(run, "evaluate")
