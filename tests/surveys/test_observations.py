"""Wrong surveys and skies are refused by name."""

import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.labels import label_set
from jaxspec.surveys.observations import make_sky
from tests.surveys.skies import LABELS, survey


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"star": range(0)}, ["survey a", "no rows"]),
        ({"flagged": np.zeros(3, bool)}, ["survey a, flagged", "(3,)"]),
        ({"values": np.full((20, 2), np.inf)}, ["survey a, values of row 0", "infinite"]),
        ({"covariance": np.zeros((20, 2, 2))}, ["survey a, covariance of row 0", "variance of 0.0"]),
        ({"covariance": np.full((20, 2, 2), [[1.0, 3.0], [3.0, 1.0]])}, ["row 0", "beyond 1"]),
        ({"zero_point_error": np.array([20.0, 0.1])}, ["not an anchor"]),
        ({"zero_point_error": np.array([20.0]), "anchor": True}, ["zero_point_error", "2 finite"]),
    ],
)
def test_wrong_surveys(change, words):
    with pytest.raises(InputError) as error:
        survey(**change)
    for word in words:
        assert word in str(error.value)


def test_wrong_skies():
    with pytest.raises(InputError, match="names"):
        make_sky(LABELS, [survey(), survey()])
    with pytest.raises(InputError, match="0 to 4"):
        make_sky(LABELS, [survey()], 5)
    with pytest.raises(InputError, match="2 labels"):
        make_sky(label_set("teff", "logg", "fe_h"), [survey()])
    empty = survey(values=np.tile([5500.0, np.nan], (20, 1)))
    with pytest.raises(InputError, match="label logg: found no value"):
        make_sky(LABELS, [empty])
