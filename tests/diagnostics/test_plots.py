"""Pictures show the numbers they were given."""

import matplotlib
import numpy as np
import pytest

from jaxspec.diagnostics import plots
from jaxspec.labels import NINE_LABELS
from jaxspec.posterior.flags import Flag, names
from tests.toy import TOY_INSTRUMENT

LABELS = NINE_LABELS.select(["teff", "logg", "fe_h"])


@pytest.fixture
def recovered(rng):
    truth = rng.normal([5500.0, 4.0, -0.3], [500.0, 0.3, 0.3], (200, 3))
    error = np.array([50.0, 0.1, 0.05])
    estimate = truth + error * rng.normal(size=truth.shape)
    return truth, estimate + error * rng.normal(size=(100, *truth.shape))


def texts(axes):
    return " ".join(t.get_text() for t in axes.texts)


def test_recovery(recovered):
    truth, draws = recovered
    figure = plots.plot_recovery(truth, draws, LABELS, np.geomspace(5, 300, 200))
    axes = figure.axes[0]
    points = axes.collections[-1].get_offsets()
    np.testing.assert_allclose(points[:, 0], truth[:, 0])
    np.testing.assert_allclose(points[:, 1], np.median(draws, 0)[:, 0] - truth[:, 0])
    assert "K" in texts(axes) and r"T_\mathrm{eff}" in axes.get_xlabel()


def test_corner(recovered):
    figure = plots.plot_corner(recovered[1][:, 0], LABELS, np.array([5500.0, np.nan, -0.3]), title="a star")
    assert len([a for a in figure.axes if a.get_visible()]) >= 6
    assert "a star" in " ".join(t.get_text() for t in figure.texts)


def test_spectrum(rng, tmp_path):
    n = TOY_INSTRUMENT.n_pixels
    model = 1.0 - 0.3 * np.exp(-0.5 * ((np.arange(n) - 300) / 5.0) ** 2)
    flux, ivar = model + 0.01 * rng.normal(size=n), np.full(n, 1e4)
    ivar[TOY_INSTRUMENT.slices["red"]] = 0.0
    figure = plots.plot_spectrum(
        flux, ivar, TOY_INSTRUMENT, model, (model - 0.01, model + 0.01), "star", {"blue": [(5340.0, 5350.0)]}
    )
    # One window of the blue arm with its residuals; the red one was not observed.
    assert len(figure.axes) == 2 and figure.axes[0].get_xlim() == (5340.0, 5350.0)
    assert "not observed: red" in texts(figure)
    residual = figure.axes[1].lines[0].get_ydata()
    inside = (TOY_INSTRUMENT.wavelength >= 5340.0) & (TOY_INSTRUMENT.wavelength < 5350.0)
    np.testing.assert_allclose(residual, (flux - model)[inside])
    plots.save(figure, tmp_path / "spectrum.png")
    assert (tmp_path / "spectrum.png").stat().st_size > 10_000
    assert not matplotlib.pyplot.get_fignums()


def test_a_long_title_stays_clear_of_the_legend():
    """All flags at once, and a name of a hundred letters: nothing overlaps or leaves the figure."""
    n = TOY_INSTRUMENT.n_pixels
    title = "x" * 90 + "   S/N 10   chi2 12.34   " + names(sum(Flag))
    flux = np.ones(n)
    figure = plots.plot_spectrum(flux, np.full(n, 1e4), TOY_INSTRUMENT, flux, (flux, flux), title)
    assert len(figure.axes) == 8
    figure.canvas.draw()
    axes, (legend,) = figure.axes[0], figure.legends
    head = axes.title if axes.title.get_text() else axes._left_title
    title_box, legend_box = head.get_window_extent(), legend.get_window_extent()
    assert "BAD_ERRORS" in head.get_text() and not title_box.overlaps(legend_box)
    assert title_box.x1 < figure.bbox.x1 and title_box.y1 <= figure.bbox.y1 + 2
    assert not legend_box.overlaps(figure.axes[-1].xaxis.label.get_window_extent())
    assert not any(legend_box.overlaps(a.get_window_extent()) for a in figure.axes)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    matplotlib.pyplot.close("all")
