"""Every kind of weights in the same two files; what cannot be used is refused with what to do."""

import json
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from jaxspec import artefacts
from jaxspec.errors import InputError
from jaxspec.labels import NINE_LABELS

ARRAYS = {"weight": np.arange(6.0, dtype=np.float32).reshape(2, 3), "empty": np.zeros((0, 4), np.float16)}
REMAKE = "make it with experiments.thing"


@pytest.fixture
def folder(tmp_path):
    domain = artefacts.domain(NINE_LABELS, "giraffe", [(5330.0, 5610.0)], (5.0, 300.0))
    settings = {"width": 3, "limit": float("inf"), "scale": np.float32(0.5)}
    return artefacts.save(tmp_path / "thing", "thing", ARRAYS, settings, domain, {"seed": 1})


def test_it_comes_back_and_says_what_it_is(folder):
    stored = artefacts.load(folder, "thing", REMAKE)
    assert stored.settings == {"width": 3, "limit": float("inf"), "scale": 0.5}
    assert stored.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(stored.arrays[name], array)
        assert stored.arrays[name].dtype == array.dtype
    config = stored.config
    assert config["kind"] == "thing" and config["format_version"] == artefacts.FORMAT_VERSION
    assert config["domain"]["labels"]["teff"] == {"low": 3800.0, "high": 7200.0, "unit": "K"}
    assert config["domain"]["wavelength"] == [[5330.0, 5610.0]] and config["domain"]["snr"] == [5.0, 300.0]
    assert config["provenance"] == {"seed": 1} and "jax" in config["versions"]
    assert config["arrays"]["bytes"] == (folder / "arrays.npz").stat().st_size
    assert artefacts.arrays_file(folder, "thing", REMAKE) == folder / "arrays.npz"
    assert sorted(path.name for path in folder.iterdir()) == ["arrays.npz", "config.json"]


def changed(folder, **entries):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **entries}))


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "where", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "config.json", "no such file.*give its folder"),
        (lambda f: (f / "config.json").write_text("{"), "config.json", "no JSON"),
        (lambda f: (f / "config.json").write_text("[1]"), "config.json", f"another kind of file.*{REMAKE}"),
        (lambda f: changed(f, kind="other"), "config.json", f"other; expected thing; {REMAKE}"),
        (lambda f: changed(f, format_version=99), "config.json", "format 99.*install a newer jaxspec"),
        (lambda f: (f / "arrays.npz").unlink(), "arrays.npz", "no such file.*copy the whole folder"),
        (lambda f: flip(f / "arrays.npz"), "arrays.npz", "sha256.*copy it again"),
        (lambda f: (f / "arrays.npz").write_bytes(b""), "arrays.npz", "sha256.*copy it again"),
    ],
)
def test_damage_is_named(folder, damage, where, message):
    damage(folder)
    with pytest.raises(InputError, match=f"(?s){message}") as error:
        artefacts.load(folder, "thing", REMAKE)
    assert error.value.where == str(folder / where)


def test_pickled_objects_are_not_read(folder):
    artefacts.save(folder, "thing", {"x": np.array([object()])}, {}, artefacts.domain())
    with pytest.raises(InputError, match=r"no arrays.*plain arrays"):
        artefacts.load(folder, "thing", REMAKE)


def test_files_of_two_artefacts_are_refused(folder, tmp_path):
    other = artefacts.save(tmp_path / "other", "thing", {"weight": np.ones(3)}, {}, artefacts.domain())
    (folder / "arrays.npz").write_bytes((other / "arrays.npz").read_bytes())
    with pytest.raises(InputError, match="sha256"):
        artefacts.load(folder, "thing", REMAKE)


@pytest.mark.parametrize(
    ("package", "folder", "kind", "contents"),
    [
        (
            *("jaxspec.physics.data", "emulator", "emulator"),
            "66c4e4ff935dce69e9c76c690d015541aca8ff894ab6a731ff924a6612aebc13",
        ),
        (
            *("jaxspec.amortised", "weights/giraffe", "posterior"),
            "e461666805844a4dfc7a0004bd3e3c4d97b16f4de2613e76eaf25e8f6e134702",
        ),
    ],
)
def test_shipped_weights_are_those_of_before(package, folder, kind, contents):
    """The sums are of the arrays as they were in files of format 1."""
    stored = artefacts.load(Path(str(resources.files(package))) / folder, kind, REMAKE)
    assert artefacts.contents(stored.arrays) == contents
    assert (
        stored.config["domain"]["labels"]["fe_h"]["unit"] == "dex" and stored.config["domain"]["wavelength"]
    )
