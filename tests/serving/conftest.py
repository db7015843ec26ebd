"""Toy networks to export: one for every kind of flow, one with a linear fit."""

import jax
import numpy as np
import pytest
from flax import nnx

from jaxspec.amortised.amortised import AmortisedPosterior
from jaxspec.amortised.network import NetworkConfig, PosteriorNetwork
from jaxspec.fitting.likelihood import LikelihoodConfig
from jaxspec.flows import FlowConfig
from jaxspec.networks import EncoderConfig
from jaxspec.simulation.prior import StellarPrior
from tests.shaken import shaken
from tests.toy import TOY_INSTRUMENT, ToyForwardModel

ENCODER = EncoderConfig(
    n_context=12,
    bin_pixels=2,
    projection_width=16,
    stem_channels=4,
    block_channels=(4,),
    n_segments=4,
    flat_channels=2,
    conv_width=8,
    head_width=16,
    head_blocks=1,
)
TAME = dict(n_bins=4, min_bin=0.25, slope_clamp=2.5)


def network(coupling: str, linear_fit: bool = False) -> AmortisedPosterior:
    """Random weights, as wide as trained ones; pixels have the toy's mean."""
    toy = ToyForwardModel()
    config = NetworkConfig(
        ENCODER,
        FlowConfig(coupling=coupling, n_layers=1, width=8, **TAME),
        linear_fit=LikelihoodConfig(steps=0, continuum_degree=3) if linear_fit else None,
    )
    net = PosteriorNetwork(
        config,
        toy.label_set,
        TOY_INSTRUMENT.wavelength,
        rngs=nnx.Rngs(0),
        forward=toy if linear_fit else None,
    )
    net = shaken(net, 0.05)
    prior = StellarPrior(names=toy.label_set.names)
    z = np.asarray(toy.label_set.to_unconstrained(prior.sample(jax.random.key(0), 500)))
    (net.linear_fit or net.flow).set_standardisation(z.mean(0), z.std(0))
    pixels = TOY_INSTRUMENT.n_pixels
    net.encoder.set_input_statistics(np.full(pixels, 0.9, np.float32), np.full(pixels, 0.05, np.float32))
    return AmortisedPosterior(net, TOY_INSTRUMENT, prior, provenance={"steps": 0})


@pytest.fixture(scope="session")
def spline():
    return network("spline")


@pytest.fixture(scope="session")
def exported(spline, tmp_path_factory):
    """The folder of an exported toy."""
    pytest.importorskip("jax2onnx")
    pytest.importorskip("onnxruntime")
    from jaxspec.serving.export import export_posterior

    return export_posterior(spline, tmp_path_factory.mktemp("export") / "model", "toy")
