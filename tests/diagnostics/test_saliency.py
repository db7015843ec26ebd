"""Maps of where the network looked: derivatives that are right, that add up, and that find a planted line."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxspec.amortised.amortised import AmortisedPosterior
from jaxspec.amortised.network import NetworkConfig, PosteriorNetwork
from jaxspec.diagnostics.saliency import METHODS, near_lines, saliency, score, share_near
from jaxspec.errors import InputError
from jaxspec.flows import FlowConfig
from jaxspec.instruments import Arm, Instrument
from jaxspec.labels import NINE_LABELS
from jaxspec.networks import EncoderConfig
from jaxspec.physics.identify import IdentifiedLines
from jaxspec.spectra import air_to_vacuum

INSTRUMENT = Instrument("planted", (Arm("blue", 5400.0, 5420.0, 0.1, 20_000.0),))
LABELS = NINE_LABELS.select(["fe_h", "mg_h", "si_h"])
# Two lines of iron, one of magnesium, and one of silicon that is too weak to count; nothing else varies.
LINES = IdentifiedLines(
    wavelength=np.array([5403.0, 5408.0, 5415.0, 5418.0]),
    species=np.array(["Fe I", "Mg I", "Fe II", "Si I"]),
    energy=np.zeros(4),
    log_gf=np.zeros(4),
    depth=np.full(4, 0.4),
    equivalent_width=np.array([50.0, 60.0, 30.0, 1.0]),
    share=np.ones(4),
)
SNR = 100.0
CONFIG = NetworkConfig(
    EncoderConfig(
        n_context=12,
        bin_pixels=1,
        projection_width=24,
        stem_channels=0,
        n_segments=4,
        head_width=32,
        head_blocks=1,
    ),
    FlowConfig(n_layers=1, width=24, n_bins=4, mixing="permutation"),
)


def spectra(key, n, labels=None):
    """Labels, flux and ivar: every line deepens with its own element's abundance."""
    k1, k2 = jax.random.split(key)
    labels = jax.random.uniform(k1, (n, 3), minval=-0.5, maxval=0.5) if labels is None else labels
    of = np.array([0, 1, 0, 2])
    strength = jnp.asarray([0.4, 0.4, 0.25, 0.004]) * 10.0 ** (0.4 * labels[:, of])
    profile = np.exp(-0.5 * ((INSTRUMENT.wavelength - LINES.wavelength[:, None]) / 0.12) ** 2)
    flux = jnp.exp(-strength @ profile)
    flux = flux + jax.random.normal(k2, flux.shape) / SNR
    return labels, flux, jnp.full(flux.shape, SNR**2)


@pytest.fixture(scope="module")
def posterior() -> AmortisedPosterior:
    """A small network that has learned which line belongs to which label."""
    network = PosteriorNetwork(CONFIG, LABELS, INSTRUMENT.n_pixels, rngs=nnx.Rngs(0))
    network.set_statistics(*spectra(jax.random.key(1), 2048))
    graph, params, rest = nnx.split(network, nnx.Param, ...)
    n_steps = 400
    optimiser = optax.chain(
        optax.clip_by_global_norm(5.0), optax.adam(optax.cosine_decay_schedule(3e-3, n_steps))
    )

    @jax.jit
    def train(params, state, key):
        def step(carry, key):
            params, state = carry
            batch = spectra(key, 128)
            gradient = jax.grad(lambda p: -jnp.mean(nnx.merge(graph, p, rest).log_prob(*batch)))(params)
            updates, state = optimiser.update(gradient, state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, state), jax.random.split(key, n_steps))[0]

    params, _ = train(params, optimiser.init(params), jax.random.key(2))
    return AmortisedPosterior(nnx.merge(graph, params, rest), INSTRUMENT)


@pytest.fixture(scope="module")
def star():
    # Far from the mean star, so that integrated gradients have something to say of every line.
    labels = jnp.asarray([[0.4, 0.4, 0.0], [0.4, -0.4, 0.0], [-0.4, 0.4, 0.0], [-0.4, -0.4, 0.0]])
    _, flux, ivar = spectra(jax.random.key(3), 4, labels)
    return np.asarray(flux), np.asarray(ivar)


def answers(posterior, flux, ivar, key, n_draws=128):
    """Mean and standard deviation of a star's draws, of the noise that its first map used."""
    draws, _ = jax.random.split(jax.random.fold_in(key, 0))
    context = posterior.network.context(jnp.asarray(flux[None]), jnp.asarray(ivar[None]))
    found, _ = posterior.network.sample_given(draws, context, n_draws)
    return np.asarray(found[:, 0].mean(axis=0)), np.asarray(found[:, 0].std(axis=0))


@pytest.mark.parametrize("method", METHODS)
def test_the_planted_lines_are_found(posterior, star, method):
    """The largest pixels of [Fe/H] are on the lines of iron, those of [Mg/H] on that of magnesium."""
    flux, ivar = star
    near = near_lines(LABELS, LINES, INSTRUMENT)
    maps = saliency(posterior, flux, ivar, jax.random.key(4), method)
    assert maps.mean.shape == maps.width.shape == (4, 3, INSTRUMENT.n_pixels)
    perfect = np.stack([near[name] for name in LABELS.names]).astype(float)
    for i in range(len(flux)):
        # Four pixels; six and twelve are near lines, the outermost of which tell little.
        found = score(LABELS, near, maps.mean[i], perfect, ivar[i] > 0, top=0.02)
        assert found["fe_h"].share >= 0.8 and found["mg_h"].share >= 0.8
        assert found["fe_h"].chance == pytest.approx(2 * found["mg_h"].chance, rel=0.3)
        assert found["fe_h"].filter == 1.0
        # Of silicon no line counts: nothing can be on one.
        assert found["si_h"].share == found["si_h"].chance == 0.0


def test_gradient_is_the_derivative(posterior, star):
    """Against central differences in the pixels that matter most."""
    flux, ivar = star[0][0], star[1][0]
    key = jax.random.key(5)
    maps = saliency(posterior, flux[None], ivar[None], key, "gradient")
    for found, which in ((maps.mean[0], 0), (maps.width[0], 1)):
        for label, pixel in ((0, np.argmax(np.abs(found[0]))), (1, np.argmax(np.abs(found[1])))):
            step = np.zeros_like(flux)
            step[pixel] = 0.5 / SNR
            up, down = (answers(posterior, flux + s * step, ivar, key)[which] for s in (1, -1))
            # The map is the change for one standard deviation of noise: two steps.
            assert found[label, pixel] == pytest.approx(up[label] - down[label], rel=0.05)


def test_integrated_gradients_add_up_to_the_difference(posterior, star):
    flux, ivar = star[0][0], star[1][0]
    key = jax.random.key(6)
    maps = saliency(posterior, flux[None], ivar[None], key, "integrated", n_steps=256)
    baseline = np.asarray(posterior.network.encoder.mean[...])
    here, there = answers(posterior, flux, ivar, key), answers(posterior, baseline, ivar, key)
    for found, a, b in zip(maps, here, there, strict=True):
        np.testing.assert_allclose(found[0].sum(axis=1), a - b, rtol=0.02, atol=2e-4)


def test_masked_pixels_have_no_part(posterior, star):
    flux, ivar = star[0][:1].copy(), star[1][:1].copy()
    ivar[:, 60:100] = 0.0
    flux[:, 60:100] = np.nan
    for method in METHODS:
        maps = saliency(posterior, flux, ivar, jax.random.key(7), method, n_draws=32, n_steps=2)
        for found in maps:
            assert np.isfinite(found).all() and np.all(found[..., 60:100] == 0.0)
            assert np.any(found[..., :60] != 0.0)


def test_lines_of_an_instrument_in_vacuum():
    """Lines are known by their wavelengths in air, pixels by the instrument's own."""
    low, high = (float(air_to_vacuum(x)) for x in (5400.0, 5420.0))
    instrument = Instrument("vacuum", (Arm("blue", low, high, 0.01, 20_000.0, medium="vacuum"),))
    near = near_lines(LABELS, LINES, instrument)["mg_h"]
    inside = instrument.wavelength[near]
    assert float(air_to_vacuum(5408.0)) == pytest.approx(inside.mean(), abs=0.01)
    assert inside[-1] - inside[0] == pytest.approx(2 * 5408.0 / 20_000, abs=0.03)


def test_largest_pixels_are_counted_by_size_among_those_seen():
    values, near = np.array([0.0, -5.0, 4.0, 3.0, 9.0]), np.array([False, True, False, True, False])
    seen = np.array([True, True, True, True, False])
    assert share_near(values, near, seen, 0.5) == 0.5
    assert share_near(values, near, seen, 0.25) == 1.0
    with pytest.raises(InputError, match="leave the star out"):
        share_near(values, near, np.zeros(5, bool))


def test_wrong_input_is_named(posterior, star):
    flux, ivar = star
    with pytest.raises(InputError, match="gradient, smooth, integrated"):
        saliency(posterior, flux, ivar, jax.random.key(0), "lime")
    with pytest.raises(InputError, match=r"use posterior\.prepare"):
        saliency(posterior, flux[:, :-1], ivar[:, :-1], jax.random.key(0))
