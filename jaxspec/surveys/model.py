"""The hierarchical model of stars and survey offsets, in NumPyro.

For star i with true labels theta_i, drawn from a population, survey s reports

    y = theta_i + delta_s(theta_i) + scatter + noise,   delta_s = zero point + trends,

with the survey's own scatter (full covariance between labels), its quoted errors times a factor for each
label, and a chance that the row is an outlier that says nothing of its star, which the survey's flags may
raise. Where no more than errors are quoted, scatter and noise together have one correlation matrix. Trends
are shrunk towards none. Anchors have no offset, scatter or factor of their own. The population is a Gaussian
mixture whose weights differ from one set of surveys to another, because surveys select; stars of one group
share their composition.

Every parameter is unbounded with a simple prior, in units in which it is of order one: the posterior is then
close to a Gaussian, which makes every method of inference fast. `marginal_model` has theta integrated out
(see `marginal`); `full_model` keeps it, and is the same model.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float

from jaxspec.errors import InputError
from jaxspec.surveys.basis import Basis
from jaxspec.surveys.identification import Identification, composition, find_overlap, identify, need_two
from jaxspec.surveys.marginal import (
    JITTER,
    LOG_2PI,
    Population,
    SurveyTerms,
    configurations,
    gather_evidence,
    log_likelihood,
    noise_of,
    outlier_log_prob,
    outlier_logit,
    pick,
)
from jaxspec.surveys.mixture import Mixture, choose_mixture, evidence_of, initial_mixture
from jaxspec.surveys.observations import Sky, Survey
from jaxspec.surveys.scales import Scales, check_trend_labels, make_scales, typical_error
from jaxspec.surveys.tied import Block, Measurements, TieIndex, index_ties, measurements_of

# Tied stars that the starting values are taken from.
MOST_FOR_START = 4000
# Prior standard deviation of how far the population is from the mixture it starts from, in the logarithm of
# the start's widths. The start is made of the same stars, and of directions narrower than their errors it
# knows the width no better than to a factor of two or three: a tight prior would count those stars twice.
POPULATION_SPREAD = 1.0


@dataclass(frozen=True)
class SurveyConfig:
    """Assumptions. Prior scales are in steps of the labels (`scales`: 100 K, 0.2 in log g, 0.1 dex).

    Attributes:
        trend_labels: labels that offsets may depend on; those not in the label set are left out.
        trend: `linear` (true labels are marginalised exactly), `quadratic` or `spline`.
        components: of the population; none chooses up to `most_components` by the information criterion.
        most_components: see `components`.
        reference: survey whose offset is zero where no anchor reaches; none makes the mean offset zero.
        pivot: labels at which zero points are stated; medians of the data where not given.
        zero_point: prior standard deviation of zero points.
        trend_scale: prior scale of trends over one spread of the population: small ones are shrunk, large
            ones are not (Student's t with four degrees of freedom).
        scatter: prior median of a survey's own scatter, where its quoted errors are right.
        noise_spread: prior standard deviation of the logarithm of each label's noise as a whole, quoted
            errors and scatter together.
        share_spread: and of the log-odds of which part of its variance is the survey's scatter, the rest
            being quoted errors times a factor: stars say much of the whole, and little of the parts.
        correlation: prior standard deviation of the free numbers of the correlations between labels
            (r / sqrt(1 - r^2) for two labels), of the scatter, or of scatter and errors together where a
            survey quotes no more than errors: large, as errors of one label go with another's in real
            surveys.
        outlier_rate: prior median of the probability that an unflagged row is an outlier.
        outlier_width: prior median of the width of outliers' values over that of all the survey's values.
        group_scatter: prior median of the scatter of abundances within a group.
    """

    trend_labels: tuple[str, ...] = ("teff", "logg", "fe_h")
    trend: str = "linear"
    components: int | None = None
    most_components: int = 3
    reference: str | None = None
    pivot: dict[str, float] = field(default_factory=dict)
    zero_point: float = 3.0
    trend_scale: float = 0.3
    scatter: float = 0.3
    noise_spread: float = 0.6
    share_spread: float = 1.5
    correlation: float = 0.5
    outlier_rate: float = 0.03
    outlier_width: float = 1.5
    group_scatter: float = 0.3

    def __post_init__(self):
        check_trend_labels(self.trend_labels)
        for name in (
            "zero_point",
            "trend_scale",
            "scatter",
            "noise_spread",
            "share_spread",
            "correlation",
            "outlier_width",
            "group_scatter",
        ):
            if not getattr(self, name) > 0:
                raise InputError(f"config.{name}", f"{getattr(self, name)}", "a number > 0", "change it")
        if not 0 < self.outlier_rate < 1:
            raise InputError("config.outlier_rate", f"{self.outlier_rate}", "between 0 and 1", "change it")
        if self.most_components < 1 or (self.components is not None and self.components < 1):
            raise InputError("config.components", f"{self.components}", "1 or more", "change it")


class Structure(NamedTuple):
    """What is fixed while the model is fitted: the configuration, the surveys' roles, coordinates, the
    population to start from, and the visits' statistics."""

    config: SurveyConfig
    names: tuple[str, ...]
    is_anchor: np.ndarray
    errors_only: np.ndarray
    zero_point_error: np.ndarray
    measured: np.ndarray
    typical_error: np.ndarray
    centre: np.ndarray
    width: np.ndarray
    scales: Scales
    basis: Basis
    identification: Identification
    projection: np.ndarray
    start: np.ndarray
    mixture: Mixture
    composition: tuple[int, ...]
    n_classes: int
    n_groups: int
    visit_chi2: np.ndarray
    visit_dof: np.ndarray

    @property
    def free(self) -> np.ndarray:
        """Indices of the surveys with an offset of their own."""
        return np.flatnonzero(~self.is_anchor)

    @property
    def group_prior(self) -> "GroupPrior":
        """Priors of the members of groups."""
        mean, covariance = self.mixture.moments
        return GroupPrior(np.stack([mean, np.diag(covariance)]), self.composition)


def prepare(sky: Sky, config: SurveyConfig) -> tuple[Structure, TieIndex]:
    """Everything that the model needs besides parameters, and the stars that tie the surveys together.

    Raises `InputError` for skies that say nothing (see `identification`)."""
    need_two(sky)
    scales = make_scales(sky, config.trend_labels, config.pivot)
    basis = Basis(config.trend, len(scales.inputs))
    index = index_ties(sky)
    overlap = find_overlap(sky, scales, index)
    identification = identify(sky, overlap, config.reference)
    is_anchor = np.array([survey.anchor for survey in sky.surveys])
    n_labels = len(sky.label_set)
    error = [
        np.zeros(n_labels) if survey.zero_point_error is None else survey.zero_point_error / scales.step
        for survey in sky.surveys
    ]
    centre, width = (np.stack(x) for x in zip(*(_range(s, scales) for s in sky.surveys), strict=True))
    reference = None if config.reference is None else sky.index(config.reference)
    projection = identification.convention(is_anchor, reference)
    few = spread_out(index, MOST_FOR_START)
    rows = measurements_of(sky, scales, index, few)
    start = starting_offsets(rows, projection)
    structure = Structure(
        config=config,
        names=sky.names,
        is_anchor=is_anchor,
        errors_only=np.array([survey.errors_only and not survey.anchor for survey in sky.surveys]),
        zero_point_error=np.array(error),
        measured=np.array([survey.measured for survey in sky.surveys]),
        typical_error=typical_error(sky, scales),
        centre=centre,
        width=width,
        scales=scales,
        basis=basis,
        identification=identification,
        projection=projection,
        start=start,
        mixture=_start_population(rows._replace(values=rows.values - start[rows.survey]), config),
        composition=composition(sky),
        n_classes=index.n_classes,
        n_groups=index.n_groups,
        visit_chi2=overlap.visit_chi2,
        visit_dof=overlap.visit_dof,
    )
    return structure, index


def spread_out(index: TieIndex, most: int) -> np.ndarray:
    """Positions of at most `most` tied stars, evenly over the index."""
    return np.unique(np.linspace(0, len(index) - 1, min(most, len(index))).astype(int))


def starting_offsets(rows: Measurements, projection: np.ndarray, rounds: int = 20) -> np.ndarray:
    """Zero points `[s, l]` to start from: alternating medians of stars and surveys, in the convention."""
    n_labels, n_surveys, _ = projection.shape
    offset = np.zeros((n_surveys, n_labels))
    stars, star = np.unique(rows.star, return_inverse=True)
    there = ~np.isnan(rows.values)
    number = np.zeros((len(stars), n_labels))
    np.add.at(number, star, there)
    for _ in range(rounds):
        total = np.zeros((len(stars), n_labels))
        np.add.at(total, star, np.nan_to_num(rows.values - offset[rows.survey]))
        mean = np.where(number > 1, total / np.maximum(number, 1), np.nan)
        residual = rows.values - mean[star]
        for s, label in np.ndindex(n_surveys, n_labels):
            found = residual[(rows.survey == s) & ~np.isnan(residual[:, label]), label]
            offset[s, label] = np.median(found) if len(found) else 0.0
        offset = np.einsum("lst,tl->sl", projection, offset)
    return offset


def _range(survey: Survey, scales: Scales, most: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Median and width (of the middle 68 %) of what a survey reports, in model coordinates."""
    values = scales.to_model(np.asarray(survey.values[:: max(1, len(survey) // most)], float))
    centre, width = np.zeros(values.shape[1]), np.ones(values.shape[1])
    for label in np.flatnonzero((~np.isnan(values)).any(axis=0)):
        low, middle, high = np.nanquantile(values[:, label], [0.16, 0.5, 0.84])
        centre[label], width[label] = middle, max(1.0, 0.5 * (high - low))
    return centre, width


def _start_population(rows: Measurements, config: SurveyConfig) -> Mixture:
    """The population as the measurements show it before any offset but the zero points is known."""
    rows = rows.select(np.argsort(rows.star, kind="stable"))
    # Offsets and scatter of the usual size count as errors here.
    noise = rows.covariance + np.eye(rows.values.shape[1]) * (config.scatter**2 + 0.1)
    one = evidence_of(rows.values, noise)
    start = np.unique(rows.star, return_index=True)[1]
    evidence = type(one)(*(np.add.reduceat(x, start, axis=0) for x in one))
    rng = np.random.default_rng(0)
    if config.components is not None:
        return initial_mixture(evidence, config.components, rng)[0]
    return choose_mixture(evidence, config.most_components, rng)


def _normal(name: str, shape: tuple[int, ...], loc=0.0, scale=1.0) -> Array:
    return numpyro.sample(name, dist.Normal(loc, scale).expand(shape).to_event(len(shape)))


def _correlation_root(z: Float[Array, "f c"], n: int) -> Float[Array, "f n n"]:
    """Cholesky factors of correlation matrices from free numbers: rows of a unit triangle, normalised."""
    lower = jnp.zeros((z.shape[0], n, n)).at[:, *np.tril_indices(n, -1)].set(z) + jnp.eye(n)
    return lower / jnp.sqrt(jnp.sum(lower**2, axis=-1, keepdims=True))


def sample_terms(structure: Structure) -> SurveyTerms:
    """NumPyro sites of all that belongs to surveys."""
    config, free, n = structure.config, structure.free, len(structure.scales.step)
    n_surveys, n_free, n_basis = len(structure.names), len(free), structure.basis.size
    raw_zero = _normal("zero_point", (n_free, n), 0.0, config.zero_point)
    # Heavy tails instead of a scale that is inferred: with that, the density has a pole where all trends
    # vanish, and neither its mode nor its curvature say anything.
    raw_trend = numpyro.sample(
        "trend", dist.StudentT(4.0, 0.0, config.trend_scale).expand((n_free, n, n_basis)).to_event(3)
    )
    into = np.eye(n_surveys)[:, free]
    zero_point = jnp.einsum("lst,tf,fl->sl", structure.projection, into, raw_zero)
    trend = jnp.einsum("lst,tf,flp->slp", structure.projection, into, raw_trend)
    if structure.zero_point_error.any():
        unit = _normal("anchor_zero_point", (n_surveys, n))
        zero_point = zero_point + structure.zero_point_error * unit
    quoted = np.log(np.nan_to_num(structure.typical_error[free], nan=1.0) + JITTER)
    own = 2.0 * np.log(config.scatter)
    log_noise = _normal("log_noise", (n_free, n), 0.5 * np.logaddexp(quoted, own), config.noise_spread)
    share = _normal("scatter_share", (n_free, n), own - quoted, config.share_spread)
    log_scatter = log_noise + 0.5 * jax.nn.log_sigmoid(share)
    log_inflation = log_noise + 0.5 * (jax.nn.log_sigmoid(-share) - quoted)
    z = _normal("correlation", (n_free, n * (n - 1) // 2), 0.0, config.correlation)
    root = _correlation_root(z, n)
    between = root @ jnp.swapaxes(root, 1, 2) * (1.0 - np.eye(n))
    of_noise = structure.errors_only[free].astype(float)[:, None, None] * between
    size = jnp.exp(log_scatter)
    scatter = size[:, :, None] * (between - of_noise + np.eye(n)) * size[:, None, :]
    rate = config.outlier_rate
    logit = _normal("outlier_logit", (n_surveys,), np.log(rate / (1 - rate)), 0.8)
    flag = _normal("outlier_flag", (n_surveys,), 2.0, 1.5)
    log_width = _normal("log_outlier_width", (n_surveys,), np.log(config.outlier_width), 0.4)
    return SurveyTerms(
        zero_point=zero_point,
        trend=trend,
        scatter=jnp.tensordot(into, scatter, 1),
        inflation=jnp.exp(into @ log_inflation),
        correlation=jnp.tensordot(into, of_noise, 1),
        outlier_centre=jnp.asarray(structure.centre),
        outlier_width=jnp.exp(log_width)[:, None] * structure.width,
        outlier_logit=logit,
        outlier_flag=flag,
    )


class PopulationTerms(NamedTuple):
    """The population in model coordinates: `mean [k, l]`, upper root of the precisions `root [k, l, l]`
    (precision = root' root), `log_det [k]` of the precisions, `log_weight [c, k]` for each class of stars,
    and for groups their composition `[g, a]` and the scatter of abundances within them."""

    mean: Float[Array, "k l"]
    root: Float[Array, "k l l"]
    log_det: Float[Array, " k"]
    log_weight: Float[Array, "c k"]
    group: Float[Array, "g a"]
    group_scatter: Float[Array, ""]


def sample_population(structure: Structure) -> PopulationTerms:
    """NumPyro sites of the population, as departures from the mixture it starts from."""
    start, n_groups = structure.mixture, structure.n_groups
    k, n = start.mean.shape
    chol = np.linalg.cholesky(start.covariance)
    inverse = np.linalg.inv(chol)
    shift = _normal("population_mean", (k, n))
    diagonal = _normal("population_scale", (k, n), 0.0, POPULATION_SPREAD)
    z = _normal("population_shape", (k, n * (n - 1) // 2), 0.0, POPULATION_SPREAD)
    upper = jnp.zeros((k, n, n)).at[:, *np.triu_indices(n, 1)].set(z)
    upper = upper + jnp.exp(diagonal)[:, :, None] * jnp.eye(n)
    log_weight = jnp.zeros((structure.n_classes, 1))
    if k > 1:
        base = np.log(start.weight) - np.log(start.weight[0])
        logits = base[1:] + _normal("population_weight", (structure.n_classes, k - 1), 0.0, 1.5)
        logits = jnp.concatenate([jnp.zeros((structure.n_classes, 1)), logits], axis=1)
        log_weight = jax.nn.log_softmax(logits, axis=1)
    labels = np.array(structure.composition, int)
    group, group_scatter = jnp.zeros((0, len(labels))), jnp.ones(())
    if n_groups:
        mean, covariance = start.moments
        width = 2.0 * np.sqrt(np.diag(covariance))[labels]
        group = mean[labels] + width * _normal("group", (n_groups, len(labels)))
        log_scatter = _normal("log_group_scatter", (), np.log(structure.config.group_scatter), 0.5)
        group_scatter = jnp.exp(log_scatter)
    return PopulationTerms(
        mean=jnp.asarray(start.mean) + jnp.einsum("kij,kj->ki", chol, shift),
        root=upper @ inverse,
        log_det=2.0 * (jnp.sum(diagonal, axis=1) + np.log(np.diagonal(inverse, axis1=1, axis2=2)).sum(1)),
        log_weight=log_weight,
        group=group,
        group_scatter=group_scatter,
    )


def field_population(terms: PopulationTerms, block: Block) -> Population:
    """The mixture as each of a block's field stars sees it."""
    precision = jnp.swapaxes(terms.root, 1, 2) @ terms.root
    return Population(
        terms.mean, precision, terms.log_det, jax.vmap(lambda c: pick(terms.log_weight, c))(block.member)
    )


class GroupPrior(NamedTuple):
    """What members of groups may be in the labels that they do not share: `moments [2, l]`, mean and variance
    of the whole population; and which `labels` they share."""

    moments: Float[np.ndarray, "2 l"]
    labels: tuple[int, ...]


def group_population(terms: PopulationTerms, prior: GroupPrior, block: Block) -> Population:
    """One Gaussian per member of a group: the group's composition, and any temperature and gravity."""
    mean, variance = prior.moments
    labels = np.array(prior.labels, int)
    others = np.setdiff1d(np.arange(len(mean)), labels)
    precision = jnp.zeros(len(mean)).at[labels].set(terms.group_scatter**-2.0)
    precision = precision.at[others].set(1.0 / (4.0 * variance[others]))
    own = jax.vmap(lambda g: pick(terms.group, g))(block.member)
    centre = jnp.broadcast_to(mean, (len(block.star), len(mean))).at[:, labels].set(own)
    return Population(
        centre[:, None], jnp.diag(precision)[None], jnp.sum(jnp.log(precision))[None], jnp.zeros(1)
    )


class Batch(NamedTuple):
    """Blocks of stars, first `n_field` of field stars, then of members of groups; how many stars each of a
    block's stars stands for; and the configurations of outliers that are summed over in each block."""

    blocks: tuple[Block, ...]
    n_field: int
    weight: tuple[float | Array, ...]
    states: tuple[np.ndarray, ...]


def whole(blocks: list[Block], n_field: int) -> Batch:
    """All stars of the blocks at once, each for itself, with all configurations of outliers."""
    states = tuple(configurations(block.survey.shape[1]) for block in blocks)
    return Batch(tuple(blocks), n_field, (1.0,) * len(blocks), states)


def populations(prior: GroupPrior, terms: PopulationTerms, batch: Batch) -> list[Population]:
    """The population that the stars of each block come from."""
    return [
        field_population(terms, block) if number < batch.n_field else group_population(terms, prior, block)
        for number, block in enumerate(batch.blocks)
    ]


def by_kind(function, prior: GroupPrior, terms: PopulationTerms, batch: Batch, evidence, *more) -> list:
    """A function of (evidence, populations, ...) over lists of blocks, for field blocks and group members."""
    result, stars = [], populations(prior, terms, batch)
    for part in (slice(0, batch.n_field), slice(batch.n_field, None)):
        if evidence[part]:
            result += function(evidence[part], stars[part], *(x[part] for x in more))
    return result


def marginal_model(structure: Structure, batch: Batch) -> tuple[SurveyTerms, PopulationTerms]:
    """The model with true labels, population components and outliers summed out, as NumPyro runs it."""
    terms, population = sample_terms(structure), sample_population(structure)
    evidence = gather_evidence(terms, batch.blocks, batch.states, structure.scales.input_matrix)
    stars = by_kind(log_likelihood, structure.group_prior, population, batch, evidence)
    total = sum(weight * jnp.sum(x) for weight, x in zip(batch.weight, stars, strict=True))
    numpyro.factor("stars", total)
    _visits(structure, terms)
    return terms, population


def _visits(structure: Structure, terms: SurveyTerms) -> None:
    """What differences between visits say of the error factors, as sufficient statistics (exact where visits
    of a star have the same labels)."""
    if structure.visit_dof.any():
        inverse = 1.0 / terms.inflation
        quadratic = jnp.einsum("si,sij,sj->", inverse, structure.visit_chi2, inverse)
        numpyro.factor("visits", -0.5 * quadratic - jnp.sum(structure.visit_dof * jnp.log(terms.inflation)))


def full_model(structure: Structure, batch: Batch) -> tuple[SurveyTerms, PopulationTerms]:
    """The same model with the true labels of every star as parameters: what `marginal_model` is held to.

    Slow and hard to sample; for tests on small skies. Outliers are summed out measurement by measurement.
    """
    terms, population = sample_terms(structure), sample_population(structure)
    inputs, n = structure.scales.input_matrix, len(structure.scales.step)
    priors = populations(structure.group_prior, population, batch)
    for number, (block, prior) in enumerate(zip(batch.blocks, priors, strict=True)):
        n_stars, m = block.survey.shape
        flat = dist.Normal(0.0, 1.0).expand((n_stars, n)).to_event(2).mask(False)
        theta = numpyro.sample(f"theta_{number}", flat)
        d = theta[:, None] - prior.mean
        quadratic = jnp.einsum("nki,kij,nkj->nk", d, prior.precision, d)
        log_prior = prior.log_weight + 0.5 * (prior.log_det - quadratic - n * LOG_2PI)
        numpyro.factor(f"population_{number}", jnp.sum(jax.nn.logsumexp(log_prior, axis=1)))

        def measured(theta, phi, slope, survey, values, covariance, present, flagged):
            u = slope @ inputs @ theta + phi
            model = theta + pick(terms.zero_point, survey) + pick(terms.trend, survey) @ u
            normal = dist.MultivariateNormal(
                jnp.zeros(n), covariance_matrix=noise_of(terms, survey, covariance, present)
            )
            inlier = normal.log_prob(jnp.where(present, values - model, 0.0))
            inlier += 0.5 * LOG_2PI * jnp.sum(~present)
            logit = outlier_logit(terms, survey, flagged)
            outlier = jax.nn.log_sigmoid(logit) + outlier_log_prob(terms, survey, values, present)
            return jnp.logaddexp(jax.nn.log_sigmoid(-logit) + inlier, outlier)

        rows = (block.survey, block.values, block.covariance, block.present, block.flagged)
        for i in range(m):
            one = jax.vmap(measured)(theta, block.phi, block.slope, *(jnp.asarray(x)[:, i] for x in rows))
            numpyro.factor(f"measurement_{number}_{i}", jnp.sum(one))
    _visits(structure, terms)
    return terms, population
