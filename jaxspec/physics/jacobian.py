"""A synthetic spectrum and its derivatives by all labels at once, at the cost of a few spectra.

Nine forward derivatives repeat for each label what they have in common: Voigt functions and the transfer of
every pixel. Here the transfer is differentiated once, backward, by the opacity and emission of each layer; a
line's profile once, by its strength, width and damping in each layer; and only the changes of those few
numbers with the labels are taken label by label. The chain rule joins them.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxspec.errors import InputError
from jaxspec.physics.chemistry import ChemicalState
from jaxspec.physics.hydrogen import hydrogen_opacity
from jaxspec.physics.lines import LineList, LineStrengths, group_lines, line_opacity, line_strengths
from jaxspec.physics.model import StellarModel
from jaxspec.physics.synthesis import BLOCK, Continuum, Window, continuum_between, continuum_flux
from jaxspec.physics.transfer import emergent_flux, optical_depth, planck
from jaxspec.physics.voigt import voigt_and_slopes


class _Gas(NamedTuple):
    """The gas as hydrogen's lines depend on it, [layers]."""

    temperature: Float[Array, "..."]
    electrons: Float[Array, "..."]  # cm^-3
    neutral_hydrogen: Float[Array, "..."]
    neutral_helium: Float[Array, "..."]
    vmic: Float[Array, "..."]  # km/s
    ln_population: Float[Array, "..."]  # of neutral hydrogen


class _Structure(NamedTuple):
    """The structure that all windows share, [layers]."""

    column_mass: Float[Array, "..."]
    ln_density: Float[Array, "..."]
    gas: _Gas


class _WindowState(NamedTuple):
    """Ingredients of the flux in one window, all of them smooth in the labels."""

    strengths: LineStrengths  # [lines, layers]
    ln_absorption: Float[Array, "nodes layers"]  # of the continuum, as are the next three
    ln_scattering: Float[Array, "nodes layers"]
    mean_intensity: Float[Array, "nodes layers"]
    ln_continuum: Float[Array, " nodes"]


def flux_and_jacobian(
    model: StellarModel, labels: Float[Array, " labels"], vmic: Float[Array, ""]
) -> tuple[Float[Array, " pixels"], Float[Array, "pixels parameters"]]:
    """Continuum-normalised flux on `model.wavelength`, and its derivatives by the labels and by vmic (last).

    The same as `jax.jvp` of the model, label by label, to 1e-3 of the largest derivative, and several times
    faster. Compile it as `jax.jit(lambda labels, vmic: flux_and_jacobian(model, labels, vmic))`; for many
    stars put that in `jax.lax.map`.

    Raises `InputError` for a model with `departures`.
    """
    if model.departures:
        raise InputError(
            "model",
            f"departures from LTE ({model.approximation})",
            "a model in LTE",
            "use jax.jvp of the model",
        )

    def state(parameters):
        atmosphere, chemistry = model.structure(parameters[:-1])
        windows = []
        for lines, window in zip(model.lines, model.windows, strict=True):
            grid, t = window.wavelength, atmosphere.temperature
            continuum = continuum_between(grid[0], grid[-1], atmosphere, chemistry)
            windows.append(
                _WindowState(
                    line_strengths(lines, model.atoms, t, chemistry, parameters[-1]),
                    *continuum[1:],
                    jnp.log(continuum_flux(continuum, atmosphere)),
                )
            )
        gas = _Gas(
            atmosphere.temperature, chemistry.electrons, chemistry.neutral_hydrogen, chemistry.neutral_helium,
            jnp.broadcast_to(parameters[-1], chemistry.density.shape), chemistry.ln_populations[:, 0, 0],
        )  # fmt: skip
        return _Structure(atmosphere.column_mass, jnp.log(chemistry.density), gas), chemistry, windows

    parameters = jnp.append(labels, vmic)
    directions = jnp.eye(len(parameters), dtype=parameters.dtype)
    (structure, chemistry, windows), (changed_structure, _, changed_windows) = jax.vmap(
        lambda d: jax.jvp(state, (parameters,), (d,)), out_axes=(None, 0)
    )(directions)
    inside = model.grid.inside(*model.label_set.stellar(labels))
    parts = []
    for lines, window, here, changed in zip(
        model.lines, model.windows, windows, changed_windows, strict=True
    ):
        parts.append(_in_window(window, lines, chemistry, structure, here, changed_structure, changed))
    flux, jacobian = (jnp.concatenate(x) for x in zip(*parts, strict=True))
    return jnp.where(inside, flux, jnp.nan), jnp.where(inside, jacobian, jnp.nan)


def with_jacobian(model: StellarModel) -> Callable[[Array, Array], Array]:
    """The model as a function of labels and vmic that JAX differentiates by `flux_and_jacobian`.

    `jax.jvp`, `jax.vmap` of it, `jax.jacfwd` and `jax.grad` then cost one Jacobian, however many directions
    there are. A model with `departures` is returned as it is.
    """
    if model.departures:
        return model

    @jax.custom_jvp
    def spectrum(labels, vmic):
        return model(labels, vmic)

    @spectrum.defjvp
    def derivative(primals, tangents):
        flux, jacobian = flux_and_jacobian(model, *primals)
        return flux, jacobian @ jnp.append(*tangents)

    return spectrum


def _in_window(
    window: Window, lines: LineList, chemistry: ChemicalState, structure: _Structure, state: _WindowState,
    changed_structure: _Structure, changed: _WindowState,
) -> tuple[Array, Array]:  # fmt: skip
    """Normalised flux and derivatives in one window; what is `changed` has an axis of parameters first."""
    grid = window.wavelength
    n = len(grid)
    hydrogen, of_hydrogen = _hydrogen(grid, chemistry, structure.gas)
    groups = group_lines(lines, grid[0], window.step, n)
    opacity = line_opacity(state.strengths, groups, n) + hydrogen
    nodes = np.linspace(grid[0], grid[-1], len(state.ln_continuum))
    weights = Continuum(nodes, *state[1:4]).weights(grid)
    flux, by_opacity, jacobian = _transfer(
        grid, weights, opacity, of_hydrogen, structure, state, changed_structure, changed
    )
    # Strength, Doppler width and damping of a line: [lines, 3 layers, parameters].
    of_lines = _layered(*changed.strengths)
    for group in groups:
        pixel = jnp.arange(group.width, dtype=jacobian.dtype)

        def add(total, line, pixel=pixel, width=group.width):
            strength, doppler, damping, first, centre, step, changed = line
            v = (pixel - centre)[:, None] * step / doppler
            profile, by_damping, by_v = voigt_and_slopes(jnp.broadcast_to(damping, v.shape), v)
            sensitivity = jax.lax.dynamic_slice_in_dim(by_opacity, first, width)
            slopes = (profile, -strength * by_v * v / doppler, strength * by_damping)
            new = jnp.concatenate([sensitivity * x for x in slopes], axis=1) @ changed
            old = jax.lax.dynamic_slice_in_dim(total, first, width)
            return jax.lax.dynamic_update_slice_in_dim(total, old + new, first, 0), None

        chosen = LineStrengths(*(x[group.line] for x in state.strengths))
        rows = (*chosen, group.start, group.centre, group.step, of_lines[group.line])
        jacobian, _ = jax.lax.scan(add, jacobian, rows)

    continuum = jnp.exp(weights @ state.ln_continuum)
    normalised = flux / continuum
    by_continuum = weights @ changed.ln_continuum.T
    return normalised, jacobian / continuum[:, None] - normalised[:, None] * by_continuum


def _layered(*changes: Float[Array, "parameters *rest layers"]) -> Float[Array, "*rest all parameters"]:
    """Changes by parameter, the layers of one quantity after those of the other."""
    return jnp.moveaxis(jnp.concatenate(changes, axis=-1), 0, -1)


def _hydrogen(grid: np.ndarray, chemistry: ChemicalState, gas: _Gas) -> tuple[Array, Array]:
    """Opacity of hydrogen's lines, and its derivatives by what `gas` holds in the same layer.

    [pixels, layers] and [6, pixels, layers].
    """

    def opacity(temperature, electrons, neutral_hydrogen, neutral_helium, vmic):
        changed = chemistry._replace(
            electrons=electrons, neutral_hydrogen=neutral_hydrogen, neutral_helium=neutral_helium
        )
        return hydrogen_opacity(grid, temperature, changed, vmic)

    values = (*gas[:4], gas.vmic[0])
    directions = jnp.eye(len(values), dtype=gas.temperature.dtype)
    value, slopes = jax.vmap(
        lambda d: jax.jvp(
            opacity, values, tuple(jnp.full_like(x, y) for x, y in zip(values, d, strict=True))
        ),
        out_axes=(None, 0),
    )(directions)
    return value, jnp.concatenate([slopes, value[None]])


def _transfer(
    grid: np.ndarray, weights: np.ndarray, opacity: Array, of_hydrogen: Array, structure: _Structure,
    state: _WindowState, changed_structure: _Structure, changed: _WindowState,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """The flux [pixels], its derivative by the opacity of each layer [pixels, layers], and its derivatives by
    the parameters but for those through the lines of metals [pixels, parameters]."""
    n, layers = opacity.shape
    temperature, density = structure.gas.temperature, jnp.exp(structure.ln_density)
    n_blocks = -(-n // BLOCK)
    padding = n_blocks * BLOCK - n

    def in_blocks(x, axis=0):
        x = jnp.pad(x, [(0, padding) if i == axis else (0, 0) for i in range(x.ndim)], mode="edge")
        return jnp.moveaxis(x.reshape(*x.shape[:axis], n_blocks, BLOCK, *x.shape[axis + 1 :]), axis, 0)

    # The continuum's nodes on either side of a block: as many for each as the one that needs most.
    ends = np.minimum(np.arange(1, n_blocks + 1) * BLOCK, n)
    used = [np.flatnonzero(weights[i * BLOCK : end].any(axis=0)) for i, end in enumerate(ends)]
    width = max(x[-1] - x[0] + 1 for x in used)
    first_node = np.array([min(x[0], weights.shape[1] - width) for x in used], np.int32)
    of_nodes = _layered(changed.ln_absorption, changed.ln_scattering, changed.mean_intensity)
    of_layers = _layered(changed_structure.column_mass, changed_structure.ln_density, *changed_structure.gas)

    def solve(block):
        wavelength, weight, lines, by_gas, node = block
        absorption = jnp.exp(weight @ state.ln_absorption)
        scatter = jnp.exp(weight @ state.ln_scattering)
        mean = weight @ state.mean_intensity
        thermal, thermal_slope = jax.jvp(
            lambda t: planck(wavelength[:, None], t),
            (jnp.broadcast_to(temperature, lines.shape),),
            (jnp.ones_like(lines),),
        )
        true = absorption + lines / density

        def flux(total, emission, mass):
            return emergent_flux(optical_depth(total, mass), emission / total)

        mass = jnp.broadcast_to(structure.column_mass, lines.shape)
        found, pullback = jax.vjp(flux, true + scatter, true * thermal + scatter * mean, mass)
        by_total, by_emission, by_mass = pullback(jnp.ones_like(found))
        by_true = by_total + by_emission * thermal
        by_opacity = by_true / density
        by_nodes = [by_true * absorption, (by_total + by_emission * mean) * scatter, by_emission * scatter]
        at_nodes = jax.lax.dynamic_slice_in_dim(of_nodes, node, width)
        share = jax.lax.dynamic_slice_in_dim(weight, node, width, axis=1)
        changes = jnp.concatenate(by_nodes, axis=1) @ jnp.moveaxis(at_nodes, 0, 1).reshape(3 * layers, -1)
        jacobian = jnp.einsum("pn,pnk->pk", share, changes.reshape(len(found), width, -1))
        by_gas = by_opacity * by_gas
        by_gas = by_gas.at[0].add(by_emission * true * thermal_slope)  # temperature is the first
        by_layers = jnp.concatenate([by_mass, -by_opacity * lines, *by_gas], axis=1)
        return found, by_opacity, jacobian + by_layers @ of_layers

    blocks = (
        in_blocks(jnp.asarray(grid, opacity.dtype)),
        in_blocks(jnp.asarray(weights, opacity.dtype)),
        in_blocks(opacity),
        in_blocks(of_hydrogen, axis=1),
        first_node,
    )
    flux, by_opacity, jacobian = jax.lax.map(solve, blocks)
    return (
        flux.reshape(-1)[:n],
        by_opacity.reshape(-1, layers)[:n],
        jacobian.reshape(len(blocks[0]) * BLOCK, -1)[:n],
    )
