"""Laplace's evidence is exact where it must be, and the true cause has the highest."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from jaxspec.agent.bench import Bench
from jaxspec.agent.evidence import EXACT, Errors, fit, make_data, without_ends
from jaxspec.agent.hypotheses import CALCIUM_TRIPLET, ORDINARY, etalon, make


def test_evidence_of_a_linear_model_is_that_of_its_gaussian(star, truth, observed):
    """With the stellar spectrum held, everything is linear: the spectrum is then a draw of one multivariate
    normal density, whose logarithm scipy knows."""
    flux, ivar = observed()
    use = np.zeros(flux.size, bool)
    use[100:400] = True
    held = star(truth)[0]
    hypothesis = dataclasses.replace(
        make(ORDINARY, star), spectrum=lambda star, x: (held, np.zeros((x.size, held.size))), degree=3
    )
    data = make_data(flux, np.where(use, ivar, 0.0), star.instrument, Errors(0.0, 0.0, outliers=1e-12))
    mean, _ = hypothesis.prior(star.label_set)
    result = fit(star, hypothesis, data, mean)
    columns, centre = [], np.zeros(flux.size)
    arm_mean, arm_sigma = hypothesis.arm_prior()
    for where, basis in zip(
        star.instrument.slices.values(), hypothesis.continuum(star.instrument), strict=True
    ):
        block = np.zeros((len(arm_mean), flux.size))
        block[:-1, where], block[-1, where] = basis * held[where], 1.0 - held[where]
        columns.append(block * arm_sigma[:, None])
        centre += arm_mean @ block
    design = np.concatenate(columns)[:, use]
    covariance = design.T @ design + np.diag(1.0 / ivar[use])
    expected = multivariate_normal.logpdf(flux[use], centre[use], covariance)
    assert result.log_evidence == pytest.approx(expected, abs=0.01)


def test_errors_of_labels_hold(star, truth, observed):
    """Over noise draws the pulls of the labels have the width that the covariance says."""
    hypothesis = make(ORDINARY, star)
    pulls = []
    for seed in range(8):
        flux, ivar = observed(seed=seed)
        result = fit(star, hypothesis, make_data(flux, ivar, star.instrument, EXACT), truth)
        n = star.n_label
        root = np.linalg.cholesky(result.covariance[:n, :n])
        pulls.append(np.linalg.solve(root, result.theta[:n] - truth[:n]))
    # 72 numbers; the priors pull a little, so a bit below 1 is right.
    assert 0.7 < np.sqrt(np.mean(np.square(pulls))) < 1.25


def faulty(star, truth, kind):
    w, flux = star.instrument.wavelength, star(truth)[0]
    moved = np.array(truth)
    if kind == "wrong velocity":
        moved[star.n_label + 3] = 45.0
        return star(moved)[0]
    if kind == "wrong resolving power":
        moved[star.n_label + 4] = 0.5
        return star(moved)[0]
    if kind == "scattered light":
        return (flux + 0.15) / 1.15
    if kind == "emission":
        return flux + 0.4 * sum(np.exp(-0.5 * ((w - c) / 0.6) ** 2) for c in CALCIUM_TRIPLET)
    if kind == "fringes":
        where = star.instrument.slices["red"]
        flux[where] *= 1.0 + 0.04 * np.sin(2.0 * np.pi * etalon(w[where]) / 4.0 + 1.0)
        return flux
    if kind == "wrong continuum":
        for where in star.instrument.slices.values():
            x = np.linspace(-1.0, 1.0, where.stop - where.start)
            flux[where] *= 1.0 + 0.03 * np.polynomial.chebyshev.chebval(x, np.eye(21)[17])
        return flux
    if kind == "binary":
        moved[star.label_set.index("teff")], moved[star.n_label + 3] = 5700.0, 70.0
        return (flux + 0.6 * star(moved)[0]) / 1.6
    return flux


# Of each kind, what is most easily taken for it.
RIVALS = {
    ORDINARY: ["scattered light", "wrong resolving power", "fringes", "emission", "wrong continuum"],
    "wrong velocity": [ORDINARY, "binary"],
    "wrong resolving power": [ORDINARY, "scattered light"],
    "scattered light": [ORDINARY, "wrong resolving power"],
    "emission": [ORDINARY, "scattered light"],
    "fringes": [ORDINARY, "wrong continuum"],
    "wrong continuum": [ORDINARY, "fringes"],
    "binary": [ORDINARY, "wrong velocity"],
}


@pytest.mark.parametrize("kind", RIVALS)
def test_the_true_cause_has_the_highest_evidence(star, truth, observed, make_bench, kind):
    from jaxspec.agent.tools import call

    bench: Bench = make_bench(*observed(faulty(star, truth, kind), snr=200.0))
    state, _ = call(bench, bench.start(), "compare", {"hypotheses": [kind, *RIVALS[kind]]})
    assert state.best().name == kind
    if kind == "wrong velocity":
        assert state.best().value("velocity") == pytest.approx(45.0, abs=0.5)
    if kind == "binary":
        assert state.best().value("velocity_2") - state.best().value("velocity") == pytest.approx(
            70.0, abs=2.0
        )
        assert state.best().value("teff_2") - state.best().value("teff") > 200.0
    if kind == "fringes":
        assert 1.0 / state.best().value("frequency") == pytest.approx(4.0, abs=0.05)


def test_a_cosmic_ray_is_an_outlier(star, truth, observed):
    flux, ivar = observed()
    hit = np.array(flux)
    hit[[210, 700]] += 1.5
    clean, spoiled = (
        fit(star, make(ORDINARY, star), make_data(f, ivar, star.instrument, EXACT), truth)
        for f in (flux, hit)
    )
    n = star.n_label
    moved = np.abs(spoiled.theta - clean.theta)[:n] / np.sqrt(np.diag(clean.covariance))[:n]
    assert moved.max() < 0.3


def test_errors_of_the_model_are_those_of_the_spectrum_alone(star, observed):
    """Pixels of a deep line count as one, those of the continuum each for itself."""
    flux, ivar = observed(snr=1000.0)
    data = make_data(flux, ivar, star.instrument, Errors(floor=0.0, line_error=0.2, length=0.35))
    deep = flux < 0.5
    assert deep.any()
    red = np.arange(flux.size) >= star.instrument.slices["red"].start
    assert data.weight[deep & red] == pytest.approx(1.0 / 3.5, rel=0.05)
    assert data.weight[flux > 0.999].mean() > 0.9
    assert (data.sigma[deep] > 0.08).all()


def test_ends_are_left_out_by_how_far_the_model_reaches(star, observed):
    data = make_data(*observed(), star.instrument, EXACT)
    assert without_ends(data, 70.0) is data
    cut = without_ends(data, -200.0)
    w = star.instrument.wavelength
    blue = star.instrument.arms[0]
    inside = (w > blue.low * (1 + 120 / 299792.458)) & (w < blue.high * (1 - 120 / 299792.458))
    assert (cut.good[star.instrument.slices["blue"]] == inside[star.instrument.slices["blue"]]).all()
