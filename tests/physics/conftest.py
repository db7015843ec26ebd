import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspec.physics.atmosphere import AtmosphereGrid
from jaxspec.physics.chemistry import AtomicData, ChemicalState, abundances, solve_chemistry
from jaxspec.physics.synthesis import chemistry_of
from tests.physics.precision import double_precision

LAYERS = 72


@pytest.fixture(scope="session")
def atoms() -> AtomicData:
    return AtomicData.load()


@pytest.fixture(scope="session")
def sun(atoms):
    """The Sun's atmosphere and the chemical state of its layers."""
    atmosphere = AtmosphereGrid.load()(jnp.float32(5777), jnp.float32(4.44), jnp.float32(0))
    return atmosphere, jax.jit(chemistry_of)(atoms, atmosphere, abundances(jnp.float32(0.0)))


@pytest.fixture(scope="session")
def equilibrium(atoms):
    """Chemistry of any number of layers (T, P, ln abundances), in pieces of 72 so that it is compiled
    once."""
    solve = jax.jit(jax.vmap(lambda t, p, a: solve_chemistry(atoms, t, p, a)))

    def run(temperature, pressure, ln_abundance) -> ChemicalState:
        temperature, pressure = np.broadcast_arrays(
            np.asarray(temperature, np.float32), np.asarray(pressure, np.float32)
        )
        n = temperature.size
        abundance = np.broadcast_to(np.asarray(ln_abundance, np.float32), (n, 92))
        rows = np.arange(-(-n // LAYERS) * LAYERS).clip(max=n - 1).reshape(-1, LAYERS)
        pieces = [
            solve(jnp.asarray(temperature[r]), jnp.asarray(pressure[r]), jnp.asarray(abundance[r]))
            for r in rows
        ]
        return jax.tree.map(lambda *x: np.concatenate(x)[:n], *pieces)

    return run


@pytest.fixture(scope="session")
def reference(data):
    """The reference spectra of independent stars, with the atmosphere used for each."""
    with np.load(data / "reference" / "stars.npz") as stars:
        return dict(stars)


@pytest.fixture
def x64():
    """Double precision for one test."""
    with double_precision():
        yield
