"""Encoders: from a spectrum with its inverse variance to the context a flow is conditioned on."""

from jaxspec.networks.encoder import ENCODER_PRESETS, EncoderConfig, SpectrumEncoder
from jaxspec.networks.inputs import input_statistics

__all__ = ["ENCODER_PRESETS", "EncoderConfig", "SpectrumEncoder", "input_statistics"]
