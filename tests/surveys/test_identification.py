"""What ties the scales of the surveys together; unidentified skies are told apart from hopeless ones."""

from itertools import combinations

import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.labels import label_set
from jaxspec.surveys.identification import composition, find_overlap
from jaxspec.surveys.model import SurveyConfig, prepare
from jaxspec.surveys.observations import Survey, diagonal, make_sky
from jaxspec.surveys.scales import make_scales
from jaxspec.surveys.tied import index_ties
from tests.surveys.skies import LABELS, survey


def prepared(*surveys, **config):
    return prepare(make_sky(LABELS, surveys), SurveyConfig(components=1, **config))[0].identification


def test_one_survey_or_no_overlap_or_anchors_only():
    with pytest.raises(InputError, match="only a"):
        prepared(survey())
    with pytest.raises(InputError, match="no star measured more than once by a, b"):
        prepared(survey(), survey("b", range(20, 40)))
    with pytest.raises(InputError, match="no star measured by two of a, b"):
        prepared(survey("a", [0, 0, 1, 2]), survey("b", [3, 4, 4]))
    with pytest.raises(InputError, match="anchors only"):
        prepared(survey(anchor=True), survey("b", anchor=True))
    with pytest.raises(InputError, match="reference"):
        prepared(survey(), survey("b", anchor=True), reference="b")


def test_an_anchor_fixes_the_scale():
    found = prepared(survey(), survey("b"), survey("c", range(15, 35), anchor=True))
    assert found.anchored.all()
    assert found.messages == ()
    projection = found.convention(np.array([False, False, True]), None)
    np.testing.assert_array_equal(projection, np.tile(np.diag([1.0, 1.0, 0.0]), (2, 1, 1)))


def test_without_an_anchor_the_convention_is_stated():
    found = prepared(survey(), survey("b"))
    assert not found.anchored.any()
    assert found.messages == ("teff, logg: no anchor reaches a, b: their mean offset is zero, by convention",)
    projection = found.convention(np.zeros(2, bool), None)
    np.testing.assert_allclose(projection[0], [[0.5, -0.5], [-0.5, 0.5]])
    found = prepared(survey(), survey("b"), reference="b")
    assert "the scale is that of b" in found.messages[0]
    np.testing.assert_allclose(found.convention(np.zeros(2, bool), 1)[0], [[1.0, -1.0], [0.0, 0.0]])


def test_parts_that_nothing_connects():
    found = prepared(
        survey("a"), survey("b", anchor=True), survey("c", range(50, 70)), survey("d", range(50, 70))
    )
    assert found.anchored[0].tolist() == [True, True, False, False]
    assert found.messages == ("teff, logg: no anchor reaches c, d: their mean offset is zero, by convention",)
    alone = prepared(survey("a"), survey("b", anchor=True), survey("c", range(50, 70)))
    assert "c shares no star with another survey" in alone.messages[0]


def test_labels_connect_one_by_one():
    gravity = survey("b", anchor=True)
    gravity.values[:, 0] = np.nan
    found = prepared(survey("a"), gravity)
    assert found.anchored.tolist() == [[False, True], [True, True]] or found.anchored[1].all()
    assert any(message.startswith("teff: a shares no star") for message in found.messages)
    assert "teff: not measured by b: no offset" in found.messages


def test_few_common_stars_are_said():
    found = prepared(survey("a", range(20)), survey("b", range(17, 40), anchor=True))
    assert any("tied by only 3 common stars" in message for message in found.messages)


def test_a_group_connects_surveys_without_a_common_star():
    labels = label_set("teff", "fe_h")
    rng = np.random.default_rng(0)
    members = [
        Survey(
            name,
            star,
            np.column_stack([rng.normal(5500, 300, 10), rng.normal(0.1, 0.03, 10)]),
            diagonal(np.tile([50.0, 0.03], (10, 1))),
            np.zeros(10, bool),
        )
        for name, star in (("a", np.arange(10)), ("b", np.arange(10, 20)))
    ]
    sky = make_sky(labels, members, group=np.zeros(20, int))
    found = prepare(sky, SurveyConfig(components=1))[0].identification
    assert found.component[1].tolist() == [0, 0]
    assert found.component[0].tolist() == [0, 1]


def test_common_stars_are_counted_label_by_label(rng):
    """Against sets of stars; a repeated visit counts once."""
    surveys = []
    for name in ("a", "bb", "ccc"):
        star = rng.choice(40, 25, replace=False)
        one = survey(name, np.append(star, star[:3]))
        one.values[rng.random(one.values.shape) < 0.3] = np.nan
        surveys.append(one)
    sky = make_sky(LABELS, surveys, 40)
    overlap = find_overlap(sky, make_scales(sky, ()), index_ties(sky))
    for label in range(2):
        seen = [set(s.star[~np.isnan(s.values[:, label])]) for s in surveys]
        for i, j in combinations(range(3), 2):
            assert overlap.shared[label, i, j] == overlap.shared[label, j, i] == len(seen[i] & seen[j])
    np.testing.assert_array_equal(overlap.linked, overlap.shared > 0)


def test_conventions_are_projections_that_change_no_difference():
    """Taking the convention twice is taking it once; within a set without an anchor, differences stay."""
    found = prepared(
        survey("a"), survey("b", anchor=True), survey("c", range(50, 70)), survey("d", range(50, 70))
    )
    anchor = np.array([False, True, False, False])
    offset = np.array([3.0, 7.0, 2.0, -5.0])
    for reference in (None, 2):
        for projection in found.convention(anchor, reference):
            np.testing.assert_allclose(projection @ projection, projection, atol=1e-15)
            free = projection @ offset
            assert free[0] == 3.0 and free[1] == 0.0 and free[2] - free[3] == 7.0
            assert free[2] == (0.0 if reference == 2 else 3.5)


def test_groups_share_abundances_only():
    assert composition(make_sky(label_set("teff", "fe_h", "ebv", "mg_h"), [wide()])) == (1, 3)


def wide():
    values = np.tile([5500.0, 0.0, 0.1, 0.2], (3, 1))
    error = np.tile([50.0, 0.1, 0.02, 0.1], (3, 1))
    return Survey("a", np.arange(3), values, diagonal(error), np.zeros(3, bool))
