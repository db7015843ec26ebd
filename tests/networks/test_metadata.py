"""A fact that is missing reads the same whatever stands in its place, and one that is dropped is missing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxspec.errors import InputError
from jaxspec.networks.metadata import MetadataConfig, MetadataTokens, flag_columns

CONFIG = MetadataConfig(("snr", "survey:a", "survey:b", "flag:0"), dropout=0.5, width=8)


@pytest.fixture(scope="module")
def tokens():
    made = MetadataTokens(CONFIG, 5, rngs=nnx.Rngs(0))
    made.outer.kernel[...] = jax.random.normal(jax.random.key(1), made.outer.kernel.shape)
    made.set_standardisation(np.array([[10.0, 1, 0, 0], [30.0, 0, 1, 1], [np.nan, 0, 1, 0]]))
    return made


def test_a_new_network_has_no_metadata():
    made = MetadataTokens(CONFIG, 5, rngs=nnx.Rngs(0))
    assert not np.any(made(jnp.array([[100.0, 1, 0, jnp.nan]])))


def test_standardisation_passes_over_what_is_missing(tokens):
    np.testing.assert_allclose(tokens.location[...][0], 20.0)
    np.testing.assert_allclose(tokens.scale[...][0], 10.0)


def test_missing_is_not_the_mean(tokens):
    """A star of ordinary S/N and one without are different inputs, though both standardise to zero."""
    known = jnp.array([[20.0, 1.0, 0.0, 0.0]])
    assert np.abs(tokens(known) - tokens(known.at[0, 0].set(jnp.nan))).max() > 1e-3


def test_facts_are_dropped_whole(tokens):
    """With dropout each star sees one of the eight combinations of three facts; both columns of the survey go
    together."""
    row = np.array([25.0, 1.0, 0.0, 1.0], np.float32)
    n = 4000
    seen = np.asarray(tokens(jnp.tile(row, (n, 1)), jax.random.key(2)))
    expected = {}
    for hidden in np.ndindex(2, 2, 2):
        values = row.copy()
        values[np.asarray(hidden)[np.array(CONFIG.groups)].astype(bool)] = np.nan
        expected[hidden] = np.asarray(tokens(jnp.asarray(values[None])))[0]
    nearest = np.stack([np.abs(seen - value).max(axis=1) for value in expected.values()])
    assert nearest.min(axis=0).max() < 1e-5
    share = np.bincount(nearest.argmin(axis=0), minlength=8) / n
    # Each has 1/8; four standard deviations of a count of 4000.
    assert np.abs(share - 0.125).max() < 4.0 * np.sqrt(0.125 * 0.875 / n)


def test_bits_of_flags():
    columns = flag_columns(np.array([0, 1, (1 << 23) | 2]), (0, 1, 23))
    assert np.array_equal(columns, [[0, 0, 0], [1, 0, 0], [0, 1, 1]])


def test_bad_configurations_are_refused():
    with pytest.raises(InputError, match="columns"):
        MetadataConfig(("snr", "snr"))
    with pytest.raises(InputError, match="dropout"):
        MetadataConfig(("snr",), dropout=1.0)
