"""Measures of calibration on posteriors whose quality is known by construction."""

import numpy as np
import pytest

from jaxspec.diagnostics.bands import uniformity
from jaxspec.diagnostics.calibration import (
    LEVELS,
    calibration_error,
    coverage,
    format_summary,
    ranks,
    robust_scatter,
    summarise,
    tarp_ranks,
)


def gaussian(rng, n=2000, n_draws=200, stretch=1.0, shift=0.0, n_label=2):
    """Truth and draws of a conjugate Gaussian problem; `stretch` and `shift` spoil the draws by known
    amounts."""
    estimate = rng.normal(size=(n, n_label))
    truth = estimate + rng.normal(size=(n, n_label))
    return truth, estimate + shift + stretch * rng.normal(size=(n_draws, n, n_label))


def test_exact_posteriors_are_calibrated(rng):
    truth, draws = gaussian(rng)
    assert calibration_error(truth, draws).max() < 0.02
    assert uniformity(ranks(truth, draws), 200).min() > 1e-4
    # Each level within four binomial sigma.
    assert (np.abs(coverage(truth, draws) - LEVELS[:, None]) < 4 * np.sqrt(0.25 / 2000)).all()


@pytest.mark.parametrize("stretch", [0.6, 1.6])
def test_wrong_widths_show(rng, stretch):
    from scipy.stats import norm

    truth, draws = gaussian(rng, stretch=stretch)
    expected = 2 * norm.cdf(stretch * norm.ppf(0.5 + LEVELS / 2)) - 1
    np.testing.assert_allclose(coverage(truth, draws), np.repeat(expected[:, None], 2, 1), atol=0.05)
    assert uniformity(ranks(truth, draws), 200).max() < 1e-6


def test_bias_shows_in_the_ranks(rng):
    truth, draws = gaussian(rng, shift=0.3)
    assert ranks(truth, draws).mean() < 90
    assert uniformity(ranks(truth, draws), 200).max() < 1e-6


@pytest.mark.parametrize(
    ("correlation", "stretch", "right"), [(0.9, 1.0, True), (0.0, 1.0, False), (0.9, 0.7, False)]
)
def test_tarp_sees_what_no_label_alone_shows(rng, correlation, stretch, right):
    """Posteriors of correlated labels, drawn with and without the correlation: each label alone looks right
    in both."""
    n, n_draws = 3000, 100

    def noise(shape, r):
        z = rng.normal(size=(*shape, 2))
        return np.stack([z[..., 0], r * z[..., 0] + np.sqrt(1 - r**2) * z[..., 1]], axis=-1)

    estimate = 2.0 * rng.normal(size=(n, 2))
    truth = estimate + noise((n,), 0.9)
    draws = estimate + stretch * noise((n_draws, n), correlation)
    marginal = uniformity(ranks(truth, draws), n_draws).min()
    joint = uniformity(tarp_ranks(truth, draws)[:, None], n_draws)[0]
    assert bool(joint > 1e-3) is right
    if stretch == 1.0:
        assert marginal > 1e-3
    if not right:
        assert joint < 1e-6


def test_robust_scatter(rng):
    x = rng.normal(3.0, 2.0, (20_000, 2))
    x[:1000] = 1e6
    np.testing.assert_allclose(robust_scatter(x), 2.0, rtol=0.1)


def test_summary_by_snr(rng):
    truth, draws = gaussian(rng, n=1200, shift=0.1)
    snr = np.geomspace(5, 300, 1200)
    summary = summarise(truth, draws, snr, ("a", "b"), bound=np.full((1200, 2), 0.5), bins=(5, 40, 301, 1000))
    assert [row["snr"] for row in summary["by_snr"]] == [[5.0, 40.0], [40.0, 301.0]]
    assert summary["all"]["n"] == 1200 == sum(row["n"] for row in summary["by_snr"])
    a = summary["all"]["labels"]["a"]
    assert abs(a["bias"] - 0.1) < 0.15 and abs(a["scatter"] - 1.0) < 0.1 and abs(a["error"] - 1.0) < 0.05
    assert (
        abs(a["over_bound"] - 2.0) < 0.2
        and abs(a["pull"] - 1.0) < 0.1
        and abs(a["coverage_68"] - 0.68) < 0.06
    )
    text = format_summary(summary, ("K", "dex"))
    assert "a [K]" in text and "TARP" in text and len(text.splitlines()) == 4
    assert summary["all"]["tarp_p"] > 1e-3


def test_summary_by_posterior_median(rng):
    """Every star is in one bin of its own estimate, not of its truth; labels without bins have none."""
    truth, draws = gaussian(rng, n=400)
    truth, draws = 5250.0 + 300.0 * truth, 5250.0 + 300.0 * draws
    summary = summarise(truth, draws, np.full(400, 50.0), ("teff", "b"))
    median = np.median(draws, axis=0)[:, 0]
    assert set(summary) == {"all", "by_snr", "by_teff"}
    for row in summary["by_teff"]:
        low, high = row["teff"]
        assert row["n"] == np.sum((median >= low) & (median < high)) >= 10
    assert sum(row["n"] for row in summary["by_teff"]) > 380


def test_ties_are_broken_evenly(rng):
    """An exact posterior that is cut at a bound, where half of the draws and of the truths lie; and one whose
    draws and truths are both rounded."""
    cut = [np.maximum(rng.normal(size=shape), 0.0) for shape in ((4000, 1), (200, 4000, 1))]
    rounded = [np.round(rng.normal(size=shape), 1) for shape in ((4000, 1), (200, 4000, 1))]
    for truth, draws in (cut, rounded):
        assert uniformity(ranks(truth, draws), 200)[0] > 1e-3
        np.testing.assert_allclose(coverage(truth, draws, np.array([0.5]))[0, 0], 0.5, atol=0.035)
        np.testing.assert_array_equal(ranks(truth, draws, 3), ranks(truth, draws, 3))
        assert np.any(ranks(truth, draws, 3) != ranks(truth, draws, 4))
    # Nothing is random where nothing is tied.
    truth, draws = rng.normal(size=(50, 2)), rng.normal(size=(100, 50, 2))
    np.testing.assert_array_equal(ranks(truth, draws, 1), np.sum(draws < truth, axis=0))
