"""The transformer knows a pixel by its wavelength alone."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxspec.networks import TransformerEncoder
from jaxspec.networks.transformer import cut_patches, wavelength_code
from tests.networks.test_encoder import TRANSFORMER
from tests.shaken import shaken

CELL, CELLS = TRANSFORMER.cell, TRANSFORMER.patch_cells
SHORT = 5400.0 + 0.05 * np.arange(120)
# The same pixels with 37 before them and a second arm behind.
LONG = np.concatenate([5400.0 - 0.05 * np.arange(37, 0, -1), SHORT, 8500.0 + 0.1 * np.arange(60)])
COMMON = slice(37, 157)


def make(wavelength, weights=None):
    """An encoder with random weights, or with those of another one."""
    model = TransformerEncoder(TRANSFORMER, wavelength=wavelength, rngs=nnx.Rngs(1))
    if weights is not None:
        nnx.update(model, nnx.state(weights, nnx.Param))
        return model
    return shaken(model, 0.1)


@pytest.fixture(scope="module")
def pair():
    short = make(SHORT)
    return short, make(LONG, weights=short)


def stars(rng, n_pixels):
    flux, ivar = rng.normal(1.0, 0.1, (3, n_pixels)), rng.uniform(50, 200, (3, n_pixels))
    return jnp.asarray(flux, jnp.float32), jnp.asarray(ivar, jnp.float32)


@nnx.jit
def embed(model, flux, ivar):
    return model.tokens.tokens(flux, ivar, model.mean[...], model.scale[...])


@nnx.jit
def encode(model, flux, ivar):
    return model(flux, ivar)


def test_every_pixel_is_in_the_cell_of_its_wavelength():
    grid = cut_patches(LONG, CELL, CELLS)
    np.testing.assert_array_equal(np.sort(grid.pixels[grid.used]), np.arange(len(LONG)))
    patch, cell, _ = np.nonzero(grid.used)
    low = grid.centre[patch] - 0.5 * grid.width + cell * CELL
    distance = np.log(LONG)[grid.pixels[grid.used]] - low
    assert (distance > -1e-12).all() and (distance < CELL + 1e-12).all()


def test_patches_do_not_straddle_arms():
    """Two arms 0.3 A apart, far less than the 0.86 A of a patch."""
    wavelength = np.concatenate([5400.0 + 0.05 * np.arange(90), 5404.75 + 0.05 * np.arange(90)])
    grid = cut_patches(wavelength, CELL, CELLS)
    arms = [set((grid.pixels[i][grid.used[i]] >= 90).tolist()) for i in range(len(grid.pixels))]
    assert all(len(arm) == 1 for arm in arms)
    # And the patch in which they meet is there twice.
    assert len(np.unique(grid.centre)) == len(grid.centre) - 1


def test_same_wavelengths_same_tokens(pair, rng):
    """Pixels moved by 37 places, not by an angstrom; what surrounds them here was not observed."""
    short, long = pair
    flux, ivar = stars(rng, len(SHORT))
    wide = jnp.full((3, len(LONG)), jnp.nan).at[:, COMMON].set(flux)
    tokens, seen = embed(short, flux, ivar)
    found, found_seen = embed(long, wide, jnp.zeros((3, len(LONG))).at[:, COMMON].set(ivar))
    assert found.shape[1] > tokens.shape[1] and seen.all()
    np.testing.assert_array_equal(found_seen.sum(1), seen.sum(1))
    np.testing.assert_allclose(found[found_seen].reshape(tokens.shape), tokens, rtol=1e-4, atol=1e-5)


def test_what_was_not_observed_is_as_if_not_there(pair, rng):
    """The context of a spectrum with a masked arm is that of an instrument without the arm."""
    short, long = pair
    flux, ivar = stars(rng, len(SHORT))
    wide = jnp.ones((3, len(LONG))).at[:, COMMON].set(flux)
    masked = encode(long, wide, jnp.zeros((3, len(LONG))).at[:, COMMON].set(ivar))
    np.testing.assert_allclose(masked, encode(short, flux, ivar), rtol=1e-4, atol=1e-5)
    # Observed, it does count.
    assert np.abs(encode(long, wide, jnp.full(wide.shape, 100.0)) - masked).max() > 0.01


def test_same_weights_read_another_instrument(pair):
    """One line, on pixels of 0.05 and of 0.03 A: contexts differ less than those of lines 3 A apart do."""
    short, _ = pair
    fine_grid = np.arange(SHORT[0], SHORT[-1], 0.03)
    fine = make(fine_grid, weights=short)

    def context(model, wavelength, centre):
        flux = 1.0 - 0.4 * np.exp(-0.5 * ((wavelength - centre) / 0.15) ** 2)
        ivar = np.full((1, wavelength.size), 1e4 * np.median(np.diff(wavelength)) / 0.05)
        return encode(model, jnp.asarray(flux[None], jnp.float32), jnp.asarray(ivar, jnp.float32))

    one, other = context(short, SHORT, 5402.0), context(fine, fine_grid, 5402.0)
    moved = context(short, SHORT, 5405.0)
    assert np.abs(one - other).max() < 0.5 * np.abs(one - moved).max()


def test_code_tells_neighbouring_patches_apart():
    centre = np.log(5400.0) + 6.4e-4 * np.arange(400)
    code = wavelength_code(centre, 6.4e-4)
    distance = np.sqrt(((code[:, None] - code[None]) ** 2).sum(-1)) + 10 * np.eye(400)
    assert distance.min() > 1.0
