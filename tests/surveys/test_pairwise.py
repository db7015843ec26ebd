"""The usual polynomials, against offsets that they can describe exactly."""

import numpy as np
import pytest

from jaxspec.labels import label_set
from jaxspec.surveys.observations import Survey, diagonal, make_sky
from jaxspec.surveys.pairwise import pairwise_labels

THREE = label_set("teff", "logg", "fe_h")


def chain(rng, shift):
    """Three surveys of which the first, the anchor, shares stars with the second and that with the third."""
    labels = np.array([5300.0, 3.5, -0.3]) + np.array([500.0, 0.8, 0.3]) * rng.normal(size=(300, 3))
    surveys = []
    for s, seen in enumerate((slice(0, 120), slice(60, 240), slice(180, 300))):
        star = np.arange(300)[seen]
        values = labels[star] + (shift(labels[star]) if s else 0.0) * s
        errors = np.tile([10.0, 0.02, 0.01], (len(star), 1))
        surveys.append(
            Survey(f"s{s}", star, values, diagonal(errors), np.zeros(len(star), bool), anchor=s == 0)
        )
    return make_sky(THREE, surveys, 300), labels


@pytest.mark.parametrize("degree", [1, 2])
def test_linear_offsets_are_taken_off_through_a_chain_of_surveys(rng, degree):
    def shift(x):
        return np.column_stack([80.0 + 0.02 * (x[:, 0] - 5300.0), 0.1 * x[:, 1], 0.05 + 0.1 * x[:, 2]])

    sky, labels = chain(rng, shift)
    for survey, values in zip(sky.surveys, pairwise_labels(sky, degree), strict=True):
        np.testing.assert_allclose(values, labels[survey.star], rtol=0, atol=1e-6)


def test_a_few_wild_values_do_no_harm(rng):
    sky, labels = chain(rng, lambda x: np.full((len(x), 3), [50.0, 0.1, 0.1]))
    sky.surveys[1].values[:3] += [400.0, 0.6, 0.4]  # of the stars in common with the anchor
    found = pairwise_labels(sky)[1][3:]
    rms = np.sqrt(np.mean((found - labels[sky.surveys[1].star[3:]]) ** 2, axis=0))
    assert (rms < [1.0, 0.01, 0.01]).all()
