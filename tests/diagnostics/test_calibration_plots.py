"""Pictures of calibration show the numbers and the bands that they were given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from jaxspec.diagnostics import calibration_plots as plots
from jaxspec.diagnostics.calibration import summarise
from jaxspec.diagnostics.classifier import LocalTest
from jaxspec.labels import label_set

LABELS = label_set("teff", "logg", "fe_h")


@pytest.fixture
def stars(rng):
    """Exact posteriors but for the last label, whose errors are half as large as they should be."""
    centre, error = np.array([5500.0, 3.8, -0.4]), np.array([80.0, 0.1, 0.05])
    estimate = centre + 5 * error * rng.normal(size=(400, 3))
    draws = estimate + error * [1, 1, 0.5] * rng.normal(size=(100, 400, 3))
    yield estimate + error * rng.normal(size=(400, 3)), draws
    plt.close("all")


def red(ax):
    return sum(len(line.get_xdata()) for line in ax.lines if line.get_color() == plots.RED)


def test_ranks_are_red_where_they_leave_the_band(stars):
    figure = plots.plot_sbc(*stars, LABELS)
    assert [red(ax) > 0 for ax in figure.axes] == [False, False, True]
    difference = figure.axes[2].lines[1].get_ydata()
    # Too narrow: more low ranks and more high ranks than there should be; both ends are exact.
    assert difference[0] == difference[-1] == 0.0 and difference[10] > 0.05 and difference[-10] < -0.05
    limits = figure.axes[0].get_ylim()
    assert limits[0] == -limits[1]


def test_joint_ranks(rng):
    figure = plots.plot_tarp(rng.integers(0, 101, 300), 100)
    assert red(figure.axes[0]) == 0
    assert red(plots.plot_tarp(rng.integers(0, 80, 300), 100).axes[0]) > 0


def test_coverage_is_monotonic_and_its_band_holds_the_diagonal(stars):
    figure = plots.plot_coverage(*stars, LABELS)
    lines = figure.axes[0].lines[1:]
    for line, right in zip(lines, (True, True, False), strict=True):
        x, y = line.get_data()
        assert (np.diff(y) >= 0).all() and bool(np.abs(y - x).max() < 0.08) is right
    band = figure.axes[1].collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() < -0.03 and band.max() > 0.03


def test_bins_show_every_label_in_every_bin(stars, rng):
    summary = summarise(*stars, np.full(400, 30.0), LABELS.names)
    figure = plots.plot_bins(summary, LABELS)
    panel = next(ax for ax in figure.axes if "T_" in ax.get_xlabel())
    shown = np.array([line.get_ydata() for line in panel.lines[1:]])
    found = [[row["labels"][n]["coverage_68"] for row in summary["by_teff"]] for n in LABELS.names]
    np.testing.assert_array_equal(shown, found)
    assert panel.get_xticklabels()[0].get_text().endswith(f"\n{summary['by_teff'][0]['n']}")


def test_sharpness_and_local_test(rng):
    values = {name: x for name, x in zip(LABELS.names, (1.0, 1.2, 2.0), strict=True)}
    figure = plots.plot_sharpness({"scatter": values}, LABELS)
    np.testing.assert_array_equal(figure.axes[0].lines[1].get_ydata(), [1.0, 1.2, 2.0])
    p = np.array([0.01] * 10 + [0.5] * 30)
    found = LocalTest(np.full(40, 0.04), np.full((19, 40), 0.01), p, 0.05)
    figure = plots.plot_local(found, rng.normal([5000, 3, 0], [100, 0.5, 0.1], (40, 3)), LABELS)
    left, right = figure.axes
    assert left.lines[0].get_xdata()[0] == pytest.approx(0.2)
    assert [len(c.get_offsets()) for c in right.collections] == [30, 10]
    # Hot and bright stars are at the upper left, as everywhere in the field.
    assert np.diff(right.get_xlim())[0] < 0 and np.diff(right.get_ylim())[0] < 0
    plt.close("all")
