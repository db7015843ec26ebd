"""The examples of the documentation that compile quickly do what the text says."""

import re
from pathlib import Path

import numpy as np
import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


def examples(name: str, section: str) -> str:
    """The indented Python of a section, commands left out."""
    text = (DOCS / name).read_text().split(f"## {section}\n")[1].split("\n## ")[0]
    lines = [line[4:] if line.startswith("    ") else "" for line in text.splitlines()]
    return "\n".join(line for line in lines if not line.startswith("python -m"))


def test_lines_and_widths():
    known = {}
    code = examples("abundances.md", "Which lines shape which pixels")
    # 31 pixels compile in a fraction of the time; the strong lines about them are the same.
    exec(code.replace("Window(5524.0, 5534.0, 0.02)", "Window(5527.6, 5529.1, 0.05)"), known)
    assert list(known["lines"].species) == ["Fe I", "Sc II", "Mg I"]
    exec(examples("abundances.md", "Equivalent widths and the curve of growth"), known)
    result = known["result"]
    # What the solar atlas shows, within the 0.05 dex that oscillator strengths claim.
    np.testing.assert_allclose(result.change, 0.0, atol=0.08)
    assert np.all(np.diff(known["growth"], axis=1) > 0) and np.all((0.3 < result.slope) & (result.slope < 1))


def test_departures(capsys):
    exec(examples("physics.md", "Departures from LTE"), {})
    assert capsys.readouterr().out.strip() == "NLTE (Mg)"


@pytest.mark.parametrize("section", ["Abundances by fitting the spectrum: the Sun", "A K giant"])
def test_slow_examples_are_python_that_names_what_exists(section):
    """They compile for minutes: only their imports are run here (`test_fit` fits)."""
    code = examples("abundances.md", section)
    compile(code, section, "exec")
    exec("\n".join(re.findall(r"^(?:from|import) .*$", code, re.M)), {})
