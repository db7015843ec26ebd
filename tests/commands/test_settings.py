"""The settings of every command: the same defaults as `conf/`, and a line of help for each."""

import dataclasses
import inspect
import re
from importlib import import_module

import pytest
from omegaconf import OmegaConf

from experiments.common import settings
from jaxspec.errors import InputError
from jaxspec.settings import build
from jaxspec.simulation.nuisances import CONFIGS
from tests.experiments.conftest import configured

# What each command cannot do without.
REQUIRED = {
    "align": {},
    "bound": {"labels": "stars.csv"},
    "calibrate": {"surveys": "surveys.yaml"},
    "emulator": {},
    "explain": {},
    "identify": {"labels": "stars.csv"},
    "linelist": {"folder_of_spectra": "spectra"},
    "recalibrate": {},
    "residuals": {"results": "night1_labels"},
    "power": {},
    "screen": {},
    "synthesize": {"labels": "stars.csv"},
}
# Where a run writes, where that is asked for.
OUTPUT = {"synthesize": ["output=stars.h5"]}


@pytest.fixture(params=REQUIRED)
def command(request):
    return request.param, import_module(f"jaxspec.commands.{request.param}")


def test_configuration_and_settings_have_the_same_defaults(command):
    name, module = command
    given = [f"{entry}={value}" for entry, value in REQUIRED[name].items()]
    cfg = configured(name, *given, *OUTPUT.get(name, []))
    assert settings(module.Settings, cfg) == module.Settings(**REQUIRED[name])
    entries = set(OmegaConf.to_container(cfg)) - {"name", "output"}
    assert entries == {field.name for field in dataclasses.fields(module.Settings)}


def test_every_setting_is_documented(command):
    """The help of the command line is made of the docstrings."""
    _, module = command
    text = inspect.getdoc(module.Settings).partition("Attributes:\n")[2]
    documented = re.findall(r"^ {4}(\w+): \S", text, re.M)
    assert documented == [field.name for field in dataclasses.fields(module.Settings)]
    assert re.match(r"[A-Z].*[.?]\n", module.__doc__), "the first line is the help of the command"


def test_input_and_output_are_named(command):
    name, module = command
    assert module.OUTPUT in ("file", "folder") and callable(module.run)
    first = getattr(module, "INPUT", None)
    assert first in (None, dataclasses.fields(module.Settings)[0].name)
    assert set(REQUIRED[name]) <= {first}


def test_misspelt_settings_are_named(command):
    name, module = command
    with pytest.raises(InputError, match=r"sed.*no such setting"):
        build(module.Settings, {**REQUIRED[name], "sed": 1})


def test_part_of_a_group_leaves_its_other_defaults():
    """Stars that are explained show all arms, whatever else is asked of them."""
    explain = import_module("jaxspec.commands.explain")
    chosen = build(explain.Settings, {"nuisances": {"line_error": 0.1}})
    assert chosen.nuisances == dataclasses.replace(explain.Settings().nuisances, line_error=0.1)
    assert build(explain.Settings, {"nuisances": {"base": "robust"}}).nuisances == CONFIGS["robust"]
