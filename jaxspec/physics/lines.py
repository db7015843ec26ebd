"""Atomic lines: the list, its damping constants, and their opacity on a uniform wavelength grid."""

from importlib import resources
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln
from jaxtyping import Array, Float, Int

from jaxspec.physics.chemistry import AtomicData, ChemicalState
from jaxspec.physics.constants import (
    ATOMIC_MASS,
    ATOMIC_WEIGHTS,
    BOHR_RADIUS,
    BOLTZMANN,
    BOLTZMANN_EV,
    LINE_CROSS_SECTION,
    SPEED_OF_LIGHT,
)
from jaxspec.physics.voigt import voigt

HC_EV_ANGSTROM = 12398.4198


class LineList(eqx.Module):
    """Atomic lines in order of wavelength.

    `damping` follows the Turbospectrum convention: above 20 it is sigma.alpha of the ABO theory
    (cross-section in Bohr radii squared at 10 km/s, and velocity exponent), below 0 it is log10 of the van
    der Waals width per hydrogen atom at 10,000 K (rad s^-1 cm^3), else it multiplies Unsoeld's width. `reach`
    is the distance (A) to which a line's opacity is computed.
    """

    wavelength: np.ndarray = eqx.field(static=False)  # air, A, float64 on the host
    element: np.ndarray  # Z - 1
    stage: np.ndarray  # 0 neutral, 1 once ionised
    energy: np.ndarray  # lower level, eV
    log_gf: Float[Array | np.ndarray, " lines"]  # the one leaf to differentiate by
    damping: np.ndarray
    gamma_rad: np.ndarray  # s^-1
    reach: np.ndarray  # A

    @staticmethod
    def load(low: float = 0.0, high: float = np.inf, *, calibrated: bool = False) -> "LineList":
        """The shipped list (Gaia-ESO v6, Heiter et al. 2021) between two air wavelengths in A.

        `calibrated` moves log gf to what the Sun and benchmark stars show, where they were observed (HR10;
        see `experiments.linelist` and `data/calibrated.csv`).
        """
        with resources.as_file(resources.files("jaxspec.physics.data") / "lines.npz") as path:
            data = dict(np.load(path))
        use = (data["wavelength"] >= low) & (data["wavelength"] <= high)
        data = {k: v[use] for k, v in data.items()}
        if calibrated:
            data["log_gf"] = data["log_gf"] + _calibration(data)
        reach = data["reach"] if "reach" in data else np.full(use.sum(), 2.0, np.float32)
        return LineList(
            wavelength=data["wavelength"],
            element=data["species"] // 10 - 1,
            stage=data["species"] % 10,
            energy=data["energy"],
            log_gf=data["log_gf"],
            damping=data["damping"],
            gamma_rad=data["gamma_rad"],
            reach=reach,
        )

    def __getitem__(self, index: slice | np.ndarray) -> "LineList":
        return jax.tree.map(lambda x: x[index], self)

    def __len__(self) -> int:
        return len(self.wavelength)


def _calibration(data: dict[str, np.ndarray]) -> np.ndarray:
    """The correction of each line's log gf in `data/calibrated.csv`; 0 for a line that is not in it."""
    text = (resources.files("jaxspec.physics.data") / "calibrated.csv").read_text()
    known = {}
    for row in text.splitlines()[1:]:
        *line, change = row.split(",")
        known[tuple(line)] = float(change)
    columns = (data["wavelength"], data["species"], data["energy"], data["log_gf"])
    lines = [(f"{w:.3f}", str(s), f"{e:.3f}", f"{g:.3f}") for w, s, e, g in zip(*columns, strict=True)]
    return np.array([known.get(line, 0.0) for line in lines], np.float32)


class LineStrengths(NamedTuple):
    """Strength, width and damping of each line in each layer."""

    opacity: Float[Array, "lines layers"]  # cm^-1 at v = 0 of a pure Doppler profile
    doppler: Float[Array, "lines layers"]  # Doppler width / wavelength
    damping: Float[Array, "lines layers"]  # Voigt parameter a


def van_der_waals_width(
    lines: LineList, atoms: AtomicData, temperature: Float[Array, " layers"], state: ChemicalState
) -> Float[Array, "lines layers"]:
    """Full width (rad s^-1) by collisions with H I and He I, [lines, layers].

    ABO: Anstee & O'Mara (1995, MNRAS 276, 859), eq. 1 with helium as in Barklem & O'Mara (1998). Unsoeld
    (1955): 17 v^0.6 C6^0.4 (Gray 2005, chapter 11) with C6 in cm^6 s^-1, the mean speed v and (Z + 1)^2 for
    ions.
    """
    damping = jnp.asarray(lines.damping)[:, None]
    mass = ATOMIC_WEIGHTS[lines.element]
    perturbers = state.neutral_hydrogen + 0.42 * state.neutral_helium + 0.85 * state.molecular_hydrogen

    sigma, alpha = jnp.floor(damping), damping - jnp.floor(damping)
    reduced = ATOMIC_MASS / (1 / 1.008 + 1 / mass)
    speed = jnp.sqrt(8 * BOLTZMANN / (np.pi * reduced[:, None]) * temperature)
    ln_factor = 0.5 * alpha * np.log(4 / np.pi) + gammaln(2 - 0.5 * alpha)
    abo = 2 * jnp.exp(ln_factor) * 1e6 * sigma * BOHR_RADIUS**2 * (speed / 1e6) ** (1 - alpha)

    tabulated = 10.0 ** jnp.minimum(damping, 0.0) * (temperature / 1e4) ** 0.3

    limit = np.asarray(atoms.ionisation_energy)[lines.element, lines.stage]
    upper = np.maximum(limit - lines.energy - HC_EV_ANGSTROM / lines.wavelength, 0.05)
    lower = np.maximum(limit - lines.energy, 0.1)
    c6 = 0.3e-30 * (upper**-2.0 - lower**-2.0) * (lines.stage + 1.0) ** 2
    ln_c6 = 0.4 * np.log(np.maximum(c6, 1e-34))
    unsoeld = damping * 17.0 * jnp.exp(ln_c6[:, None] + 0.6 * jnp.log(speed))

    per_atom = jnp.where(damping > 20, abo, jnp.where(damping < 0, tabulated, unsoeld))
    return per_atom * perturbers


def line_strengths(
    lines: LineList,
    atoms: AtomicData,
    temperature: Float[Array, " layers"],
    state: ChemicalState,
    vmic: Float[Array, ""],
) -> LineStrengths:
    """LTE opacity, Doppler width and damping of each line in each layer; `vmic` in km/s."""
    wavelength = lines.wavelength.astype(np.float32)[:, None]
    mass = (ATOMIC_WEIGHTS * ATOMIC_MASS)[lines.element][:, None]
    thermal = 2 * (BOLTZMANN / mass) * temperature
    doppler = jnp.sqrt(thermal + (vmic * 1e5) ** 2) / SPEED_OF_LIGHT
    frequency = SPEED_OF_LIGHT * 1e8 / wavelength
    kt = BOLTZMANN_EV * temperature
    ln_population = state.ln_populations[:, lines.element, lines.stage].T
    ln_opacity = (
        ln_population
        + np.log(10.0) * jnp.asarray(lines.log_gf)[:, None]
        - lines.energy[:, None] / kt
        - jnp.log(doppler * frequency)
        + np.log(LINE_CROSS_SECTION / np.sqrt(np.pi))
    )
    stimulated = -jnp.expm1(-HC_EV_ANGSTROM / wavelength / kt)
    classical = 2.223e15 / wavelength**2  # rad s^-1, for lines without a radiative width
    gamma = jnp.where(lines.gamma_rad[:, None] > 0, lines.gamma_rad[:, None], classical)
    gamma = gamma + van_der_waals_width(lines, atoms, temperature, state)
    return LineStrengths(jnp.exp(ln_opacity) * stimulated, doppler, gamma / (4 * np.pi * doppler * frequency))


class LineGroup(NamedTuple):
    """Lines of a similar reach and where they stand on a grid of `n` uniform steps, laid out on the host."""

    line: Int[np.ndarray, " lines"]  # places in the list
    start: Int[np.ndarray, " lines"]  # first pixel
    centre: Float[np.ndarray, " lines"]  # line centre, in pixels from `start`
    step: Float[np.ndarray, " lines"]  # pixel step / wavelength
    width: int  # pixels


def group_lines(lines: LineList, start: float, step: float, n_pixels: int) -> list[LineGroup]:
    """Sort lines into groups of equal pixel width (powers of four from 32) that cover their reach."""
    position = (lines.wavelength - start) / step
    needed = 2 * lines.reach / step
    groups, smallest, width = [], 0.0, 32
    while smallest < np.inf:
        whole = width >= n_pixels
        use = (needed > smallest) & ((needed <= width) | whole)
        pixels = n_pixels if whole else width
        if use.any():
            first = np.clip(np.round(position[use] - pixels / 2), 0, n_pixels - pixels).astype(np.int32)
            groups.append(
                LineGroup(
                    np.flatnonzero(use).astype(np.int32),
                    first,
                    (position[use] - first).astype(np.float32),
                    (step / lines.wavelength[use]).astype(np.float32),
                    pixels,
                )
            )
        smallest, width = (np.inf, width) if whole else (width, width * 2)
    return groups


def line_opacity(
    strengths: LineStrengths, groups: list[LineGroup], n_pixels: int
) -> Float[Array, "pixels layers"]:
    """Opacity (cm^-1) of all lines on the grid.

    They are added one by one, so that memory does not grow with their number.
    """
    total = jnp.zeros((n_pixels, strengths.opacity.shape[1]), strengths.opacity.dtype)
    for group in groups:
        pixel = jnp.arange(group.width, dtype=total.dtype)

        @jax.checkpoint
        def profile(opacity, doppler, damping, centre, step, pixel=pixel):
            distance = (pixel - centre) * step
            return opacity * voigt(damping[None, :], distance[:, None] / doppler[None, :])

        def add(total, line, profile=profile, width=group.width):
            opacity, doppler, damping, first, centre, step = line
            old = jax.lax.dynamic_slice_in_dim(total, first, width)
            new = old + profile(opacity, doppler, damping, centre, step)
            return jax.lax.dynamic_update_slice_in_dim(total, new, first, 0), None

        chosen = LineStrengths(*(x[group.line] for x in strengths))
        total, _ = jax.lax.scan(add, total, (*chosen, group.start, group.centre, group.step))
    return total
