"""A label that is one number in a survey is refused before any fit, by survey and label."""

import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.labels import label_set
from jaxspec.surveys.inference import fit
from jaxspec.surveys.observations import Survey, check_varied, diagonal, make_sky

ERRORS = np.array([60.0, 0.08, 0.04])


def sky(rng, change=lambda values: None):
    truth = np.stack([rng.uniform(4500, 6500, 120), rng.uniform(1, 4.6, 120), rng.normal(-0.3, 0.3, 120)], 1)
    surveys = []
    for name, n in (("a", 120), ("b", 80)):
        values = truth[:n] + rng.normal(size=(n, 3)) * ERRORS
        if name == "b":
            change(values)
        errors = diagonal(np.broadcast_to(ERRORS, values.shape))
        surveys.append(Survey(name, np.arange(n), values, errors, np.zeros(n, bool), errors_only=True))
    return make_sky(label_set("teff", "logg", "fe_h"), surveys)


@pytest.mark.parametrize(("j", "label"), [(0, "teff"), (1, "logg"), (2, "fe_h")])
@pytest.mark.parametrize("jitter", [0.0, 1e-5])
def test_a_constant_label_is_refused(rng, j, label, jitter):
    def change(values):
        values[:, j] = 4.4 + jitter * ERRORS[j] * rng.normal(size=len(values))
        values[3, j] = np.nan

    with pytest.raises(
        InputError, match=rf"survey b, label {label}.*4\.4\d* in all 79 rows.*out of the columns of b"
    ):
        fit(sky(rng, change), method="laplace")


def test_other_labels_pass(rng):
    check_varied(sky(rng))

    def missing(values):
        values[:, 1] = np.nan
        values[0, 1] = 4.4

    check_varied(sky(rng, missing))
