"""A simulated sky holds what its truth says was planted."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from jaxspec.errors import InputError
from jaxspec.labels import NINE_LABELS, label_set
from jaxspec.surveys.simulate import PIVOT, SPREAD, SimulationConfig, draw_stars, simulate_sky

CLEAN = SimulationConfig(n_stars=3000, outliers=0.0, missing=0.0, scatter=0.0)


@pytest.fixture(scope="module")
def clean():
    return simulate_sky(1, CLEAN)


def test_the_seed_decides():
    config = SimulationConfig(n_stars=200, repeats=0.2, n_groups=1)
    (sky, truth), (again, same), (other, _) = (simulate_sky(seed, config) for seed in (3, 3, 4))
    np.testing.assert_array_equal(truth.labels, same.labels)
    for a, b in zip(sky.surveys, again.surveys, strict=True):
        np.testing.assert_array_equal(a.values, b.values)
    assert not np.array_equal(sky.surveys[0].star, other.surveys[0].star)


def test_values_are_labels_offset_and_noise_of_the_stated_size(clean):
    """Standardised by the quoted errors times their planted factor they are normal."""
    sky, truth = clean
    for s, survey in enumerate(sky.surveys[:-1]):
        labels = truth.labels[survey.star]
        error = np.sqrt(np.diagonal(survey.covariance, axis1=1, axis2=2)) * truth.inflation[s]
        z = (survey.values - labels - truth.offset(s, labels)) / error
        assert stats.kstest(z.ravel(), "norm").pvalue > 1e-4
        assert survey.errors_only and not truth.outlier[s].any()
    anchor = sky.surveys[-1]
    assert anchor.anchor and len(anchor) == round(CLEAN.anchors * CLEAN.n_stars)
    error = np.sqrt(np.diagonal(anchor.covariance, axis1=1, axis2=2))
    z = (anchor.values - truth.labels[anchor.star]) / error
    assert stats.kstest(z.ravel(), "norm").pvalue > 1e-4


def test_offsets_are_zero_points_and_trends():
    truth = simulate_sky(2, SimulationConfig(n_stars=100))[1]
    star = np.zeros((2, 9))
    star[:, :3] = PIVOT
    star[1, 1] += SPREAD[1]
    found = truth.offset(1, star)
    np.testing.assert_allclose(found[0], truth.zero_point[1])
    np.testing.assert_allclose(found[1] - found[0], truth.trend[1, :, 1])


def test_as_many_stars_are_shared_as_asked(clean):
    """Besides the anchor's; four standard deviations of a count."""
    sky, _ = clean
    counts = sum(np.bincount(s.star, minlength=3000) for s in sky.surveys[:-1])
    known = np.zeros(3000, bool)
    known[sky.surveys[-1].star] = True
    share = np.mean(counts[~known] > 1)
    assert abs(share - CLEAN.overlap) < 4 * np.sqrt(0.1 * 0.9 / 3000) and counts.min() >= 1


def test_visits_share_the_scatter_and_not_the_noise():
    config = dataclasses.replace(CLEAN, scatter=5.0, correlated=0.0, repeats=0.5, n_surveys=1, anchors=0.05)
    sky, truth = simulate_sky(5, config)
    survey = sky.surveys[0]
    n = len(np.unique(survey.star))
    order = np.argsort(survey.star, kind="stable")
    pairs = np.flatnonzero(np.diff(survey.star[order]) == 0)
    first, second = order[pairs], order[pairs + 1]
    variance = np.diagonal(survey.covariance, axis1=1, axis2=2) * truth.inflation[0] ** 2
    z = (survey.values[first] - survey.values[second]) / np.sqrt(variance[first] + variance[second])
    assert stats.kstest(z.ravel(), "norm").pvalue > 1e-4
    assert abs(len(pairs) / n - 0.5) < 4 * np.sqrt(0.25 / n)
    # One visit scatters about the truth by far more, as the planted covariance says.
    labels = truth.labels[survey.star[first]]
    residual = survey.values[first] - labels - truth.offset(0, labels)
    ratio = (residual.var(axis=0) - variance[first].mean(axis=0)) / np.diag(truth.scatter[0])
    np.testing.assert_allclose(ratio, 1.0, atol=5 * np.sqrt(2 / len(pairs)))


def test_outliers_are_told_and_half_of_them_flagged():
    sky, truth = simulate_sky(6, dataclasses.replace(CLEAN, outliers=0.2))
    for s, survey in enumerate(sky.surveys[:-1]):
        labels, wild = truth.labels[survey.star], truth.outlier[s]
        error = np.sqrt(np.diagonal(survey.covariance, axis1=1, axis2=2)) * truth.inflation[s]
        chi2 = np.mean(((survey.values - labels - truth.offset(s, labels)) / error) ** 2, axis=1)
        assert np.median(chi2[wild]) > 5.0 * np.median(chi2[~wild])
        n = len(wild)
        assert abs(wild.mean() - 0.2) < 4 * np.sqrt(0.16 / n)
        assert abs(survey.flagged[wild].mean() - 0.5) < 4 * np.sqrt(0.25 / wild.sum())
        assert abs(survey.flagged[~wild].mean() - 0.2) < 4 * np.sqrt(0.16 / (~wild).sum())


def test_metal_poor_stars_lack_abundances():
    sky, truth = simulate_sky(7, dataclasses.replace(CLEAN, missing=0.1))
    survey = sky.surveys[0]
    fe_h = truth.labels[survey.star, 2]
    assert not np.isnan(survey.values[:, :3]).any()
    expected = np.clip(0.1 * np.exp(-1.5 * (fe_h + 0.5)), 0.0, 0.9)
    lost = np.isnan(survey.values[:, 3:]).mean(axis=1)
    for part in (fe_h < np.median(fe_h), fe_h >= np.median(fe_h)):
        scatter = 4 * np.sqrt(0.25 / (6 * part.sum()))
        assert abs(lost[part].mean() - expected[part].mean()) < scatter


def test_clusters_have_one_composition():
    sky, truth = simulate_sky(8, dataclasses.replace(CLEAN, n_groups=3))
    assert np.bincount(sky.group + 1).tolist() == [3000 - 30, 10, 10, 10]
    field = truth.labels[sky.group < 0, 2:].std(axis=0)
    for g in range(3):
        assert (truth.labels[sky.group == g, 2:].std(axis=0) < 0.2 * field).all()


def test_labels_may_be_fewer_and_are_the_same_sky():
    few = label_set("teff", "logg", "fe_h", "mg_h")
    (sky, truth), (whole, everything) = simulate_sky(9, CLEAN, few), simulate_sky(9, CLEAN)
    columns = [0, 1, 2, 4]
    np.testing.assert_array_equal(truth.labels, everything.labels[:, columns])
    np.testing.assert_array_equal(sky.surveys[0].values, whole.surveys[0].values[:, columns])
    for wrong in (label_set("logg", "teff", "mg_h"), label_set("teff", "logg", "fe_h", "ebv")):
        with pytest.raises(InputError):
            simulate_sky(9, CLEAN, wrong)


def test_stars_lie_where_networks_are_trained(rng):
    stars = draw_stars(rng, 2000)
    NINE_LABELS.validate(stars)
    # Giants are cool, and alpha elements are enhanced in metal-poor stars.
    assert stars[stars[:, 1] < 2.5, 0].max() < 5600.0
    poor, rich = stars[:, 2] < -0.6, stars[:, 2] > 0.0
    assert (stars[poor, 4] - stars[poor, 2]).mean() > 0.15 + (stars[rich, 4] - stars[rich, 2]).mean()
