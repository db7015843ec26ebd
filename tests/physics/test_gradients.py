"""Derivatives of the whole synthesis in double precision."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxspec.physics.lines import LineList
from jaxspec.physics.model import StellarModel
from jaxspec.physics.synthesis import Window
from tests.physics.precision import double_precision

LABELS = (5480.0, 3.86, -0.42, -0.3, -0.25, -0.2, -0.4, -0.3, -0.35)  # off the nodes of the atmosphere grid


@pytest.fixture(scope="module")
def short_model():
    """Five angstroms with the eight strongest lines there, so that double precision and both modes compile
    quickly."""
    model = StellarModel.create((Window(5402.0, 5407.0, 0.025),))
    lines = LineList.load(5402.5, 5406.5)
    strongest = np.sort(np.argsort(np.asarray(lines.log_gf) - 0.9 * lines.energy)[-8:])
    lines = eqx.tree_at(lambda x: x.reach, lines[strongest], np.full(8, 1.5, np.float32))
    return eqx.tree_at(lambda m: m.lines, model, (lines,))


@pytest.fixture(scope="module")
def projections(short_model):
    """Two random projections of the flux by (Teff / 1000 K and the other labels, vmic, log gf)."""
    weights = np.random.default_rng(0).normal(size=(2, len(short_model.wavelength)))

    @jax.jit
    def project(labels, vmic, log_gf):
        model = eqx.tree_at(lambda m: m.lines[0].log_gf, short_model, log_gf)
        return jnp.asarray(weights, labels.dtype) @ model(labels.at[0].multiply(1000.0), vmic)

    def at(dtype):
        labels = np.array(LABELS) / np.array([1000.0, 1, 1, 1, 1, 1, 1, 1, 1])
        return tuple(jnp.asarray(x, dtype) for x in (labels, 1.1, short_model.lines[0].log_gf))

    return project, at


@pytest.mark.slow
def test_derivatives_and_values_in_double_precision(projections):
    """Forward and reverse derivatives by labels, vmic and log gf against finite differences; and
    the float32 flux against the same in double precision."""
    project, at = projections
    single = project(*at(jnp.float32))
    with double_precision():
        double = project(*at(jnp.float64))
        assert double.dtype == jnp.float64
        check_grads(project, at(jnp.float64), order=1, modes=("fwd", "rev"), atol=1e-4, rtol=1e-4, eps=1e-6)
    # 200 pixels of weight one: errors of 1e-4 each would give 1.4e-3.
    np.testing.assert_allclose(single, double, atol=1.5e-3)
