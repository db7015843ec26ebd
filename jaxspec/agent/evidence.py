"""One likelihood for all hypotheses about a spectrum, their best fits, and Laplace's evidence.

A pixel's error is its noise and a stated error of the model in quadrature. The model's part follows from the
spectrum itself, not from any model of it, so that it is the same for every hypothesis; nothing is rescaled
to what a hypothesis leaves over. A pixel is an outlier with a small probability. Errors of the model are
shared by the pixels of a line, so a pixel in which they dominate counts as its share of one independent
number (a composite likelihood: Varin, Reid & Firth 2011, Statistica Sinica 21, 5).

The evidence is Laplace's approximation (MacKay 2003, Information Theory, Inference, and Learning Algorithms,
section 27) with normalised priors of all parameters, linear ones included. Host code in float64 but for the
spectra of the forward model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.linalg import cho_factor, cho_solve
from scipy.ndimage import gaussian_filter1d

from jaxspec.agent.hypotheses import Extra, Hypothesis, Star
from jaxspec.instruments import Instrument

Vector = Float[np.ndarray, " _"]
LOG_2PI = float(np.log(2.0 * np.pi))


@dataclass(frozen=True)
class Errors:
    """How wrong a spectrum may be beside its stated noise.

    Attributes:
        floor: of the model everywhere (fraction of the continuum).
        line_error: of the model in lines, as a fraction of their depth.
        length: width of a line [A], within which the model's error is one.
        outliers: share of pixels that nothing explains.
        wide: their errors, in units of the ordinary ones.
    """

    floor: float = 0.006
    line_error: float = 0.12
    length: float = 0.35
    outliers: float = 0.002
    wide: float = 8.0


EXACT = Errors(floor=0.0, line_error=0.0)
"""For simulations on which the forward model is exactly right."""


class Data(NamedTuple):
    """A spectrum as all hypotheses see it: normalised flux, total error, the noise in it, weight of a pixel
    as a number of independent ones (0: not used), and what the outliers are."""

    flux: Float[np.ndarray, " p"]
    sigma: Float[np.ndarray, " p"]
    noise: Float[np.ndarray, " p"]
    weight: Float[np.ndarray, " p"]
    instrument: Instrument
    errors: Errors

    @property
    def good(self) -> Bool[np.ndarray, " p"]:
        return self.weight > 0.0


class Evidence(NamedTuple):
    """The best fit of one hypothesis.

    Attributes:
        name: of the hypothesis.
        names, theta: nonlinear parameters.
        linear: amplitudes, by arm continuum and light, then of extra columns.
        covariance: of the nonlinear parameters, everything else marginalised.
        log_likelihood: natural log, at the best fit.
        log_evidence: natural log, by Laplace.
        n_parameters: all of them.
        bic: Bayesian information criterion (Schwarz 1978), smaller is better.
        chi2: mean squared residual in units of the total error, clipped at 4, of each arm; NaN without
            pixels.
        model: best model `[p]`, continuum and all.
        steps: that were taken.
    """

    name: str
    names: tuple[str, ...]
    theta: Vector
    linear: Float[np.ndarray, " m"]
    covariance: Float[np.ndarray, "k k"]
    log_likelihood: float
    log_evidence: float
    n_parameters: int
    bic: float
    chi2: Float[np.ndarray, " a"]
    model: Float[np.ndarray, " p"]
    steps: int

    def value(self, name: str) -> float:
        """The best value of a parameter."""
        return float(self.theta[self.names.index(name)])

    def error(self, name: str) -> float:
        """Its standard deviation."""
        i = self.names.index(name)
        return float(np.sqrt(max(self.covariance[i, i], 0.0)))


def make_data(
    flux: Float[np.ndarray, " p"],
    ivar: Float[np.ndarray, " p"],
    instrument: Instrument,
    errors: Errors = Errors(),
) -> Data:
    """The data that hypotheses are compared on. The depth of lines is that of the spectrum itself, smoothed
    over half a line."""
    good = np.asarray(ivar) > 0.0
    flux = np.where(good, np.asarray(flux, float), 1.0)
    noise = np.where(good, 1.0 / np.sqrt(np.where(good, np.asarray(ivar, float), 1.0)), 1.0)
    stated, independent = np.zeros_like(flux), np.ones_like(flux)
    if errors.floor or errors.line_error:
        for arm, where in zip(instrument.arms, instrument.slices.values(), strict=True):
            pixels = errors.length / arm.step
            depth = np.clip(1.0 - gaussian_filter1d(flux[where], 0.25 * pixels), 0.0, 1.0)
            stated[where] = np.sqrt(errors.floor**2 + (errors.line_error * depth) ** 2)
            share = stated[where] ** 2 / (stated[where] ** 2 + noise[where] ** 2)
            independent[where] = 1.0 + share * (max(pixels, 1.0) - 1.0)
    sigma = np.sqrt(noise**2 + stated**2)
    return Data(flux, sigma, noise, np.where(good, 1.0 / independent, 0.0), instrument, errors)


def without_ends(data: Data, kms: float, margin: float = 80.0) -> Data:
    """The data without the ends of the arms that a shift by so many km/s would take from outside of the
    model, which reaches `margin` km/s beyond an arm."""
    reach = (abs(kms) - margin) / 299_792.458
    if reach <= 0.0:
        return data
    weight = data.weight.copy()
    wavelength = data.instrument.wavelength
    for arm, where in zip(data.instrument.arms, data.instrument.slices.values(), strict=True):
        w = wavelength[where]
        inside = (w > arm.low * (1.0 + reach)) & (w < arm.high * (1.0 - reach))
        weight[where] = np.where(inside, weight[where], 0.0)
    return data._replace(weight=weight)


def fit(star: Star, hypothesis: Hypothesis, data: Data, start: Vector, max_steps: int = 25) -> Evidence:
    """The best fit of a hypothesis from a start near it: damped Gauss-Newton with all linear amplitudes.

    Args:
        start: nonlinear parameters, in the hypothesis's order.
    """
    problem = _Problem(star, hypothesis, data)
    x = np.clip(np.asarray(start, float), problem.low, problem.high)
    now = problem.at(x, None)
    now = problem.at(x, problem.amplitudes(now))
    steps = 0
    while steps < max_steps:
        steps += 1
        change = problem.direction(now)
        scale, better = 1.0, None
        while scale > 0.05:
            k = len(problem.low)
            limited = np.clip(scale * change[:k], -problem.step, problem.step)
            trial = problem.at(
                np.clip(now.x + limited, problem.low, problem.high), now.c + scale * change[k:]
            )
            if trial.objective > now.objective:
                better = trial
                break
            scale *= 0.4
        if better is None:
            break
        gain, now = better.objective - now.objective, better
        if gain < 0.02:
            break
    return problem.result(now, steps)


class _Point(NamedTuple):
    """The model linearised at parameters `x` and amplitudes `c`."""

    x: Vector
    c: Vector
    seen: Float[np.ndarray, " p"]
    design: Float[np.ndarray, "n p"]  # derivatives by x, then the linear columns
    objective: float
    log_likelihood: float


class _Problem:
    def __init__(self, star: Star, hypothesis: Hypothesis, data: Data):
        self.star, self.hypothesis, self.data = star, hypothesis, data
        self.slices = tuple(data.instrument.slices.values())
        self.basis = hypothesis.continuum(data.instrument)
        self.mean, self.precision = hypothesis.prior(star.label_set)
        self.low, self.high, self.step = (
            np.array([getattr(p, end) for p in hypothesis.parameters]) for end in ("low", "high", "step")
        )
        self.arm_mean, self.arm_sigma = hypothesis.arm_prior()
        self.log_det_prior = np.linalg.slogdet(self.precision)[1]

    def linear_prior(self, extras: tuple[Extra, ...]) -> tuple[Vector, Vector]:
        """Means and standard deviations of all amplitudes."""
        n = len(self.slices)
        mean, sigma = [np.tile(self.arm_mean, n)], [np.tile(self.arm_sigma, n)]
        for extra in extras:
            mean.append(np.full(len(extra.columns), extra.mean))
            sigma.append(np.full(len(extra.columns), extra.sigma))
        return np.concatenate(mean), np.concatenate(sigma)

    def at(self, x: Vector, c: Vector | None) -> _Point:
        model, slopes = self.hypothesis.spectrum(self.star, x)
        extras = self.hypothesis.extra(self.data.instrument, x)
        mean, sigma = self.linear_prior(extras)
        c = mean if c is None else c
        columns = np.zeros((c.size, model.size))
        place, factor = 0, np.zeros_like(model)
        for where, basis in zip(self.slices, self.basis, strict=True):
            m = len(basis)
            columns[place : place + m, where] = basis * model[where]
            columns[place + m, where] = 1.0 - model[where]
            factor[where] = c[place : place + m] @ basis - c[place + m]
            place += m + 1
        own = np.zeros_like(slopes)
        for extra in extras:
            m = len(extra.columns)
            amplitude = c[place : place + m]
            shape = 1.0 if extra.plus else model
            columns[place : place + m] = extra.columns * shape
            if not extra.plus:
                factor = factor + amplitude @ extra.columns
            for i, slope in extra.slopes.items():
                own[i] += (amplitude @ slope) * shape
            place += m
        seen = c @ columns
        design = np.concatenate([slopes * factor + own, columns])
        log_likelihood = float(np.sum(self.data.weight * self._log_density(self.data.flux - seen)))
        away, off = x - self.mean, (c - mean) / sigma
        objective = log_likelihood - 0.5 * float(away @ self.precision @ away + off @ off)
        return _Point(x, c, seen, design, objective, log_likelihood)

    def _log_density(self, residual):
        errors, sigma = self.data.errors, self.data.sigma
        z2 = (residual / sigma) ** 2
        inlier = np.log1p(-errors.outliers) - 0.5 * z2
        outlier = np.log(errors.outliers / errors.wide) - 0.5 * z2 / errors.wide**2
        return np.logaddexp(inlier, outlier) - np.log(sigma) - 0.5 * LOG_2PI

    def _precision(self, residual):
        """Weights of pixels in least squares: of the mixture's two errors, as likely as each is."""
        errors, sigma = self.data.errors, self.data.sigma
        z2 = (residual / sigma) ** 2
        odds = np.log(errors.outliers / errors.wide / (1.0 - errors.outliers))
        outlier = 1.0 / (1.0 + np.exp(-np.clip(odds + 0.5 * z2 * (1.0 - errors.wide**-2.0), -50.0, 50.0)))
        return self.data.weight * (1.0 - outlier + outlier / errors.wide**2) / sigma**2

    def normal(self, point: _Point) -> tuple[Float[np.ndarray, "n n"], Vector]:
        """Matrix and right-hand side of a Gauss-Newton step, priors included."""
        residual = self.data.flux - point.seen
        weight = self._precision(residual)
        root = point.design * np.sqrt(weight)
        matrix, right = root @ root.T, point.design @ (weight * residual)
        k = len(self.mean)
        mean, sigma = self.linear_prior(self.hypothesis.extra(self.data.instrument, point.x))
        matrix[:k, :k] += self.precision
        right[:k] += self.precision @ (self.mean - point.x)
        rest = np.arange(k, len(right))
        matrix[rest, rest] += sigma**-2.0
        right[k:] += (mean - point.c) / sigma**2
        return matrix, right

    def direction(self, point: _Point) -> Vector:
        matrix, right = self.normal(point)
        # What stands at a limit and would go beyond stays, and the others step without it.
        held = np.zeros(len(right), bool)
        for _ in range(2):
            free = np.flatnonzero(~held)
            change = np.zeros(len(right))
            change[free] = _solve(matrix[np.ix_(free, free)], right[free])
            k = len(self.low)
            stuck = ((point.x <= self.low) & (change[:k] < 0.0)) | (
                (point.x >= self.high) & (change[:k] > 0.0)
            )
            if not stuck.any():
                break
            held[:k] |= stuck
        return change

    def amplitudes(self, point: _Point) -> Vector:
        """The best amplitudes at the point's nonlinear parameters."""
        matrix, right = self.normal(point)
        k = len(self.mean)
        return point.c + _solve(matrix[k:, k:], right[k:])

    def result(self, point: _Point, steps: int) -> Evidence:
        matrix, _ = self.normal(point)
        k, data = len(self.mean), self.data
        scale = 1.0 / np.sqrt(np.diag(matrix))
        scaled = matrix * np.outer(scale, scale)
        inverse = np.linalg.inv(scaled) * np.outer(scale, scale)
        log_det = np.linalg.slogdet(scaled)[1] - 2.0 * np.sum(np.log(scale))
        _, sigma = self.linear_prior(self.hypothesis.extra(data.instrument, point.x))
        log_det_prior = self.log_det_prior - 2.0 * np.sum(np.log(sigma))
        log_evidence = point.objective + 0.5 * (log_det_prior - log_det)
        z2 = np.minimum(((data.flux - point.seen) / data.sigma) ** 2, 16.0)
        chi2 = np.array([np.mean(z2[s][data.good[s]]) if data.good[s].any() else np.nan for s in self.slices])
        n = float(np.sum(data.weight))
        return Evidence(
            self.hypothesis.name,
            self.hypothesis.names,
            point.x,
            point.c,
            inverse[:k, :k],
            point.log_likelihood,
            float(log_evidence),
            len(matrix),
            float(len(matrix) * np.log(max(n, 1.0)) - 2.0 * point.log_likelihood),
            chi2,
            point.seen,
            steps,
        )


def _solve(matrix, right):
    scale = 1.0 / np.sqrt(np.diag(matrix))
    factor = cho_factor(matrix * np.outer(scale, scale) + 1e-10 * np.eye(len(right)))
    return cho_solve(factor, right * scale) * scale
