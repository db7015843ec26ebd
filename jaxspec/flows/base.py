"""The interface of conditional flows: a bijection given a context, seen as a density."""

import abc

import distrax
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from jaxspec.errors import InputError

ArrayLike = jax.Array | np.ndarray


class Flow(nnx.Module):
    """p(z | context) for z [d]: a standard normal seen through a bijection that the context chooses.

    A flow gives its `bijector` and the `loss` that trains it; densities and draws follow.
    """

    def __init__(self, n_dim: int, n_context: int):
        self.n_dim, self.n_context = n_dim, n_context
        # Plain variables, not parameters: set once from the prior, never trained.
        self.location = nnx.Variable(jnp.zeros(n_dim))
        self.scale = nnx.Variable(jnp.ones(n_dim))

    @abc.abstractmethod
    def bijector(self, context: Float[Array, "b c"]) -> distrax.Bijector:
        """The map from *standardised* z to the normal, for [..., b, d]. Use it within one jitted function."""

    @abc.abstractmethod
    def loss(
        self, key: PRNGKeyArray | None, z: Float[Array, "b d"], context: Float[Array, "b c"]
    ) -> Float[Array, " b"]:
        """Loss of each star; its mean is least where the flow is the distribution of z."""

    def set_standardisation(self, location: Float[ArrayLike, " d"], scale: Float[ArrayLike, " d"]) -> None:
        """Store the location and scale of z over the training set; before training, since the density depends
        on it.
        """
        location, scale = jnp.asarray(location, jnp.float32), jnp.asarray(scale, jnp.float32)
        for name, value in (("location", location), ("scale", scale)):
            if value.shape != (self.n_dim,):
                raise InputError(
                    f"set_standardisation: {name}",
                    f"shape {value.shape}",
                    f"({self.n_dim},)",
                    "give one value per variable of the flow",
                )
        if not (bool(jnp.isfinite(location).all()) and bool((jnp.isfinite(scale) & (scale > 0)).all())):
            raise InputError(
                "set_standardisation",
                "a value that is not finite, or a scale that is not positive",
                "finite locations and positive scales",
                "compute them from draws of the prior",
            )
        self.location[...], self.scale[...] = location, scale

    def check_context(self, context: Float[Array, "..."]) -> None:
        """Raises InputError unless `context` is [n_stars, n_context]."""
        if context.ndim != 2 or context.shape[-1] != self.n_context:
            raise InputError(
                f"{type(self).__name__}: context",
                f"shape {context.shape}",
                f"[n_stars, {self.n_context}]",
                "give one context vector per star",
            )

    def standardise(self, z: Float[Array, "*n b d"], context: Float[Array, "b c"]) -> Float[Array, "*n b d"]:
        """z in units of the training set's scatter; raises InputError when z and context disagree."""
        if z.shape[-2:] != (context.shape[0], self.n_dim):
            raise InputError(
                f"{type(self).__name__}: z",
                f"shape {z.shape}",
                f"[..., {context.shape[0]}, {self.n_dim}]",
                "give z and context for the same stars",
            )
        return (z - self.location[...]) / self.scale[...]

    def log_prob(self, z: Float[Array, "*n b d"], context: Float[Array, "b c"]) -> Float[Array, "*n b"]:
        """Log-density of z given each star's context; leading axes of z are draws of the same stars."""
        u, log_det = self.bijector(context).forward_and_log_det(self.standardise(z, context))
        return normal_log_prob(u) + log_det - jnp.log(self.scale[...]).sum()

    def sample(self, key: PRNGKeyArray, context: Float[Array, "b c"], n: int) -> Float[Array, "n b d"]:
        """`n` independent draws for each star."""
        return self.sample_and_log_prob(key, context, n)[0]

    def sample_and_log_prob(
        self, key: PRNGKeyArray, context: Float[Array, "b c"], n: int
    ) -> tuple[Float[Array, "n b d"], Float[Array, "n b"]]:
        """`n` draws for each star with their log-densities, at the cost of the draws alone."""
        u = jax.random.normal(key, (n, context.shape[0], self.n_dim), context.dtype)
        return self.transform(u, context)

    def transform(
        self, u: Float[Array, "n b d"], context: Float[Array, "b c"]
    ) -> tuple[Float[Array, "n b d"], Float[Array, "n b"]]:
        """The draws that standard normal `u` becomes, with their log-densities."""
        x, log_det = self.bijector(context).inverse_and_log_det(u)
        scale = self.scale[...]
        return x * scale + self.location[...], normal_log_prob(u) - log_det - jnp.log(scale).sum()


def normal_log_prob(u: Float[Array, "*n d"]) -> Float[Array, "*n"]:
    """Log-density of the standard normal in d dimensions."""
    return -0.5 * (u**2).sum(-1) - 0.5 * u.shape[-1] * float(np.log(2.0 * np.pi))
