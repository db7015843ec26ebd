"""Facts beside the pixels as an input of networks: S/N, resolving power, survey, flags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxspec.errors import InputError


@dataclass(frozen=True)
class MetadataConfig:
    """Columns of metadata and how they enter a network.

    Attributes:
        columns: one name for each column. Columns that share what is before a colon (`survey:apogee`,
            `survey:galah`) are one fact: they are dropped together.
        dropout: probability that a fact is hidden from a star in a training step, so that a network also
            works where it is not known.
        width: hidden units.
    """

    columns: tuple[str, ...]
    dropout: float = 0.3
    width: int = 64

    def __post_init__(self):
        if not self.columns or len(set(self.columns)) != len(self.columns):
            raise InputError(
                "MetadataConfig.columns", f"{self.columns}", "one or more names, each once", "mend the names"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise InputError("MetadataConfig.dropout", f"{self.dropout}", "0 to less than 1", "use about 0.3")

    @property
    def groups(self) -> tuple[int, ...]:
        """The number of the fact that each column belongs to."""
        facts = list(dict.fromkeys(name.split(":")[0] for name in self.columns))
        return tuple(facts.index(name.split(":")[0]) for name in self.columns)


class MetadataTokens(nnx.Module):
    """A vector of the context's length from the metadata of each star; NaN is missing.

    A missing column has a weight of its own (the missing token). Starts at zero: a network begins as if it
    had no metadata.
    """

    def __init__(self, config: MetadataConfig, n_context: int, *, rngs: nnx.Rngs):
        self.config = config
        n = len(config.columns)
        # Plain variables, not parameters: set once from the training set, never trained.
        self.location, self.scale = nnx.Variable(jnp.zeros(n)), nnx.Variable(jnp.ones(n))
        self.inner = nnx.Linear(2 * n, config.width, rngs=rngs)
        self.outer = nnx.Linear(config.width, n_context, kernel_init=nnx.initializers.zeros, rngs=rngs)

    def set_standardisation(self, values: Float[np.ndarray, "n m"]) -> None:
        """Mean and scale of each column over the training set; a column that does not vary keeps scale 1."""
        values = np.asarray(values, np.float64)
        seen = np.isfinite(values)
        n = np.maximum(seen.sum(axis=0), 1)
        mean = np.where(seen, values, 0.0).sum(axis=0) / n
        scale = np.sqrt((np.where(seen, values - mean, 0.0) ** 2).sum(axis=0) / n)
        self.location[...] = jnp.asarray(mean, jnp.float32)
        self.scale[...] = jnp.asarray(np.where(scale > 1e-6, scale, 1.0), jnp.float32)

    def __call__(self, values: Float[Array, "b m"], key: PRNGKeyArray | None = None) -> Float[Array, "b c"]:
        """What to add to the context. With a `key`, facts are hidden at random."""
        missing = jnp.isnan(values)
        if key is not None and self.config.dropout > 0.0:
            groups = np.asarray(self.config.groups)
            shape = (values.shape[0], int(groups.max()) + 1)
            missing |= jax.random.bernoulli(key, self.config.dropout, shape)[:, groups]
        x = (jnp.where(missing, self.location[...], values) - self.location[...]) / self.scale[...]
        hidden = self.inner(jnp.concatenate([x, missing.astype(x.dtype)], axis=-1))
        return self.outer(jax.nn.gelu(hidden))


def flag_columns(flags: Int[np.ndarray, " n"], bits: Sequence[int]) -> Float[np.ndarray, "n f"]:
    """One column of 0 or 1 for each bit number of integer flags, such as APOGEE's ASPCAPFLAG."""
    flags = np.asarray(flags, np.int64)
    return np.stack([(flags >> bit) & 1 for bit in bits], axis=1).astype(np.float32)
