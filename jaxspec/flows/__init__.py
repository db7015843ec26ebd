"""Conditional normalizing flows: Distrax bijectors whose parameters come from Flax conditioners."""

from jaxspec.flows.affine import ConditionalAffine
from jaxspec.flows.coupling import AffineCoupling, SplineCoupling
from jaxspec.flows.flow import FLOW_PRESETS, ConditionalFlow, FlowConfig
from jaxspec.flows.linear import LULinear, Permutation

__all__ = [
    "FLOW_PRESETS",
    "AffineCoupling",
    "ConditionalAffine",
    "ConditionalFlow",
    "FlowConfig",
    "LULinear",
    "Permutation",
    "SplineCoupling",
]
