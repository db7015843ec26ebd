"""Files of surveys are read as the YAML that configurations are written in."""

import pytest
import yaml

from jaxspec.commands.calibrate import Settings, _Loader, load_surveys
from jaxspec.errors import InputError
from jaxspec.settings import build


def test_numbers_dates_and_anchors():
    """YAML 1.1 takes 1e-3 for text and 2020-01-01 for a date: names of releases, and no numbers."""
    text = """
    a: [1e-3, -1.5E+3, .5, 12, 0x1f, .inf, 1e5]
    b: 2020-01-01
    c: &c {p: 1, q: '1e3'}
    d: {<<: *c, q: on}
    """
    assert yaml.load(text, _Loader) == {
        "a": [1e-3, -1500.0, 0.5, 12, 31, float("inf"), 1e5],
        "b": "2020-01-01",
        "c": {"p": 1, "q": "1e3"},
        "d": {"p": 1, "q": True},
    }


@pytest.mark.parametrize("text", ["a: 1\na: 2\n", "tables: {x: {file: a, file: b}}"])
def test_entries_given_twice_are_refused(tmp_path, text):
    (tmp_path / "surveys.yaml").write_text(text)
    with pytest.raises(InputError, match="given twice"):
        load_surveys(tmp_path / "surveys.yaml")


def test_wrong_model_entries_are_refused_before_anything_is_read():
    with pytest.raises(InputError, match=r"model\.trnd.*trend"):
        build(Settings, {"surveys": "none.yaml", "model": {"trnd": "spline"}})
