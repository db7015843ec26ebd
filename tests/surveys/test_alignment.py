"""Losses of alignment against closed forms, and what a training with them does to a known shift."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from sklearn.metrics.pairwise import rbf_kernel

from jaxspec.amortised.network import NetworkConfig, PosteriorNetwork
from jaxspec.datasets import Dataset
from jaxspec.errors import InputError
from jaxspec.flows import FlowConfig
from jaxspec.labels import label_set
from jaxspec.networks import EncoderConfig
from jaxspec.surveys.adapt import AlignmentSource, Survey, align, posterior_draws, summaries
from jaxspec.surveys.alignment import (
    ALIGNMENTS,
    METHODS,
    AlignedNetwork,
    AlignmentConfig,
    alignment_loss,
    coral,
    entropy_weight,
    mmd,
)
from jaxspec.surveys.scores import separability
from jaxspec.training import OptimiserConfig, TrainConfig

LABELS = label_set("teff", "logg")
SMALL = NetworkConfig(
    EncoderConfig(
        n_context=8, bin_pixels=1, projection_width=16, weight_bins=8, stem_channels=0, n_segments=2,
        head_width=16, head_blocks=1,
    ),
    FlowConfig(coupling="affine", n_layers=1, width=16, depth=1),
)  # fmt: skip
PIXELS = 24


def stars(rng, n, shift=0.0):
    """Spectra linear in two labels with noise; a survey may see a pattern on top."""
    z = rng.normal(size=(n, 2))
    labels = np.stack([5500.0 + 300.0 * z[:, 0], 3.0 + 0.5 * z[:, 1]], axis=1).astype(np.float32)
    pattern = np.random.default_rng(1).normal(size=(2, PIXELS)) * 0.05
    odd = np.random.default_rng(2).normal(size=PIXELS) * 0.05
    flux = 1.0 + z @ pattern + shift * odd + 0.02 * rng.normal(size=(n, PIXELS))
    return Dataset(labels, flux.astype(np.float32), np.full((n, PIXELS), 2500.0, np.float32))


def test_mmd_is_that_of_its_kernels(rng):
    a, b = rng.normal(size=(30, 4)), rng.normal(0.5, 1.5, size=(20, 4))
    w = rng.uniform(0.2, 2.0, 30)
    p, q = w / w.sum(), np.full(20, 1 / 20)
    squared = lambda x, y: np.sum((x[:, None] - y) ** 2, axis=-1)  # noqa: E731
    scale = (p @ squared(a, b) @ q + p @ squared(a, a) @ p + q @ squared(b, b) @ q) / 3.0
    expected = 0.0
    for factor in (0.25, 0.5, 1.0, 2.0, 4.0):
        k = lambda x, y, g=1.0 / (factor * scale): rbf_kernel(x, y, gamma=g)  # noqa: E731
        expected += (p @ k(a, a) @ p - 2 * p @ k(a, b) @ q + q @ k(b, b) @ q) / 5.0
    found = mmd(*(jnp.asarray(x) for x in (a, b, w, np.ones(20))))
    assert float(found) == pytest.approx(expected, rel=1e-4)
    same = mmd(jnp.asarray(a), jnp.asarray(a), jnp.asarray(w), jnp.asarray(w))
    assert abs(float(same)) < 1e-6


def test_coral_is_that_of_two_covariances(rng):
    a, b = rng.normal(size=(200, 3)), rng.normal(size=(150, 3)) @ np.diag([1.0, 2.0, 0.5]) + 0.3
    cov = lambda x: np.cov(x.T, bias=True)  # noqa: E731
    expected = np.sum((cov(a) - cov(b)) ** 2) / 36 + np.sum((a.mean(0) - b.mean(0)) ** 2) / 12
    found = coral(jnp.asarray(a), jnp.asarray(b), jnp.ones(200), jnp.ones(150))
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_coral_of_weighted_stars_is_that_of_repeated_ones(rng):
    a, b = rng.normal(size=(40, 3)), rng.normal(size=(30, 3))
    times = rng.integers(1, 4, 40)
    repeated = np.repeat(a, times, axis=0)
    one = coral(*(jnp.asarray(x, jnp.float32) for x in (a, b, times, np.ones(30))))
    other = coral(*(jnp.asarray(x, jnp.float32) for x in (repeated, b, np.ones(len(repeated)), np.ones(30))))
    assert float(one) == pytest.approx(float(other), rel=1e-4)


def test_narrow_posteriors_weigh_more():
    draws = jax.random.normal(jax.random.key(0), (4000, 3, 2)) * jnp.array([1.0, 0.5, 0.01])[:, None]
    weight = np.asarray(entropy_weight(draws))
    np.testing.assert_allclose(weight[:2], [2.0, 3.0], rtol=0.05)
    assert weight[2] == 6.0
    assert np.array_equal(entropy_weight(draws[:1]), np.ones(3))


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    surveys = [Survey("a", stars(rng, 64), True), Survey("b", stars(rng, 64, 1.0), False)]
    surveys.append(Survey("c", stars(rng, 64, -1.0), False))
    config = dataclasses.replace(ALIGNMENTS["dann"], start=0.0)
    return jax.tree.map(jnp.asarray, AlignmentSource(surveys, LABELS, config, 10, 32)(9))


def network(method, n_surveys=3, **changes):
    made = PosteriorNetwork(SMALL, LABELS, PIXELS, rngs=nnx.Rngs(0))
    made.set_statistics(
        jnp.array([[5000.0, 2.5], [6000.0, 3.5]]), jnp.ones((4, PIXELS)), jnp.ones((4, PIXELS))
    )
    config = dataclasses.replace(ALIGNMENTS[method], **changes)
    return AlignedNetwork(made, config, n_surveys, rngs=nnx.Rngs(1))


@pytest.mark.parametrize("method", [m for m in METHODS if m != "none"])
def test_three_surveys_at_once(method, batch):
    """The loss is finite and its gradient reaches the encoder through stars without labels alone."""
    model = network(method)

    def loss(model):
        return model.distance(jax.random.key(1), model.context(batch.flux, batch.ivar), batch)

    value, gradient = nnx.jit(nnx.value_and_grad(loss))(model)
    assert np.isfinite(value) and (method in ("cdan", "dann") or value >= 0.0)
    parts = jax.tree.leaves(nnx.to_pure_dict(gradient["posterior"]["encoder"]))
    norm = np.sqrt(sum(float(jnp.sum(g**2)) for g in parts))
    assert norm > 1e-6


def test_labels_of_the_target_are_not_read(batch):
    """Other labels where there are none change neither the loss nor its gradient."""
    other = batch._replace(labels=jnp.where(batch.labelled[:, None], batch.labels, jnp.array([6500.0, 4.4])))
    losses = [alignment_loss(network("cdan"), b, jax.random.key(3)) for b in (batch, other)]
    assert float(losses[0]) == float(losses[1])


def test_an_untrained_discriminator_of_alike_surveys_is_at_chance(batch):
    """Cross-entropy of three surveys whose logits are all zero is ln 3, however many stars each has."""
    model = network("dann")
    model.discriminator.layers[-1].kernel[...] = jnp.zeros_like(model.discriminator.layers[-1].kernel[...])
    found = model.distance(jax.random.key(1), model.context(batch.flux, batch.ivar), batch)
    assert float(found) == pytest.approx(np.log(3.0), rel=1e-5)


def test_weights_act_as_repeated_stars(batch):
    """Twice the weight on one star of the source is the star twice in the supervised loss."""
    model = network("none")
    one = batch._replace(weight=batch.weight.at[0].set(2.0))
    twice = jax.tree.map(lambda x: jnp.concatenate([x, x[:1]]), batch)
    key = jax.random.key(0)
    assert float(alignment_loss(model, one, key)) == pytest.approx(
        float(alignment_loss(model, twice, key)), rel=1e-5
    )


def test_the_schedule_is_the_papers():
    rng = np.random.default_rng(0)
    surveys = [Survey("a", stars(rng, 20), True), Survey("b", stars(rng, 20), False)]
    source = AlignmentSource(surveys, LABELS, AlignmentConfig("dann", strength=2.0, start=0.2), 100, 10)
    assert source.strength(10) == 0.0 and source.strength(20) == 0.0
    assert source.strength(60) == pytest.approx(2.0 * (2.0 / (1.0 + np.exp(-5.0)) - 1.0))
    assert np.array_equal(source(60).strength, np.full(20, source.strength(60), np.float32))


def test_batches_follow_from_the_step_alone():
    rng = np.random.default_rng(0)
    surveys = [Survey("a", stars(rng, 50), True), Survey("b", stars(rng, 40), False)]
    one, other = (AlignmentSource(surveys, LABELS, ALIGNMENTS["none"], 9, 16, 3) for _ in range(2))
    one(0)
    for a, b in zip(one(5), other(5), strict=True):
        assert a is None or np.array_equal(a, b)


def test_surveys_that_cannot_be_aligned_are_refused():
    rng = np.random.default_rng(0)
    a, b = Survey("a", stars(rng, 20), True), Survey("b", stars(rng, 20), False)
    with pytest.raises(InputError, match="two or more, one with labels"):
        AlignmentSource([b, b], LABELS, ALIGNMENTS["none"], 10)
    cut = Survey("b", b.data._replace(flux=b.data.flux[:, :5], ivar=b.data.ivar[:, :5]), False)
    with pytest.raises(InputError, match="one grid"):
        AlignmentSource([a, cut], LABELS, ALIGNMENTS["none"], 10)
    hot = Survey("hot", a.data._replace(labels=a.data.labels + [[9000.0, 0.0]]), True)
    with pytest.raises(InputError, match=r"labels of hot.*teff"):
        AlignmentSource([hot, b], LABELS, ALIGNMENTS["none"], 10)
    with pytest.raises(InputError, match="method"):
        AlignmentConfig("wasserstein")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["coral", "mmd", "dann", "cdan"])
def test_a_pattern_of_the_instrument_is_unlearned(method):
    """A pattern that the target's instrument adds moves its labels; alignment takes much of it away."""
    rng = np.random.default_rng(5)
    source, target, test = stars(rng, 4000), stars(rng, 4000, 1.0), stars(rng, 1500, 1.0)
    surveys = [Survey("a", source, True), Survey("b", target, False)]
    trainer = TrainConfig(600, OptimiserConfig(3e-3, ema_decay=0.98), progress=False)
    error, auc = {}, {}
    for name in ("none", method):
        made = align(surveys, LABELS, ALIGNMENTS[name], SMALL, trainer, key=jax.random.key(0), size=64)
        draws = posterior_draws(made, test, jax.random.key(1), 100)
        error[name] = np.sqrt(np.mean(((draws.mean(0) - test.labels) / [300.0, 0.5]) ** 2))
        auc[name] = separability(summaries(made, source.rows(slice(0, 1500))), summaries(made, test))
    assert error[method] < 0.75 * error["none"], error
    assert auc[method] < auc["none"], auc
