"""Conditional normalizing flows: Distrax bijectors whose parameters come from Flax conditioners."""

from jaxspec.flows.affine import ConditionalAffine
from jaxspec.flows.autoregressive import Autoregressive
from jaxspec.flows.base import Flow
from jaxspec.flows.config import FLOW_PRESETS, FlowConfig
from jaxspec.flows.coupling import AffineCoupling, SplineCoupling
from jaxspec.flows.flow import ConditionalFlow, make_flow
from jaxspec.flows.linear import LULinear, Permutation
from jaxspec.flows.matching import MatchingFlow

__all__ = [
    "FLOW_PRESETS",
    "AffineCoupling",
    "Autoregressive",
    "ConditionalAffine",
    "ConditionalFlow",
    "Flow",
    "FlowConfig",
    "LULinear",
    "MatchingFlow",
    "Permutation",
    "SplineCoupling",
    "make_flow",
]
