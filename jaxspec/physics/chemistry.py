"""Equation of state: ionisation and molecules in equilibrium at given temperature, pressure and composition.

The conservation laws are solved in the logarithms of the number densities by Newton's method, layer by layer;
in logarithms every equation is a log-sum-exp, so float32 carries it. Gradients follow the implicit function
theorem: the iterations are not differentiated, one last Newton step at the solution is.
"""

from importlib import resources
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float

from jaxspec.linear import inverse
from jaxspec.physics.constants import (
    ATOMIC_MASS,
    ATOMIC_WEIGHTS,
    BOLTZMANN,
    BOLTZMANN_EV,
    ELECTRON_MASS,
    PLANCK,
    SOLAR_ABUNDANCES,
)

N_ELEMENTS = 92
H, HE = 0, 1  # rows of the element arrays
LN10 = np.log(10.0)
# ln of (2 pi m_u k)^1.5 / h^3 and (2 pi m_e k)^1.5 / h^3, cgs: translational partition functions per T^1.5.
LN_TRANSLATION_ATOMIC_MASS = 1.5 * np.log(2 * np.pi * ATOMIC_MASS * BOLTZMANN) - 3 * np.log(PLANCK)
LN_TRANSLATION_ELECTRON = 1.5 * np.log(2 * np.pi * ELECTRON_MASS * BOLTZMANN) - 3 * np.log(PLANCK)
H_MINUS_AFFINITY = 0.754195  # eV, Lykke, Murray & Lineberger (1991)


class Diatomic(NamedTuple):
    """Spectroscopic constants of a diatomic molecule (Huber & Herzberg 1979, as in the NIST WebBook).

    `states` are (degeneracy, term energy in cm^-1) of the electronic states that are populated below 7000 K.
    """

    atoms: tuple[int, int]
    dissociation_energy: float  # D0, eV
    vibration: float  # omega_e - 2 omega_e x_e, cm^-1
    rotation: float  # B_0, cm^-1
    states: tuple[tuple[float, float], ...]


# D0: H2 Herzberg (1970); CO, N2, CH, OH, NH, CN, C2, MgH, SiO, TiO: Barklem & Collet (2016), table 2; others:
# Huber & Herzberg.
MOLECULES = {
    "H2": Diatomic((1, 1), 4.4781, 4161.2, 59.33, ((1, 0),)),
    "CO": Diatomic((6, 8), 11.117, 2143.3, 1.9225, ((1, 0),)),
    "OH": Diatomic((8, 1), 4.4112, 3570.0, 18.54, ((4, 0),)),
    "CH": Diatomic((6, 1), 3.4696, 2732.5, 14.19, ((4, 0), (4, 5844))),
    "NH": Diatomic((7, 1), 3.42, 3125.6, 16.34, ((3, 0), (2, 12566))),
    "CN": Diatomic((6, 7), 7.724, 2042.4, 1.891, ((2, 0), (4, 9245))),
    "N2": Diatomic((7, 7), 9.7594, 2329.9, 1.9896, ((1, 0),)),
    "C2": Diatomic((6, 6), 6.371, 1827.5, 1.811, ((1, 0), (6, 716), (3, 6434), (2, 8391))),
    "SiO": Diatomic((14, 8), 8.18, 1229.7, 0.7242, ((1, 0),)),
    "TiO": Diatomic((22, 8), 6.87, 1000.0, 0.5339, ((6, 0), (2, 3448), (1, 5663), (6, 11840), (6, 14095))),
    "SiH": Diatomic((14, 1), 3.06, 1970.4, 7.39, ((4, 0),)),
    "MgH": Diatomic((12, 1), 1.27, 1432.0, 5.736, ((2, 0),)),
    "AlH": Diatomic((13, 1), 3.06, 1625.1, 6.298, ((1, 0),)),
    "CaH": Diatomic((20, 1), 1.70, 1260.0, 4.2286, ((2, 0),)),
    "AlO": Diatomic((13, 8), 5.27, 965.3, 0.6386, ((2, 0), (4, 5406))),
    "FeH": Diatomic((26, 1), 1.59, 1759.4, 6.51, ((12, 0), (10, 2000), (8, 4000))),
}
# Elements bound in molecules: their free neutral density is an unknown; all others follow from
# their own abundance.
MOLECULAR_ELEMENTS = tuple(sorted({z - 1 for molecule in MOLECULES.values() for z in molecule.atoms}))
KT_CM = BOLTZMANN_EV * 8065.544  # cm^-1 per K
# 32 bits: JAX 0.10 mixes integer types when 64-bit indices meet a switch of precision.
_ATOMS = np.array([molecule.atoms for molecule in MOLECULES.values()], np.int32) - 1
_DISSOCIATION, _VIBRATION, _ROTATION = np.array(
    [(m.dissociation_energy, m.vibration, m.rotation) for m in MOLECULES.values()]
).T
_SYMMETRY = np.where(_ATOMS[:, 0] == _ATOMS[:, 1], 2.0, 1.0)
_REDUCED_MASS = np.prod(ATOMIC_WEIGHTS[_ATOMS], axis=1) / np.sum(ATOMIC_WEIGHTS[_ATOMS], axis=1)
_STATES = np.zeros((len(MOLECULES), max(len(m.states) for m in MOLECULES.values()), 2))
for _row, _molecule in zip(_STATES, MOLECULES.values(), strict=True):
    _row[: len(_molecule.states)] = _molecule.states


class AtomicData(eqx.Module):
    """Partition functions and ionisation energies (see `physics.data.build`)."""

    log_partition: Float[Array, "elements stages coefficients"]
    ionisation_energy: Float[Array, "elements stages"]

    @staticmethod
    def load() -> "AtomicData":
        with resources.as_file(resources.files("jaxspec.physics.data") / "atoms.npz") as path:
            data = np.load(path)
            return AtomicData(
                jnp.asarray(data["log_partition"]),
                jnp.asarray(np.nan_to_num(data["ionisation_energy"], nan=1e3)),
            )

    def ln_partition(self, temperature: Float[Array, ""]) -> Float[Array, "elements stages"]:
        """ln U of every element and stage; above 10000 K, where the table ends, the end slope goes on."""
        x = jnp.log(temperature / 5000.0)
        end = np.log(2.0)
        inside = jnp.minimum(x, end)
        powers = inside ** jnp.arange(self.log_partition.shape[-1])
        orders = np.arange(1, self.log_partition.shape[-1])
        slopes = orders * end ** (orders - 1)
        return self.log_partition @ powers + (self.log_partition[..., 1:] @ slopes) * (x - inside)


class ChemicalState(NamedTuple):
    """Number densities (cm^-3) in one or many layers."""

    electrons: Float[Array, "..."]
    ln_populations: Float[Array, "... elements stages"]  # ln(n / U) of each stage
    neutral_hydrogen: Float[Array, "..."]
    ionised_hydrogen: Float[Array, "..."]
    neutral_helium: Float[Array, "..."]
    molecular_hydrogen: Float[Array, "..."]
    density: Float[Array, "..."]  # g cm^-3


def ln_molecular_constants(
    temperature: Float[Array, ""], ln_partition: Float[Array, "elements stages"]
) -> Float[Array, " m"]:
    """ln of n_AB / (n_A n_B) of every molecule, in neutral atoms, cm^3.

    Harmonic oscillator; rotor stretched by its rotation, with D = 4 B^3 / omega^2 (Kratzer 1920).
    """
    kt = KT_CM * temperature
    electronic = jnp.sum(_STATES[..., 0] * jnp.exp(-_STATES[..., 1] / kt), axis=1)
    stretched = 1 + 8 * _ROTATION * kt / _VIBRATION**2
    rotation = kt / _ROTATION * stretched / _SYMMETRY + 1 / 3
    vibration = -jnp.log(-jnp.expm1(-_VIBRATION / kt))
    neutral = ln_partition[:, 0]
    return (
        jnp.log(electronic * rotation)
        + vibration
        + _DISSOCIATION / (BOLTZMANN_EV * temperature)
        - (LN_TRANSLATION_ATOMIC_MASS + 1.5 * np.log(_REDUCED_MASS) + 1.5 * jnp.log(temperature))
        - neutral[_ATOMS[:, 0]]
        - neutral[_ATOMS[:, 1]]
    )


def abundances(
    metallicity: Float[Array, ""],
    x_h: dict[int, Float[Array, ""]] | None = None,
    solar: np.ndarray = SOLAR_ABUNDANCES,
) -> Float[Array, " elements"]:
    """ln n_X / n_H of every element.

    Solar + `metallicity` for the metals, solar + `x_h[Z]` where given; helium is fixed.
    """
    log_abundance = jnp.asarray(solar) - 12.0
    log_abundance = log_abundance.at[2:].add(metallicity)
    for z, value in (x_h or {}).items():
        log_abundance = log_abundance.at[z - 1].set(solar[z - 1] - 12.0 + value)
    return jnp.maximum(log_abundance, -30.0) * LN10


class _Equilibrium(NamedTuple):
    """Terms of the conservation laws of one layer; all natural logarithms."""

    saha: Float[Array, "elements 2"]  # n_{i+1} n_e / n_i
    h_minus: Float[Array, ""]  # n_H- / (n_H n_e)
    molecules: Float[Array, " m"]  # n_AB / (n_A n_B)
    particles: Float[Array, ""]  # P / kT
    abundance: Float[Array, " elements"]


_BOUND = np.array(MOLECULAR_ELEMENTS, np.int32)
_PAIRS = np.searchsorted(_BOUND, _ATOMS).astype(np.int32)
_ATOMS_PER_MOLECULE = np.array([[np.sum(pair == i) for pair in _PAIRS] for i in range(len(_BOUND))], float)


def _ln_stages(eq: _Equilibrium, ln_e: Float[Array, ""]) -> Float[Array, "elements 3"]:
    """ln of n_stage / n_neutral."""
    first = eq.saha[:, 0] - ln_e
    return jnp.stack([jnp.zeros_like(first), first, first + eq.saha[:, 1] - ln_e], axis=1)


def _unpack(eq: _Equilibrium, u: Float[Array, " unknowns"]) -> tuple[Array, Array, Array, Array, Array]:
    """Every ln number density that follows from the unknowns.

    These are ln of the electrons, the hydrogen nuclei and the free neutral atoms of the molecular elements.
    """
    ln_e, ln_nuclei, ln_bound = u[0], u[1], u[2:]
    ratio = _ln_stages(eq, ln_e)
    ln_sum = logsumexp(ratio, axis=1)
    neutral = (eq.abundance + ln_nuclei - ln_sum).at[_BOUND].set(ln_bound)
    molecules = eq.molecules + ln_bound[_PAIRS[:, 0]] + ln_bound[_PAIRS[:, 1]]
    return neutral, ratio, ln_sum, molecules, eq.h_minus + neutral[H] + ln_e


def _residual(eq: _Equilibrium, u: Float[Array, " unknowns"]) -> Float[Array, " unknowns"]:
    """Logarithmic imbalance of charge, of particles (pressure), and of each molecular element's nuclei."""
    neutral, ratio, ln_sum, molecules, h_minus = _unpack(eq, u)
    positive = logsumexp(jnp.concatenate([neutral + ratio[:, 1], neutral + ratio[:, 2] + np.log(2.0)]))
    particles = logsumexp(jnp.concatenate([neutral + ln_sum, molecules, jnp.stack([u[0], h_minus])]))
    inside = logsumexp(molecules[None], axis=1, b=_ATOMS_PER_MOLECULE)
    nuclei = jnp.logaddexp(neutral[_BOUND] + ln_sum[_BOUND], inside)
    nuclei = nuclei.at[0].set(jnp.logaddexp(nuclei[0], h_minus))  # hydrogen is the first
    return jnp.concatenate(
        [
            jnp.stack([positive - jnp.logaddexp(u[0], h_minus), particles - eq.particles]),
            nuclei - eq.abundance[_BOUND] - u[1],
        ]
    )


def _newton_step(
    eq: _Equilibrium, u: Float[Array, " unknowns"], limit: float
) -> tuple[Float[Array, " unknowns"], Float[Array, "unknowns unknowns"]]:
    """The next iterate, and the inverse of the Jacobian that led there.

    A step that is too long is shortened as a whole: with each component cut by itself, it turns, and in cool
    dense layers goes in circles.
    """
    inverse_jacobian = inverse(jax.jacfwd(lambda v: _residual(eq, v))(u))
    step = inverse_jacobian @ _residual(eq, u)
    return u - step * jnp.minimum(1.0, limit / jnp.maximum(jnp.max(jnp.abs(step)), 1e-9)), inverse_jacobian


def solve_chemistry(
    atoms: AtomicData,
    temperature: Float[Array, ""],
    pressure: Float[Array, ""],
    ln_abundance: Float[Array, " elements"],
    *,
    n_iterations: int = 15,
) -> ChemicalState:
    """Ionisation and molecular equilibrium of one layer; batch with `jax.vmap`.

    Args:
        atoms: partition functions and ionisation energies.
        temperature: K.
        pressure: gas pressure, dyn cm^-2, electrons included.
        ln_abundance: ln n_X / n_H by nuclei (see `abundances`).
        n_iterations: Newton steps, each limited to a factor e^10; 15 reach float32 accuracy from 2000 to
            15000 K and from 10 to 10^6 dyn cm^-2.

    Sources: Saha's equation as in Mihalas (1978, Stellar Atmospheres, eq. 5-14); molecules: Tatum (1966).
    """
    ln_u = atoms.ln_partition(temperature)
    ln_t = jnp.log(temperature)
    kt_ev = BOLTZMANN_EV * temperature
    translation = LN_TRANSLATION_ELECTRON + 1.5 * ln_t
    eq = _Equilibrium(
        saha=np.log(2.0) + translation + ln_u[:, 1:] - ln_u[:, :-1] - atoms.ionisation_energy[:, :2] / kt_ev,
        h_minus=-np.log(4.0) - translation + H_MINUS_AFFINITY / kt_ev,
        molecules=ln_molecular_constants(temperature, ln_u),
        particles=jnp.log(pressure) - np.log(BOLTZMANN) - ln_t,
        abundance=ln_abundance,
    )
    fixed = jax.lax.stop_gradient(eq)
    # Start without molecules: hydrogen's own electrons plus one for each 10^4 nuclei from the metals.
    ln_h = fixed.particles - jnp.log1p(jnp.exp(fixed.abundance[HE]))
    saha = fixed.saha[H, 0]
    ln_e = jnp.logaddexp(ln_h - np.log(1e4), 0.5 * (saha + ln_h) - 0.5 * jnp.logaddexp(0.0, saha - ln_h))
    ln_e = jnp.minimum(ln_e, ln_h - np.log(2.0))
    ln_bound = (fixed.abundance + ln_h - logsumexp(_ln_stages(fixed, ln_e), axis=1))[_BOUND]
    start = jnp.concatenate([jnp.stack([ln_e, ln_h]), ln_bound])
    first = start, jnp.eye(start.size, dtype=start.dtype)
    # The last step, which carries the derivatives, takes the Jacobian of the one before: they have converged.
    u, inverse_jacobian = jax.lax.stop_gradient(
        jax.lax.fori_loop(0, n_iterations, lambda _, state: _newton_step(fixed, state[0], 10.0), first)
    )
    u = u - inverse_jacobian @ _residual(eq, u)

    neutral, ratio, _, molecules, _ = _unpack(eq, u)
    nuclear_mass = jnp.sum(jnp.exp(ln_abundance) * ATOMIC_WEIGHTS) * ATOMIC_MASS
    return ChemicalState(
        electrons=jnp.exp(u[0]),
        ln_populations=neutral[:, None] + ratio - ln_u,
        neutral_hydrogen=jnp.exp(neutral[H]),
        ionised_hydrogen=jnp.exp(neutral[H] + ratio[H, 1]),
        neutral_helium=jnp.exp(neutral[HE]),
        molecular_hydrogen=jnp.exp(molecules[0]),
        density=nuclear_mass * jnp.exp(u[1]),
    )
