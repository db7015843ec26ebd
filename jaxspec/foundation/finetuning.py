"""A trained model, taught a quantity from few labels."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float

from jaxspec.errors import InputError
from jaxspec.foundation.model import FoundationModel
from jaxspec.foundation.network import StarTransformer
from jaxspec.foundation.table import Table
from jaxspec.runs import named_key
from jaxspec.training import ArraySource, OptimiserConfig, TrainConfig, fit

HEAD = ("requests", "starts", "answer", "offset")  # what a network has for each quantity asked for
PARTS = ("head", "whole")


@dataclass(frozen=True)
class FinetuneConfig:
    """How a model is taught.

    Attributes:
        part: head (what belongs to the quantity alone; everything else answers as before) or whole (all
            weights).
        n_steps: of training.
        learning_rate: of the head; of the whole a fifth of it.
        hide: share of the coefficients that each step leaves out, against learning noise by heart.
        seed: of all random numbers.
    """

    part: str = "head"
    n_steps: int = 400
    learning_rate: float = 3e-3
    hide: float = 0.3
    seed: int = 1

    def __post_init__(self):
        if self.part not in PARTS:
            raise InputError("part", repr(self.part), f"one of {', '.join(PARTS)}", "write part=head")


def finetune(
    model: FoundationModel,
    stars: Table,
    labels: Table,
    config: FinetuneConfig = FinetuneConfig(),
    directory: str | Path | None = None,
) -> FoundationModel:
    """The model, taught the quantities of `labels` (known to it or not) for `stars`.

    Widths of its answers are set by stars that were left out in five turns, since those of the stars it
    learnt from are too narrow.

    Raises: InputError where the tables have different stars, or fewer than 10 labels.
    """
    if stars.n_stars != labels.n_stars:
        raise InputError(
            "labels", f"{labels.n_stars} rows", f"{stars.n_stars}, one a star", "join the tables first"
        )
    for name, values in zip(labels.names, labels.values.T, strict=True):
        if np.isfinite(values).sum() < 10:
            raise InputError(
                f"labels.{name}", f"{np.isfinite(values).sum()} values", "10 or more", "add stars"
            )
    network = extended(model.network, labels)
    model = dataclasses.replace(model, network=network)
    factors = _cross_validated(model, stars, labels, config)
    taught = _taught(model, stars, labels, config, directory)
    return dataclasses.replace(taught, temperature={**model.temperature, **factors})


def extended(network: StarTransformer, labels: Table) -> StarTransformer:
    """The network with rows for the quantities of `labels` that it did not know; it starts their answers from
    those it gives about [Fe/H], or about the last quantity it knows."""
    new = [name for name in labels.names if name not in network.names]
    if not new:
        return network
    like = network.names.index("fe_h" if "fe_h" in network.names else network.names[-1])
    statistics = []
    columns = labels.columns(new)
    middle, scale = np.nanmean(columns.values, 0), np.nanstd(columns.values, 0)
    if not (scale > 0).all():
        raise InputError("labels", "a quantity without spread", "values that differ", "leave it out")
    log_error = np.log(np.nanmedian(columns.errors, 0) / scale + 1e-3)
    for name, more in (("centre", middle), ("spread", scale), ("log_error", log_error)):
        statistics.append(np.concatenate([np.asarray(getattr(network, name)[...]), more]).astype(np.float32))
    wider = StarTransformer(network.config, (*network.names, *new), *statistics, rngs=nnx.Rngs(0))
    state, old = (nnx.to_pure_dict(nnx.state(x, nnx.Param)) for x in (wider, network))
    for name in ("gather", *HEAD):
        rows = jnp.repeat(old[name][like : like + 1], len(new), 0)
        old[name] = jnp.concatenate([old[name], rows * (0.0 if name == "gather" else 1.0)])
    full = nnx.state(wider, nnx.Param)
    nnx.replace_by_pure_dict(full, jax.tree.unflatten(jax.tree.structure(state), jax.tree.leaves(old)))
    nnx.update(wider, full)
    return wider


def _taught(
    model: FoundationModel, stars: Table, labels: Table, config: FinetuneConfig, directory: str | Path | None
) -> FoundationModel:
    value, error = model.layout(stars.without(labels.names))
    asked = jnp.array([model.index(name) for name in labels.names])
    arrays = (value, error, labels.values.astype(np.float32), np.nan_to_num(labels.errors).astype(np.float32))
    kinds = jnp.arange(len(model.names))

    def loss(network: StarTransformer, batch: tuple, key: jax.Array) -> Float[jax.Array, ""]:
        value, error, target, sigma = batch
        kept = jax.random.uniform(key, value.shape) >= config.hide
        latents = network.encode(kinds, jnp.where(kept, value, jnp.nan), error)
        y, s = network.standardised(asked, target, sigma)
        known = jnp.isfinite(y)
        log_prob = network.reply(latents, asked).log_prob(jnp.where(known, y, 0.0), jnp.where(known, s, 0.0))
        return -jnp.where(known, log_prob, 0.0).mean()

    whole = config.part == "whole"
    rate = config.learning_rate / (5.0 if whole else 1.0)
    # No decay: it would also move the answers to questions that are not asked here.
    optimiser = OptimiserConfig(learning_rate=rate, warmup_steps=20, weight_decay=0.0, ema_decay=0.98)
    trained = nnx.Param if whole else nnx.All(nnx.Param, lambda path, _: path[0] in HEAD)
    result = fit(
        model.network,
        loss,
        TrainConfig(config.n_steps, optimiser, n_devices=1, log_every=100, progress=directory is not None),
        key=named_key(config.seed, "finetune"),
        source=ArraySource(arrays, min(stars.n_stars, 128), seed=config.seed),
        directory=directory,
        trained=trained,
    )
    return dataclasses.replace(model, network=result.model)


def _cross_validated(
    model: FoundationModel, stars: Table, labels: Table, config: FinetuneConfig
) -> dict[str, tuple[float, float]]:
    """Changes of the widths, from the answers about stars that were left out."""
    fold = np.random.default_rng(config.seed).permutation(stars.n_stars) % 5
    square: dict[str, list[np.ndarray]] = {name: [] for name in labels.names}
    for k in range(5):
        inside = fold != k
        taught = _taught(model, stars.rows(inside), labels.rows(inside), config, None)
        taught = dataclasses.replace(taught, temperature={})
        answer = taught.predict(stars.rows(~inside).without(labels.names), labels.names)
        left = labels.rows(~inside)
        z = (left.values - answer.expectation) / np.hypot(answer.deviation, np.nan_to_num(left.errors))
        for i, name in enumerate(labels.names):
            square[name].append(z[:, i] ** 2)
    factors = {}
    for name, parts in square.items():
        z2 = np.concatenate(parts)
        # Robust: the 68th percentile of |z| is 1 where widths are right.
        factor = np.clip(np.nanquantile(np.sqrt(z2), 0.6827), 0.5, 5.0)
        factors[name] = (float(np.log(factor)), 0.0)
    return factors
