"""What every method promises: the right answer on planted groups, or an error that names what is wrong."""

import json

import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.populations import METHODS, fit, load, save
from jaxspec.populations.groups import confusion, merge
from jaxspec.populations.hdbscan import match
from jaxspec.populations.mixture import Mixture
from jaxspec.populations.mixture_model import MixtureModel
from jaxspec.populations.scores import score
from jaxspec.populations.stars import Stars
from tests.populations.galaxy import CENTRES, LABELS, two_discs


@pytest.fixture(scope="module")
def stars():
    return two_discs(900, 3)


@pytest.fixture(scope="module")
def models(stars):
    needs = {"hdbscan": "sklearn"}
    return {
        name: fit(stars[0], name, 2)
        for name in METHODS
        if name not in needs or pytest.importorskip(needs[name])
    }


def test_planted_groups_are_found(models, stars):
    """Nearly as well as the true densities allow (Rand index 0.93 of this set)."""
    for name, model in models.items():
        members = model.members(stars[0])
        found = score(members, stars[1], ("thin", "thick"))
        least = {"mixture": 0.88, "two_process": 0.75, "hdbscan": 0.45}[name]
        assert model.n_groups == 2 and found.rand > least, (name, found.rand)
        total = members.probability.sum(1)
        assert (total < 1.0 + 1e-9).all() and (members.spread >= 0.0).all()
    mixture = models["mixture"].members(stars[0])
    assert score(mixture, stars[1], ("thin", "thick")).calibration < 0.03
    np.testing.assert_allclose(mixture.probability.sum(1), 1.0)
    np.testing.assert_allclose(models["mixture"].centres(), CENTRES, atol=0.06)


def test_other_stars_and_stored_models(models, stars, tmp_path):
    """A model that was stored and read gives other stars what the first gives; and 10^5 of them at once."""
    other, truth = two_discs(300, 4)
    for name, model in models.items():
        again = load(save(model, tmp_path / name))
        for a, b in zip(model.members(other), again.members(other), strict=True):
            np.testing.assert_array_equal(a, b)
        assert score(again.members(other), truth, ("thin", "thick")).rand > 0.4
    many = other.rows(np.arange(100_001) % 300)
    members = models["mixture"].members(many)
    np.testing.assert_allclose(members.probability[:300], models["mixture"].members(other).probability)
    assert members.probability.shape == (100_001, 2)


def test_order_does_not_matter(models, stars):
    """Permuted labels or stars, when applied and when fitted; a duplicate gets what its original has."""
    model, other = models["mixture"], stars[0].rows(slice(0, 50))
    base = model.members(other).probability
    swapped = model.members(other.select(("al_fe", "fe_h", "mg_fe"))).probability
    np.testing.assert_allclose(swapped, base, atol=1e-12)
    order = np.random.default_rng(1).permutation(len(stars[0]))
    refit = fit(stars[0].rows(order).select(("mg_fe", "al_fe", "fe_h")), "mixture", 2)
    np.testing.assert_allclose(refit.members(other).probability, base, atol=0.06)
    twice = model.members(other.rows(np.array([0, 0, 1]))).probability
    np.testing.assert_array_equal(twice[0], twice[1])


def test_missing_labels_tell_nothing(models):
    """A star without a label is judged by the rest; a star with one label more certain than errors of any
    size make it."""
    model = models["mixture"]
    full = Stars.with_errors(LABELS, CENTRES[[1]], np.full((1, 3), 0.03))
    values = CENTRES[[1]].copy()
    values[0, 2] = np.nan
    part = Stars.with_errors(LABELS, values, np.full((1, 3), 0.03))
    wide = Stars.with_errors(LABELS, CENTRES[[1]], np.array([[0.03, 0.03, 1e4]]))
    p = [float(model.members(x).probability[0, 1]) for x in (full, part, wide)]
    assert p[0] > p[1] > 0.5
    np.testing.assert_allclose(p[1], p[2], atol=1e-4)


def test_errors_of_zero_and_novel_stars(models):
    exact = Stars.with_errors(LABELS, CENTRES, np.zeros((2, 3)))
    members = models["mixture"].members(exact)
    assert members.group.tolist() == [1, 2] and (members.novelty < 0.5).all()
    strange = Stars.with_errors(LABELS, np.array([[-0.1, 0.9, -0.6]]), np.full((1, 3), 0.03))
    assert models["mixture"].members(strange).novelty[0] > 0.9999


def test_a_constant_label_changes_nothing(stars):
    """One that never varies, with errors or without, carries no information."""
    base = fit(stars[0], "mixture", 2).members(stars[0]).group
    for error in (0.05, 0.0):
        n = len(stars[0])
        covariance = np.zeros((n, 4, 4))
        covariance[:, :3, :3] = stars[0].covariance
        covariance[:, 3, 3] = error**2
        more = Stars((*LABELS, "ni_fe"), np.hstack([stars[0].values, np.full((n, 1), 0.1)]), covariance)
        group = fit(more, "mixture", 2).members(more).group
        assert (group == base).mean() > 0.97


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.rows(slice(0, 1)), "stars: found 1; expected 8 or more"),
        (lambda s: Stars.with_errors(LABELS, s.values * [1, 1, np.nan], s.errors), "label al_fe"),
        (lambda s: Stars.with_errors(LABELS, s.values, -s.errors * np.nan), "error of fe_h of star 0"),
        (lambda s: Stars.with_errors(LABELS, s.values * np.inf, s.errors), "infinite"),
        (lambda s: Stars.with_errors(LABELS, s.values * np.nan, s.errors), "without any label"),
        (lambda s: Stars.with_errors(("fe_h", "fe_h", "mg_fe"), s.values, s.errors), "different names"),
    ],
)
def test_what_cannot_be_fitted_is_named(stars, change, message):
    with pytest.raises(InputError, match=message):
        fit(change(stars[0]), "mixture")


def test_wrong_requests_are_named(models, stars, tmp_path):
    with pytest.raises(InputError, match=r"method: found 'kmeans'.*mixture"):
        fit(stars[0], "kmeans")
    with pytest.raises(InputError, match="groups: found 99"):
        fit(stars[0], "mixture", 99)
    with pytest.raises(InputError, match="no mg_fe"):
        models["mixture"].members(stars[0].select(("fe_h", "al_fe")))
    with pytest.raises(InputError, match="mg_h among them"):
        fit(stars[0].select(("fe_h", "al_fe")), "two_process")
    folder = save(models["mixture"], tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    assert config["settings"] == {"method": "mixture", "labels": list(LABELS), "groups": 2}
    config["settings"]["method"] = "magic"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="magic"):
        load(folder)


def test_components_merge_where_they_are_confused():
    """Two halves of one population are one group, a distant one is another; asked for one, all are."""
    near = Mixture(
        np.array([0.4, 0.3, 0.3]), np.array([[0.0, 0.0], [1.0, 0.0], [9.0, 0.0]]), np.stack([np.eye(2)] * 3)
    )
    assert merge(near, None).tolist() == [0, 0, 1] == merge(near, 2).tolist()
    assert merge(near, 1).tolist() == [0, 0, 0] and set(merge(near, 3)) == {0, 1, 2}
    confused = confusion(near)
    np.testing.assert_allclose(confused.sum(1), 1.0)
    assert confused[0, 1] > 0.2 and confused[0, 2] < 1e-3


def test_groups_of_draws_are_matched():
    reference = np.array([0, 0, 0, 1, 1, 1, -1])
    assert match(np.array([2, 2, 2, 0, 0, 0, 1]), reference).tolist() == [0, 0, 0, 1, 1, 1, -1]
    assert match(np.full(7, -1), reference).tolist() == [-1] * 7


def test_mixture_model_without_asking_for_groups():
    """As many groups as are hardly confused: two."""
    assert MixtureModel.fit(two_discs(900, 3)[0]).n_groups == 2
