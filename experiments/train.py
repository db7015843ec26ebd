"""Train and evaluate a conditional flow.

    python -m experiments.train experiment=giraffe_demo       4 minutes on two cores
    python -m experiments.train experiment=giraffe_robust     hours on two cores, minutes on an accelerator
    python -m experiments.train experiment=giraffe_survey data.spectra=FOLDER data.catalogue=TABLE
    python -m experiments.train encoder=hybrid flow=autoregressive    any encoder with any flow, by its name
    python -m experiments.train --multirun encoder=residual,hybrid flow=spline,matching seed=1,2 output=FOLDER

The output folder gets `posterior/` (what `experiments.infer checkpoint=` takes), `metrics.json`,
`metrics.jsonl` (the training log), `checkpoints/`, `config.yaml`, `provenance.json` and the plots. A run that
was killed goes on from its last checkpoint, to the same numbers, when it is started again with the same
output=FOLDER. A sweep (`--multirun`) numbers its runs inside the folder and keeps a leaderboard there.
Started again, it leaves finished runs alone and goes on with the one that was interrupted.
"""

import logging
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from experiments import leaderboard
from experiments.common import launch, settings
from jaxspec.commands import train
from jaxspec.runs import write_json
from jaxspec.training import NonFiniteLossError

log = logging.getLogger(__name__)


def run_or_job(cfg: DictConfig, folder: Path) -> None:
    """A run by itself, or one job of a sweep."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        job(cfg, folder)
    else:
        run(cfg, folder)


def run(cfg: DictConfig, folder: Path) -> train.Trained:
    """See `jaxspec.commands.train.run`."""
    return train.run(settings(train.Settings, cfg), folder)


def job(cfg: DictConfig, folder: Path) -> None:
    """Run one job of a sweep, unless it is finished, and bring the sweep's leaderboard up to date.

    A loss that is not finite fails the job, not the sweep.
    """
    wanted = settings(train.Settings, cfg)
    jobs = leaderboard.count_jobs(folder.parent)
    log.info("job %d of %d: %s", int(folder.name) + 1, jobs, train.describe(wanted))
    if leaderboard.is_finished(wanted, folder):
        log.info("finished before: left alone")
    else:
        try:
            train.run(wanted, folder)
        except NonFiniteLossError as error:
            log.error("%s failed: %s", folder, error)
            write_json(folder / leaderboard.FAILURE, {"status": "failed", "error": str(error)})
    rows = leaderboard.update(folder.parent)
    print(f"\nleaderboard of {folder.parent}:\n{leaderboard.format_rows(rows)}\n", flush=True)


if __name__ == "__main__":
    launch(run_or_job, "train")
