"""The pool of spectra's labels is made once for its settings."""

from dataclasses import replace
from unittest.mock import create_autospec

import numpy as np
import pytest

from jaxspec.amortised.amortised import AmortisedPosterior
from jaxspec.commands import calibration_spectra
from jaxspec.commands.calibration_spectra import ARRAYS, make_pool
from jaxspec.errors import InputError
from jaxspec.surveys.observations import Survey
from jaxspec.surveys.spectral_sky import NAMES, Pool, SpectralConfig
from tests.toy import TOY_INSTRUMENT, ToyForwardModel


def test_a_pool_is_gone_on_with_by_its_own_settings_only(tmp_path, rng, monkeypatch):
    config = SpectralConfig(n_skies=1, n_stars=20, n_reference=50)
    calls = []

    def observe(posterior, forward, labels, config, seed):
        calls.append(seed)
        n = len(labels)
        values = rng.normal(size=(n, 2))
        covariance, star = np.tile(np.eye(2), (n, 1, 1)), np.arange(n)
        surveys = tuple(Survey(name, star, values, covariance, np.zeros(n, bool)) for name in NAMES)
        return Pool(labels, surveys)

    monkeypatch.setattr(calibration_spectra, "draw_supported", lambda posterior, n, seed: np.ones((n, 2)))
    monkeypatch.setattr(calibration_spectra, "observe_pool", observe)
    weights, forward = create_autospec(AmortisedPosterior, instance=True), ToyForwardModel(TOY_INSTRUMENT)
    stated = {"spectra": config, "seed": 1, "weights": "0123", "forward": "toy"}
    first = make_pool(tmp_path, stated, weights, forward, config, 1)
    second = make_pool(tmp_path, stated, weights, forward, config, 1)
    assert calls == [1] and len(first.labels) == 70
    for one, other in zip(first.surveys, second.surveys, strict=True):
        for name in ARRAYS:
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for name, value in (("seed", 2), ("forward", "another"), ("spectra", replace(config, slope=0.0))):
        with pytest.raises(InputError, match=f"{name}.*earlier run"):
            make_pool(tmp_path, {**stated, name: value}, weights, forward, config, 1)
