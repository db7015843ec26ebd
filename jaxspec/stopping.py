"""Ctrl-C and SIGTERM end a job with a sentence, once it has kept what the same command goes on from.

A command runs inside `signals`, where a signal raises `Stopped`. A loop that must not be cut in two runs
inside `deferred`, where the first signal is only noted: the loop ends its step, saves, and raises `Stopped`.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_kept = ""  # how far the job of this process has come, in words


class Stopped(KeyboardInterrupt):
    """The job was told to stop. Its text says how far it came.

    Attributes:
        status: exit status of the process: 130 after Ctrl-C, 143 after SIGTERM.
    """

    def __init__(self, signum: int = signal.SIGINT, kept: str | None = None):
        self.signum, self.kept = signum, _kept if kept is None else kept
        super().__init__(self.sentence())

    @property
    def status(self) -> int:
        return 128 + self.signum

    def sentence(self, with_setting: str = "") -> str:
        """For the person at the terminal.

        Args:
            with_setting: to be added to the command so that it finds its folder, such as `-o FOLDER`.
        """
        if not self.kept:
            return "stopped before anything was kept; the same command begins again"
        added = f" with {with_setting}" if with_setting else ""
        return f"stopped at {self.kept}; the same command{added} goes on"


def keep(progress: str) -> None:
    """Note how far the job has come that the same command goes on from, such as `step 300 of 4000`."""
    global _kept
    _kept = progress


class Request:
    """The signal that asks a loop to end; `signum` is None until it comes."""

    signum: int | None = None

    def __bool__(self) -> bool:
        return self.signum is not None

    def stop(self) -> None:
        """Raise `Stopped` if a signal has come."""
        if self.signum is not None:
            raise Stopped(self.signum)


@contextmanager
def signals() -> Iterator[None]:
    """In this block SIGINT and SIGTERM raise `Stopped`. Nothing is noted as kept when it begins."""
    keep("")

    def handle(signum: int, frame: FrameType | None) -> None:
        raise Stopped(signum)

    with _handled(handle):
        yield


@contextmanager
def deferred() -> Iterator[Request]:
    """In this block the first signal is noted in the `Request`, and a second one raises `Stopped`."""
    request = Request()

    def handle(signum: int, frame: FrameType | None) -> None:
        if request:
            raise Stopped(signum)
        request.signum = signum
        os.write(2, b"\nstopping after this step; once more stops at once\n")

    with _handled(handle):
        yield request


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Install a handler, and put the earlier ones back at the end. A signal that the process ignores (as
    under nohup) stays ignored, and only the main thread of a process can handle signals."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
