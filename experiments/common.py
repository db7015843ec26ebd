"""What every experiment shares: the launch, and a composed configuration as the settings of a command."""

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

ROOT = Path(__file__).resolve().parents[1]
CONF = ROOT / "conf"
PATHS = (
    *("spectra", "labels", "output", "checkpoint", "start_from", "literature", "surveys", "lines", "forward"),
    *("data.spectra", "data.catalogue", "source", "target", "method"),
)

# Entries of a configuration that say what the run is called and where it writes.
RUN = ("name", "output")
ONE_FILE = ("synthesize",)  # whose output is no folder


# --- launch


def launch(run: Callable[[DictConfig, Path], Any], config_name: str) -> None:
    """Compose the configuration from the command line and call `run(cfg, folder)`; an `InputError` ends the
    process with its message and exit status 1."""
    check_output(sys.argv[1:], config_name)
    sys.argv[1:] = quote_paths(sys.argv[1:])
    use_compilation_cache()  # the next run starts at once

    def main(cfg: DictConfig) -> None:
        logging.getLogger("jax").setLevel(logging.WARNING)  # it narrates its search for a TPU
        try:
            run(cfg, Path(HydraConfig.get().runtime.output_dir))
        except InputError as error:
            raise SystemExit(f"error: {error}") from None

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
    """The settings of a command of `jaxspec.commands` from a composed configuration."""
    values = OmegaConf.to_container(cfg, resolve=True)
    known = {field.name for field in dataclasses.fields(cls)}
    return library.build(cls, {k: v for k, v in values.items() if k in known or k not in RUN})
