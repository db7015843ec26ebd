"""Model atmospheres: the structure of one star, and interpolation in a grid of them."""

from importlib import resources

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class Atmosphere(eqx.Module):
    """Structure of a plane-parallel atmosphere, from the surface inward."""

    column_mass: Float[Array, " layers"]  # g cm^-2
    temperature: Float[Array, " layers"]  # K
    pressure: Float[Array, " layers"]  # gas pressure, dyn cm^-2


class AtmosphereGrid(eqx.Module):
    """ATLAS9 ODFNEW grid (Castelli & Kurucz 2003, IAU Symp. 210, A20).

    `log_structure` holds log10 of column mass, T, gas pressure and electron density of each layer.

    Interpolation is layer by layer (layers have a common Rosseland optical depth) in the logarithms, linear
    in each of Teff, log g and [M/H]; [alpha/M] follows [M/H]: 0.4 at [M/H] <= -1, 0 at >= 0, linear between.
    """

    teff: np.ndarray
    logg: np.ndarray
    m_h: np.ndarray
    log_structure: Float[Array, "teff logg m_h layers 4"]

    @staticmethod
    def load() -> "AtmosphereGrid":
        with resources.as_file(resources.files("jaxspec.physics.data") / "atlas9.npz") as path:
            data = np.load(path)
            alpha = np.clip(-0.4 * data["m_h"], 0.0, 0.4) / 0.4
            weight = alpha[:, None, None]
            grid = data["log_structure"]
            structure = grid[:, :, :, 0] * (1 - weight) + grid[:, :, :, 1] * weight
            return AtmosphereGrid(
                data["teff"], data["logg"], data["m_h"], jnp.asarray(structure, jnp.float32)
            )

    def __call__(self, teff: Float[Array, ""], logg: Float[Array, ""], m_h: Float[Array, ""]) -> Atmosphere:
        weights = [
            _linear_weights(x, nodes) for x, nodes in ((teff, self.teff), (logg, self.logg), (m_h, self.m_h))
        ]
        structure = 10.0 ** jnp.einsum("i,j,k,ijklc->lc", *weights, self.log_structure)
        return Atmosphere(structure[:, 0], structure[:, 1], structure[:, 2])

    def inside(self, teff: Float[Array, "..."], logg: Float[Array, "..."], m_h: Float[Array, "..."]) -> Array:
        """Whether the parameters lie inside the grid."""
        result = True
        for x, nodes in ((teff, self.teff), (logg, self.logg), (m_h, self.m_h)):
            result = result & (x >= nodes[0]) & (x <= nodes[-1])
        return result


def _linear_weights(x: Float[Array, ""], nodes: np.ndarray) -> Float[Array, " nodes"]:
    """Weights of the nodes in linear interpolation at x on a uniform grid.

    At a node the slope is that of the cell above.
    """
    step = nodes[1] - nodes[0]
    position = (jnp.clip(x, nodes[0], nodes[-1]) - nodes[0]) / step
    cell = jnp.minimum(jnp.floor(position), len(nodes) - 2)
    upper = position - cell
    return jnp.where(cell == np.arange(len(nodes)), 1 - upper, 0) + jnp.where(
        cell + 1 == np.arange(len(nodes)), upper, 0
    )
