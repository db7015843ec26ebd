"""AdamW with warm-up, cosine decay and clipping, and the exponential moving average of the weights."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree, Real

from jaxspec.errors import InputError


@dataclass(frozen=True)
class OptimiserConfig:
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) and what surrounds it."""

    learning_rate: float = 1e-3  # at the end of the warm-up
    warmup_steps: int = 200  # linear from 0
    final_fraction: float = 0.01  # of learning_rate, at the end of the cosine
    weight_decay: float = 1e-4  # on matrices and kernels, not on biases and scales
    clip_norm: float = 5.0  # of the global gradient norm
    b1: float = 0.9
    b2: float = 0.99
    ema_decay: float = 0.998  # of the averaged weights; 0: the last weights

    def __post_init__(self):
        for name, low, high in (
            ("learning_rate", 0.0, 10.0),
            ("final_fraction", 0.0, 1.0),
            ("weight_decay", 0.0, 1.0),
            ("ema_decay", 0.0, 0.999999),
        ):
            if not low <= getattr(self, name) <= high:
                raise InputError(
                    f"OptimiserConfig.{name}",
                    str(getattr(self, name)),
                    f"a value in [{low}, {high}]",
                    "set it to such a value",
                )
        if self.clip_norm <= 0:
            raise InputError(
                "OptimiserConfig.clip_norm",
                str(self.clip_norm),
                "a positive norm",
                "set it to such a value",
            )


def learning_rate(
    config: OptimiserConfig, step: Int[Array, ""] | int, progress: Real[Array, ""] | float
) -> Float[Array, ""]:
    """Linear warm-up in `step`, then half a cosine in `progress`, the fraction of the run that is done."""
    warmup = jnp.minimum(1.0, (step + 1) / max(config.warmup_steps, 1))
    cosine = 0.5 * (1.0 + jnp.cos(jnp.pi * jnp.clip(progress, 0.0, 1.0)))
    fraction = config.final_fraction + (1.0 - config.final_fraction) * cosine
    return jnp.asarray(config.learning_rate * warmup * fraction, jnp.float32)


def make_optimiser(config: OptimiserConfig) -> optax.GradientTransformation:
    """Clipping, Adam and decoupled weight decay; the caller multiplies the result by minus the learning
    rate."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.scale_by_adam(b1=config.b1, b2=config.b2),
        optax.add_decayed_weights(
            config.weight_decay, mask=lambda params: jax.tree.map(lambda x: x.ndim > 1, params)
        ),
    )


def ema_update(average: PyTree, params: PyTree, decay: float) -> PyTree:
    """One step of the moving average that starts from zeros (see `ema_weights`)."""
    return jax.tree.map(lambda a, p: decay * a + (1.0 - decay) * p, average, params)


@partial(jax.jit, static_argnames="decay")
def ema_weights(average: PyTree, step: Any, decay: float) -> PyTree:
    """The averaged weights after `step` updates; dividing by 1 - decay^step removes the pull of the zeros."""
    correction = 1.0 - jnp.asarray(decay, jnp.float32) ** step
    return jax.tree.map(lambda a: a / jnp.where(step > 0, correction, 1.0), average)
