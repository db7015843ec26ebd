"""Errors that a survey quotes follow its stars, and so do the errors of what it would report."""

import jax
import numpy as np
import pytest

from jaxspec.labels import NINE_LABELS
from jaxspec.surveys.inference import fit
from jaxspec.surveys.observations import Survey, diagonal, make_sky
from jaxspec.surveys.predict import predict
from jaxspec.surveys.quoted import NEIGHBOURS, QuotedErrors
from jaxspec.surveys.results import Calibration
from jaxspec.surveys.scales import make_scales

LABELS = NINE_LABELS.select(["teff", "logg", "fe_h"])
TREND = ("teff", "logg", "fe_h")


def labels_of(rng, n):
    return np.column_stack([rng.uniform(4500, 6500, n), rng.uniform(1.5, 4.8, n), rng.normal(-0.2, 0.3, n)])


def errors_of(labels):
    """Three times as large at 6500 K as at 4500 K."""
    return np.array([30.0, 0.06, 0.03]) * (1.0 + (labels[:, :1] - 4500.0) / 1000.0)


def a_survey(rng, name, labels, star, scale=1.0, anchor=False):
    error = scale * errors_of(labels[star])
    values = labels[star] + error * rng.normal(size=error.shape)
    return Survey(name, star, values, diagonal(error), np.zeros(len(star), bool), anchor=anchor)


def test_mean_variance_of_stars_like_these(rng):
    labels = labels_of(rng, 4000)
    survey = a_survey(rng, "a", labels, np.arange(4000))
    survey.values[::3, 2] = np.nan
    scales = make_scales(make_sky(LABELS, [survey]), TREND)
    quoted = QuotedErrors.of(survey, scales)
    wanted = np.array([[4700.0, 3.0, -0.2], [5500.0, 3.0, -0.2], [6300.0, 3.0, -0.2]])
    found = np.sqrt(quoted.near(scales.to_model(wanted) @ scales.input_matrix.T)) * scales.step
    np.testing.assert_allclose(found, errors_of(wanted), rtol=0.1)
    np.testing.assert_allclose(
        np.sqrt(quoted.typical) * scales.step, np.median(errors_of(labels), axis=0), rtol=0.03
    )


def test_the_mean_is_of_variances(rng):
    """A tenth of the rows with ten times the error makes a report eleven times as uncertain in variance."""
    star = np.arange(600)
    labels = np.tile([5500.0, 4.0, 0.0], (600, 1))
    error = np.tile([50.0, 0.1, 0.05], (600, 1))
    error[::10] *= 10.0
    survey = Survey("a", star, labels, diagonal(error), np.zeros(600, bool))
    scales = make_scales(make_sky(LABELS, [survey]), ())
    mean = QuotedErrors.of(survey, scales).near(np.zeros((2, 0))) * scales.step**2
    np.testing.assert_allclose(mean, np.tile(10.9 * np.array([50.0, 0.1, 0.05]) ** 2, (2, 1)))


def test_few_rows_and_labels_that_are_missing(rng):
    labels = labels_of(rng, NEIGHBOURS // 2)
    survey = a_survey(rng, "a", labels, np.arange(len(labels)))
    survey.values[:, 0] = np.nan
    survey.values[1:, 1] = np.nan
    other = a_survey(rng, "b", labels, np.arange(len(labels)))
    scales = make_scales(make_sky(LABELS, [survey, other]), TREND)
    quoted = QuotedErrors.of(survey, scales)
    found = quoted.near(np.zeros((3, 3)))
    assert np.all(found[:, 0] == 0.0) and np.isnan(quoted.typical[0])
    np.testing.assert_allclose(found[:, 1], survey.covariance[0, 1, 1] / scales.step[1] ** 2)
    assert quoted.near(np.zeros((0, 3))).shape == (0, 3)


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(5)
    labels = labels_of(rng, 700)
    star = np.arange(700)
    surveys = [
        a_survey(rng, "a", labels, star, 0.5),
        a_survey(rng, "b", labels, star[:250]),
        a_survey(rng, "known", labels, star[:40], 0.2, anchor=True),
    ]
    return fit(make_sky(LABELS, surveys), None, jax.random.key(0), "laplace"), labels


def test_reports_are_as_uncertain_as_the_survey_is_for_such_stars(fitted, rng, tmp_path):
    """Held-out stars, cool and hot, reported with three times different errors: both within their errors."""
    result, labels = fitted
    held = labels[250:]
    a = a_survey(rng, "a", labels, np.arange(250, 700), 0.5)
    reported = held + errors_of(held) * rng.normal(size=held.shape)
    found = predict(result, "b", "a", a.values, a.covariance)
    z2 = np.square((reported - found.mean) / found.error)
    cool, hot = held[:, 0] < 5000, held[:, 0] > 6000
    for rows in (cool, hot):
        # Four standard deviations of a mean chi-square of three labels, and the fit's own error.
        assert abs(z2[rows].mean() - 1.0) < 4 * np.sqrt(2 / (3 * rows.sum())) + 0.1
    result.save(tmp_path / "calibration.nc")
    again = predict(Calibration.load(tmp_path / "calibration.nc"), "b", "a", a.values, a.covariance)
    np.testing.assert_allclose(again.error, found.error, rtol=1e-9)
