"""The conditional flow of invertible layers: a density exact to evaluate and to sample."""

from typing import Any

import distrax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from jaxspec.flows.affine import ConditionalAffine
from jaxspec.flows.autoregressive import Autoregressive
from jaxspec.flows.base import Flow
from jaxspec.flows.config import FlowConfig
from jaxspec.flows.coupling import AffineCoupling, SplineCoupling
from jaxspec.flows.linear import LULinear, Permutation
from jaxspec.flows.matching import MatchingFlow


def make_flow(config: FlowConfig, *, n_dim: int, n_context: int, rngs: nnx.Rngs) -> Flow:
    """The flow that `config.coupling` names."""
    kind = MatchingFlow if config.coupling == "matching" else ConditionalFlow
    return kind(config, n_dim=n_dim, n_context=n_context, rngs=rngs)


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


Coupling = AffineCoupling | Autoregressive | SplineCoupling


class ConditionalFlow(Flow):
    """p(z | context) by invertible layers, trained by maximum likelihood.

    The layers run from the data to the normal (first standardisation, then the conditional affine map, then
    pairs of mixing and coupling), so that training evaluates the splines forward, the direction that is cheap
    and well-conditioned; sampling inverts them. With weights as initialised the flow is exactly the normal
    with the stored location and scale.
    """

    def __init__(self, config: FlowConfig, *, n_dim: int, n_context: int, rngs: nnx.Rngs):
        super().__init__(n_dim, n_context)
        self.config = config
        layers: list[ConditionalAffine | LULinear | Permutation | Coupling] = []
        if config.conditional_affine:
            layers.append(ConditionalAffine(n_dim, n_context, width=config.width, rngs=rngs))
        for order in layer_orders(n_dim, config.n_layers, config.seed):
            layers.append(LULinear(order) if config.mixing == "lu" else Permutation(order))
            layers.append(_coupling(config, n_dim, n_context, rngs))
        self.layers = nnx.List(layers)

    def bijector(self, context: Float[Array, "b c"]) -> distrax.Bijector:
        self.check_context(context)
        # Chain applies its last element first.
        return distrax.Chain([layer.bijector(context) for layer in reversed(self.layers)])

    def loss(
        self, key: PRNGKeyArray | None, z: Float[Array, "b d"], context: Float[Array, "b c"]
    ) -> Float[Array, " b"]:
        """-ln p(z | context); `key` is not used."""
        return -self.log_prob(z, context)


def _coupling(config: FlowConfig, n_dim: int, n_context: int, rngs: nnx.Rngs) -> Coupling:
    common: dict[str, Any] = dict(width=config.width, depth=config.depth, rngs=rngs)
    if config.coupling == "affine":
        return AffineCoupling(n_dim, n_context, clamp=config.clamp, **common)
    if config.coupling == "autoregressive":
        return Autoregressive(n_dim, n_context, clamp=config.clamp, **common)
    return SplineCoupling(
        n_dim,
        n_context,
        n_bins=config.n_bins,
        bound=config.bound,
        min_bin=config.min_bin,
        slope_clamp=config.slope_clamp,
        **common,
    )
