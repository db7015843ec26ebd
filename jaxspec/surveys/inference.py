"""Fit the survey model: one function for sampling, for its Gaussian approximation, and for minibatches."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

from jaxspec.errors import InputError
from jaxspec.runs import Item, resumable
from jaxspec.surveys.denoising import survey_mixtures
from jaxspec.surveys.density import (
    CLEAR,
    Gaussian,
    Layout,
    Objective,
    laplace,
    outlier_probability,
    separate,
)
from jaxspec.surveys.model import Structure, SurveyConfig, prepare, spread_out, whole
from jaxspec.surveys.observations import Sky, check_varied
from jaxspec.surveys.quoted import QuotedErrors
from jaxspec.surveys.results import POPULATION, TERMS, Calibration, Diagnostics
from jaxspec.surveys.sampling import Chains, NutsConfig, run_nuts
from jaxspec.surveys.tied import TieIndex, arrange
from jaxspec.surveys.variational import FixedBatch, Minibatches, SviConfig, run_svi

METHODS = ("auto", "nuts", "laplace", "svi")


@dataclass(frozen=True)
class FitConfig:
    """How the posterior is found.

    Attributes:
        nuts: chains, for `method="nuts"`.
        svi: minibatches, for `method="svi"`.
        draws: of the Gaussian, for the other two methods.
        few: tied stars up to which `method="auto"` samples.
        most: tied stars beyond which `nuts` and `laplace` refuse: their time grows with them.
        guide: the variational fit in whose coordinates chains run.
    """

    nuts: NutsConfig = field(default_factory=NutsConfig)
    svi: SviConfig = field(default_factory=SviConfig)
    draws: int = 1000
    few: int = 500
    most: int = 20_000
    guide: SviConfig = SviConfig(steps=500, learning_rate=0.05, particles=1)


def fit(
    sky: Sky,
    config: SurveyConfig | None = None,
    key: PRNGKeyArray | None = None,
    method: str = "nuts",
    settings: FitConfig | None = None,
    checkpoint: str | Path | None = None,
) -> Calibration:
    """The posterior of every survey's offset, scatter, error factor and outliers, and of the population.

    `method` is `nuts` (exact, to some thousands of stars that tie surveys together), `laplace` (a Gaussian at
    the mode, seconds; its errors of predictions are 8 % smaller than those of `nuts` with 50 common stars),
    `svi` (minibatches, any number of stars), or `auto`: the first of these for which there are few
    enough stars. `key` makes the run reproducible.
    `checkpoint` is a folder in which the run saves itself and from which it goes on, to the same numbers.

    Raises `InputError` for skies that identify nothing (see `identification`), a label that is the same in
    all rows of a survey, unknown methods, and a `checkpoint` of another sky, `config`, method, key or
    settings of that method.
    """
    if method not in METHODS:
        raise InputError("method", repr(method), f"one of {', '.join(METHODS)}", "check the spelling")
    config, settings = config or SurveyConfig(), settings or FitConfig()
    key = jax.random.key(0) if key is None else key
    begun = time.perf_counter()
    check_varied(sky)
    structure, index = prepare(sky, config)
    if method == "auto":
        method = "nuts" if len(index) <= settings.few else "laplace" if len(index) <= settings.most else "svi"
    if method != "svi" and len(index) > settings.most:
        raise InputError(
            "surveys",
            f"{len(index)} stars that tie them together",
            f"at most {settings.most} for method {method!r}",
            "use method='svi', or raise FitConfig.most",
        )
    begin, guided, *chained = _pieces(sky, config, key, method, settings, checkpoint)
    with jax.enable_x64(True):
        layout = Layout(structure)
        subset = settings.svi.subset if method == "svi" else len(index)
        objective, gaussian = _start(sky, layout, index, subset, begin)
        if method == "nuts":
            # The mode is not where the mass is: scales of the surveys' noise have long tails.
            guide_key = jax.random.fold_in(key, 2)
            gaussian, _ = run_svi(
                layout, FixedBatch(objective.batch), gaussian, guide_key, settings.guide, guided
            )
            chains = run_nuts(objective, gaussian, key, settings.nuts, chained)
            flat, numbers = _of_chains(layout, chains, gaussian)
        else:
            numbers = {"ess": float(settings.draws)}
            if method == "svi":
                few = len(index) <= settings.svi.batch
                batches = (
                    FixedBatch(objective.batch)
                    if few
                    else Minibatches(sky, layout, index, settings.svi.batch)
                )
                gaussian, losses = run_svi(layout, batches, gaussian, key, settings.svi, guided)
                quarter = len(losses) // 4 or 1
                change = losses[-quarter:].mean() - losses[-2 * quarter : -quarter].mean()
                numbers["more"] = {"loss": float(losses[-quarter:].mean()), "loss_change": float(change)}
            z = jax.random.normal(jax.random.fold_in(key, 1), (settings.draws, layout.size))
            flat = gaussian.mean + np.asarray(z) @ gaussian.root.T
        terms, population = draws_of(layout, flat)
    return assemble(sky, structure, terms, population, method, begun, numbers)


def _pieces(
    sky: Sky,
    config: SurveyConfig,
    key: PRNGKeyArray,
    method: str,
    settings: FitConfig,
    folder: str | Path | None,
) -> list[Item]:
    """The pieces of a run: its start, the fit of a guide, each chain."""
    used: dict[str, dict[str, Any]] = {
        "nuts": {"nuts": settings.nuts, "guide": settings.guide},
        "svi": {"svi": settings.svi},
        "laplace": {},
    }
    recorded = {
        "method": method,
        "config": config,
        "key": key,
        **used[method],
        "labels": sky.label_set,
        "surveys": {survey.name: survey for survey in sky.surveys},
        "group": sky.group,
    }
    chains = settings.nuts.chains if method == "nuts" else 0
    return list(resumable(["start", "svi", *(f"chain_{i}" for i in range(chains))], recorded, folder))


def _start(sky: Sky, layout: Layout, index: TieIndex, most: int, item: Item) -> tuple[Objective, Gaussian]:
    """The density of (at most `most` of) the tied stars and its Gaussian approximation, its width that of all
    tied stars."""
    structure = layout.structure
    which = spread_out(index, most)
    everything = whole(*arrange(sky, structure.scales, structure.basis, index, which))
    likely = outlier_probability(layout, everything, layout.start)
    objective = Objective(layout, separate(everything, likely))
    if item.done:
        saved = item.load()
        gaussian = Gaussian(saved["mean"], saved["root"])
        likely = [saved[f"outlier_{i}"] for i in range(len(everything.blocks))]
        return Objective(layout, separate(everything, likely)), gaussian
    gaussian = laplace(objective, layout.start)
    now = outlier_probability(layout, everything, gaussian.mean)
    became = [(a.max(1) < CLEAR) & (b.max(1) > 10 * CLEAR) for a, b in zip(likely, now, strict=True)]
    if any(x.any() for x in became):
        likely = [np.maximum(a, b) for a, b in zip(likely, now, strict=True)]
        objective = Objective(layout, separate(everything, likely))
        gaussian = laplace(objective, gaussian.mean, rounds=2)
    gaussian = gaussian._replace(root=gaussian.root * np.sqrt(len(which) / len(index)))
    item.save(mean=gaussian.mean, root=gaussian.root, **{f"outlier_{i}": x for i, x in enumerate(likely)})
    return objective, gaussian


def _of_chains(layout: Layout, chains: Chains, gaussian: Gaussian) -> tuple[np.ndarray, dict]:
    """Flat draws, and how well the chains mixed in every parameter."""
    flat = gaussian.mean + chains.u @ gaussian.root.T
    n_chains, n_draws, size = flat.shape
    enough = n_draws >= 4
    r_hat = split_gelman_rubin(flat) if enough and n_chains > 1 else np.full(size, np.nan)
    ess = effective_sample_size(flat) if enough and n_chains > 1 else np.full(size, np.nan)
    numbers = {
        "divergences": int(chains.diverged.sum()),
        "r_hat": float(np.max(r_hat)),
        "ess": float(np.min(ess)),
        "worst": layout.names()[int(np.argmin(ess))],
        "acceptance": float(chains.acceptance.mean()),
        "steps": int(chains.steps.sum()),
    }
    return flat.reshape(-1, size), numbers


def draws_of(
    layout: Layout, flat: Float[np.ndarray, "n d"]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Draws of the survey terms and of the population that flat vectors mean."""

    terms, population = jax.jit(jax.vmap(layout.terms))(jnp.asarray(flat))
    return (
        {name: np.asarray(getattr(terms, name)) for name in TERMS},
        {name: np.asarray(getattr(population, name)) for name in POPULATION},
    )


def assemble(
    sky: Sky,
    structure: Structure,
    terms: dict[str, np.ndarray],
    population: dict[str, np.ndarray],
    method: str,
    begun: float,
    numbers: dict,
) -> Calibration:
    """The result: draws, what each survey's stars look like, and the diagnostics."""
    diagnostics = {
        "divergences": 0,
        "r_hat": float("nan"),
        "ess": float("nan"),
        "worst": "",
        "acceptance": float("nan"),
        "steps": 0,
        "more": {},
    } | numbers
    return Calibration(
        label_set=sky.label_set,
        names=sky.names,
        is_anchor=structure.is_anchor,
        measured=structure.measured,
        scales=structure.scales,
        trend=structure.config.trend,
        terms=terms,
        population=population,
        mixtures=survey_mixtures(sky, structure, terms),
        quoted=tuple(QuotedErrors.of(survey, structure.scales) for survey in sky.surveys),
        group_prior=structure.group_prior,
        messages=structure.identification.messages,
        diagnostics=Diagnostics(method=method, seconds=time.perf_counter() - begun, **diagnostics),
    )
