"""The fit check passes what the model explains and flags what it does not."""

import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.fitting.check import (
    CHI2_MAX,
    Fit,
    FitConfig,
    _with_own_errors,
    check_fit,
    check_posterior,
    in_batches,
    model_sigma,
)
from jaxspec.instruments import Arm, Instrument
from jaxspec.posterior.results import Posterior
from jaxspec.simulation.nuisances import PURE, ROBUST
from jaxspec.simulation.simulator import Simulator


@pytest.fixture(scope="module")
def fit(toy, bright):
    return check_fit(toy, bright.labels, bright.flux, bright.ivar)


def test_right_model_fits(fit):
    # S/N 300 against a stated model error of 0.6 % and more: far below 1.
    assert np.median(fit.chi2) < 0.4 and fit.chi2_arm.max() < 1.0
    assert np.median(fit.misfit) < 0.004


def test_velocity_and_broadening_are_found(fit, bright):
    offset = fit.nuisances.velocity - np.asarray(bright.nuisances.velocity)
    assert 1.4826 * np.median(np.abs(offset)) < 0.05
    fast = np.asarray(bright.nuisances.vsini) > 10
    assert fast.sum() >= 3
    assert np.median(np.abs(fit.nuisances.vsini[fast] / np.asarray(bright.nuisances.vsini)[fast] - 1.0)) < 0.1


def test_wrong_labels_do_not_fit(toy, bright, fit):
    wrong = bright.labels.at[:, 0].add(600.0).at[:, 2].add(-0.5)
    other = check_fit(toy, wrong, bright.flux, bright.ivar)
    strong = np.asarray(bright.labels[:, 2]) > -1.5
    assert np.mean(other.chi2[strong] > CHI2_MAX) > 0.5
    assert np.median(other.chi2) > 5 * np.median(fit.chi2)


def test_model_errors_within_the_statement_are_no_bad_fit(toy):
    config = dataclasses.replace(ROBUST, snr_range=(1000.0, 1000.0), only_arm=())
    batch = Simulator(toy, config=config).simulate(jax.random.key(0), 64)
    chi2 = check_fit(toy, batch.labels, batch.flux, batch.ivar).chi2_arm
    assert np.mean(chi2.max(1) > CHI2_MAX) < 0.05


def test_wrong_errors_are_told_from_wrong_models(toy):
    """Errors stated a factor of two wrong are flagged, either way; lines that the model has wrong are not
    errors, nor are wiggles of three errors that are as wide as lines."""
    quiet = dict(snr_range=(100.0, 100.0), only_arm=(), ivar_misstated=0.0, gap_length=0.0)
    flagged = {}
    for name, config in (("right", PURE), ("wrong lines", ROBUST)):
        batch = Simulator(toy, config=dataclasses.replace(config, **quiet)).simulate(jax.random.key(0), 32)
        n = len(batch.labels)
        posterior = Posterior(
            np.repeat(np.asarray(batch.labels)[None], 3, 0),
            np.zeros((3, n)),
            toy.label_set,
            tuple(str(i) for i in range(n)),
            np.asarray(batch.snr),
            np.zeros(n),
            np.zeros(n, int),
        )
        for factor in (0.5, 1.0, 2.0):
            checked, fit = check_posterior(toy, posterior, batch.flux, batch.ivar / factor**2)
            flagged[name, factor] = np.mean(checked.stats["bad_errors"])
            np.testing.assert_array_equal(checked.stats["wrong_errors"], fit.wrong_errors)
            if name == "right":
                expected = max(factor, 1.0 / factor)
                assert abs(np.median(fit.wrong_errors) / expected - 1.0) < 0.15
        if name == "right":
            sigma = 1.0 / np.sqrt(np.maximum(batch.ivar, 1.0))
            wiggly = batch.flux + 3.0 * sigma * np.sin(2.0 * np.pi / 20.0 * np.arange(sigma.shape[1]))
            checked, _ = check_posterior(toy, posterior, wiggly, batch.ivar)
            assert np.all(checked.stats["bad_errors"] == 0)
    assert flagged["right", 1.0] == 0.0 and flagged["wrong lines", 1.0] <= 1 / 32
    assert min(flagged["right", 0.5], flagged["right", 2.0], flagged["wrong lines", 0.5]) == 1.0


def test_single_bad_pixels_do_not_decide(toy, bright, fit):
    flux = np.array(bright.flux[:16])
    flux[:, [100, 700, 900]] = 4.0
    hit = check_fit(toy, bright.labels[:16], flux, bright.ivar[:16])
    assert (np.abs(hit.chi2 - fit.chi2[:16]) < 0.3).all()


def test_missing_arm_is_predicted(toy, bright):
    ivar = np.array(bright.ivar[:4])
    where = toy.instrument.slices["red"]
    ivar[:, where] = 0.0
    fit = check_fit(
        toy, bright.labels[:4], np.where(ivar > 0, bright.flux[:4], np.nan).astype(np.float32), ivar
    )
    assert np.isnan(fit.chi2_arm[:, 1]).all() and np.isfinite(fit.chi2).all()
    expected = jax.vmap(toy)(bright.labels[:4], jax.tree.map(jnp.asarray, fit.nuisances))
    np.testing.assert_allclose(fit.model[:, where], np.asarray(expected)[:, where], atol=1e-5)
    nothing = check_fit(toy, bright.labels[:1], np.asarray(bright.flux[:1]), np.zeros_like(ivar[:1]))
    assert np.isnan(nothing.chi2).all()


def test_flag_follows_the_worse_arm(toy, bright):
    flux = np.array(bright.flux[:8])
    flux[4:, toy.instrument.slices["red"]] = (
        np.asarray(bright.flux[20:24])[:, toy.instrument.slices["red"]] ** 4
    )
    draws = np.repeat(np.asarray(bright.labels[None, :8]), 3, 0)
    zeros = np.zeros(8)
    posterior = Posterior(
        draws,
        np.zeros((3, 8), np.float32),
        toy.label_set,
        tuple("abcdefgh"),
        zeros + 300,
        zeros * np.nan,
        np.full(8, 32),
    )
    checked, fit = check_posterior(toy, posterior, flux, np.asarray(bright.ivar[:8]))
    assert (checked.stats["bad_fit"][:4] == 0).all() and checked.stats["bad_fit"][4:].sum() >= 3
    assert (checked.stats["bad_errors"][:4] == 0).all()
    arms = {"chi2_blue", "chi2_red"}
    assert set(checked.stats) == {
        "misfit",
        "above",
        "structure",
        "wrong_errors",
        "bad_fit",
        "bad_errors",
        *arms,
    }
    np.testing.assert_allclose(checked.chi2, fit.chi2)


def test_stated_error():
    np.testing.assert_allclose(
        model_sigma(jnp.asarray([1.0, 0.5]), FitConfig(floor=0.003, line_error=0.1)),
        [0.003, np.hypot(0.003, 0.05)],
        rtol=1e-5,
    )
    with pytest.raises(InputError, match=r"fit\.floor"):
        FitConfig(floor=0.0)


def test_rows_in_batches_keep_their_order_and_raise():
    rows = np.arange(11.0)

    def slower_first(x):
        time.sleep(0.05 if x[0] < 5.0 else 0.0)
        return {"twice": 2.0 * x, "place": x}

    out = in_batches(slower_first, 2, rows)
    np.testing.assert_array_equal(out["place"], rows)
    np.testing.assert_array_equal(out["twice"], 2.0 * rows)

    def fails_late(x):
        if x[0] > 7.0:
            raise InputError("row 8", "nothing", "something", "mend it")
        return x

    with pytest.raises(InputError, match="row 8"):
        in_batches(fails_late, 2, rows)


def test_errors_that_the_reader_raised_are_not_the_files(rng):
    """A file of S/N 1000 with errors raised to 1/300 is right; one that states too large errors is not."""
    arms = (Arm("a", 5000.0, 5050.0, 0.1, 2e4), Arm("b", 6000.0, 6050.0, 0.1, 2e4))
    instrument = Instrument("two", arms)
    n, p = 4, instrument.n_pixels
    sigma = np.array([1e-3, 1e-3, 1e-2, 1e-3])
    flux = 1.0 + sigma[:, None] * rng.normal(size=(n, p))
    # Raised from 1/1000 rightly; from 1/300 stated for 1/1000; raised though errors were far too small; not.
    used, raised = np.array([300.0, 300.0, 300.0, 1000.0]), np.array([1000 / 300, 1.1, 10 / 3, 1.0])
    ivar = np.tile(used[:, None] ** 2, (1, p))
    fit = Fit(*[np.zeros(n)] * 5, np.array([3.3, 3.3, 3.0, 1.0]), np.zeros(n), np.ones((n, p)), PURE)
    wrong = _with_own_errors(fit, instrument, flux, ivar, np.tile(raised[:, None], (1, 2))).wrong_errors
    assert wrong[0] < 1.2 and wrong[1] > 2.5 and wrong[2] > 2.5 and wrong[3] == 1.0
