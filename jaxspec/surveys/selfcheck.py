"""Is an approximate posterior calibrated? Variational simulation-based calibration.

Skies are simulated from the model itself, with the real sky's stars, patterns of measurements and errors and
with terms drawn from the prior; each is fitted anew, and the truths' ranks in the approximate posteriors must
be uniform (Talts et al. 2018, arXiv:1804.06788; Yao et al. 2018, PMLR 80, 5581).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray
from numpyro import handlers
from scipy import stats

from jaxspec.errors import InputError
from jaxspec.surveys.density import Layout, Objective, laplace
from jaxspec.surveys.marginal import noise_of, outlier_logit
from jaxspec.surveys.model import (
    Batch,
    SurveyConfig,
    populations,
    prepare,
    sample_population,
    sample_terms,
    spread_out,
    whole,
)
from jaxspec.surveys.observations import Sky
from jaxspec.surveys.tied import Block, arrange
from jaxspec.surveys.variational import FixedBatch, SviConfig, run_svi


class VariationalSbc(NamedTuple):
    """Ranks in 0..1 of planted `zero_point [n, f, l]` and `trend [n, f, l, p]`, and for both the p-value that
    they are uniform, their standardised errors' `spread` (1 is right, above 1 overconfident), and the
    fraction within central 90 % intervals."""

    zero_point: Float[np.ndarray, "n f l"]
    trend: Float[np.ndarray, "n f l p"]
    p_value: dict[str, float]
    spread: dict[str, float]
    coverage: dict[str, float]


def variational_sbc(
    sky: Sky,
    config: SurveyConfig,
    key: PRNGKeyArray,
    n: int = 20,
    method: str = "svi",
    svi: SviConfig = SviConfig(steps=1500),  # noqa: B008
    most: int = 200,
) -> VariationalSbc:
    """Fit `n` skies simulated like (at most `most` tied stars of) this one, by `laplace` or `svi`.

    P-values are of Kolmogorov-Smirnov tests over all terms of all skies. Compiled once. Raises `InputError`
    for other methods.
    """
    if method not in ("laplace", "svi"):
        raise InputError("method", repr(method), "laplace or svi", "draws of NUTS need no such check")
    structure, index = prepare(sky, config)
    ranks: dict[str, list[np.ndarray]] = {"zero_point": [], "trend": []}
    with jax.enable_x64(True):
        layout = Layout(structure)
        which = spread_out(index, most)
        batch = whole(*arrange(sky, structure.scales, structure.basis, index, which))
        objective = Objective(layout, batch)
        for i in range(n):
            one = jax.random.fold_in(key, i)
            truth = prior_draw(layout, one)
            rng = np.random.default_rng(np.asarray(jax.random.key_data(one)))
            objective.batch = objective.batch._replace(blocks=simulate_blocks(layout, batch, truth, rng))
            # `layout.start` is near the offsets of the sky itself, and so far from these that the search may
            # end in a mode where good rows are outliers.
            gaussian = laplace(objective, truth)
            if method == "svi":
                gaussian, _ = run_svi(layout, FixedBatch(objective.batch), gaussian, one, svi)
            width = np.sqrt(np.sum(gaussian.root**2, axis=1))
            z = (truth - gaussian.mean) / width
            for site in layout.sites:
                if site.name in ranks:
                    part = z[site.start : site.start + int(np.prod(site.shape))]
                    ranks[site.name].append(stats.norm.cdf(part).reshape(site.shape))
    found = {name: np.stack(x) for name, x in ranks.items()}
    return VariationalSbc(
        found["zero_point"],
        found["trend"],
        {k: float(stats.kstest(x.ravel(), "uniform").pvalue) for k, x in found.items()},
        {k: float(np.std(stats.norm.ppf(np.clip(x, 1e-9, 1 - 1e-9)))) for k, x in found.items()},
        {k: float(np.mean(np.abs(x - 0.5) < 0.45)) for k, x in found.items()},
    )


def prior_draw(layout: Layout, key: PRNGKeyArray) -> Float[np.ndarray, " d"]:
    """A flat vector drawn from the prior."""
    with handlers.seed(rng_seed=key), handlers.trace() as trace:
        sample_terms(layout.structure)
        sample_population(layout.structure)
    return np.concatenate([np.ravel(trace[site.name]["value"]) for site in layout.sites])


def simulate_blocks(
    layout: Layout, batch: Batch, flat: Float[np.ndarray, " d"], rng: np.random.Generator
) -> tuple[Block, ...]:
    """The batch's blocks with values drawn from the model at `flat`."""
    terms, population = layout.terms(jnp.asarray(flat))
    priors = populations(layout.structure.group_prior, population, batch)
    inputs, terms_host = layout.structure.scales.input_matrix, jax.tree.map(np.asarray, terms)
    result = []
    for block, prior in zip(batch.blocks, priors, strict=True):
        n, m = block.survey.shape
        mean, precision = np.asarray(prior.mean), np.asarray(prior.precision)
        root = np.linalg.cholesky(np.linalg.inv(precision))
        weight = np.broadcast_to(np.exp(np.asarray(prior.log_weight)), (n, len(precision)))
        values = np.zeros(block.values.shape)
        noise = jax.vmap(jax.vmap(lambda *x: noise_of(terms, *x)))(
            jnp.asarray(block.survey), jnp.asarray(block.covariance), jnp.asarray(block.present)
        )
        logit = jax.vmap(jax.vmap(lambda *x: outlier_logit(terms, *x)))(
            jnp.asarray(block.survey), jnp.asarray(block.flagged)
        )
        noise_root = np.linalg.cholesky(np.asarray(noise))
        wild = rng.random((n, m)) < 1.0 / (1.0 + np.exp(-np.asarray(logit)))
        for i in range(n):
            k = rng.choice(len(precision), p=weight[i] / weight[i].sum())
            centre = mean[i, k] if mean.ndim == 3 else mean[k]
            theta = centre + root[k] @ rng.normal(size=values.shape[2])
            for j, s in enumerate(np.asarray(block.survey)[i]):
                u = block.slope[i] @ inputs @ theta + block.phi[i]
                model = theta + terms_host.zero_point[s] + terms_host.trend[s] @ u
                values[i, j] = model + noise_root[i, j] @ rng.normal(size=values.shape[2])
                if wild[i, j]:
                    spread = terms_host.outlier_width[s] * rng.normal(size=values.shape[2])
                    values[i, j] = terms_host.outlier_centre[s] + spread
        result.append(block._replace(values=np.where(block.present, values, 0.0)))
    return jax.tree.map(jnp.asarray, tuple(result))
