"""Labels on the common scale, and what a survey would report, with full errors.

A measurement is freed from noise on its survey's own scale, with what that survey's stars look like as a
prior, and then moved: by the survey's offset to the common scale, by another survey's offset to that
survey's. The offsets' errors and their correlations come from the draws; a pair of surveys never seen
together needs nothing special. Stars with several measurements use all of them at once, draw by draw.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from jaxspec.errors import InputError
from jaxspec.surveys.denoising import denoise, survey_noise
from jaxspec.surveys.density import to_device
from jaxspec.surveys.marginal import SurveyTerms, gather_evidence, star_posterior
from jaxspec.surveys.mixture import Mixture
from jaxspec.surveys.model import PopulationTerms, by_kind, whole
from jaxspec.surveys.observations import Sky
from jaxspec.surveys.results import Calibration
from jaxspec.surveys.tied import STARS, arrange, index_ties

PRIORS = ("population", "flat")
# Draws used for stars with several measurements.
STAR_DRAWS = 100


class Calibrated(NamedTuple):
    """Labels of stars, in the labels' units: `mean [n, l]`, `covariance [n, l, l]`, and the probability
    `outlier [n]` that the measurement (the worst, where there are several) is an outlier. The mean of a star
    measured once holds if it is not, and its errors are wide where it may well be; see `populations.denoise`,
    and with several measurements `marginal.star_posterior`."""

    mean: Float[np.ndarray, "n l"]
    covariance: Float[np.ndarray, "n l l"]
    outlier: Float[np.ndarray, " n"]

    @property
    def error(self) -> Float[np.ndarray, "n l"]:
        """One-sigma errors."""
        return np.sqrt(np.diagonal(self.covariance, axis1=1, axis2=2))


def calibrate(
    result: Calibration,
    survey: str,
    values: Float[np.ndarray, "n l"],
    covariance: Float[np.ndarray, "n l l"],
    flagged: Bool[np.ndarray, " n"] | None = None,
    prior: str = "population",
) -> Calibrated:
    """Labels on the common scale of new stars that one survey measured (NaN missing), in the labels' units.

    `prior="population"` improves noisy labels, and fills missing ones, by what the survey's stars look like;
    choose `"flat"` for stars of another kind, or where labels will be averaged over many stars: missing
    labels then have errors beyond use. Raises `InputError` for unknown surveys and priors and wrong shapes.
    """
    s, mean, noise_free, bad = _own_scale(result, survey, values, covariance, flagged, prior)
    theta, move, x = _to_common(result, s, mean)
    total = noise_free + _offset_covariance(result, x, x, s, s)
    total = move @ total @ np.swapaxes(move, 1, 2)
    scales = result.scales
    return Calibrated(scales.to_labels(theta), scales.covariance_to_labels(total), bad)


def predict(
    result: Calibration,
    target: str,
    survey: str,
    values: Float[np.ndarray, "n l"],
    covariance: Float[np.ndarray, "n l l"],
    flagged: Bool[np.ndarray, " n"] | None = None,
    target_covariance: Float[np.ndarray, "n l l"] | None = None,
    prior: str = "population",
) -> Calibrated:
    """Values that survey `target` would report for stars that `survey` measured, in the labels' units.

    The covariance is that of the report itself: it includes the target's own scatter, and its quoted errors
    times its error factor. Those are `target_covariance` where given, else the mean of what it quotes for
    stars like these (see `quoted`). Labels that the target does not measure are NaN. Raises `InputError` like
    `calibrate`.
    """
    t = result.index(target)
    s, mean, noise_free, bad = _own_scale(result, survey, values, covariance, flagged, prior)
    theta, move, x = _to_common(result, s, mean)
    coefficients = result.coefficients.mean(axis=0)
    matrix, x_there = _design(result, t, theta)
    through = matrix @ move
    reported = theta + x_there @ coefficients[t].T
    cross = through @ _offset_covariance(result, x, x_there, s, t)
    total = through @ (noise_free + _offset_covariance(result, x, x, s, s)) @ np.swapaxes(through, 1, 2)
    total += _offset_covariance(result, x_there, x_there, t, t) - cross - np.swapaxes(cross, 1, 2)
    return _report(result, t, reported, total, target_covariance, bad)


def calibrate_sky(
    result: Calibration, sky: Sky, prior: str = "population", n_draws: int = STAR_DRAWS
) -> Calibrated:
    """Labels on the common scale of every star of a sky whose surveys were fitted, NaN for stars without any
    value. Stars with several measurements use all of them."""
    return _sky(result, sky, None, prior, n_draws)


def predict_sky(
    result: Calibration, sky: Sky, target: str, prior: str = "population", n_draws: int = STAR_DRAWS
) -> Calibrated:
    """Values that survey `target` would report for every star, from all that is known of it."""
    return _sky(result, sky, target, prior, n_draws)


def _sky(result: Calibration, sky: Sky, target: str | None, prior: str, n_draws: int) -> Calibrated:
    n_labels = len(sky.label_set)
    for survey in sky.surveys:
        result.index(survey.name)
    mean = np.full((sky.n_stars, n_labels), np.nan)
    covariance = np.full((sky.n_stars, n_labels, n_labels), np.nan)
    outlier = np.full(sky.n_stars, np.nan)
    for survey in sky.surveys:
        for begin in range(0, len(survey), STARS):
            rows = slice(begin, begin + STARS)
            values, cov = np.asarray(survey.values[rows], float), np.asarray(survey.covariance[rows], float)
            arguments = (survey.name, values, cov, np.asarray(survey.flagged[rows]))
            found = (
                calibrate(result, *arguments, prior=prior)
                if target is None
                else predict(result, target, *arguments, prior=prior)
            )
            there = ~np.isnan(values).all(axis=1)
            star = survey.star[rows][there]
            mean[star], covariance[star], outlier[star] = (x[there] for x in found)
    try:
        index = index_ties(sky)
    except InputError:
        return Calibrated(mean, covariance, outlier)
    target_index = None if target is None else result.index(target)
    for begin in range(0, len(index), STARS):
        which = np.arange(begin, min(begin + STARS, len(index)))
        star, found = _tied(result, sky, index, which, target_index, n_draws)
        mean[star], covariance[star], outlier[star] = found
    return Calibrated(mean, covariance, outlier)


def _tied(result: Calibration, sky: Sky, index, which, target: int | None, n_draws: int):
    """The same for stars with several measurements, over draws of the offsets and the population."""
    scales, basis = result.scales, result.basis
    order = np.array([result.index(name) for name in sky.names])
    blocks, n_field = arrange(sky, scales, basis, index, which)
    blocks = [block._replace(survey=order[block.survey]) for block in blocks]
    chosen = np.linspace(0, result.n_draws - 1, min(n_draws, result.n_draws)).astype(int)
    states = whole(blocks, n_field).states
    same_classes = result.population["log_weight"].shape[1] == max(index.n_classes, 1)

    def one_draw(draw, blocks):
        terms, population = draw
        if not same_classes:  # another sky than the one fitted: the average star's weights
            weight = jnp.mean(population.log_weight, axis=0, keepdims=True)
            population = population._replace(log_weight=jnp.repeat(weight, max(index.n_classes, 1), axis=0))
        batch = whole(list(blocks), n_field)
        evidence = gather_evidence(terms, batch.blocks, states, scales.input_matrix)
        return by_kind(star_posterior, result.group_prior, population, batch, evidence, states)

    with jax.enable_x64(True):
        terms = SurveyTerms(**{k: jnp.asarray(v[chosen]) for k, v in result.terms.items()})
        population = PopulationTerms(**{k: jnp.asarray(v[chosen]) for k, v in result.population.items()})
        device = to_device(whole(blocks, n_field)).blocks
        run = jax.jit(lambda draws, blocks: jax.lax.map(lambda d: one_draw(d, blocks), draws))
        found = run((terms, population), device)
    star = np.concatenate([block.star for block in blocks])
    mean = np.concatenate([np.asarray(x.mean) for x in found], axis=1)
    spread = np.concatenate([np.asarray(x.covariance) for x in found], axis=1)
    outlier = np.concatenate([np.asarray(x.outlier).mean(axis=0).max(axis=1) for x in found])
    if target is not None:
        coefficients = result.coefficients[chosen][:, target]
        for d in range(len(chosen)):
            matrix, x = _design(result, target, mean[d], coefficients[d])
            mean[d] += x @ coefficients[d].T
            spread[d] = matrix @ spread[d] @ np.swapaxes(matrix, 1, 2)
    average = mean.mean(axis=0)
    deviation = mean - average
    total = spread.mean(axis=0) + np.einsum("dni,dnj->nij", deviation, deviation) / len(chosen)
    if target is not None:
        return star, tuple(_report(result, target, average, total, None, outlier))
    return star, (scales.to_labels(average), scales.covariance_to_labels(total), outlier)


def _own_scale(result: Calibration, survey: str, values, covariance, flagged, prior: str):
    """Survey index, and mean, covariance and outlier probability of noise-free labels on its scale."""
    s = result.index(survey)
    if prior not in PRIORS:
        raise InputError("prior", repr(prior), f"one of {', '.join(PRIORS)}", "check the spelling")
    values = np.asarray(values, float)
    n, n_labels = len(values), len(result.label_set)
    flagged = np.zeros(n, bool) if flagged is None else np.asarray(flagged)
    for name, shape, expected in (
        ("values", values.shape, (n, n_labels)),
        ("covariance", np.shape(covariance), (n, n_labels, n_labels)),
        ("flagged", flagged.shape, (n,)),
    ):
        if shape != expected:
            raise InputError(f"calibrate, {name}", f"shape {shape}", f"{expected}", "one row per star")
    scales, terms = result.scales, result.terms
    noise = survey_noise(terms, s, scales.covariance_to_model(np.asarray(covariance, float)))
    mixture = result.mixtures[s]
    if prior == "flat":
        average, spread = mixture.moments
        mixture = Mixture(np.ones(1), average[None], 1e4 * spread[None])
    logit = terms["outlier_logit"][:, s].mean() + flagged * terms["outlier_flag"][:, s].mean()
    if prior == "flat":
        logit = np.full(n, -np.inf)
    where = (logit, terms["outlier_centre"][:, s].mean(axis=0), terms["outlier_width"][:, s].mean(axis=0))
    return s, *denoise(mixture, scales.to_model(values), noise, where)


def _design(result: Calibration, s: int, theta, coefficients=None):
    """`D = d(report)/d(theta)` and the basis with a leading 1, at model coordinates `theta [n, l]`."""
    c = result.coefficients[:, s].mean(axis=0) if coefficients is None else coefficients
    inputs = result.scales.input_matrix
    u = theta @ inputs.T
    x = np.concatenate([np.ones((len(u), 1)), result.basis.values(u)], axis=1)
    slopes = np.einsum("lp,npj,ji->nli", c[:, 1:], result.basis.slopes(u), inputs)
    return np.eye(theta.shape[1]) + slopes, x


def _to_common(result: Calibration, s: int, reported, rounds: int = 6):
    """True labels of noise-free reports (Newton; one step where trends are linear), the derivative, and the
    basis there."""
    c = result.coefficients[:, s].mean(axis=0)
    theta = reported - c[:, 0]
    for _ in range(1 if result.basis.is_linear else rounds):
        matrix, x = _design(result, s, theta, c)
        theta = theta - np.linalg.solve(matrix, (theta + x @ c.T - reported)[:, :, None])[:, :, 0]
    matrix, x = _design(result, s, theta, c)
    return theta, np.linalg.inv(matrix), x


def _offset_covariance(result: Calibration, x, y, s: int, t: int) -> Float[np.ndarray, "n l l"]:
    """Posterior covariance between the offset of survey `s` at basis `x` and that of `t` at `y`."""
    draws = result.coefficients
    d = (draws - draws.mean(axis=0)).reshape(len(draws), len(result.names), -1)
    n_labels, n_basis = draws.shape[2:]
    covariance = (d[:, s].T @ d[:, t] / len(d)).reshape(n_labels, n_basis, n_labels, n_basis)
    return np.einsum("na,iajb,nb->nij", x, covariance, y, optimize=True)


def _report(result: Calibration, t: int, mean, covariance, quoted, bad) -> Calibrated:
    """The report's own scatter and noise added, labels that the survey does not measure taken out."""
    scales = result.scales
    if quoted is None:
        near = result.quoted[t].near(mean @ scales.input_matrix.T)
        quoted = near[:, :, None] * np.eye(mean.shape[1])
    else:
        quoted = scales.covariance_to_model(np.nan_to_num(np.asarray(quoted, float)))
    total = covariance + survey_noise(result.terms, t, quoted)
    absent = ~result.measured[t]
    mean = np.where(absent, np.nan, mean)
    total = np.where(absent[:, None] | absent[None], np.nan, total)
    return Calibrated(scales.to_labels(mean), scales.covariance_to_labels(total), bad)
