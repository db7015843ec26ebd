"""Distribution of each survey's stars, on the survey's own scale.

Learned after the offsets, from every star that a survey has, whether others saw it or not: this is the
prior with which noisy labels are improved. On the survey's own scale it does not depend on the offset, so
that an offset's error moves a star and its prior alike and is not mistaken for information.
"""

import numpy as np
from jaxtyping import Float

from jaxspec.surveys.marginal import RIVAL
from jaxspec.surveys.mixture import Evidence, Mixture, choose_mixture, deconvolve, evidence_of, posterior
from jaxspec.surveys.model import Structure
from jaxspec.surveys.observations import Sky, Survey
from jaxspec.surveys.scales import Scales

MOST_STARS = 4000
MOST_COMPONENTS = 4


def survey_mixtures(sky: Sky, structure: Structure, terms: dict[str, np.ndarray]) -> tuple[Mixture, ...]:
    """One mixture per survey, in model coordinates on its own scale, from some `MOST_STARS` of its rows."""
    rng = np.random.default_rng(0)
    common = structure.mixture
    result = []
    for s, survey in enumerate(sky.surveys):
        zero_point = terms["zero_point"][:, s].mean(axis=0)
        evidence, usable = _evidence(survey, structure.scales, terms, s)
        # A survey that lacks labels says nothing of them: the population of the tied stars stands in.
        shifted = common._replace(mean=common.mean + zero_point)
        prior = 0.1 * common.moments[1] + 0.01 * np.eye(len(zero_point))
        enough = usable.sum() > 10 * len(zero_point)
        if structure.measured[s].all() and enough:
            start = choose_mixture(Evidence(*(x[usable] for x in evidence)), MOST_COMPONENTS, rng)
        else:
            start = shifted
        result.append(deconvolve(evidence, start, prior, 20, usable.astype(float))[0] if enough else start)
    return tuple(result)


def _evidence(survey: Survey, scales: Scales, terms: dict[str, np.ndarray], s: int):
    """Evidence of the labels on the survey's own scale, and which rows are no outliers."""
    rows = slice(None, None, max(1, len(survey) // MOST_STARS))
    values = scales.to_model(np.asarray(survey.values[rows], float))
    noise = survey_noise(terms, s, scales.covariance_to_model(np.asarray(survey.covariance[rows], float)))
    centre, width = terms["outlier_centre"][:, s].mean(axis=0), terms["outlier_width"][:, s].mean(axis=0)
    far = np.nanmax(np.abs(values - centre) / width, axis=1, initial=0.0, where=~np.isnan(values)) > 3.5
    usable = ~np.asarray(survey.flagged[rows]) & ~far & (~np.isnan(values)).any(axis=1)
    return evidence_of(values, noise), usable


def survey_noise(
    terms: dict[str, np.ndarray], s: int, covariance: Float[np.ndarray, "n l l"]
) -> Float[np.ndarray, "n l l"]:
    """Covariance of measurements about the survey's own scale: inflated errors, and scatter. Of a survey with
    errors only, the diagonal of their `covariance` counts."""
    factor, correlation = terms["inflation"][:, s], terms["correlation"][:, s].mean(axis=0)
    if correlation.any():
        covariance = covariance * np.eye(covariance.shape[-1])
    inflation = np.einsum("di,dj->ij", factor, factor) / len(factor)
    scatter = terms["scatter"][:, s].mean(axis=0)
    noise = inflation * covariance + scatter + 1e-6 * np.eye(covariance.shape[-1])
    size = np.sqrt(np.diagonal(noise, axis1=1, axis2=2))
    return noise + size[:, :, None] * correlation * size[:, None, :]


def denoise(
    mixture: Mixture,
    values: Float[np.ndarray, "n l"],
    noise: Float[np.ndarray, "n l l"],
    outlier: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> tuple[Float[np.ndarray, "n l"], Float[np.ndarray, "n l l"], Float[np.ndarray, " n"]]:
    """Mean and covariance of labels on the survey's own scale, and the probability that a row is an outlier.

    The mean holds if it is not: an unusual star must not be moved to where the usual ones are. So does the
    covariance, as a per cent of outliers would otherwise double the errors of all; but where the row is
    an outlier with odds above `RIVAL`, the star may be anything that the mixture holds. `outlier` has each
    row's log-odds before its values are seen, and the centre and width of outliers.
    """
    logit, centre, width = outlier
    evidence = evidence_of(values, noise)
    there = ~np.isnan(values)
    log_prob, mean, covariance = posterior(evidence, mixture)
    filled = np.nan_to_num(values)
    pairs = there[:, :, None] & there[:, None, :]
    log_det = np.linalg.slogdet(np.where(pairs, noise, np.eye(values.shape[1])))[1]
    quadratic = np.einsum("ni,ni->n", evidence.vector, filled)
    n_there = there.sum(axis=1)
    log_prob = log_prob - 0.5 * (quadratic + log_det + n_there * np.log(2 * np.pi))[:, None]
    z = (filled - centre) / width
    wild = np.where(there, -0.5 * z**2 - np.log(width) - 0.5 * np.log(2 * np.pi), 0.0).sum(axis=1)
    top = log_prob.max(axis=1)
    inlier = top + np.log(np.exp(log_prob - top[:, None]).sum(axis=1))
    odds = np.clip(inlier - wild - logit, -700.0, 700.0)
    bad = 1.0 / (1.0 + np.exp(odds))
    weight = np.exp(log_prob - inlier[:, None])
    average = np.einsum("nk,nki->ni", weight, mean)
    d = mean - average[:, None]
    total = np.einsum("nk,nkij->nij", weight, covariance + d[..., :, None] * d[..., None, :])
    middle, spread = mixture.moments
    d = average - middle
    share = np.where(bad > RIVAL * (1.0 - bad), bad, 0.0)[:, None, None]
    return average, (1.0 - share) * total + share * (spread + d[:, :, None] * d[:, None, :]), bad
