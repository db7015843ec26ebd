"""A new quantity learnt from few labels leaves the old answers alone, and states widths that hold."""

import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.foundation.finetuning import FinetuneConfig, extended, finetune
from jaxspec.foundation.table import Table
from tests.foundation.small import NAMES, fresh, universe


def labels_of(stars, noise=0.1):
    rng = np.random.default_rng(4)
    values = (stars.values[:, :1] - 0.5 * stars.values[:, 1:2]) + noise * rng.standard_normal(
        (stars.n_stars, 1)
    )
    return Table(("mg_h",), values, np.full(values.shape, noise), stars.source)


@pytest.mark.slow
def test_a_head_leaves_other_answers_as_they_were():
    model, stars = fresh(), universe(60, 2).columns(NAMES[:5])
    with pytest.raises(InputError, match="mg_h"):
        model.predict(stars, ["mg_h"])
    taught = finetune(model, stars, labels_of(stars), FinetuneConfig(n_steps=100, hide=0.0))
    a, b = (m.predict(stars, ["teff", "logg"]) for m in (model, taught))
    np.testing.assert_allclose(a.mean, b.mean, rtol=1e-4, atol=1e-5)  # rounding of another program
    new = universe(500, 8).columns(NAMES[:5])
    answer, truth = taught.predict(new, ["mg_h"]), labels_of(new)
    assert np.std(answer.median - truth.values) < 0.85 * truth.values.std()
    inside = np.abs(answer.cdf(truth.values, truth.errors) - 0.5) < 0.34134
    assert inside.mean() == pytest.approx(0.68, abs=0.15)


def test_a_wider_network_is_the_same_network():
    model, stars = fresh(), universe(20).columns(NAMES[:5])
    wider = model.__class__(extended(model.network, labels_of(stars)), None, model.domain)
    np.testing.assert_allclose(
        wider.predict(stars, ["teff"]).mean, model.predict(stars, ["teff"]).mean, rtol=1e-5, atol=1e-5
    )
    assert wider.names == (*NAMES, "mg_h") and extended(wider.network, labels_of(stars)) is wider.network


def test_too_few_labels_are_refused():
    model, stars = fresh(), universe(9).columns(NAMES[:5])
    with pytest.raises(InputError, match=r"labels\.mg_h: found 9 values; expected 10"):
        finetune(model, stars, labels_of(stars))
    with pytest.raises(InputError, match="found 9 rows; expected 8"):
        finetune(model, stars.rows(slice(8)), labels_of(stars))
    with pytest.raises(InputError, match="part: found 'adapters'"):
        FinetuneConfig(part="adapters")
