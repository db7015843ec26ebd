"""Double precision for a part of a test."""

from contextlib import contextmanager

import jax


@contextmanager
def double_precision():
    """`jax.enable_x64` with fresh caches: JAX 0.10 keeps constants in the precision of their first use."""
    jax.clear_caches()
    with jax.enable_x64(True):
        yield
    jax.clear_caches()
