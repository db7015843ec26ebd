"""Other libraries' methods on a shift that they are made for."""

import numpy as np
import pytest

pytest.importorskip("skada")

from jaxspec.surveys.comparators import compare
from jaxspec.surveys.scores import ridge


def test_a_linear_distortion_is_undone_by_coral_and_optimal_transport():
    rng = np.random.default_rng(0)
    x, t = rng.normal(size=(2, 900, 5))
    slopes = rng.normal(size=(5, 2))
    distorted = t @ (np.eye(5) + 0.15 * rng.normal(size=(5, 5))) + 0.3
    plain = np.sqrt(np.mean((ridge(x, x @ slopes)(distorted) - t @ slopes) ** 2))
    found = {
        c.name: c for c in compare(x, x @ slopes, distorted, distorted, ("skada_coral", "skada_linear_ot"))
    }
    for entry in found.values():
        assert entry.problem == "" and entry.prediction.shape == (900, 2)
        assert np.sqrt(np.mean((entry.prediction - t @ slopes) ** 2)) < 0.8 * plain


def test_weights_below_zero_are_no_end():
    """The solver of MMDTarS leaves some."""
    rng = np.random.default_rng(1)
    x, t = rng.normal(size=(2, 80, 3))
    (entry,) = compare(x, x[:, :1] + 0.1, t, t, ("skada_mmd_tars",))
    assert entry.problem == "" and np.isfinite(entry.prediction).all()
