"""Made-up gas, for tests of one absorber at a time."""

import jax.numpy as jnp
import numpy as np

from jaxspec.physics.chemistry import ChemicalState


def gas(temperature, *, neutral=0.0, ionised=0.0, electrons=0.0, helium=0.0, molecules=0.0) -> ChemicalState:
    """A made-up state of gas with given number densities (cm^-3); every element's ln(n / U) is 0."""
    shape = np.shape(temperature)

    def full(value):
        return jnp.full(shape, value, jnp.float32)

    return ChemicalState(
        electrons=full(electrons),
        ln_populations=jnp.zeros((*shape, 92, 3), jnp.float32),
        neutral_hydrogen=full(neutral),
        ionised_hydrogen=full(ionised),
        neutral_helium=full(helium),
        molecular_hydrogen=full(molecules),
        density=full(1e-7),
    )
