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
from jaxspec.physics.departures import LineDepartures, with_departures
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


def optical_depth_5000(atmosphere: Atmosphere, state: ChemicalState) -> Float[Array, " layers"]:
    """Optical depth of the continuum at 5000 A down to each layer."""
    t, wavelength = atmosphere.temperature, jnp.asarray(5000.0, atmosphere.temperature.dtype)
    absorption = jax.vmap(lambda t, s: continuum_opacity.absorption(wavelength, t, s))(t, state)
    scattering = jax.vmap(lambda s: continuum_opacity.scattering(wavelength, s))(state)
    return jnp.cumsum(optical_depth((absorption + scattering) / state.density, atmosphere.column_mass))


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


class Continuum(NamedTuple):
    """The continuum of one star at a few wavelengths, between which it is interpolated linearly."""

    nodes: Float[np.ndarray, " nodes"]  # A, on the host
    ln_absorption: Float[Array, "nodes layers"]  # of cm^2 g^-1
    ln_scattering: Float[Array, "nodes layers"]
    mean_intensity: Float[Array, "nodes layers"]

    def weights(self, wavelength: Float[np.ndarray, " p"]) -> Float[np.ndarray, "p nodes"]:
        """The matrix that interpolates to `wavelength` (A); a gather would be slower than the transfer."""
        position = (wavelength[:, None] - self.nodes) / (self.nodes[1] - self.nodes[0])
        return np.maximum(1.0 - np.abs(position), 0.0).astype(np.float32)


def continuum_between(low: float, high: float, atmosphere: Atmosphere, state: ChemicalState) -> Continuum:
    """The continuum from `low` to `high` (A), at nodes about `CONTINUUM_STEP` apart."""
    nodes = np.linspace(low, high, max(2, round((high - low) / CONTINUUM_STEP) + 1))
    at_nodes = jax.vmap(lambda w: _continuum(w, atmosphere, state))(
        jnp.asarray(nodes, atmosphere.temperature.dtype)
    )
    return Continuum(nodes, *at_nodes)


def emergent_with_lines(
    wavelength: Float[Array, " p"],
    weight: Float[Array | np.ndarray, "p nodes"],
    opacity: Float[Array, "p layers"],
    continuum: Continuum,
    atmosphere: Atmosphere,
    density: Float[Array, " layers"],
    excess: Float[Array, "p layers"] | None = None,
) -> Float[Array, " p"]:
    """Flux where lines add `opacity` (cm^-1) to the continuum; `weight` are rows of `continuum.weights`.

    Lines emit as a black body at the layer's temperature; where they do not, `excess` is what their emission
    exceeds that by, as an opacity that would emit it (see `departures.excess_emission`).
    """
    t, mass = atmosphere.temperature, atmosphere.column_mass
    absorption = jnp.exp(weight @ continuum.ln_absorption)
    scatter = jnp.exp(weight @ continuum.ln_scattering)
    thermal = planck(wavelength[:, None], t)
    scattered = scatter * (weight @ continuum.mean_intensity)
    total = absorption + opacity / density
    emitting = total if excess is None else total + excess / density
    source = (emitting * thermal + scattered) / (total + scatter)
    return emergent_flux(optical_depth(total + scatter, mass), source)


def continuum_flux(continuum: Continuum, atmosphere: Atmosphere) -> Float[Array, " nodes"]:
    """Flux of the continuum at its nodes."""
    t, mass = atmosphere.temperature, atmosphere.column_mass

    def at_node(wavelength, ln_a, ln_s, mean):
        absorption, scatter = jnp.exp(ln_a), jnp.exp(ln_s)
        source = (absorption * planck(wavelength, t) + scatter * mean) / (absorption + scatter)
        return emergent_flux(optical_depth(absorption + scatter, mass), source)

    return jax.vmap(at_node)(jnp.asarray(continuum.nodes, t.dtype), *continuum[1:])


def flux_in_window(
    window: Window,
    opacity: Float[Array, "pixels layers"],
    continuum: Continuum,
    atmosphere: Atmosphere,
    density: Float[Array, " layers"],
    excess: Float[Array, "pixels layers"] | None = None,
) -> SurfaceFlux:
    """Flux and continuum in a window whose lines have `opacity` (cm^-1); see `emergent_with_lines`.

    Solved in blocks of pixels, whose intermediate values are not kept.
    """
    grid = window.wavelength
    n_blocks = -(-len(grid) // BLOCK)
    padding = n_blocks * BLOCK - len(grid)
    padded = np.concatenate([grid, np.repeat(grid[-1], padding)])
    weights = continuum.weights(padded)

    def in_blocks(x):
        return jnp.pad(x, ((0, padding), (0, 0)), mode="edge").reshape(n_blocks, BLOCK, -1)

    @jax.checkpoint
    def solve(block):
        wavelength, weight, lines_here, *excess_here = block
        return emergent_with_lines(
            wavelength, weight, lines_here, continuum, atmosphere, density, *excess_here
        )

    blocks = (
        jnp.asarray(padded.reshape(n_blocks, BLOCK), opacity.dtype),
        weights.reshape(n_blocks, BLOCK, -1),
        *(in_blocks(x) for x in (opacity, excess) if x is not None),
    )
    flux = jax.lax.map(solve, blocks).reshape(-1)[: len(grid)]
    at_nodes = continuum_flux(continuum, atmosphere)
    return SurfaceFlux(flux, jnp.exp(weights[: len(grid)] @ jnp.log(at_nodes)))


def synthesize(
    atoms: AtomicData,
    lines: LineList,
    window: Window,
    atmosphere: Atmosphere,
    state: ChemicalState,
    vmic: Float[Array, ""],
    departures: LineDepartures | None = None,
) -> SurfaceFlux:
    """Flux and continuum of one star in one window.

    No broadening but thermal, damping and `vmic` (km/s). `state` is the chemical state of every layer of
    `atmosphere` (see `chemistry_of`).

    Plane-parallel; LTE but for the lines that have `departures`; continuum scattering is coherent and
    isotropic, with the continuum's mean intensity also inside lines; lines are pure absorption. Batch over
    stars with `jax.vmap`, or one by one with `jax.lax.map` to save memory.
    """
    grid = window.wavelength
    t = atmosphere.temperature
    strengths, excess = line_strengths(lines, atoms, t, state, vmic), None
    if departures is not None:
        strengths, extra = with_departures(strengths, lines, departures, t)
        groups = group_lines(lines[departures.line], grid[0], window.step, len(grid))
        excess = line_opacity(extra, groups, len(grid))
    opacity = line_opacity(strengths, group_lines(lines, grid[0], window.step, len(grid)), len(grid))
    opacity = opacity + hydrogen_opacity(grid, t, state, vmic)
    continuum = continuum_between(grid[0], grid[-1], atmosphere, state)
    return flux_in_window(window, opacity, continuum, atmosphere, state.density, excess)
