"""Each flag is set where its own condition holds, and nowhere else."""

import dataclasses

import numpy as np
import pytest

from jaxspec.instruments import Arm, Instrument
from jaxspec.labels import NINE_LABELS
from jaxspec.posterior.flagging import flag_stars
from jaxspec.posterior.flags import Flag
from jaxspec.posterior.results import Posterior
from jaxspec.simulation.prior import StellarPrior

INSTRUMENT = Instrument(
    "two", (Arm("a", 5000.0, 5010.0, 1.0, 20_000.0), Arm("b", 6000.0, 6010.0, 1.0, 20_000.0))
)
PRIOR = StellarPrior()
SUN = np.array([5772.0, 4.44] + [0.0] * 7)
SPREAD = np.array([20.0] + [0.02] * 8)


@pytest.fixture
def ordinary():
    """Five stars like the Sun with which nothing is wrong, and their ivar."""
    draws = SUN + SPREAD * np.random.default_rng(1).normal(size=(200, 5, 9))
    stats = {"outside_prior": np.zeros(5), "novelty": np.full(5, 0.5)}
    stats |= {"bad_fit": np.zeros(5), "bad_errors": np.zeros(5)}
    posterior = Posterior(
        draws, np.zeros((200, 5)), NINE_LABELS, tuple("abcde"), np.full(5, 50.0), np.ones(5), np.zeros(5, int)
    )
    return dataclasses.replace(posterior, stats=stats), np.full((5, INSTRUMENT.n_pixels), 100.0)


def flags(posterior, ivar, prior=PRIOR):
    return flag_stars(posterior, ivar, INSTRUMENT, prior, 10.0).flags


def test_nothing_is_flagged_without_a_reason(ordinary):
    posterior, ivar = ordinary
    stale = dataclasses.replace(posterior, flags=np.full(5, 255))
    assert flags(stale, ivar).tolist() == [0] * 5


@pytest.mark.parametrize(
    "stat, value, flag",
    [
        ("novelty", 1.01, Flag.OUT_OF_RANGE),
        ("contradicts_prior", 1.0, Flag.OUT_OF_RANGE),
        ("outside_prior", 0.96, Flag.OUT_OF_RANGE),
        ("bad_fit", 1.0, Flag.BAD_FIT),
        ("bad_errors", 1.0, Flag.BAD_ERRORS),
    ],
)
def test_statistics_set_their_flag(ordinary, stat, value, flag):
    posterior, ivar = ordinary
    values = posterior.stats.get(stat, np.zeros(5)).copy()
    values[3] = value
    marked = dataclasses.replace(posterior, stats={**posterior.stats, stat: values})
    assert flags(marked, ivar).tolist() == [0, 0, 0, int(flag), 0]


def test_data_set_theirs(ordinary):
    posterior, ivar = ordinary
    ivar[1, INSTRUMENT.slices["b"]] = 0.0
    ivar[2] = 0.0
    posterior.snr[4], posterior.chi2[0] = 9.9, np.nan
    expected = [Flag.NOT_CHECKED, Flag.ARM_MISSING, Flag.ARM_MISSING | Flag.NO_DATA, 0, Flag.LOW_SNR]
    assert flags(posterior, ivar).tolist() == [int(flag) for flag in expected]


def test_edges_are_those_of_the_prior_or_of_the_labels(ordinary):
    """A star at the prior's coolest end is far from the label's own bound."""
    posterior, ivar = ordinary
    posterior.draws[:, 2, 0] += PRIOR.low[0] - 5772.0
    assert flags(posterior, ivar)[2] & Flag.NEAR_BOUND
    assert NINE_LABELS.low[0] < PRIOR.low[0] - 100.0
    assert flags(posterior, ivar, None).tolist() == [0] * 5


def test_edges_of_several_labels_count(ordinary):
    """[Mg/Fe] at its lower edge; cool stars of intermediate gravity at the slanted edge of what was trained.
    Every label alone is far from its own limits."""
    posterior, ivar = ordinary
    mg = NINE_LABELS.index("mg_h")
    posterior.draws[:, 1, mg] += PRIOR.x_fe_range[0]
    (teff, logg), (teff_2, logg_2) = next(
        ends for ends in zip(PRIOR.polygon, PRIOR.polygon[1:], strict=False) if slanted(*ends)
    )
    inside = np.mean(np.asarray(PRIOR.polygon), axis=0)
    middle = np.array([0.5 * (teff + teff_2), 0.5 * (logg + logg_2)])
    posterior.draws[:, 3, :2] += middle + 0.002 * (inside - middle) - SUN[:2]
    found = flags(posterior, ivar)
    assert found[1] & Flag.NEAR_BOUND and found[3] & Flag.NEAR_BOUND
    assert found[[0, 2, 4]].tolist() == [0] * 3
    p16, p84 = np.quantile(posterior.draws, [0.16, 0.84], axis=0)
    margin = 0.01 * (PRIOR.high - PRIOR.low)
    assert np.all((p16[[1, 3]] > PRIOR.low + margin) & (p84[[1, 3]] < PRIOR.high - margin))


def slanted(one, other):
    """Whether an edge is oblique and far from the limits of both labels in its middle."""
    middle = 0.5 * (np.asarray(one) + np.asarray(other))
    room = np.minimum(middle - PRIOR.low[:2], PRIOR.high[:2] - middle) / (PRIOR.high - PRIOR.low)[:2]
    return bool(np.all(np.asarray(one) != np.asarray(other)) and np.all(room > 0.1))


def test_a_refined_star_is_judged_by_its_refined_draws(ordinary):
    posterior, ivar = ordinary
    posterior.draws[:, 1] += np.array([0.0, 0.0] + [-5.0] * 7)
    stats = {**posterior.stats, "refined": np.array([1.0, 1.0, 0.0, 0.0, 0.0])}
    stats["outside_prior"] = np.array([0.99, 0.0, 0.0, 0.0, 0.0])
    out = flag_stars(dataclasses.replace(posterior, stats=stats), ivar, INSTRUMENT, PRIOR, 10.0)
    assert not out.flags[0] & Flag.OUT_OF_RANGE and out.flags[1] & Flag.OUT_OF_RANGE
    assert out.stats["outside_prior"][0] < 0.05 and out.stats["outside_prior"][1] == 1.0
