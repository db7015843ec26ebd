"""A mixture of networks: its density, its variance in two parts, and what it refuses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import logsumexp

from jaxspec.amortised.amortised import LEAST_INSIDE, AmortisedPosterior
from jaxspec.amortised.ensemble import Ensemble, dropout_members
from jaxspec.amortised.network import PosteriorNetwork
from jaxspec.amortised.storage import copy_weights
from jaxspec.errors import InputError
from tests.amortised.test_amortised import CONFIG
from tests.shaken import shaken
from tests.toy import TOY_INSTRUMENT

N, N_DRAWS = 64, 900


@pytest.fixture(scope="module")
def members(simulator, survey):
    """Three networks of other random numbers, trained not at all: they disagree."""
    found = []
    for seed in range(3):
        network = PosteriorNetwork(
            CONFIG, simulator.forward.label_set, TOY_INSTRUMENT.n_pixels, rngs=nnx.Rngs(seed)
        )
        network.set_statistics(simulator.prior.sample(jax.random.key(2), 4000), survey.flux, survey.ivar)
        # A flow of zeros is the same for all; shake it.
        network = shaken(network, 0.03, seed)
        found.append(AmortisedPosterior(network, TOY_INSTRUMENT, simulator.prior))
    return tuple(found)


@pytest.fixture(scope="module")
def result(members, survey):
    return Ensemble(members).sample_normalised(jax.random.key(1), survey.flux[:N], survey.ivar[:N], N_DRAWS)


def test_variances_add_up(result):
    """The two parts make the variance of the draws, and shaken networks differ by more than by chance."""
    for j, name in enumerate(result.label_set.names):
        parts = np.hypot(result.stats[f"{name}_aleatoric"], result.stats[f"{name}_epistemic"])
        np.testing.assert_allclose(parts, result.draws[:, :, j].std(axis=0, dtype=float), rtol=1e-3)
        # Three means of 300 draws: 0.8 of it by chance.
        by_chance = result.stats[f"{name}_aleatoric"] / np.sqrt(N_DRAWS / 3)
        assert np.median(result.stats[f"{name}_epistemic"] / by_chance) > 1.5
    table = result.to_table()
    assert table["teff_epistemic"].unit == "K"
    np.testing.assert_allclose(table["teff_epistemic"].value, result.stats["teff_epistemic"], rtol=1e-6)


def test_networks_that_agree_have_no_epistemic_error(members, survey):
    twins = Ensemble((members[0], members[0]))
    result = twins.sample_normalised(jax.random.key(1), survey.flux[:N], survey.ivar[:N], 600)
    for name in result.label_set.names:
        # Two means of 300 draws, about their common mean: by chance 1 / sqrt(600) of the error.
        ratio = result.stats[f"{name}_epistemic"] / result.stats[f"{name}_aleatoric"]
        assert np.sqrt(np.mean(ratio**2)) < 0.06


def test_density_is_that_of_the_mixture(members, result, survey):
    labels = jnp.asarray(result.draws[:50])
    flux, ivar = survey.flux[:N], survey.ivar[:N]
    each = np.array([np.asarray(m.log_prob(labels, flux, ivar), float) for m in members])
    mixture = Ensemble(members).log_prob(labels, flux, ivar)
    np.testing.assert_allclose(np.asarray(mixture), logsumexp(each, axis=0, b=1.0 / 3.0), atol=2e-4)
    # Draws of the mixture lose what is outside of the prior: a little more of density within.
    gain = result.log_prob[:50] - np.asarray(mixture)
    assert np.all(gain > -1e-3) and np.all(gain < np.log(1.0 / LEAST_INSIDE) + 1e-3)
    assert np.median(gain[:, result.stats["outside_prior"] > 0.2]) > 0.1
    # Draws of one member are not likelier under another than under itself, on average.
    assert np.mean(each[0][0::3] - each[1][0::3]) > 0.0 > np.mean(each[0][1::3] - each[1][1::3])


def test_draws_are_of_all_members_in_turn(members, survey):
    """Also when their number cannot be divided by that of the members."""
    flux, ivar = survey.flux[:N], survey.ivar[:N]
    found = Ensemble(members).sample_normalised(jax.random.key(1), flux, ivar, 100)
    assert found.draws.shape == (100, N, 9) and found.log_prob.shape == (100, N)
    for i, member in enumerate(members):
        own = member.sample_normalised(jax.random.fold_in(jax.random.key(1), i), flux, ivar, 34)
        np.testing.assert_array_equal(found.draws[i::3], own.draws[: len(found.draws[i::3])])


@pytest.mark.slow
def test_parts_of_one_network_are_members(members, survey):
    """Each part is the whole network with fixed units left out: the same one for every spectrum."""
    share = 0.25
    config = dataclasses.replace(CONFIG, encoder=dataclasses.replace(CONFIG.encoder, dropout=share))
    network = PosteriorNetwork(config, members[0].label_set, TOY_INSTRUMENT.n_pixels, rngs=nnx.Rngs(0))
    copy_weights(members[0].network, network, "dropout")
    flux, ivar = survey.flux[:256], survey.ivar[:256]
    whole = dataclasses.replace(members[0], network=network).with_reference(flux, ivar)
    key, left_out = jax.random.key(3), []
    parts = dropout_members(whole, key, 40)
    was = np.asarray(network.encoder.head[0].outer.kernel[...])
    for part in parts:
        factor = np.asarray(part.network.encoder.head[0].outer.kernel[...]) / was
        np.testing.assert_allclose(factor, np.broadcast_to(factor[:, :1], factor.shape), rtol=1e-5)
        assert set(np.round(factor[:, 0], 4)) == {0.0, np.float32(1.3333)}
        left_out.append(factor[:, 0] == 0.0)
    assert abs(np.mean(left_out) - share) < 4 * np.sqrt(share * (1 - share) / np.size(left_out))
    assert len({tuple(row) for row in left_out}) == 40
    # What training drew has the same spread as the parts have.
    context = np.array([part.network.context(flux[:4], ivar[:4]) for part in parts])
    keys = jax.random.split(key, 200)
    trained = np.array([network.context(flux[:4], ivar[:4], one) for one in keys])
    np.testing.assert_allclose(
        np.median(context.std(axis=0) / trained.std(axis=0)), 1.0, atol=4 / np.sqrt(2 * 40)
    )

    result = Ensemble(parts[:4]).sample_normalised(jax.random.key(1), flux[:N], ivar[:N], 400)
    assert np.all(result.stats["teff_epistemic"] > 0.0)
    # The reference is of networks with units left out: a part's spectra are not unlike it.
    assert np.mean(result.stats["novelty"] > 1.0) < 0.05
    with pytest.raises(InputError, match="trained without"):
        dropout_members(members[0], key, 4)


def test_members_that_do_not_belong_together_are_refused(members):
    with pytest.raises(InputError, match="two or more"):
        Ensemble(members[:1])
    other = dataclasses.replace(members[1], prior=None)
    with pytest.raises(InputError, match="prior of member 2"):
        Ensemble((members[0], other))
