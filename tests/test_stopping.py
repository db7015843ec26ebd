"""Signals end a job with a sentence and the right status, and never in the middle of a step."""

import os
import signal
import subprocess
import sys
import types

import pytest

from experiments.common import ROOT
from jaxspec import cli, runs, stopping
from jaxspec.stopping import Stopped, deferred, signals
from tests.test_cli import Settings


def send(signum=signal.SIGINT):
    os.kill(os.getpid(), signum)


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_raises_and_the_old_handlers_come_back(signum, status):
    before = [signal.getsignal(s) for s in stopping.SIGNALS]
    with pytest.raises(Stopped, match="before anything was kept") as stop, signals():
        send(signum)
    assert stop.value.status == status and isinstance(stop.value, KeyboardInterrupt)
    assert [signal.getsignal(s) for s in stopping.SIGNALS] == before


def test_a_loop_ends_its_step_first(capfd):
    """The first signal waits for the loop; a second one does not."""
    done = []
    with pytest.raises(Stopped, match=r"stopped at step 2 of 5; the same command goes on"), signals():
        with deferred() as request:
            for step in range(1, 6):
                if step == 2:
                    send()
                done.append(step)
                stopping.keep(f"step {step} of 5")
                request.stop()
    assert done == [1, 2] and "stopping after this step" in capfd.readouterr().err
    with pytest.raises(Stopped), deferred():
        send()
        send()


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with signals(), deferred() as request:
            send()
        assert not request
    finally:
        signal.signal(signal.SIGINT, before)


def test_pieces_that_were_saved_are_named(tmp_path):
    with pytest.raises(Stopped, match=r"stopped at piece b in .*pieces"), signals():
        for item in runs.resumable(["a", "b", "c"], {"x": 1}, tmp_path / "pieces"):
            if item.name == "c":
                send()
            item.result(lambda: {"x": 1.0})
    assert sorted(p.name for p in (tmp_path / "pieces").glob("*.npz")) == ["a.npz", "b.npz"]


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_command_says_how_to_go_on(signum, status, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(settings, output):
        stopping.keep("star 3 of 9")
        send(signum)

    job = types.SimpleNamespace(Settings=Settings, INPUT="spectra", __doc__="Do it.", run=run)
    monkeypatch.setattr(cli.importlib, "import_module", lambda name: job)
    assert cli.main(["infer", "a.fits", "--no-cache", "-o", "here"]) == status
    assert capsys.readouterr().err == "stopped at star 3 of 9; the same command goes on\n"
    assert cli.main(["infer", "a.fits", "--no-cache"]) == status
    assert "the same command with -o outputs/infer/" in capsys.readouterr().err


EXPERIMENT = """
import os, signal
from experiments.common import launch
from jaxspec import stopping

def run(cfg, folder):
    stopping.keep("step 7 of 9")
    os.kill(os.getpid(), signal.{name})
    raise AssertionError("not reached")

launch(run, "power")
"""


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_an_experiment_ends_without_a_traceback(name, status, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", EXPERIMENT.format(name=name)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAXSPEC_CACHE": "off"},
        restore_signals=True,
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("stopped at step 7 of 9; the same command with output=")
    assert last.endswith("goes on")
