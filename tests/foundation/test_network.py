"""The transformer reads a set: order, absent tokens and neighbours change nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from jaxspec.errors import InputError
from jaxspec.foundation.network import FoundationConfig, Mixture
from tests.foundation.small import CONFIG, NAMES, fresh, universe

NETWORK = fresh().network
KINDS = np.arange(len(NAMES))


def answer(kinds, value, error, asked=(5, 6)):
    return NETWORK.reply(NETWORK.encode(jnp.asarray(kinds), value, error), jnp.asarray(asked))


def close(a, b, tolerance=2e-5):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


def test_order_of_tokens_does_not_matter():
    stars = universe(20)
    value, error = stars.values.astype("f4"), stars.errors.astype("f4")
    order = np.random.default_rng(1).permutation(len(NAMES))
    close(answer(KINDS, value, error), answer(order, value[:, order], error[:, order]))
    # and it is a test: a token of another kind is another token
    with pytest.raises(AssertionError):
        close(answer(KINDS, value, error), answer(order, value, error))


def test_an_absent_token_is_the_same_as_none():
    stars = universe(20)
    value, error = stars.values.astype("f4"), stars.errors.astype("f4")
    for kept in ([0, 2], [5], []):
        absent = np.where(np.isin(KINDS, kept), value, np.nan)
        close(answer(KINDS, absent, error), answer(np.array(kept, int), value[:, kept], error[:, kept]))
    # What stands in the place of the error of an absent value is never read.
    absent = np.where(KINDS < 3, value, np.nan)
    close(answer(KINDS, absent, error), answer(KINDS, absent, np.where(KINDS < 3, error, np.nan)), 0.0)


def test_without_tokens_every_star_gets_the_same_answer():
    mixture = answer(KINDS, np.full((3, len(NAMES)), np.nan, "f4"), np.zeros((3, len(NAMES)), "f4"))
    for x in mixture:
        np.testing.assert_array_equal(x[0], x[2])
    np.testing.assert_allclose(np.exp(mixture.log_weight).sum(-1), 1.0, rtol=1e-5)


def test_an_error_changes_what_a_value_means():
    stars = universe(20)
    value, error = stars.values.astype("f4"), stars.errors.astype("f4")
    a, b = answer(KINDS, value, error), answer(KINDS, value, 3.0 * error)
    assert np.abs(a.mean - b.mean).max() > 1e-2


def test_gradients_are_finite_where_tokens_are_absent():
    stars = universe(20, missing=0.5)

    def total(value):
        mixture = answer(KINDS, value, jnp.nan_to_num(jnp.asarray(stars.errors, jnp.float32)))
        return mixture.log_prob(jnp.zeros((20, 2)), 0.1).sum()

    gradient = jax.grad(total)(jnp.asarray(stars.values, jnp.float32))
    assert np.isfinite(gradient).all()
    assert (np.abs(gradient[np.isfinite(stars.values)]) > 0).mean() > 0.9
    assert (gradient[~np.isfinite(stars.values)] == 0).all()


@pytest.mark.parametrize("error", [0.0, 0.7])
def test_mixtures_are_normalised_and_convolved(error):
    rng = np.random.default_rng(2)
    weight = jax.nn.log_softmax(jnp.asarray(rng.standard_normal(3)))
    mixture = Mixture(weight, jnp.asarray([-1.0, 0.5, 4.0]), jnp.asarray([0.3, 1.0, 0.2]))
    x = np.linspace(-20.0, 20.0, 40_001)
    spread = Mixture(*(jnp.broadcast_to(p, (len(x), 3)) for p in mixture))
    density = np.exp(np.asarray(spread.log_prob(jnp.asarray(x), error), float))
    assert np.trapezoid(density, x) == pytest.approx(1.0, abs=1e-4)
    if error:
        truth = np.exp(np.asarray(spread.log_prob(jnp.asarray(x)), float))
        kernel = np.exp(-0.5 * (x / error) ** 2) / (error * np.sqrt(2 * np.pi))
        convolved = signal.fftconvolve(truth, kernel, "same") * (x[1] - x[0])
        np.testing.assert_allclose(density, convolved, atol=2e-4)


def test_heads_must_divide_widths():
    for name in ("width", "request_width"):
        with pytest.raises(InputError, match=f"FoundationConfig.{name}.*multiple of 4"):
            FoundationConfig(**{name: 66})
    assert CONFIG.width == 16
