"""The entries that describe a survey's table: the column map that every reader works from.

`parse_table` and `parse_file` take what a small YAML file says (nested dictionaries and lists; reading YAML
is left to the caller) and answer anything they do not understand with the place of it.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxspec.catalogues.identifiers import KINDS
from jaxspec.errors import InputError
from jaxspec.labels import LABELS

IDENTIFIERS = (*KINDS, "gaia_dr3", "ra", "dec", "pmra", "pmdec", "epoch")
TABLE_ENTRIES = (
    *("name", "file", "format", "hdu", "columns", "errors", "flags", "identifiers", "anchor"),
    *("zero_point_error", "cluster", "magnitude", "select", "missing", "solar_scale", "duplicates", "units"),
    "stars",
)
FILE_ENTRIES = ("tables", "labels", "solar_scale", "radius")
# Other words for the same entries, which people write without thinking.
SYNONYMS = {"surveys": "tables", "path": "file", "ids": "identifiers", "flag": "flags"}
QUANTITY_ENTRIES = (
    *("column", "unit", "relative_to", "absolute", "error", "otherwise"),
    *("flag", "flag_bits", "missing"),
)
FLAG_ENTRIES = ("column", "bits", "values", "contains", "not_values", "below", "above", "meaning")


@dataclass(frozen=True)
class Quantity:
    """Where a label stands in a table.

    - `column`: its name, `name[2]` for one element of a vector column. `unit`: overrides the table's own.
    - `relative_to`: "fe_h" for an [X/Fe]: the label is the column plus that label. `absolute`: the column is
      A(X) = log10(N_X/N_H) + 12.
    - `error`: a column, two columns (up and down, averaged) or a number in the label's unit, of the quantity
      in the column; `otherwise`: the error where that column has none.
    - `rounded`: the table rounds its errors, so that 0 is a small one; otherwise 0 is none.
    - `flag`: a column; where it is not 0 (or has any of the bits of the mask `flag_bits`) there is no value.
    - `missing`: numbers that stand for no value, beside those that are always taken for it.
    """

    column: str
    unit: str | None = None
    relative_to: str | None = None
    absolute: bool = False
    error: str | tuple[str, str] | float | None = None
    otherwise: float | None = None
    rounded: bool = True
    flag: str | None = None
    flag_bits: int | None = None
    missing: tuple[float, ...] = ()


@dataclass(frozen=True)
class FlagRule:
    """When a row is suspect: its `column` has any of the `bits` (positions; none given: is not 0), is one of
    `values` (or none of `not_values`), contains a piece of text, or lies below or above a limit."""

    column: str
    bits: tuple[int, ...] = ()
    values: tuple[Any, ...] = ()
    not_values: tuple[Any, ...] = ()
    contains: tuple[str, ...] = ()
    below: float | None = None
    above: float | None = None
    meaning: str = ""


@dataclass(frozen=True)
class TableSpec:
    """One table: its file, its format, and what its columns mean. See docs/surveys.md for each entry.

    `facts` are columns of further numbers by name (`snr`, `velocity`, `vmic`, `vsini`), and `spectrum` is the
    column with the file of each star's spectrum: known layouts fill them in.
    """

    name: str
    file: Path
    format: str = "generic"
    hdu: int | str | None = None
    columns: Mapping[str, tuple[Quantity, ...]] = field(default_factory=dict)  # alternatives, best first
    identifiers: Mapping[str, str | float] = field(default_factory=dict)
    flags: tuple[FlagRule, ...] = ()
    anchor: bool = False
    zero_point_error: Mapping[str, float] = field(default_factory=dict)
    cluster: str | None = None
    magnitude: Mapping[str, str] = field(default_factory=dict)  # band to column
    select: Mapping[str, Any] = field(default_factory=dict)
    missing: tuple[float, ...] = ()
    solar_scale: str | Mapping[str, float] | None = None
    duplicates: str = "keep"
    facts: Mapping[str, str] = field(default_factory=dict)
    spectrum: str | None = None
    stars: Path | None = None  # of a posterior: a table that says which spectrum is of which star


@dataclass(frozen=True)
class SurveysFile:
    """All tables, the labels wanted (None: all that the tables name), the common solar scale, and the radius
    [arcsec] of matches by position."""

    tables: tuple[TableSpec, ...]
    labels: tuple[str, ...] | None = None
    solar_scale: str | Mapping[str, float] | None = None
    radius: float = 2.0


def parse_file(content: Any, folder: str | Path, where: str = "surveys") -> SurveysFile:
    """The content of a surveys file. `folder` is what relative paths are relative to; `$NAME` in a path is
    replaced by the environment's value.

    `tables` (or the whole content) is a list of tables, or a mapping of names to tables. Raises `InputError`
    naming the table and entry of what is not understood, and for tables of the same name.
    """
    content = _synonyms(content, where)
    if isinstance(content, Mapping) and "tables" not in content and "file" in content:
        content = {"tables": [content]}
    if isinstance(content, Sequence) and not isinstance(content, str):
        content = {"tables": content}
    _known(content, FILE_ENTRIES, where)
    tables = content.get("tables")
    if isinstance(tables, Mapping):
        named = []
        for name, entry in tables.items():
            if not isinstance(entry, Mapping):
                raise InputError(f"{where}, table {name}", repr(entry), "its entries", "see docs/surveys.md")
            named.append({"name": str(name), **entry})
        tables = named
    if not isinstance(tables, Sequence) or isinstance(tables, str) or not tables:
        raise InputError(f"{where}, tables", repr(tables), "a list of tables", "see docs/surveys.md")
    parsed = tuple(parse_table(entry, folder, f"{where}, table {i + 1}") for i, entry in enumerate(tables))
    names = [table.name for table in parsed]
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                where, f"{names.count(name)} tables named {name}", "each name once", "rename one"
            )
    labels = content.get("labels")
    if labels is not None:
        labels = tuple(_strings(labels, f"{where}, labels"))
        for label in labels:
            _label(label, f"{where}, labels")
    radius = _number(content.get("radius", 2.0), f"{where}, radius", low=0.0)
    return SurveysFile(parsed, labels, content.get("solar_scale"), radius)


def parse_table(entry: Any, folder: str | Path, where: str) -> TableSpec:
    """One table of a surveys file; see `parse_file`."""
    entry = _synonyms(entry, where)
    _known(entry, TABLE_ENTRIES, where)
    if not isinstance(entry.get("file"), str) or not entry["file"]:
        raise InputError(f"{where}, file", repr(entry.get("file")), "the path of a table", "give file: PATH")
    path = _path(entry["file"], folder, f"{where}, file")
    stars = _optional_text(entry.get("stars"), f"{where}, stars")
    name = str(entry.get("name") or path.name.split(".")[0])
    where = f"{where} ({name})"
    units = entry.get("units") or {}
    columns = _columns(entry.get("columns") or {}, entry.get("errors") or {}, units, where)
    _check_identifiers(entry.get("identifiers") or {}, where)
    anchor = entry.get("anchor", False)
    if not isinstance(anchor, bool):
        raise InputError(f"{where}, anchor", repr(anchor), "true or false", "write anchor: true")
    duplicates = entry.get("duplicates", "keep")
    if duplicates not in ("keep", "first", "error"):
        raise InputError(
            f"{where}, duplicates", repr(duplicates), "keep, first or error", "see docs/surveys.md"
        )
    zero = entry.get("zero_point_error") or {}
    _known(zero, tuple(LABELS), f"{where}, zero_point_error")
    if zero and not anchor:
        raise InputError(
            f"{where}, zero_point_error", "no anchor", "anchor: true", "the other offsets are inferred"
        )
    magnitude = entry.get("magnitude") or {}
    if not isinstance(magnitude, Mapping) or len(magnitude) > 1:
        raise InputError(
            f"{where}, magnitude",
            repr(magnitude),
            "one band and its column, {H: H_MAG}",
            "write magnitude: {H: H_MAG}, say",
        )
    select = entry.get("select") or {}
    if not isinstance(select, Mapping):
        raise InputError(
            f"{where}, select",
            repr(select),
            "column: [lowest, highest] or a value",
            "write select: {SNR: [20, 1000]}, say",
        )
    return TableSpec(
        name=name,
        file=path,
        format=str(entry.get("format", "generic")),
        hdu=entry.get("hdu"),
        columns=columns,
        identifiers=dict(entry.get("identifiers") or {}),
        flags=_flags(entry.get("flags"), f"{where}, flags"),
        anchor=anchor,
        zero_point_error={
            label: _number(value, f"{where}, zero_point_error.{label}", low=0.0)
            for label, value in zero.items()
        },
        cluster=_optional_text(entry.get("cluster"), f"{where}, cluster"),
        magnitude={str(band): str(column) for band, column in magnitude.items()},
        select=dict(select),
        missing=_numbers(entry.get("missing", ()), f"{where}, missing"),
        solar_scale=entry.get("solar_scale"),
        duplicates=duplicates,
        stars=None if stars is None else _path(stars, folder, f"{where}, stars"),
    )


def _path(text: str, folder: str | Path, where: str) -> Path:
    path = Path(os.path.expandvars(text)).expanduser()
    if "$" in str(path):
        raise InputError(where, repr(str(path)), "a variable that is set", "set it, or its path")
    return path if path.is_absolute() else Path(folder) / path


def label_of(key: str, where: str) -> tuple[str, str | None]:
    """A label's name and what the key is relative to: `mg_fe` stands for `mg_h` relative to `fe_h`."""
    match = re.fullmatch(r"([a-z]+)_fe", key)
    if match and key != "fe_fe" and f"{match[1]}_h" in LABELS:
        return f"{match[1]}_h", "fe_h"
    _label(key, where)
    return key, None


def _columns(columns: Any, errors: Any, units: Any, where: str) -> dict[str, tuple[Quantity, ...]]:
    for entry, value in (("columns", columns), ("errors", errors), ("units", units)):
        if not isinstance(value, Mapping):
            raise InputError(
                f"{where}, {entry}",
                repr(value),
                "labels and their columns",
                "write teff: TEFF, say, one entry a line",
            )
    error_of: dict[str, Any] = {}
    for key, value in errors.items():
        label, _ = label_of(str(key), f"{where}, errors")
        error_of[label] = _error(value, f"{where}, errors.{key}")
    unit_of = {label_of(str(key), f"{where}, units")[0]: value for key, value in units.items()}
    parsed: dict[str, tuple[Quantity, ...]] = {}
    for key, value in columns.items():
        label, relative = label_of(str(key), f"{where}, columns")
        if label in parsed:
            raise InputError(f"{where}, columns", f"{label} twice", "each label once", "remove one")
        alternatives = value if isinstance(value, list) else [value]
        parsed[label] = tuple(
            _quantity(item, relative, error_of.get(label), unit_of.get(label), f"{where}, columns.{key}")
            for item in alternatives
        )
    if columns:
        for label in error_of:
            if label not in parsed:
                raise InputError(
                    f"{where}, errors.{label}",
                    "no such label in columns",
                    ", ".join(parsed),
                    "name the label in columns too, or leave its error out",
                )
    else:
        # A survey's own reader knows the columns; these are errors to use in place of its own.
        parsed = {label: (Quantity("", error=error),) for label, error in error_of.items()}
    return parsed


def _quantity(value: Any, relative: str | None, error: Any, unit: Any, where: str) -> Quantity:
    if isinstance(value, str):
        value = {"column": value}
    _known(value, QUANTITY_ENTRIES, where)
    column = value.get("column")
    if not isinstance(column, str) or not column:
        raise InputError(where, f"column {column!r}", "the name of a column", "give the column's name")
    if "error" in value:
        error = _error(value["error"], f"{where}.error")
    relative = value.get("relative_to", relative)
    if relative is not None:
        relative = label_of(str(relative), f"{where}.relative_to")[0]
    absolute = value.get("absolute", False)
    if not isinstance(absolute, bool) or (absolute and relative):
        raise InputError(
            f"{where}.absolute",
            repr(absolute),
            "true or false, and no relative_to with it",
            "leave one of the two out",
        )
    bits = value.get("flag_bits")
    if bits is not None and (isinstance(bits, bool) or not isinstance(bits, int) or bits <= 0):
        raise InputError(
            f"{where}.flag_bits",
            repr(bits),
            "a mask, an integer above 0",
            "write the mask as one number, such as 255",
        )
    return Quantity(
        column=column,
        unit=_optional_text(value.get("unit", unit), f"{where}.unit"),
        relative_to=relative,
        absolute=absolute,
        error=error,
        otherwise=None
        if value.get("otherwise") is None
        else _number(value["otherwise"], f"{where}.otherwise", low=0.0, strict=True),
        flag=_optional_text(value.get("flag"), f"{where}.flag"),
        flag_bits=bits,
        missing=_numbers(value.get("missing", ()), f"{where}.missing"),
    )


def _error(value: Any, where: str) -> str | tuple[str, str] | float:
    if isinstance(value, str) and value:
        return value
    if isinstance(value, list) and len(value) == 2 and all(isinstance(v, str) and v for v in value):
        return (value[0], value[1])
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf"):
        return float(value)
    raise InputError(
        where,
        repr(value),
        "a column, two columns (up and down) or a positive number",
        "write a column's name, such as E_TEFF, or 0.05",
    )


def _flags(value: Any, where: str) -> tuple[FlagRule, ...]:
    if value is None:
        return ()
    rules = []
    for i, item in enumerate(value if isinstance(value, list) else [value]):
        place = f"{where}[{i}]" if isinstance(value, list) else where
        if isinstance(item, str):
            item = {"column": item}
        _known(item, FLAG_ENTRIES, place)
        if not isinstance(item.get("column"), str):
            raise InputError(place, f"column {item.get('column')!r}", "the name of a column", "give it")
        bits = item.get("bits", ())
        bits = (bits,) if isinstance(bits, int) else tuple(bits)
        if any(isinstance(b, bool) or not isinstance(b, int) or not 0 <= b < 63 for b in bits):
            raise InputError(
                f"{place}.bits", repr(bits), "positions of bits, 0 to 62", "write bits: [3, 8], say"
            )
        limits: dict[str, Any] = {
            k: None if item.get(k) is None else _number(item[k], f"{place}.{k}") for k in ("below", "above")
        }
        lists: dict[str, Any] = {
            k: tuple(item[k]) if isinstance(item.get(k), list) else () if k not in item else (item[k],)
            for k in ("values", "not_values", "contains")
        }
        rules.append(FlagRule(item["column"], bits, meaning=str(item.get("meaning", "")), **lists, **limits))
    return tuple(rules)


def _check_identifiers(value: Any, where: str) -> None:
    _known(value, IDENTIFIERS, f"{where}, identifiers")
    for kind, column in value.items():
        numeric = kind == "epoch" and isinstance(column, (int, float)) and not isinstance(column, bool)
        if not numeric and not (isinstance(column, str) and column):
            raise InputError(
                f"{where}, identifiers.{kind}", repr(column), "the name of a column", "give its name"
            )
    if ("ra" in value) != ("dec" in value) or ("pmra" in value) != ("pmdec" in value):
        raise InputError(f"{where}, identifiers", ", ".join(value), "both coordinates", "give the other one")
    if "gaia" in value and "gaia_dr3" in value:
        raise InputError(f"{where}, identifiers", "gaia and gaia_dr3", "one: they are the same", "remove one")


def _synonyms(entry: Any, where: str) -> Any:
    """The entry with the words of `SYNONYMS` replaced."""
    if not isinstance(entry, Mapping):
        return entry
    for other, word in SYNONYMS.items():
        if other in entry and word in entry:
            raise InputError(where, f"both {other} and {word}", f"one: they mean {word}", "remove one")
    return {SYNONYMS.get(key, key): value for key, value in entry.items()}


def _known(value: Any, entries: Sequence[str], where: str) -> None:
    if not isinstance(value, Mapping):
        raise InputError(where, repr(value), f"entries {', '.join(entries)}", "see docs/surveys.md")
    for key in value:
        if key not in entries:
            raise InputError(
                f"{where}, {key}",
                "an unknown entry",
                f"one of {', '.join(entries)}",
                "use one of these names, or leave the entry out",
            )


def _label(name: str, where: str) -> None:
    if name not in LABELS:
        raise InputError(
            f"{where}, {name}",
            "an unknown label",
            f"one of {', '.join(LABELS)} (or mg_fe and so on)",
            "use one of these names",
        )


def _number(value: Any, where: str, low: float | None = None, strict: bool = False) -> float:
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < float("inf")
    if not good or (low is not None and (value < low or (strict and value == low))):
        limit = "" if low is None else f" {'above' if strict else 'not below'} {low:g}"
        raise InputError(where, repr(value), f"a number{limit}", "write a number, such as 0.05")
    return float(value)


def _numbers(value: Any, where: str) -> tuple[float, ...]:
    return tuple(_number(v, where) for v in (value if isinstance(value, (list, tuple)) else [value]))


def _strings(value: Any, where: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise InputError(where, repr(value), "a list of names", "write a list, such as [a, b]")
    return value


def _optional_text(value: Any, where: str) -> str | None:
    if value is not None and (not isinstance(value, str) or not value):
        raise InputError(where, repr(value), "text", "write a name, or leave the entry out")
    return value
