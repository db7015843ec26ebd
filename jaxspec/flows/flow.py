"""The conditional flow: a density over d variables given a context, exact to evaluate and to sample."""

from dataclasses import dataclass
from typing import Literal

import distrax
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from jaxspec.errors import InputError
from jaxspec.flows.affine import ConditionalAffine
from jaxspec.flows.coupling import AffineCoupling, SplineCoupling
from jaxspec.flows.linear import LULinear, Permutation

ArrayLike = jax.Array | np.ndarray


@dataclass(frozen=True)
class FlowConfig:
    """Shape of a `ConditionalFlow`."""

    coupling: Literal["spline", "affine"] = "spline"
    mixing: Literal["lu", "permutation"] = (
        "lu"  # learned matrices, or fixed permutations, before each coupling
    )
    n_layers: int = 6
    width: int = 128  # hidden width of the conditioners
    depth: int = 2  # hidden layers of the conditioners
    n_bins: int = 8  # of the splines
    bound: float = 5.0  # the splines act within +-bound standard deviations
    min_bin: float = 1e-3  # least width and height of a bin, in standard deviations
    slope_clamp: float = 0.0  # limit on the raw slopes at the knots; 0: none (see `SplineCoupling`)
    clamp: float = 1.9  # of the affine couplings' log-scales
    conditional_affine: bool = True  # first whiten with a mean and a covariance given by the context
    seed: int = 0  # of the fixed permutations; part of the architecture, not of the weights

    def __post_init__(self):
        for name, allowed in (("coupling", ("spline", "affine")), ("mixing", ("lu", "permutation"))):
            if getattr(self, name) not in allowed:
                raise InputError(
                    f"FlowConfig.{name}",
                    repr(getattr(self, name)),
                    f"one of {allowed}",
                    "correct the configuration",
                )
        for name in ("n_layers", "width", "depth", "n_bins"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"FlowConfig.{name}",
                    str(getattr(self, name)),
                    "a positive integer",
                    "correct the configuration",
                )


FLOW_PRESETS: dict[str, FlowConfig] = {
    "default": FlowConfig(),
    "small": FlowConfig(n_layers=4, width=64, n_bins=6),
    "glow": FlowConfig(coupling="affine", n_layers=8, width=128),
}


def layer_orders(n_dim: int, n_layers: int, seed: int) -> list[tuple[int, ...]]:
    """One permutation per coupling, such that any two neighbouring couplings transform every variable.

    Even layers shuffle everything, odd layers bring forward what the coupling before left untouched.
    """
    rng, split, orders = np.random.default_rng(seed), n_dim // 2, []
    for layer in range(n_layers):
        if layer % 2 == 0:
            order = rng.permutation(n_dim)
        else:
            order = np.concatenate([rng.permutation(np.arange(split, n_dim)), rng.permutation(split)])
        orders.append(tuple(int(i) for i in order))
    return orders


class ConditionalFlow(nnx.Module):
    """p(z | context) for z [d]: a standard normal seen through invertible layers.

    The layers run from the data to the normal (first standardisation, then the conditional affine map, then
    pairs of mixing and coupling), so that training evaluates the splines forward, the direction that is cheap
    and well-conditioned; sampling inverts them. With weights as initialised the flow is exactly the normal
    with the stored location and scale.
    """

    def __init__(self, config: FlowConfig = FlowConfig(), *, n_dim: int, n_context: int, rngs: nnx.Rngs):
        self.config, self.n_dim, self.n_context = config, n_dim, n_context
        # Plain variables, not parameters: set once from the prior, never trained.
        self.location = nnx.Variable(jnp.zeros(n_dim))
        self.scale = nnx.Variable(jnp.ones(n_dim))
        layers: list[nnx.Module] = []
        if config.conditional_affine:
            layers.append(ConditionalAffine(n_dim, n_context, width=config.width, rngs=rngs))
        for order in layer_orders(n_dim, config.n_layers, config.seed):
            layers.append(LULinear(order) if config.mixing == "lu" else Permutation(order))
            common = dict(width=config.width, depth=config.depth, rngs=rngs)
            if config.coupling == "spline":
                layers.append(
                    SplineCoupling(
                        n_dim,
                        n_context,
                        n_bins=config.n_bins,
                        bound=config.bound,
                        min_bin=config.min_bin,
                        slope_clamp=config.slope_clamp,
                        **common,
                    )
                )
            else:
                layers.append(AffineCoupling(n_dim, n_context, clamp=config.clamp, **common))
        self.layers = nnx.List(layers)

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

    def bijector(self, context: Float[Array, "b c"]) -> distrax.Bijector:
        """The map from *standardised* z to the normal, for [..., b, d]. Use it within one jitted function."""
        if context.ndim != 2 or context.shape[-1] != self.n_context:
            raise InputError(
                "ConditionalFlow: context",
                f"shape {context.shape}",
                f"[n_stars, {self.n_context}]",
                "give one context vector per star",
            )
        # Chain applies its last element first.
        return distrax.Chain([layer.bijector(context) for layer in reversed(self.layers)])

    def log_prob(self, z: Float[Array, "*n b d"], context: Float[Array, "b c"]) -> Float[Array, "*n b"]:
        """Log-density of z given each star's context; leading axes of z are draws of the same stars."""
        if z.shape[-2:] != (context.shape[0], self.n_dim):
            raise InputError(
                "ConditionalFlow.log_prob: z",
                f"shape {z.shape}",
                f"[..., {context.shape[0]}, {self.n_dim}]",
                "give z and context for the same stars",
            )
        scale = self.scale[...]
        u, log_det = self.bijector(context).forward_and_log_det((z - self.location[...]) / scale)
        return normal_log_prob(u) + log_det - jnp.log(scale).sum()

    def sample(self, key: PRNGKeyArray, context: Float[Array, "b c"], n: int) -> Float[Array, "n b d"]:
        """`n` independent draws for each star."""
        return self.sample_and_log_prob(key, context, n)[0]

    def sample_and_log_prob(
        self, key: PRNGKeyArray, context: Float[Array, "b c"], n: int
    ) -> tuple[Float[Array, "n b d"], Float[Array, "n b"]]:
        """`n` draws for each star with their log-densities, at the cost of the draws alone."""
        u = jax.random.normal(key, (n, context.shape[0], self.n_dim), context.dtype)
        x, log_det = self.bijector(context).inverse_and_log_det(u)
        scale = self.scale[...]
        return x * scale + self.location[...], normal_log_prob(u) - log_det - jnp.log(scale).sum()


def normal_log_prob(u: Float[Array, "*n d"]) -> Float[Array, "*n"]:
    """Log-density of the standard normal in d dimensions."""
    return -0.5 * (u**2).sum(-1) - 0.5 * u.shape[-1] * float(np.log(2.0 * np.pi))
