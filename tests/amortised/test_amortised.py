"""From spectra to a posterior and back from disk: learning on the toy, flags, saving and loading."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxspec.amortised.amortised import LEAST_INSIDE, AmortisedPosterior
from jaxspec.amortised.ensemble import Ensemble
from jaxspec.amortised.network import NetworkConfig, PosteriorNetwork, negative_log_likelihood
from jaxspec.amortised.storage import load_posterior, save_posterior, store_calibrated, weights_file
from jaxspec.errors import InputError
from jaxspec.flows import FlowConfig
from jaxspec.networks import EncoderConfig
from jaxspec.posterior.flags import Flag
from jaxspec.posterior.limits import Limits
from jaxspec.spectra import Spectra, median_snr
from tests.toy import TOY_INSTRUMENT

CONFIG = NetworkConfig(
    EncoderConfig(
        n_context=24,
        bin_pixels=1,
        projection_width=64,
        stem_channels=0,
        n_segments=8,
        head_width=64,
        head_blocks=1,
    ),
    FlowConfig(n_layers=1, width=32, n_bins=4, mixing="permutation"),
)


N_STEPS = 200


@pytest.fixture(scope="module")
def trained(simulator, survey):
    """A few passes over some thousand simulations: enough to know more than the prior."""
    network = PosteriorNetwork(CONFIG, simulator.forward.label_set, TOY_INSTRUMENT.n_pixels, rngs=nnx.Rngs(0))
    network.set_statistics(simulator.prior.sample(jax.random.key(2), 4000), survey.flux, survey.ivar)
    graph, params, rest = nnx.split(network, nnx.Param, ...)
    optimiser = optax.chain(
        optax.clip_by_global_norm(5.0), optax.adam(optax.cosine_decay_schedule(2e-3, N_STEPS))
    )

    @jax.jit
    def train(params, state, key):
        def step(carry, key):
            params, state = carry
            rows = jax.random.choice(key, survey.flux.shape[0], (128,), replace=False)
            batch = jax.tree.map(lambda x: x[rows], survey)
            loss, gradient = jax.value_and_grad(
                lambda p: negative_log_likelihood(nnx.merge(graph, p, rest), batch)
            )(params)
            updates, state = optimiser.update(gradient, state)
            return (optax.apply_updates(params, updates), state), loss

        return jax.lax.scan(step, (params, state), jax.random.split(key, N_STEPS))

    (params, _), losses = train(params, optimiser.init(params), jax.random.key(3))
    posterior = AmortisedPosterior(nnx.merge(graph, params, rest), TOY_INSTRUMENT, simulator.prior)
    return posterior, np.asarray(losses)


@pytest.fixture(scope="module")
def posterior(trained, survey):
    return trained[0].with_reference(survey.flux[:1024], survey.ivar[:1024])


N_STARS, N_DRAWS = 64, 100


def draw(posterior, flux, ivar, key=0):
    """Always the same shape, so that sampling is compiled once."""
    return posterior.sample_normalised(jax.random.key(key), flux[:N_STARS], ivar[:N_STARS], N_DRAWS)


def test_learns_more_than_the_prior(trained, simulator, survey):
    posterior, losses = trained
    fresh = jax.tree.map(lambda x: x[:N_STARS], simulator.simulate(jax.random.key(9), 512))
    entropy = -float(jnp.mean(simulator.prior.log_prob(fresh.labels)))
    held_out = -float(jnp.mean(posterior.log_prob(fresh.labels, fresh.flux, fresh.ivar)))
    assert losses[-20:].mean() < losses[:20].mean() - 1.0
    # Nats gained on stars that were never seen.
    assert held_out < entropy - 1.0
    out = draw(posterior, fresh.flux, fresh.ivar)
    assert np.corrcoef(out.median[:, 2], fresh.labels[:, 2])[0, 1] > 0.8


def test_draws_stay_in_the_prior_and_keep_their_density(posterior, survey):
    flux, ivar = survey.flux[:N_STARS], survey.ivar[:N_STARS]
    out = draw(posterior, flux, ivar)
    assert out.draws.shape == (N_DRAWS, N_STARS, 9) and out.names == tuple(str(i) for i in range(N_STARS))
    inside = np.asarray(posterior.prior.supports(jnp.asarray(out.draws)))
    kept = out.stats["outside_prior"] < 1.0 - LEAST_INSIDE
    assert kept.sum() > N_STARS // 2 and inside[:, kept].all()
    # Truncation renormalises: the flow's density over the share of draws that was inside.
    shift = out.log_prob[0] - np.asarray(posterior.log_prob(jnp.asarray(out.draws[0]), flux, ivar))
    np.testing.assert_allclose(shift[kept], -np.log1p(-out.stats["outside_prior"][kept]), atol=2e-2)


@pytest.mark.slow  # the test above has draws inside of the prior, and their density
def test_draws_of_a_narrow_prior_are_those_inside_of_it(posterior, survey):
    """However few of the network's own draws are: of stars with a share down to `LEAST_INSIDE`."""
    flux, ivar = survey.flux[:N_STARS], survey.ivar[:N_STARS]
    prior = dataclasses.replace(posterior.prior, fe_h_range=(-1.2, -0.4))
    out = draw(dataclasses.replace(posterior, prior=prior), flux, ivar)
    every = dataclasses.replace(posterior, prior=None).sample_normalised(jax.random.key(4), flux, ivar, 4000)
    inside = np.asarray(prior.supports(jnp.asarray(every.draws)))
    share, stated = inside.mean(axis=0), 1.0 - out.stats["outside_prior"]
    few = (share > 1.5 * LEAST_INSIDE) & (share < 0.5)
    assert few.sum() > 10
    assert np.asarray(prior.supports(jnp.asarray(out.draws)))[:, few].all()
    different = np.unique(out.draws[:, few].reshape(-1, 9), axis=0)
    assert len(different) == N_DRAWS * few.sum()
    # The stated share is from some hundreds of draws.
    assert np.all(np.abs(stated - share)[few] < 5.0 * np.sqrt(share * (1.0 - share) / 150)[few])
    iron = np.where(inside, every.draws[..., 2], np.nan)[:, few]
    error = np.nanstd(iron, axis=0) / np.sqrt(N_DRAWS)
    pull = (out.draws[:, few, 2].mean(axis=0) - np.nanmean(iron, axis=0)) / error
    assert np.abs(pull).max() < 4.5 and abs(pull.mean()) < 4.0 / np.sqrt(few.sum())
    # Stars that have next to nothing inside are left alone.
    none = share < 0.2 * LEAST_INSIDE
    assert none.any() and np.all(stated[none] < LEAST_INSIDE)


def test_a_prior_that_a_star_contradicts_is_flagged_after_a_refinement_too(posterior, survey):
    out = draw(posterior, survey.flux, survey.ivar)
    marked = dataclasses.replace(out, stats={**out.stats, "contradicts_prior": np.arange(N_STARS) % 2})
    before, after = (
        posterior.flag(x, survey.ivar[:N_STARS]).flags & int(Flag.OUT_OF_RANGE) > 0 for x in (out, marked)
    )
    assert not before[1::2].all()
    np.testing.assert_array_equal(after, before | (np.arange(N_STARS) % 2 == 1))


def test_same_key_same_draws(posterior, survey):
    a, b, c = (draw(posterior, survey.flux, survey.ivar, key).draws for key in (0, 0, 1))
    assert np.array_equal(a, b) and not np.array_equal(a, c)


def test_observed_spectra_on_any_scale(posterior, survey):
    raw, ivar = np.asarray(survey.flux[:N_STARS]) * 730.0, np.asarray(survey.ivar[:N_STARS]) / 730.0**2
    names = tuple(f"star {i}" for i in range(N_STARS))
    spectra = Spectra.create(raw, ivar, TOY_INSTRUMENT.wavelength, names=names)
    # Normalised spectra change little when normalised again: nearly the same posteriors.
    out, direct = (
        posterior.sample(jax.random.key(0), spectra, N_DRAWS),
        draw(posterior, survey.flux, survey.ivar),
    )
    assert out.names == names
    assert np.median(np.abs(out.median - direct.median) / direct.error) < 0.5
    shifted = Spectra.create(raw, ivar, TOY_INSTRUMENT.wavelength + 0.2)
    with pytest.raises(InputError, match="rebin"):
        posterior.sample(jax.random.key(0), shifted, N_DRAWS)


def test_batches_are_joined(posterior, survey):
    """Stars beyond one batch, and a batch that is not full, keep their order."""
    posterior = dataclasses.replace(posterior, reference=None)
    out = posterior.sample_normalised(
        jax.random.key(0), survey.flux[:66], survey.ivar[:66], N_DRAWS, batch=N_STARS
    )
    np.testing.assert_array_equal(out.draws[:, :N_STARS], draw(posterior, survey.flux, survey.ivar).draws)
    assert out.draws.shape == (N_DRAWS, 66, 9) and "novelty" not in out.stats
    np.testing.assert_allclose(
        out.snr, median_snr(np.asarray(survey.flux[:66]), np.asarray(survey.ivar[:66]))
    )


def test_flags(posterior, survey):
    flux, ivar = np.asarray(survey.flux[:N_STARS]), np.array(survey.ivar[:N_STARS])
    ivar[0] = 0.0
    out = draw(posterior, flux, ivar)
    assert out.flags[0] & Flag.NO_DATA and out.flags[0] & Flag.ARM_MISSING and out.flags[0] & Flag.LOW_SNR
    assert (out.flags & Flag.NOT_CHECKED > 0).all() and np.isnan(out.chi2).all()
    seen = np.stack([(ivar[:, s] > 0).mean(1) for s in TOY_INSTRUMENT.slices.values()], 1)
    np.testing.assert_array_equal(out.flags & Flag.ARM_MISSING > 0, (seen < 0.2).any(1))
    np.testing.assert_array_equal(out.flags & Flag.LOW_SNR > 0, out.snr < 10)


def test_flags_of_refined_stars_describe_their_new_draws(posterior, survey):
    """Star 0 was moved beyond the prior, star 1 to its middle; star 2 was not refined."""
    out = draw(posterior, survey.flux, survey.ivar)
    narrow = np.random.default_rng(0).normal(size=(N_DRAWS, 9)) * np.array([20.0] + [0.02] * 8)
    draws, refined = out.draws.copy(), np.zeros(N_STARS)
    draws[:, 0] = narrow + np.array([4100.0, 1.0] + [-2.7] * 7)
    draws[:, 1] = narrow + np.array([5500.0, 4.4] + [0.0] * 7)
    refined[:2] = 1.0
    wrong = np.where(np.arange(N_STARS) == 1, 1 | 16, 0)
    stats = {**out.stats, "novelty": np.zeros(N_STARS), "refined": refined}
    faint = {"snr": np.full(N_STARS, 5.0), "chi2": np.ones(N_STARS)}
    marked = dataclasses.replace(out, draws=draws, flags=wrong, stats=stats, **faint)
    again = posterior.flag(marked, np.ones_like(survey.ivar[:N_STARS]))
    assert again.flags[0] == Flag.NEAR_BOUND | Flag.OUT_OF_RANGE | Flag.LOW_SNR
    assert again.flags[1] == Flag.LOW_SNR
    assert again.stats["outside_prior"][0] > 0.99 and again.stats["outside_prior"][1] == 0.0
    np.testing.assert_array_equal(again.stats["outside_prior"][2:], out.stats["outside_prior"][2:])
    near = (out.flags & Flag.NEAR_BOUND)[2:]
    np.testing.assert_array_equal((again.flags & Flag.NEAR_BOUND)[2:], near)


def test_noise_instead_of_a_star_is_out_of_range(posterior, survey):
    rng = np.random.default_rng(0)
    ivar = np.full((N_STARS, TOY_INSTRUMENT.n_pixels), 1e4, np.float32)
    nonsense = rng.uniform(0.0, 1.5, ivar.shape).astype(np.float32)
    flagged = draw(posterior, nonsense, ivar).flags & Flag.OUT_OF_RANGE > 0
    usual = draw(posterior, survey.flux, survey.ivar).stats["novelty"]
    assert flagged.mean() > 0.9 and np.mean(usual > 1.2) < 0.05


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("float16", 0.15)])
def test_save_and_load(posterior, survey, tmp_path, dtype, tolerance):
    posterior = dataclasses.replace(posterior, provenance={"steps": 250})
    folder = save_posterior(posterior, tmp_path / "model", dtype)
    again = load_posterior(folder)
    assert again.instrument == posterior.instrument and again.prior == posterior.prior
    assert again.label_set == posterior.label_set and again.provenance == {"steps": 250}
    a, b = (p.log_prob(survey.labels[:64], survey.flux[:64], survey.ivar[:64]) for p in (posterior, again))
    assert np.abs(np.asarray(a) - np.asarray(b)).mean() < tolerance
    np.testing.assert_allclose(
        again.reference.inverse_root, posterior.reference.inverse_root, rtol=1e-4, atol=1e-6
    )
    assert sorted(p.name for p in folder.iterdir()) == ["arrays.npz", "config.json"]
    config = json.loads((folder / "config.json").read_text())
    assert config["settings"]["instrument"]["name"] == "toy" and "jax" in config["versions"]
    assert config["domain"]["instrument"] == "toy" and config["domain"]["labels"]["teff"]["unit"] == "K"


def test_folders_of_format_1_are_read_and_brought_up_to_date(posterior, tmp_path):
    """As `save_posterior` wrote them before there was one format for all kinds."""
    posterior = dataclasses.replace(posterior, provenance={"steps": 250})
    folder = save_posterior(posterior, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    settings, arrays = config.pop("settings"), config.pop("arrays")
    del config["kind"], config["domain"]
    weights = {**arrays, "file": "weights.npz", "dtype": settings.pop("dtype")}
    old = {**config, **settings, "weights": weights}
    old |= {"format": "jaxspec amortised posterior", "format_version": 1}
    (folder / "config.json").write_text(json.dumps(old))
    (folder / "arrays.npz").rename(folder / "weights.npz")
    assert weights_file(folder) == folder / "weights.npz"
    limits = Limits(0.1, (10.0,), {})
    for expected in (None, limits):
        loaded = load_posterior(folder)
        assert loaded.provenance["steps"] == 250 and loaded.prior == posterior.prior
        assert loaded.limits == expected
        for a, b in zip(*(jax.tree.leaves(nnx.state(x.network)) for x in (posterior, loaded)), strict=True):
            np.testing.assert_array_equal(np.asarray(a, np.float16), np.asarray(b, np.float16))
        store_calibrated(limits, folder, {})


def test_files_from_before_a_setting_existed_take_its_default(toy, tmp_path):
    network = PosteriorNetwork(CONFIG, toy.label_set, TOY_INSTRUMENT.n_pixels, rngs=nnx.Rngs(0))
    folder = save_posterior(AmortisedPosterior(network, TOY_INSTRUMENT), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    network = config["settings"]["network"]
    del network["error_floor"], network["flow"]["min_bin"]
    del network["encoder"]["kind"], network["flow"]["solver_steps"]
    (folder / "config.json").write_text(json.dumps(config))
    assert load_posterior(folder).network.config == CONFIG


@pytest.mark.parametrize("kind, coupling", [("transformer", "autoregressive"), ("hybrid", "matching")])
def test_every_kind_of_network_can_be_stored(toy, tmp_path, kind, coupling):
    config = dataclasses.replace(
        CONFIG,
        encoder=dataclasses.replace(CONFIG.encoder, kind=kind, token_width=8, token_blocks=1),
        flow=dataclasses.replace(CONFIG.flow, coupling=coupling),
    )
    network = PosteriorNetwork(config, toy.label_set, TOY_INSTRUMENT.wavelength, rngs=nnx.Rngs(3))
    folder = save_posterior(AmortisedPosterior(network, TOY_INSTRUMENT), tmp_path / "model", "float32")
    loaded = load_posterior(folder).network
    assert loaded.config == config
    flux = jnp.linspace(0.5, 1.0, TOY_INSTRUMENT.n_pixels)[None]
    for a, b in zip(*(jax.tree.leaves(nnx.state(n)) for n in (network, loaded)), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(loaded.context(flux, 9 * flux), network.context(flux, 9 * flux))


@pytest.mark.slow
def test_point_estimates_stand_beside_the_draws(simulator, survey, tmp_path):
    config = dataclasses.replace(CONFIG, point_weight=0.1)
    network = PosteriorNetwork(config, simulator.forward.label_set, TOY_INSTRUMENT.n_pixels, rngs=nnx.Rngs(0))
    network.set_statistics(simulator.prior.sample(jax.random.key(2), 4000), survey.flux, survey.ivar)
    kernel = network.point_head.kernel
    kernel[...] = 0.05 * jax.random.normal(jax.random.key(1), kernel.shape)
    made = AmortisedPosterior(network, TOY_INSTRUMENT, simulator.prior)
    loaded = load_posterior(save_posterior(made, tmp_path / "model", "float32"))
    out = draw(loaded, survey.flux, survey.ivar)
    context = network.context(survey.flux[:N_STARS], survey.ivar[:N_STARS])
    estimate, error = (np.asarray(x) for x in network.point_estimate(context))
    assert np.all(error > 0.0) and np.ptp(estimate[:, 0]) > 1.0
    table = out.to_table()
    for j, name in enumerate(out.label_set.names):
        np.testing.assert_allclose(table[f"{name}_point"].value, estimate[:, j], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(table[f"e_{name}_point"].value, error[:, j], rtol=1e-4, atol=1e-4)
    assert table["e_teff_point"].unit == "K"
    both = draw(Ensemble((loaded, loaded)), survey.flux, survey.ivar)
    np.testing.assert_allclose(both.stats["fe_h_point"], estimate[:, 2], atol=1e-4)


def test_damage_is_refused(posterior, tmp_path):
    folder = save_posterior(posterior, tmp_path / "model")
    with pytest.raises(InputError, match=r"config\.json"):
        load_posterior(tmp_path / "nowhere")
    weights = folder / "arrays.npz"
    good = weights.read_bytes()
    weights.write_bytes(good[:-10])
    with pytest.raises(InputError, match="sha256"):
        load_posterior(folder)
    weights.unlink()
    with pytest.raises(InputError, match="weights"):
        load_posterior(folder)
    weights.write_bytes(good)
    config = folder / "config.json"
    text = config.read_text()
    config.write_text(text.replace('"format_version": 2', '"format_version": 99'))
    with pytest.raises(InputError, match="newer"):
        load_posterior(folder)
    config.write_text("{")
    with pytest.raises(InputError, match="no JSON"):
        load_posterior(folder)
    config.write_text("[1]")
    with pytest.raises(InputError, match="another kind"):
        load_posterior(folder)
