"""NUTS for the survey model, in coordinates where its posterior is round.

The kernel is NumPyro's. Chains run side by side in threads, in rounds after each of which everything is
saved: a run that was killed goes on from its last round and ends with the same numbers.
"""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, PRNGKeyArray
from numpyro.infer import NUTS

from jaxspec.errors import InputError
from jaxspec.runs import UNKEPT, Item, tree_arrays, tree_from
from jaxspec.surveys.density import Gaussian, Objective


@dataclass(frozen=True)
class NutsConfig:
    """How chains are run.

    Attributes:
        chains: number of chains.
        warmup: steps in which the step size and the scale of each coordinate are adapted; not kept.
        draws: steps kept of each chain.
        round: steps between two saves.
        target_accept: acceptance probability that the step size is adapted to; after a short warm-up, draws
            are accepted more often than that.
        max_tree_depth: log2 of the most leapfrog steps of one draw.
        threads: chains that run at the same time.
    """

    chains: int = 4
    warmup: int = 150
    draws: int = 900
    round: int = 50
    target_accept: float = 0.6
    max_tree_depth: int = 8
    threads: int = 2

    def __post_init__(self):
        for name in ("chains", "warmup", "draws", "round", "threads"):
            if getattr(self, name) < 1:
                raise InputError(f"nuts.{name}", f"{getattr(self, name)}", "1 or more", "change it")


class Chains(NamedTuple):
    """What the chains did: whitened positions `u [chain, draw, d]`, and for each draw whether it `diverged`,
    its leapfrog `steps` and `acceptance` probability; and what compilation took."""

    u: Float[np.ndarray, "c n d"]
    diverged: np.ndarray
    steps: Int[np.ndarray, "c n"]
    acceptance: Float[np.ndarray, "c n"]
    compile_seconds: float


def run_nuts(
    objective: Objective,
    gaussian: Gaussian,
    key: PRNGKeyArray,
    config: NutsConfig = NutsConfig(),
    items: Sequence[Item] = (),
) -> Chains:
    """Run the chains, each from its own draw of the Gaussian approximation.

    `items`, one a chain, are where chains are saved after each round and from where they go on; none keeps
    nothing.
    """
    mean, root = jnp.asarray(gaussian.mean), jnp.asarray(gaussian.root)
    size = len(gaussian.mean)

    @jax.jit  # NumPyro evaluates it once outside of any compiled function
    def potential(u):
        return objective.negative(mean + root @ u, objective.batch.blocks)

    kernel = NUTS(
        potential_fn=potential,
        target_accept_prob=config.target_accept,
        max_tree_depth=config.max_tree_depth,
    )

    def start(key):
        first, second = jax.random.split(key)
        u = jax.random.normal(first, (size,), root.dtype)
        return kernel.init(second, config.warmup, u, (), {})

    def advance(state, _):
        state = kernel.sample(state, (), {})
        return state, (state.z, state.diverging, state.num_steps, state.accept_prob)

    states = [start(k) for k in jax.random.split(key, config.chains)]
    begun = time.perf_counter()
    scan = jax.jit(lambda state: jax.lax.scan(advance, state, None, length=config.round))
    advance_round = scan.lower(states[0]).compile()
    compile_seconds = time.perf_counter() - begun
    total = config.warmup + config.draws
    rounds = -(-total // config.round)

    def run(chain: int):
        state, parts, done = states[chain], [], 0
        item = items[chain] if items else UNKEPT
        # Double precision is a setting of the thread.
        with jax.enable_x64(True):
            if item.done:
                saved = item.load()
                state, done = tree_from(state, saved), int(saved["rounds"])
                parts = [[saved[f"draws_{i}"] for i in range(4)]]
            for number in range(done, rounds):
                state, found = advance_round(state)
                parts.append([np.asarray(x) for x in found])
                if item.path is not None:
                    _save(item, state, parts, number + 1)
                if stop.is_set():
                    break
        return [np.concatenate(x)[config.warmup : total] for x in zip(*parts, strict=True)]

    stop = threading.Event()  # the pool waits for its threads, which would run to their chains' end
    with ThreadPoolExecutor(config.threads) as pool:
        try:
            chains = list(pool.map(run, range(config.chains)))
        except BaseException:
            stop.set()
            raise
    u, diverged, steps, acceptance = (np.stack(x) for x in zip(*chains, strict=True))
    return Chains(u, diverged, steps, acceptance, compile_seconds)


def _save(item: Item, state, parts, done: int) -> None:
    draws = {f"draws_{i}": np.concatenate(x) for i, x in enumerate(zip(*parts, strict=True))}
    item.save(rounds=done, **draws, **tree_arrays(state))
