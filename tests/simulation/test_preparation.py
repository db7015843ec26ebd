"""Observed spectra, any number of them, are prepared as simulated ones are."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxspec.amortised.amortised import AmortisedPosterior
from jaxspec.amortised.network import NetworkConfig, PosteriorNetwork
from jaxspec.flows import FlowConfig
from jaxspec.networks import EncoderConfig
from jaxspec.simulation.preparation import prepare, prepare_many
from jaxspec.spectra import Spectra
from tests.toy import TOY_INSTRUMENT

ENCODER = EncoderConfig(n_context=8, projection_width=16, stem_channels=0, n_segments=4, head_width=16)
N = 8


def test_observed_spectra_are_prepared_as_simulated_ones(toy, bright):
    config = NetworkConfig(ENCODER, FlowConfig(n_layers=1, width=16))
    network = PosteriorNetwork(config, toy.label_set, TOY_INSTRUMENT.n_pixels, rngs=nnx.Rngs(0))
    flux, ivar = np.array(bright.flux[:N]) * 50.0, np.array(bright.ivar[:N]) / 50.0**2
    spectra = Spectra.create(flux, ivar, TOY_INSTRUMENT.wavelength)
    flux, ivar = AmortisedPosterior(network, TOY_INSTRUMENT).prepare(spectra)
    expected = prepare(jnp.asarray(spectra.flux), jnp.asarray(spectra.ivar), TOY_INSTRUMENT)
    np.testing.assert_allclose(flux, expected[0], rtol=1e-5)
    np.testing.assert_allclose(ivar, expected[1], rtol=1e-5)
    assert (ivar > 0).mean() > 0.9


@pytest.mark.parametrize("n", [0, 1, 5, 7])
def test_any_number_of_spectra_is_prepared(bright, n):
    flux, ivar = prepare_many(bright.flux[:n], bright.ivar[:n], TOY_INSTRUMENT, batch=3)
    assert flux.shape == ivar.shape == (n, TOY_INSTRUMENT.n_pixels) and flux.dtype == np.float32
    expected = prepare(bright.flux[:7], bright.ivar[:7], TOY_INSTRUMENT)
    np.testing.assert_allclose(flux, expected[0][:n], rtol=1e-5)
    np.testing.assert_allclose(ivar, expected[1][:n], rtol=1e-5)
