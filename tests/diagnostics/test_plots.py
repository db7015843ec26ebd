"""Pictures show the numbers they were given."""

import matplotlib
import numpy as np
import pytest

from jaxspec.diagnostics import plots
from jaxspec.labels import NINE_LABELS
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
    # One window of the blue arm, two of the red, each with residuals.
    assert len(figure.axes) == 6
    assert figure.axes[0].get_xlim() == (5340.0, 5350.0) and "not observed" in texts(figure.axes[2])
    residual = figure.axes[1].lines[0].get_ydata()
    inside = (TOY_INSTRUMENT.wavelength >= 5340.0) & (TOY_INSTRUMENT.wavelength < 5350.0)
    np.testing.assert_allclose(residual, (flux - model)[inside])
    plots.save(figure, tmp_path / "spectrum.png")
    assert (tmp_path / "spectrum.png").stat().st_size > 10_000
    assert not matplotlib.pyplot.get_fignums()


@pytest.fixture(autouse=True)
def close_figures():
    yield
    matplotlib.pyplot.close("all")
