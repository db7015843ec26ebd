"""Model coordinates: there and back, and what their origin and steps are made of."""

import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.labels import LABELS, LabelSet, label_set
from jaxspec.surveys.observations import Survey, diagonal, make_sky
from jaxspec.surveys.scales import check_trend_labels, make_scales, trend_names, typical_error

THREE = label_set("teff", "logg", "fe_h")


def survey(name, values, error=(50.0, 0.1, 0.05)):
    values = np.asarray(values, float)
    n = len(values)
    return Survey(name, np.arange(n), values, diagonal(np.tile(error, (n, 1))), np.zeros(n, bool))


@pytest.fixture
def sky(rng):
    labels = rng.normal([5500.0, 4.0, -0.2], [500.0, 0.6, 0.3], (401, 3))
    return make_sky(THREE, [survey("a", labels), survey("b", labels)])


def test_there_and_back(sky, rng):
    scales = make_scales(sky, ("teff", "fe_h"))
    labels = sky.surveys[0].values[:7]
    np.testing.assert_allclose(scales.to_labels(scales.to_model(labels)), labels)
    root = rng.normal(size=(7, 3, 3))
    covariance = root @ np.swapaxes(root, 1, 2)
    there = scales.covariance_to_model(covariance)
    np.testing.assert_allclose(scales.covariance_to_labels(there), covariance)
    # Covariances go as differences of labels do.
    change = np.array([120.0, -0.3, 0.05])
    moved = scales.to_model(labels[0] + change) - scales.to_model(labels[0])
    np.testing.assert_allclose(scales.covariance_to_model(np.outer(change, change)), np.outer(moved, moved))


def test_pivot_step_and_spread(sky):
    scales = make_scales(sky, ("logg", "teff"))
    assert scales.step.tolist() == [100.0, 0.2, 0.1]
    values = sky.surveys[0].values
    # Medians, to whole steps.
    np.testing.assert_allclose(scales.pivot, np.round(np.median(values, axis=0) / scales.step) * scales.step)
    assert scales.inputs == (1, 0) and scales.natural.tolist() == [1.0, 1000.0]
    half = 0.5 * np.subtract(*np.quantile(values, [0.84, 0.16], axis=0))
    np.testing.assert_allclose(scales.spread, half[[1, 0]], rtol=0.02)
    # One spread above the pivot is one.
    up = scales.to_model(scales.pivot + np.array([scales.spread[1], 2.0 * scales.spread[0], 9.0]))
    np.testing.assert_allclose(scales.input_matrix @ up, [2.0, 1.0])
    assert trend_names(THREE, scales) == ("zero_point", "logg", "teff")


def test_steps_of_other_labels_follow_from_their_units():
    labels = label_set("mg_h", "ebv", "log_luminosity")
    strange = LabelSet((*labels, type(LABELS["teff"])("age", "Gyr", 0.0, 20.0, "t", "time.age", "age")))
    values = np.array([[0.0, 0.1, 1.0, 5.0]] * 3)
    sky = make_sky(strange, [survey("a", values, (0.1,) * 4)])
    assert make_scales(sky, ()).step.tolist() == [0.1, 0.05, 0.1, 0.5]


def test_surveys_count_alike_whatever_their_size(rng):
    """A thousand dwarfs and ten giants: the median lies between them, not among the dwarfs."""
    dwarfs = rng.normal([5500.0, 4.5, 0.0], [100.0, 0.01, 0.1], (1000, 3))
    giants = rng.normal([4500.0, 1.5, 0.0], [100.0, 0.01, 0.1], (10, 3))
    scales = make_scales(make_sky(THREE, [survey("a", dwarfs), survey("b", giants)]), ("logg",))
    np.testing.assert_allclose(scales.spread, 1.5, rtol=0.03)
    giants[:, 1] = np.nan
    only = make_scales(make_sky(THREE, [survey("a", dwarfs), survey("b", giants)]), ("logg",))
    np.testing.assert_allclose(only.pivot[1], 4.4, atol=1e-9)  # in steps of 0.2, from zero
    np.testing.assert_allclose(only.spread, 0.2)  # at least a step


def test_a_pivot_may_be_given_for_known_labels(sky):
    assert make_scales(sky, (), {"teff": 5772.0}).pivot[0] == 5772.0
    with pytest.raises(InputError, match="label name"):
        make_scales(sky, (), {"age": 1.0})
    with pytest.raises(InputError, match="trend_labels"):
        check_trend_labels(("teff", "teff"))
    assert make_scales(sky, ("teff", "mg_h")).inputs == (0,)  # a label that the sky lacks is left out


def test_typical_errors_are_medians_of_the_values_that_are_there():
    values = np.array([[5000.0, 4.0, np.nan]] * 4 + [[5000.0, np.nan, np.nan]])
    a = survey("a", values)
    a.covariance[:, 0, 0] = [100.0**2, 100.0**2, 300.0**2, 900.0**2, 100.0**2]
    a.covariance[:4, 1, 1] = [0.2**2, 0.2**2, 0.4**2, 0.4**2]
    b = survey("b", np.array([[5000.0, 4.0, 0.0]] * 2))
    sky = make_sky(THREE, [a, b], 5)
    found = typical_error(sky, make_scales(sky, ()))
    np.testing.assert_allclose(found[0], [1.0, 2.5, np.nan])
    np.testing.assert_allclose(found[1], [0.25, 0.25, 0.25])
