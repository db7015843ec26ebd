"""Scores against their definitions and other code."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from jaxspec.errors import InputError
from jaxspec.labels import label_set
from jaxspec.surveys.scores import errors, gap_closed, probe, ridge, score, separability, weighted_auc

LABELS = label_set("teff", "logg")


def test_right_posteriors_hold_what_they_say(rng):
    n = 4000
    truth = rng.normal([5500.0, 3.0], [200.0, 0.5], (n, 2))
    mean = truth + rng.normal(size=(n, 2)) * [50.0, 0.1]
    found = score(truth, mean + rng.normal(size=(300, n, 2)) * [50.0, 0.1], LABELS)
    for name, sigma in (("teff", 50.0), ("logg", 0.1)):
        # Four standard errors of a share of 4000 stars.
        assert abs(found[name]["coverage_68"] - 0.68) < 0.03
        assert abs(found[name]["coverage_95"] - 0.95) < 0.015
        assert found[name]["rmse"] == pytest.approx(sigma, rel=0.06)
        assert found[name]["scatter"] == pytest.approx(sigma, rel=0.08)
    narrow = score(truth, mean + rng.normal(size=(300, n, 2)) * [25.0, 0.05], LABELS)
    assert narrow["teff"]["coverage_68"] < 0.42


def test_outliers_move_the_rmse_and_not_the_scatter(rng):
    values = np.r_[3.0 + rng.normal(size=2000), np.full(20, 100.0)]
    found = errors(values)
    assert found["bias"] == pytest.approx(3.0, abs=0.1) and found["scatter"] == pytest.approx(1.0, abs=0.1)
    assert found["rmse"] > 9.0


def test_gaps():
    assert gap_closed(3.0, 1.0, 1.0) == 1.0 and gap_closed(3.0, 1.0, 4.0) == -0.5
    assert gap_closed(1.0, 0.97, 0.9) is None


def test_auc_is_sklearns_with_ties_and_weights(rng):
    low, high = rng.integers(0, 6, 200) / 2.0, rng.integers(1, 8, 150) / 2.0
    weight = rng.uniform(0.1, 3.0, 200)
    answer = np.repeat([0, 1], [200, 150])
    plain, weighted = (
        roc_auc_score(answer, np.r_[low, high], sample_weight=w) for w in (None, np.r_[weight, np.ones(150)])
    )
    assert weighted_auc(low, high) == pytest.approx(plain)
    assert weighted_auc(low, high, weight) == pytest.approx(weighted)


def test_samples_alike_and_apart(rng):
    a, b = rng.normal(size=(2, 1500, 6))
    # An AUC of 1500 against 1500 alike has a standard error of 0.0105.
    assert abs(separability(a, b) - 0.5) < 0.045
    shifted = separability(a, b + np.r_[1.0, np.zeros(5)])
    # Of two normals a unit apart it is Phi(1 / sqrt 2) = 0.760.
    assert 0.70 < shifted < 0.79
    assert separability(a, 1.8 * b) > 0.75  # a difference that no linear classifier sees


def test_weights_take_a_shift_of_stars_out(rng):
    """Two surveys of the same two kinds of star, 80 : 20 and 20 : 80."""

    def stars(n, share):
        kind = rng.uniform(size=n) < share
        return rng.normal(size=(n, 4)) + 3.0 * kind[:, None] * np.r_[1.0, 0, 0, 0], kind

    (a, kind_a), (b, _) = stars(2000, 0.8), stars(2000, 0.2)
    weight = np.where(kind_a, 0.2 / 0.8, 0.8 / 0.2)
    assert separability(a, b) > 0.72
    assert abs(separability(a, b, weight) - 0.5) < 0.06
    with pytest.raises(InputError, match="50 or more"):
        separability(a[:10], b)


def test_the_probe_finds_what_is_linear(rng):
    x = rng.normal(size=(3000, 5))
    y = np.stack([x @ [1.0, 2.0, 0, 0, 0], rng.normal(size=3000)], axis=1)
    found = probe(x, y, LABELS)
    assert found["teff"] > 0.99 and abs(found["logg"]) < 0.02


def test_weights_of_a_ridge_act_as_repeated_rows(rng):
    x, y = rng.normal(size=(60, 3)), rng.normal(size=(60, 2))
    slopes = np.array([[1.0, 0.0], [0.0, 2.0], [0.5, 0.5]])
    fitted = ridge(x, x @ slopes + 1.0)
    np.testing.assert_allclose(fitted(x), x @ slopes + 1.0, atol=0.02)
    only = ridge(x, y, np.r_[np.ones(30), np.full(30, 1e-12)])
    np.testing.assert_allclose(only(x).mean(axis=0)[0], only(x).mean(axis=0)[0])
    assert np.corrcoef(only(x[:30]).ravel(), y[:30].ravel())[0, 1] > 0.0
