"""Encoders: from a spectrum with its inverse variance to the context a flow is conditioned on."""

from jaxspec.networks.base import Encoder
from jaxspec.networks.config import ENCODER_PRESETS, EncoderConfig
from jaxspec.networks.encoder import SpectrumEncoder, make_encoder
from jaxspec.networks.inputs import input_statistics
from jaxspec.networks.transformer import TransformerEncoder

__all__ = [
    "ENCODER_PRESETS",
    "Encoder",
    "EncoderConfig",
    "SpectrumEncoder",
    "TransformerEncoder",
    "input_statistics",
    "make_encoder",
]
