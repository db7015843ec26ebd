"""Catalogues quote errors and not how one label's go with another's: that is learned from stars in common."""

import jax
import numpy as np
import pytest

from jaxspec.labels import NINE_LABELS
from jaxspec.surveys.denoising import survey_noise
from jaxspec.surveys.inference import fit
from jaxspec.surveys.observations import Survey, diagonal, make_sky
from jaxspec.surveys.predict import predict

LABELS = NINE_LABELS.select(["teff", "logg", "fe_h"])
ERROR = np.array([60.0, 0.12, 0.06])
TIED, STARS = 300, 1000


def correlation(r):
    """Errors in Teff, log g and [Fe/H] that go together by `r`."""
    return np.full((3, 3), r) + (1.0 - r) * np.eye(3)


def reports(rng, labels, r):
    """Values of a survey whose quoted errors are right, and nearly all of its noise."""
    # Errors differ much from star to star: a scatter that is the same for all cannot stand in for them.
    size = ERROR * np.exp(rng.normal(0.0, 0.7, (len(labels), 1)))
    return labels + size * (rng.normal(size=labels.shape) @ np.linalg.cholesky(correlation(r)).T), size


@pytest.fixture(scope="module", params=[0.0, 0.8])
def fitted(request):
    rng = np.random.default_rng(11)
    labels = np.column_stack(
        [rng.normal(5500, 400, STARS), rng.normal(4.0, 0.4, STARS), rng.normal(-0.2, 0.3, STARS)]
    )
    star, surveys, held = np.arange(STARS), [], {}
    for name, rows in (("a", star), ("b", star[:TIED])):
        values, size = reports(rng, labels, request.param)
        held[name] = values, size
        flagged = np.zeros(len(rows), bool)
        surveys.append(Survey(name, rows, values[rows], diagonal(size[rows]), flagged, errors_only=True))
    error = np.tile(0.1 * ERROR, (STARS, 1))[:60]
    known = labels[:60] + error * rng.normal(size=error.shape)
    surveys.append(Survey("known", star[:60], known, diagonal(error), np.zeros(60, bool), anchor=True))
    return request.param, fit(make_sky(LABELS, surveys), None, jax.random.key(0), "laplace"), held


def test_the_correlation_of_errors_is_found(fitted):
    """Differences of two surveys show the sum of their noise, of 300 stars its correlations to 0.06."""
    r, result, _ = fitted
    error = diagonal(ERROR[None] / result.scales.step)
    noise = sum(survey_noise(result.terms, s, error)[0] for s in (0, 1))
    size = np.sqrt(np.diag(noise))
    found = (noise / np.outer(size, size))[np.triu_indices(3, 1)]
    assert np.all(np.abs(found - r) < 0.2)
    # An anchor's errors are taken as they stand.
    assert np.all(result.terms["correlation"][:, 2] == 0.0)


def test_errors_of_sums_of_labels_are_right(fitted):
    """Stars that b did not see: what is predicted of their reports has the right error in every direction,
    also where all labels go up together and where they go apart. Off by half or twice without correlations.
    """
    r, result, held = fitted
    rows = slice(TIED, None)
    (values, error), (reported, quoted) = ((x[rows] for x in held[name]) for name in ("a", "b"))
    found = predict(
        result, "b", "a", values, diagonal(error), target_covariance=diagonal(quoted), prior="flat"
    )
    poor = np.hypot(error, quoted)[:, 0] > 2.0 * ERROR[0]
    d = (reported - found.mean) / ERROR
    for direction in (np.ones(3), np.array([1.0, -1.0, 0.0]), np.array([1.0, 1.0, -2.0])):
        variance = np.einsum("nij,i,j->n", found.covariance, direction / ERROR, direction / ERROR)
        chi2 = ((d @ direction) ** 2 / variance)[poor].mean()
        # Four standard deviations of the stars with large errors, and as much again for what 300 do not tell.
        assert abs(chi2 - 1.0) < 8 * np.sqrt(2 / poor.sum()), (r, direction, chi2)
