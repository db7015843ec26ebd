"""NUTS for the survey model, in coordinates where its posterior is round.

The kernel is NumPyro's. Chains run side by side in threads, in rounds after each of which everything is
saved: a run that was killed goes on from its last round and ends with the same numbers.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, PRNGKeyArray
from numpyro.infer import NUTS

from jaxspec.errors import InputError
from jaxspec.runs import atomically
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
    checkpoint: Path | None = None,
) -> Chains:
    """Run the chains, each from its own draw of the Gaussian approximation.

    `checkpoint` is a folder in which the chains are saved after each round and from which they go on; it must
    be of the same run. Raises `InputError` if it is not.
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
    advance_round = jax.jit(lambda state: jax.lax.scan(advance, state, None, length=config.round))
    begun = time.perf_counter()
    advance_round = advance_round.lower(states[0]).compile()
    compile_seconds = time.perf_counter() - begun
    total = config.warmup + config.draws
    rounds = -(-total // config.round)

    def run(chain: int):
        state, parts, done = states[chain], [], 0
        file = None if checkpoint is None else Path(checkpoint) / f"chain_{chain}.npz"
        # Double precision is a setting of the thread.
        with jax.enable_x64(True):
            if file is not None and file.exists():
                state, parts, done = _restore(file, state, size, config)
            for number in range(done, rounds):
                state, found = advance_round(state)
                parts.append([np.asarray(x) for x in found])
                if file is not None:
                    _save(file, state, parts, number + 1, config)
        return [np.concatenate(x)[config.warmup : total] for x in zip(*parts, strict=True)]

    with ThreadPoolExecutor(config.threads) as pool:
        chains = list(pool.map(run, range(config.chains)))
    return Chains(*(np.stack(x) for x in zip(*chains, strict=True)), compile_seconds)


def _leaves(state) -> list[np.ndarray]:
    return [
        np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)
        for x in jax.tree.leaves(state)
    ]


def _save(file: Path, state, parts, done: int, config: NutsConfig) -> None:
    arrays = {f"state_{i}": x for i, x in enumerate(_leaves(state))}
    draws = {f"draws_{i}": np.concatenate(x) for i, x in enumerate(zip(*parts, strict=True))}
    atomically(file, lambda path: np.savez(path, done=done, config=repr(config), **arrays, **draws))


def _restore(file: Path, template, size: int, config: NutsConfig):
    with np.load(file) as saved:
        if saved["draws_0"].shape[1] != size or str(saved["config"]) != repr(config):
            raise InputError(
                f"{file}",
                f"chains of {saved['draws_0'].shape[1]} parameters, {saved['config']}",
                f"{size} parameters, {config!r}",
                "give another checkpoint folder, or remove this one",
            )
        leaves, structure = jax.tree.flatten(template)
        new = []
        for i, leaf in enumerate(leaves):
            value = jnp.asarray(saved[f"state_{i}"])
            is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            new.append(jax.random.wrap_key_data(value) if is_key else value)
        parts = [[saved[f"draws_{i}"] for i in range(4)]]
        return jax.tree.unflatten(structure, new), parts, int(saved["done"])
