"""Van der Waals broadening of lines without a width of their own, from the regularity of the ABO theory.

ABO cross-sections of neutral atoms depend only on the two effective quantum numbers. The several thousand
s-p and p-d lines of the Gaia-ESO list that have one are fitted by a quadratic in them (scatter 13 % for s-p,
5 % for p-d), which is then used inside the theory's tables.
"""

from functools import cache
from importlib import resources
from typing import NamedTuple

import numpy as np

# Effective quantum numbers within which the theory is tabulated, for the level of lower and of higher
# orbital momentum (Anstee & O'Mara 1995; Barklem & O'Mara 1997).
RANGES = {"sp": ((1.0, 3.0), (1.3, 3.0)), "pd": ((1.3, 3.0), (2.3, 4.0))}
# Coefficients of ln sigma and of alpha: `fit_abo` of the Gaia-ESO list v6.
FITS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "sp": (
        (-0.29316759, 4.22666792, 1.44962916, 0.114867882, -0.845815619, -0.434455372),
        (0.289162859, -0.0465897347, 0.00612390981, -0.0112624656, 0.0132145568, 0.00618987428),
    ),
    "pd": (
        (14.767499, -2.79531903, -3.73023212, -0.3139151, 0.960981393, 0.749309449),
        (0.906576173, 0.0485907429, -0.423266958, 0.0034797844, -0.0176939959, 0.0659995803),
    ),
}


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
def _first_ionisation() -> np.ndarray:
    """eV, [element]."""
    with resources.as_file(resources.files("jaxspec.physics.data") / "atoms.npz") as path:
        return np.load(path)["ionisation_energy"][:, 0]


def _design(lines: Transitions, pair: str) -> tuple[np.ndarray, np.ndarray]:
    """Which lines are of this pair of orbitals and inside its table; the quadratic's terms for all lines."""
    neutral = (lines.stage == 0) & (lines.z > 0) & (lines.z <= len(_first_ionisation()))
    binding = _first_ionisation()[np.where(neutral, lines.z, 1) - 1] - lines.energy
    with np.errstate(invalid="ignore", divide="ignore"):
        n_lower = np.sqrt(13.598 / binding)
        n_upper = np.sqrt(13.598 / (binding - 12398.42 / lines.wavelength))
    up = (lines.upper == pair[1]) & (lines.lower == pair[0])
    down = (lines.upper == pair[0]) & (lines.lower == pair[1])
    first, second = np.where(up, n_lower, n_upper), np.where(up, n_upper, n_lower)
    (low1, high1), (low2, high2) = RANGES[pair]
    tabulated = (first >= low1) & (first <= high1) & (second >= low2) & (second <= high2)
    terms = [np.ones_like(first), first, second, first * second, first**2, second**2]
    return (up | down) & neutral & tabulated, np.stack(terms, axis=1)


def generic_abo(lines: Transitions, fits: dict = FITS) -> np.ndarray:
    """Damping, with ABO values for the neutral s-p and p-d lines that have no cross-section."""
    damping = lines.damping.copy()
    for pair, (sigma, alpha) in fits.items():
        use, terms = _design(lines, pair)
        fill = use & (damping <= 20)
        damping[fill] = np.round(np.exp(terms[fill] @ sigma)) + np.clip(terms[fill] @ alpha, 0.15, 0.45)
    return damping


def fit_abo(lines: Transitions) -> tuple[dict, dict[str, float]]:
    """The coefficients that `generic_abo` takes, and the robust scatter of ln sigma, by pair of orbitals."""
    fits, scatter = {}, {}
    for pair in RANGES:
        use, terms = _design(lines, pair)
        known = use & (lines.damping > 20)
        terms = terms[known]
        sigma, alpha = np.log(np.floor(lines.damping[known])), lines.damping[known] % 1
        weight = np.ones(known.sum())
        for _ in range(5):  # robust: levels that converge on an excited limit lie off
            fit = np.linalg.lstsq(terms * weight[:, None], sigma * weight, rcond=None)[0]
            weight = 1 / np.sqrt(1 + ((sigma - terms @ fit) / 0.1) ** 2)
        exponent = np.linalg.lstsq(terms * weight[:, None], alpha * weight, rcond=None)[0]
        fits[pair] = tuple(fit.tolist()), tuple(exponent.tolist())
        scatter[pair] = float(1.4826 * np.median(abs(sigma - terms @ fit)))
    return fits, scatter
