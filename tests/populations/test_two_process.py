"""The two-process fit gives back planted processes and amplitudes, with errors that hold."""

import numpy as np

from jaxspec.populations.mock import IRON_CORE_COLLAPSE, PROCESSES, MockConfig, simulate
from jaxspec.populations.stars import Stars
from jaxspec.populations.two_process import Processes, amplitudes, fit_processes, predict

SEVEN = ("fe_h", "mg_h", "si_h", "ca_h", "ti_h", "al_h", "ni_h")


def test_planted_processes_are_recovered():
    """Shares of core collapse of four elements without a slope, from thin and thick disc, to 0.03."""
    mock = simulate(2, MockConfig(thin=900, thick=500, bulge=100, dwarf_a=0, dwarf_b=0, clusters=0))
    processes = fit_processes(mock.stars.select(SEVEN).relative_to_iron())
    share = dict(zip(processes.elements, processes.core_collapse_share(IRON_CORE_COLLAPSE), strict=True))
    for name in ("si_h", "ca_h", "ti_h", "ni_h"):
        assert abs(share[name] - PROCESSES[name].core_collapse) < 0.03, name
    assert share["mg_h"] == 1.0 and abs(share["fe_h"] - IRON_CORE_COLLAPSE) < 1e-12


def test_amplitudes_have_errors_that_hold(rng):
    elements = ("mg_h", "fe_h", "ca_h", "ni_h")
    processes = Processes(elements, np.array([0.0, 1.0, 0.5, 0.9]), np.zeros(4))
    truth = np.stack([rng.normal(-0.1, 0.2, 2000), rng.normal(-0.3, 0.2, 2000)], axis=1)
    mean, _ = predict(processes, truth)
    noise = 0.04 * rng.standard_normal(mean.shape)
    stars = Stars.with_errors(elements, mean + noise, np.full(mean.shape, 0.04))
    found = amplitudes(stars, processes)
    z = np.einsum("na,nab,nb->n", found.values - truth, np.linalg.inv(found.covariance), found.values - truth)
    # The fit allows elements a scatter of 0.02 dex beside their errors, which is not in the data.
    assert abs(z.mean() / 2.0 - 0.04**2 / (0.04**2 + 0.02**2)) < 0.06
    ratio, error = found.ratio(0.4)
    exact = (10 ** (truth[:, 1] - truth[:, 0]) - 0.4) / 0.6
    assert 0.75 < np.std((ratio - exact) / error) < 1.05


def test_derivatives_and_the_sun(rng):
    processes = Processes(("mg_h", "fe_h", "ca_h"), np.array([0.0, 1.0, 0.4]), np.array([0.0, 0.0, 0.1]))
    np.testing.assert_allclose(predict(processes, np.zeros((1, 2)))[0], [[0.0, 0.0, 0.1]], atol=1e-12)
    x, step = rng.normal(size=(5, 2)) * 0.3, 1e-6
    for j in range(2):
        shift = step * np.eye(2)[j]
        difference = (predict(processes, x + shift)[0] - predict(processes, x - shift)[0]) / (2 * step)
        np.testing.assert_allclose(predict(processes, x)[1][..., j], difference, atol=1e-8)
