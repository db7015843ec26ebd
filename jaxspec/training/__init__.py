"""Training: the loop, its state, its devices and its checkpoints; knows nothing about stars."""

from jaxspec.training.checkpoint import Checkpointer
from jaxspec.training.data import ArraySource
from jaxspec.training.guard import NonFiniteLossError
from jaxspec.training.loop import FitResult, TrainConfig, fit
from jaxspec.training.optimiser import OptimiserConfig

__all__ = [
    "ArraySource",
    "Checkpointer",
    "FitResult",
    "NonFiniteLossError",
    "OptimiserConfig",
    "TrainConfig",
    "fit",
]
