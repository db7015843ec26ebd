"""A run killed without warning goes on to the same numbers as one that was left alone."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.training.metrics import read_metrics
from tests.training.problem import CONFIG, train

ROOT = Path(__file__).resolve().parents[2]


def numbers(folder):
    """The rows of the log without the times, which alone may differ."""
    timing = {"compile_seconds", "examples_per_second", "seconds"}
    rows = [
        {k: v for k, v in row.items() if k not in timing} for row in read_metrics(folder / "metrics.jsonl")
    ]
    return [row for row in rows if len(row) > 1]


def test_kill_and_resume(tmp_path):
    unbroken = train(tmp_path / "unbroken")
    folder = tmp_path / "killed"
    command = [sys.executable, "-m", "tests.training.problem", str(folder), "0.05"]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    log, deadline = folder / "metrics.jsonl", time.monotonic() + 240
    try:
        # Past a checkpoint (20) and past log rows that lie beyond it.
        while not (log.exists() and any(row["step"] >= 24 for row in read_metrics(log))):
            assert process.poll() is None, "training ended before it could be killed"
            assert time.monotonic() < deadline, "training did not get going"
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert max(row["step"] for row in read_metrics(log)) < CONFIG.n_steps
    resumed = train(folder)
    assert numbers(folder) == numbers(tmp_path / "unbroken")
    assert resumed.history[-1]["step"] == CONFIG.n_steps
    same = jax.tree.map(
        lambda a, b: bool((a == b).all()),
        (resumed.state.params, resumed.state.average, resumed.state.optimiser),
        (unbroken.state.params, unbroken.state.average, unbroken.state.optimiser),
    )
    assert jax.tree.all(same)


def test_finished_run_is_not_trained_again(tmp_path):
    first = train(tmp_path)
    again = train(tmp_path)
    assert again.history == first.history
    np.testing.assert_array_equal(again.model.last.kernel[...], first.model.last.kernel[...])
    with pytest.raises(InputError, match="resume is off"):
        train(tmp_path, resume=False)
