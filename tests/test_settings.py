"""Settings from mappings and text: right types, and errors that name the entry."""

from dataclasses import dataclass, field

import pytest

from jaxspec.errors import InputError
from jaxspec.settings import PRESETS, build, parse


@dataclass(frozen=True)
class Inner:
    unit: str | None = None
    limit: float = 1.0
    flags: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class Apple:
    kind: str = "apple"
    size: int = 1


@dataclass(frozen=True)
class Pear:
    path: str
    kind: str = "pear"


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner = Inner()
    maybe: Inner | None = None
    fruit: Apple | Pear = Apple()
    sets: dict[str, Inner] = field(default_factory=dict)
    switch: bool = False
    n: int = 3
    where: str | tuple[str, ...] | None = None


def test_nested_dataclasses_and_dictionaries_of_them():
    made = build(
        Outer,
        {
            "name": "x",
            "inner": {"limit": "1e-3", "flags": [4, 5]},
            "maybe": {"unit": "nm"},
            "sets": {"a": {"limit": 2}, "b": {}},
            "fruit": {"kind": "pear", "path": "p"},
        },
    )
    assert made.inner == Inner(limit=0.001, flags=(4, 5)) and made.maybe == Inner("nm")
    assert made.sets == {"a": Inner(limit=2.0), "b": Inner()} and isinstance(made.sets["a"].limit, float)
    assert made.fruit == Pear("p") and build(Outer, {"name": "x"}).fruit == Apple()


def test_presets_are_started_from(monkeypatch):
    monkeypatch.setitem(PRESETS, Inner, {"wide": Inner("um", 9.0)})
    assert build(Inner, {"base": "wide", "limit": 3.0}) == Inner("um", 3.0)
    with pytest.raises(InputError, match=r"inner.base: found 'narrow'.*wide"):
        build(Outer, {"name": "x", "inner": {"base": "narrow"}})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "x", "inner": {"unti": "nm"}}, r"inner.unti: found no such setting.*inner.unit"),
        ({"name": "x", "inner": {"limit": "much"}}, r"inner.limit: found 'much'; expected a number"),
        ({"name": "x", "switch": "maybe"}, r"switch: found 'maybe'; expected true or false"),
        ({"name": "x", "fruit": {"kind": "plum"}}, r"fruit.kind: found 'plum'.*apple"),
        ({"name": "x", "sets": {"a": {"limits": 1}}}, r"sets.a.limits: found no such setting"),
    ],
)
def test_wrong_entries_are_named(values, message):
    with pytest.raises(InputError, match=message):
        build(Outer, values)


def test_text_becomes_what_was_meant():
    text = ["inner.limit=1e-3", "switch=true", "n=4", "maybe=null", "where=[a, b]", "name=2026-11-30"]
    made = build(Outer, parse(text))
    assert made == Outer("2026-11-30", Inner(limit=0.001), None, switch=True, n=4, where=("a", "b"))
    # Names of files are text, whatever they look like.
    for name in ("yes", "007", "12:30:45", "1_000.fits", "spec[1].fits", "[x]*.fits"):
        assert build(Outer, parse([f"where={name}", "name=x"])).where == name, name
    assert build(Outer, parse(["where=none", "name=none"])) == Outer("none")
    assert build(Outer, parse(["name=16"])).name == "16"
    with pytest.raises(InputError, match="name=value"):
        parse(["refine"])


def test_what_has_no_default_must_be_given():
    with pytest.raises(InputError, match=r"a\.name: found nothing.*no default"):
        build(Outer, {}, "a.")
    with pytest.raises(InputError, match=r"inner: found 3.*settings by name"):
        build(Outer, {"name": "x", "inner": 3})
    with pytest.raises(InputError, match="settings by name"):
        build(Outer, ["name"])
    assert build(Outer, {"name": "x", "inner": Inner("nm")}).inner.unit == "nm"
