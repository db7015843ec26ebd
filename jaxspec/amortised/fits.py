"""Training of networks with a linear fit, in two stages.

First encoder and guess learn from simulated spectra where to start fits from, as long as they may, since no
fit is made. Then a fixed number of stars is fitted once, and the flow learns from the stored fits, again and
again: its layers are small, and what they have left to tell of a fit is little.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray
from tqdm import tqdm

from jaxspec.amortised.linear_fit import Fitted
from jaxspec.amortised.network import PosteriorNetwork
from jaxspec.datasets import Dataset
from jaxspec.fitting.check import concurrently
from jaxspec.flows import MatchingFlow
from jaxspec.posterior.flagging import LEAST_INSIDE
from jaxspec.runs import resumable
from jaxspec.simulation.prior import StellarPrior
from jaxspec.simulation.simulator import Simulator

GUESS = nnx.All(nnx.Param, nnx.Any(nnx.PathContains("encoder"), nnx.PathContains("guess")))
"""The weights of the first stage, for `trained` of `jaxspec.training.fit`."""
FLOW = nnx.All(nnx.Param, nnx.Not(GUESS))
"""Those of the second."""
BLOCK = 4096  # stars in a file
N_SHARE, SHARED = 32, 8  # draws of a star for the share of them that its prior supports; one star in so many


class KnownFits(NamedTuple):
    """Fits of stars whose labels are known."""

    labels: Float[Any, "n l"]
    fitted: Fitted


def guess_loss(network: PosteriorNetwork, batch: Dataset, key: PRNGKeyArray) -> Float[Array, ""]:
    """Loss of the first stage."""
    return jnp.mean(network.guess_loss(key, batch.labels, batch.nuisances, batch.flux, batch.ivar))


def flow_loss(
    network: PosteriorNetwork, batch: KnownFits, key: PRNGKeyArray, prior: StellarPrior | None = None
) -> Float[Array, ""]:
    """Loss of the second stage: `training_loss` of the spectra behind these fits.

    With a `prior` it is -ln of the density that draws have, which is cut off where the prior ends: trained
    without, a flow leaves a tenth of its draws outside, and what is inside does not reach the edges as it
    should. For one star in `SHARED` the share inside is estimated. Flows that are trained by matching have
    no such likelihood.
    """
    assert network.linear_fit is not None
    context = network.linear_fit(batch.fitted)
    loss = jnp.mean(network.loss_given(key, batch.labels, context))
    if prior is None or isinstance(network.flow, MatchingFlow):
        return loss
    key = jax.random.fold_in(key, 2)
    some = context[: -(-len(context) // SHARED)]
    return loss + jnp.mean(network.log_share(key, some, prior.supports, N_SHARE, LEAST_INSIDE))


def make_fits(
    network: PosteriorNetwork,
    simulator: Simulator,
    key: PRNGKeyArray,
    n: int,
    folder: str | os.PathLike,
    *,
    batch: int = 64,
    progress: bool = True,
) -> KnownFits:
    """Simulate `n` stars and fit them, with the dropout of the training if there is any.

    Files of some thousand stars are kept in `folder`; what is there already is read, not made again. A larger
    `n` goes on with them: the first stars are the same for every `n`.

    Raises: InputError when `folder` holds fits by another network, of another simulator, or with another key
    or `batch`, and for a damaged file.
    """
    graph, state = nnx.split(network)
    weights = {"/".join(map(str, path)): x[...] for path, x in nnx.to_flat_state(state)}
    settings = {"key": key, "batch": batch, "block": BLOCK, "network": weights, "simulator": simulator}

    @jax.jit
    def some(key, state):
        stars = simulator.simulate(key, batch)
        fitted = nnx.merge(graph, state).fitted(stars.flux, stars.ivar, jax.random.fold_in(key, 1))
        return KnownFits(stars.labels, fitted)

    def piece_of(block, j):
        return jax.device_get(some(jax.random.fold_in(block, j), state))

    blocks = []
    names = [f"{i:05d}" for i in range(-(-n // BLOCK))]
    items = list(resumable(names, settings, folder))
    for i, item in enumerate(tqdm(items, unit_scale=BLOCK, unit=" fits", disable=not progress)):
        size, block = min(BLOCK, n - i * BLOCK), jax.random.fold_in(key, i)
        arrays = item.load() if item.done else {}
        # The last file of a smaller n ends early, always with a whole batch.
        begun, wanted = len(arrays.get("labels", ())) // batch, -(-size // batch)
        if begun < wanted:
            pieces = concurrently(partial(piece_of, block), range(begun, wanted))
            new = [{"labels": piece.labels, **piece.fitted._asdict()} for piece in pieces]
            pieces = [arrays, *new] if arrays else new
            arrays = {name: np.concatenate([x[name] for x in pieces]) for name in new[0]}
            item.save(**arrays)
        stars = {name: array[:size] for name, array in arrays.items()}
        blocks.append(KnownFits(stars.pop("labels"), Fitted(**stars)))
    return jax.tree.map(lambda *x: np.concatenate(x), *blocks)
