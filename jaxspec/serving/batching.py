"""Requests that arrive together are worked on together, as far as a deadline allows."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any


class Full(Exception):
    """The queue holds as much as it may."""


class Batcher:
    """One thread that takes waiting items in batches.

    Args:
        work: from a list of items to one result each; a result that is an exception is raised for its item
            alone.
        most: size of a batch, in the unit of the items' sizes.
        deadline: seconds that the first item of a batch waits for others.
        room: largest total size of what waits.
    """

    def __init__(
        self,
        work: Callable[[list[Any]], Sequence[Any]],
        most: int = 64,
        deadline: float = 0.01,
        room: int = 256,
    ):
        self._work, self._most, self._deadline, self._room = work, most, deadline, room
        self._waiting: deque[tuple[Any, int, Future]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="batches", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Total size of what waits."""
        with self._changed:
            return sum(size for _, size, _ in self._waiting)

    def submit(self, item: Any, size: int = 1) -> Future:
        """The future result of an item.

        Raises: Full when there is no room, or after `close`.
        """
        future: Future = Future()
        with self._changed:
            if self._closed or sum(s for _, s, _ in self._waiting) + size > self._room:
                raise Full
            self._waiting.append((item, size, future))
            self._changed.notify_all()
        return future

    def close(self) -> None:
        """Take nothing more, finish what waits, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _take(self) -> list[tuple[Any, int, Future]]:
        """The next batch; empty when there will be none."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            end = time.monotonic() + self._deadline
            while not self._closed and sum(size for _, size, _ in self._waiting) < self._most:
                if not self._changed.wait(max(end - time.monotonic(), 0.0)):
                    break
            batch: list[Any] = []
            total = 0
            while self._waiting and (not batch or total + self._waiting[0][1] <= self._most):
                batch.append(self._waiting.popleft())
                total += batch[-1][1]
            return batch

    def _run(self) -> None:
        while batch := self._take():
            # Whoever gave up waiting is not worked for.
            batch = [entry for entry in batch if entry[2].set_running_or_notify_cancel()]
            if not batch:
                continue
            try:
                results = self._work([item for item, _, _ in batch])
            except Exception as error:
                results = [error] * len(batch)
            for (_, _, future), result in zip(batch, results, strict=True):
                if isinstance(result, BaseException):
                    future.set_exception(result)
                else:
                    future.set_result(result)
