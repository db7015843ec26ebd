"""Calibrated labels and reports against what each draw of the offsets says, one by one."""

import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.surveys.basis import KINDS
from jaxspec.surveys.observations import Survey, diagonal, make_sky
from jaxspec.surveys.predict import calibrate, calibrate_sky, predict, predict_sky
from tests.surveys.skies import TREND_LABELS, calibration, offset_of_draws

STEP = np.array([100.0, 0.2, 0.1])
VALUES = np.array([[5400.0, 4.1, -0.1], [4700.0, 2.5, -0.6], [6200.0, 4.4, 0.2]])
ERROR = np.array([[50.0, 0.1, 0.05], [80.0, 0.15, 0.08], [40.0, 0.1, 0.1]])
COVARIANCE = diagonal(ERROR)


def noise(s, covariance=COVARIANCE):
    """Of a report: quoted errors times their factor, and the survey's scatter [labels' units]."""
    factor, size = (1.2, 0.8)[s], (0.3, 0.5)[s]
    correlation = np.array([[1.0, 0.4, 0.0], [0.4, 1.0, -0.2], [0.0, -0.2, 1.0]])
    return factor**2 * covariance + size**2 * correlation * np.outer(STEP, STEP)


def close(covariance, expected, rtol):
    """Covariances agree to `rtol` of the errors' product."""
    sigma = np.sqrt(np.diagonal(expected, axis1=-2, axis2=-1))
    unit = sigma[..., :, None] * sigma[..., None, :]
    np.testing.assert_allclose(covariance / unit, expected / unit, atol=rtol)


@pytest.mark.parametrize("trend", KINDS)
def test_calibrated_labels_and_their_offset_are_what_was_measured(trend):
    result = calibration(trend)
    found = calibrate(result, "a", VALUES, COVARIANCE, prior="flat")
    back, _ = result.offset("a", found.mean)
    # The flat prior is a hundred times as wide as the population: it moves by less than a hundredth.
    np.testing.assert_allclose((found.mean + back) / STEP, VALUES / STEP, atol=0.01)
    np.testing.assert_array_equal(found.error, np.sqrt(np.diagonal(found.covariance, axis1=1, axis2=2)))


@pytest.mark.parametrize("trend", KINDS)
def test_errors_hold_noise_and_what_the_draws_of_the_offset_differ_by(trend):
    """Each draw's labels are found by iteration; a draw's offset is known to a fiftieth of a step, so that
    everything is linear in it."""
    result = calibration(trend)
    found = calibrate(result, "a", VALUES, COVARIANCE, prior="flat")
    y = result.scales.to_model(VALUES)
    mean_theta = result.scales.to_model(found.mean)
    draws = np.tile(mean_theta, (result.n_draws, 1, 1))
    for _ in range(40):
        draws = y - offset_of_draws(result, 0, draws)
    np.testing.assert_allclose(draws + offset_of_draws(result, 0, draws), np.broadcast_to(y, draws.shape))
    scatter = np.einsum("dni,dnj->nij", draws - draws.mean(0), draws - draws.mean(0)) / len(draws)
    # Noise, moved from the survey's scale: the derivative by finite differences.
    jacobian, h = np.zeros((3, 3, 3)), 1e-4
    for j in range(3):
        up, down = (
            offset_of_draws(result, 0, mean_theta + s * h * np.eye(3)[j]).mean(0) for s in (1.0, -1.0)
        )
        jacobian[:, :, j] = np.eye(3)[:, j] + (up - down) / (2 * h)
    move = np.linalg.inv(jacobian)
    quiet = move @ (noise(0) / np.outer(STEP, STEP)) @ np.swapaxes(move, 1, 2)
    close(found.covariance / np.outer(STEP, STEP), quiet + scatter, 0.01)
    certain = calibrate(result, "a", VALUES, 1e-6 * COVARIANCE, prior="flat")
    assert (certain.error < found.error).all()


def test_the_population_improves_labels_as_bayes_says():
    """One Gaussian about half a step with five steps width, on the survey's own scale; no trend."""
    result = calibration(spread=0.0)
    result.terms["trend"][:] = 0.0
    found = calibrate(result, "a", VALUES, 9.0 * COVARIANCE)
    prior, sigma = 25.0 * np.outer(STEP, STEP) * np.eye(3), noise(0, 9.0 * COVARIANCE)
    middle = result.scales.to_labels(np.full(3, 0.5))
    shift = result.terms["zero_point"][0, 0] * STEP
    for i in range(3):
        gain = prior @ np.linalg.inv(prior + sigma[i])
        np.testing.assert_allclose(
            found.mean[i] / STEP, (middle + gain @ (VALUES[i] - middle) - shift) / STEP, atol=1e-4
        )
        close(found.covariance[i], prior - gain @ prior, 1e-4)


@pytest.mark.parametrize("trend", KINDS)
def test_a_survey_would_report_again_what_it_reported(trend):
    """Its offset, and the error of that, cancel: what remains is the noise, of then and of now."""
    result = calibration(trend, spread=0.3)
    found = predict(result, "a", "a", VALUES, COVARIANCE, target_covariance=COVARIANCE, prior="flat")
    np.testing.assert_allclose(found.mean / STEP, VALUES / STEP, atol=0.01)
    close(found.covariance, 2.0 * noise(0), 0.005)


def test_reports_of_a_survey_that_never_saw_the_star():
    """Draw by draw: free from a's offset, then with b's. Its own noise is added; fe_h it does not measure."""
    result = calibration("linear")
    found = predict(result, "b", "a", VALUES, COVARIANCE, target_covariance=COVARIANCE, prior="flat")
    assert np.isnan(found.mean[:, 2]).all() and np.isnan(found.covariance[:, 2]).all()
    a, b = (offset_matrices(result, s) for s in (0, 1))
    y = result.scales.to_model(VALUES)
    theta = np.einsum("dij,dnj->dni", np.linalg.inv(np.eye(3) + a[1]), y - a[0][:, None])
    report = theta + b[0][:, None] + np.einsum("dij,dnj->dni", b[1], theta)
    np.testing.assert_allclose(
        found.mean[:, :2] / STEP[:2], result.scales.to_labels(report.mean(0))[:, :2] / STEP[:2], atol=0.02
    )
    through = (np.eye(3) + b[1].mean(0)) @ np.linalg.inv(np.eye(3) + a[1].mean(0))
    d = report - report.mean(0)
    expected = np.outer(STEP, STEP) * (
        through @ (noise(0) / np.outer(STEP, STEP)) @ through.T + np.einsum("dni,dnj->nij", d, d) / len(d)
    ) + noise(1)
    close(found.covariance[:, :2, :2], expected[:, :2, :2], 0.01)


def offset_matrices(result, s):
    """Zero points, and the matrix by which a linear offset grows with model coordinates, draw by draw."""
    inputs = np.zeros((2, 3))
    inputs[0, 0], inputs[1, 1] = 100.0 / 500.0, 0.2 / 0.8
    return result.terms["zero_point"][:, s], result.terms["trend"][:, s] @ inputs


def survey(name, star, values, anchor=False):
    return Survey(
        name, np.asarray(star), values, COVARIANCE[: len(star)], np.zeros(len(star), bool), anchor=anchor
    )


def test_stars_seen_once_are_calibrated_one_by_one():
    result = calibration()
    sky = make_sky(TREND_LABELS, [survey("b", [0], VALUES[:1]), survey("a", [2], VALUES[1:2])], 4)
    found = calibrate_sky(result, sky)
    for star, name, row in ((0, "b", 0), (2, "a", 1)):
        alone = calibrate(result, name, VALUES[row : row + 1], COVARIANCE[:1])
        np.testing.assert_array_equal(found.mean[star], alone.mean[0])
        np.testing.assert_array_equal(found.covariance[star], alone.covariance[0])
    assert np.isnan(found.mean[[1, 3]]).all() and np.isnan(found.outlier[[1, 3]]).all()


def test_stars_seen_twice_use_both_measurements():
    """Without trends and with offsets known exactly: the mean weighted by precision, with the population as
    a third measurement, and a report is that mean plus the offset."""
    result = calibration(n_draws=2, spread=0.0)
    result.terms["trend"][:] = 0.0
    sky = make_sky(TREND_LABELS, [survey("a", [0], VALUES[:1]), survey("b", [0], VALUES[:1] + 0.5 * STEP)])
    found = calibrate_sky(result, sky)
    zero = result.terms["zero_point"][0]
    y = [result.scales.to_model(VALUES[0] + 0.5 * s * STEP) - zero[s] for s in (0, 1)]
    precision = [np.linalg.inv(noise(s)[0] / np.outer(STEP, STEP)) for s in (0, 1)]
    total = np.linalg.inv(sum(precision) + np.eye(3) / 25.0)
    mean = total @ sum(p @ v for p, v in zip(precision, y, strict=True))
    np.testing.assert_allclose(result.scales.to_model(found.mean[0]), mean, atol=1e-4)
    close(found.covariance[0], total * np.outer(STEP, STEP), 1e-3)
    report = predict_sky(result, sky, "a")
    np.testing.assert_allclose(result.scales.to_model(report.mean[0]), mean + zero[0], atol=1e-4)
    quoted = diagonal(np.array([0.5 * STEP]))
    close(report.covariance[0], found.covariance[0] + noise(0, quoted)[0], 1e-3)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"survey": "elsewhere"}, "survey name"),
        ({"prior": "none"}, "prior"),
        ({"values": VALUES[:, :2]}, None),
        ({"covariance": COVARIANCE[:2]}, None),
        ({"flagged": np.zeros(2, bool)}, None),
    ],
)
def test_what_does_not_fit_is_refused(change, match):
    """Wrong shapes by `InputError`, or before that by the types that are checked while tests run."""
    arguments = {"survey": "a", "values": VALUES, "covariance": COVARIANCE, **change}
    with pytest.raises((InputError, TypeError), match=match):
        calibrate(calibration(), **arguments)
