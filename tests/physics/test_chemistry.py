"""Ionisation and molecules: Saha's own formula, conservation laws, thermochemical tables, another code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import constants

from jaxspec.physics.chemistry import MOLECULES, abundances, ln_molecular_constants, solve_chemistry
from jaxspec.physics.constants import ATOMIC_MASS, ATOMIC_WEIGHTS, SOLAR_ABUNDANCES
from tests.physics.precision import double_precision

K = constants.k * 1e7  # erg / K
K_EV = constants.k / constants.e  # eV / K
# (2 pi m_e k T)^1.5 / h^3 in cm^-3, at 1 K.
TRANSLATION = (2 * np.pi * constants.m_e * constants.k) ** 1.5 / constants.h**3 * 1e-6


def composition(fe_h=0.0, **x_h):
    return np.asarray(abundances(jnp.float32(fe_h), {int(z[1:]): jnp.float32(v) for z, v in x_h.items()}))


def test_pure_hydrogen_obeys_saha(equilibrium):
    """n_e^2 = S (N - 2 n_e), S = translation exp(-13.598 eV / kT): where molecules are absent."""
    temperature, pressure = (
        x.ravel() for x in np.meshgrid(np.linspace(6500, 9900, 12), np.geomspace(10, 3e3, 6))
    )
    only_hydrogen = np.full(92, -69.0)
    only_hydrogen[0] = 0.0
    state = equilibrium(temperature, pressure, only_hydrogen)
    saha = TRANSLATION * temperature**1.5 * np.exp(-13.598434 / (K_EV * temperature))
    particles = pressure / (K * temperature)
    electrons = -saha + np.sqrt(saha**2 + saha * particles)
    np.testing.assert_allclose(state.electrons, electrons, rtol=1e-3)
    np.testing.assert_allclose(state.ionised_hydrogen, electrons, rtol=1e-3)
    np.testing.assert_allclose(state.neutral_hydrogen, particles - 2 * electrons, rtol=1e-3)


def test_charge_nuclei_and_pressure_are_conserved(equilibrium, atoms, rng):
    """Everything counted again from the returned populations, from the coolest giant to hot and dense
    layers."""
    n = 72
    temperature = rng.uniform(3000, 9500, n)
    pressure = 10 ** rng.uniform(0, 5.7, n)
    ln_abundance = np.stack(
        [composition(m, Z12=m + a, Z14=m - a) for m, a in rng.uniform((-2.5, -0.5), 0.5, (n, 2))]
    )
    state = equilibrium(temperature, pressure, ln_abundance)

    t = jnp.asarray(temperature, jnp.float32)
    ln_u = jax.vmap(atoms.ln_partition)(t)
    ln_k = np.asarray(jax.vmap(ln_molecular_constants)(t, ln_u), float)
    stages = np.exp(np.asarray(state.ln_populations, float) + np.asarray(ln_u, float))
    pairs = np.array([m.atoms for m in MOLECULES.values()]) - 1
    molecules = np.exp(ln_k) * stages[:, pairs[:, 0], 0] * stages[:, pairs[:, 1], 0]
    electrons = np.asarray(state.electrons, float)
    h_minus = stages[:, 0, 0] * electrons / 4 / (TRANSLATION * temperature**1.5)
    h_minus *= np.exp(0.754195 / (K_EV * temperature))

    charge = (stages[:, :, 1] + 2 * stages[:, :, 2]).sum(axis=1)
    np.testing.assert_allclose(charge, electrons + h_minus, rtol=2e-4)
    particles = stages.sum(axis=(1, 2)) + molecules.sum(axis=1) + electrons + h_minus
    np.testing.assert_allclose(particles, pressure / (K * temperature), rtol=2e-4)

    nuclei = stages.sum(axis=2)
    nuclei[:, 0] += h_minus
    for k, pair in enumerate(pairs):
        for element in pair:
            nuclei[:, element] += molecules[:, k]
    abundance = np.exp(ln_abundance.astype(float))
    hydrogen = np.asarray(state.density, float) / (ATOMIC_MASS * (abundance @ ATOMIC_WEIGHTS))
    np.testing.assert_allclose(nuclei / hydrogen[:, None], abundance, rtol=3e-4)
    assert np.max(molecules[:, list(MOLECULES).index("CO")] / nuclei[:, 5]) > 0.5  # molecules do matter here
    np.testing.assert_allclose(state.molecular_hydrogen, molecules[:, list(MOLECULES).index("H2")], rtol=2e-4)


def test_the_iterations_converge_in_cool_dense_layers_too(equilibrium, atoms):
    """Far beyond stellar atmospheres: twice as many steps change nothing."""
    grid = np.meshgrid([2000.0, 2500.0, 3500.0, 15_000.0], [1e1, 1e3, 1e6])
    temperature, pressure = (jnp.asarray(x.ravel(), jnp.float32) for x in grid)
    few, ln_abundance = (
        equilibrium(temperature, pressure, composition()),
        jnp.asarray(composition(), jnp.float32),
    )
    more = jax.vmap(lambda t, p: solve_chemistry(atoms, t, p, ln_abundance, n_iterations=30))
    many = jax.jit(more)(temperature, pressure)
    for name in ("electrons", "molecular_hydrogen", "neutral_hydrogen"):
        np.testing.assert_allclose(getattr(few, name), getattr(many, name), rtol=2e-4, err_msg=name)


# log10 of the formation constant of atomic hydrogen, 1 bar (NIST-JANAF tables, Chase 1998).
JANAF_HYDROGEN = {2000: -2.788, 3000: -0.801, 4000: 0.203}


@pytest.mark.parametrize(("temperature", "log_k"), JANAF_HYDROGEN.items())
def test_molecular_hydrogen_dissociates_as_in_the_janaf_tables(temperature, log_k, equilibrium):
    """p(H)^2 / p(H2) = K_f(H)^2 bar in a dense layer of a cool dwarf."""
    state = equilibrium([temperature], [1e5], composition())
    bar = K * temperature / 1e6
    ratio = float(state.neutral_hydrogen[0]) ** 2 / float(state.molecular_hydrogen[0]) * bar
    assert np.log10(ratio) == pytest.approx(2 * log_k, abs=0.045)


def test_carbon_monoxide_binds_the_carbon_of_cool_gas(equilibrium):
    """Oxygen is more abundant than carbon and CO is the firmest bond: below 3000 K hardly any carbon stays
    free."""
    state = equilibrium([2500.0, 6500.0], [1e4, 1e4], composition())
    neutral_carbon = np.exp(np.asarray(state.ln_populations)[:, 5, 0]) * 9  # U of the ground term
    total = np.asarray(state.density) * 10 ** (SOLAR_ABUNDANCES[5] - 12) / 2.3e-24
    assert neutral_carbon[0] < 1e-3 * total[0]
    assert neutral_carbon[1] > 0.5 * total[1]


def test_abundances_follow_their_labels():
    x = composition(-1.0, Z12=-0.6)
    assert x[0] == pytest.approx(0.0)
    assert x[1] == pytest.approx((10.93 - 12) * np.log(10), rel=1e-6)  # helium stays
    assert x[25] == pytest.approx((7.45 - 1.0 - 12) * np.log(10), rel=1e-6)
    assert x[11] == pytest.approx((7.53 - 0.6 - 12) * np.log(10), rel=1e-6)


def test_electron_pressure_agrees_with_the_reference_code(reference, equilibrium):
    names, elements = (
        list(reference["label_names"]),
        dict(al_h=13, mg_h=12, ca_h=20, ni_h=28, ti_h=22, si_h=14),
    )
    pick = slice(None, None, 4)
    atmospheres, labels = reference["atm"][pick], reference["labels"][pick]
    ours, theirs, density = [], [], []
    for atmosphere, star in zip(atmospheres, labels, strict=True):
        value = dict(zip(names, star, strict=True))
        mixture = composition(value["fe_h"], **{f"Z{z}": value[name] for name, z in elements.items()})
        state = equilibrium(atmosphere[:, 1], atmosphere[:, 2], mixture)
        ours.append(np.asarray(state.electrons) * K * atmosphere[:, 1])
        theirs.append(atmosphere[:, 3])
        density.append(np.asarray(state.density) / atmosphere[:, 5])
    off = np.abs(np.log(np.concatenate(ours) / np.concatenate(theirs)))
    assert np.median(off) < 0.003
    assert np.percentile(off, 99) < 0.05
    # The reference takes hydrogen's mass for the unit of mass: its densities are 0.8 % higher throughout.
    ratio = np.concatenate(density) * 1.00784
    assert np.percentile(np.abs(ratio - 1), 99) < 0.005


def test_float32_carries_the_double_precision_answer(atoms):
    rng = np.random.default_rng(5)
    temperature, pressure = rng.uniform(3000, 9500, 72), 10 ** rng.uniform(0, 5.5, 72)
    mixture = composition(-0.7, Z12=-0.3)

    def solve(dtype):
        run = jax.jit(jax.vmap(lambda t, p: solve_chemistry(atoms, t, p, jnp.asarray(mixture, dtype))))
        return run(jnp.asarray(temperature, dtype), jnp.asarray(pressure, dtype))

    single = solve(jnp.float32)
    with double_precision():
        double = solve(jnp.float64)
        assert double.electrons.dtype == jnp.float64
    for name in ("electrons", "neutral_hydrogen", "ionised_hydrogen", "molecular_hydrogen", "density"):
        np.testing.assert_allclose(getattr(single, name), getattr(double, name), rtol=3e-4, err_msg=name)


def test_derivatives_of_the_electron_density(atoms, x64):
    """The implicit derivative by T, P, metallicity and [Mg/H] against finite differences, in both modes."""

    @jax.jit
    def ln_electrons(temperature, ln_pressure, fe_h, mg_h):
        state = solve_chemistry(atoms, temperature, jnp.exp(ln_pressure), abundances(fe_h, {12: mg_h}))
        return jnp.log(state.electrons)

    for temperature, pressure in ((3500.0, 1e4), (5800.0, 1e5), (8000.0, 1e3)):
        at = tuple(jnp.asarray(x, jnp.float64) for x in (temperature, np.log(pressure), -0.4, -0.1))
        check_grads(ln_electrons, at, order=1, modes=("fwd", "rev"), atol=1e-6, rtol=1e-6, eps=1e-4)
