"""Runs that were killed go on to the same numbers, and never with what other settings made."""

import json
import subprocess
import sys
import threading
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.runs import (
    SETTINGS,
    atomically,
    claim,
    first_difference,
    package_data,
    plain,
    recorded,
    resumable,
    tree_arrays,
    tree_from,
)

NAMES = ["a", "b", "c", "d"]
KILLED = """
import os, signal, sys
import numpy as np
from jaxspec.runs import resumable

for item in resumable("abcd", {"seed": 1}, sys.argv[1]):
    if item.name == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)
    item.result(lambda: {"x": np.random.default_rng(ord(item.name)).normal(size=5)})
print("done")
"""


def squares(names, folder, settings=None, made=None):
    """Each piece's array; the names of those that were not found go to `made`."""

    def make(name):
        if made is not None:
            made.append(name)
        return {"x": np.random.default_rng(ord(name)).normal(size=5)}

    items = resumable(names, {"seed": 1} if settings is None else settings, folder)
    return {item.name: item.result(partial(make, item.name))["x"] for item in items}


def equal(one, other):
    assert one.keys() == other.keys()
    for name, x in one.items():
        np.testing.assert_array_equal(x, other[name])


def run(folder, kill="nothing"):
    return subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder), kill], stdout=subprocess.PIPE, text=True
    )


def test_a_killed_run_goes_on_to_the_same_numbers(tmp_path):
    process = run(tmp_path, kill="c")
    process.communicate()
    assert process.returncode == -9
    assert sorted(path.name for path in tmp_path.glob("*.npz")) == ["a.npz", "b.npz"]
    made = []
    equal(squares(NAMES, tmp_path, made=made), squares(NAMES, None))
    assert made == ["c", "d"]


def test_a_longer_list_goes_on_with_a_shorter_one(tmp_path):
    squares(NAMES[:2], tmp_path)
    made = []
    equal(squares(NAMES, tmp_path, made=made), squares(NAMES, None))
    assert made == ["c", "d"]


def test_without_a_folder_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    item = next(resumable(["a"], {}, None))
    assert not item.done
    item.save(x=np.ones(3))
    assert not item.done and not list(tmp_path.iterdir())
    assert isinstance(item.result(lambda: {"x": jnp.ones(3)})["x"], np.ndarray)


@pytest.mark.parametrize(
    ("was", "now", "name"),
    [
        ({"seed": 1}, {"seed": 2}, "seed"),
        ({"seed": 1}, {"seed": 1, "steps": 3}, "steps"),
        ({"seed": 1, "steps": 3}, {"seed": 1}, "steps"),
        ({"model": {"trend": "linear", "k": 1}}, {"model": {"trend": "spline", "k": 1}}, "model.trend"),
        ({"arms": [{"low": 1.0}, {"low": 2.0}]}, {"arms": [{"low": 1.0}, {"low": 3.0}]}, "arms.1.low"),
        ({"snr": float("inf")}, {"snr": float("nan")}, "snr"),
        ({"snr": float("inf")}, {"snr": None}, "snr"),
        ({"key": jax.random.key(1)}, {"key": jax.random.key(2)}, "key"),
        ({"data": np.arange(5000.0)}, {"data": np.arange(5000.0) + (np.arange(5000) == 2500)}, "data"),
        ({"data": np.arange(100)}, {"data": np.arange(100).reshape(10, 10)}, "data"),
        ({"data": np.arange(100.0)}, {"data": np.arange(100, dtype=np.float32)}, "data"),
        ({"link": np.exp}, {"link": np.log}, "link"),
        ({"link": jnp.sin}, {"link": jnp.cos}, "link"),
    ],
)  # fmt: skip
def test_other_settings_are_refused_by_name(tmp_path, was, now, name):
    claim(tmp_path, was)
    claim(tmp_path, was)
    with pytest.raises(InputError, match="another folder") as error:
        next(resumable(["a"], now, tmp_path))
    assert error.value.where == f"{tmp_path}, {name}"
    assert first_difference(was, now) == name and first_difference(was, was) is None


def test_settings_hold_what_numbers_depend_on(tmp_path):
    @dataclass(frozen=True)
    class Data:
        flux: np.ndarray
        names: tuple[str, ...]

    flux = np.random.default_rng(0).normal(size=(1000, 7))
    np.save(tmp_path / "flux.npy", flux)
    mapped = np.load(tmp_path / "flux.npy", mmap_mode="r")
    data = recorded(Data(flux, ("a", "b")))
    assert data == recorded(Data(mapped, ("a", "b"))) == json.loads(json.dumps(data))
    assert data["flux"].startswith("sha256") and data["names"] == ["a", "b"]
    assert recorded(jnp.float32(0.5)) == 0.5 and recorded(np.arange(3)) == [0, 1, 2]
    assert recorded(flux) == recorded(flux.copy()) != recorded(-flux)
    assert plain({"x": np.float32(np.nan), "y": (1, np.int64(2))}) == {"x": None, "y": [1, 2]}
    assert recorded(partial(pow, 2)) == recorded(partial(pow, 2)) != recorded(partial(pow, 3))
    # Two of them could have the same name.
    for unknown in (object(), lambda x: x):
        with pytest.raises(TypeError, match="settings hold a"):
            recorded({"x": unknown})


def flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("damage", [flipped, lambda x: x[:-50], lambda x: b"", lambda x: b"nothing"])
def test_a_damaged_file_says_to_delete_it(tmp_path, damage):
    squares(["a"], tmp_path)
    (tmp_path / "a.npz").write_bytes(damage((tmp_path / "a.npz").read_bytes()))
    with pytest.raises(InputError, match=r"a\.npz: found a damaged file.*delete this file"):
        squares(["a"], tmp_path)
    (tmp_path / "a.npz").unlink()
    equal(squares(["a"], tmp_path), squares(["a"], None))


def test_settings_that_are_lost_or_damaged(tmp_path):
    squares(["a"], tmp_path)
    (tmp_path / SETTINGS).write_text("{")
    with pytest.raises(InputError, match="delete the folder"):
        squares(["a"], tmp_path)
    (tmp_path / SETTINGS).unlink()
    with pytest.raises(InputError, match="nobody knows what made them"):
        squares(["a"], tmp_path)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "checkpoints").mkdir()
    with pytest.raises(InputError, match="nobody knows what made them"):
        claim(tmp_path / "b", {}, results=("checkpoints",))


def test_two_processes_share_a_folder(tmp_path):
    both = [run(tmp_path) for _ in range(2)]
    assert [process.communicate()[0] for process in both] == ["done\n"] * 2
    made = []
    equal(squares(NAMES, tmp_path, made=made), squares(NAMES, None))
    assert made == [] and sorted(path.name for path in tmp_path.iterdir()) == [
        *(f"{name}.npz" for name in NAMES),
        SETTINGS,
    ]


def test_of_two_with_other_settings_one_is_refused(tmp_path):
    for attempt in range(20):
        barrier, outcome = threading.Barrier(2), []

        def go(seed, folder=tmp_path / str(attempt), barrier=barrier, outcome=outcome):
            barrier.wait()
            try:
                claim(folder, {"seed": seed})
                outcome.append("claimed")
            except InputError:
                outcome.append("refused")

        threads = [threading.Thread(target=go, args=(seed,)) for seed in (1, 2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcome) == ["claimed", "refused"]


def test_all_data_of_the_package_are_on_record():
    """What a synthesis reads: another list of corrected lines makes other spectra."""
    names = set(package_data())
    assert {"lines.npz", "atlas9.npz", "calibrated.csv", "emulator/arrays.npz"} <= names


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.txt"
    atomically(path, lambda partial: partial.write_text("old"))

    def fail(partial):
        partial.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomically(path, fail)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    atomically(path, lambda partial: partial.write_text("new"), first=True)
    assert path.read_text() == "old"
    atomically(path, lambda partial: partial.write_text("new"))
    assert path.read_text() == "new"


def test_states_go_through_a_file(tmp_path):
    state = {"key": jax.random.key(3), "x": jnp.arange(4.0), "n": jnp.int32(2)}
    item = next(resumable(["state"], {}, tmp_path))
    item.save(step=5, **tree_arrays(state))
    saved = item.load()
    again = tree_from(jax.tree.map(lambda x: x, state), saved)
    assert int(saved["step"]) == 5 and jax.random.normal(again["key"]) == jax.random.normal(state["key"])
    np.testing.assert_array_equal(again["x"], state["x"])
    assert again["n"].dtype == jnp.int32
