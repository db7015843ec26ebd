"""A universe small enough to be known: quantities that are noisy sums of two hidden numbers."""

import numpy as np
from flax import nnx

from jaxspec.foundation.model import FoundationModel, domain_of
from jaxspec.foundation.network import FoundationConfig
from jaxspec.foundation.table import Table
from jaxspec.foundation.training import make_network

NAMES = ("bp_1", "bp_2", "rp_1", "g", "bp_rp", "teff", "logg")
CONFIG = FoundationConfig(width=16, n_latents=2, blocks=1, n_heads=2, request_width=16, dropout=0.0)


def universe(n: int, seed: int = 0, noise: float = 0.3, missing: float = 0.0) -> Table:
    """Stars with a hidden pair (a, b): `bp_1` = a, `bp_2` = b, `rp_1` = a + b, ..., `teff` = a - b, each
    with the same error."""
    rng = np.random.default_rng(seed)
    hidden = rng.standard_normal((n, 2))
    mix = np.array([[1, 0], [0, 1], [1, 1], [2, 1], [1, 2], [1, -1], [0.5, 0.2]], float)
    values = hidden @ mix.T + noise * rng.standard_normal((n, len(NAMES)))
    errors = np.full(values.shape, noise)
    gone = rng.random(values.shape) < missing
    return Table(NAMES, np.where(gone, np.nan, values), np.where(gone, np.nan, errors), np.arange(n))


def fresh(seed: int = 0) -> FoundationModel:
    """An untrained model of that universe; its weights are moved away from their zeros."""
    table = universe(500)
    network = make_network(CONFIG, table, rngs=nnx.Rngs(seed))
    state = nnx.state(network, nnx.Param)
    rng = np.random.default_rng(seed)
    nnx.update(
        network,
        nnx.map_state(lambda _, x: x[...] + 0.2 * rng.standard_normal(x[...].shape).astype("f4"), state),
    )
    return FoundationModel(network, None, domain_of(table), {"made": "for tests"})
