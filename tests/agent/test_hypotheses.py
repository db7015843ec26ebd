"""Derivatives of every hypothesis are those of finite differences; priors mean what they say."""

import numpy as np
import pytest

from jaxspec.agent.hypotheses import CAUSES, DWARFS, UNKNOWN, WIDE, etalon, make
from jaxspec.errors import InputError

MODELS = [cause for cause in CAUSES if cause != UNKNOWN]


@pytest.mark.parametrize("name", MODELS)
def test_derivatives(star, truth, name):
    hypothesis = make(name, star)
    own = [p.mean for p in hypothesis.parameters[star.n_label + 5 :]]
    theta = np.append(truth, own)
    if name == "binary":
        theta[-2:] = 60.0, 0.5
    amplitude = 0.3

    def seen(x):
        model, _ = hypothesis.spectrum(star, x)
        for extra in hypothesis.extra(star.instrument, x):
            columns = amplitude * extra.columns.sum(axis=0)
            model = model + columns if extra.plus else model * (1.0 + columns)
        return model

    _, slopes = hypothesis.spectrum(star, theta)
    extras = hypothesis.extra(star.instrument, theta)
    model = hypothesis.spectrum(star, theta)[0]
    for extra in extras:
        for i, slope in extra.slopes.items():
            slopes[i] += amplitude * slope.sum(axis=0) * (1.0 if extra.plus else model)
        if not extra.plus:
            slopes[:-1] *= 1.0 + amplitude * extra.columns.sum(axis=0)
    units = np.append(star.unit, [0.02 * p.step for p in hypothesis.parameters[star.n_label + 5 :]])
    for i, unit in enumerate(units):
        moved = np.zeros(theta.size)
        moved[i] = 0.25 * unit
        expected = (seen(theta + moved) - seen(theta - moved)) / (0.5 * unit)
        scale = np.abs(expected).max() + 1e-4 / unit
        np.testing.assert_allclose(slopes[i], expected, atol=0.03 * scale, err_msg=hypothesis.names[i])


def test_the_prior_of_labels_is_of_x_fe(star):
    """Shifting all abundances together costs what [Fe/H] costs alone."""
    mean, precision = WIDE.moments(star.label_set)
    shift = np.where([name.endswith("_h") for name in star.label_set.names], 0.8, 0.0)
    assert shift @ precision @ shift == pytest.approx(1.0)
    assert star.label_set.column(mean, "fe_h") == -0.5
    giant = star.label_set.scaled_solar(4700.0, 2.0, -0.4)

    def cost(prior):
        away = giant - prior.moments(star.label_set)[0]
        return away @ prior.moments(star.label_set)[1] @ away

    assert cost(DWARFS) > cost(WIDE) + 50.0


def test_unknown_is_no_model(star):
    with pytest.raises(InputError, match="one of ordinary"):
        make(UNKNOWN, star)


def test_an_etalon_has_one_frequency():
    """Its coordinate is 1 A a A in the middle, and falls with 1 / wavelength."""
    w = np.linspace(8480.0, 8980.0, 1001)
    x = etalon(w)
    assert np.gradient(x, w)[500] == pytest.approx(1.0, rel=1e-4)
    np.testing.assert_allclose(np.diff(x) / np.diff(-1.0 / w), 8730.0**2, rtol=1e-9)
