"""Shapley values add up, see a planted difference, and are those of the definition."""

import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.populations.attribution import attribute
from jaxspec.populations.mixture import Mixture
from jaxspec.populations.mixture_model import MixtureModel
from jaxspec.populations.stars import Scale, Stars

LABELS = ("fe_h", "mg_fe", "ni_fe")


def model() -> MixtureModel:
    """Two groups that differ in magnesium alone."""
    mean = np.array([[0.0, -1.0, 0.0], [0.0, 1.0, 0.0]])
    mixture = Mixture(np.array([0.6, 0.4]), mean, np.stack([0.3 * np.eye(3)] * 2))
    return MixtureModel(LABELS, Scale(np.zeros(3), np.ones(3)), mixture, np.array([0, 1]), (mixture,) * 2)


def test_effects_add_up_and_see_the_planted_difference(rng):
    stars = Stars.with_errors(LABELS, rng.normal(size=(30, 3)), np.full((30, 3), 0.2))
    found = attribute(model(), stars)
    np.testing.assert_allclose(found.base, [0.6, 0.4])
    total = found.base + found.effect.sum(2)
    np.testing.assert_allclose(total, model().members(stars).probability, atol=1e-12)
    assert (found.importance[:, 1] > 0.1).all() and (found.importance[:, [0, 2]] < 1e-12).all()


def test_correlated_labels_share_their_effect():
    """Of two labels that say the same, each has half of the effect."""
    mean = np.array([[-1.0, -1.0, 0.0], [1.0, 1.0, 0.0]])
    mixture = Mixture(np.array([0.5, 0.5]), mean, np.stack([0.5 * np.eye(3)] * 2))
    twins = MixtureModel(LABELS, Scale(np.zeros(3), np.ones(3)), mixture, np.array([0, 1]), (mixture,))
    effect = attribute(twins, Stars.with_errors(LABELS, np.ones((1, 3)), np.full((1, 3), 0.1))).effect[0, 1]
    np.testing.assert_allclose(effect[0], effect[1])
    alone = twins.probabilities(np.array([[1.0, np.nan, np.nan]]), np.zeros((1, 3, 3)) + 0.01 * np.eye(3))
    both = twins.probabilities(np.array([[1.0, 1.0, np.nan]]), np.zeros((1, 3, 3)) + 0.01 * np.eye(3))
    np.testing.assert_allclose(effect[0], 0.5 * (alone[0, 1] - 0.5 + both[0, 1] - alone[0, 1]))


def test_other_models_are_refused():
    with pytest.raises(InputError, match="a mixture"):
        attribute("something", Stars.with_errors(LABELS, np.ones((1, 3)), np.ones((1, 3))))
