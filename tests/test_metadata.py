"""The project says the same about itself everywhere, and its floors are where the design puts them."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

import jaxspec

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MODULES = sorted((ROOT / "jaxspec").rglob("*.py"))
SCRIPTS = sorted(path for room in ("experiments", "benchmarks") for path in (ROOT / room).rglob("*.py"))

# From the ground up; a module may import its own part and those on lower floors, never one beside or above
# it.
FLOORS = (
    {"errors", "linear", "stopping"},
    {"settings", "runs"},
    {"labels", "instruments"},
    {"spectra"},
    {"continuum", "velocity", "resampling", "datasets", "artefacts"},
    {"physics", "flows", "networks", "io", "training"},
    {"simulation"},
    {"posterior", "reading"},
    {"catalogues"},
    {"fitting"},
    {"amortised"},
    {"surveys", "diagnostics", "populations"},
    {"foundation"},
    {"inference"},
    {"serving", "agent"},
    {"commands"},
    {"cli", "api"},
)
FLOOR = {part: number for number, parts in enumerate(FLOORS) for part in parts}

# What scripts of the same room may import beside `experiments.common`; to be emptied as logic moves into
# `jaxspec.commands`.
SIDEWAYS = {"experiments/train.py": {"leaderboard"}}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write it in full"
            # `from jaxspec import io` names a part as much as `import jaxspec.io` does.
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_version_is_the_same_everywhere():
    assert "version" in PROJECT["dynamic"]
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^version: (.+)$", citation, re.M)[1] == jaxspec.__version__
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(r"^## \[(\d.*?)\]", changelog, re.M)[1] == jaxspec.__version__


def test_licence_is_mit():
    assert PROJECT["license"] == "MIT"
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")
    assert "license: MIT" in (ROOT / "CITATION.cff").read_text()
    assert (ROOT / "jaxspec" / "py.typed").exists()


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path):
    part = path.relative_to(ROOT / "jaxspec").with_suffix("").parts[0]
    for name in imported(path):
        top, *rest = name.split(".")
        assert top not in ("hydra", "omegaconf", "experiments", "benchmarks"), (
            f"{path}: the library knows nothing of {top}"
        )
        if top == "jaxspec" and rest and rest[0] in FLOOR and part != "__init__":
            other = rest[0]
            assert other == part or FLOOR[other] < FLOOR[part], f"{path}: {part} may not import {other}"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_scripts_stand_alone(path):
    """Experiments import the library and no other experiment, benchmarks the library and one another; what
    two experiments need belongs into `jaxspec`."""
    name = str(path.relative_to(ROOT))
    room = path.relative_to(ROOT).parts[0]
    neighbours = {
        (top, rest[0] if rest else "")
        for top, *rest in (full.split(".") for full in imported(path))
        if top in {"experiments", "benchmarks", "tests"} - ({room} & {"benchmarks"})
    }
    allowed = {("experiments", "common")} if room == "experiments" else set()
    sideways = {("experiments", other) for other in SIDEWAYS.get(name, set())}
    assert neighbours <= allowed | sideways, f"{name} may not import {neighbours - allowed - sideways}"
    assert sideways <= neighbours, f"{name} no longer imports all of SIDEWAYS: take it off the list"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_are_short_and_say_what_they_are(path):
    text = path.read_text()
    assert text.count("\n") <= 500, f"{path} is two ideas"
    if text.strip():
        assert ast.get_docstring(ast.parse(text)), f"{path} has no docstring"
