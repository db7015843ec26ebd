"""Scores whose answer is known."""

import numpy as np
import pytest

from jaxspec.populations.members import Members
from jaxspec.populations.scores import calibration_error, match_groups, purity_at, score
from jaxspec.populations.siblings import alike, recovered, whitened
from jaxspec.populations.stars import Stars

pytest.importorskip("sklearn")


def members(probability):
    p = np.asarray(probability, float)
    return Members(p, np.zeros_like(p), np.zeros(len(p)))


def test_perfect_and_swapped_groups_score_one():
    truth = np.array([0, 0, 0, 1, 1, -1])
    found = score(members(np.eye(2)[[1, 1, 1, 0, 0, 0]]), truth, ("a", "b"))
    assert found.rand == 1.0 and found.calibration == 0.0
    assert found.classes["b"].purity == found.classes["b"].completeness == found.classes["b"].roc == 1.0
    assert found.classes["a"].stars == 3


def test_ungrouped_stars_belong_to_none():
    p = members([[0.9, 0.0], [0.2, 0.3], [0.0, 1.0]])
    assert p.group.tolist() == [1, 0, 2]
    found = score(p, np.array([0, 1, 1]), ("a", "b"))
    assert found.classes["b"].completeness == 0.5 and found.classes["b"].purity == 1.0


def test_calibration_error_of_true_and_overconfident_probabilities(rng):
    p = rng.random(40_000)
    belongs = rng.random(40_000) < p
    assert calibration_error(belongs, p) < 0.015
    sure = (p > 0.5).astype(float)
    assert abs(calibration_error(belongs, sure) - 0.25) < 0.01


def test_groups_are_matched_one_to_one_and_may_be_too_few():
    truth = np.array([0] * 50 + [1] * 40 + [2] * 10)
    only = np.ones((100, 1))
    assert sorted(match_groups(only, truth, 3)) == [-1, -1, 0]
    assert match_groups(np.eye(3)[[2] * 50 + [0] * 40 + [1] * 10], truth, 3).tolist() == [2, 0, 1]


def test_purity_at_a_completeness():
    mine = np.array([True, True, False, True, False])
    p = np.array([0.9, 0.8, 0.7, 0.6, 0.1])
    assert purity_at(mine, p, 0.66) == 1.0 and purity_at(mine, p, 0.9) == 0.75
    assert purity_at(mine, np.full(5, 0.5), 0.9) == 0.6


def test_recovered_clusters_and_siblings(rng):
    truth = np.array([0] * 10 + [1] * 10 + [-1] * 10)
    group = np.array([3] * 6 + [-1] * 4 + [0] * 4 + [1] * 6 + [1] * 7 + [2] * 3)
    assert recovered(group, truth) == 1  # the second's purity is 6 of 13
    assert recovered(np.full(30, -1), truth) == 0
    covariance = np.broadcast_to(0.01**2 * np.array([[1.0, 0.9], [0.9, 1.0]]), (3000, 2, 2)).copy()
    noise = rng.multivariate_normal(np.zeros(2), covariance[0], 3000)
    stars = Stars(("fe_h", "mg_fe"), noise, covariance)
    np.testing.assert_allclose(np.cov(whitened(stars).T), np.eye(2), atol=0.12)
    # Field stars that scatter like siblings are as alike as these: half of all pairs.
    assert abs(alike(stars, np.where(np.arange(3000) < 1500, 0, -1)) - 0.5) < 0.05
