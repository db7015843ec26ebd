"""Weights that run without JAX: export to ONNX and StableHLO, and a server of the Open Inference Protocol."""
