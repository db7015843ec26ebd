"""Wrong inputs are refused by name; unidentified skies are told apart from hopeless ones."""

import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.labels import label_set
from jaxspec.surveys.model import SurveyConfig, prepare
from jaxspec.surveys.observations import Survey, diagonal, make_sky

LABELS = label_set("teff", "logg")


def survey(name="a", star=range(20), anchor=False, **change):
    star = np.asarray(star, int)
    rng = np.random.default_rng(len(name))
    values = np.array([5500.0, 4.2]) + np.array([300.0, 0.3]) * np.sin(star[:, None] * [1.0, 2.0])
    values = values + np.array([20.0, 0.03]) * rng.normal(size=values.shape)
    fields = {
        "values": values,
        "covariance": diagonal(np.tile([60.0, 0.1], (len(star), 1))),
        "flagged": np.zeros(len(star), bool),
        "anchor": anchor,
    }
    return Survey(name, star, **{**fields, **change})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"star": range(0)}, ["survey a", "no rows"]),
        ({"flagged": np.zeros(3, bool)}, ["survey a, flagged", "(3,)"]),
        ({"values": np.full((20, 2), np.inf)}, ["survey a, values of row 0", "infinite"]),
        ({"covariance": np.zeros((20, 2, 2))}, ["survey a, covariance of row 0", "variance of 0.0"]),
        ({"covariance": np.full((20, 2, 2), [[1.0, 3.0], [3.0, 1.0]])}, ["row 0", "beyond 1"]),
        ({"zero_point_error": np.array([20.0, 0.1])}, ["not an anchor"]),
        ({"zero_point_error": np.array([20.0]), "anchor": True}, ["zero_point_error", "2 finite"]),
    ],
)
def test_wrong_surveys(change, words):
    with pytest.raises(InputError) as error:
        survey(**change)
    for word in words:
        assert word in str(error.value)


def test_wrong_skies():
    with pytest.raises(InputError, match="names"):
        make_sky(LABELS, [survey(), survey()])
    with pytest.raises(InputError, match="0 to 4"):
        make_sky(LABELS, [survey()], 5)
    with pytest.raises(InputError, match="2 labels"):
        make_sky(label_set("teff", "logg", "fe_h"), [survey()])
    empty = survey(values=np.tile([5500.0, np.nan], (20, 1)))
    with pytest.raises(InputError, match="label logg: found no value"):
        make_sky(LABELS, [empty])


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
