"""Mixtures in their own units: distribution function, quantiles, draws and tables agree."""

import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.foundation.answers import Answer

RNG = np.random.default_rng(0)
WEIGHT = RNG.dirichlet(np.ones(3), (4, 2))
ANSWER = Answer(
    ("teff", "bp_3"),
    np.log(WEIGHT),
    RNG.normal(0.0, 2.0, (4, 2, 3)),
    RNG.uniform(0.2, 1.5, (4, 2, 3)),
    np.zeros(4, int),
    np.arange(4),
)


@pytest.mark.parametrize("error", [0.0, 0.8])
def test_quantiles_invert_the_distribution_function(error):
    for q in (0.001, 0.16, 0.5, 0.84, 0.999):
        np.testing.assert_allclose(ANSWER.cdf(ANSWER.quantile(q, error), error), q, atol=1e-8)
    step = 1e-4
    middle = ANSWER.median
    slope = (ANSWER.cdf(middle + step, error) - ANSWER.cdf(middle - step, error)) / (2 * step)
    np.testing.assert_allclose(np.exp(ANSWER.log_prob(middle, error)), slope, rtol=1e-5)


def test_draws_have_the_moments():
    draws = ANSWER.sample(np.random.default_rng(1), 20_000)
    np.testing.assert_allclose(draws.mean(0), ANSWER.expectation, atol=5 * ANSWER.deviation.max() / 141)
    np.testing.assert_allclose(draws.std(0), ANSWER.deviation, rtol=0.05)
    np.testing.assert_allclose(np.median(draws, 0), ANSWER.median, atol=0.08)


def test_tables_carry_units_and_flags():
    table = ANSWER.table()
    assert table["teff"].unit == "K" and table["bp_3"].unit is None
    np.testing.assert_allclose(table["e_teff"].value, ANSWER.error[:, 0], rtol=1e-6)
    assert (table["teff_p16"] < table["teff"]).all() and (table["flags"] == 0).all()
    with pytest.raises(InputError, match="quantity: found 'logg'"):
        ANSWER.index("logg")
