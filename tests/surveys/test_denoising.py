"""Labels freed from noise on their survey's own scale."""

import numpy as np

from jaxspec.surveys.denoising import denoise
from jaxspec.surveys.mixture import Mixture


def test_probable_outliers_keep_their_place_and_get_wide_errors():
    mixture = Mixture(np.ones(1), np.zeros((1, 2)), np.diag([4.0, 1.0])[None])
    values = np.array([[1.0, -0.5], [40.0, 0.0]])
    noise = np.tile(0.25 * np.eye(2), (2, 1, 1))
    broad = (np.full(2, -3.5), np.zeros(2), np.full(2, 15.0))
    mean, covariance, bad = denoise(mixture, values, noise, broad)
    exact = np.linalg.inv(np.diag([1 / 4.0, 1.0]) + 4.0 * np.eye(2))
    assert bad[0] < 0.01 and bad[1] > 0.99
    # The Gaussian posterior of both, whose width is that of an ordinary star only for the ordinary one.
    np.testing.assert_allclose(mean, 4.0 * values @ exact, rtol=1e-10)
    np.testing.assert_allclose(covariance[0], exact, rtol=1e-10)
    deviation = mean[1]
    expected = bad[1] * (np.diag([4.0, 1.0]) + np.outer(deviation, deviation)) + (1 - bad[1]) * exact
    np.testing.assert_allclose(covariance[1], expected, rtol=1e-10)
