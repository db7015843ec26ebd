"""A run's files: written whole, with what their numbers depend on, and gone on with after a kill.

Importing this module imports no JAX.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
import math
import os
import platform
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import yaml

import jaxspec
from jaxspec import stopping
from jaxspec.errors import InputError

log = logging.getLogger(__name__)

PACKAGES = (
    *("jax", "jaxlib", "flax", "optax", "distrax", "diffrax", "numpyro", "tfp-nightly", "equinox"),
    *("orbax-checkpoint", "numpy", "scipy", "astropy", "h5py", "xarray", "hydra-core", "omegaconf"),
)
SETTINGS = "settings.json"
CACHE_BYTES = 2 * 1024**3  # of compiled programs
SHORT, BLOCK = 16, 100_000  # numbers that settings keep one by one; rows of an array that are read at a time


# --- files


def atomically(path: str | Path, write: Callable[[Path], Any], *, first: bool = False) -> Path:
    """Call `write` with a temporary path in the same folder, then put the result in place in one step.

    Whatever happens on the way, `path` holds either the old file or the complete new one. The temporary name
    keeps the suffix, by which writers choose a format. With `first`, a file that is there already stays.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    partial = Path(name)
    try:
        write(partial)
        with open(partial, "rb") as done:
            os.fsync(done.fileno())
        # mkstemp makes private files; results have the permissions of any other new file.
        mask = os.umask(0)
        os.umask(mask)
        partial.chmod(0o666 & ~mask)
        if first:
            _link(partial, path)
        else:
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _link(partial: Path, path: Path) -> None:
    try:
        os.link(partial, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        os.replace(partial, path)


def check_folder(folder: str | Path) -> Path:
    """Make a folder for results, and see that files can be written into it: before the work, not after it.

    Raises: InputError when it is a file, or cannot be made or written to.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except FileExistsError as error:
        raise InputError(
            f"output {folder}", "a file", "a folder", "choose another folder, or move the file"
        ) from error
    except OSError as error:
        raise InputError(
            f"output {folder}",
            f"a folder that cannot be written to ({error.strerror or error})",
            "a folder for the results",
            "choose another folder, or mend its permissions",
        ) from error
    return folder


def write_json(path: str | Path, value: Any) -> Path:
    """Write JSON atomically; numbers that are not finite become null, arrays lists."""
    text = json.dumps(plain(value), indent=2) + "\n"
    return atomically(path, lambda partial: partial.write_text(text))


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: dataclasses and mappings become objects, arrays and tuples lists, paths
    text, numbers that are not finite null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    return value if isinstance(value, (bool, int, type(None))) else str(value)


def recorded(value: Any) -> Any:
    """`value` as settings are kept: as `plain`, but nothing that could differ is left out.

    An array (NumPy or JAX, mapped from disk or not) of more than a few numbers becomes its checksum, a key
    its numbers, a function its name, a number that is not finite its text.

    Raises: TypeError for an object that nothing is known of, since it could not be compared.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: recorded(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): recorded(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [recorded(v) for v in value]
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return _recorded_array(value)
    if isinstance(value, functools.partial):
        return recorded({"function": value.func, "args": value.args, **value.keywords})
    if callable(value) and "<" not in getattr(value, "__qualname__", "<"):  # no lambda, no closure
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str, os.PathLike)):
        return plain(value)
    known = "numbers, text, arrays, dataclasses, or functions of a module"
    raise TypeError(f"settings hold a {type(value).__name__}, {value!r}; give {known}")


def _recorded_array(array: Any) -> Any:
    array = array if isinstance(array, np.ndarray) else _numbers(array)
    if array.size <= SHORT or array.dtype.hasobject:
        return recorded(array.tolist())
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
    for start in range(0, len(array), BLOCK):
        digest.update(np.ascontiguousarray(array[start : start + BLOCK]).view(np.uint8).data)
    return f"sha256 {digest.hexdigest()[:16]}"


def checksum(path: str | Path) -> str:
    """SHA-256 of a file, or of the names and contents of a folder's files; "missing" where there is none."""
    path, digest = Path(path), hashlib.sha256()
    if not path.exists():
        return "missing"
    for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
        digest.update(str(file.relative_to(path)).encode() if path.is_dir() else b"")
        with file.open("rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


# --- provenance


def begin(folder: str | Path, settings: Any, inputs: Iterable[str | Path] = (), **facts: Any) -> Path:
    """Make a run's folder with `config.yaml` (its settings) and `provenance.json` (command, seed, versions,
    device, checksums of the `inputs`, and further facts). Returns the folder."""
    folder, settings = check_folder(folder), plain(settings)
    text = yaml.safe_dump(settings, sort_keys=False, width=110)
    atomically(folder / "config.yaml", lambda partial: partial.write_text(text))
    inputs = list(inputs)
    for name in ("forward", "lines", "instrument"):
        path = str(settings.get(name) or "")
        named = name == "instrument" and not path.endswith((".yaml", ".yml"))
        if path and path not in map(str, inputs) and not named and Path(path).exists():
            inputs.append(path)
    write_json(folder / "provenance.json", {**provenance(settings.get("seed"), inputs), **facts})
    log.info("writing to %s", folder)
    return folder


def provenance(seed: int | None = None, inputs: Iterable[str | Path] = ()) -> dict[str, Any]:
    """Facts that the numbers of a run depend on, beside its settings: command, seed, versions, device, and
    checksums of `inputs` and of the package's data."""
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "seed": seed,
        "versions": versions(),
        "device": describe_device(),
        "checksums": {str(path): checksum(path) for path in inputs},
        "package_data": package_data(),
    }


def package_data() -> dict[str, str]:
    """Checksums of the package's data: lines and their corrections, atmospheres, atoms, the emulator."""
    data = Path(str(resources.files("jaxspec.physics.data")))
    files = sorted(path for path in data.rglob("*") if path.suffix in (".npz", ".csv"))
    return {path.relative_to(data).as_posix(): checksum(path) for path in files}


def versions() -> dict[str, str]:
    """Versions of jaxspec, Python and the packages that numbers depend on."""
    found = {"jaxspec": jaxspec.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def describe_device() -> str:
    """The device that JAX computes on, in words."""
    import jax

    devices = jax.devices()
    return f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform}), {os.cpu_count()} CPU cores"


def named_key(seed: int, name: str) -> Any:
    """JAX key of one purpose ("training", "test", ...): streams of different names do not overlap."""
    import jax

    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))


# --- compiled programs


def use_compilation_cache() -> Path | None:
    """Keep compiled programs on disk for the next process, and return the folder.

    It is `$JAXSPEC_CACHE`, by default `jaxspec/programs` in the user's cache folder; `JAXSPEC_CACHE=off`
    keeps nothing. The programs that were not used for longest are removed beyond `CACHE_BYTES`. A cache that
    JAX was given (`$JAX_COMPILATION_CACHE_DIR`) is left to JAX.
    """
    import jax

    if jax.config.values["jax_compilation_cache_dir"]:
        return None
    where = os.environ.get("JAXSPEC_CACHE") or str(platformdirs.user_cache_path("jaxspec") / "programs")
    if where.lower() in ("off", "0", "no", "false"):
        return None
    folder = Path(where).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        prune(folder, CACHE_BYTES)
    except OSError as error:
        log.warning("compiled programs are not kept: %s", error)
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    return folder


def prune(folder: Path, limit: int) -> int:
    """Remove the files of a folder that were not used for longest until the rest take at most `limit` bytes;
    returns how many were removed. Files that another process removes meanwhile are passed over."""
    files = []
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            stat = path.stat()
            if path.is_file():
                files.append((max(stat.st_atime, stat.st_mtime), stat.st_size, path))
    total, removed = sum(size for _, size, _ in files), 0
    for _, size, path in sorted(files):
        if total <= limit:
            break
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        total, removed = total - size, removed + 1
    return removed


# --- going on after a kill


@dataclass(frozen=True)
class Item:
    """One piece of a run's work, and its arrays on disk.

    A long piece may save how far it came, as often as it likes, and begin from `load()` where it is `done`.

    Attributes:
        name: of the file, without suffix.
        path: the file; None where nothing is kept.
    """

    name: str
    path: Path | None = None

    @property
    def done(self) -> bool:
        """Whether an earlier run with the same settings saved this piece."""
        return self.path is not None and self.path.exists()

    def load(self) -> dict[str, np.ndarray]:
        """The arrays that were saved.

        Raises: InputError when the file cannot be read.
        """
        assert self.path is not None, "load() of an item that is not done"
        try:
            # NumPy leaves a file open that it opened itself and that ends early.
            with self.path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                stopping.keep(f"piece {self.name} in {self.path.parent}")
                return {name: stored[name] for name in stored.files}
        except Exception as error:  # zipfile and zlib have errors of their own
            raise InputError(
                str(self.path),
                f"a damaged file ({type(error).__name__}: {str(error)[:120]})",
                "arrays of an earlier run",
                "delete this file: it is then made again",
            ) from error

    def save(self, **arrays: Any) -> None:
        """Keep the arrays of this piece, atomically; nothing where no folder was given."""
        if self.path is not None:
            atomically(self.path, lambda partial: np.savez(partial, **arrays))
            stopping.keep(f"piece {self.name} in {self.path.parent}")

    def result(self, make: Callable[[], Mapping[str, Any]]) -> dict[str, np.ndarray]:
        """The stored arrays, or those that `make` returns, which are then kept."""
        if self.done:
            return self.load()
        arrays = {name: np.asarray(array) for name, array in make().items()}
        self.save(**arrays)
        return arrays


UNKEPT = Item("unkept")
"""A piece that is not kept: what functions with a piece of their own take by default."""


def resumable(items: Iterable[str], settings: Any, folder: str | os.PathLike | None) -> Iterator[Item]:
    """Pieces of work that survive a kill: an `Item` for each name, with what an earlier run of the same
    `settings` kept in `folder`.

        for item in resumable(["a", "b"], settings, folder):
            arrays = item.result(lambda: {"x": slow(item.name)})

    `settings` is everything that the pieces depend on but the number of items: a longer list goes on with a
    shorter one's folder. It is a mapping or a dataclass of numbers, text, arrays, keys, functions and other
    mappings and dataclasses (`recorded`). With `folder=None` nothing is kept. Two processes may share a
    folder: each makes what it does not find, and a file is one's or the other's as a whole.

    Raises: InputError when the folder belongs to other settings, naming the first that differs.
    """
    place = None if folder is None else Path(folder)
    if place is not None:
        claim(place, settings)
    return (Item(name, None if place is None else place / f"{name}.npz") for name in items)


def claim(folder: str | os.PathLike, settings: Any, results: Iterable[str] = ("*.npz",)) -> None:
    """Record `settings` in `folder`, which from then on belongs to them.

    `results` are patterns of what is not gone on with unless it is known what made it.

    Raises: InputError when the folder belongs to other settings, or holds results that no settings are known
    of.
    """
    folder = Path(folder)
    path, now = folder / SETTINGS, recorded(settings)
    if not path.exists():
        if any(any(folder.glob(pattern)) for pattern in results):
            raise InputError(
                str(folder),
                f"results without {SETTINGS}, so that nobody knows what made them",
                "an empty folder, or one of an earlier run",
                "choose another folder, or delete this one",
            )
        text = json.dumps(now, indent=2) + "\n"
        atomically(path, lambda partial: partial.write_text(text), first=True)
    try:
        was = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            str(path),
            f"a damaged file ({error})",
            "the settings of an earlier run",
            f"delete the folder {folder}, or choose another",
        ) from error
    refuse_other_settings(str(folder), was, now)


def refuse_other_settings(where: str, was: Any, now: Any) -> None:
    """Compare the settings of an earlier run with those of this one.

    Raises: InputError naming the first entry that differs, as in `where, a.b`.
    """
    name = first_difference(was, now)
    if name is not None:
        old, new = (_leaves(recorded(x)).get(name, "nothing") for x in (was, now))
        raise InputError(
            f"{where}, {name}",
            f"{old} of an earlier run",
            f"{new}",
            "choose another folder, or the settings of that run",
        )


def first_difference(was: Any, now: Any) -> str | None:
    """Name of the first entry in which two settings differ, such as `model.trend`; None where they agree."""
    old, new = (_leaves(recorded(x)) for x in (was, now))
    both = old.keys() & new.keys()
    return next((name for name in [*new, *old] if name not in both or old[name] != new[name]), None)


def _leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, list) and any(isinstance(x, (Mapping, list)) for x in value):
        value = {str(i): x for i, x in enumerate(value)}
    if isinstance(value, Mapping) and value:
        return {k: v for name, x in value.items() for k, v in _leaves(x, f"{prefix}.{name}").items()}
    return {prefix.lstrip(".") or "settings": value}


def tree_arrays(tree: Any, name: str = "state") -> dict[str, np.ndarray]:
    """The leaves of a pytree by name, to `Item.save`; keys become their numbers."""
    import jax

    return {f"{name}_{i}": _numbers(leaf) for i, leaf in enumerate(jax.tree.leaves(tree))}


def tree_from(template: Any, arrays: Mapping[str, np.ndarray], name: str = "state") -> Any:
    """A pytree like `template`, with the leaves that `tree_arrays` named."""
    import jax
    import jax.numpy as jnp

    leaves, structure = jax.tree.flatten(template)
    new = [jnp.asarray(arrays[f"{name}_{i}"]) for i in range(len(leaves))]
    new = [jax.random.wrap_key_data(x) if _is_key(leaf) else x for x, leaf in zip(new, leaves, strict=True)]
    return jax.tree.unflatten(structure, new)


def _numbers(leaf: Any) -> np.ndarray:
    import jax

    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _is_key(leaf: Any) -> bool:
    return str(getattr(leaf, "dtype", "")).startswith("key<")
