"""Fits of the exact synthesis: known stars come back, errors are those of the noise, wrong input is named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.labels import NINE_LABELS
from jaxspec.physics.exact import ExactModel
from jaxspec.physics.fit import FitConfig, fit_spectrum, with_elements
from jaxspec.physics.forward import Nuisances
from jaxspec.physics.lines import LineList

START = {"teff": 5777.0, "logg": 4.44, "fe_h": 0.0}
HELD = {"vmic": 1.0, "vmac": 3.0}
FREE = ("fe_h", "mg_h", "vmic", "velocity")
TRUTH = np.array([-0.21, 0.12, 1.35, 0.8])
SNR = 150.0


@pytest.fixture(scope="module")
def model():
    """A stretch at R = 40,000 with its five strongest lines of Fe I and Mg I."""
    lines = LineList.load(5521.0, 5531.0)
    strength = np.where(
        np.isin(lines.element, (11, 25)), np.asarray(lines.log_gf) - 0.9 * lines.energy, -99.0
    )
    strongest = np.sort(np.argsort(strength)[-5:])
    return ExactModel.for_pixels([np.arange(5525.0, 5530.5, 0.05)], 40_000.0, lines=lines[strongest])


@pytest.fixture(scope="module")
def observed(model):
    labels = jnp.array([5777.0, 4.44, *[TRUTH[0]] * 7], jnp.float32).at[4].set(TRUTH[1])
    nuisances = Nuisances(*map(jnp.float32, (TRUTH[2], 3.0, 0.0, TRUTH[3], 1.0)))
    flux = np.asarray(jax.jit(lambda x, y: model(x, y))(labels, nuisances), float)
    return flux * 0.9 * (1 + 0.02 * (model.wavelength - 5527.5))


def fitted(model, flux, ivar):
    return fit_spectrum(flux, ivar, model, START, FREE, held=HELD)


def test_known_star_comes_back(model, observed):
    """Whatever stands in pixels that do not count, and with the continuum to be found."""
    ivar = np.full(observed.shape, SNR**2)
    ivar[20:24] = 0.0
    spoilt = np.where(ivar > 0, observed, np.nan)
    result = fitted(model, spoilt, ivar)
    assert result.converged and result.approximation == "LTE" and result.misfit < 0.02
    np.testing.assert_allclose(result.values, TRUTH, atol=2e-3)
    np.testing.assert_allclose(result.model, observed, rtol=2e-4)
    assert result.degrees_of_freedom == len(observed) - 4 - 4 - 2
    assert "fe_h" in str(result) and "LTE" in str(result)


def test_errors_are_the_scatter_of_noisy_copies(model, observed, rng):
    """20 copies: the scatter over the stated error is known to 16 %, the mean offset to 0.22."""
    ivar = np.full(observed.shape, SNR**2)
    pulls = []
    for _ in range(20):
        result = fitted(model, observed + rng.normal(size=observed.shape) / SNR, ivar)
        pulls.append((result.values - TRUTH) / result.errors)
    pulls = np.array(pulls)
    np.testing.assert_allclose(pulls.std(axis=0), 1.0, atol=0.5)
    np.testing.assert_allclose(pulls.mean(axis=0), 0.0, atol=0.75)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"free": ("fe_h", "mg")}, "free: found 'mg'"),
        ({"labels": {"teff": 5777.0, "fe_h": 0.0}}, "no logg"),
        ({"labels": {**START, "teff": 9000.0}}, "Teff 9000"),
        ({"ivar": np.zeros(110)}, "0 pixels"),
    ],
)
def test_wrong_input_is_named(model, observed, change, named):
    given = {"labels": START, "free": FREE, "ivar": np.ones(observed.shape), **change}
    with pytest.raises(InputError, match=named):
        fit_spectrum(observed, given["ivar"], model, given["labels"], given["free"], config=FitConfig())


def test_pixels_out_of_order_are_refused():
    with pytest.raises(InputError, match="increasing order"):
        ExactModel.for_pixels([np.array([5500.0, 5501.0, 5500.5, 5502.0])], 40_000.0)


def test_any_element_of_the_line_list_can_be_fitted():
    """Manganese is none of the nine labels; its lines in HR10 give back the abundance they were made with."""
    lines = LineList.load(5404.0, 5410.0)
    lines = lines[np.flatnonzero(np.isin(np.asarray(lines.element), (24, 25)) & (lines.log_gf > -2.0))]
    model = ExactModel.for_pixels([np.arange(5406.0, 5408.5, 0.05)], 40_000.0, lines=lines)
    richer = with_elements(model, ("mn_h",))
    assert (
        richer.label_set.names == (*model.label_set.names, "mn_h")
        and with_elements(model, ("mn_h", "fe_h", "vmic")) is richer
    )
    labels = jnp.array([5777.0, 4.44, *[-0.1] * 7, 0.25], jnp.float32)
    nuisances = Nuisances(*map(jnp.float32, (1.0, 3.0, 0.0, 0.0, 1.0)))
    flux = np.asarray(jax.jit(lambda x, y: richer(x, y))(labels, nuisances), float)
    start = {**START, "fe_h": 0.0}
    result = fit_spectrum(flux, np.full(flux.shape, 1e4), model, start, ("fe_h", "mn_h"), held=HELD)
    assert result.converged and result.names == ("fe_h", "mn_h")
    np.testing.assert_allclose(result.values, [-0.1, 0.25], atol=3e-3)
    # Without a value of its own manganese follows iron, and is then not seen to differ.
    with pytest.raises(InputError, match=r"'eu_h', but no line of Eu in the model"):
        fit_spectrum(flux, np.ones(flux.shape), model, start, ("eu_h",))


def test_an_emulator_says_what_would_have_to_be_trained():
    with pytest.raises(InputError, match=r"whose labels were fixed when it was trained.*ExactModel"):
        with_elements(object(), ("mn_h",))
    with pytest.raises(InputError, match=r"'mn_h'.*fit the exact synthesis.*or train an emulator"):
        NINE_LABELS.index("mn_h")
