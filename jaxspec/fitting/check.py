"""Does the model that inference believes in really look like the spectrum? The posterior-predictive check
against the forward model.

The labels are fixed (the posterior's median, or single draws). What an observer would not call a misfit is
adjusted: velocity, rotation, vmic and resolution within their priors by a few damped Gauss-Newton steps, and
a Chebyshev continuum per arm, linearly. The rest is compared with the noise *and* with a stated error of the
model itself, so that a spectrum of S/N 1000 is judged by how wrong the model may be, not by photon statistics
that no model reaches.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from jaxspec.errors import InputError
from jaxspec.linear import solve as solve_linear
from jaxspec.physics import turbulence
from jaxspec.physics.forward import Nuisances
from jaxspec.posterior.limits import Limits, observed_arms
from jaxspec.posterior.results import Posterior
from jaxspec.simulation.nuisances import FITTED, Stellar
from jaxspec.simulation.simulator import SpectrumModel

# Reduced chi-square of the worse arm that is called bad where no limit was calibrated.
CHI2_MAX = 2.5
# Fewest pixels of an arm by which its errors are judged.
FEWEST_PIXELS = 200
# Factor by which stated errors may be wrong, whatever the limits say.
ERRORS_FAIR = 1.5
# Correlation of a Gaussian profile with itself half its full width at half maximum away.
HALFWAY = 2.0**-0.5
# What is adjusted, in this order everywhere.
ADJUSTED = ("velocity", "vsini", "vmic", "resolution")
# Programs run at once, at most: each takes memory.
MOST_THREADS = 4


@dataclass(frozen=True)
class FitConfig:
    """How the check is done and what is called a bad fit.

    Attributes:
        floor: stated error of the model everywhere (fraction of the continuum).
        line_error: stated error of the model in lines, as a fraction of their depth.
        clip: residuals beyond so many errors count as this many: a few wrong or missing lines do not make a
            bad fit.
        chi2_max: reduced chi-square above which the fit is bad; none takes the calibrated limit, or
            `CHI2_MAX` where there is none.
        chi2_fair: squared misfit in stated model errors that is never bad, whatever the limits say: of a
            real star the model may know the lines by 30 % less well than it states.
        continuum_degree: of the Chebyshev continuum of each arm; the quotient of a smooth instrumental shape
            and the normaliser's curve is no polynomial of either's degree.
        steps: Gauss-Newton steps.
        vsini_start: starting values of the rotation [km/s]; the best is kept.
        velocity_prior, vsini_prior, vmic_prior, resolution_prior: standard deviations of the Gaussian priors
            of what is adjusted, about 0, 4, the calibration (all km/s) and `resolution_mean`; see `FITTED`.
        resolution_mean: in units of the nominal resolving power.
    """

    floor: float = 0.006
    line_error: float = 0.12
    clip: float = 4.0
    chi2_max: float | None = None
    chi2_fair: float = 1.7
    continuum_degree: int = 7
    steps: int = 6
    vsini_start: tuple[float, ...] = (4.0, 16.0)
    velocity_prior: float = FITTED["velocity"].sigma
    vsini_prior: float = FITTED["vsini"].sigma
    vmic_prior: float = FITTED["vmic"].sigma
    resolution_mean: float = FITTED["resolution"].mean
    resolution_prior: float = FITTED["resolution"].sigma

    def __post_init__(self):
        object.__setattr__(self, "vsini_start", tuple(float(v) for v in self.vsini_start))
        for name in ("floor", "line_error", "clip", "chi2_max", "chi2_fair"):
            if getattr(self, name) is not None and not getattr(self, name) > 0.0:
                raise InputError(f"fit.{name}", f"{getattr(self, name)}", "a positive number", "mend it")


class Fit(NamedTuple):
    """Outcome of the check for each star.

    Attributes:
        chi2: mean squared residual over usable pixels in units of noise plus stated model error, clipped;
            about 1 where the model is right within its stated error, below 1 where it is better than stated.
            NaN without usable pixels.
        chi2_arm: the same for each arm.
        above: share of the usable pixels that stand above the model by more than `clip` errors, as cosmic
            rays and emission lines do and lines that the model lacks do not; one pixel at least.
        structure: 1 + the mean product of clipped residuals half a resolution element apart, in errors, of
            the worse arm: 1 where only noise is left, however large it is, and more where lines are.
        stated: share of the squared errors that is the model's stated one, in the same arm.
        wrong_errors: factor by which the stated errors of pixels are too small or too large, in the arm where
            they are worst. Too small: by how much second differences of neighbouring residuals, in which
            errors of the model cancel, scatter more. Too large: by how much residuals scatter less.
        misfit: root mean square of data minus model beyond what the noise explains (fraction of the
            continuum).
        model: best model including the continuum, on the instrument's pixels.
        nuisances: the adjusted broadening and velocity, each `[n]`.
    """

    chi2: Float[np.ndarray, " n"]
    chi2_arm: Float[np.ndarray, "n a"]
    above: Float[np.ndarray, " n"]
    structure: Float[np.ndarray, " n"]
    stated: Float[np.ndarray, " n"]
    wrong_errors: Float[np.ndarray, " n"]
    misfit: Float[np.ndarray, " n"]
    model: Float[np.ndarray, "n p"]
    nuisances: Nuisances


def check_posterior(
    forward: SpectrumModel,
    posterior: Posterior,
    flux: Float[Array | np.ndarray, "n p"],
    ivar: Float[Array | np.ndarray, "n p"],
    config: FitConfig = FitConfig(),
    batch: int = 16,
    limits: Limits | None = None,
    raised: Float[np.ndarray, "n a"] | None = None,
) -> tuple[Posterior, Fit]:
    """Compare each star's median model with its normalised spectrum.

    A fit is bad where it exceeds the `limits`, with `config.chi2_max` in place of theirs where given; errors
    are wrong beyond their limit and a factor of `ERRORS_FAIR`. `raised` are the factors by which the reader
    raised the errors of each arm (`snr_max`): a file's errors are not too large for that.

    Returns: the posterior with `chi2` and the statistics `misfit`, `above`, `structure`, `wrong_errors`,
    `chi2_ARM`, `bad_fit` and `bad_errors` filled, by which `flag_stars` sets flags; and the fit.
    """
    forward.label_set.check_same(posterior.label_set.names, "labels of the posterior")
    fit = check_fit(forward, jnp.asarray(posterior.median, jnp.float32), flux, ivar, config, batch)
    if raised is not None and (raised > 1.0).any():
        fit = _with_own_errors(fit, forward.instrument, np.asarray(flux), np.asarray(ivar), raised)
    arms = {f"chi2_{arm.name}": fit.chi2_arm[:, i] for i, arm in enumerate(forward.instrument.arms)}
    # One bad arm is a bad fit, also where the other, longer one dilutes it.
    found = statistics(fit)
    highest: dict[str, Any] = {}  # one for all stars, or one a star
    factor = np.full(len(fit.chi2), ERRORS_FAIR)
    if limits is not None:
        observed = observed_arms(np.asarray(ivar), forward.instrument)
        # Limits that were stored before a statistic was thought of lack it.
        known = [name for name in found if name in limits.levels]
        highest = {name: limits.at(name, posterior.snr, observed) for name in known}
        highest["chi2"] = np.maximum(highest["chi2"], config.chi2_fair)
        fair = 1.0 + HALFWAY * config.chi2_fair * fit.stated
        highest["structure"] = np.maximum(highest["structure"], fair)
        factor = np.maximum(highest.pop("wrong_errors", factor), factor)
    if limits is None or config.chi2_max is not None:
        highest["chi2"] = config.chi2_max or CHI2_MAX
    bad = np.any([found[name] > limit for name, limit in highest.items()], axis=0)
    stats = {"misfit": fit.misfit, "above": fit.above, "structure": fit.structure}
    stats |= {"wrong_errors": fit.wrong_errors, **arms}
    return posterior.with_fit(fit.chi2, bad, fit.wrong_errors > factor, **stats), fit


def _with_own_errors(fit: Fit, instrument, flux, ivar, raised) -> Fit:
    """The fit with `wrong_errors` set anew of the stars whose errors the reader raised: too small by the
    errors as they are used, too large by those of the file."""
    wrong = fit.wrong_errors.copy()
    for star in np.flatnonzero((raised > 1.0).any(axis=1)):
        factors = []
        for arm, where in enumerate(instrument.slices.values()):
            good = ivar[star, where] > 0.0
            residual = np.where(good, flux[star, where] - fit.model[star, where], 0.0)
            small, large = _error_factors(residual * np.sqrt(ivar[star, where]), good)
            factors += [float(small), float(large) / max(float(raised[star, arm]), 1.0)]
        wrong[star] = max(1.0, *factors)
    return fit._replace(wrong_errors=wrong)


def statistics(fit: Fit) -> dict[str, Float[np.ndarray, " n"]]:
    """What `Limits` judge a fit by: chi-square of the worse arm (0 without usable pixels), `above`,
    `structure` and `wrong_errors`."""
    worst = np.max(np.where(np.isfinite(fit.chi2_arm), fit.chi2_arm, 0.0), axis=1)
    return {name: getattr(fit, name) for name in ("above", "structure", "wrong_errors")} | {"chi2": worst}


def check_fit(
    forward: SpectrumModel,
    labels: Float[Array | np.ndarray, "n l"],
    flux: Float[Array | np.ndarray, "n p"],
    ivar: Float[Array | np.ndarray, "n p"],
    config: FitConfig = FitConfig(),
    batch: int = 16,
) -> Fit:
    """The check at given labels, in the order of the model's label set; everything on the host, `batch` stars
    per compiled call."""
    return in_batches(partial(_fit_batch, forward, config=config), batch, labels, flux, ivar)


def in_batches(function: Callable[..., PyTree], batch: int, *arrays: Array | np.ndarray) -> PyTree:
    """`function` of the rows of `arrays`, on the host, by calls of at most `batch` rows of one shape."""
    n = arrays[0].shape[0]
    size = min(batch, max(n, 1))

    def call(start):
        rows = np.minimum(np.arange(start, start + size), n - 1)
        return jax.tree.map(np.asarray, function(*(jnp.asarray(x)[rows] for x in arrays)))

    pieces = concurrently(call, range(0, n, size))
    return jax.tree.map(lambda *x: np.concatenate(x)[:n], *pieces)


def concurrently(function: Callable[[int], PyTree], items: Sequence[int]) -> list[PyTree]:
    """`function` of each item, several at a time: one compiled program alone does not fill two cores. The
    first item is done before the others, so that its program is compiled once."""
    done = [function(item) for item in items[:1]]
    with ThreadPoolExecutor(min(os.cpu_count() or 1, MOST_THREADS)) as pool:
        return done + list(pool.map(function, items[1:]))


def model_sigma(model: Float[Array, "*n p"], config: FitConfig) -> Float[Array, "*n p"]:
    """Stated error of a normalised model spectrum: a floor, and a fraction of the line depth, in
    quadrature."""
    return jnp.sqrt(config.floor**2 + (config.line_error * (1.0 - model)) ** 2)


def nuisance_prior(stellar: Stellar, config: FitConfig) -> tuple[Float[Array, " 4"], Float[Array, " 4"]]:
    """Centres and widths of the Gaussian priors of what is `ADJUSTED` for a star of given teff [K], logg and
    fe_h."""
    vmic = turbulence.vmic_calibration(*stellar)
    fixed = (FITTED["velocity"].mean, FITTED["vsini"].mean, config.resolution_mean)
    velocity, vsini, resolution = (jnp.full((), x) for x in fixed)
    width = [config.velocity_prior, config.vsini_prior, config.vmic_prior, config.resolution_prior]
    return jnp.stack([velocity, vsini, vmic, resolution]), jnp.asarray(width)


@eqx.filter_jit
def _fit_batch(forward, labels, flux, ivar, config):
    return jax.vmap(partial(_fit_star, forward, config=config))(labels, flux, ivar)


def _fit_star(forward, labels, flux, ivar, config):
    instrument = forward.instrument
    stellar = forward.label_set.stellar(labels)
    centre, width = nuisance_prior(stellar, config)
    low, high = (jnp.asarray([getattr(FITTED[name], end) for name in ADJUSTED]) for end in ("low", "high"))
    vmac = turbulence.vmac_calibration(*stellar)
    flux = jnp.where(ivar > 0.0, flux, 1.0)
    basis = jnp.asarray(continuum_basis(instrument, config.continuum_degree), flux.dtype)

    def spectrum(u):
        v = centre + width * u
        return forward(labels, Nuisances(vmic=v[2], vmac=vmac, vsini=v[1], velocity=v[0], resolution=v[3]))

    def residual(model, coefs):
        variance = 1.0 + ivar * model_sigma(model, config) ** 2
        weight = ivar / variance
        return flux - model * (coefs @ basis), weight

    def solve(model, weight, columns, ridge, target):
        """Weighted least squares for steps along `columns` and for the continuum."""
        design = jnp.concatenate([columns, model * basis])
        scale = jnp.sqrt(jnp.maximum(jnp.sum(weight * design**2, axis=1), 1e-6))
        design = design / scale[:, None]
        normal = (design * weight) @ design.T + jnp.diag(ridge / scale**2) + 1e-6 * jnp.eye(design.shape[0])
        return normal, (design * weight) @ target, scale

    def robust(model, coefs):
        r, weight = residual(model, coefs)
        z = jnp.abs(r) * jnp.sqrt(weight)
        return r, weight * jnp.minimum(1.0, 2.0 / jnp.maximum(z, 1e-6)), weight

    zeros = jnp.zeros(basis.shape[0])
    flat = zeros.at[:: config.continuum_degree + 1].set(1.0)
    observed = basis**2 @ ivar > 0.0

    def continuum(model, coefs):
        _, weight, _ = robust(model, coefs)
        normal, right, scale = solve(model, weight, jnp.zeros((0, flux.size)), zeros, flux)
        # An arm without pixels has no continuum of its own: the prediction there is shown as it is.
        return jnp.where(observed, solve_linear(normal, right) / scale, flat)

    def step(_, state):
        u, coefs = state
        model, tangents = jax.vmap(lambda e: jax.jvp(spectrum, (u,), (e,)), out_axes=(None, 0))(
            jnp.eye(u.size)
        )
        coefs = continuum(model, coefs)
        r, weight, _ = robust(model, coefs)
        ridge = jnp.concatenate([jnp.ones(u.size), zeros])
        normal, right, scale = solve(model, weight, tangents * (coefs @ basis), ridge, r)
        right = right.at[: u.size].add(-u / scale[: u.size])
        change = (solve_linear(normal, right) / scale)[: u.size]
        # At most one prior width per step: the profile's derivative in vsini says little about far away.
        return jnp.clip(
            u + jnp.clip(change, -1.0, 1.0), (low - centre) / width, (high - centre) / width
        ), coefs

    def score(u, coefs):
        model = spectrum(u)
        coefs = continuum(model, continuum(model, coefs))
        r, weight = residual(model, coefs)
        return model, coefs, r, jnp.minimum(r**2 * weight, config.clip**2)

    slow, usual = jnp.zeros(len(ADJUSTED)), FITTED["vsini"].mean
    ends = [
        jax.lax.fori_loop(
            0,
            config.steps,
            step,
            (slow.at[ADJUSTED.index("vsini")].set((v - usual) / config.vsini_prior), flat),
        )
        for v in config.vsini_start
    ]
    candidates = jnp.stack([jnp.sum(score(*end)[3]) for end in ends])
    u, coefs = jax.tree.map(lambda *x: jnp.stack(x)[jnp.argmin(candidates)], *ends)

    model, coefs, r, squares = score(u, coefs)
    good = ivar > 0.0

    def reduced(where):
        n_good = jnp.sum(good[where])
        n_parameters = config.continuum_degree + 1 + 4 / len(instrument.arms)
        return jnp.where(
            n_good > 0,
            jnp.sum(squares[where] * good[where]) / jnp.maximum(n_good - n_parameters, 1.0),
            jnp.nan,
        )

    by_arm = jnp.stack([reduced(where) for where in instrument.slices.values()])
    count = jnp.stack([jnp.sum(good[where]) for where in instrument.slices.values()])
    chi2 = jnp.sum(jnp.where(count > 0, by_arm * count, 0.0)) / jnp.sum(count)
    # Clipped as above, or a single cosmic ray would make the number.
    noise = jnp.where(good, 1.0 / jnp.where(good, ivar, 1.0), 0.0)
    clipped = jnp.minimum(r**2, config.clip**2 * (noise + model_sigma(model, config) ** 2))
    excess = jnp.sum(jnp.where(good, clipped - noise, 0.0)) / jnp.maximum(jnp.sum(good), 1)
    error = jnp.sqrt(noise + model_sigma(model, config) ** 2)
    above = jnp.maximum(jnp.sum(good & (r > config.clip * error)), 1) / jnp.maximum(jnp.sum(good), 1)
    structure, stated, factors = [], [], []
    for arm, where in zip(instrument.arms, instrument.slices.values(), strict=True):
        middle = 0.5 * (arm.low + arm.high)
        lag = max(round(0.5 * middle / arm.resolution(middle) / arm.step), 1)
        z = jnp.clip(r[where] / error[where], -config.clip, config.clip)
        pairs = good[where][lag:] & good[where][:-lag]
        n_pairs = jnp.maximum(jnp.sum(pairs), 1)
        structure.append(jnp.sum(jnp.where(pairs, z[lag:] * z[:-lag], 0.0)) / n_pairs)
        factors += _error_factors(r[where] * jnp.sqrt(ivar[where]), good[where])
        share = (model_sigma(model[where], config) / error[where]) ** 2
        stated.append(jnp.sum(jnp.where(good[where], share, 0.0)) / jnp.maximum(jnp.sum(good[where]), 1))
    # A chance product of few pixels can be negative: nothing is there then.
    structure, stated = 1.0 + jnp.maximum(jnp.stack(structure), -0.9), jnp.stack(stated)
    worse = jnp.argmax(structure)
    v = centre + width * u
    nuisances = Nuisances(vmic=v[2], vmac=vmac, vsini=v[1], velocity=v[0], resolution=v[3])
    return Fit(
        chi2,
        by_arm,
        above,
        structure[worse],
        stated[worse],
        jnp.max(jnp.stack(factors)),
        jnp.sqrt(jnp.maximum(excess, 0.0)),
        model * (coefs @ basis),
        nuisances,
    )


def _error_factors(z, good):
    """By which factors errors are too small and too large, of residuals in units of them; 1 where too few
    pixels tell."""
    inner = good[1:-1] & good[2:] & good[:-2]
    bend = (2.0 * z[1:-1] - z[2:] - z[:-2]) / np.sqrt(6.0)
    enough = jnp.sum(inner) >= FEWEST_PIXELS
    rough, wide = (
        1.4826 * jnp.nanmedian(jnp.where(use, jnp.abs(x), jnp.nan)) for x, use in ((bend, inner), (z, good))
    )
    return [jnp.where(enough, x, 1.0) for x in (rough, 1.0 / jnp.maximum(wide, 1e-3))]


def continuum_basis(instrument, degree):
    """Chebyshev polynomials of each arm on all pixels, zero outside their arm: `[n_arms * (degree + 1),
    p]`."""
    basis = np.zeros((len(instrument.arms), degree + 1, instrument.n_pixels))
    for i, where in enumerate(instrument.slices.values()):
        basis[i, :, where] = np.polynomial.chebyshev.chebvander(
            np.linspace(-1.0, 1.0, where.stop - where.start), degree
        ).T
    return basis.reshape(-1, instrument.n_pixels)
