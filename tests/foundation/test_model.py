"""The model answers about the stars it is given, whatever is beside them, and refuses what it never saw."""

import numpy as np
import pytest
from scipy import integrate

from jaxspec.errors import InputError
from jaxspec.foundation.answers import NOTHING_GIVEN, OUTSIDE
from jaxspec.foundation.model import FoundationModel
from jaxspec.foundation.table import Table
from tests.foundation.small import NAMES, fresh, universe

MODEL = fresh()
GIVEN = NAMES[:5]


def test_one_star_or_many_gives_the_same_numbers():
    stars = universe(300, 3).columns(GIVEN)
    many = MODEL.predict(stars, ["teff", "logg"])
    for i in (0, 17, 299):
        one = MODEL.predict(stars.rows(np.array([i])), ["teff", "logg"])
        np.testing.assert_array_equal(one.mean[0], many.mean[i])
        np.testing.assert_array_equal(one.log_weight[0], many.log_weight[i])
    shuffled = stars.columns(GIVEN[::-1])
    np.testing.assert_array_equal(MODEL.predict(shuffled, ["teff", "logg"]).scale, many.scale)


def test_unknown_quantities_are_refused_by_name():
    stars = universe(3).columns(GIVEN)
    with pytest.raises(InputError, match=r"ask: found 'mg_h', which the model never saw.*bp_1 to bp_2"):
        MODEL.predict(stars, ["teff", "mg_h"])
    with pytest.raises(InputError, match="given: found 'parallax'"):
        MODEL.predict(stars._replace(names=("parallax", *GIVEN[1:])), ["teff"])
    with pytest.raises(InputError, match="ask: found nothing"):
        MODEL.predict(stars, [])


def test_flags_tell_strange_stars_and_empty_ones():
    stars = universe(4).columns(GIVEN)
    values = np.clip(stars.values, -0.5, 0.5)
    values[1] = np.nan
    values[2, 3] = 1e3
    flags = MODEL.predict(stars._replace(values=values), ["teff"]).flags
    assert flags.tolist() == [0, NOTHING_GIVEN, OUTSIDE, 0]
    empty = MODEL.predict(stars._replace(values=values), ["teff"])
    nothing = MODEL.predict(Table((), np.zeros((1, 0)), np.zeros((1, 0)), np.zeros(1, int)), ["teff"])
    np.testing.assert_array_equal(empty.mean[1], nothing.mean[0])


def test_joint_draws_follow_the_joint_density():
    """The mean of any function over the draws is its integral over the density."""
    star = universe(1, 5).columns(GIVEN)
    draws = MODEL.sample(1, star, ["teff", "logg"], 4000)[:, 0]
    low, high = draws.min(0) - 2.0, draws.max(0) + 2.0
    x, y = (np.linspace(a, b, 81) for a, b in zip(low, high, strict=True))
    grid = np.stack(np.meshgrid(x, y, indexing="ij"), -1).reshape(-1, 2)
    density = np.exp(MODEL.log_prob(star.rows(np.zeros(len(grid), int)), ["teff", "logg"], grid))

    def integral(f):
        return integrate.trapezoid(integrate.trapezoid((density * f).reshape(81, 81), y), x)

    assert integral(1.0) == pytest.approx(1.0, abs=0.02)
    for f in (lambda p: p[:, 0], lambda p: p[:, 1], lambda p: p[:, 0] * p[:, 1]):
        spread = f(draws).std() / np.sqrt(len(draws))
        assert integral(f(grid)) == pytest.approx(f(draws).mean(), abs=5.0 * spread + 0.03)


def test_what_is_saved_answers_alike(tmp_path):
    stars = universe(10, 1).columns(GIVEN)
    MODEL.save(tmp_path / "exact", dtype="float32")
    again = FoundationModel.load(tmp_path / "exact")
    assert again.names == NAMES and again.provenance == MODEL.provenance and again.domain == MODEL.domain
    a, b = (m.predict(stars, ["teff", "logg"]) for m in (MODEL, again))
    np.testing.assert_array_equal(a.mean, b.mean)
    np.testing.assert_array_equal(MODEL.summary(stars), again.summary(stars))
    MODEL.save(tmp_path / "half")
    c = FoundationModel.load(tmp_path / "half").predict(stars, ["teff", "logg"])
    assert np.abs(c.median - a.median).max() < 0.05 * a.error.min()
    (tmp_path / "half" / "arrays.npz").unlink()
    with pytest.raises(InputError, match=r"arrays\.npz"):
        FoundationModel.load(tmp_path / "half")


def test_a_quantity_that_is_given_comes_back_by_bayes_theorem():
    stars = universe(6, 2).columns((*GIVEN, "teff"))
    without = MODEL.predict(stars.columns(GIVEN), ["teff"])
    both = MODEL.predict(stars, ["logg", "teff"])
    truth = stars.columns(["teff"])
    grid = np.linspace(-15.0, 15.0, 60_001)
    for i in range(6):
        likelihood = np.exp(-0.5 * ((grid - truth.values[i]) / truth.errors[i]) ** 2)
        rows = np.full(len(grid), i)
        prior = without.__class__(
            without.names, without.log_weight[rows], without.mean[rows], without.scale[rows], rows, rows
        )
        density = np.exp(prior.log_prob(grid[:, None]))[:, 0] * likelihood
        mean = (grid * density).sum() / density.sum()
        assert both.expectation[i, 1] == pytest.approx(mean, abs=1e-4)
    # An exact value comes back as it is, and a missing one changes nothing.
    exact = stars._replace(
        errors=np.zeros_like(stars.errors), values=np.where(np.arange(6)[:, None] < 5, stars.values, np.nan)
    )
    answer = MODEL.predict(exact, ["teff"])
    np.testing.assert_allclose(answer.median[:5, 0], truth.values[:5, 0], atol=0.02)
    assert answer.error[5, 0] > 0.1


def test_temperatures_widen_and_leave_the_mean():
    stars = universe(5).columns(GIVEN)
    wide = FoundationModel(MODEL.network, None, {}, {}, {"teff": (np.log(2.0), 0.0)})
    a, b = (m.predict(stars, ["teff", "logg"]) for m in (MODEL, wide))
    np.testing.assert_allclose(b.scale[:, 0], 2.0 * a.scale[:, 0])
    np.testing.assert_allclose(b.deviation[:, 0], 2.0 * a.deviation[:, 0])
    np.testing.assert_allclose(b.scale[:, 1], a.scale[:, 1], rtol=1e-12)
    np.testing.assert_allclose(b.expectation, a.expectation, rtol=1e-6)
