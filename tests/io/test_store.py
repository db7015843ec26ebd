import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.io.store import SpectraStore

P = 500
WAVE = np.linspace(5330.0, 5610.0, P)
UNITS = {"teff": "K", "logg": "dex"}


def block(start, n):
    """Rows that depend on their number only, as a resumable writer's must."""
    rows = [np.random.default_rng(i) for i in range(start, start + n)]
    flux = np.stack([r.random(P, dtype=np.float32) for r in rows])
    ivar = np.stack([r.random(P, dtype=np.float32) for r in rows])
    labels = np.stack([r.random(2) for r in rows])
    return flux, ivar, labels


def fill(store, total, size=7):
    while len(store) < total:
        start = len(store)
        n = min(size, total - start)
        flux, ivar, labels = block(start, n)
        store.append(
            flux,
            ivar,
            labels,
            columns=np.full((n, 1), 50.0),
            names=[f"star {i}" for i in range(start, start + n)],
        )


def make(path, capacity=40, **how):
    return SpectraStore.open_or_create(
        path,
        WAVE,
        **{"capacity": capacity, "labels": UNITS, "columns": {"snr": ""}, "provenance": {"seed": 3}, **how},
    )


def content(path):
    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: found.update(
                {name: (item[()] if isinstance(item, h5py.Dataset) else None, dict(item.attrs))}
            )
        )
        found["/"] = (None, dict(file.attrs))
    return found


def assert_same(a, b):
    a, b = content(a), content(b)
    assert a.keys() == b.keys()
    for name, (value, attrs) in a.items():
        assert attrs == b[name][1]
        if value is not None:
            np.testing.assert_array_equal(value, b[name][0])


def test_what_is_written_is_read_back_and_the_layout_is_plain_hdf5(tmp_path):
    with make(tmp_path / "s.h5") as store:
        fill(store, 40)
    flux, ivar, labels = block(0, 40)
    with SpectraStore.open(tmp_path / "s.h5") as store:
        assert len(store) == 40 and store.names[3] == "star 3"
        rows = [7, 3, 3, 39]
        got = store.read(rows, verify=True)
        np.testing.assert_array_equal(got[0], flux[rows])
        np.testing.assert_array_equal(got[1], ivar[rows])
        np.testing.assert_array_equal(store.labels(), labels)
        np.testing.assert_array_equal(store.labels(["logg"])[:, 0], labels[:, 1])
        assert store.label_units == UNITS and store.provenance == {"seed": 3}
        store.verify()
    with h5py.File(tmp_path / "s.h5") as file:
        assert file["flux"].shape == file["ivar"].shape == (40, P) and file["flux"].chunks == (1, P)
        assert file["labels/teff"].shape == (40,) and file["labels/teff"].attrs["unit"] == "K"
        np.testing.assert_array_equal(file["wavelength"][:], WAVE)


def test_growing_and_trimming_keep_the_content(tmp_path):
    with make(tmp_path / "a.h5", capacity=5) as store:
        fill(store, 40)
    with make(tmp_path / "b.h5", capacity=40) as store:
        fill(store, 40)
    with make(tmp_path / "c.h5", capacity=100) as store:
        fill(store, 40)
    assert_same(tmp_path / "a.h5", tmp_path / "b.h5")
    assert_same(tmp_path / "c.h5", tmp_path / "b.h5")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.h5", "b.h5", "c.h5"]


# Another process with this module's own writer. The stand-in for the package spares it the import of JAX.
WRITER = """
import importlib.util, sys, types
sys.modules["jaxspec.io"] = types.ModuleType("jaxspec.io")
sys.modules["jaxspec.io"].__path__ = [{package!r}]
spec = importlib.util.spec_from_file_location("writer", {test!r})
writer = importlib.util.module_from_spec(spec)
spec.loader.exec_module(writer)
store = writer.make(sys.argv[1], capacity={capacity})
print(len(store), flush=True)
for permit in sys.stdin:
    writer.fill(store, len(store) + 7)
    print(len(store), flush=True)
"""


@pytest.mark.parametrize("capacity", [400, 16])  # in place, and with a file that grows under the writer
def test_kill_9_in_the_middle_then_resume_gives_the_unbroken_file(tmp_path, capacity):
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    script = WRITER.format(package=str(root / "jaxspec" / "io"), test=__file__, capacity=capacity)
    broken = tmp_path / "broken.h5"
    started_at = []
    for rows in (7, 60, 200):
        command = [sys.executable, "-c", script, str(broken)]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        ) as writer:
            written = int(writer.stdout.readline())
            started_at.append(written)
            while written < rows:
                writer.stdin.write(b"go\n")
                writer.stdin.flush()
                written = int(writer.stdout.readline())
            # Three more blocks to be killed in; without the leash a slow test could find the writer finished.
            writer.stdin.write(b"go\n" * 3)
            writer.stdin.flush()
            os.kill(writer.pid, signal.SIGKILL)
    assert started_at[0] == 0 and started_at[1] >= 7 and started_at[2] >= 60
    with make(broken, capacity=capacity) as store:
        assert 200 <= len(store) <= 206 + 21
        fill(store, 400)
    with make(tmp_path / "unbroken.h5", capacity=capacity) as store:
        fill(store, 400)
    assert_same(broken, tmp_path / "unbroken.h5")


def test_rows_without_their_commit_do_not_count(tmp_path):
    store = make(tmp_path / "s.h5", capacity=10)
    fill(store, 4, size=2)
    store._file["flux"][4] = 7.0  # written, but killed before the counter
    store._file.close()
    with make(tmp_path / "s.h5", capacity=10) as store:
        assert len(store) == 4
        fill(store, 10, size=2)
    with make(tmp_path / "t.h5", capacity=10) as store:
        fill(store, 10, size=2)
    assert_same(tmp_path / "s.h5", tmp_path / "t.h5")


def test_a_damaged_row_is_found_and_named(tmp_path):
    with make(tmp_path / "s.h5", capacity=10) as store:
        fill(store, 10)
    with h5py.File(tmp_path / "s.h5", "r+") as file:
        file["ivar"][6, 100] += 1.0
    with SpectraStore.open(tmp_path / "s.h5") as store:
        store.read([5], verify=True)
        with pytest.raises(InputError, match=r"s\.h5 row 6 \(star 6\).*checksum"):
            store.verify()
    with pytest.raises(InputError, match="row 6"):
        SpectraStore.open(tmp_path / "s.h5", "r+")  # a writer does not go on after a damaged tail


def test_resuming_with_other_settings_is_refused(tmp_path):
    make(tmp_path / "s.h5").close()
    for change, match in (
        ({"provenance": {"seed": 4}}, "provenance"),
        ({"labels": {"teff": "K"}}, "labels"),
        ({"labels": dict(reversed(UNITS.items()))}, "order.labels"),
        ({"columns": {}}, "columns"),
    ):
        with pytest.raises(InputError, match=match):
            make(tmp_path / "s.h5", **change)
    with pytest.raises(InputError, match="wavelength"):
        SpectraStore.open_or_create(
            tmp_path / "s.h5",
            WAVE + 1,
            capacity=40,
            labels=UNITS,
            columns={"snr": ""},
            provenance={"seed": 3},
        )
    with pytest.raises(InputError, match="a file"):
        SpectraStore.create(tmp_path / "s.h5", WAVE, capacity=1, labels={})


def test_bad_rows_are_refused_before_they_are_written(tmp_path):
    flux, ivar, labels = block(0, 2)
    bad_ivar, bad_flux = ivar.copy(), flux.copy()
    bad_ivar[0, 3], bad_flux[1, 2] = -1.0, np.nan
    column = np.zeros((2, 1))
    with make(tmp_path / "s.h5") as store:
        for rows, match in (
            ((flux, bad_ivar, labels), "ivar"),
            ((bad_flux, ivar, labels), "flux"),
            ((flux[:, :-1], ivar, labels), "flux.*shape"),
            ((flux, ivar, labels[:, :1]), "labels.*shape"),
        ):
            with pytest.raises(InputError, match=match):
                store.append(*rows, columns=column)
        with pytest.raises(InputError, match="names"):
            store.append(flux, ivar, labels, columns=column, names=["a" * 97, "b"])
        assert len(store) == 0
        store.append(bad_flux, np.where(np.isnan(bad_flux), 0, ivar), labels * np.nan, columns=column)
        with pytest.raises(InputError, match="rows"):
            store.read([2])
        with pytest.raises(InputError, match="no 'vmic'"):
            store.columns(["vmic"])


def test_foreign_and_damaged_files_are_refused(tmp_path, rng):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(InputError, match=r"other\.h5: found format None"):
        SpectraStore.open(tmp_path / "other.h5")
    with pytest.raises(InputError, match="no such file"):
        SpectraStore.open(tmp_path / "none.h5")
    with make(tmp_path / "s.h5", capacity=4) as store:
        fill(store, 4)
    sound = (tmp_path / "s.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(sound[: len(sound) // 2])
    with pytest.raises(InputError, match=r"cut\.h5"):
        SpectraStore.open(tmp_path / "cut.h5")
    truth = block(0, 4)
    for _ in range(60):
        at = int(rng.integers(len(sound)))
        (tmp_path / "d.h5").write_bytes(sound[:at] + rng.bytes(8) + sound[at + 8 :])
        try:
            with SpectraStore.open(tmp_path / "d.h5") as store:
                n = len(store)
                store.verify()
                flux, ivar = store.read(np.arange(n))
        except InputError as error:
            assert "d.h5" in str(error)
            continue
        np.testing.assert_array_equal(flux, truth[0][:n])
        np.testing.assert_array_equal(ivar, truth[1][:n])
