"""Departures from LTE: populations of the levels of a line, relative to those of Saha and Boltzmann.

With b_l and b_u of the lower and the upper level, both functions of depth, and x = h nu / kT, a line's
opacity and source function are (Mihalas 1978, Stellar Atmospheres, eqs. 4-13 and 4-14)

    kappa = kappa_LTE b_l (1 - b_u / b_l e^-x) / (1 - e^-x),    S = (2 h nu^3 / c^2) / (b_l / b_u e^x - 1).

Their product is kappa_LTE b_u B: the emission depends on the upper level alone, and has no pole.

Coefficients come per element from a table of one's own (`ElementDepartures`), against the optical depth of
the continuum at 5000 A, as statistical equilibrium codes publish them. None is shipped.
"""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxspec.errors import InputError
from jaxspec.physics.constants import BOLTZMANN_EV
from jaxspec.physics.lines import HC_EV_ANGSTROM, LineList, LineStrengths
from jaxspec.spectra import air_to_vacuum

LEVEL_TOLERANCE = 0.01  # eV, within which a line's level is one of the table's


class LineDepartures(NamedTuple):
    """Coefficients of the levels of some lines of a list, in each layer; the other lines are in LTE."""

    line: Int[np.ndarray, " chosen"]  # places in the list, on the host
    lower: Float[Array, "chosen layers"]
    upper: Float[Array, "chosen layers"]


class ElementDepartures(eqx.Module):
    """Departure coefficients of the levels of one element in one star.

    A level is known by its ion and energy; levels that a line list does not resolve (fine structure) are
    found by the nearest energy within `LEVEL_TOLERANCE`.
    """

    element: int = eqx.field(static=True)  # atomic number
    stage: np.ndarray  # of each level: 0 neutral, 1 once ionised
    energy: np.ndarray  # of each level above its ion's ground state, eV
    log_tau: np.ndarray  # log10 of the optical depth at 5000 A, increasing
    coefficients: Float[Array | np.ndarray, "levels depths"]

    def __check_init__(self):
        shape = (len(self.energy), len(self.log_tau))
        where = f"departure coefficients of element {self.element}"
        if np.shape(self.coefficients) != shape or len(self.stage) != shape[0]:
            raise InputError(
                where, f"shape {np.shape(self.coefficients)}", f"levels, depths: {shape}", "correct the table"
            )
        if np.any(np.diff(self.log_tau) <= 0):
            raise InputError(
                where, "log_tau that does not increase", "depths from the surface inward", "sort the table"
            )

    def at(self, log_tau: Float[Array, " layers"]) -> Float[Array, "levels layers"]:
        """Coefficients by depth, linear in their logarithm between the table's depths, held beyond them."""
        ln_b = jnp.log(self.coefficients)
        position = jnp.interp(log_tau, jnp.asarray(self.log_tau), jnp.arange(len(self.log_tau), dtype=float))
        weights = jnp.maximum(1.0 - jnp.abs(position - jnp.arange(len(self.log_tau))[:, None]), 0.0)
        return jnp.exp(ln_b @ weights)


def departures_of(
    lines: LineList, elements: tuple[ElementDepartures, ...], log_tau: Float[Array, " layers"]
) -> LineDepartures | None:
    """The coefficients of every line whose two levels one of the tables has; None where no line has them.

    Args:
        lines: a list that is concrete, as which lines are found is decided on the host.
        elements: at most one table for each element.
        log_tau: log10 of the continuum's optical depth at 5000 A in each layer (`optical_depth_5000`).
    """
    numbers = [table.element for table in elements]
    if len(set(numbers)) < len(numbers):
        raise InputError("departures", f"elements {numbers}", "each element once", "join their tables")
    upper_energy = lines.energy + HC_EV_ANGSTROM / air_to_vacuum(lines.wavelength)
    index, lower, upper = [], [], []
    for table in elements:
        low, up = (_nearest_level(table, lines, energy) for energy in (lines.energy, upper_energy))
        found = np.flatnonzero((low >= 0) & (up >= 0))
        coefficients = table.at(log_tau)
        index.append(found)
        lower.append(coefficients[low[found]])
        upper.append(coefficients[up[found]])
    if not sum(map(len, index)):
        return None
    return LineDepartures(np.concatenate(index), jnp.concatenate(lower), jnp.concatenate(upper))


def _nearest_level(table: ElementDepartures, lines: LineList, energy: np.ndarray) -> np.ndarray:
    """Number of the table's level nearest to each line's, -1 where none is near enough."""
    distance = np.abs(energy[:, None] - table.energy)
    distance = np.where(lines.stage[:, None] == np.asarray(table.stage), distance, np.inf)
    near = (lines.element == table.element - 1) & (distance.min(axis=1) < LEVEL_TOLERANCE)
    return np.where(near, np.argmin(distance, axis=1), -1)


def with_departures(
    strengths: LineStrengths,
    lines: LineList,
    departures: LineDepartures,
    temperature: Float[Array, " layers"],
) -> tuple[LineStrengths, LineStrengths]:
    """Strengths of all lines with the opacity out of LTE, and those of the chosen lines' excess emission.

    The second has kappa_LTE b_u - kappa in place of the opacity: what a line emits beyond kappa B, in units
    of B (negative where it emits less). With b = 1 the first is unchanged to the last bit and the second 0.
    """
    chosen, (_, lower, upper) = departures.line, departures
    lte = LineStrengths(*(x[chosen] for x in strengths))
    x = HC_EV_ANGSTROM / lines.wavelength[chosen].astype(np.float32)[:, None] / (BOLTZMANN_EV * temperature)
    factor = lower + (lower - upper) / jnp.expm1(x)
    opacity = strengths.opacity.at[chosen].set(lte.opacity * factor)
    return strengths._replace(opacity=opacity), lte._replace(opacity=lte.opacity * (upper - factor))
