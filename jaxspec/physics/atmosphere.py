"""Model atmospheres: the structure of one star, and interpolation in a grid of them."""

from importlib import resources

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxspec.errors import InputError


class Atmosphere(eqx.Module):
    """Structure of a plane-parallel atmosphere, from the surface inward."""

    column_mass: Float[Array, " layers"]  # g cm^-2
    temperature: Float[Array, " layers"]  # K
    pressure: Float[Array, " layers"]  # gas pressure, dyn cm^-2


class AtmosphereGrid(eqx.Module):
    """ATLAS9 ODFNEW grid (Castelli & Kurucz 2003, IAU Symp. 210, A20).

    `log_structure` holds log10 of column mass, T, gas pressure and electron density of each layer.

    Interpolation is layer by layer (layers have a common Rosseland optical depth) in the logarithms, in each
    of Teff, log g and [M/H]; [alpha/M] follows [M/H]: 0.4 at [M/H] <= -1, 0 at >= 0, linear between. It is
    "cubic": a Hermite spline with the slopes of Catmull & Rom (1974), which has continuous derivatives; of
    the column mass it interpolates the steps between layers, so that it grows inward even where the spline
    overshoots. Or it is "linear", with kinks at the nodes. `benchmarks.interpolation` measures both.
    """

    teff: np.ndarray
    logg: np.ndarray
    m_h: np.ndarray
    log_structure: Float[Array, "teff logg m_h layers 4"]
    interpolation: str = eqx.field(static=True, default="cubic")
    missing: Bool[np.ndarray, "teff logg m_h"] | None = None  # nodes for which there is no model

    def __check_init__(self):
        if self.interpolation not in _WEIGHTS:
            raise InputError("interpolation", repr(self.interpolation), " or ".join(_WEIGHTS), "give one")

    @staticmethod
    def load(interpolation: str = "cubic") -> "AtmosphereGrid":
        """The shipped grid; raises `InputError` for an interpolation that is not known."""
        with resources.as_file(resources.files("jaxspec.physics.data") / "atlas9.npz") as path:
            data = np.load(path)
            alpha = np.clip(-0.4 * data["m_h"], 0.0, 0.4) / 0.4
            weight = alpha[:, None, None]
            grid = data["log_structure"]
            structure = grid[:, :, :, 0] * (1 - weight) + grid[:, :, :, 1] * weight
            axes, missing = (data["teff"], data["logg"], data["m_h"]), data["filled"].any(axis=3)
            return AtmosphereGrid(*axes, jnp.asarray(structure, jnp.float32), interpolation, missing)

    def __call__(self, teff: Float[Array, ""], logg: Float[Array, ""], m_h: Float[Array, ""]) -> Atmosphere:
        weights_of = _WEIGHTS[self.interpolation]
        weights = [
            weights_of(x, nodes) for x, nodes in ((teff, self.teff), (logg, self.logg), (m_h, self.m_h))
        ]
        cubic = self.interpolation == "cubic"
        table = _mass_by_steps(self.log_structure) if cubic else self.log_structure
        structure = 10.0 ** jnp.einsum("i,j,k,ijklc->lc", *weights, table)
        mass = jnp.cumsum(structure[:, 0]) if cubic else structure[:, 0]
        return Atmosphere(mass, structure[:, 1], structure[:, 2])

    def inside(self, teff: Float[Array, "..."], logg: Float[Array, "..."], m_h: Float[Array, "..."]) -> Array:
        """Whether the parameters lie inside the grid, and no node that is `missing` has a part in them."""
        axes = (self.teff, self.logg, self.m_h)
        within = [
            (x >= nodes[0]) & (x <= nodes[-1]) for x, nodes in zip((teff, logg, m_h), axes, strict=True)
        ]
        result = within[0] & within[1] & within[2]
        if self.missing is None:
            return result

        def share(*x):
            weights = (_linear_weights(v, nodes) for v, nodes in zip(x, axes, strict=True))
            return jnp.einsum("i,j,k,ijk->", *weights, self.missing.astype(np.float32))

        return result & (jnp.vectorize(share)(*jnp.broadcast_arrays(teff, logg, m_h)) == 0)

    def check(self, teff: Float[Array, "..."], logg: Float[Array, "..."], m_h: Float[Array, "..."]) -> None:
        """Raise `InputError` where parameters are not `inside`; on the host, not in a compiled function."""
        bad = np.flatnonzero(~np.asarray(self.inside(teff, logg, m_h)))
        if len(bad):
            found = (np.ravel(x)[bad[0]] for x in np.broadcast_arrays(teff, logg, m_h))
            ends = (f"{x[0]:g} to {x[-1]:g}" for x in (self.teff, self.logg, self.m_h))
            raise InputError(
                "model atmospheres",
                "Teff {:g}, log g {:g}, [M/H] {:g}".format(*found),
                "Teff {}, log g {}, [M/H] {}, without stars beyond 6000 K below log g 0.5".format(*ends),
                "there are no models outside; synthesise with an atmosphere of your own",
            )


def _mass_by_steps(log_structure: Float[Array, "teff logg m_h layers 4"]) -> Array:
    """The table with log10 of the column mass between layers in place of that above them."""
    mass = 10.0 ** log_structure[..., 0]
    return log_structure.at[..., 0].set(jnp.log10(jnp.diff(mass, prepend=0.0, axis=-1)))


def _cell(x: Float[Array, ""], nodes: np.ndarray) -> tuple[Array, Array, Array]:
    """Where x lies on a uniform grid.

    Returns the fraction of its cell, and 1 at the node below and at the node above. A node belongs to the
    cell above it; beyond the ends x is held.
    """
    position = (jnp.clip(x, nodes[0], nodes[-1]) - nodes[0]) / (nodes[1] - nodes[0])
    cell = jnp.minimum(jnp.floor(position), len(nodes) - 2)
    below, above = (jnp.where(cell + k == np.arange(len(nodes)), 1.0, 0.0) for k in (0, 1))
    return position - cell, below.astype(position.dtype), above.astype(position.dtype)


def _linear_weights(x: Float[Array, ""], nodes: np.ndarray) -> Float[Array, " nodes"]:
    """Weights of the nodes in linear interpolation at x on a uniform grid."""
    t, below, above = _cell(x, nodes)
    return (1 - t) * below + t * above


def _cubic_weights(x: Float[Array, ""], nodes: np.ndarray) -> Float[Array, " nodes"]:
    """Weights of the nodes in cubic interpolation at x on a uniform grid.

    Hermite's polynomial of values and slopes; a node's slope is that of the parabola through it and its
    neighbours, at the ends through the last three nodes.
    """
    t, below, above = _cell(x, nodes)
    value = (1 + 2 * t) * (1 - t) ** 2 * below + t**2 * (3 - 2 * t) * above
    slope = t * (1 - t) ** 2 * below - t**2 * (1 - t) * above
    return value + slope @ _slopes(len(nodes)).astype(t.dtype)


def _slopes(n: int) -> Float[np.ndarray, "nodes nodes"]:
    """The matrix that takes values at nodes to slopes there, per step."""
    matrix = (np.eye(n, k=1) - np.eye(n, k=-1)) / 2
    matrix[0, :3] = (-1.5, 2.0, -0.5)
    matrix[-1, -3:] = (0.5, -2.0, 1.5)
    return matrix


_WEIGHTS = {"linear": _linear_weights, "cubic": _cubic_weights}
