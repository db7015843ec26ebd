"""Metrics of answers that are right by construction, and of ones that are wrong by a known factor."""

import numpy as np
import pytest

from jaxspec.foundation.answers import Answer
from jaxspec.foundation.evaluation import answer_metrics, binned_coverage, residual_metrics
from jaxspec.foundation.table import Table

N = 20_000


def made(factor: float):
    rng = np.random.default_rng(0)
    centre, sigma, error = rng.normal(0, 3, (N, 1)), rng.uniform(0.5, 2.0, (N, 1)), 0.7
    truth = centre + sigma * rng.standard_normal((N, 1))
    observed = truth + error * rng.standard_normal((N, 1))
    values = np.concatenate([observed, sigma], 1)
    stars = Table(("logg", "g"), values, np.full(values.shape, error), np.arange(N))
    ones = np.zeros((N, 1, 1))
    answer = Answer(
        ("logg",), ones, centre[..., None], factor * sigma[..., None], np.zeros(N, int), np.arange(N)
    )
    return answer, stars


def test_right_answers_are_found_right():
    metrics = answer_metrics(*made(1.0))["logg"]
    assert metrics["coverage_68"] == pytest.approx(0.6827, abs=4 * np.sqrt(0.22 / N))
    assert metrics["coverage_95"] == pytest.approx(0.95, abs=4 * np.sqrt(0.05 / N))
    assert metrics["z"] == pytest.approx(1.0, abs=0.04) and metrics["chi2"] == pytest.approx(1.0, abs=0.04)
    assert metrics["width"] == pytest.approx(1.25 * 0.9945, abs=0.02)
    for row in binned_coverage(*made(1.0), "g")["logg"]:
        assert abs(row["coverage_68"] - 0.6827) < 4 * row["by_chance"]


def test_wrong_widths_are_found_wrong():
    narrow, wide = (answer_metrics(*made(f))["logg"] for f in (0.5, 2.0))
    assert narrow["coverage_68"] < 0.6 and narrow["z"] > 1.15
    assert wide["coverage_68"] > 0.8 and wide["chi2"] < 0.6


def test_residuals_are_robust():
    rng = np.random.default_rng(1)
    residual = rng.normal(0.3, 2.0, N)
    residual[:100] = 1e4
    metrics = residual_metrics(np.append(residual, np.nan))
    assert metrics["bias"] == pytest.approx(0.3, abs=0.1) and metrics["scatter"] == pytest.approx(
        2.0, rel=0.03
    )
    assert metrics["rmse"] > 100
