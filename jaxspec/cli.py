"""The `jaxspec` command: one sub-command per job, its options made from the job's settings."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import importlib
import inspect
import logging
import os
import re
import sys
import time
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jaxspec
from jaxspec.errors import InputError
from jaxspec.settings import build, parse
from jaxspec.stopping import Stopped, signals

# Said here so that `jaxspec --help` imports nothing.
COMMANDS = {
    "infer": "labels of observed spectra, with errors and flags",
    "agent": "labels by an agent that finds what is wrong with a spectrum and mends it",
    "mcp": "the agent's tools for any assistant that speaks MCP",
    "report": "a report of a run in words whose every number is true",
    "synthesize": "spectra for a table of labels",
    "calibrate": "survey catalogues on one scale",
    "populations": "chemically distinct groups of stars, with membership probabilities",
    "align": "one network for a survey with labels and one without",
    "explain": "where the network looked for each label",
    "bound": "the smallest errors that an instrument's spectra allow",
    "evaluate": "how good the weights are, on stars whose labels are known",
    "export": "weights as ONNX and StableHLO, for programs without JAX",
    "serve": "answer requests for labels over HTTP",
    "stars predict": "any quantity of a star from any others: Gaia XP spectra, photometry, labels",
    "stars finetune": "teach the model of stars a quantity from few labels",
}


class Option(typing.NamedTuple):
    """One setting that is no dataclass itself: its dotted name, default and help."""

    name: str
    default: Any
    help: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns: 0, or 1 for an input that cannot be used (2 for wrong options, 130 after Ctrl-C, 143 after
        SIGTERM).
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    top = argparse.ArgumentParser(prog="jaxspec", description="From stellar spectra to posteriors of labels.")
    top.add_argument("--version", action="version", version=f"jaxspec {jaxspec.__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND")
    for name, text in COMMANDS.items():
        commands.add_parser(name, help=text, add_help=False)
    words = 2 if " ".join(arguments[:2]) in COMMANDS else 1
    name, rest = " ".join(arguments[:words]), arguments[words:]
    if name not in COMMANDS:
        top.parse_args(arguments or ["--help"])
        return 0
    logging.basicConfig(level=logging.INFO, format="[%(levelname)s] %(message)s")
    logging.getLogger("jax").setLevel(logging.WARNING)  # it narrates its search for a TPU
    output: Path | None = None
    try:
        with signals():
            module = importlib.import_module(f"jaxspec.commands.{module_name(name)}")
            settings, output, cache = read_arguments(name, module, rest)
            if cache:
                from jaxspec.runs import use_compilation_cache

                use_compilation_cache()
            module.run(settings, output)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Stopped as stop:
        given = output is None or any(a.startswith(("-o", "--output", "output=")) for a in rest)
        print(stop.sentence("" if given else f"-o {output}"), file=sys.stderr)
        return stop.status
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def module_name(command: str) -> str:
    """Where a command is in `jaxspec.commands`."""
    return command.replace(" ", "_")


def read_arguments(name: str, module: Any, arguments: Sequence[str]) -> tuple[Any, Path, bool]:
    """The settings of a command, the file or folder to write, and whether to keep compiled programs.

    Raises: InputError naming a setting that does not exist or has no such value.
    """
    options = list(leaves(module.Settings))
    own = {field.name for field in dataclasses.fields(module.Settings)}
    take = getattr(module, "INPUT", None)
    arguments = list(arguments)
    arguments, after = (
        (arguments[: arguments.index("--")], arguments[arguments.index("--") + 1 :])
        if "--" in arguments
        else (arguments, [])
    )
    parsed = make_parser(name, module, options).parse_intermixed_args(arguments)
    assignments: list[str] = list(after)
    inputs: list[str] = []
    for text in parsed.inputs:
        key = text.partition("=")[0]
        setting = "=" in text and key.split(".")[0] in own and not Path(text).exists()
        (assignments if setting else inputs).append(text)
    given = [(k, v) for k, v in vars(parsed).items() if k.startswith("set__") and v is not None]
    assignments = [f"{k[5:].replace('__', '.')}={v}" for k, v in given] + assignments
    values = parse(assignments)
    if inputs:
        if take is None:
            raise InputError("arguments", f"{inputs[0]!r}", "name=value", f"see jaxspec {name} --help")
        field = next(f for f in dataclasses.fields(module.Settings) if f.name == take)
        if len(inputs) > 1 and "tuple" not in str(field.type):
            fix = f"give one, as in jaxspec {name} {inputs[0]}"
            raise InputError(take, f"{len(inputs)} of them", "one", fix)
        values[take] = inputs if len(inputs) > 1 else inputs[0]
    required = [f.name for f in dataclasses.fields(module.Settings) if _is_required(f) and f.name != "output"]
    for missing in (f for f in required if f not in values):
        example = f"jaxspec {name} FILE" if missing == take else f"jaxspec {name} {missing}=..."
        raise InputError(missing, "nothing", "a value", f"write {example}")
    if getattr(module, "OUTPUT", "folder") == "file" and not parsed.output:
        raise InputError("output", "nothing", "the file to write", f"write jaxspec {name} ... -o {name}.h5")
    default = Path("outputs") / module_name(name) / time.strftime("%Y-%m-%d_%H-%M-%S")
    output = Path(parsed.output) if parsed.output else default
    if "output" in own:
        values["output"] = str(output)
    return build(module.Settings, values), output, not parsed.no_cache


def make_parser(name: str, module: Any, options: list[Option]) -> argparse.ArgumentParser:
    """A parser with an option for each setting: by its dotted name, and by the last part where that is
    clear."""
    take = getattr(module, "INPUT", None)
    parser = argparse.ArgumentParser(
        prog=f"jaxspec {name}",
        description=inspect.getdoc(module),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Settings may also be written as name=value, such as refine=exact or reader.unit=nm.",
    )
    parser.add_argument("inputs", nargs="*", metavar=(take or "name=value").upper(), help="and name=value")
    parser.add_argument("-o", "--output", help="what to write: a folder, or the file of a single result")
    parser.add_argument("--no-cache", action="store_true", help="keep no compiled programs for the next run")
    taken = {"output", "no-cache", "help"}
    last = [option.name.rpartition(".")[2] for option in options]
    for option, short in zip(options, last, strict=True):
        if option.name == take or option.name == "output":
            continue
        names = [f"--{option.name.replace('_', '-')}"]
        if "." in option.name and last.count(short) == 1 and short not in taken:
            names.insert(0, f"--{short.replace('_', '-')}")
        text = option.help.rstrip(".")
        if option.default is not dataclasses.MISSING:
            text += f" (default: {_written(option.default)})"
        text = text.replace("%", "%%")
        destination = "set__" + option.name.replace(".", "__")
        parser.add_argument(*names, dest=destination, metavar="VALUE", help=text)
    return parser


def leaves(cls: type, prefix: str = "") -> Iterator[Option]:
    """All settings of a dataclass and of those inside of it, with the help of their docstrings."""
    hints, texts = typing.get_type_hints(cls), attribute_texts(cls)
    for field in dataclasses.fields(cls):
        inner = hints[field.name]
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if isinstance(inner, type) and dataclasses.is_dataclass(inner):
            yield from leaves(inner, f"{prefix}{field.name}.")
        else:
            yield Option(f"{prefix}{field.name}", default, texts.get(field.name, ""))


def attribute_texts(cls: type) -> dict[str, str]:
    """The text of each attribute in the section `Attributes:` of a class's docstring."""
    section = (inspect.getdoc(cls) or "").partition("Attributes:\n")[2]
    texts: dict[str, str] = {}
    for entry in re.split(r"\n    (?=\S)", "\n" + section.rstrip()):
        names, colon, text = entry.strip().partition(": ")
        if colon:
            for name in names.split(","):
                texts[name.strip()] = " ".join(text.split())
    return texts


def _is_required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _written(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return str(value) if _simple(value) else "..."


def _simple(value: Any) -> bool:
    try:
        return ast.literal_eval(repr(value)) == value and not isinstance(value, dict)
    except (ValueError, SyntaxError):
        return False


if __name__ == "__main__":
    sys.exit(main())
