"""Weights as ONNX and StableHLO files, for programs without JAX.

Writes `config.json` (labels, units, pixels, inputs and outputs, checksums, how well the files were found to
agree with the model), one `.onnx` and one `.stablehlo` file a graph, and the weights as jaxspec reads them.
Nothing is written where files and model differ.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from jaxspec.amortised.storage import load_weights
from jaxspec.artefacts import CONFIG
from jaxspec.physics.emulator import Emulator
from jaxspec.serving.export import PARITY, Exported, export_emulator, export_posterior, load_export

log = logging.getLogger(__name__)

INPUT, OUTPUT = "model", "folder"
SHIPPED, EMULATOR = "shipped", "emulator"


@dataclass(frozen=True)
class Settings:
    """Settings of an export.

    Attributes:
        model: folder of a training run, of a stored posterior or of a stored emulator; `shipped`: the weights
            in the package; `emulator`: the emulator in the package.
    """

    model: str


def run(settings: Settings, folder: Path) -> Exported:
    """Export, check, write; returns what was written, read again."""
    model = settings.model
    if model == EMULATOR or is_emulator(model):
        export_emulator(Emulator.load(None if model == EMULATOR else model), folder, model)
    else:
        posterior, source = load_weights(None if model == SHIPPED else model)
        export_posterior(posterior, folder, model if model == SHIPPED else str(source))
    exported = load_export(folder)
    for kind, quantities in exported.config["settings"][PARITY].items():
        for name, values in quantities.items():
            log.info(
                "%s, %s: differs by at most %.1e (allowed: %.1e), half of all by less than %.1e",
                kind,
                name,
                values["largest"],
                values["largest_allowed"],
                values["median"],
            )
    return exported


def is_emulator(folder: str) -> bool:
    """Whether a folder says that it is of an emulator; what else may be wrong is told where it is read."""
    try:
        return json.loads((Path(folder).expanduser() / CONFIG).read_text()).get("kind") == EMULATOR
    except (OSError, ValueError, AttributeError):
        return False
