"""Gradient reversal: the identity forwards, a change of sign backwards."""

import jax
from jaxtyping import Array, Float


@jax.custom_vjp
def reverse_gradient(x: Float[Array, "*n"], strength: Float[Array, ""] | float) -> Float[Array, "*n"]:
    """`x`, through which gradients pass multiplied by `-strength`.

    What follows learns to tell surveys apart, what comes before learns to prevent it (Ganin & Lempitsky 2015,
    arXiv:1409.7495, equations 11 to 13). `strength` itself gets no gradient.
    """
    return x


def _forward(x, strength):
    return x, strength


def _backward(strength, gradient):
    return jax.tree.map(lambda g: -strength * g, gradient), None


reverse_gradient.defvjp(_forward, _backward)
