"""The training log: one JSON object per line, exact under kill and resume."""

import json
from pathlib import Path
from typing import Any


class MetricsLog:
    """Rows of a `metrics.jsonl`, also kept in memory as `rows`. Each has a `step`; without a folder only
    memory is used.

    Opened at `step`, rows of later steps are dropped first: they were written by a run that was killed after
    its last checkpoint, and will be written again with the same numbers.
    """

    def __init__(self, path: Path | None, *, step: int = 0):
        self.path, self.rows = path, []
        if path is None:
            return
        if step > 0 and path.exists():
            self.rows = [row for row in read_metrics(path) if row["step"] <= step]
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(row) + "\n" for row in self.rows))
        temporary.replace(path)

    def write(self, row: dict[str, Any]) -> None:
        """Append one row and flush it."""
        self.rows.append(row)
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(json.dumps(row) + "\n")


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a metrics file; a last line cut short by a kill is left out."""
    rows = []
    for line in Path(path).read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows
