"""Learned arrays on disk: the same format for every kind (emulator, posterior, residuals, calibration).

An artefact is a folder with two files:

    config.json   what it is, in words and numbers that a person may want to read
    arrays.npz    the arrays, without pickled objects

`config.json` says the `kind`, the `format_version`, when and with which versions of packages it was made
(`created_at`, `versions`), for which stars and pixels it holds (`domain`), its `settings`, where it is from
(`provenance`), and of the arrays the `file`, its `bytes` and `sha256`. Reading is refused, with an error that
names the file and what to do, where a file is missing or damaged, of another kind, or of a newer format.

A kind with a file format of its own (the calibration of surveys is netCDF) keeps the same entries inside that
file: `describe` makes them and `check` judges them.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import jaxspec
from jaxspec.errors import InputError
from jaxspec.labels import LabelSet
from jaxspec.runs import atomically, versions

CONFIG, ARRAYS = "config.json", "arrays.npz"
FORMAT_VERSION = 2
"""Format 1 is what each kind had of its own before; its readers stand beside the kinds."""


@dataclass(frozen=True)
class Artefact:
    """An artefact as it was read.

    Attributes:
        config: all of `config.json`.
        arrays: by name, on the host.
    """

    config: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration that the arrays need."""
        return self.config["settings"]


def domain(
    labels: LabelSet | None = None,
    instrument: str | None = None,
    wavelength: Iterable[tuple[float, float]] = (),
    snr: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """For which stars and spectra an artefact holds: range and unit of each label, name of the instrument,
    ranges of wavelength (A, air), range of S/N per pixel. None is not known, or does not matter."""
    ranges = [[float(low), float(high)] for low, high in wavelength]
    return {
        "labels": None
        if labels is None
        else {label.name: {"low": label.low, "high": label.high, "unit": label.unit} for label in labels},
        "instrument": instrument,
        "wavelength": ranges or None,
        "snr": None if snr is None else [float(x) for x in snr],
    }


def describe(
    kind: str, settings: Any, domain: Mapping[str, Any], provenance: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The entries of `config.json` that do not depend on the arrays."""
    return {
        "kind": kind,
        "format_version": FORMAT_VERSION,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "domain": dict(domain),
        "settings": settings,
        "provenance": dict(provenance or {}),
    }


def check(where: str, config: Any, kind: str, remake: str) -> None:
    """Refuse entries that are of no artefact of this kind, or of a newer format, or that are missing.

    Raises: InputError naming `where`; `remake` is what to do about another kind, such as a command.
    """
    if not isinstance(config, Mapping) or "kind" not in config or "format_version" not in config:
        raise InputError(where, "another kind of file", f"the configuration of a stored {kind}", remake)
    if config["kind"] != kind:
        raise InputError(where, f"another kind of artefact: {config['kind']}", kind, remake)
    if config["format_version"] > FORMAT_VERSION:
        raise InputError(
            where,
            f"format {config['format_version']}",
            f"at most {FORMAT_VERSION}",
            "install a newer jaxspec",
        )
    with understood(where, config, remake):
        check_names(config, ENTRIES)
        for name in ("versions", "domain", "settings", "provenance", "arrays"):
            if name not in config:
                raise KeyError(name)


ENTRIES = ("kind", "format_version", "created_at", "versions", "domain", "settings", "provenance", "arrays")
"""Of `config.json`."""


@contextmanager
def understood(where: str, config: Mapping[str, Any], remake: str) -> Iterator[None]:
    """Say of settings that this version does not understand where they are and which version wrote them.

    Raises: InputError naming the file, the field, the version of jaxspec that wrote it and what to do, for an
    error of any kind that reading the settings within ends in.
    """
    try:
        yield
    except (InputError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        writer = dict(config.get("versions") or {}).get("jaxspec", "of an unknown version")
        if isinstance(error, InputError):
            field, found, expected = error.where, error.found, error.expected
        elif isinstance(error, KeyError):
            field, found, expected = str(error).strip("'\""), "no such entry", "an entry that is there"
        else:
            field, found, expected = (
                "settings",
                f"{type(error).__name__}: {error}",
                "settings of this version",
            )
        raise InputError(
            f"{where}, {field}",
            f"{found}; the file was written by jaxspec {writer}, this is jaxspec {jaxspec.__version__}",
            expected,
            f"install the version that wrote it (or a newer one), undo a change of the entry by hand, or "
            f"{remake}",
        ) from error


def check_names(values: Mapping[str, Any], known: Iterable[str], where: str = "") -> None:
    """Raises: InputError naming the first of `values` that is not among the `known` names."""
    known = list(known)
    for name in values:
        if name not in known:
            raise InputError(
                f"{where}{name}", "no such setting", f"one of {', '.join(known)}", "leave it out"
            )


def save(
    folder: str | os.PathLike,
    kind: str,
    arrays: Mapping[str, Any],
    settings: Any,
    domain: Mapping[str, Any],
    provenance: Mapping[str, Any] | None = None,
) -> Path:
    """Write an artefact into `folder` (made if need be); each file appears whole or not at all, and a folder
    with files of two artefacts is refused by `load`. Returns the folder."""
    folder = Path(folder)
    buffer = io.BytesIO()
    plain: dict[str, Any] = {name: np.asarray(array) for name, array in arrays.items()}
    np.savez_compressed(buffer, **plain)
    content = buffer.getvalue()
    config = describe(kind, settings, domain, provenance)
    config["arrays"] = {"file": ARRAYS, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    atomically(folder / ARRAYS, lambda partial: partial.write_bytes(content))
    write_config(folder, config)
    return folder


def write_config(folder: str | os.PathLike, config: Mapping[str, Any]) -> None:
    """Put `config` in place of the one in `folder`; the arrays stay as they are."""
    text = to_json(config)
    atomically(Path(folder) / CONFIG, lambda partial: partial.write_text(text))


def to_json(config: Mapping[str, Any]) -> str:
    """`config` as text; numbers that are not finite stay what they are, which Python reads again."""
    return json.dumps(config, indent=2, default=lambda value: value.tolist()) + "\n"


def read_config(
    folder: str | os.PathLike,
    kind: str,
    remake: str,
    older: Callable[[Any], dict[str, Any] | None] = lambda config: None,
) -> dict[str, Any]:
    """The configuration in `folder`, checked.

    Args:
        remake: what to do about another kind.
        older: makes a configuration of format 1 into one of this format; None where it is not one.

    Raises: InputError as `check`, and when there is no such file, or it is no JSON.
    """
    path = Path(folder) / CONFIG
    try:
        config = json.loads(path.read_text())
    except OSError as error:
        raise InputError(
            str(path), _reason(error), f"the folder of a stored {kind}", f"give its folder, or {remake}"
        ) from error
    except ValueError as error:
        raise InputError(
            str(path), f"no JSON ({error})", f"the configuration of a stored {kind}", "copy it again"
        ) from error
    config = older(config) or config
    check(str(path), config, kind, remake)
    return config


def load(
    folder: str | os.PathLike,
    kind: str,
    remake: str,
    older: Callable[[Any], dict[str, Any] | None] = lambda config: None,
) -> Artefact:
    """Read what `save` wrote; see `read_config`.

    Raises: InputError as `read_config`, and when the arrays are missing or do not match the configuration.
    """
    config = read_config(folder, kind, remake, older)
    return Artefact(config, _read_arrays(Path(folder), config["arrays"]))


def arrays_file(folder: str | os.PathLike, kind: str, remake: str, **how: Any) -> Path:
    """The file of an artefact's arrays: its checksum says which weights a run used, whatever else is written
    into the configuration later."""
    return Path(folder) / read_config(folder, kind, remake, **how)["arrays"]["file"]


def contents(arrays: Mapping[str, Any]) -> str:
    """SHA-256 of arrays, whatever file they are in: their names, types, shapes and numbers."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def check_sha256(where: str, found: str, expected: str) -> None:
    """Raises: InputError when two checksums differ."""
    if found != expected:
        raise InputError(
            where,
            f"sha256 {found[:12]}",
            f"{expected[:12]}",
            "it is damaged, or of another artefact: copy it again",
        )


def _reason(error: OSError) -> str:
    missing = isinstance(error, (FileNotFoundError, NotADirectoryError))
    return "no such file" if missing else f"{error.strerror}"


def _read_arrays(folder: Path, stated: Mapping[str, Any]) -> dict[str, np.ndarray]:
    path = folder / stated["file"]
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            str(path),
            _reason(error),
            "the arrays (weights) beside the configuration",
            "copy the whole folder",
        ) from error
    check_sha256(str(path), hashlib.sha256(content).hexdigest(), stated["sha256"])
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise InputError(
            str(path), f"no arrays ({error})", "a file of plain arrays (.npz)", "make it again"
        ) from error
