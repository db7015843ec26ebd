"""A network that fits starts at the best linear estimate; densities, maps and files are as of any other."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxspec.amortised.amortised import AmortisedPosterior
from jaxspec.amortised.linear_fit import SLOWEST, misfit
from jaxspec.amortised.network import NetworkConfig, PosteriorNetwork, noisy_label_loss
from jaxspec.amortised.storage import copy_weights, load_posterior, save_posterior
from jaxspec.diagnostics.saliency import saliency
from jaxspec.errors import InputError
from jaxspec.fitting.likelihood import VSINI, LikelihoodConfig, nuisance_scale
from jaxspec.fitting.modes import Fit, fit_modes
from jaxspec.flows import FlowConfig
from jaxspec.instruments import get_instrument
from jaxspec.networks import EncoderConfig
from jaxspec.physics import turbulence
from jaxspec.physics.forward import load_forward_model
from tests.compiled import compiled
from tests.toy import TOY_INSTRUMENT

UNITS = np.array([100.0, 0.1] + 7 * [0.05])
PLAIN = NetworkConfig(
    EncoderConfig(
        n_context=28, projection_width=16, stem_channels=0, n_segments=2, head_width=16, head_blocks=1
    ),
    FlowConfig(n_layers=2, width=16, n_bins=4),
)
CONFIG = dataclasses.replace(PLAIN, linear_fit=LikelihoodConfig(steps=0))


def make(toy, config=CONFIG):
    return PosteriorNetwork(config, toy.label_set, TOY_INSTRUMENT.wavelength, rngs=nnx.Rngs(0), forward=toy)


def true_guess(stars):
    """The context that a perfect encoder with `told` would have: labels and nuisances as they are."""
    stellar = [stars.labels[:, i] for i in range(3)]
    zero = jnp.zeros(len(stars.labels))
    centre = [
        turbulence.vmic_calibration(*stellar),
        turbulence.vmac_calibration(*stellar),
        zero,
        zero,
        zero + 1.0,
    ]
    u = (jnp.stack(stars.nuisances, -1) - jnp.stack(centre, -1)) / nuisance_scale(LikelihoodConfig())
    return u.at[:, VSINI].set(jnp.log(u[:, VSINI] + SLOWEST))


@pytest.fixture(scope="module")
def told(toy, bright):
    """A network whose guess is what its context says, and contexts that say the truth."""
    network = make(toy)
    z = toy.label_set.to_unconstrained(bright.labels)
    network.set_statistics(bright.labels, bright.flux, bright.ivar)
    fit = network.linear_fit
    kernel = np.zeros(fit.guess.kernel[...].shape, np.float32)
    kernel[np.arange(14), np.arange(14)] = 1.0
    kernel[np.arange(14, 28), np.arange(14, 28)] = 1.0
    fit.guess.kernel[...] = jnp.asarray(kernel)
    context = jnp.concatenate([(z - fit.location[...]) / fit.scale[...], true_guess(bright)], -1)
    return network, jnp.concatenate([context, jnp.full_like(context, -2.0)], -1)


def estimate_of(network, *arguments):
    return compiled(network, lambda network, *a: network.linear_fit.estimate(*a), *arguments)


def test_it_is_the_best_fit(toy, bright, told):
    """64 stars at S/N 300, guessed well: mean and errors as those of the fit that starts far away and takes
    18 steps, and scatter about the truth as stated."""
    network, context = told
    found = estimate_of(network, context, bright.flux, bright.ivar)
    mode = fit_modes(toy, bright.labels, bright.flux, bright.ivar)
    labels = mode.start + UNITS * mode.centre[:, :9]
    errors = UNITS * np.sqrt(np.diagonal(mode.covariance, axis1=1, axis2=2))[:, :9]
    sigma = np.sqrt(np.diagonal(found.covariance, axis1=1, axis2=2))
    usual = np.abs(found.labels - labels) / errors
    assert np.median(usual) < 0.1 and np.quantile(usual, 0.9) < 0.5
    np.testing.assert_allclose(np.median(sigma / errors, axis=0), 1.0, atol=0.05)
    z = (found.labels - bright.labels) / sigma
    assert abs(np.median(np.abs(z)) / 0.6745 - 1.0) < 4 * 1.17 / np.sqrt(z.size)


def test_steps_make_up_for_a_poor_guess(toy, bright, told):
    """Guessed 150 K, 0.2 dex and 0.15 dex off, at S/N 300 many errors."""
    network, context = told
    away = jnp.asarray([150.0, 0.2] + 7 * [0.15])
    z = toy.label_set.to_unconstrained(bright.labels + away)
    fit = network.linear_fit
    off = context.at[:, :9].set((z - fit.location[...]) / fit.scale[...])
    several = make(toy, dataclasses.replace(CONFIG, linear_fit=LikelihoodConfig(steps=3)))
    copy_weights(network, several, "test")
    misses = []
    for one in (network, several):
        found = estimate_of(one, off, bright.flux, bright.ivar)
        sigma = np.sqrt(np.diagonal(found.covariance, axis1=1, axis2=2))
        misses.append(np.abs(found.labels - bright.labels) / sigma)
    assert np.median(misses[1]) < 1.0 < 1.2 * np.median(misses[0])
    # What is far from the guess is less certain: without that the first would be ten errors off.
    assert np.quantile(misses[0], 0.9) < 8.0


@pytest.mark.parametrize("steps", [0, 1])
def test_it_moves_with_the_flux_as_the_fit_does(toy, bright, told, steps):
    """Derivatives by the flux, behind saliency maps, against spectra with a line a little deeper."""
    network, context = (
        make(toy, dataclasses.replace(CONFIG, linear_fit=LikelihoodConfig(steps=steps))),
        told[1],
    )
    copy_weights(told[0], network, "test")
    graph, state = nnx.split(network)
    one = context[:1], bright.flux[:1], bright.ivar[:1]

    @jax.jit
    def labels(flux):
        return nnx.merge(graph, state).linear_fit.estimate(one[0], flux, one[2]).labels[0]

    x = np.arange(bright.flux.shape[1])
    change = jnp.asarray(np.exp(-0.5 * ((x - np.argmin(bright.flux[0])) / 3.0) ** 2), jnp.float32)[None]
    step = 1e-3
    expected = (labels(one[1] + step * change) - labels(one[1] - step * change)) / (2 * step)
    slope = jax.jacrev(labels)(one[1])[:, 0] @ change[0]
    expected, slope = np.asarray(expected) / UNITS, np.asarray(slope) / UNITS
    np.testing.assert_allclose(slope, expected, atol=0.1 * np.abs(expected).max())


def test_an_untrained_flow_is_the_fits_gaussian(bright, told):
    network, context = told
    flux, ivar = bright.flux[:4], bright.ivar[:4]
    found = estimate_of(network, context[:4], flux, ivar)

    def sample(network, *stars):
        packed = network.linear_fit(network.linear_fit.fitted(*stars))
        return network.sample_given(jax.random.key(0), packed, 4000)

    draws, log_prob = map(np.asarray, compiled(network, sample, context[:4], flux, ivar))
    sigma = np.sqrt(np.diagonal(found.covariance, axis1=1, axis2=2))
    np.testing.assert_allclose((draws.mean(0) - found.labels) / sigma, 0.0, atol=0.1)
    for star in range(4):
        root = np.linalg.inv(
            np.linalg.cholesky(np.asarray(found.covariance[star], float) / np.outer(sigma[star], sigma[star]))
        )
        white = root @ np.cov((draws[:, star] / sigma[star]).T) @ root.T
        np.testing.assert_allclose(white, np.eye(9), atol=0.15)
        difference = (draws[:, star] - found.labels[star]) / sigma[star]
        expected = -0.5 * np.sum((difference @ root.T) ** 2, -1) + np.linalg.slogdet(root)[1]
        expected -= np.log(sigma[star]).sum() + 4.5 * np.log(2 * np.pi)
        assert np.median(np.abs(np.asarray(log_prob[:, star]) - expected)) < 0.15


def test_densities_are_those_of_the_draws(bright, toy):
    network = make(toy)
    network.set_statistics(bright.labels, bright.flux, bright.ivar)
    for path, variable in nnx.to_flat_state(nnx.state(network.flow, nnx.Param)):
        noise = jax.random.normal(jax.random.key(hash(path) % 1000), variable[...].shape)
        variable[...] = variable[...] + 0.05 * noise
    flux, ivar = bright.flux[:3], bright.ivar[:3]
    draws, log_prob = compiled(network, lambda n, *a: n.sample(jax.random.key(1), *a, 16), flux, ivar)
    again = compiled(network, PosteriorNetwork.log_prob, draws, flux, ivar)
    np.testing.assert_allclose(again, log_prob, atol=0.05)


def test_unused_pixels_and_unseen_stars(survey, told, toy):
    network, context = told
    flux, ivar = survey.flux[:8], survey.ivar[:8].at[0].set(0.0)
    wrong = jnp.where(ivar > 0.0, flux, jnp.nan)
    same = [estimate_of(network, context[:8], x, ivar) for x in (flux, wrong)]
    for a, b in zip(*(jax.tree.leaves(x) for x in same), strict=True):
        assert np.isfinite(a).all()
        np.testing.assert_array_equal(a, b)
    inside = (same[0].labels > toy.label_set.low) & (same[0].labels < toy.label_set.high)
    assert inside.all()
    # Nothing seen: what is guessed, and nothing known.
    guess = toy.label_set.to_labels(
        network.linear_fit.location[...] + network.linear_fit.scale[...] * context[0, :9]
    )
    np.testing.assert_allclose(same[0].labels[0, :3], guess[:3], rtol=1e-3)
    assert same[0].covariance[0, 0, 0] > 500.0**2


def test_misfits_are_told_apart(toy, bright):
    """Noise of twice the stated error, and lines that the model lacks, look different."""
    truth, nuisances = bright.labels[0], jax.tree.map(lambda x: x[0], bright.nuisances)
    model = toy(truth, nuisances)
    rng = np.random.default_rng(0)
    ivar = jnp.full(model.shape, 100.0**2)
    fit = Fit(toy, truth, model, ivar, LikelihoodConfig())
    noise = jnp.asarray(rng.normal(size=model.size) / 100.0, jnp.float32)
    lines = np.convolve(rng.normal(size=model.size), np.exp(-0.5 * (np.arange(-9, 10) / 2.5) ** 2), "same")
    lines = jnp.asarray(0.02 * lines / lines.std(), jnp.float32)
    plain, loud, wrong = (np.asarray(misfit(fit, r)).reshape(2, 4) for r in (noise, 2.0 * noise, lines))
    np.testing.assert_allclose(plain[:, 0], 0.0, atol=0.15)
    np.testing.assert_allclose(loud[:, 0] - plain[:, 0], np.log(2.0), atol=1e-4)
    np.testing.assert_allclose(loud[:, 2:], plain[:, 2:], atol=1e-4)
    assert np.all(np.abs(plain[:, 2:]) < 0.12) and np.all(wrong[:, 2] > 0.4)


def test_the_guess_loss_is_a_gaussians(bright, told):
    network, context = told
    fit = network.linear_fit
    at_truth = fit.guess_loss(context, bright.labels, bright.nuisances)
    np.testing.assert_allclose(at_truth, 14 * -2.0, atol=1e-2)
    moved = context.at[:, VSINI + 14].add(np.exp(-2.0))
    np.testing.assert_allclose(
        fit.guess_loss(moved, bright.labels, bright.nuisances) - at_truth, 0.5, atol=1e-2
    )


def test_it_is_stored_without_the_forward_model(bright, told, toy, tmp_path):
    network, _ = told
    folder = save_posterior(AmortisedPosterior(network, TOY_INSTRUMENT), tmp_path / "model", "float32")
    with np.load(folder / "arrays.npz") as stored:
        assert not any("linear_fit/arrays" in name for name in stored.files)
        assert any("linear_fit/guess" in name for name in stored.files)
    loaded = load_posterior(folder, forward=toy).network
    assert loaded.config == network.config
    few = bright.flux[:2], bright.ivar[:2]
    contexts = [compiled(one, PosteriorNetwork.context, *few) for one in (loaded, network)]
    np.testing.assert_array_equal(*contexts)


def test_an_emulator_of_ones_own_is_stored_along(tmp_path):
    instrument = get_instrument("giraffe")
    shipped = load_forward_model(instrument)
    other = eqx.tree_at(lambda model: model.emulator.mean, shipped, shipped.emulator.mean * 0.99)
    for forward, stored in ((shipped, False), (other, True)):
        network = PosteriorNetwork(
            CONFIG, forward.label_set, instrument.wavelength, rngs=nnx.Rngs(0), forward=forward
        )
        folder = save_posterior(AmortisedPosterior(network, instrument), tmp_path / str(stored))
        assert (folder / "emulator").exists() == stored
        loaded = load_posterior(folder).network.linear_fit.forward
        np.testing.assert_array_equal(loaded.emulator.mean, forward.emulator.mean)


def test_only_the_encoder_goes_from_or_to_a_network_without_a_fit(toy):
    plain = PosteriorNetwork(PLAIN, toy.label_set, TOY_INSTRUMENT.wavelength, rngs=nnx.Rngs(5))
    network = make(toy)
    for source, target in ((plain, network), (make(toy), plain)):
        rest = jax.tree.leaves(nnx.state((target.flow, target.linear_fit)))
        rest = [np.asarray(x) for x in rest]
        copy_weights(source, target, "test")
        for a, b in zip(*(jax.tree.leaves(nnx.state(x.encoder)) for x in (source, target)), strict=True):
            np.testing.assert_array_equal(a, b)
        for a, b in zip(rest, jax.tree.leaves(nnx.state((target.flow, target.linear_fit))), strict=True):
            np.testing.assert_array_equal(a, b)


def test_what_it_needs_is_said(toy, bright):
    with pytest.raises(InputError, match="no forward model"):
        PosteriorNetwork(CONFIG, toy.label_set, TOY_INSTRUMENT.wavelength, rngs=nnx.Rngs(0))
    with pytest.raises(InputError, match=r"likelihood\.steps"):
        LikelihoodConfig(steps=-1)
    network = make(toy)
    with pytest.raises(InputError, match="linear fit"):
        noisy_label_loss(network, bright, jax.random.key(0))


def test_saliency_of_the_width_is_not_there(toy, bright, told):
    """Derivatives stop where the model was linearised, which the covariance follows and the mean, to first
    order, does not."""
    posterior = AmortisedPosterior(told[0], TOY_INSTRUMENT)
    flux, ivar = np.asarray(bright.flux)[:1], np.asarray(bright.ivar)[:1]
    maps = saliency(posterior, flux, ivar, jax.random.key(0), "gradient", n_draws=8)
    assert maps.width is None and maps.mean.shape == (1, 9, flux.shape[1])
    assert np.isfinite(maps.mean).all() and (maps.mean != 0.0).any()
