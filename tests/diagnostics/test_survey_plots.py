"""The figures say the numbers that their data have."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from jaxspec.diagnostics import survey_plots
from jaxspec.labels import label_set

LABELS = label_set("teff", "logg", "fe_h")
N = 400


@pytest.fixture
def stars(rng):
    labels = np.column_stack([rng.normal(5500, 300, N), rng.normal(4, 0.3, N), rng.normal(0, 0.2, N)])
    yield labels, rng.normal(0, 1, (N, 3)) * [50.0, 0.1, 0.05]
    plt.close("all")


def test_residuals_state_median_and_scatter_and_leave_out_what_is_not_measured(stars):
    labels, noise = stars
    before = noise + [120.0, np.nan, 0.0]
    figure = survey_plots.plot_residuals(labels, before, noise * [1, np.nan, 1], LABELS, title="b - a")
    axes = figure.axes
    assert len(axes) == 2 * 3
    assert axes[0].get_ylabel().endswith("$T_\\mathrm{eff}$") and "Fe" in axes[3].get_ylabel()
    text = axes[2].texts[0].get_text()
    median, scatter = (float(x) for x in text.removeprefix("before ").split(",")[0].split(" ± "))
    assert median == pytest.approx(120, abs=6) and scatter == pytest.approx(50, abs=6)


def test_held_out_titles_hold_bias_scatter_and_chi_square(stars):
    labels, noise = stars
    error = np.tile([50.0, 0.1, 0.1], (N, 1))
    reported = labels + noise
    reported[:, 1] = np.nan
    figure = survey_plots.plot_held_out(labels, error, reported, LABELS, "b")
    titles = [ax.get_title() for ax in figure.axes]
    assert len(titles) == 2 and all(title.startswith("400 stars") for title in titles)
    chi2 = [float(title.rsplit(" ", 1)[1]) for title in titles]
    assert chi2[0] == pytest.approx(1.0, abs=0.2) and chi2[1] == pytest.approx(0.25, abs=0.05)


def test_offsets_scatter_and_predictive_draw_every_survey_that_measures(stars, rng):
    _, noise = stars
    grid = {"teff": np.linspace(4500, 6500, 20), "fe_h": np.linspace(-1, 0.3, 20)}
    draws = {name: rng.normal(0, 0.1, (50, 20, 3)) + [100.0, 0.1, np.nan] for name in grid}
    figure = survey_plots.plot_offsets(grid, {"a": draws, "b": draws}, LABELS)
    assert len(figure.axes) == 6
    line = figure.axes[0].lines[1]
    np.testing.assert_allclose(line.get_ydata(), 100.0, atol=0.1)
    assert len(figure.axes[4].lines) == 1  # only the zero: nobody measures the third label
    scatter = {"a": np.abs(noise), "b": np.abs(noise) * [1, 1, np.nan]}
    factor = {k: np.exp(0.01 * noise) for k in scatter}
    figure = survey_plots.plot_scatter(scatter, factor, LABELS)
    assert len(figure.axes) == 4 and len(figure.axes[0].collections) > len(figure.axes[2].collections)
    figure = survey_plots.plot_predictive({"a": noise / [50.0, 0.1, 0.05]}, LABELS)
    mean, spread = (float(x) for x in figure.axes[0].texts[1].get_text().split(" ± "))
    assert mean == pytest.approx(0, abs=0.2) and spread == pytest.approx(1, abs=0.15)
