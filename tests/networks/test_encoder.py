"""The encoder: what it must not see, what it must not lose, and what it must be able to learn."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxspec.errors import InputError
from jaxspec.networks import ENCODER_PRESETS, EncoderConfig, make_encoder
from tests.shaken import shaken

N_PIXELS = 150
# Two arms of 75 pixels, as `spectra` masks them.
WAVELENGTH = np.concatenate([5400.0 + 0.05 * np.arange(75), 8500.0 + 0.08 * np.arange(75)])

TINY = EncoderConfig(
    n_context=6,
    projection_width=12,
    stem_channels=8,
    stem_stride=4,
    block_channels=(8,),
    flat_channels=4,
    conv_width=12,
    n_segments=4,
    head_width=16,
    head_blocks=1,
    patch_cells=8,
    token_width=8,
    token_blocks=2,
    n_heads=2,
    n_queries=3,
)
TRANSFORMER = dataclasses.replace(TINY, kind="transformer")
# Every test below runs over every kind of encoder and every path.
CONFIGS = {
    "both": TINY,
    "projection": dataclasses.replace(TINY, stem_channels=0),
    "convolutions": dataclasses.replace(TINY, projection_width=0),
    "odd bins": dataclasses.replace(TINY, bin_pixels=7, block_channels=(8, 8, 8)),
    "transformer": TRANSFORMER,
    "hybrid": dataclasses.replace(TINY, kind="hybrid"),
}
KINDS = ("both", "transformer", "hybrid")


def spectra(rng, n=5):
    flux = rng.normal(1.0, 0.1, (n, N_PIXELS)).astype(np.float32)
    ivar = rng.uniform(50, 200, (n, N_PIXELS)).astype(np.float32)
    ivar[:, 40:60] = 0.0
    ivar[0, 75:] = 0.0  # one star without its second arm
    return flux, ivar


@pytest.fixture(params=CONFIGS, scope="module")
def encoder(request):
    """An encoder with every weight random (residual branches start at zero), and its compiled forward
    pass."""
    model = make_encoder(CONFIGS[request.param], WAVELENGTH, rngs=nnx.Rngs(1))
    graph, state = nnx.split(shaken(model, 0.1))
    compiled = jax.jit(lambda state, flux, ivar: nnx.merge(graph, state)(flux, ivar))
    return lambda flux, ivar: compiled(state, jnp.asarray(flux), jnp.asarray(ivar)), graph, state


def test_flux_under_the_mask_never_matters(encoder, rng):
    apply, *_ = encoder
    flux, ivar = spectra(rng)
    reference = apply(flux, ivar)
    assert np.isfinite(reference).all()
    assert reference.shape == (5, TINY.n_context) and reference.dtype == jnp.float32
    for bad in (np.nan, np.inf, 1e20, 0.0):
        np.testing.assert_array_equal(apply(np.where(ivar > 0, flux, np.float32(bad)), ivar), reference)


def test_gradients_stay_finite_with_nan_under_the_mask(encoder, rng):
    _, graph, state = encoder
    flux, ivar = spectra(rng)
    flux[ivar == 0] = np.nan
    ivar[1] = 0.0  # and a star with no pixel at all

    @jax.jit
    def gradients(state, flux, ivar):
        loss = lambda *inputs: (nnx.merge(graph, inputs[0])(*inputs[1:]) ** 2).sum()  # noqa: E731
        return jax.grad(loss, (0, 1, 2))(state, flux, ivar)

    found = gradients(state, jnp.array(flux), jnp.array(ivar))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))


def test_stars_do_not_see_each_other(encoder, rng):
    apply, *_ = encoder
    flux, ivar = spectra(rng)
    order = np.array([0, 3, 3, 1, 1])  # star 0 in other company
    np.testing.assert_allclose(apply(flux[order], ivar[order])[0], apply(flux, ivar)[0], rtol=1e-4, atol=1e-5)


def test_a_star_without_pixels_is_finite(encoder):
    """And its context is that of any other such star: nothing of the flux is left."""
    apply, *_ = encoder
    context = apply(np.full((2, N_PIXELS), np.nan, np.float32), np.zeros((2, N_PIXELS), np.float32))
    assert np.isfinite(context).all()
    np.testing.assert_array_equal(
        context, apply(np.ones((2, N_PIXELS), np.float32), np.zeros((2, N_PIXELS), np.float32))
    )


@pytest.mark.parametrize("name", KINDS)
def test_jit_is_eager(rng, name):
    model = make_encoder(CONFIGS[name], WAVELENGTH, rngs=nnx.Rngs(0))
    graph, state = nnx.split(model)
    flux, ivar = map(jnp.array, spectra(rng))
    compiled = jax.jit(lambda state, flux, ivar: nnx.merge(graph, state)(flux, ivar))(state, flux, ivar)
    np.testing.assert_allclose(compiled, model(flux, ivar), rtol=1e-4, atol=1e-5)


def test_position_is_kept(encoder):
    """The same line at two places must not look the same: an average over wavelength would lose what it
    is."""
    apply, *_ = encoder
    centres = np.array([24, 104, 64, 84, 124])[:, None]
    flux = 1 - 0.5 * np.exp(-0.5 * ((np.arange(N_PIXELS) - centres) / 2.0) ** 2)
    context = apply(flux.astype(np.float32), np.full(flux.shape, 100.0, np.float32))
    assert np.abs(context[0] - context[1]).max() > 0.05


def test_noise_level_is_seen(encoder):
    apply, *_ = encoder
    ivar = np.logspace(2, 5, 5)[:, None] * np.ones(N_PIXELS)
    context = apply(np.ones((5, N_PIXELS), np.float32), ivar.astype(np.float32))
    assert np.abs(context[0] - context[1]).max() > 0.05


@pytest.mark.parametrize("name", KINDS)
def test_same_seed_same_weights(name):
    one, two, other = (make_encoder(CONFIGS[name], WAVELENGTH, rngs=nnx.Rngs(s)) for s in (1, 1, 2))
    kernel = [np.asarray(m.enter.kernel[...]) for m in (one, two, other)]
    assert (kernel[0] == kernel[1]).all() and not (kernel[0] == kernel[2]).all()


@pytest.mark.parametrize("name", KINDS)
def test_statistics_are_used_and_not_trained(rng, name):
    model = make_encoder(CONFIGS[name], WAVELENGTH, rngs=nnx.Rngs(0))
    flux, ivar = map(jnp.array, spectra(rng))
    before = model(flux, ivar)
    model.set_input_statistics(np.full(N_PIXELS, 0.9), np.full(N_PIXELS, 0.2))
    # (flux - 0.9) / 0.2 is (flux' - 1) / 0.1 for flux' = 1 + (flux - 0.9) / 2.
    shifted = model(0.9 + 2 * (flux - 1), ivar)
    np.testing.assert_allclose(shifted, before, rtol=1e-3, atol=1e-4)
    trained = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    assert "mean" not in trained and "scale" not in trained


@pytest.mark.parametrize("name", KINDS)
def test_wrong_inputs_are_refused(name):
    model = make_encoder(CONFIGS[name], WAVELENGTH, rngs=nnx.Rngs(0))
    with pytest.raises(InputError, match="150"):
        model(jnp.ones((2, 149)), jnp.ones((2, 149)))
    with pytest.raises(InputError, match="mean"):
        model.set_input_statistics(jnp.ones(3), jnp.ones(3))
    with pytest.raises(InputError, match="scale"):
        model.set_input_statistics(jnp.ones(N_PIXELS), jnp.zeros(N_PIXELS))


def test_wrong_settings_are_refused():
    with pytest.raises(InputError, match="at least one path"):
        EncoderConfig(projection_width=0, stem_channels=0)
    with pytest.raises(InputError, match="bin_pixels"):
        EncoderConfig(bin_pixels=0)
    with pytest.raises(InputError, match="n_heads"):
        EncoderConfig(token_width=30, n_heads=4)
    with pytest.raises(InputError, match="wavelength of every pixel"):
        make_encoder(TRANSFORMER, N_PIXELS, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("kind", ["residual", "transformer", "hybrid"])
@pytest.mark.parametrize("name", ENCODER_PRESETS)
def test_presets_fit_seventeen_thousand_pixels(name, kind):
    """Weights must stay within 16 MB, half of it as stored; shapes are checked without running it."""
    config = dataclasses.replace(ENCODER_PRESETS[name], kind=kind)
    wavelength = np.concatenate([5300.0 + 0.05 * np.arange(6_000), 8450.0 + 0.05 * np.arange(11_000)])
    model = nnx.eval_shape(lambda: make_encoder(config, wavelength, rngs=nnx.Rngs(0)))
    graph, state = nnx.split(model)
    spectrum = jax.ShapeDtypeStruct((4, 17_000), jnp.float32)
    context = jax.eval_shape(lambda s, f, i: nnx.merge(graph, s)(f, i), state, spectrum, spectrum)
    assert context.shape == (4, config.n_context)
    assert sum(x.size for x in jax.tree.leaves(state)) * 4 < 16e6


@pytest.mark.parametrize(
    "name",
    ["projection", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("transformer", "hybrid"))],
)
def test_learns_the_optimal_estimator_of_a_faint_line(name):
    """Depth of a line under noise of changing strength and gaps: the error comes close to the Bayes limit.

    Labels are N(0, 1), flux = 1 + 0.1 z line(x) + noise, so the posterior variance is 1 / (1 + 0.01 sum ivar
    line^2).
    """
    line = np.exp(-0.5 * ((np.arange(N_PIXELS) - 75) / 6.0) ** 2).astype(np.float32)

    def simulate(key, n):
        k = jax.random.split(key, 4)
        z = jax.random.normal(k[0], (n, 1))
        ivar = jnp.exp(jax.random.uniform(k[1], (n, 1), minval=3.0, maxval=6.5)) * jnp.ones((n, N_PIXELS))
        start = jax.random.randint(k[2], (n, 1), 60, 90)
        pixels = jnp.arange(N_PIXELS)
        ivar = jnp.where((pixels >= start) & (pixels < start + 10), 0.0, ivar)
        noise = jax.random.normal(k[3], ivar.shape) / jnp.sqrt(jnp.where(ivar > 0, ivar, 1e-4))
        variance = 1 / (1 + 0.01 * (ivar * line**2).sum(1))
        return z[:, 0], 1 + 0.1 * z * line + noise, ivar, variance

    config = dataclasses.replace(
        CONFIGS[name], n_context=1, stem_channels=0, head_width=64, head_blocks=2, token_width=16
    )
    model = make_encoder(config, 5400.0 + 0.05 * np.arange(N_PIXELS), rngs=nnx.Rngs(0))
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    optimiser = optax.adam(optax.cosine_decay_schedule(3e-3, 1000))

    @jax.jit
    def train(params):
        def step(carry, key):
            params, moments = carry
            z, flux, ivar, _ = simulate(key, 128)
            loss = lambda p: ((nnx.merge(graph, p, rest)(flux, ivar)[:, 0] - z) ** 2).mean()  # noqa: E731
            updates, moments = optimiser.update(jax.grad(loss)(params), moments)
            return (optax.apply_updates(params, updates), moments), None

        keys = jax.random.split(jax.random.key(3), 1000)
        return jax.lax.scan(step, (params, optimiser.init(params)), keys)[0][0]

    z, flux, ivar, variance = simulate(jax.random.key(4), 4000)
    found = nnx.merge(graph, train(params), rest)(flux, ivar)[:, 0]
    ratio = ((found - z) ** 2 / variance).mean()
    # The sampling error of this mean is 2 %; the optimum is 1 and reading no mask or no ivar costs far more.
    assert 0.9 < ratio < 1.25
