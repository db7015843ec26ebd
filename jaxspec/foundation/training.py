"""Training of the transformer: a random part of what is known of each star is given, the rest is asked for.

Each star of a batch is seen in one of the situations of the tasks (the whole spectrum, one arm, the first
coefficients, any, or no spectrum; with or without photometry and labels). The loss is the log-density of
what was asked for at its catalogue value, convolved with the catalogue's error: the network learns the truth
behind the catalogue, as far as the errors are right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from jaxspec.errors import InputError
from jaxspec.foundation.network import FoundationConfig, StarTransformer
from jaxspec.foundation.table import ATMOSPHERE, STELLAR, Table
from jaxspec.training.loop import LossFn

SITUATIONS = {
    "all": 0.40,
    "bp": 0.07,
    "rp": 0.12,
    "first": 0.12,
    "some": 0.15,
    "none": 0.14,
}
"""Which coefficients of a spectrum are given, and how often."""
LABELS = (*ATMOSPHERE, "a_k")


@dataclass(frozen=True)
class TaskConfig:
    """How often what is given and asked for.

    Attributes:
        photometry: share of the stars that come with photometry, each number of it with 80 %.
        labels: share that come with labels, each with 50 % (80 % where there is no spectrum).
        n_others: quantities asked for in each step beside the labels.
        others_weight: of their mean log-density; that of the labels has 1.
        noise: share of the stars whose values are worsened by further noise, of up to once their error; the
            errors are raised to match. No star is then seen twice alike.
        never_given: quantities that are asked for but never given.
        situations: which coefficients are given, and how often (`SITUATIONS`).
    """

    photometry: float = 0.5
    labels: float = 0.4
    n_others: int = 4
    others_weight: float = 0.5
    noise: float = 0.5
    never_given: tuple[str, ...] = ()
    situations: dict[str, float] = field(default_factory=lambda: dict(SITUATIONS))

    def __post_init__(self):
        if list(self.situations) != list(SITUATIONS):
            raise InputError(
                "tasks.situations", f"{', '.join(self.situations)}", ", ".join(SITUATIONS), "give all six"
            )


def make_network(config: FoundationConfig, table: Table, *, rngs: nnx.Rngs) -> StarTransformer:
    """A fresh network that knows the quantities of `table`, with their statistics."""
    low, middle, high = np.nanquantile(table.values, (0.16, 0.5, 0.84), axis=0)
    spread = 0.5 * (high - low)
    if not (np.isfinite(spread) & (spread > 0)).all():
        name = table.names[int(np.flatnonzero(~(spread > 0))[0])]
        raise InputError(
            f"quantity {name}", "no spread over the training stars", "values that differ", "leave it out"
        )
    log_error = np.nanmedian(np.log(table.errors / spread + 1e-3), axis=0)
    return StarTransformer(config, table.names, middle, spread, log_error, rngs=rngs)


def make_loss(names: Sequence[str], tasks: TaskConfig) -> LossFn:
    """The loss of a batch `(values, errors)`, `[b, k]` each, in the columns `names`."""
    given = make_situations(names, tasks)
    labels = np.array([i for i, name in enumerate(names) if name in LABELS])
    others = np.array([i for i, name in enumerate(names) if name not in LABELS])
    everything = jnp.arange(len(names))

    def loss(model: StarTransformer, batch: tuple, key: PRNGKeyArray) -> Float[Array, ""]:
        values, errors = batch
        keys = jax.random.split(key, 5)
        shown = given(keys[0], values.shape[0])
        chosen = jax.random.permutation(keys[1], jnp.asarray(others))[: tasks.n_others]
        asked = jnp.concatenate([jnp.asarray(labels), chosen])
        worse, worse_errors = _worsened(keys[4], values, errors, tasks.noise)
        latents = model.encode(everything, jnp.where(shown, worse, jnp.nan), worse_errors, keys[2])
        answer = model.reply(latents, asked, keys[3])
        target, error = model.standardised(asked, values[:, asked], errors[:, asked])
        wanted = jnp.isfinite(target) & ~shown[:, asked]
        log_prob = answer.log_prob(jnp.where(wanted, target, 0.0), jnp.where(wanted, error, 0.0))
        log_prob = jnp.where(wanted, log_prob, 0.0)
        n = len(labels)
        total = log_prob[:, :n].sum() / len(values) / n
        if tasks.n_others:
            total += tasks.others_weight * log_prob[:, n:].sum() / len(values) / tasks.n_others
        return -total

    return loss


def _worsened(
    key: PRNGKeyArray, values: Float[Array, "b k"], errors: Float[Array, "b k"], share: float
) -> tuple[Float[Array, "b k"], Float[Array, "b k"]]:
    keys = jax.random.split(key, 3)
    n = len(values)
    factor = jax.random.uniform(keys[0], (n, 1)) * (jax.random.uniform(keys[1], (n, 1)) < share)
    noise = factor * errors * jax.random.normal(keys[2], values.shape)
    return values + noise, errors * jnp.sqrt(1.0 + factor**2)


def make_situations(
    names: Sequence[str], tasks: TaskConfig
) -> Callable[[PRNGKeyArray, int], Bool[Array, "b k"]]:
    """A function of (key, number of stars) that says which columns each star shows."""
    arm = np.array([_arm(name) for name in names])
    number = np.array([int(name.rpartition("_")[2]) if _arm(name) in ("bp", "rp") else 0 for name in names])
    spectral, photometry, label = (
        np.isin(arm, kinds) for kinds in (("bp", "rp", "xp"), ("phot",), ("label",))
    )
    allowed = np.array([name not in tasks.never_given for name in names])
    shares = np.array([tasks.situations[name] for name in SITUATIONS])

    def given(key: PRNGKeyArray, n: int) -> Bool[Array, "b k"]:
        keys = jax.random.split(key, 8)
        situation = jax.random.choice(keys[0], len(shares), (n, 1), p=shares / shares.sum())
        u = jax.random.uniform(keys[1], (n, len(names)))
        share = jax.random.uniform(keys[2], (n, 1))
        first = jnp.exp(jax.random.uniform(keys[3], (n, 1)) * np.log(38.0))
        spectrum = jnp.stack(
            [
                jnp.broadcast_to(spectral, u.shape),
                jnp.broadcast_to(arm == "bp", u.shape),
                jnp.broadcast_to(arm == "rp", u.shape),
                spectral & (number <= first),
                spectral & (u < share),
                jnp.zeros(u.shape, bool),
            ],
            1,
        )
        spectrum = jnp.take_along_axis(spectrum, situation[..., None], 1)[:, 0]
        has_photometry = jax.random.uniform(keys[4], (n, 1)) < tasks.photometry
        colours = photometry & has_photometry & (jax.random.uniform(keys[5], u.shape) < 0.8)
        none = situation == list(SITUATIONS).index("none")
        has_labels = jax.random.uniform(keys[6], (n, 1)) < jnp.where(none, 0.9, tasks.labels)
        often = jnp.where(none, 0.8, 0.5)
        labels = label & has_labels & (jax.random.uniform(keys[7], u.shape) < often)
        return (spectrum | colours | labels) & allowed

    return given


def _arm(name: str) -> str:
    stem, _, number = name.rpartition("_")
    if stem in ("bp", "rp") and number.isdigit():
        return stem
    if name == "xp_colour":
        return "xp"
    return "label" if name in LABELS else "phot" if name in STELLAR else "other"
