"""Posteriors of spectra become a survey of their likelihoods, one row a spectrum."""

import numpy as np

from jaxspec.labels import label_set
from jaxspec.posterior.results import Posterior
from jaxspec.surveys.likelihoods import from_posterior


def test_posteriors_without_a_prior_are_likelihoods_already(rng):
    labels, n = label_set("teff", "logg", "fe_h"), 4
    draws = np.array([5500.0, 3.5, -0.5]) + rng.normal(size=(500, n, 3)) * np.array([50.0, 0.1, 0.05])
    names, flags = tuple("abcd"), np.array([0, 0, 8, 0])  # BAD_FIT
    posterior = Posterior(draws, np.zeros((500, n)), labels, names, np.full(n, 50.0), np.ones(n), flags)
    survey = from_posterior("flow", posterior, np.array([3, 1, 0, 1]), flagged=np.arange(n) == 0)
    np.testing.assert_allclose(survey.values, draws.mean(axis=0), rtol=1e-12)
    for i in range(n):
        np.testing.assert_allclose(survey.covariance[i], np.cov(draws[:, i].T, bias=True), rtol=1e-9)
    assert survey.name == "flow" and survey.star.tolist() == [3, 1, 0, 1]
    assert survey.flagged.tolist() == [True, False, True, False]  # asked for, and suspect
    assert not survey.anchor and not survey.errors_only
