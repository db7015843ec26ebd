"""A network that was told to never see the untrusted pixels does not, in training or in inference."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxspec.flows import FlowConfig
from jaxspec.networks import EncoderConfig
from jaxspec.physics.trust import trusted_pixels
from jaxspec.posterior.amortised import AmortisedPosterior
from jaxspec.posterior.network import NetworkConfig, PosteriorNetwork
from jaxspec.posterior.preparation import prepare, prepare_many
from jaxspec.posterior.simulator import Simulator
from jaxspec.posterior.storage import load_posterior, save_posterior
from jaxspec.spectra import Spectra
from tests.toy import TOY_INSTRUMENT

TRUSTED = trusted_pixels(TOY_INSTRUMENT)
ENCODER = EncoderConfig(n_context=8, projection_width=16, stem_channels=0, n_segments=4, head_width=16)
N = 8


def untrained(toy, trusted_only):
    config = NetworkConfig(ENCODER, FlowConfig(n_layers=1, width=16), trusted_only=trusted_only)
    network = PosteriorNetwork(config, toy.label_set, TOY_INSTRUMENT.n_pixels, rngs=nnx.Rngs(0))
    return AmortisedPosterior(network, TOY_INSTRUMENT)


def observed(bright, untrusted_flux=None):
    flux, ivar = np.array(bright.flux[:N]) * 50.0, np.array(bright.ivar[:N]) / 50.0**2
    if untrusted_flux is not None:
        flux[:, ~TRUSTED] = untrusted_flux
    return Spectra.create(flux, ivar, TOY_INSTRUMENT.wavelength)


def test_the_toy_has_pixels_of_both_kinds():
    assert 20 < (~TRUSTED).sum() < 0.5 * TRUSTED.size


def test_simulations_hold_the_trusted_pixels_only(toy):
    key = jax.random.key(0)
    every, some = (Simulator(toy, trusted_only=only).simulate(key, 64) for only in (False, True))
    assert (np.asarray(every.ivar)[:, ~TRUSTED] > 0).any(1).sum() > 30
    np.testing.assert_array_equal(np.asarray(some.ivar) > 0, (np.asarray(every.ivar) > 0) & TRUSTED)
    assert (np.asarray(some.flux)[:, ~TRUSTED] == 1.0).all()


def test_untrusted_pixels_do_not_shape_the_continuum(bright):
    flux, ivar = bright.flux[:N], bright.ivar[:N]
    other = jnp.where(TRUSTED, flux, 3.0)
    a, b = (prepare_many(f, ivar, TOY_INSTRUMENT, trusted_only=True) for f in (flux, other))
    np.testing.assert_array_equal(a[0], b[0])
    np.testing.assert_array_equal(a[1], b[1])
    a, b = (prepare_many(f, ivar, TOY_INSTRUMENT)[0] for f in (flux, other))
    assert not np.array_equal(a[:, TRUSTED], b[:, TRUSTED])


@pytest.mark.parametrize("trusted_only", [False, True])
def test_networks_do_not_read_what_they_were_not_to_see(toy, bright, trusted_only):
    posterior = untrained(toy, trusted_only)
    contexts = [
        posterior.network.context(*(jnp.asarray(x) for x in posterior.prepare(observed(bright, flux))))
        for flux in (None, 30.0)
    ]
    assert np.array_equal(*contexts) == trusted_only


def test_observed_spectra_are_prepared_as_simulated_ones(toy, bright):
    posterior, spectra = untrained(toy, True), observed(bright)
    flux, ivar = posterior.prepare(spectra)
    raw = jnp.asarray(spectra.flux), jnp.asarray(spectra.ivar)
    expected = prepare(*raw, TOY_INSTRUMENT, trusted_only=True)
    np.testing.assert_allclose(flux, expected[0], rtol=1e-5)
    np.testing.assert_allclose(ivar, expected[1], rtol=1e-5)
    assert (ivar[:, ~TRUSTED] == 0).all() and (ivar[:, TRUSTED] > 0).mean() > 0.9


@pytest.mark.parametrize("n", [0, 1, 5, 7])
def test_any_number_of_spectra_is_prepared(bright, n):
    flux, ivar = prepare_many(bright.flux[:n], bright.ivar[:n], TOY_INSTRUMENT, batch=3)
    assert flux.shape == ivar.shape == (n, TOY_INSTRUMENT.n_pixels) and flux.dtype == np.float32
    expected = prepare(bright.flux[:7], bright.ivar[:7], TOY_INSTRUMENT)
    np.testing.assert_allclose(flux, expected[0][:n], rtol=1e-5)
    np.testing.assert_allclose(ivar, expected[1][:n], rtol=1e-5)


def test_the_setting_is_stored_with_the_weights(toy, tmp_path):
    for trusted_only in (False, True):
        folder = save_posterior(untrained(toy, trusted_only), tmp_path / str(trusted_only))
        assert load_posterior(folder).network.config.trusted_only is trusted_only
    # A file from before the setting existed.
    config = json.loads((folder / "config.json").read_text())
    del config["network"]["trusted_only"]
    (folder / "config.json").write_text(json.dumps(config))
    loaded = load_posterior(folder).network.config
    assert loaded == dataclasses.replace(untrained(toy, False).network.config)
