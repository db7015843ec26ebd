"""Shared by all experiments: the launch, and a composed configuration as the settings of a command."""

import dataclasses
import logging
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from jaxspec import settings as library
from jaxspec.errors import InputError
from jaxspec.runs import check_folder, use_compilation_cache
from jaxspec.stopping import Stopped, signals

ROOT = Path(__file__).resolve().parents[1]
CONF = ROOT / "conf"
PATHS = (
    *("spectra", "labels", "output", "checkpoint", "start_from", "literature", "surveys", "lines", "forward"),
    "instrument",
    *("data.spectra", "data.catalogue", "source", "target", "method"),
)

# Entries of a configuration that say what the run is called and where it writes.
RUN = ("name", "output")
ONE_FILE = ("synthesize",)  # whose output is no folder
EXAMPLES = {
    **{"spectra": '"night1/*.fits"', "labels": "stars.csv", "output": "stars.h5", "surveys": "surveys.yaml"},
    **{"results": "night1_labels", "folder_of_spectra": "spectra", "catalogue": "labels.fits"},
    "lines": "my_lines.vald",
}


# --- launch


def launch(run: Callable[[DictConfig, Path], Any], config_name: str) -> None:
    """Compose the configuration from the command line and call `run(cfg, folder)`; an `InputError` ends the
    process with its message and exit status 1, Ctrl-C and SIGTERM with a sentence and 130 or 143."""
    check_output(sys.argv[1:], config_name)
    sys.argv[1:] = quote_paths(sys.argv[1:])
    use_compilation_cache()  # the next run starts at once

    def main(cfg: DictConfig) -> None:
        logging.getLogger("jax").setLevel(logging.WARNING)  # it narrates its search for a TPU
        folder = Path(HydraConfig.get().runtime.output_dir)
        try:
            with signals():
                run(cfg, folder)
        except InputError as error:
            raise SystemExit(f"error: {error}") from None
        except Stopped as stop:
            given = any(argument.startswith("output=") for argument in sys.argv[1:])
            print(stop.sentence("" if given else f"output={folder}"), file=sys.stderr, flush=True)
            raise SystemExit(stop.status) from None

    hydra.main(config_path=str(CONF), config_name=config_name, version_base="1.3")(main)()


def check_output(arguments: Iterable[str], config_name: str) -> None:
    """End the process with a sentence where `output=` cannot become a folder of results: Hydra makes it
    before anything of ours runs, and answers with a traceback."""
    for argument in arguments:
        key, _, value = argument.partition("=")
        value = value.strip("'\"")
        if key.lstrip("+") == "output" and value and "${" not in value and config_name not in ONE_FILE:
            try:
                check_folder(value)
            except InputError as error:
                raise SystemExit(f"error: {error}") from None


def quote_paths(arguments: Iterable[str]) -> list[str]:
    """Put paths into quotes, which Hydra's grammar asks for around `[`, `=`, blanks and other characters of
    globs.

    Lists, quoted values and, in a sweep, values with commas are left as they are.
    """
    arguments = list(arguments)
    sweep = any(a in ("-m", "--multirun") for a in arguments)
    out = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        plain = (
            not equals
            or key.lstrip("+") not in PATHS
            or value in ("", "null")
            or value[0] in "'\""
            or (value[0] == "[" and value[-1] == "]")
            or "${" in value
            or (sweep and "," in value)
        )
        if not plain:
            escaped = value.replace("'", "\\'")
            argument = f"{key}='{escaped}'"
        out.append(argument)
    return out


# --- configuration


def settings(cls: type, cfg: DictConfig) -> Any:
    """The settings of a command of `jaxspec.commands` from a composed configuration.

    Raises: InputError naming an entry that has no value yet, or is no setting.
    """
    values = contents(cfg)
    known = {field.name for field in dataclasses.fields(cls)}
    return library.build(cls, {k: v for k, v in values.items() if k in known or k not in RUN})


def contents(cfg: DictConfig) -> dict[str, Any]:
    """A composed configuration as plain values.

    Raises: InputError naming an entry that has no value yet.
    """
    for name in sorted(OmegaConf.missing_keys(cfg)):
        example = EXAMPLES.get(name.rpartition(".")[2], "...")
        raise InputError(name, "nothing", "a value: it has no default", f"write {name}={example}")
    return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]
