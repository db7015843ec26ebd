"""Spectrum synthesis: from an atmosphere and a composition to the flux at the stellar surface."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxspec.physics import continuum_opacity
from jaxspec.physics.atmosphere import Atmosphere
from jaxspec.physics.chemistry import AtomicData, ChemicalState, solve_chemistry
from jaxspec.physics.hydrogen import hydrogen_opacity
from jaxspec.physics.lines import LineList, group_lines, line_opacity, line_strengths
from jaxspec.physics.transfer import emergent_flux, mean_intensity_with_scattering, optical_depth, planck

BLOCK = 512  # pixels whose transfer is solved at once; small enough for the processor's cache
CONTINUUM_STEP = 20.0  # A, between the wavelengths where the continuum is computed


class Window(eqx.Module):
    """A stretch of air wavelengths `low` to `high` (A) on a uniform grid of `step` (A)."""

    low: float = eqx.field(static=True)
    high: float = eqx.field(static=True)
    step: float = eqx.field(static=True)

    @property
    def wavelength(self) -> Float[np.ndarray, " pixels"]:
        return self.low + self.step * np.arange(round((self.high - self.low) / self.step) + 1)


class SurfaceFlux(NamedTuple):
    """Flux at the stellar surface, erg s^-1 cm^-2 A^-1."""

    flux: Float[Array, " pixels"]
    continuum: Float[Array, " pixels"]


def chemistry_of(
    atoms: AtomicData, atmosphere: Atmosphere, ln_abundance: Float[Array, " elements"]
) -> ChemicalState:
    """The chemical state of every layer."""
    return jax.vmap(lambda t, p: solve_chemistry(atoms, t, p, ln_abundance))(
        atmosphere.temperature, atmosphere.pressure
    )


def _continuum(
    wavelength: Float[Array, ""], atmosphere: Atmosphere, state: ChemicalState
) -> tuple[Float[Array, " layers"], Float[Array, " layers"], Float[Array, " layers"]]:
    """The continuum in every layer at one wavelength (A).

    Returns ln of the absorption and of the scattering (cm^2 g^-1), and the mean intensity.
    """
    t, rho = atmosphere.temperature, state.density
    absorption = jax.vmap(lambda t, s: continuum_opacity.absorption(wavelength, t, s))(t, state) / rho
    scattering = jax.vmap(lambda s: continuum_opacity.scattering(wavelength, s))(state) / rho
    steps = optical_depth(absorption + scattering, atmosphere.column_mass)
    albedo = scattering / (absorption + scattering)
    mean = mean_intensity_with_scattering(steps, planck(wavelength, t), albedo)
    return jnp.log(absorption), jnp.log(scattering), mean


def synthesize(
    atoms: AtomicData,
    lines: LineList,
    window: Window,
    atmosphere: Atmosphere,
    state: ChemicalState,
    vmic: Float[Array, ""],
) -> SurfaceFlux:
    """Flux and continuum of one star in one window.

    No broadening but thermal, damping and `vmic` (km/s). `state` is the chemical state of every layer of
    `atmosphere` (see `chemistry_of`).

    LTE, plane-parallel; continuum scattering is coherent and isotropic, with the continuum's mean intensity
    also inside lines; lines are pure absorption. Batch over stars with `jax.vmap`, or one by one with
    `jax.lax.map` to save memory.
    """
    grid = window.wavelength
    t, mass = atmosphere.temperature, atmosphere.column_mass

    strengths = line_strengths(lines, atoms, t, state, vmic)
    opacity = line_opacity(strengths, group_lines(lines, grid[0], window.step, len(grid)), len(grid))

    n_nodes = max(2, round((grid[-1] - grid[0]) / CONTINUUM_STEP) + 1)
    nodes = np.linspace(grid[0], grid[-1], n_nodes)
    ln_absorption, ln_scattering, mean = jax.vmap(lambda w: _continuum(w, atmosphere, state))(
        jnp.asarray(nodes, t.dtype)
    )

    opacity = opacity + hydrogen_opacity(grid, t, state, vmic)

    n_blocks = -(-len(grid) // BLOCK)
    padding = n_blocks * BLOCK - len(grid)
    padded = np.concatenate([grid, np.repeat(grid[-1], padding)])

    # Linear interpolation between the nodes as a matrix product: a gather would be slower than the transfer.
    position = (padded[:, None] - nodes) / (nodes[1] - nodes[0])
    weights = np.maximum(1.0 - np.abs(position), 0.0).astype(np.float32)
    opacity = jnp.pad(opacity, ((0, padding), (0, 0)), mode="edge").reshape(n_blocks, BLOCK, -1)

    @jax.checkpoint
    def solve(block):
        wavelength, lines_here, weight = block
        absorption = jnp.exp(weight @ ln_absorption)
        scatter = jnp.exp(weight @ ln_scattering)
        thermal = planck(wavelength[:, None], t)
        scattered = scatter * (weight @ mean)

        def flux(total):
            source = (total * thermal + scattered) / (total + scatter)
            return emergent_flux(optical_depth(total + scatter, mass), source)

        return flux(absorption + lines_here / state.density)

    blocks = (
        jnp.asarray(padded.reshape(n_blocks, BLOCK), t.dtype),
        opacity,
        weights.reshape(n_blocks, BLOCK, n_nodes),
    )
    flux = jax.lax.map(solve, blocks).reshape(-1)[: len(grid)]

    def continuum_flux(wavelength, ln_a, ln_s, mean):
        absorption, scatter = jnp.exp(ln_a), jnp.exp(ln_s)
        source = (absorption * planck(wavelength, t) + scatter * mean) / (absorption + scatter)
        return emergent_flux(optical_depth(absorption + scatter, mass), source)

    at_nodes = jax.vmap(continuum_flux)(jnp.asarray(nodes, t.dtype), ln_absorption, ln_scattering, mean)
    continuum = jnp.exp(weights[: len(grid)] @ jnp.log(at_nodes))
    return SurfaceFlux(flux, continuum)
