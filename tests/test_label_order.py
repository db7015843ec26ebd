"""A label set in another order gives the same stars, fits and bounds in that order."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspec.diagnostics.cramer_rao import cramer_rao
from jaxspec.diagnostics.information import fisher_information
from jaxspec.errors import InputError
from jaxspec.fitting.check import check_fit
from jaxspec.fitting.modes import fit_modes
from jaxspec.fitting.refine import refine_labels, refine_posterior
from jaxspec.instruments import Instrument
from jaxspec.labels import NINE_LABELS, LabelSet
from jaxspec.physics.emulator import relative_inputs
from jaxspec.posterior.results import Posterior
from jaxspec.simulation.nuisances import PURE
from jaxspec.simulation.prior import StellarPrior
from jaxspec.simulation.simulator import Simulator
from jaxspec.surveys.simulate import SimulationConfig, simulate_sky
from tests.toy import ToyForwardModel

# No label stands where it stands among the nine, and neither iron nor the elements stand together.
ORDER = np.array([3, 2, 4, 0, 5, 6, 1, 8, 7])
MIXED = LabelSet(tuple(NINE_LABELS.labels[i] for i in ORDER))
KEY = jax.random.key(5)


class MixedModel(eqx.Module):
    """The toy with its labels in another order."""

    toy: ToyForwardModel
    instrument: Instrument = eqx.field(static=True)
    label_set: LabelSet = eqx.field(static=True, default=MIXED)
    approximation = "LTE"

    def __call__(self, labels, nuisances):
        return self.toy(self.label_set.take(labels, NINE_LABELS.names), nuisances)


@pytest.fixture(scope="module")
def mixed(toy):
    return MixedModel(toy, toy.instrument)


@pytest.fixture(scope="module")
def start(bright):
    """Four stars at S/N 300, 80 K, 0.1 and 0.05 dex off."""
    return np.asarray(bright.labels[:4] + jnp.asarray(0.8 * NINE_LABELS.step, jnp.float32))


def test_simulated_stars(toy, mixed):
    config = dataclasses.replace(PURE, only_arm=())
    expected, stars = (Simulator(model, config=config).simulate(KEY, 8) for model in (toy, mixed))
    np.testing.assert_array_equal(stars.labels, expected.labels[:, ORDER])
    for name, values in expected.nuisances._asdict().items():
        # Two programs, whose rounding is the compiler's choice.
        np.testing.assert_allclose(getattr(stars.nuisances, name), values, rtol=5e-7, err_msg=name)
    np.testing.assert_allclose(stars.flux, expected.flux, atol=1e-5)


def test_prior():
    prior, other = StellarPrior(), StellarPrior(names=MIXED.names)
    np.testing.assert_array_equal(other.low, prior.low[ORDER])
    np.testing.assert_array_equal(other.high, prior.high[ORDER])
    labels = prior.sample(KEY, 500)
    np.testing.assert_array_equal(other.sample(KEY, 500), labels[:, ORDER])
    # A third of these are outside.
    labels = labels + 0.5 * jax.random.normal(KEY, labels.shape) * jnp.asarray(NINE_LABELS.step * 4.0)
    np.testing.assert_array_equal(other.supports(labels[:, ORDER]), prior.supports(labels))
    expected = np.asarray(prior.log_prob(labels))
    assert 0.1 < np.isfinite(expected).mean() < 0.9
    np.testing.assert_allclose(other.log_prob(labels[:, ORDER]), expected, rtol=1e-5)
    with pytest.raises(InputError, match=r"prior\.names: found teff, logg, ebv"):
        StellarPrior(names=("teff", "logg", "ebv"))


def test_refinement(toy, mixed, bright, start):
    flux, ivar = bright.flux[:4], bright.ivar[:4]
    expected = refine_labels(toy, start, flux, ivar, batch=4)
    found = refine_labels(mixed, start[:, ORDER], flux, ivar, batch=4)
    np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-4)
    sigma = np.sqrt(np.diagonal(expected.covariance, axis1=1, axis2=2))
    np.testing.assert_allclose((found.labels - expected.labels[:, ORDER]) / sigma[:, ORDER], 0.0, atol=0.02)
    scale = sigma[:, ORDER, None] * sigma[:, None, ORDER]
    covariance = expected.covariance[:, ORDER][:, :, ORDER]
    np.testing.assert_allclose((found.covariance - covariance) / scale, 0.0, atol=0.02)


def test_check(toy, mixed, bright):
    labels, flux, ivar = np.asarray(bright.labels[:4]), bright.flux[:4], bright.ivar[:4]
    expected = check_fit(toy, labels, flux, ivar, batch=4)
    found = check_fit(mixed, labels[:, ORDER], flux, ivar, batch=4)
    for name in ("chi2", "misfit", "structure", "model"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-3, atol=1e-4)


def test_best_fits(toy, mixed, bright, start):
    flux, ivar = bright.flux[:4], bright.ivar[:4]
    expected = fit_modes(toy, start, flux, ivar, batch=4)
    found = fit_modes(mixed, start[:, ORDER], flux, ivar, batch=4)
    order = np.append(ORDER, 9 + np.arange(5))
    sigma = np.sqrt(np.diagonal(expected.covariance, axis1=1, axis2=2))[:, order]
    np.testing.assert_allclose((found.centre - expected.centre[:, order]) / sigma, 0.0, atol=0.05)
    covariance = expected.covariance[:, order][:, :, order]
    np.testing.assert_allclose(
        (found.covariance - covariance) / (sigma[:, :, None] * sigma[:, None]), 0.0, atol=0.02
    )


def test_bounds(toy, mixed, bright):
    stars = jax.tree.map(lambda x: x[:4], bright)
    expected = cramer_rao(toy, stars.labels, stars.nuisances, stars.ivar, batch=4)
    found = cramer_rao(mixed, np.asarray(stars.labels)[:, ORDER], stars.nuisances, stars.ivar, batch=4)
    np.testing.assert_allclose(found.sigma, expected.sigma[:, ORDER], rtol=1e-3)
    labels = np.asarray(stars.labels[0])
    sigma = fisher_information(toy, labels, 100.0, ["fe_h", "teff"]).sigma
    assert fisher_information(mixed, labels[ORDER], 100.0, ["fe_h", "teff"]).sigma == pytest.approx(
        sigma, rel=1e-3
    )


def test_inputs_of_the_emulator(bright):
    labels = bright.labels[0]
    expected = np.asarray(relative_inputs(labels, jnp.float32(1.2), NINE_LABELS))
    found = np.asarray(relative_inputs(labels[ORDER], jnp.float32(1.2), MIXED))
    np.testing.assert_array_equal(found, expected[np.append(ORDER, 9)])


def test_simulated_skies():
    config = SimulationConfig(n_stars=200, n_groups=2)
    (sky, truth), (other, planted) = (simulate_sky(1, config, labels) for labels in (NINE_LABELS, MIXED))
    np.testing.assert_array_equal(planted.labels, truth.labels[:, ORDER])
    for s, (a, b) in enumerate(zip(sky.surveys, other.surveys, strict=True)):
        np.testing.assert_array_equal(b.values, a.values[:, ORDER])
        if not a.anchor:
            expected = truth.offset(s, truth.labels)[:, ORDER]
            np.testing.assert_allclose(planted.offset(s, planted.labels), expected)


def test_another_order_is_not_taken_for_the_models(mixed, bright):
    """Arrays in two orders cannot be told from each other, but label sets can."""
    labels = np.asarray(bright.labels[:1])
    zeros = np.zeros(1)
    posterior = Posterior(
        labels[None], zeros[None], NINE_LABELS, ("a",), zeros + 300.0, zeros, np.zeros(1, int)
    )
    with pytest.raises(InputError, match="labels of the posterior: found teff, logg"):
        refine_posterior(KEY, mixed, posterior, bright.flux[:1], bright.ivar[:1])
    with pytest.raises(InputError, match="labels of the prior: found teff, logg"):
        Simulator(mixed, StellarPrior())
