"""All derivatives at once against those of JAX, one at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.labels import NINE_LABELS
from jaxspec.physics.departures import ElementDepartures
from jaxspec.physics.jacobian import flux_and_jacobian, with_jacobian
from jaxspec.physics.model import StellarModel
from jaxspec.physics.synthesis import Window

# Ca II 8542 and Paschen 15, several blocks of pixels and continuum nodes; Mg I 5528, at another step.
WINDOWS = (Window(8534.0, 8562.0, 0.03), Window(5527.0, 5530.0, 0.02))
STARS = {
    "Sun": ([5777.0, 4.44, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], 1.0),
    "K giant": ([4510.0, 2.1, -0.3, 0.1, 0.0, -0.2, -0.3, -0.1, 0.0], 1.5),
    "hot and metal-poor": ([6800.0, 3.9, -1.6, -1.7, -1.2, -1.3, -1.6, -1.3, -1.2], 2.0),
}


@pytest.fixture(scope="module")
def model():
    return StellarModel.create(WINDOWS)


@pytest.fixture(scope="module")
def functions(model):
    whole = jax.jit(lambda labels, vmic: flux_and_jacobian(model, labels, vmic))
    one = jax.jit(lambda labels, vmic, d: jax.jvp(model, (labels, vmic), (d[:-1], d[-1])))
    return whole, one


@pytest.mark.parametrize("star", STARS)
def test_derivatives_are_those_of_jax(star, functions):
    """To 0.1 %; by vmic to 0.3 %, as strong lines of the hot star feel the ripples of `voigt` in their inner
    wings, which the slopes by `voigt_and_slopes` have not."""
    whole, one = functions
    labels, vmic = (jnp.asarray(x, jnp.float32) for x in STARS[star])
    flux, jacobian = whole(labels, vmic)
    assert jacobian.shape == (len(flux), 10)
    for k, name in enumerate([*NINE_LABELS.names, "vmic"]):
        expected, slope = one(labels, vmic, jnp.eye(10)[k])
        np.testing.assert_allclose(flux, expected, atol=2e-6)
        difference = np.asarray(jacobian[:, k] - slope, float)
        limit = 1e-3 if name != "vmic" else 3e-3
        assert np.abs(difference).max() < limit * np.abs(slope).max(), name
        assert np.sqrt(np.mean(difference**2)) < limit * np.sqrt(np.mean(np.asarray(slope) ** 2)), name


def test_outside_the_grid_it_is_nan(functions):
    whole, _ = functions
    labels = jnp.asarray(STARS["Sun"][0], jnp.float32).at[0].set(9000.0)
    flux, jacobian = whole(labels, jnp.float32(1.0))
    assert np.isnan(flux).all() and np.isnan(jacobian).all()


@pytest.mark.slow
def test_jax_differentiates_with_it():
    """Forward, and backward of a projection."""
    model = StellarModel.create((Window(5527.0, 5530.0, 0.05),))
    labels, vmic = (jnp.asarray(x, jnp.float32) for x in STARS["K giant"])
    flux, jacobian = jax.jit(lambda labels, vmic: flux_and_jacobian(model, labels, vmic))(labels, vmic)
    spectrum = with_jacobian(model)
    weights = jnp.asarray(np.random.default_rng(1).normal(size=len(flux)), jnp.float32)

    @jax.jit
    def both(labels, vmic):
        value, pullback = jax.vjp(spectrum, labels, vmic)
        return value, jax.jacfwd(spectrum)(labels, vmic), pullback(weights)

    value, forward, (by_labels, by_vmic) = both(labels, vmic)
    np.testing.assert_allclose(value, flux, atol=2e-6)
    scale = np.abs(jacobian).max(axis=0)
    np.testing.assert_allclose(forward / scale[:-1], jacobian[:, :-1] / scale[:-1], atol=1e-5)
    size = np.linalg.norm(jacobian, axis=0)
    np.testing.assert_allclose(by_labels / size[:-1], weights @ jacobian[:, :-1] / size[:-1], atol=1e-3)
    assert by_vmic / size[-1] == pytest.approx(float(weights @ jacobian[:, -1] / size[-1]), abs=1e-3)


def test_departures_are_refused():
    table = ElementDepartures(12, np.array([0]), np.array([4.346]), np.array([-4.0, 0.0]), np.ones((1, 2)))
    model = StellarModel.create((Window(5527.0, 5530.0, 0.05),), departures=(table,))
    labels, vmic = (jnp.asarray(x, jnp.float32) for x in STARS["Sun"])
    with pytest.raises(InputError, match="departures from LTE"):
        flux_and_jacobian(model, labels, vmic)
    assert with_jacobian(model) is model
