"""What a look says of spectra whose oddities are known."""

import numpy as np
import pytest

from jaxspec.agent import looks
from jaxspec.agent.bench import templates
from jaxspec.agent.evidence import EXACT, Errors, make_data
from tests.agent.test_evidence import faulty


def test_velocities(star, truth, observed):
    one = make_data(*observed(faulty(star, truth, "wrong velocity")), star.instrument, EXACT)
    found = looks.velocity(one, templates(star))
    assert found[0] == pytest.approx(45.0, abs=1.0) and found[1] < 0.5
    two = make_data(*observed(faulty(star, truth, "binary"), snr=300.0), star.instrument, EXACT)
    peaks = looks.two_velocities(two, templates(star)[2])
    single = looks.two_velocities(one, templates(star)[2])
    assert abs(peaks.second - peaks.first) == pytest.approx(70.0, abs=6.0)
    assert peaks.gain > 3.0 * single.gain


def test_ripples_have_the_period_and_height_put_in(star, truth, observed):
    model = star(truth)[0]
    data = make_data(*observed(faulty(star, truth, "fringes")), star.instrument, EXACT)
    seen = {ripple.arm: ripple for ripple in looks.ripples(data, model)}
    assert seen["red"].period == pytest.approx(4.0, abs=0.15)
    assert seen["red"].amplitude == pytest.approx(0.04, abs=0.01)
    assert seen["red"].power > 20.0 * seen["blue"].power


def test_emission_and_structure(star, truth, observed):
    model = star(truth)[0]
    good = make_data(*observed(), star.instrument, EXACT)
    bright = make_data(*observed(faulty(star, truth, "emission")), star.instrument, EXACT)
    assert abs(looks.line_emission(good, model)) < 4.0 < looks.line_emission(bright, model)
    assert all(abs(v) < 4.0 for v in looks.structure(good, model).values())
    assert looks.structure(bright, model)["red"] > 10.0
    worst = looks.worst_windows(bright, model)[0]
    assert worst["arm"] == "red" and worst["low"] < 8542.1 < worst["high"] + 1.0
    assert worst["mean_residual"] > 0.1


def test_structure_that_the_stated_error_explains_is_none(star, truth):
    """Residuals of the stated size that neighbours share are no structure beyond it."""
    errors = Errors(floor=0.02, line_error=0.0, length=0.35)
    model = star(truth)[0]
    values = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        shared = np.repeat(rng.normal(size=model.size // 4 + 1), 4)[: model.size]
        flux = model + 0.02 * shared + rng.normal(0.0, 1e-3, model.size)
        data = make_data(flux, np.full(model.size, 1e6), star.instrument, errors)
        values.append(list(looks.structure(data, model).values()))
    assert np.mean(values) < 1.0


def test_lines_are_named():
    assert "Ca II 8542.09" in looks.lines_near(8541.0, 8543.0)
    assert any(line.startswith("Fe I 5371.4") for line in looks.lines_near(5371.0, 5372.0))
    assert looks.lines_near(6000.0, 6000.1) == []
