"""The table of a sweep of `experiments.train`: one row for each job, the best first."""

import csv
import io
import json
import logging
import math
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from jaxspec.commands.train import Settings
from jaxspec.runs import atomically, first_difference, plain, write_json

log = logging.getLogger(__name__)
FAILURE = "failure.json"

# What each column is; the table is sorted by the first number, small is good.
COLUMNS = {
    "job": "number of the job, and its folder",
    "encoder": "kind of encoder",
    "flow": "kind of flow",
    "seed": "of weights and data",
    "nll": "mean of -ln q(labels | spectrum) on the first evaluation set, per unit of all labels",
    "calibration_error": "mean over labels and levels of |empirical - nominal coverage| of central intervals",
    "sharpness": "stated error (median over stars) over the scatter of the training labels, which is what is "
    "known before anything is observed; geometric mean over labels, small is sharp",
    "parameters": "number of trained weights",
    "trained_per_second": "spectra a second in training, median over the log, simulation included",
    "inferred_per_second": "spectra a second through encoder and flow, `n_draws` draws each, compiled",
    "steps": "of training",
    "status": "finished; time up (max_seconds came before n_steps); unfinished; failed",
}


def is_finished(settings: Settings, folder: Path) -> bool:
    """Whether `folder` has the metrics of these very settings."""
    try:
        stored = json.loads((folder / "metrics.json").read_text())["config"]
    except (OSError, ValueError, KeyError):
        return False
    return first_difference(stored, plain(settings)) is None


def count_jobs(folder: Path) -> int:
    """Number of jobs of the sweep that Hydra described in `folder`."""
    overrides = OmegaConf.load(folder / "multirun.yaml").hydra.overrides.task
    sweeps = [o for o in OverridesParser.create().parse_overrides(list(overrides)) if o.is_sweep_override()]
    return math.prod(len(list(o.sweep_iterator())) for o in sweeps)


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of all jobs begun in a sweep's folder, sorted by likelihood; those without one come last."""
    rows = []
    for job in sorted((p for p in folder.iterdir() if p.name.isdigit()), key=lambda p: int(p.name)):
        overrides = job / ".hydra" / "overrides.yaml"
        found = {"job": int(job.name)}
        if overrides.exists():
            found["overrides"] = " ".join(OmegaConf.load(overrides))
        if (job / "metrics.json").exists():
            found |= json.loads((job / "metrics.json").read_text())["leaderboard"]
        elif (job / FAILURE).exists():
            found |= json.loads((job / FAILURE).read_text())
        else:
            found["status"] = "unfinished"
        rows.append(found)
    return sorted(rows, key=lambda r: math.inf if r.get("nll") is None else r["nll"])


def update(folder: Path) -> list[dict[str, Any]]:
    """Write `leaderboard.json` and `leaderboard.csv` of a sweep's folder; returns the rows."""
    rows = read_rows(folder)
    write_json(folder / "leaderboard.json", {"columns": COLUMNS, "rows": rows})
    text = io.StringIO()
    columns = [*COLUMNS, "n_draws", "overrides", "error"]
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomically(folder / "leaderboard.csv", lambda partial: partial.write_text(text.getvalue()))
    return rows


def format_rows(rows: list[dict[str, Any]]) -> str:
    """The leaderboard as a text table."""
    table = [[name.replace("_per_second", "/s").replace("_error", "") for name in COLUMNS]]
    table += [[_format(row.get(name)) for name in COLUMNS] for row in rows]
    widths = [max(len(line[i]) for line in table) for i in range(len(COLUMNS))]
    return "\n".join("  ".join(x.rjust(w) for x, w in zip(line, widths, strict=True)) for line in table)


def _format(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return "" if value is None else str(value)
