"""Answer requests for labels over HTTP, by the Open Inference Protocol v2.

Spectra come in on any grid, labels, errors and quantiles go out, the same as `jaxspec infer` gives for the
same spectrum and seed. SIGTERM ends the server after the last accepted request is answered.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from jaxspec.amortised.storage import load_weights
from jaxspec.fitting.check import FitConfig
from jaxspec.inference import InferenceConfig
from jaxspec.physics.forward import forward_model
from jaxspec.reading import ReaderConfig
from jaxspec.serving.engine import Engine, Limits
from jaxspec.serving.export import load_export
from jaxspec.serving.server import ServerConfig, serve

INPUT, OUTPUT = "model", "folder"
SHIPPED = "shipped"


@dataclass(frozen=True)
class Settings:
    """How requests are answered.

    Attributes:
        model: folder that `jaxspec export` wrote, of a training run, or of a stored posterior; `shipped`: the
            weights in the package.
        forward: the forward model: folder of an emulator, or dotted name of a function of an instrument.
        n_draws: draws of each star.
        refine: robust, exact or none, as for `jaxspec infer`; none answers in milliseconds.
        check: compare the best model with the spectrum.
        fit: of the check (fields of FitConfig).
        reader: what to take where a request says nothing.
        limits: what a request may be.
        server: where to listen, and how much may wait.
    """

    model: str
    forward: str = "jaxspec.physics.forward.load_forward_model"
    n_draws: int = 2000
    refine: str = "robust"
    check: bool = True
    fit: FitConfig = field(default_factory=FitConfig)
    reader: ReaderConfig = ReaderConfig()
    limits: Limits = Limits()
    server: ServerConfig = ServerConfig()


def run(settings: Settings, folder: Path) -> None:
    """Load, warm up, answer until told to stop. Nothing is written into `folder`."""
    serve(make_engine(settings), settings.server)


def make_engine(settings: Settings) -> Engine:
    """Settings of the server.

    Raises: InputError for a model that cannot be read, or an export whose files were changed.
    """
    config = InferenceConfig(settings.n_draws, settings.refine, fit=settings.fit, check=settings.check)
    shipped = settings.model == SHIPPED
    if not shipped and any(Path(settings.model).expanduser().glob("*.onnx")):
        load_export(settings.model)  # refuses files that were changed
    posterior, _ = load_weights(None if shipped else settings.model)
    forward = forward_model(settings.forward, posterior.instrument)
    return Engine(posterior, forward, config, settings.reader, settings.limits)
