"""One toy star of each kind, a posterior that knows next to nothing, and a bench; all share two programs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspec.agent.bench import AgentConfig, Bench
from jaxspec.agent.evidence import EXACT
from jaxspec.agent.hypotheses import Star
from jaxspec.posterior.flagging import flag_stars
from jaxspec.posterior.results import Posterior
from jaxspec.simulation.preparation import prepare_many
from jaxspec.simulation.prior import StellarPrior
from jaxspec.spectra import median_snr

TRUTH = {"teff": 5200.0, "logg": 3.6, "fe_h": -0.2}


@dataclasses.dataclass(frozen=True)
class VaguePosterior:
    """Draws about one place, whatever the spectrum: what the agent is to do better than."""

    instrument: object
    label_set: object
    prior: StellarPrior = StellarPrior()
    limits: None = None
    provenance: dict = dataclasses.field(default_factory=dict)

    def prepare(self, spectra):
        return prepare_many(np.asarray(spectra.flux), np.asarray(spectra.ivar), self.instrument)

    def sample_normalised(self, key, flux, ivar, n=1000, batch=64, names=None):
        middle = self.label_set.scaled_solar(5300.0, 3.8, -0.1)
        width = 2.0 * self.label_set.step
        draws = middle + width * np.asarray(jax.random.normal(key, (n, len(flux), middle.size)))
        snr = median_snr(np.asarray(flux), np.asarray(ivar))
        zeros = np.zeros(len(flux))
        result = Posterior(
            draws.astype(np.float32), np.zeros((n, len(flux)), np.float32), self.label_set,
            names or tuple(map(str, range(len(flux)))), snr, zeros + np.nan, zeros.astype(np.int64),
            prior=self.prior,
        )  # fmt: skip
        return self.flag(result, ivar)

    def log_prob(self, labels, flux, ivar):
        return jnp.zeros(labels.shape[:-1])

    def flag(self, result, ivar):
        return flag_stars(result, np.asarray(ivar), self.instrument, self.prior, 10.0)


@pytest.fixture(scope="session")
def star(toy):
    return Star(toy)


@pytest.fixture(scope="session")
def posterior(toy):
    return VaguePosterior(toy.instrument, toy.label_set)


@pytest.fixture(scope="session")
def truth(star):
    """Parameters of the toy star: labels, then nuisances."""
    return np.append(star.label_set.scaled_solar(*TRUTH.values()), [0.05, 0.3, 16.0, 0.2, 1.0])


@pytest.fixture(scope="session")
def observed(star, truth):
    """A function that makes `flux, ivar` at S/N 150 of parameters, or of a noiseless spectrum."""

    def make(spectrum=None, seed=1, snr=150.0, **changed):
        theta = np.array(truth)
        for name, value in changed.items():
            theta[star.n_label + star.NUISANCES.index(name)] = value
        flux = star(theta)[0] if spectrum is None else np.asarray(spectrum)
        rng = np.random.default_rng(seed)
        return flux + rng.normal(0.0, 1.0 / snr, flux.size), np.full(flux.size, snr**2)

    return make


@pytest.fixture
def make_bench(star, posterior):
    """A bench of a spectrum."""

    def make(flux, ivar, folder=None, **config):
        how = AgentConfig(n_draws=200, refine="none", check=False, errors=EXACT, **config)
        return Bench(star, posterior, "HD 1", flux, ivar, how, {"product": "toy"}, folder)

    return make
