"""The likelihood of a star with its true labels integrated out, exactly.

A measurement is `y = theta + delta(theta) + noise`; where `delta` is linear (or linearised) in `theta`,
`y = D theta + a + noise`. Given which of a star's measurements are outliers and which component of the
population it belongs to, everything is Gaussian, and in information form the integral over `theta` takes
one inverse of `J + P`, with `J = sum D' N^-1 D` over measurements and `P` the population's precision.

An outlier says nothing of its star: it is drawn from a broad Gaussian over all that its survey reports.
Outliers are summed over exactly: all 2^m configurations of a star's m measurements up to m = 4, beyond that
those with at most two outliers.

`tests/surveys/test_marginal.py` compares with brute force.
"""

from itertools import combinations
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxspec.linear import inverse_and_log_det
from jaxspec.surveys.tied import Block

# Added to every noise covariance, in squared model units (a tenth of a kelvin): keeps it invertible.
JITTER = 1e-6
ENUMERATED = 4
# Configurations of outliers that are this many times as likely as the most likely one count in the moments.
RIVAL = 0.2
LOG_2PI = float(np.log(2.0 * np.pi))


class SurveyTerms(NamedTuple):
    """Zero points, slopes and errors of each survey, in model coordinates.

    `zero_point [s, l]`; `trend [s, l, p]`; `scatter [s, l, l]`, a covariance; `inflation [s, l]` of quoted
    errors; `correlation [s, l, l]`, where nothing but errors is quoted, of each two labels' scatter and noise
    together (their `scatter` is diagonal then), else zero, as is its diagonal; `outlier_centre [s, l]` and
    `outlier_width [s, l]`, where outliers lie; `outlier_logit [s]` of their probability for rows without
    flags and `outlier_flag [s]`, to be added for flagged ones.
    """

    zero_point: Float[Array, "s l"]
    trend: Float[Array, "s l p"]
    scatter: Float[Array, "s l l"]
    inflation: Float[Array, "s l"]
    correlation: Float[Array, "s l l"]
    outlier_centre: Float[Array, "s l"]
    outlier_width: Float[Array, "s l"]
    outlier_logit: Float[Array, " s"]
    outlier_flag: Float[Array, " s"]


class Population(NamedTuple):
    """Gaussian components as the stars of a block see them: `mean [k, l]`, or one for each star `[n, k, l]`;
    `precision [k, l, l]`, its `log_det [k]`, and `log_weight`, `[k]` or `[n, k]`."""

    mean: Float[Array, "*n k l"]
    precision: Float[Array, "k l l"]
    log_det: Float[Array, " k"]
    log_weight: Float[Array, "*n k"]


class Evidence(NamedTuple):
    """What a star's measurements say in each configuration `c` of outliers: information `[c, l, l]`, its
    product with the labels `[c, l]`, and everything of the log-likelihood that is free of theta `[c]`."""

    information: Float[Array, "*n c l l"]
    vector: Float[Array, "*n c l"]
    log_constant: Float[Array, "*n c"]


@jax.custom_jvp
def log_integral(precision: Float[Array, "*n l l"], vector: Float[Array, "*n l"]) -> Float[Array, "*n"]:
    """Log of the integral of exp(-x' precision x / 2 + x' vector), less l/2 log(2 pi)."""
    covariance, log_det = inverse_and_log_det(precision)
    return 0.5 * (jnp.einsum("...i,...ij,...j->...", vector, covariance, vector) - log_det)


@log_integral.defjvp
def _log_integral_jvp(primals, tangents):
    # The derivatives are the moments of the Gaussian: no product of matrices needed.
    (precision, vector), (d_precision, d_vector) = primals, tangents
    covariance, log_det = inverse_and_log_det(precision)
    mean = jnp.einsum("...ij,...j->...i", covariance, vector)
    second = covariance + mean[..., :, None] * mean[..., None, :]
    value = 0.5 * (jnp.sum(vector * mean, axis=-1) - log_det)
    change = jnp.sum(mean * d_vector, axis=-1) - 0.5 * jnp.sum(second * d_precision, axis=(-2, -1))
    return value, change


def configurations(m: int) -> Bool[np.ndarray, "c m"]:
    """Which of `m` measurements are outliers: all subsets up to m = 4, else those of up to two."""
    most = m if m <= ENUMERATED else 2
    rows = [set(c) for size in range(most + 1) for c in combinations(range(m), size)]
    return np.array([[i in row for i in range(m)] for row in rows])


def pick(terms: Float[Array, "s *t"], survey) -> Float[Array, "*t"]:
    """The terms of one survey. A product with an indicator: its gradient is another product, where that of
    indexing would be a slow scatter."""
    return jnp.tensordot(jax.nn.one_hot(survey, terms.shape[0], dtype=terms.dtype), terms, 1)


def noise_of(terms: SurveyTerms, survey, covariance, present) -> Float[Array, "l l"]:
    """Covariance of one measurement about its survey's scale; the identity for missing labels."""
    # Squared before the survey is picked: the gradient then sums over stars first.
    squared = terms.inflation[:, :, None] * terms.inflation[:, None, :]
    eye = jnp.eye(covariance.shape[0], dtype=squared.dtype)
    noise = pick(squared, survey) * covariance + pick(terms.scatter, survey) + JITTER * eye
    size = jnp.sqrt(jnp.diagonal(noise))
    noise = noise + size[:, None] * pick(terms.correlation, survey) * size
    return jnp.where(present[:, None] & present[None], noise, eye)


def outlier_logit(terms: SurveyTerms, survey, flagged) -> Float[Array, ""]:
    """Log-odds that a measurement is an outlier, before its values are looked at."""
    return pick(terms.outlier_logit, survey) + flagged * pick(terms.outlier_flag, survey)


def outlier_log_prob(terms: SurveyTerms, survey, values, present) -> Float[Array, ""]:
    """Log-density of the values of an outlier."""
    width = pick(terms.outlier_width, survey)
    z = (values - pick(terms.outlier_centre, survey)) / width
    return jnp.sum(jnp.where(present, -0.5 * z**2 - jnp.log(width) - 0.5 * LOG_2PI, 0.0))


def measurement_evidence(
    terms: SurveyTerms, inputs, precision, log_det, survey, values, present, flagged, phi, slope
) -> tuple[Float[Array, "l l"], Float[Array, " l"], Float[Array, ""], Float[Array, ""]]:
    """What one measurement says of theta, given the inverse of its noise and the log-determinant of that:
    information, vector and log-constant as an inlier, and its log-probability as an outlier."""
    precision = jnp.where(present[:, None] & present[None], precision, 0.0)
    trend = pick(terms.trend, survey)
    residual = jnp.where(present, values - pick(terms.zero_point, survey) - trend @ phi, 0.0)
    along = slope @ inputs
    side = precision @ trend
    cross = side @ along
    information = precision + cross + cross.T + along.T @ (trend.T @ side) @ along
    weighted = precision @ residual
    vector = weighted + along.T @ (trend.T @ weighted)
    logit = outlier_logit(terms, survey, flagged)
    constant = -0.5 * (jnp.dot(residual, weighted) + log_det + LOG_2PI * jnp.sum(present))
    outlier = jax.nn.log_sigmoid(logit) + outlier_log_prob(terms, survey, values, present)
    return information, vector, jax.nn.log_sigmoid(-logit) + constant, outlier


def split(values: Float[Array, "m *t"], sizes: list[int]) -> list[Array]:
    """Parts of an array along its first axis. The gradient puts them together again, where that of slices
    would be a sum of arrays of full size."""
    return jnp.split(values, np.cumsum(sizes)[:-1])


def gather_evidence(
    terms: SurveyTerms,
    blocks: tuple[Block, ...],
    states: tuple[np.ndarray, ...],
    inputs: Float[Array | np.ndarray, "j l"],
) -> list[Evidence]:
    """Evidence of every star of every block, in each of the block's configurations of outliers."""

    def flat(name):
        parts = [jnp.asarray(getattr(block, name)) for block in blocks]
        if name in ("phi", "slope"):  # one per star, wanted once per measurement
            parts = [jnp.repeat(x, b.survey.shape[1], axis=0) for x, b in zip(parts, blocks, strict=True)]
            return jnp.concatenate(parts)
        return jnp.concatenate([x.reshape(-1, *x.shape[2:]) for x in parts])

    survey, present = flat("survey"), flat("present")
    noise = jax.vmap(lambda *row: noise_of(terms, *row))(survey, flat("covariance"), present)
    columns = (survey, flat("values"), present, *(flat(name) for name in ("flagged", "phi", "slope")))
    found = jax.vmap(lambda *row: measurement_evidence(terms, inputs, *row))(
        *inverse_and_log_det(noise), *columns
    )
    result = []
    for block, outliers, *of_block in zip(
        blocks, states, *(split(x, [b.survey.size for b in blocks]) for x in found), strict=True
    ):
        part = [x.reshape(*block.survey.shape, *x.shape[1:]) for x in of_block]
        out = jnp.asarray(outliers, part[0].dtype)
        result.append(
            Evidence(
                jnp.einsum("cm,nmij->ncij", 1.0 - out, part[0]),
                jnp.einsum("cm,nmi->nci", 1.0 - out, part[1]),
                jnp.einsum("cm,nm->nc", 1.0 - out, part[2]) + jnp.einsum("cm,nm->nc", out, part[3]),
            )
        )
    return result


def _cells(function, evidence: list[Evidence], population: list[Population]) -> list[tuple]:
    """A function of (precisions, vectors) of theta for each star, configuration and component of each block,
    `[n, c, k, ...]`, and what its integral leaves of the log-probability, `[n, c, k]`.

    All blocks go through the function at once: compiling it is what takes long. Their populations share mean
    and precision, or all have a mean for each star (`[n, k, l]`).
    """
    shapes = [one.log_constant.shape for one in evidence]
    own = population[0].mean.ndim == 3
    mean, precision, log_det, _ = population[0]
    if own:
        mean = jnp.concatenate(
            [jnp.repeat(p.mean, c, axis=0) for p, (_, c) in zip(population, shapes, strict=True)]
        )
    information = jnp.concatenate([e.information.reshape(-1, *e.information.shape[2:]) for e in evidence])
    vector = jnp.concatenate([e.vector.reshape(-1, e.vector.shape[2]) for e in evidence])
    pull = jnp.einsum("kij,...kj->...ki", precision, mean)
    constant = 0.5 * (log_det - jnp.sum(pull * mean, axis=-1))
    found = function(information[:, None] + precision, vector[:, None] + pull)
    sizes = [n * c for n, c in shapes]
    leaves, tree = jax.tree.flatten(found)
    rests = split(constant, sizes) if own else [constant] * len(sizes)
    result = []
    for one, prior, (n, c), rest, *parts in zip(
        evidence, population, shapes, rests, *(split(x, sizes) for x in leaves), strict=True
    ):
        rest = rest.reshape(n, c, -1) if own else rest
        weight = jnp.broadcast_to(prior.log_weight, (n, len(log_det)))
        parts = [x.reshape(n, c, *x.shape[1:]) for x in parts]
        whole = jax.tree.unflatten(tree, parts)
        result.append((whole, rest + one.log_constant[:, :, None] + weight[:, None]))
    return result


def log_likelihood(evidence: list[Evidence], population: list[Population]) -> list[Float[Array, " _"]]:
    """Log-likelihood of each star of each block, with its labels, component and outliers summed out."""
    return [
        jax.nn.logsumexp(integral + rest, axis=(1, 2))
        for integral, rest in _cells(log_integral, evidence, population)
    ]


class StarPosterior(NamedTuple):
    """Mean `[n, l]` and covariance `[n, l, l]` of each star's labels, and the probability `[n, m]` that each
    measurement is an outlier."""

    mean: Float[Array, "n l"]
    covariance: Float[Array, "n l l"]
    outlier: Float[Array, "n m"]


def star_posterior(
    evidence: list[Evidence], population: list[Population], states: tuple[np.ndarray, ...]
) -> list[StarPosterior]:
    """The posterior of each star's labels under given terms, collapsed to its first two moments.

    They are taken over the most likely configuration of outliers and those nearly as likely (`RIVAL`): a
    small chance of an outlier would widen every star's errors, but of two measurements that disagree neither
    is believed alone.
    """

    def moments(precision, vector):
        covariance, log_det = inverse_and_log_det(precision)
        mean = jnp.einsum("...ij,...j->...i", covariance, vector)
        return 0.5 * (jnp.sum(vector * mean, axis=-1) - log_det), mean, covariance

    result = []
    for ((integral, mean, covariance), rest), outliers in zip(
        _cells(moments, evidence, population), states, strict=True
    ):
        log_prob = integral + rest
        every = jax.nn.softmax(log_prob, axis=(1, 2))
        each = jnp.sum(every, axis=2, keepdims=True)
        weight = jnp.where(each >= RIVAL * jnp.max(each, axis=1, keepdims=True), every, 0.0)
        weight = weight / jnp.sum(weight, axis=(1, 2), keepdims=True)
        average = jnp.einsum("nck,ncki->ni", weight, mean)
        deviation = mean - average[:, None, None]
        second = covariance + deviation[..., :, None] * deviation[..., None, :]
        result.append(
            StarPosterior(
                average,
                jnp.einsum("nck,nckij->nij", weight, second),
                jnp.einsum("nck,cm->nm", every, jnp.asarray(outliers, mean.dtype)),
            )
        )
    return result
