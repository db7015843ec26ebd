"""Van der Waals broadening of lines without a width of their own, from the tables of the ABO theory.

The cross-section of a neutral atom with hydrogen depends on the orbitals of the two levels and on their
effective quantum numbers alone. It is tabulated in steps of 0.1 for s-p (Anstee & O'Mara 1995, MNRAS 276,
859), p-d (Barklem & O'Mara 1997, MNRAS 290, 102) and d-f transitions (Barklem, O'Mara & Ross 1998, MNRAS 296,
1057).
"""

from functools import cache
from importlib import resources
from typing import NamedTuple

import numpy as np
from scipy.interpolate import RegularGridInterpolator

# Lowest effective quantum numbers of the tables, of the level of lower and of higher orbital momentum.
LOWEST = {"sp": (1.0, 1.3), "pd": (1.3, 2.3), "df": (2.3, 3.3)}
STEP = 0.1
RYDBERG = 13.598  # eV
HC_EV_ANGSTROM = 12398.42


class Transitions(NamedTuple):
    """Columns of a list with the orbitals of its levels, all [lines]."""

    z: np.ndarray  # atomic number
    stage: np.ndarray  # 0 neutral
    wavelength: np.ndarray  # A
    energy: np.ndarray  # lower level, eV
    damping: np.ndarray  # as in `LineList`
    upper: np.ndarray  # "s", "p", "d", ... or "X"
    lower: np.ndarray


@cache
def _tables() -> tuple[np.ndarray, dict[str, RegularGridInterpolator]]:
    """First ionisation energies (eV, [element]); sigma and alpha by pair of orbitals, NaN outside."""
    folder = resources.files("jaxspec.physics.data")
    with resources.as_file(folder / "atoms.npz") as path:
        limits = np.load(path)["ionisation_energy"][:, 0]
    with resources.as_file(folder / "abo.npz") as path:
        stored = dict(np.load(path))
    tables = {}
    for pair, lowest in LOWEST.items():
        grid = [low + STEP * np.arange(n) for low, n in zip(lowest, stored[pair].shape, strict=False)]
        tables[pair] = RegularGridInterpolator(grid, stored[pair].astype(float), bounds_error=False)
    return limits, tables


def cross_sections(lines: Transitions) -> tuple[np.ndarray, np.ndarray]:
    """sigma (Bohr radii squared, at 10 km/s) and alpha of neutral s-p, p-d and d-f lines, [lines].

    NaN for all other lines and outside the tables. Both levels are counted from the first ionisation energy:
    those that converge on an excited state of the ion get a cross-section that is some 10 % too large.
    """
    limits, tables = _tables()
    neutral = (lines.stage == 0) & (lines.z > 0) & (lines.z <= len(limits))
    binding = limits[np.where(neutral, lines.z, 1) - 1] - lines.energy
    with np.errstate(invalid="ignore", divide="ignore"):
        n_lower = np.sqrt(RYDBERG / binding)
        n_upper = np.sqrt(RYDBERG / (binding - HC_EV_ANGSTROM / lines.wavelength))
    values = np.full((len(lines.wavelength), 2), np.nan)
    for pair, table in tables.items():
        for first, second, numbers in (
            (lines.lower, lines.upper, (n_lower, n_upper)),
            (lines.upper, lines.lower, (n_upper, n_lower)),
        ):
            use = neutral & (first == pair[0]) & (second == pair[1])
            values[use] = table(np.stack(numbers, axis=1)[use])
    return values[:, 0], values[:, 1]


def generic_abo(lines: Transitions) -> np.ndarray:
    """Damping as in `LineList`, with the tables' values for the lines that have no cross-section."""
    sigma, alpha = cross_sections(lines)
    fill = (lines.damping <= 20) & np.isfinite(sigma)
    return np.where(fill, np.round(sigma) + alpha, lines.damping)
