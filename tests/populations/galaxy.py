"""Small sets of stars that the tests of this folder share."""

import numpy as np

from jaxspec.populations.stars import Stars

LABELS = ("fe_h", "mg_fe", "al_fe")
CENTRES = np.array([[-0.1, 0.02, 0.05], [-0.5, 0.28, 0.22]])
SPREAD = np.array([[0.2, 0.03, 0.05], [0.2, 0.04, 0.05]])


def two_discs(n: int, seed: int, error: float = 0.04) -> tuple[Stars, np.ndarray]:
    """Stars of two Gaussian populations of 70 and 30 %, measured with errors that differ, and which they
    are."""
    rng = np.random.default_rng(seed)
    truth = (rng.random(n) < 0.3).astype(int)
    values = CENTRES[truth] + SPREAD[truth] * rng.standard_normal((n, 3))
    errors = error * np.exp(0.4 * rng.standard_normal((n, 1))) * np.array([0.8, 1.0, 1.2])
    return Stars.with_errors(LABELS, values + errors * rng.standard_normal((n, 3)), errors), truth
