"""The ratio of two densities of labels, from posteriors of a known Gaussian model."""

import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.surveys.label_shift import effective_number, fit_label_shift, tempered

SIGMA = 0.5  # of what a spectrum says of one label


def mixture(rng, n, share):
    """Stars of two kinds at -1 and +1 with scatter 0.4; `share` of them at +1."""
    kind = rng.uniform(size=n) < share
    return np.where(kind, 1.0, -1.0)[:, None] + 0.4 * rng.normal(size=(n, 1))


def posterior(rng, source, data, n):
    """Draws of each star's posterior under the source's density: of its stars, by their likelihood."""
    weight = np.exp(-0.5 * ((source[None, :, 0] - data[:, None]) / SIGMA) ** 2)
    weight /= weight.sum(axis=1, keepdims=True)
    cumulative = np.cumsum(weight, axis=1)
    u = rng.uniform(size=(len(data), n, 1))
    return source[np.minimum((u > cumulative[:, None]).sum(axis=-1), len(source) - 1)].swapaxes(0, 1)


@pytest.fixture(scope="module")
def surveys():
    rng = np.random.default_rng(3)
    source, target = mixture(rng, 1500, 0.8), mixture(rng, 1500, 0.2)
    draws = posterior(rng, source, target[:, 0] + SIGMA * rng.normal(size=1500), 60)
    return source, target, draws


def test_the_shift_is_found_and_averages_alone_fall_short(surveys):
    """Averaged posteriors put too many stars where the source has most; expectation-maximisation does not."""
    source, target, draws = surveys
    shift = fit_label_shift(source, draws, n_cells=8)
    weight = shift.ratio(source)
    found = np.average(source[:, 0] > 0, weights=weight)
    averaged = np.mean(draws[..., 0] > 0)
    truth = np.mean(target[:, 0] > 0)
    assert abs(found - truth) < 0.03 < abs(averaged - truth)
    # And the density within: mean and scatter of the weighted source are the target's.
    mean = np.average(source[:, 0], weights=weight)
    assert abs(mean - target.mean()) < 0.06
    assert 0.4 < shift.size < 0.8
    assert effective_number(weight) < 0.8 * len(weight)


def test_no_shift_is_found_where_there_is_none(surveys):
    source, _, _ = surveys
    rng = np.random.default_rng(4)
    same = mixture(rng, 1500, 0.8)
    draws = posterior(rng, source, same[:, 0] + SIGMA * rng.normal(size=1500), 60)
    shift = fit_label_shift(source, draws, n_cells=8)
    # Cells are narrower than posteriors: samples of 1500 differ by 0.04, their deconvolution by 0.1.
    assert shift.size < 0.13
    found = np.average(source[:, 0] > 0, weights=shift.ratio(source))
    assert abs(found - np.mean(same[:, 0] > 0)) < 0.03


def test_ratios_average_to_one_over_the_source(surveys):
    source, _, draws = surveys
    assert fit_label_shift(source, draws, 8).ratio(source).mean() == pytest.approx(1.0, abs=1e-6)


def test_a_weighted_source_is_taken_for_what_it_is(surveys):
    """Draws under a reweighted source, here the target itself, show no further shift."""
    source, _, draws = surveys
    weight = fit_label_shift(source, draws, 8).ratio(source)
    rng = np.random.default_rng(5)
    drawn = source[rng.choice(len(source), len(source), p=weight / weight.sum())]
    target = mixture(rng, 1500, 0.2)[:, 0]
    again = posterior(rng, drawn, target + SIGMA * rng.normal(size=1500), 60)
    shift = fit_label_shift(source, again, 8, weight=weight)
    assert shift.size < 0.25  # 0.6 where the weights are not told
    found = np.average(source[:, 0] > 0, weights=weight * shift.ratio(source))
    assert abs(found - np.mean(target > 0)) < 0.04


def test_weights_are_bounded():
    weight = tempered(np.r_[np.ones(99), 1000.0])
    assert weight.mean() == pytest.approx(1.0) and weight.max() / weight.min() <= 10.0 * 11
    assert effective_number(np.ones(7)) == pytest.approx(7.0)
    assert effective_number(np.r_[1.0, np.zeros(6)]) == pytest.approx(1.0)


def test_other_labels_are_refused(surveys):
    source, _, draws = surveys
    with pytest.raises(InputError, match="fewer n_cells"):
        fit_label_shift(source[:20], draws)
