"""A small regression whose every batch follows from (key, step); also run as a script, to be killed.

``python -m tests.training.problem FOLDER DELAY`` trains in FOLDER, sleeping DELAY seconds before each batch.
"""

import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxspec.training import OptimiserConfig, TrainConfig, fit

KEY = 42
CONFIG = TrainConfig(
    n_steps=60,
    optimiser=OptimiserConfig(learning_rate=1e-2, warmup_steps=5, ema_decay=0.9),
    log_every=4,
    checkpoint_every=10,
    evaluate_every=20,
    progress=False,
)


class Net(nnx.Module):
    """Two dense layers on standardised inputs; the standardisation is not trained."""

    def __init__(self, rngs):
        self.scale = nnx.Variable(jnp.full(3, 2.0))
        self.hidden = nnx.Linear(3, 16, rngs=rngs)
        self.last = nnx.Linear(16, 1, rngs=rngs)

    def __call__(self, x):
        return self.last(jnp.tanh(self.hidden(x / self.scale[...])))[:, 0]


def make_net():
    return Net(nnx.Rngs(0))


def batch_fn(key, step):
    """On the device: x ~ N(0, 1), y = sin(x0) + x1 x2."""
    x = jax.random.normal(key, (32, 3))
    return {"x": x, "y": jnp.sin(x[:, 0]) + x[:, 1] * x[:, 2]}


def host_source(step):
    """The like on the host."""
    x = np.random.default_rng(step).normal(size=(32, 3)).astype(np.float32)
    return {"x": x, "y": np.sin(x[:, 0]) + x[:, 1] * x[:, 2]}


def loss_fn(model, batch, key):
    return jnp.mean((model(batch["x"]) - batch["y"]) ** 2)


def evaluate(model):
    batch = host_source(10**6)
    return {"held_out": float(loss_fn(model, batch, None))}


def train(folder, delay=0.0, **kwargs):
    def source(step):
        time.sleep(delay)
        return host_source(step)

    return fit(
        make_net(),
        loss_fn,
        CONFIG,
        key=jax.random.key(KEY),
        source=source,
        directory=folder,
        evaluate=evaluate,
        **kwargs,
    )


if __name__ == "__main__":
    train(sys.argv[1], float(sys.argv[2]))
