"""Lanes: the same programs under stricter rules of JAX's than users have.

`JAXSPEC_STRICT=1 pytest ...` runs any tests under strict dtype promotion: an integer that meets a float, or
a float32 that meets a float64, is then an error unless it was cast. `tests/test_lanes.py` holds the library's
core to it in every run, and to double precision.
"""

import os

import pytest


@pytest.fixture(scope="session", autouse=True)
def _strict_lane():
    """Strict dtype promotion in all tests, where the environment asks for it."""
    if os.environ.get("JAXSPEC_STRICT", "0") in ("", "0"):
        yield
        return
    import jax

    with jax.numpy_dtype_promotion("strict"):
        yield
