"""Objectives have their minimum where they should, and densities are per unit of the labels."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxspec.amortised.network import (
    NetworkConfig,
    PosteriorNetwork,
    floored_ivar,
    negative_log_likelihood,
    noisy_label_loss,
    training_loss,
)
from jaxspec.amortised.storage import copy_weights
from jaxspec.datasets import Dataset
from jaxspec.errors import InputError
from jaxspec.flows import FlowConfig
from jaxspec.labels import Label, LabelSet
from jaxspec.networks import EncoderConfig
from tests.compiled import compiled
from tests.shaken import shaken

ONE_LABEL = LabelSet((Label("x", "", -50.0, 50.0, "$x$", "", "a number"),))
SMALL = NetworkConfig(
    EncoderConfig(
        n_context=8,
        bin_pixels=1,
        projection_width=16,
        stem_channels=0,
        n_segments=2,
        head_width=16,
        head_blocks=1,
    ),
    FlowConfig(n_layers=2, width=16, n_bins=4),
)


class GaussianNetwork(PosteriorNetwork):
    """q(x | spectrum) = Normal(flux[0], sigma): the only free number is its width."""

    def __init__(self, sigma):
        self.label_set, self.sigma = ONE_LABEL, sigma
        self.flow, self.point_head, self.linear_fit = None, None, None

    def log_prob(self, labels, flux, ivar, key=None):
        z = (labels[..., 0] - flux[:, 0]) / self.sigma
        return -0.5 * z**2 - jnp.log(self.sigma * np.sqrt(2 * np.pi))


@pytest.mark.parametrize("method, expected", [("deconvolve", 1.0), ("convolve", np.sqrt(1.0 + 2 * 0.8**2))])
def test_label_errors_are_deconvolved(method, expected):
    """Truth scatters by 1 about the estimate, catalogue labels by 0.8 about the truth: the best width is 1,
    not 1.28 or 1.51."""
    keys = jax.random.split(jax.random.key(0), 4)
    n = 4000
    flux = jax.random.normal(keys[0], (n, 1)) * 3.0
    truth = flux + jax.random.normal(keys[1], (n, 1))
    errors = jnp.full((n, 1), 0.8)
    labels = truth + errors * jax.random.normal(keys[2], (n, 1))
    sigmas = np.linspace(0.6, 2.0, 29)
    loss = [
        float(
            noisy_label_loss(
                GaussianNetwork(s), Dataset(labels, flux, flux, errors), keys[3], n_draws=64, method=method
            )
        )
        for s in sigmas
    ]
    # The minimum of a parabola through the lowest three points; its error is about 1 / sqrt(2 n) of the
    # width.
    i = int(np.clip(np.argmin(loss), 1, len(loss) - 2))
    a, b, _ = np.polyfit(sigmas[i - 1 : i + 2], loss[i - 1 : i + 2], 2)
    assert abs(-b / (2 * a) - expected) < 0.06


def test_exact_labels_need_no_draws():
    network = GaussianNetwork(1.3)
    labels, flux = jnp.asarray([[0.3], [2.0]]), jnp.asarray([[0.0], [1.0]])
    exact = negative_log_likelihood(network, Dataset(labels, flux, flux))
    noisy = noisy_label_loss(network, Dataset(labels, flux, flux), jax.random.key(0), n_draws=3)
    np.testing.assert_allclose(exact, noisy, rtol=1e-5)
    with pytest.raises(InputError, match="method"):
        noisy_label_loss(network, Dataset(labels, flux, flux, labels), jax.random.key(0), method="ignore")


def network_and_batch(coupling):
    label_set = LabelSet(
        (Label("x", "K", 10.0, 30.0, "$x$", "", "a number"), Label("y", "", 0.0, 2.0, "$y$", "", "another"))
    )
    config = dataclasses.replace(SMALL, flow=dataclasses.replace(SMALL.flow, coupling=coupling))
    network = PosteriorNetwork(config, label_set, 12, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    labels = np.stack([rng.normal(20, 3, 50), rng.normal(1, 0.2, 50)], -1)
    flux = rng.normal(1.0, 0.1, (50, 12))
    batch = Dataset(*(jnp.asarray(x, jnp.float32) for x in (labels, flux, np.ones_like(flux))))
    network.set_statistics(*batch[:3])
    return network, batch


@pytest.mark.parametrize("coupling", ["spline", "affine", "autoregressive"])
def test_flows_of_layers_are_trained_by_likelihood(coupling):
    """To the last bit, in value and gradient: what was trained before can be trained again."""
    network, batch = network_and_batch(coupling)
    graph, params, rest = nnx.split(network, nnx.Param, ...)

    def of(objective):
        return jax.jit(jax.value_and_grad(lambda p: objective(nnx.merge(graph, p, rest), batch)))(params)

    for a, b in zip(*(jax.tree.leaves(of(f)) for f in (training_loss, negative_log_likelihood)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_matching_is_trained_by_regression():
    """Its loss is that of the flow and the labels' volume, and it refuses labels with errors."""
    network, batch = network_and_batch("matching")
    key = jax.random.key(0)
    z = network.label_set.to_unconstrained(batch.labels)
    of_flow = network.flow.loss(key, z, network.context(batch.flux, batch.ivar))
    np.testing.assert_allclose(
        training_loss(network, batch, key), np.mean(of_flow + network.label_set.log_det(z)), rtol=1e-5
    )
    with pytest.raises(InputError, match="trained by matching"):
        noisy_label_loss(network, batch._replace(errors=batch.labels), key)


def test_dropout_leaves_units_out_in_training_only():
    """With one block the context is linear in what is left out: many of them average to the whole."""
    network, batch = network_and_batch("spline")
    network = shaken(network, 0.1)
    whole = network.context(batch.flux, batch.ivar)
    np.testing.assert_array_equal(network.context(batch.flux, batch.ivar, jax.random.key(0)), whole)

    config = dataclasses.replace(network.config, encoder=dataclasses.replace(SMALL.encoder, dropout=0.4))
    dropping = PosteriorNetwork(config, network.label_set, 12, rngs=nnx.Rngs(0))
    copy_weights(network, dropping, "dropout")
    np.testing.assert_array_equal(dropping.context(batch.flux, batch.ivar), whole)
    keys = jax.random.split(jax.random.key(1), 2000)
    graph, state = nnx.split(dropping)
    some = jax.jit(jax.vmap(lambda key: nnx.merge(graph, state).context(batch.flux, batch.ivar, key)))(keys)
    spread = np.asarray(some.std(axis=0))
    assert np.median(spread) > 0.05
    z = (np.asarray(some.mean(axis=0)) - whole) / (spread / np.sqrt(len(keys)) + 1e-6)
    assert np.sqrt(np.mean(z**2)) < 1.2
    # Of two stars not the same units.
    apart = np.asarray(some - whole)
    assert abs(np.corrcoef(apart[:, 0, 0], apart[:, 1, 0])[0, 1]) < 0.1

    # Both objectives train with dropout, and judge without.
    uncertain, key = batch._replace(errors=0.01 * batch.labels), jax.random.key(2)
    for one, other in (
        [compiled(n, training_loss, batch, key) for n in (dropping, network)],
        [compiled(n, noisy_label_loss, uncertain, key) for n in (dropping, network)],
    ):
        assert abs(one - other) > 1e-3
    assert compiled(dropping, negative_log_likelihood, batch, key) == compiled(
        network, negative_log_likelihood, batch
    )
    assert compiled(dropping, training_loss, batch) == compiled(network, training_loss, batch)
    with pytest.raises(InputError, match="dropout"):
        dataclasses.replace(SMALL.encoder, dropout=1.0)


def point(network, flux, ivar):
    """Point estimates and their errors."""
    return network.point_estimate(network.context(flux, ivar))


@pytest.mark.parametrize("method", ["exact", "deconvolve", "convolve"])
def test_point_estimates_and_their_errors(method):
    """Truths scatter about what the flux says, by an amount that the flux says too. Catalogue labels with
    errors as large as the scatter are seen through, or not, as the flow sees through them."""

    def make(key, n=500):
        keys = jax.random.split(key, 5)
        wide = jax.random.bernoulli(keys[0], 0.5, (n,))
        flux = 1.0 + 0.1 * jax.random.normal(keys[1], (n, 12))
        flux = flux.at[:, 11].set(jnp.where(wide, 1.2, 0.8))
        sigma = jnp.where(wide, 1.2, 0.4)
        centre = 20.0 + 15.0 * (flux[:, 0] - 1.0)
        errors = jnp.zeros((n, 2)).at[:, 0].set(0.0 if method == "exact" else sigma)
        truth = jnp.stack([centre, 1.0 + 0.2 * jax.random.normal(keys[2], (n,))], 1)
        truth = truth.at[:, 0].add(sigma * jax.random.normal(keys[3], (n,)))
        labels = truth + errors * jax.random.normal(keys[4], (n, 2))
        return Dataset(labels, flux, jnp.full_like(flux, 1e4)), errors, centre, sigma

    batch, _, centre, sigma = make(jax.random.key(5), 2000)
    labels, flux, ivar = batch.labels, batch.flux, batch.ivar
    network, _ = network_and_batch("affine")
    config = dataclasses.replace(network.config, point_weight=0.7)
    network = PosteriorNetwork(config, network.label_set, 12, rngs=nnx.Rngs(0))
    network.set_statistics(labels, flux, ivar)
    # What it is before training: the scatter of all labels.
    before = compiled(network, point, flux, ivar)
    np.testing.assert_allclose(before[0][0], labels.mean(axis=0), rtol=0.02)
    np.testing.assert_allclose(before[1][0], labels.std(axis=0), rtol=0.1)

    graph, params, rest = nnx.split(network, nnx.Param, ...)

    def objective(params, key):
        model = nnx.merge(graph, params, rest)
        batch, errors, *_ = make(key)
        if method == "exact":
            return training_loss(model, batch, key)
        return noisy_label_loss(model, batch._replace(errors=errors), key, n_draws=2, method=method)

    optimiser = optax.adam(optax.cosine_decay_schedule(5e-3, 400))

    @jax.jit
    def train(params):
        def step(carry, key):
            params, state = carry
            updates, state = optimiser.update(jax.grad(objective)(params, key), state)
            return (optax.apply_updates(params, updates), state), None

        keys = jax.random.split(jax.random.key(0), 400)
        return jax.lax.scan(step, (params, optimiser.init(params)), keys)[0][0]

    network = nnx.merge(graph, train(params), rest)
    estimate, error = compiled(network, point, flux, ivar)
    assert np.sqrt(np.mean((estimate[:, 0] - centre) ** 2)) < 0.25
    factor = {"exact": 1.0, "deconvolve": 1.0, "convolve": np.sqrt(3.0)}[method]
    for one in (0.4, 1.2):
        found = np.median(error[np.isclose(sigma, one), 0])
        assert abs(found / (factor * one) - 1.0) < 0.1, (one, found)
    # So much of its loss is added, no more.
    twice = dataclasses.replace(config, point_weight=1.4)
    double = PosteriorNetwork(twice, network.label_set, 12, rngs=nnx.Rngs(0))
    copy_weights(network, double, "point")
    flow = compiled(network, negative_log_likelihood, batch)
    once, twice = (compiled(n, training_loss, batch) for n in (network, double))
    np.testing.assert_allclose(twice - flow, 2.0 * (once - flow), rtol=1e-3)
    with pytest.raises(InputError, match="point_weight"):
        NetworkConfig(point_weight=-1.0)


def test_density_is_per_unit_of_the_labels():
    """A density integrates to one over the label itself, whatever the bijection to unconstrained space."""
    label_set = LabelSet(
        (Label("x", "K", 10.0, 30.0, "$x$", "", "a number"), Label("y", "", 0.0, 2.0, "$y$", "", "another"))
    )
    network = PosteriorNetwork(SMALL, label_set, 12, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    labels = jnp.asarray(np.stack([rng.normal(20, 3, 200), rng.normal(1, 0.2, 200)], -1), jnp.float32)
    flux, ivar = jnp.ones((200, 12)), jnp.ones((200, 12))
    network.set_statistics(labels, flux + 0.1 * jax.random.normal(jax.random.key(0), flux.shape), ivar)
    x, y = np.meshgrid(np.linspace(10, 30, 201)[1:-1], np.linspace(0, 2, 201)[1:-1], indexing="ij")
    grid = jnp.asarray(np.stack([x, y], -1).reshape(-1, 1, 2), jnp.float32)
    density = np.exp(np.asarray(compiled(network, PosteriorNetwork.log_prob, grid, flux[:1], ivar[:1])))
    assert abs(density.sum() * 0.1 * 0.01 - 1.0) < 5e-3
    # Its draws follow it.
    key = jax.random.key(1)
    draws, log_prob = compiled(network, lambda n, *stars: n.sample(key, *stars, 500), flux[:1], ivar[:1])
    again = compiled(network, PosteriorNetwork.log_prob, draws, flux[:1], ivar[:1])
    np.testing.assert_allclose(log_prob, again, atol=2e-3)
    assert (draws > jnp.asarray([10.0, 0.0])).all() and (draws < jnp.asarray([30.0, 2.0])).all()
    assert abs(float(draws[..., 0].mean()) - 20.0) < 1.0


def test_error_floor():
    ivar = jnp.asarray([0.0, 1.0, 1e12])
    np.testing.assert_allclose(floored_ivar(ivar, 0.0025), [0.0, 1.0, 1.6e5], rtol=1e-4)
