"""The shape of a conditional flow, of any kind."""

from dataclasses import dataclass
from typing import Literal

from jaxspec.errors import InputError
from jaxspec.settings import PRESETS

COUPLINGS = ("spline", "affine", "autoregressive", "matching")


@dataclass(frozen=True)
class FlowConfig:
    """Shape of the flow that `make_flow` builds.

    "spline", "affine" and "autoregressive" are layers of `ConditionalFlow`; "matching" is the continuous
    `MatchingFlow`, which has no layers to mix. Each kind leaves the settings of the others unread.

    Attributes:
        coupling: spline, affine, autoregressive or matching, as above.
        mixing: learned matrices (lu), or fixed permutations, before each coupling.
        n_layers: number of layers.
        width: hidden width of the conditioners, or of the vector field.
        depth: hidden layers of the conditioners; the vector field has two.
        n_bins: of the splines.
        bound: the splines act within +-bound standard deviations.
        min_bin: least width and height of a bin, in standard deviations.
        slope_clamp: limit on the raw slopes at the knots; 0: none (see `SplineCoupling`).
        clamp: of the log-scales of affine couplings and autoregressive layers.
        conditional_affine: first whiten with a mean and a covariance given by the context.
        seed: of the fixed permutations; part of the architecture, not of the weights.
        solver_steps: of the differential equation of matching (see `MatchingFlow` for its error).
    """

    coupling: Literal["spline", "affine", "autoregressive", "matching"] = "spline"
    mixing: Literal["lu", "permutation"] = "lu"
    n_layers: int = 6
    width: int = 128
    depth: int = 2
    n_bins: int = 8
    bound: float = 5.0
    min_bin: float = 1e-3
    slope_clamp: float = 0.0
    clamp: float = 1.9
    conditional_affine: bool = True
    seed: int = 0
    solver_steps: int = 8

    def __post_init__(self):
        for name, allowed in (("coupling", COUPLINGS), ("mixing", ("lu", "permutation"))):
            if getattr(self, name) not in allowed:
                raise InputError(
                    f"FlowConfig.{name}",
                    repr(getattr(self, name)),
                    f"one of {allowed}",
                    "set it to such a value",
                )
        for name in ("n_layers", "width", "depth", "n_bins", "solver_steps"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"FlowConfig.{name}",
                    str(getattr(self, name)),
                    "a positive integer",
                    "set it to such a value",
                )


FLOW_PRESETS: dict[str, FlowConfig] = {
    "default": FlowConfig(),
    "small": FlowConfig(n_layers=4, width=64, n_bins=6),
    "glow": FlowConfig(coupling="affine", n_layers=8, width=128),
}
PRESETS[FlowConfig] = FLOW_PRESETS
