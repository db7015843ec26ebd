"""Errors of real spectra, learned from residuals that were made by a known model."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from jaxspec.errors import InputError
from jaxspec.simulation.nuisances import PURE, ROBUST
from jaxspec.simulation.residuals import ResidualModel, fit_residuals, without_outliers
from jaxspec.simulation.simulator import Simulator, perturb
from tests.toy import TOY_INSTRUMENT, ToyForwardModel

N, P = 200, TOY_INSTRUMENT.n_pixels


@pytest.fixture(scope="module")
def known():
    """Two factors of different shape, and a scatter that grows along the pixels."""
    x = np.linspace(0.0, 1.0, P)
    components = np.stack([0.02 * np.sin(9.0 * x), 0.01 * (x > 0.6)])
    return ResidualModel(jnp.asarray(components, jnp.float32), jnp.asarray(0.004 + 0.01 * x, jnp.float32))


@pytest.fixture(scope="module")
def survey(known):
    """Residuals of spectra of different noise with gaps; what was not observed is not a number."""
    rng = np.random.default_rng(2)
    sigma = rng.uniform(0.003, 0.03, (N, 1)) * np.ones(P)
    residual = np.asarray(known.draw(jax.random.key(0), N)) + sigma * rng.normal(size=(N, P))
    ivar = np.where(rng.random((N, P)) < 0.1, 0.0, sigma**-2)
    ivar[: N // 4, : P // 3] = 0.0
    return np.where(ivar > 0.0, residual, np.nan), ivar


def covariance(model):
    c, s = np.asarray(model.components, float), np.asarray(model.scatter, float)
    return c.T @ c, s**2


@pytest.mark.slow
def test_learns_what_the_residuals_were_made_by(known, survey):
    found, gain = fit_residuals(*survey)
    assert len(found.components) == 2 == max(gain, key=gain.get)
    (shared, own), (_, true_own) = covariance(found), covariance(known)
    # What the drawn factors of these spectra have in common: 200 draws know a variance to 10 % only.
    factors = np.asarray(jax.random.normal(jax.random.split(jax.random.key(0))[0], (N, 2)), float)
    shape = np.linalg.pinv(np.asarray(known.components, float))
    np.testing.assert_allclose(shape.T @ shared @ shape, factors.T @ factors / N, atol=0.04)
    # Each pixel's share is known to its scatter and noise over sqrt(200): nothing else is in there.
    beside = np.asarray(found.components) @ (np.eye(P) - shape @ np.asarray(known.components))
    assert np.sqrt(np.mean(beside**2)) < 2.0 * np.sqrt(np.mean(true_own) + 0.02**2) / np.sqrt(N)
    # A pixel's scatter is known to tens of per cent, that of fifty pixels to a few; and where only the
    # brightest spectra tell, the factors cost them degrees of freedom: 5 % of the variance in all.
    blocks = own.reshape(-1, 50).mean(axis=1) / true_own.reshape(-1, 50).mean(axis=1)
    assert np.max(np.abs(blocks - 1.0)) < 0.2 and np.mean(blocks) == pytest.approx(1.0, abs=0.08)
    # The truth describes spectra better by about 3 / 2 / 160 a pixel: three numbers learned from 160 spectra.
    nothing = ResidualModel(jnp.zeros((0, P)), jnp.zeros(P))
    best = np.sum(known.log_density(*survey) - nothing.log_density(*survey)) / np.sum(survey[1] > 0.0)
    assert best - 0.02 < gain[2] < best


def test_factors_that_few_pixels_tell_are_uncertain():
    """A dozen noisy pixels leave a factor as uncertain as it is: what is not seen of it is not scatter."""
    known = ResidualModel(jnp.full((1, 12), 0.01), jnp.full(12, 0.01))
    noise = 0.02 * np.random.default_rng(6).normal(size=(3000, 12))
    residual = np.asarray(known.draw(jax.random.key(5), 3000)) + noise
    found, _ = fit_residuals(residual, np.full(residual.shape, 0.02**-2))
    shared, own = covariance(found)
    assert np.mean(own) == pytest.approx(0.01**2, rel=0.08)
    assert np.trace(shared) == pytest.approx(12 * 0.01**2, rel=0.08)


@pytest.mark.slow
def test_stated_noise_alone_teaches_nothing(survey):
    ivar = survey[1]
    noise = np.random.default_rng(4).normal(size=ivar.shape) / np.sqrt(np.where(ivar > 0.0, ivar, 1.0))
    found, gain = fit_residuals(noise, ivar)
    # A scatter far below the noise may be left; a factor is not.
    assert len(found.components) == 0 and max(gain.values()) < 1e-3
    assert np.mean(np.asarray(found.scatter) ** 2) < 0.01 * np.mean(1.0 / ivar[ivar > 0.0])


def test_density_is_that_of_a_normal(known, survey):
    residual, ivar = (x[:3, ::40] for x in survey)
    few = ResidualModel(known.components[:, ::40], known.scatter[::40])
    shared, own = covariance(few)
    for found, r, w in zip(few.log_density(residual, ivar), residual, ivar, strict=True):
        good = w > 0.0
        total = shared[np.ix_(good, good)] + np.diag(own[good] + 1.0 / w[good])
        assert found == pytest.approx(multivariate_normal.logpdf(r[good], cov=total), rel=1e-9)


def test_draws_have_the_covariance(known):
    draws = np.asarray(known.draw(jax.random.key(1), 20_000))
    shared, own = covariance(known)
    expected = shared + np.diag(own)
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    assert np.max(np.abs(np.cov(draws.T) - expected) / scale) < 0.06
    assert np.max(np.abs(draws.mean(axis=0)) / np.sqrt(np.diag(expected))) < 0.05


def test_cosmic_rays_are_left_out(survey):
    residual, ivar = (x.copy() for x in survey)
    residual[7, 900] = 0.8
    ivar[7, 900] = 1e4
    kept = without_outliers(residual, ivar)
    assert kept[7, 900] == 0.0
    changed = (kept != ivar) & (ivar > 0.0)
    assert changed.sum() < 1e-4 * changed.size
    np.testing.assert_array_equal(kept[~changed], ivar[~changed])


def test_kept_in_a_file_for_its_pixels(known, tmp_path):
    path = known.save(tmp_path / "residuals", TOY_INSTRUMENT)
    loaded = ResidualModel.load(path, TOY_INSTRUMENT)
    np.testing.assert_array_equal(loaded.components, known.components)
    np.testing.assert_array_equal(loaded.scatter, known.scatter)
    arm = dataclasses.replace(TOY_INSTRUMENT.arms[0], high=5361.0)
    other = dataclasses.replace(TOY_INSTRUMENT, arms=(arm, *TOY_INSTRUMENT.arms[1:]))
    with pytest.raises(InputError, match=r"residuals: found 1100 pixels"):
        ResidualModel.load(path, other)
    with np.load(path / "arrays.npz") as arrays:  # one file, as before there were folders
        np.savez(tmp_path / "old.npz", **arrays, instrument="toy")
    old = ResidualModel.load(tmp_path / "old.npz", TOY_INSTRUMENT)
    np.testing.assert_array_equal(old.components, known.components)
    np.savez(tmp_path / "other.npz", x=1.0)
    for name in ("other.npz", "none.npz"):
        with pytest.raises(InputError, match=name):
            ResidualModel.load(tmp_path / name, TOY_INSTRUMENT)


def test_too_few_spectra_are_refused(survey):
    with pytest.raises(InputError, match="9 spectra"):
        fit_residuals(survey[0][:9], survey[1][:9])


def test_simulated_spectra_get_them(known):
    """Beside the errors of lines, in all stars but the share for which the model is exact."""
    flux = jnp.full((4000, P), 0.7)
    whole = jax.jit(perturb, static_argnums=(2, 3))
    made = np.asarray(whole(jax.random.key(3), flux, TOY_INSTRUMENT, PURE, known)) - 0.7
    shared, own = covariance(known)
    np.testing.assert_allclose(made.var(axis=0), np.diag(shared) + own, rtol=0.25)
    half = dataclasses.replace(ROBUST, exact_model=0.5)
    changed = np.any(whole(jax.random.key(3), flux, TOY_INSTRUMENT, half, known) != flux, axis=1)
    assert 0.45 < changed.mean() < 0.55
    forward = ToyForwardModel()
    labels = jnp.tile(jnp.array([[5777.0, 4.44, *[0.0] * 7]], jnp.float32), (64, 1))
    plain, rough = (
        Simulator(forward, residuals=model).observe(jax.random.key(4), labels, jnp.full(64, 1000.0))
        for model in (None, known)
    )
    np.testing.assert_array_equal(plain.ivar > 0.0, rough.ivar > 0.0)
    # The continuum is fitted again and takes what is smooth: from one pixel to the next is each one's own.
    difference = np.diff(np.where(plain.ivar > 0.0, rough.flux - plain.flux, np.nan), axis=1)
    assert np.nanstd(difference) == pytest.approx(np.sqrt(2.0 * np.mean(own)), rel=0.1)
