"""Many spectra in one HDF5 file: one row a star, one chunk a row, safe against a kill at any moment.

Layout: `flux [n, p]`, `ivar [n, p]` (float32, chunks of one row, no compression), `wavelength [p]` (float64,
attribute `unit` "Angstrom"), `names [n]`, group `labels` with one float64 dataset `[n]` per label (attribute
`unit`), group `columns` likewise for whatever else belongs to a row (label errors, vmic, S/N), `checksum
[n]`, `n_written [1]`; attributes `format`, `format_version` and `provenance` (JSON).

Why a kill cannot hurt: all rows of a file are allocated when it is made, so that adding a row writes data
bytes in place and never HDF5's own structure, which is what a kill in mid-flush would break. Rows count only
once `n_written` says so, and that number is written after the rows. A larger file is made as a copy that
replaces the old one in a single step.
"""

import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike

from jaxspec.errors import InputError
from jaxspec.runs import refuse_other_settings

FORMAT = "jaxspec.spectra"
VERSION = 1
NAME_BYTES = 96
TAIL = 64  # rows whose checksums are verified when a store is opened for writing


class SpectraStore:
    """An open store; use `create`, `open` or `open_or_create`, best in a `with` block.

    Rows below `len(store)` are committed and never change. One process writes; any number may read rows
    already there.
    """

    def __init__(self, path: Path, file: h5py.File):
        self.path = path
        self._bind(file)

    def _bind(self, file: h5py.File) -> None:
        """Hold on to the handles every read needs: looking them up by name costs more than reading a row."""
        self._file = file
        self._spectra = tuple(file[name].id for name in ("flux", "ivar") if name in file)
        self._counter = file.get("n_written")

    @classmethod
    def create(
        cls,
        path: str | Path,
        wavelength: ArrayLike,
        *,
        capacity: int,
        labels: Mapping[str, str],
        columns: Mapping[str, str] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> "SpectraStore":
        """A new, empty store for `capacity` rows on `wavelength [p]` (A, air, at rest).

        `labels` and `columns` map names to astropy unit strings ("K", "dex", "km/s", "" for none).
        `provenance` is kept as JSON: configuration, versions, seed. Raises `InputError` when the file exists
        or an argument cannot be stored.
        """
        path = Path(path)
        if path.exists():
            raise InputError(
                str(path), "a file", "a new path", "open it with SpectraStore.open, or remove it"
            )
        wavelength = np.asarray(wavelength, np.float64)
        if wavelength.ndim != 1 or wavelength.size == 0 or not np.all(np.diff(wavelength) > 0):
            raise InputError(
                f"{path} wavelength",
                f"an array of shape {wavelength.shape}",
                "one increasing axis",
                "sort it",
            )
        if capacity < 1:
            raise InputError(
                "argument capacity", str(capacity), "at least one row", "give the number of stars to write"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        # Made under another name, so that a kill in the middle leaves no half-made store behind.
        partial = path.with_name(path.name + ".partial")
        with h5py.File(partial, "w") as file:
            _layout(
                file, wavelength, capacity, dict(labels), dict(columns or {}), _json(provenance or {}, path)
            )
        os.replace(partial, path)
        return cls.open(path, "r+")

    @classmethod
    def open(cls, path: str | Path, mode: str = "r") -> "SpectraStore":
        """Open a store to read ("r") or to go on writing ("r+").

        For writing, the checksums of the last committed rows are verified; rows written but not committed
        when a writer died are ignored and overwritten. Raises `InputError` for a missing, foreign or damaged
        file.
        """
        path = Path(path)
        if mode not in ("r", "r+"):
            raise InputError("argument mode", repr(mode), "'r' or 'r+'", "give one of the two")
        if not path.exists():
            raise InputError(str(path), "no such file", "a store of spectra", "check the path")
        try:
            file = h5py.File(path, mode)
        except OSError as error:
            raise InputError(
                str(path), str(error), "an HDF5 file", "it is damaged, locked by a writer, or no store"
            ) from error
        store = cls(path, file)
        try:
            with _damage_named(path):
                store._check_layout()
                if mode == "r+":
                    store.verify(range(max(0, len(store) - TAIL), len(store)))
        except InputError:
            file.close()
            raise
        return store

    @classmethod
    def open_or_create(cls, path: str | Path, wavelength: ArrayLike, **how: Any) -> "SpectraStore":
        """Go on with the store at `path` if there is one, else create it: what a resumable writer calls.

        `how` is as for `create`. Raises `InputError` when the file there was made on another axis, with other
        labels or columns or in another order, or with another provenance.
        """
        if not Path(path).exists():
            return cls.create(path, wavelength, **how)
        store = cls.open(path, "r+")
        want: dict[str, Any] = {
            "wavelength": np.asarray(wavelength, np.float64),
            "labels": dict(how["labels"]),
            "columns": dict(how.get("columns") or {}),
            "provenance": json.loads(_json(how.get("provenance") or {}, store.path)),
        }
        have: dict[str, Any] = {
            "wavelength": store.wavelength,
            "labels": store.label_units,
            "columns": store.column_units,
            "provenance": store.provenance,
        }
        for part in (want, have):  # rows are arrays in this order
            part["order"] = {name: list(part[name]) for name in ("labels", "columns")}
        try:
            refuse_other_settings(str(path), have, want)
        except InputError:
            store.close()
            raise
        if store.capacity < how["capacity"]:
            store.reserve(how["capacity"])
        return store

    def __enter__(self) -> "SpectraStore":
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        self.close(trim=kind is None)

    def __len__(self) -> int:
        return int(self._counter[0])

    @property
    def capacity(self) -> int:
        return self._file["flux"].shape[0]

    @property
    def wavelength(self) -> np.ndarray:
        """[p] in A."""
        return self._file["wavelength"][:]

    @property
    def label_units(self) -> dict[str, str]:
        return {name: str(self._file["labels"][name].attrs["unit"]) for name in self._order("labels")}

    @property
    def column_units(self) -> dict[str, str]:
        return {name: str(self._file["columns"][name].attrs["unit"]) for name in self._order("columns")}

    @property
    def provenance(self) -> dict[str, Any]:
        return json.loads(self._file.attrs["provenance"])

    @property
    def names(self) -> list[str]:
        """Names of the committed rows."""
        return [n.decode() for n in self._file["names"][: len(self)]]

    def labels(self, names: Sequence[str] | None = None) -> np.ndarray:
        """Labels of the committed rows, float64 [n, len(names)], all of them in the stored order by
        default."""
        return self._table("labels", names)

    def columns(self, names: Sequence[str] | None = None) -> np.ndarray:
        """The further columns of the committed rows, float64 [n, len(names)]."""
        return self._table("columns", names)

    def append(
        self,
        flux: ArrayLike,
        ivar: ArrayLike,
        labels: ArrayLike,
        *,
        columns: ArrayLike | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        """Write and commit rows: `flux, ivar [n, p]`, `labels [n, n_labels]` in the stored order, `columns
        [n, n_columns]`.

        Labels and columns may be NaN (not known). The block is committed as a whole: after a kill all of its
        rows are there or none. Grows the file when it is full. Raises `InputError` for shapes that do not
        fit, values that no reader could use (`ivar` negative or not finite, flux not finite where ivar > 0),
        or names that are too long.
        """
        flux, ivar = np.atleast_2d(np.asarray(flux, np.float32)), np.atleast_2d(np.asarray(ivar, np.float32))
        n, p = flux.shape[0], self._file["wavelength"].shape[0]
        values = {
            "labels": np.atleast_2d(np.asarray(labels, np.float64)),
            "columns": np.zeros((n, 0))
            if columns is None
            else np.atleast_2d(np.asarray(columns, np.float64)),
        }
        where = f"rows for {self.path}"
        shapes = (
            ("flux", flux, (n, p)),
            ("ivar", ivar, (n, p)),
            ("labels", values["labels"], (n, len(self._order("labels")))),
            ("columns", values["columns"], (n, len(self._order("columns")))),
        )
        for what, array, shape in shapes:
            if array.shape != shape:
                raise InputError(
                    f"{where}, {what}",
                    f"an array of shape {array.shape}",
                    str(shape),
                    "match the store's layout",
                )
        if not np.all(np.isfinite(ivar) & (ivar >= 0)):
            raise InputError(
                f"{where}, ivar",
                "values that are negative or not finite",
                "inverse variances, 0 for a bad pixel",
                "repair them",
            )
        if not np.all(np.isfinite(flux) | (ivar == 0)):
            raise InputError(
                f"{where}, flux",
                "values that are not finite where ivar > 0",
                "finite flux",
                "set ivar to 0 there",
            )
        start = len(self)
        names = [str(start + i) for i in range(n)] if names is None else list(names)
        encoded = [name.encode() for name in names]
        if len(encoded) != n or any(len(e) > NAME_BYTES for e in encoded):
            raise InputError(
                f"{where}, names",
                f"{len(encoded)} names, the longest of {max(map(len, encoded), default=0)} bytes",
                f"{n} names of at most {NAME_BYTES} bytes",
                "shorten them",
            )
        if start + n > self.capacity:
            self.reserve(max(start + n, 2 * self.capacity))
        rows = slice(start, start + n)
        file = self._file
        file["flux"][rows], file["ivar"][rows] = flux, ivar
        file["names"][rows] = np.array(encoded, dtype=f"S{NAME_BYTES}")
        for group, array in values.items():
            for j, name in enumerate(self._order(group)):
                file[group][name][rows] = array[:, j]
        file["checksum"][rows] = [
            _checksum(flux[i], ivar[i], values["labels"][i], values["columns"][i], encoded[i])
            for i in range(n)
        ]
        file.flush()
        file["n_written"][0] = start + n
        file.flush()

    def read(self, rows: ArrayLike, *, verify: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Flux and ivar float32 [len(rows), p] of committed rows, in the order asked for.

        Row by row straight into the result: ten times faster than HDF5's selection of scattered rows. Raises
        `InputError` for rows that are not there and, with `verify`, for a row that does not match its
        checksum.
        """
        rows = np.atleast_1d(np.asarray(rows))
        flux_set, ivar_set = self._spectra
        n, p = len(self), flux_set.shape[1]
        if rows.size and (rows.dtype.kind not in "iu" or rows.min() < 0 or rows.max() >= n):
            raise InputError(
                f"{self.path} rows",
                f"{rows.min()} to {rows.max()}",
                f"integers from 0 to {n - 1}",
                "ask for written rows",
            )
        flux, ivar = np.empty((len(rows), p), np.float32), np.empty((len(rows), p), np.float32)
        space = flux_set.get_space()
        memory = h5py.h5s.create_simple((1, p))
        with _damage_named(self.path):
            for i, row in enumerate(rows.tolist()):
                space.select_hyperslab((row, 0), (1, p))
                flux_set.read(memory, space, flux[i : i + 1])
                ivar_set.read(memory, space, ivar[i : i + 1])
            if verify:
                self._verify(rows, flux, ivar)
        return flux, ivar

    def verify(self, rows: Sequence[int] | range | None = None) -> None:
        """Check rows (all by default) against their checksums. Raises `InputError` that names the first bad
        row."""
        rows = range(len(self)) if rows is None else rows
        for start in range(0, len(rows), TAIL):
            block = np.asarray(rows[start : start + TAIL])
            self.read(block, verify=True)

    def _verify(self, rows: np.ndarray, flux: np.ndarray, ivar: np.ndarray) -> None:
        labels, columns = self.labels(), self.columns()
        stored, names = self._file["checksum"][: len(self)], self._file["names"][: len(self)]
        for i, row in enumerate(rows.tolist()):
            if _checksum(flux[i], ivar[i], labels[row], columns[row], names[row]) != stored[row]:
                raise InputError(
                    f"{self.path} row {row} ({names[row].decode(errors='replace')})",
                    "data that do not match their checksum",
                    "the row as it was written",
                    "the file is damaged: make it again or restore a copy",
                )

    def reserve(self, capacity: int) -> None:
        """Make room for `capacity` rows, or cut unused room off; copies the file and swaps it in one step."""
        n = len(self)
        if capacity < n:
            raise InputError(
                "argument capacity", str(capacity), f"at least the {n} rows written", "ask for more"
            )
        if capacity == self.capacity:
            return
        partial = self.path.with_name(self.path.name + ".partial")
        old = self._file
        with h5py.File(partial, "w") as new:
            _layout(
                new, self.wavelength, capacity, self.label_units, self.column_units, old.attrs["provenance"]
            )
            for name in self._datasets():
                for start in range(0, n, 256):
                    block = slice(start, min(start + 256, n))
                    new[name][block] = old[name][block]
            new["n_written"][0] = n
        old.close()
        os.replace(partial, self.path)
        self._bind(h5py.File(self.path, "r+"))

    def close(self, trim: bool = True) -> None:
        """Close; a store opened for writing gives up the room it did not use (unless `trim` is False), so
        that its arrays end with its rows. A `with` block left by an exception does not trim: the writer will
        be back."""
        if not self._file:
            return
        if trim and self._file.mode == "r+" and 0 < len(self) < self.capacity:
            self.reserve(len(self))
        self._file.close()

    def _datasets(self) -> list[str]:
        tables = [f"{group}/{name}" for group in ("labels", "columns") for name in self._order(group)]
        return ["flux", "ivar", "names", "checksum", *tables]

    def _order(self, group: str) -> list[str]:
        return json.loads(self._file[group].attrs["order"])

    def _table(self, group: str, names: Sequence[str] | None) -> np.ndarray:
        known = self._order(group)
        for name in names or ():
            if name not in known:
                raise InputError(
                    f"{self.path} {group}",
                    f"no {name!r}",
                    f"one of {', '.join(known) or 'none'}",
                    "check the name",
                )
        n = len(self)
        chosen = known if names is None else names
        with _damage_named(self.path):
            columns = [self._file[group][name][:n] for name in chosen]
        return np.stack(columns, -1) if columns else np.zeros((n, 0))

    def _check_layout(self) -> None:
        where, file = str(self.path), self._file
        if file.attrs.get("format") != FORMAT:
            raise InputError(
                where,
                f"format {file.attrs.get('format')!r}",
                repr(FORMAT),
                "this HDF5 file is no store of spectra",
            )
        if file.attrs.get("format_version") != VERSION:
            raise InputError(
                where,
                f"format version {file.attrs.get('format_version')}",
                str(VERSION),
                "use the release that wrote it",
            )
        needed = ["flux", "ivar", "names", "checksum", "wavelength", "n_written", "labels", "columns"]
        missing = [name for name in needed if name not in file]
        if not missing:
            missing = [name for name in self._datasets() if name not in file]
        if missing:
            raise InputError(
                where,
                f"no {', '.join(missing)}",
                "the datasets of a store",
                "the file is damaged: make it again",
            )
        p, n = file["wavelength"].shape[0], len(self)
        if file["flux"].shape[1:] != (p,) or file["ivar"].shape != file["flux"].shape or n > self.capacity:
            raise InputError(
                where,
                f"flux {file['flux'].shape}, ivar {file['ivar'].shape}, {p} wavelengths, {n} rows written",
                "shapes that agree",
                "the file is damaged: make it again",
            )


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """h5py answers damaged structure with exceptions of many types; each becomes an `InputError` with the
    file's name."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            str(path),
            f"{type(error).__name__}: {error}",
            "a sound store",
            "the file is damaged: make it again",
        ) from error


def _layout(
    file: h5py.File, wavelength: np.ndarray, capacity: int, labels: dict, columns: dict, provenance: str
) -> None:
    """All datasets of a store, with every byte of them allocated: see the module's docstring for why."""
    p = len(wavelength)
    for name in ("flux", "ivar"):
        _allocated(file, name, (capacity, p), np.float32, chunks=(1, p))
    file.create_dataset("wavelength", data=wavelength, track_times=False).attrs["unit"] = "Angstrom"
    _allocated(file, "names", (capacity,), np.dtype(f"S{NAME_BYTES}"))
    _allocated(file, "checksum", (capacity,), np.uint32)
    _allocated(file, "n_written", (1,), np.int64)
    for group, units in (("labels", labels), ("columns", columns)):
        file.create_group(group).attrs["order"] = json.dumps(list(units))
        for name, unit in units.items():
            _allocated(file[group], name, (capacity,), np.float64)
            file[group][name].attrs["unit"] = unit
    file.attrs.update({"format": FORMAT, "format_version": VERSION, "provenance": provenance})


def _allocated(
    group: h5py.Group, name: str, shape: tuple[int, ...], dtype: Any, chunks: tuple[int, ...] | None = None
) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_obj_track_times(False)
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    if chunks:
        plist.set_chunk(chunks)
        plist.set_fill_time(h5py.h5d.FILL_TIME_ALLOC)
    kind = h5py.h5t.py_create(np.dtype(dtype), logical=True)
    h5py.h5d.create(group.id, name.encode(), kind, h5py.h5s.create_simple(shape), plist)


def _checksum(
    flux: np.ndarray, ivar: np.ndarray, labels: np.ndarray, columns: np.ndarray, name: bytes
) -> int:
    """CRC-32 over everything a row holds."""
    value = zlib.crc32(np.ascontiguousarray(flux).data)
    for part in (ivar, labels, columns):
        value = zlib.crc32(np.ascontiguousarray(part).data, value)
    return zlib.crc32(name, value)


def _json(provenance: Mapping[str, Any], path: Path) -> str:
    try:
        return json.dumps(provenance, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{path} provenance",
            str(error),
            "values that JSON can hold",
            "convert them to numbers, strings and lists",
        ) from error
