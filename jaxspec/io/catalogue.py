"""Catalogues of labels: the Gaia-ESO public release, and plain label tables.

Every number a survey writes for "not measured" becomes NaN here, at the door.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from jaxspec.errors import InputError
from jaxspec.io.columns import check_physical, in_unit, numbers, open_table, strings
from jaxspec.io.solar import solar_scale
from jaxspec.labels import NINE_LABELS, LabelSet

# Columns of the public release; an element's column is its symbol and ionisation stage, neutral first.
GES_COLUMNS = {
    "teff": ("TEFF",),
    "logg": ("LOGG",),
    "fe_h": ("FEH",),
    "al_h": ("AL1",),
    "mg_h": ("MG1",),
    "ca_h": ("CA1", "CA2"),
    "ni_h": ("NI1",),
    "ti_h": ("TI1", "TI2"),
    "si_h": ("SI1", "SI2"),
}
# Codes of the survey's WG14 dictionary after which labels are not to be trusted.
UNTRUSTED = {
    10100: "saturated",
    10103: "bad co-addition",
    10104: "bad normalisation",
    10105: "incomplete spectrum",
    10106: "broken spectrum",
    10302: "no convergence",
    **{code: "outside the grid" for code in range(10303, 10308)},
    10320: "multiple star",
    11020: "vsini too high",
    11050: "vsini too high",
    **{code: "at the edge of the grid" for code in range(13020, 13025)},
    13027: "multiple star",
    20020: "double-lined binary",
}


@dataclass(frozen=True)
class Catalogue:
    """Labels of n stars with their errors.

    - `names`, `files`: the star's name and the file of its spectrum (without folder; "" where not given).
    - `labels, errors [n, k]`: float64 in the order of `label_set`; NaN where not measured, or an upper limit
      only.
    - `snr, velocity, vmic, vsini [n]`: NaN where not given (km/s).
    - `flags`: the PECULI, REMARK and TECH codes of each star. `trusted [n]`: no code that spoils labels.
    - `meta`: the source, the solar scale used, how many values were sentinels.
    """

    label_set: LabelSet
    names: tuple[str, ...]
    files: tuple[str, ...]
    labels: Float[np.ndarray, "n k"]
    errors: Float[np.ndarray, "n k"]
    snr: Float[np.ndarray, " n"]
    velocity: Float[np.ndarray, " n"]
    vmic: Float[np.ndarray, " n"]
    vsini: Float[np.ndarray, " n"]
    flags: tuple[tuple[int, ...], ...]
    trusted: Bool[np.ndarray, " n"]
    meta: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def complete(self) -> Bool[np.ndarray, " n"]:
        """Stars with a finite value and error for every label."""
        return np.isfinite(self.labels).all(1) & np.isfinite(self.errors).all(1)

    def rows(self, which: np.ndarray) -> "Catalogue":
        """The catalogue of these rows (indices or a mask)."""
        index = np.arange(len(self))[which]
        pick = {
            k: getattr(self, k)[index]
            for k in ("labels", "errors", "snr", "velocity", "vmic", "vsini", "trusted")
        }
        lists = {k: tuple(getattr(self, k)[i] for i in index) for k in ("names", "files", "flags")}
        return Catalogue(self.label_set, **lists, **pick, meta=self.meta)


def read_ges_catalogue(
    path: str | Path, label_set: LabelSet = NINE_LABELS, *, solar: str | Mapping[str, float] = "grevesse2007"
) -> Catalogue:
    """Read a FITS (or other astropy-readable) table with the public Gaia-ESO column names.

    Sentinels (real -9.999995e+08, integer -9999 or -1, text 'NONE') and masked cells become NaN. Element
    columns hold A(X) = log eps and become [X/H] = A(X) - A(X)_sun on the `solar` scale ("grevesse2007",
    "asplund2021" or a mapping of label to A(X)), which `meta` records. Where an element has two ionisation
    stages, the neutral one counts and the other fills in. A value with `UPPER_X` or `LIM_X` not 0 is a limit,
    not a measurement, and becomes NaN.

    Raises `InputError` for an unreadable table, a missing column of names or of a label, a column of the
    wrong type, a duplicated star and file, or values that no star has.
    """
    path = Path(path)
    table = open_table(path)
    upper = {name.upper(): name for name in table.colnames}
    scale_name = solar if isinstance(solar, str) else "given"
    scale = solar_scale(solar)
    if "CNAME" not in upper and "OBJECT" not in upper:
        raise InputError(
            str(path),
            "neither CNAME nor OBJECT",
            "a column with the stars' names",
            "is this a Gaia-ESO catalogue?",
        )
    names = strings(table, upper.get("CNAME") or upper["OBJECT"])
    files = (
        tuple(f.rsplit("/", 1)[-1] for f in strings(table, upper["FILENAME"]))
        if "FILENAME" in upper
        else ("",) * len(names)
    )
    sentinels = 0
    n = len(table)
    labels, errors = np.full((n, len(label_set)), np.nan), np.full((n, len(label_set)), np.nan)
    for j, label in enumerate(label_set):
        stages = [c for c in GES_COLUMNS.get(label.name, (label.name.upper(),)) if c in upper]
        if not stages:
            raise InputError(
                str(path),
                f"no column for {label.name}",
                " or ".join(GES_COLUMNS.get(label.name, (label.name.upper(),))),
                "use a table with all labels, or a smaller label set",
            )
        for column in stages:
            value, bad = numbers(table, upper[column], path)
            sentinels += bad
            error, _ = (
                numbers(table, upper[f"E_{column}"], path)
                if f"E_{column}" in upper
                else (np.full(n, np.nan), 0)
            )
            for limit in (f"UPPER_{column}", f"LIM_{column}"):
                if limit in upper:
                    code, _ = numbers(table, upper[limit], path)
                    value = np.where(np.isfinite(code) & (code != 0), np.nan, value)
            if label.name.endswith("_h") and column != "FEH" and label.name in scale:
                # log eps of any star of interest is 2-9; a value near 0 means the table is relative to the
                # Sun already.
                finite = value[np.isfinite(value)]
                if finite.size and np.median(finite) < 2.0:
                    raise InputError(
                        f"{path} column {column}",
                        f"a median of {np.median(finite):.2f}",
                        "log eps = 12 + log10(N_X/N_H), as in the release",
                        "use read_label_table for abundances relative to the Sun",
                    )
                value = value - scale[label.name]
            fill = np.isnan(labels[:, j])
            labels[fill, j] = value[fill]
            errors[fill, j] = np.where(np.isfinite(value), error, np.nan)[fill]
        errors[:, j] = np.where(errors[:, j] > 0, errors[:, j], np.nan)
    check_physical(labels, label_set, str(path))
    optional = {}
    for key, options in {
        "snr": ("SNR",),
        "velocity": ("VRAD", "VEL"),
        "vmic": ("XI",),
        "vsini": ("VSINI",),
    }.items():
        column = next((c for c in options if c in upper), None)
        optional[key] = numbers(table, upper[column], path)[0] if column else np.full(n, np.nan)
    codes = [()] * n
    for column in ("PECULI", "REMARK", "TECH"):
        if column in upper:
            codes = [a + parse_flags(b) for a, b in zip(codes, strings(table, upper[column]), strict=True)]
    trusted = np.array([not any(c in UNTRUSTED for c in row) for row in codes], bool)
    _check_unique(names, files, path)
    meta = {
        "source": str(path),
        "solar_scale": scale_name,
        "solar": {k: scale[k] for k in label_set.names if k in scale},
        "sentinels": sentinels,
    }
    return Catalogue(
        label_set, names, files, labels, errors, **optional, flags=tuple(codes), trusted=trusted, meta=meta
    )


def read_label_table(
    path: str | Path, label_set: LabelSet = NINE_LABELS, *, require: Sequence[str] | None = None
) -> Catalogue:
    """Read a CSV, ECSV or FITS table whose columns are named after the labels.

    Columns: each label of `label_set` in its own unit (a column with another unit is converted, one without
    is taken as is); optional `e_<label>` errors, `vmic`, `vsini`, `velocity` (km/s), `snr`, `source` or
    `name`, `file`. `require` lists the labels that must be there (all by default); others become NaN.

    Raises `InputError` naming the column for one that is missing or not numeric, and the row for a value
    outside the label's bounds. Masked or NaN cells stay NaN, except for required labels.
    """
    path = Path(path)
    table = open_table(path)
    lower = {name.lower(): name for name in table.colnames}
    n = len(table)
    require = label_set.names if require is None else tuple(require)
    missing = [name for name in require if name not in lower]
    if missing:
        raise InputError(
            str(path),
            f"columns {', '.join(table.colnames)}",
            f"also {', '.join(missing)}",
            "add the missing columns",
        )
    labels, errors = np.full((n, len(label_set)), np.nan), np.full((n, len(label_set)), np.nan)
    for j, label in enumerate(label_set):
        if label.name in lower:
            labels[:, j] = in_unit(table, lower[label.name], label.unit, path)
            if label.name in require and np.isnan(labels[:, j]).any():
                row = int(np.flatnonzero(np.isnan(labels[:, j]))[0])
                raise InputError(
                    f"{path} column {label.name} row {row}",
                    "no value",
                    "a number",
                    "fill it in or remove the row",
                )
        if f"e_{label.name}" in lower:
            errors[:, j] = in_unit(table, lower[f"e_{label.name}"], label.unit, path)
    outside = np.isfinite(labels) & ~((labels > label_set.low) & (labels < label_set.high))
    if outside.any():
        row, j = map(int, np.argwhere(outside)[0])
        label = label_set.labels[j]
        raise InputError(
            f"{path} column {label.name} row {row}",
            f"{labels[row, j]:g} {label.unit} ({int(outside.any(1).sum())} such rows)",
            f"a value between {label.low:g} and {label.high:g} {label.unit}",
            "remove the row or check the unit",
        )
    optional = {}
    for key, options, unit in (
        ("snr", ("snr",), ""),
        ("velocity", ("velocity", "vrad", "rv"), "km/s"),
        ("vmic", ("vmic", "xi"), "km/s"),
        ("vsini", ("vsini",), "km/s"),
    ):
        column = next((lower[c] for c in options if c in lower), None)
        optional[key] = in_unit(table, column, unit, path) if column else np.full(n, np.nan)
        if key in ("snr", "vmic", "vsini") and (optional[key] < 0).any():
            row = int(np.flatnonzero(optional[key] < 0)[0])
            raise InputError(
                f"{path} column {column} row {row}",
                f"{optional[key][row]:g}",
                "a value that is not negative",
                "correct the row",
            )
    name_column = next((lower[c] for c in ("source", "name", "cname", "star", "object") if c in lower), None)
    names = strings(table, name_column) if name_column else tuple(str(i) for i in range(n))
    files = strings(table, lower["file"]) if "file" in lower else ("",) * n
    _check_unique(names, files, path)
    return Catalogue(
        label_set,
        names,
        files,
        labels,
        errors,
        **optional,
        flags=((),) * n,
        trusted=np.ones(n, bool),
        meta={"source": str(path)},
    )


def parse_flags(cell: str) -> tuple[int, ...]:
    """Codes of one PECULI, REMARK or TECH cell: `10106-11-02-00-A|13027-13-01-00-C` gives (10106, 13027)."""
    codes = []
    for part in cell.replace("|", " ").replace(",", " ").replace(";", " ").split():
        head = part.split("-")[0]
        if head.isdigit():
            codes.append(int(head))
    return tuple(codes)


def join(names: Sequence[str], catalogue: Catalogue) -> tuple[np.ndarray, np.ndarray]:
    """Match names of spectra to rows of a catalogue by file name first, then by star.

    `names` may be file names or star names; folder, `.gz` and extension do not matter. Returns `(spectrum,
    row)` index arrays of the matches, in the order of `names`. Spectra without a row are not in the result:
    count them.
    """
    by_key: dict[str, int] = {}
    for i, file in enumerate(catalogue.files):
        for part in file.split("|"):
            if part.strip():
                by_key.setdefault(_stem(part), i)
    for i, name in enumerate(catalogue.names):
        by_key.setdefault(_stem(name), i)
    pairs = [(i, by_key[_stem(name)]) for i, name in enumerate(names) if _stem(name) in by_key]
    spectrum, row = (np.array([p[k] for p in pairs], dtype=np.int64) for k in (0, 1))
    return spectrum, row


def _stem(name: str) -> str:
    name = name.strip().rsplit("/", 1)[-1]
    for suffix in (".gz", ".fits", ".fit", ".txt", ".dat", ".csv"):
        name = name.removesuffix(suffix)
    return name


def _check_unique(names: Sequence[str], files: Sequence[str], path: Path) -> None:
    seen: dict[tuple[str, str], int] = {}
    for i, key in enumerate(zip(names, files, strict=True)):
        if key in seen and any(key):
            raise InputError(
                f"{path} rows {seen[key]} and {i}",
                f"the same star {key[0]!r} twice",
                "one row for a star (and file)",
                "remove one of them",
            )
        seen[key] = i
