"""The true labels are integrated out exactly: against sums, quadrature and the model that keeps them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import handlers
from numpyro.infer.util import log_density
from scipy import stats
from scipy.special import logsumexp

from jaxspec.labels import label_set
from jaxspec.surveys.density import Layout, separate, to_device
from jaxspec.surveys.marginal import (
    JITTER,
    configurations,
    gather_evidence,
    inverse_and_log_det,
    log_integral,
    log_likelihood,
    star_posterior,
)
from jaxspec.surveys.model import (
    SurveyConfig,
    _visits,
    by_kind,
    full_model,
    marginal_model,
    populations,
    prepare,
    sample_population,
    sample_terms,
    whole,
)
from jaxspec.surveys.observations import Survey, diagonal, make_sky
from jaxspec.surveys.tied import arrange


def small_sky(rng, names=("teff", "logg"), n=14, groups=False):
    """Stars seen by three surveys in part, with missing labels, flags and repeated visits."""
    labels = label_set(*names)
    step = np.array([100.0, 0.2, 0.1, 0.1])[: len(names)]
    truth = np.array([5400.0, 4.0, -0.2, -0.1])[: len(names)] + 3 * step * rng.normal(size=(n, len(names)))
    surveys = []
    for s in range(3):
        star = np.flatnonzero(rng.random(n) < 0.8)
        star = np.sort(np.append(star, star[:2])) if s == 1 else star
        values = truth[star] + step * (0.5 * s + 0.5 * rng.normal(size=(len(star), len(names))))
        values[rng.random(values.shape) < 0.15] = np.nan
        root = step[:, None] * rng.normal(size=(len(star), len(names), len(names))) * 0.3
        covariance = root @ np.swapaxes(root, 1, 2) + diagonal(np.tile(0.4 * step, (len(star), 1)))
        flagged = rng.random(len(star)) < 0.2
        surveys.append(Survey(f"s{s}", star, values, covariance, flagged, anchor=s == 2, errors_only=s == 0))
    group = np.where(np.arange(n) < 6, np.arange(n) // 3, -1) if groups else None
    return make_sky(labels, surveys, n, group)


def problem(rng, names=("teff", "logg"), groups=False, **config):
    sky = small_sky(rng, names, groups=groups)
    structure, index = prepare(sky, SurveyConfig(**config))
    layout = Layout(structure)
    blocks, n_field = arrange(sky, structure.scales, structure.basis, index, np.arange(len(index)))
    flat = layout.start + 0.3 * rng.normal(size=layout.size)
    return structure, layout, to_device(whole(blocks, n_field)), flat


def evaluate(structure, layout, batch, parameters):
    """Log-likelihoods and posteriors of the stars, and the whole density, compiled as one."""

    @jax.jit
    def run(parameters):
        with handlers.block(), handlers.seed(rng_seed=0), handlers.substitute(data=parameters):
            terms, population = sample_terms(structure), sample_population(structure)
        evidence = gather_evidence(terms, batch.blocks, batch.states, structure.scales.input_matrix)
        one = (structure.group_prior, population, batch, evidence)
        return (
            terms,
            population,
            by_kind(log_likelihood, *one),
            by_kind(star_posterior, *one, batch.states),
            log_density(marginal_model, (structure, batch), {}, parameters)[0],
        )

    return run(parameters)


def test_small_matrices(rng, x64):
    root = rng.normal(size=(9, 9))
    matrix, vector = root @ root.T + np.eye(9), rng.normal(size=9)
    inverse, log_det = inverse_and_log_det(jnp.asarray(matrix))
    np.testing.assert_allclose(inverse, np.linalg.inv(matrix), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(matrix)[1])
    expected = 0.5 * (vector @ np.linalg.solve(matrix, vector) - np.linalg.slogdet(matrix)[1])
    np.testing.assert_allclose(log_integral(jnp.asarray(matrix), jnp.asarray(vector)), expected)


def test_gradients_of_small_matrices(rng, x64):
    root = rng.normal(size=(4, 4))
    matrix, vector = jnp.asarray(root @ root.T + np.eye(4)), jnp.asarray(rng.normal(size=4))

    def both(m):
        inverse, log_det = inverse_and_log_det(m)
        return jnp.sum(jnp.sin(inverse)) + log_det + log_integral(m, vector)

    direction = rng.normal(size=(4, 4))
    direction = direction + direction.T
    slope = jnp.sum(jax.grad(both)(matrix) * direction)
    numerical = (both(matrix + 1e-6 * direction) - both(matrix - 1e-6 * direction)) / 2e-6
    np.testing.assert_allclose(slope, numerical, rtol=1e-6)


@pytest.mark.parametrize(("m", "number"), [(1, 2), (2, 4), (4, 16), (5, 16), (6, 22)])
def test_configurations(m, number):
    states = configurations(m)
    assert states.shape == (number, m)
    assert not states[0].any()
    assert len({tuple(row) for row in states}) == number


@pytest.mark.parametrize("trend", ["linear", "spline"])
def test_against_the_joint_gaussian_of_all_values(rng, x64, trend):
    """Sum over components and outliers of the multivariate normal of everything measured of a star."""
    structure, layout, batch, flat = problem(rng, components=2, trend=trend)
    terms, population, found, *_ = evaluate(structure, layout, batch, layout.parameters(jnp.asarray(flat)))
    inputs, t = structure.scales.input_matrix, jax.tree.map(np.asarray, terms)
    for block, ours in zip(jax.tree.map(np.asarray, batch.blocks), found, strict=True):
        for i in range(len(block.star)):
            weight, total = np.exp(population.log_weight[block.member[i]]), []
            for k, out in itertools.product(
                range(2), itertools.product([False, True], repeat=block.survey.shape[1])
            ):
                precision = population.root[k].T @ population.root[k]
                spread = np.linalg.inv(precision)
                value, mean, design, noise = [], [], [], []
                log_prob = np.log(weight[k])
                for j, s in enumerate(block.survey[i]):
                    there = block.present[i, j]
                    logit = t.outlier_logit[s] + block.flagged[i, j] * t.outlier_flag[s]
                    log_prob += -np.log1p(np.exp(-logit if out[j] else logit))
                    if out[j]:
                        wild = stats.norm(t.outlier_centre[s], t.outlier_width[s]).logpdf(block.values[i, j])
                        log_prob += wild[there].sum()
                        continue
                    matrix = np.eye(2) + t.trend[s] @ block.slope[i] @ inputs
                    value.append(block.values[i, j][there])
                    mean.append(
                        (matrix @ population.mean[k] + t.zero_point[s] + t.trend[s] @ block.phi[i])[there]
                    )
                    design.append(matrix[there])
                    factor = np.diag(t.inflation[s])
                    one = factor @ block.covariance[i, j] @ factor + t.scatter[s] + JITTER * np.eye(2)
                    if s == 0:  # errors only
                        assert one[0, 1] == 0.0 and 0.0 < abs(t.correlation[s, 0, 1]) < 1.0
                        one[0, 1] = one[1, 0] = t.correlation[s, 0, 1] * np.sqrt(one[0, 0] * one[1, 1])
                    noise.append(one[np.ix_(there, there)])
                if value and sum(map(len, value)):
                    design = np.concatenate(design)
                    covariance = design @ spread @ design.T
                    start = 0
                    for one in noise:
                        covariance[start : start + len(one), start : start + len(one)] += one
                        start += len(one)
                    normal = stats.multivariate_normal(np.concatenate(mean), covariance)
                    log_prob += normal.logpdf(np.concatenate(value))
                total.append(log_prob)
            np.testing.assert_allclose(ours[i], logsumexp(total), rtol=1e-8)


def test_against_quadrature_of_the_full_model(rng, x64):
    """The full model's density, summed over a grid of each star's true labels, is the marginal one's."""
    structure, layout, batch, flat = problem(rng, components=2)
    parameters = layout.parameters(jnp.asarray(flat))
    _, _, found, likely, exact = evaluate(structure, layout, batch, parameters)

    number, star = 0, 1
    block = batch.blocks[number].take(slice(star, star + 1))
    alone = batch._replace(blocks=(block,), n_field=1, weight=(1.0,), states=batch.states[:1])
    one = likely[number]
    centre, width = one.mean[star], jnp.sqrt(jnp.diagonal(one.covariance[star]))
    axis = jnp.linspace(-40.0, 40.0, 801)
    grid = jnp.stack(jnp.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2) * width + centre

    def joint(theta):
        return log_density(full_model, (structure, alone), {}, {**parameters, "theta_0": theta[None]})[0]

    joint_values = jax.jit(jax.vmap(joint))(grid)
    cell = jnp.prod(width) * (axis[1] - axis[0]) ** 2
    integral = float(jax.nn.logsumexp(joint_values) + jnp.log(cell))
    base = float(exact) - sum(float(jnp.sum(x)) for x in found)
    np.testing.assert_allclose(integral, base + float(found[number][star]), atol=1e-5)
    # Without outliers, so is the mean.
    parameters["outlier_logit"] = jnp.full_like(parameters["outlier_logit"], -1e6)
    good = evaluate(structure, layout, batch, parameters)[3]
    weight = jax.nn.softmax(jax.jit(jax.vmap(joint))(grid))
    np.testing.assert_allclose(weight @ grid, good[number].mean[star], atol=1e-4)


def test_visits_say_how_wrong_quoted_errors_are(rng, x64):
    """Two visits with one covariance: their difference is Gaussian with twice that, times the factors."""
    labels, n = label_set("teff", "logg"), 5
    root = np.array([60.0, 0.1])[:, None] * np.array([[1.0, 0.0], [0.7, 0.5]])
    values = np.array([5400.0, 4.0]) + rng.normal(size=(2 * n, 2)) @ root.T
    star = np.repeat(np.arange(n), 2)
    visits = Survey("a", star, values, np.tile(root @ root.T, (2 * n, 1, 1)), np.zeros(2 * n, bool))
    once = Survey("b", np.arange(n), values[1::2], visits.covariance[1::2], np.zeros(n, bool))
    structure, _ = prepare(make_sky(labels, (visits, once)), SurveyConfig(components=1))
    covariance = root @ root.T / np.outer(structure.scales.step, structure.scales.step)
    difference = (values[1::2] - values[::2]) / structure.scales.step

    def density(factor):
        noise = 2.0 * np.outer(factor, factor) * covariance
        return stats.multivariate_normal(cov=noise).logpdf(difference).sum()

    some = handlers.seed(sample_terms, 0)(structure)

    def model(factor):
        terms = some._replace(inflation=jnp.array([factor, [1.0, 1.0]]))
        return log_density(_visits, (structure, terms), {}, {})[0]

    low, high = np.array([0.8, 1.3]), np.array([1.7, 0.6])
    np.testing.assert_allclose(model(high) - model(low), density(high) - density(low), rtol=1e-8)


def test_groups_and_full_model(rng, x64):
    """With groups, too: at each star's conditional mode of a one-component model without outliers, the two
    densities differ by the Gaussian integral alone."""
    structure, layout, batch, flat = problem(rng, ("teff", "logg", "fe_h"), groups=True, components=1)
    parameters = layout.parameters(jnp.asarray(flat))
    parameters["outlier_logit"] = jnp.full_like(parameters["outlier_logit"], -1e6)
    parameters["outlier_flag"] = jnp.zeros_like(parameters["outlier_flag"])
    _, population, _, posterior, marginal = evaluate(structure, layout, batch, parameters)
    theta = {f"theta_{i}": one.mean for i, one in enumerate(posterior)}
    full = jax.jit(lambda p: log_density(full_model, (structure, batch), {}, p)[0])({**parameters, **theta})
    gaussian = sum(
        0.5 * np.linalg.slogdet(2 * np.pi * np.asarray(one.covariance))[1].sum() for one in posterior
    )
    assert len(populations(structure.group_prior, population, batch)) > batch.n_field
    np.testing.assert_allclose(marginal, full + gaussian, rtol=1e-9)


def test_stars_without_likely_outliers_need_no_configurations(rng, x64):
    structure, layout, batch, flat = problem(rng, components=1)
    *_, found, exact = evaluate(structure, layout, batch, layout.parameters(jnp.asarray(flat)))
    apart = to_device(separate(batch, [np.asarray(one.outlier) for one in found], limit=1e-3))
    assert sum(len(b.star) for b in apart.blocks) == sum(len(b.star) for b in batch.blocks)
    without = jax.jit(lambda flat: layout.log_density(flat, apart))(jnp.asarray(flat))
    np.testing.assert_allclose(without, exact, atol=0.03)
