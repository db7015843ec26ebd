"""Frozen dataclasses of settings from mappings and from `key=value` text, with errors that name the entry."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from jaxspec.errors import InputError

PRESETS: dict[type, Mapping[str, Any]] = {}
"""Named instances of a dataclass, from which `base: NAME` starts; whoever defines them registers them."""


def build(cls: type, values: Any = None, where: str = "", default: Any = None) -> Any:
    """An instance of the frozen dataclass `cls` from `values`; entries that are dataclasses themselves, or
    tuples of them, are built from mappings, lists become tuples, and text becomes a number where a number is
    wanted.

    Entries that are not given are those of `default`, an instance, or the class's own defaults. Of a class
    with `PRESETS`, `base` names the instance from which the other values differ.

    Raises: InputError naming an entry that the dataclass does not have, with the nearest that it has, one
    without a default that is not given, and one that is no mapping where settings are wanted.
    """
    if values is not None and not isinstance(values, Mapping):
        raise InputError(
            where.rstrip(".") or "settings", repr(values), "settings by name", "write name=value"
        )
    values, base = dict(values or {}), default
    if cls in PRESETS and "base" in values:
        name = values.pop("base")
        if name not in PRESETS[cls]:
            names = sorted(PRESETS[cls])
            raise InputError(f"{where}base", repr(name), f"one of {names}", f"write {where}base={names[0]}")
        base = PRESETS[cls][name]
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    known = list(fields)
    made = {}
    for name, value in values.items():
        entry = f"{where}{name}"
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            fix = f"did you mean {where}{near[0]}=...?" if near else f"leave {entry} out"
            raise InputError(entry, "no such setting", f"one of {', '.join(known)}", fix)
        made[name] = _convert(hints[name], value, entry, _default(fields[name]))
    if base is not None:
        return dataclasses.replace(base, **made)
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in made:
            entry = f"{where}{name}"
            raise InputError(entry, "nothing", "a value: it has no default", f"give {entry}=...")
    return cls(**made)


def _default(field: dataclasses.Field) -> Any:
    made = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    return made if dataclasses.is_dataclass(made) else None


def _convert(hint: Any, value: Any, entry: str, default: Any = None) -> Any:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if isinstance(value, Mapping):
        for option in options:
            if typing.get_origin(option) in (dict, Mapping) and len(typing.get_args(option)) == 2:
                item = typing.get_args(option)[1]
                return {name: _convert(item, v, f"{entry}.{name}") for name, v in value.items()}
        inner = [
            option for option in options if isinstance(option, type) and dataclasses.is_dataclass(option)
        ]
        if not inner:
            return dict(value)
        kind = inner[0] if len(inner) == 1 else _by_kind(inner, value, entry)
        return build(kind, value, f"{entry}.", default if type(default) is kind else None)
    if isinstance(value, (list, tuple)):
        for option in options:
            kind, *rest = typing.get_args(option) or (None,)
            if typing.get_origin(option) is tuple and rest == [...] and dataclasses.is_dataclass(kind):
                return tuple(_convert(kind, item, f"{entry}[{i}]") for i, item in enumerate(value))
    if value == "none" and type(None) in options:
        return None
    settings = [option for option in options if dataclasses.is_dataclass(option)]
    others = [option for option in options if option not in settings and option is not type(None)]
    if settings and not others and value is not None and not dataclasses.is_dataclass(value):
        raise InputError(entry, repr(value), "settings by name", f"write {entry}.NAME=..., or leave it out")
    if isinstance(value, int) and not isinstance(value, bool) and float in options and int not in options:
        return float(value)
    if isinstance(value, str) and str not in options and (float in options or int in options):
        try:
            return float(value) if float in options else int(value)  # YAML takes 1e-3 for text
        except ValueError:
            raise InputError(entry, repr(value), "a number", f"write {entry}=2, say") from None
    if options == (bool,) and not isinstance(value, bool):
        raise InputError(entry, repr(value), "true or false", f"write {entry}=true, say")
    if isinstance(value, bool) and str in options and bool not in options:
        return str(value).lower()
    if str in options and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value) if int not in options and float not in options else value
    return tupled(value)


def _by_kind(options: Sequence[type], value: Mapping[str, Any], entry: str) -> type:
    """The class among several whose `kind` is that of the mapping; the first where it has none."""
    kinds: dict[Any, type] = {
        next(f.default for f in dataclasses.fields(x) if f.name == "kind"): x for x in options
    }
    kind = value.get("kind", next(iter(kinds)))
    if kind not in kinds:
        names = sorted(kinds)
        raise InputError(f"{entry}.kind", repr(kind), f"one of {names}", f"write {entry}.kind={names[0]}")
    return kinds[kind]


def tupled(value: Any) -> Any:
    """`value` with every list in it made a tuple: JSON knows no tuples, and frozen dataclasses need them."""
    return tuple(tupled(v) for v in value) if isinstance(value, (list, tuple)) else value


def parse(assignments: Iterable[str]) -> dict[str, Any]:
    """Nested values of texts such as `reader.unit=nm`, `refine=false` or `checkpoint=[run1,run2]`.

    Raises: InputError for a text without `=` and for a value that cannot be parsed.
    """
    out: dict[str, Any] = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals:
            raise InputError("settings", repr(text), "name=value", "write, say, refine=false")
        parsed = _value(value)
        *parents, name = key.split(".")
        inner = out
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[name] = parsed
    return out


def _value(text: str) -> Any:
    """A list or mapping in brackets is YAML; else null, true, false, a number, or the text as it is: YAML
    would make dates and switches of the names of folders."""
    if text[:1] in "[{" and text[-1:] in "]}" and text:
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError:
            return text  # a glob pattern, say
    words = {"": None, "null": None, "true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        return text if text.lstrip("+-").startswith("0") and text.lstrip("+-0")[:1].isdigit() else number
    return text
