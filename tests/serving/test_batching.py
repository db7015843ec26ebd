"""Batches: order, sizes, room, and an end that loses nothing."""

import threading
import time

import pytest

from jaxspec.serving.batching import Batcher, Full


def test_what_waits_is_worked_on_together_up_to_the_most():
    started, go, batches = threading.Event(), threading.Event(), []

    def work(items):
        started.set()
        go.wait(10)
        batches.append(list(items))
        return [10 * x for x in items]

    batcher = Batcher(work, most=4, deadline=0.0, room=100)
    first = batcher.submit(0)
    started.wait(10)
    rest = [batcher.submit(i, size) for i, size in ((1, 2), (2, 1), (3, 2), (4, 9), (5, 1))]
    go.set()
    assert [f.result(10) for f in (first, *rest)] == [0, 10, 20, 30, 40, 50]
    # Never more than four, but for an item that is larger by itself.
    assert batches == [[0], [1, 2], [3], [4], [5]]
    batcher.close()


def test_the_first_waits_for_others_only_so_long():
    sizes = []
    batcher = Batcher(lambda items: (sizes.append(len(items)), items)[1], most=8, deadline=0.3, room=100)
    begun = time.monotonic()
    futures = [batcher.submit(i) for i in range(3)]
    assert [f.result(10) for f in futures] == [0, 1, 2]
    assert sizes == [3] and 0.25 < time.monotonic() - begun < 5.0
    begun = time.monotonic()
    [f.result(10) for f in [batcher.submit(i) for i in range(8)]]
    assert sizes[-1] == 8
    batcher.close()


def test_no_room_is_said_at_once_and_the_end_loses_nothing():
    started, go = threading.Event(), threading.Event()

    def work(items):
        started.set()
        go.wait(10)
        return items

    batcher = Batcher(work, most=1, deadline=0.0, room=3)
    accepted = [batcher.submit(0)]
    started.wait(10)
    accepted += [batcher.submit(1, 2), batcher.submit(2)]
    assert batcher.waiting == 3
    with pytest.raises(Full):
        batcher.submit(3)
    closing = threading.Thread(target=batcher.close)
    closing.start()
    time.sleep(0.05)
    with pytest.raises(Full):
        batcher.submit(4, 0)
    go.set()
    closing.join(10)
    assert [f.result(0) for f in accepted] == [0, 1, 2]


def test_an_error_belongs_to_its_item_and_a_crash_to_its_batch():
    def work(items):
        if "crash" in items:
            raise RuntimeError("all")
        return [ValueError(x) if x == "bad" else x for x in items]

    batcher = Batcher(work, most=2, deadline=0.2, room=9)
    bad, good = batcher.submit("bad"), batcher.submit("good")
    assert good.result(10) == "good"
    with pytest.raises(ValueError):
        bad.result(10)
    with pytest.raises(RuntimeError):
        batcher.submit("crash").result(10)
    assert batcher.submit("after").result(10) == "after"
    batcher.close()


def test_a_client_that_left_is_not_worked_for():
    started, go, seen = threading.Event(), threading.Event(), []

    def work(items):
        started.set()
        go.wait(10)
        seen.extend(items)
        return items

    batcher = Batcher(work, most=1, deadline=0.0, room=9)
    first = batcher.submit("first")
    started.wait(10)
    left = batcher.submit("left")
    assert left.cancel()
    go.set()
    batcher.close()
    assert first.result(0) == "first" and seen == ["first"]
