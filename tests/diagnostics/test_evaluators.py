"""Every evaluator passes what is right and fails what is wrong in the way that it looks at."""

import dataclasses

import numpy as np
import pytest

from jaxspec.diagnostics.calibration import calibration_error, chance_calibration_error, coverage
from jaxspec.diagnostics.evaluators import (
    EVALUATORS,
    coverage_by_bins,
    interval_coverage,
    joint_coverage,
    local_calibration,
    rank_uniformity,
    sharpness,
)
from jaxspec.diagnostics.results import KnownStars
from jaxspec.errors import InputError
from jaxspec.labels import label_set

LABELS = label_set("teff", "logg", "fe_h")
PRIOR, ERROR = np.array([600.0, 0.5, 0.4]), np.array([150.0, 0.15, 0.1])
CENTRE = np.array([5500.0, 3.8, -0.4])


def gaussian(rng, n=600, n_draws=200, stretch=1.0, correlation=0.5, name="stars"):
    """Truths of a Gaussian prior, an estimate of each with correlated noise, and draws of the exact posterior
    or of one with another width or correlation."""
    root = np.linalg.cholesky(0.5 * np.eye(3) + 0.5)
    truth = CENTRE + PRIOR * rng.normal(size=(n, 3))
    data = truth + ERROR * (rng.normal(size=(n, 3)) @ root.T)
    noise, prior = np.outer(ERROR, ERROR) * (root @ root.T), np.diag(PRIOR**2)
    gain = prior @ np.linalg.inv(prior + noise)
    covariance = (np.eye(3) - gain) @ prior
    mean = CENTRE + (data - CENTRE) @ gain.T
    sigma = np.sqrt(np.diag(covariance))
    if correlation != 0.5:
        covariance = np.diag(sigma**2)
    spread = stretch * rng.normal(size=(n_draws, n, 3)) @ np.linalg.cholesky(covariance).T
    snr = 10 ** rng.uniform(0.8, 2.4, n)
    bound = np.tile(sigma, (n, 1))
    return KnownStars(name, LABELS, truth, mean + spread, snr, bound, bound)


@pytest.fixture(scope="module")
def exact():
    return gaussian(np.random.default_rng(1))


@pytest.fixture(scope="module")
def narrow():
    return gaussian(np.random.default_rng(2), stretch=0.6)


def test_exact_posteriors_pass_everything(exact):
    results = [evaluate(exact) for evaluate in EVALUATORS]
    assert len({result.name for result in results}) == len(EVALUATORS)
    assert [r.passed for r in results if r.passed is not None] == [True] * 5
    for result in results:
        assert result.verdict and result.pictures and all(p.caption for p in result.pictures)
        assert all(p.png.startswith(b"\x89PNG") for p in result.pictures)


@pytest.mark.parametrize(
    "evaluate", [rank_uniformity, interval_coverage, joint_coverage, local_calibration, coverage_by_bins]
)
def test_errors_that_are_too_small_fail(narrow, evaluate):
    result = evaluate(narrow)
    assert result.passed is False and f"{result.values['limit']:.1g}"[:1] in result.verdict
    if "failed" in result.values and evaluate is not coverage_by_bins:
        assert result.values["failed"] == list(LABELS.names)
        assert result.tables[0].flagged == {(0, 1), (0, 2), (0, 3)}


def test_wrong_correlation_fails_only_where_labels_are_seen_together():
    stars = gaussian(np.random.default_rng(3), n=1000, correlation=0.0)
    assert rank_uniformity(stars).passed and interval_coverage(stars).passed
    assert local_calibration(stars).passed is False


def test_a_fault_of_some_stars_is_found_in_their_bins(exact):
    """Errors of [Fe/H] too small by a third among cool stars, by the estimate: only their bins say so."""
    draws, centre = exact.draws.copy(), exact.draws.mean(axis=0)
    cool = np.median(exact.draws, axis=0)[:, 0] < 5000
    draws[:, cool, 2] = centre[cool, 2] + 0.3 * (draws[:, cool, 2] - centre[cool, 2])
    result = coverage_by_bins(dataclasses.replace(exact, draws=draws))
    assert {label for _, label in result.values["failed"]} == {"fe_h"}
    table = next(table for table in result.tables if table.header[0] == "Teff")
    marked = [table.rows[i][0] for i, _ in sorted(table.flagged)]
    assert marked[-1] == "p of all bins" and set(marked[:-1]) == {"3000 to 4500", "4500 to 5000"}


def test_a_fault_too_small_for_any_bin_is_seen_in_all_of_them():
    """Errors a fifth too large in 640 stars."""
    result = coverage_by_bins(gaussian(np.random.default_rng(5), n=640, stretch=1.25))
    assert result.passed is False


def test_bins_of_the_truth_would_condemn_an_exact_posterior():
    """Why bins are of posterior medians: of stars chosen by their truth, far from the prior's middle, the
    exact posterior covers less."""
    rng = np.random.default_rng(4)
    truth = rng.normal(size=(4000, 1))
    median = 0.5 * (truth + rng.normal(size=truth.shape))
    draws = median + np.sqrt(0.5) * rng.normal(size=(99, 4000, 1))

    def covered(rows):
        return coverage(truth[rows], draws[:, rows], np.array([0.68]))[0, 0]

    # Offset 0.75 or more in errors of 0.71 with a scatter of 0.5, and of the medians 0 in 0.71.
    assert covered(truth[:, 0] > 1.5) < 0.55
    assert abs(covered(median[:, 0] > 0.75) - 0.68) < 4 * np.sqrt(0.22 / 550)


def test_chance_calibration_error_is_what_uniform_ranks_reach(rng):
    n, n_draws = 200, 50
    limit = chance_calibration_error(n, n_draws, 0.9)
    rank = rng.integers(0, n_draws + 1, (n, 2000)).astype(float)
    draws = np.tile(np.arange(n_draws)[:, None, None] + 0.5, (1, n, 2000))
    found = calibration_error(rank, draws)
    assert abs(np.mean(found > limit) - 0.1) < 4 * np.sqrt(0.09 / 2000) + 0.01


def test_sharpness_is_in_units_of_the_bound(exact):
    values = sharpness(exact).values
    for name in LABELS.names:
        assert values["with_prior"][name] == pytest.approx(1.0, abs=0.12)
        assert values["stated_over_with_prior"][name] == pytest.approx(1.0, abs=0.04)
    # Stars whose spectrum tells nothing of a label are left out; doubling the bound halves.
    bound = 2.0 * exact.bound
    bound[::2, 1] = np.inf
    other = sharpness(dataclasses.replace(exact, bound=bound)).values
    assert other["cramer_rao"]["teff"] == pytest.approx(0.5 * values["cramer_rao"]["teff"])
    assert other["stated_over_cramer_rao"]["logg"] == pytest.approx(0.5, abs=0.03)


def test_what_cannot_be_said_is_said(exact):
    few = dataclasses.replace(
        exact, truth=exact.truth[:9], draws=exact.draws[:, :9], snr=exact.snr[:9], bound=None
    )
    for evaluate in (local_calibration, coverage_by_bins, sharpness):
        result = evaluate(few)
        assert result.passed is None and not result.pictures and len(result.verdict) > 10
    with pytest.raises(InputError, match="S/N of 600 stars"):
        dataclasses.replace(exact, label_set=LABELS.select(["teff"]))
