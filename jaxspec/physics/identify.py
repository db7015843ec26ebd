"""Which lines shape which pixels of a star: every line's depth and width, and its share of the absorption.

Depths of blended lines do not add up, so shares are taken where things do: in opacity. A line's share of a
pixel is its part of all line opacity there, hydrogen's included, each layer counted by how strongly its
opacity acts on the flux, -dF/dkappa. That is also the line's part of the flux's response to making all lines
stronger by the same small factor; shares of one pixel add up to 1.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxspec.physics.hydrogen import hydrogen_opacity
from jaxspec.physics.linelists.text import atomic_numbers
from jaxspec.physics.lines import LineList, group_lines, line_opacity, line_strengths
from jaxspec.physics.model import StellarModel
from jaxspec.physics.synthesis import Window, continuum_between, flux_in_window
from jaxspec.physics.voigt import voigt
from jaxspec.physics.widths import lone_lines

ROMAN = ("I", "II", "III")


class IdentifiedLines(NamedTuple):
    """The lines of a star, in order of wavelength; the components of a transition stand apart."""

    wavelength: Float[np.ndarray, " lines"]  # air, A
    species: np.ndarray  # "Fe I"
    energy: Float[np.ndarray, " lines"]  # lower level, eV
    log_gf: Float[np.ndarray, " lines"]
    depth: Float[np.ndarray, " lines"]  # at the centre, of the line alone with the continuum
    equivalent_width: Float[np.ndarray, " lines"]  # mA, alone with the continuum
    share: Float[np.ndarray, " lines"]  # of the absorption at its centre; NaN where that is in no window

    def __getitem__(self, index):
        """Rows by slice, index array or mask; a field by number, as in any tuple."""
        if isinstance(index, (int, np.integer)):
            return tuple.__getitem__(self, index)
        return IdentifiedLines(*(column[index] for column in self))


class Identification(NamedTuple):
    """The lines and elements that shape the spectrum of one star."""

    lines: IdentifiedLines
    wavelength: Float[np.ndarray, " pixels"]  # air, A
    flux: Float[np.ndarray, " pixels"]  # normalised
    elements: tuple[str, ...]  # symbols; hydrogen is the first
    share: Float[np.ndarray, "elements pixels"]  # of each pixel's absorption; adds up to 1, or 0 without any

    @property
    def absorption(self) -> Float[np.ndarray, "elements pixels"]:
        """The part of 1 - flux that each element has."""
        return self.share * (1.0 - self.flux)


def line_identifier(
    model: StellarModel,
) -> Callable[[Float[Array | np.ndarray, " labels"], float], Identification]:
    """The function of a star's labels and vmic (km/s) that identifies its lines, compiled once for a model.

    Raises `InputError` for labels outside the grid of atmospheres. It treats lines as in LTE.
    """
    numbers = np.unique(np.concatenate([lines.element for lines in model.lines])).astype(int)

    @jax.jit
    def identified(labels, vmic):
        atmosphere, state = model.structure(labels)
        parts = []
        for lines, window in zip(model.lines, model.windows, strict=True):
            alone = lone_lines(lines, model.atoms, atmosphere, state, vmic)
            strengths = line_strengths(lines, model.atoms, atmosphere.temperature, state, vmic)
            shares = _shares(lines, numbers, window, strengths, atmosphere, state, vmic)
            parts.append((*alone, *shares))
        return parts

    def identify(labels, vmic) -> Identification:
        labels = jnp.asarray(labels, jnp.float32)
        model.grid.check(*model.label_set.stellar(labels))
        parts = jax.tree.map(np.asarray, identified(labels, jnp.float32(vmic)))
        depth, width, at_centre, flux, share = (np.concatenate(x, axis=-1) for x in zip(*parts, strict=True))
        symbols = {z: symbol for symbol, z in atomic_numbers().items()}
        column = {
            name: np.concatenate([np.asarray(getattr(lines, name)) for lines in model.lines])
            for name in ("wavelength", "element", "stage", "energy", "log_gf")
        }
        species = [
            f"{symbols[z + 1]} {ROMAN[i]}" for z, i in zip(column["element"], column["stage"], strict=True)
        ]
        lines = IdentifiedLines(
            column["wavelength"], np.array(species), column["energy"], column["log_gf"],
            depth, width, at_centre,
        )  # fmt: skip
        elements = ("H", *(symbols[z + 1] for z in numbers))
        return Identification(lines, model.wavelength, flux, elements, share)

    return identify


def _shares(
    lines: LineList, numbers: Int[np.ndarray, " elements"], window: Window, strengths, atmosphere, state, vmic
) -> tuple[Array, Array, Array]:
    """Share of each line at its centre, normalised flux, and share of hydrogen and each element by pixel."""
    grid = window.wavelength
    groups = group_lines(lines, grid[0], window.step, len(grid))
    metals = line_opacity(strengths, groups, len(grid))
    hydrogen = hydrogen_opacity(grid, atmosphere.temperature, state, vmic)
    continuum = continuum_between(grid[0], grid[-1], atmosphere, state)

    def normalised(opacity):
        surface = flux_in_window(window, opacity, continuum, atmosphere, state.density)
        return surface.flux / surface.continuum

    flux, pull = jax.vjp(normalised, metals + hydrogen)
    response = -pull(jnp.ones_like(flux))[0]
    total = jnp.sum(response * (metals + hydrogen), axis=1)
    per_total = jnp.where(total > 0, 1.0 / jnp.where(total > 0, total, 1.0), 0.0)

    row = np.searchsorted(numbers, lines.element)
    absorbed = jnp.zeros((len(numbers), len(grid)), flux.dtype)
    at_centre = jnp.full(len(lines), jnp.nan, flux.dtype)
    for group in groups:
        pixel = jnp.arange(group.width, dtype=flux.dtype)

        def add(absorbed, line, pixel=pixel, width=group.width):
            opacity, doppler, damping, first, centre, step, row = line
            weight = jax.lax.dynamic_slice_in_dim(response, first, width)

            def weighted(distance, weight):
                profile = opacity * voigt(damping[None], distance[:, None] * step / doppler[None])
                return jnp.sum(weight * profile, axis=1)

            part = weighted(pixel - centre, weight)
            old = jax.lax.dynamic_slice(absorbed, (row, first), (1, width))
            nearest = jnp.clip(jnp.round(centre), 0, width - 1).astype(jnp.int32)
            return jax.lax.dynamic_update_slice(absorbed, old + part, (row, first)), part[nearest]

        chosen = (x[group.line] for x in (*strengths, row))
        opacity, doppler, damping, rows = chosen
        places = (group.start, group.centre, group.step, rows)
        absorbed, part = jax.lax.scan(add, absorbed, (opacity, doppler, damping, *places))
        pixel_of = group.start + np.round(group.centre).astype(int)
        inside = (pixel_of >= 0) & (pixel_of < len(grid))
        share = part * per_total[np.clip(pixel_of, 0, len(grid) - 1)]
        at_centre = at_centre.at[group.line].set(jnp.where(inside, share, jnp.nan))
    of_hydrogen = jnp.sum(response * hydrogen, axis=1)
    share = jnp.concatenate([of_hydrogen[None], absorbed]) * per_total
    return at_centre, flux, share


def strongest(
    identification: Identification, n: int, low: float = 0.0, high: float = np.inf
) -> IdentifiedLines:
    """The `n` lines of largest equivalent width between two wavelengths (A), in order of wavelength."""
    lines = identification.lines
    inside = np.flatnonzero((lines.wavelength >= low) & (lines.wavelength <= high))
    chosen = np.sort(inside[np.argsort(-lines.equivalent_width[inside])[:n]])
    return IdentifiedLines(*(column[chosen] for column in lines))
