"""Continuous absorption and scattering coefficients of a stellar photosphere between 3000 A and 2 micron.

Each term returns cm^-1 for one wavelength and one layer; batch with `jax.vmap`. Of the metals' bound-free
absorption that of Mg I, Al I and Si I is here, up to a tenth of the whole in the optical where metals abound;
that of Fe I and others, which matters below 4000 A, is left out.
"""

import operator
from functools import cache, reduce
from importlib import resources

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxspec.physics.chemistry import H_MINUS_AFFINITY, ChemicalState
from jaxspec.physics.constants import BOHR_RADIUS, BOLTZMANN, BOLTZMANN_EV, SPEED_OF_LIGHT, THOMSON

HC_OVER_K_ANGSTROM = 1.438776877e8  # A K
HC_EV_ANGSTROM = 12398.4198
RYDBERG_ANGSTROM = 1.0967758e-3  # hydrogen, A^-1
RYDBERG_EV = 13.598434

# John (1988, A&A 193, 189), table 2 (bound-free) and table 3a, 3b (free-free, above and below 0.3645 micron).
H_MINUS_BOUND_FREE = np.array([152.519, 49.534, -118.858, 92.536, -34.194, 4.982])
H_MINUS_FREE_FREE = np.array(
    [
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        [2483.346, 285.827, -2054.291, 2827.776, -1341.537, 208.952],
        [-3449.889, -1158.382, 8746.523, -11485.632, 5303.609, -812.939],
        [2200.040, 2427.719, -13651.105, 16755.524, -7510.494, 1132.738],
        [-696.271, -1841.400, 8624.970, -10051.530, 4400.067, -655.020],
        [88.283, 444.517, -1863.864, 2095.288, -901.788, 132.985],
    ]
)
H_MINUS_FREE_FREE_SHORT = np.array(
    [
        [518.1021, -734.8666, 1021.1775, -479.0721, 93.1373, -6.4285],
        [473.2636, 1443.4137, -1977.3395, 922.3575, -178.9275, 12.3600],
        [-482.2089, -737.1616, 1096.8827, -521.1341, 101.7963, -7.0571],
        [115.5291, 169.6374, -245.6490, 114.2430, -21.9972, 1.5097],
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    ]
)


def h_minus(
    wavelength: Float[Array, ""], temperature: Float[Array, ""], state: ChemicalState
) -> Float[Array, ""]:
    """H- bound-free and free-free absorption (John 1988, eqs. 3-6), stimulated emission included."""
    micron = wavelength * 1e-4
    x = jnp.maximum(1.0 / micron - 1.0 / 1.6419, 1e-6)
    shape = jnp.polyval(jnp.asarray(H_MINUS_BOUND_FREE[::-1]), jnp.sqrt(x))
    cross_section = jnp.where(micron < 1.6419, 1e-18 * micron**3 * x**1.5 * shape, 0.0)
    electron_pressure = state.electrons * BOLTZMANN * temperature
    stimulated = -jnp.expm1(-HC_OVER_K_ANGSTROM / (wavelength * temperature))
    # 0.750 T^-2.5 exp(E/kT) is n_H- / (n_H Pe) of John's eq. 3, with the affinity in the exponent.
    bound_free = (
        0.750 * temperature**-2.5 * jnp.exp(H_MINUS_AFFINITY / (BOLTZMANN_EV * temperature)) * stimulated
    )
    table = jnp.where(micron >= 0.3645, H_MINUS_FREE_FREE, H_MINUS_FREE_FREE_SHORT)
    powers = jnp.stack([micron**2, jnp.ones_like(micron), micron**-1, micron**-2, micron**-3, micron**-4])
    theta = (5040.0 / temperature) ** (np.arange(2, 8) / 2)
    free_free = (table @ powers) @ theta
    # Scale by 1e-19 twice: 1e-29 times a small cross-section would leave float32's range.
    return (
        (bound_free * cross_section * 1e19 + 1e-10 * free_free)
        * (state.neutral_hydrogen * 1e-19)
        * electron_pressure
    )


def occupation_probability(n, temperature: Float[Array, "..."], state: ChemicalState) -> Array:
    """Probability that level `n` of hydrogen is not dissolved by its neighbours: charged and neutral ones.

    Hummer & Mihalas (1988, ApJ 331, 794): charged in the form of Hubeny, Hummer & Lanz (1994, A&A 282, 151),
    app. A; neutral as hard spheres (eq. 4.71), hydrogen and helium in their ground states.
    """
    k = jnp.where(n > 3, 16.0 / 3.0 * n / (n + 1.0) ** 2, 1.0)
    beta = 8.3e14 * k / n**4 / jnp.cbrt(state.electrons) ** 2
    a = 0.09 * state.electrons ** (1 / 6) / jnp.sqrt(temperature)
    x = (1 + a) ** 3.15
    # w = f / (1 + f) with f = 0.1402 (x + 4 a^3) beta^3 / (1 + 0.1285 x beta^1.5), written with 1 / f: beta^3
    # and its derivative leave float32's range where electrons are few.
    q = beta**-1.5
    inverse_f = q * (q + 0.1285 * x) / (0.1402 * (x + 4 * a**3))
    radius = BOHR_RADIUS * n * jnp.sqrt((5.0 * n**2 + 1.0) / 2.0)  # rms distance of the electron, s states
    volume_h, volume_he = ((radius + r * BOHR_RADIUS) ** 3 for r in (np.sqrt(3.0), 1.02))
    neighbours = 4.0 / 3.0 * np.pi * (volume_h * state.neutral_hydrogen + volume_he * state.neutral_helium)
    return jnp.exp(-neighbours) / (1 + inverse_f)


def hydrogen(
    wavelength: Float[Array, ""], temperature: Float[Array, ""], state: ChemicalState
) -> Float[Array, ""]:
    """H I bound-free (levels 1-20 and an integral above) and free-free.

    Kramers' cross-sections with the Gaunt factors of Gray (2005), eqs. 8.6 and 8.9. Beyond a level's edge its
    absorption goes on into the states that are dissolved (Daeppen, Anderson & Mihalas 1987).
    """
    stimulated = -jnp.expm1(-HC_OVER_K_ANGSTROM / (wavelength * temperature))
    x = wavelength * RYDBERG_ANGSTROM
    third = 0.3456 / jnp.cbrt(x)
    n = np.arange(1, 21)
    edge = n**2 / RYDBERG_ANGSTROM
    gaunt = 1.0 - third * (x / n**2 - 0.5)
    kt = BOLTZMANN_EV * temperature
    energy = RYDBERG_EV * (1 - 1.0 / n**2)
    # n_H I / U = n / 2; level population 2 n^2 exp(-E/kT).
    level = 1.0 / jnp.sqrt(jnp.maximum(1.0 / n**2 - 1.0 / x, 1e-6))  # where the photon ends, beyond the edge
    dissolved = 1.0 - occupation_probability(jnp.maximum(level, n + 1.0), temperature, state)
    dissolved = jnp.where(wavelength <= edge, 1.0, jnp.where(level > n + 1.5, dissolved, 0.0))
    cross_section = 7.91e-18 * n * (wavelength / edge) ** 3 * jnp.maximum(gaunt, 0.0) * dissolved
    present = occupation_probability(n, temperature, state)
    bound_free = jnp.sum(n**2 * jnp.exp(-energy / kt) * present * cross_section)
    # Levels above 20 as a continuum (Unsoeld): sum over n of n^-3 exp(-E_n/kT) -> kT/(2 Ry) (e^{-E_21/kT} ..
    # e^{-chi/kT}).
    tail = 7.91e-18 * (wavelength * RYDBERG_ANGSTROM) ** 3 * kt / (2 * RYDBERG_EV)
    tail = tail * jnp.exp(-RYDBERG_EV / kt) * jnp.expm1(RYDBERG_EV / kt / 20.5**2)
    gaunt_free = 1.0 + third * (wavelength * temperature / HC_OVER_K_ANGSTROM + 0.5)
    frequency = SPEED_OF_LIGHT * 1e8 / wavelength
    # 3.692e8 n_e n_p T^-1/2 nu^-3, in an order that float32 holds.
    scale = 3.692e8 / jnp.sqrt(temperature)
    free_free = scale * (state.electrons / frequency) * (state.ionised_hydrogen / frequency) / frequency
    return (state.neutral_hydrogen * (bound_free + tail) + free_free * gaunt_free) * stimulated


def helium_minus(
    wavelength: Float[Array, ""], temperature: Float[Array, ""], state: ChemicalState
) -> Float[Array, ""]:
    """He- free-free: the fit of ATLAS (Kurucz 1970, SAO 309) to Carbon, Gingerich & Latham (1969)."""
    f = SPEED_OF_LIGHT * 1e8 / wavelength * 1e-15
    a = 3.397e-6 + (-5.216e-6 + 7.039e-5 / f) / f
    b = -4.116e-2 + (1.067e-1 + 8.135e-1 / f) / f
    c = 5.081e3 + (-8.724e2 - 5.659e2 / f) / f
    return (
        (a * temperature + b + c / temperature) * (state.electrons * 1e-20) * (state.neutral_helium * 1e-20)
    )


def h2_plus(
    wavelength: Float[Array, ""], temperature: Float[Array, ""], state: ChemicalState
) -> Float[Array, ""]:
    """H2+ bound-free and free-free below 3.3e15 Hz (Bates 1952, MNRAS 112, 40; fit of ATLAS, Kurucz 1970)."""
    frequency = SPEED_OF_LIGHT * 1e8 / wavelength
    ln_f = jnp.log(frequency)
    f15 = frequency * 1e-15
    ln_cross = -3.0233e3 + (3.7797e2 + (-1.82496e1 + (3.9207e-1 - 3.1672e-3 * ln_f) * ln_f) * ln_f) * ln_f
    energy = -7.342e-3 + (-2.409 + (1.028 + (-0.4230 + (0.1224 - 0.01351 * f15) * f15) * f15) * f15) * f15
    stimulated = -jnp.expm1(-HC_OVER_K_ANGSTROM / (wavelength * temperature))
    ln_density = jnp.log(state.neutral_hydrogen) + jnp.log(state.ionised_hydrogen)
    return jnp.exp(-energy / (BOLTZMANN_EV * temperature) + ln_cross + ln_density) * stimulated


@cache
def _bound_free() -> dict[str, np.ndarray]:
    with resources.as_file(resources.files("jaxspec.physics.data") / "bound_free.npz") as path:
        return dict(np.load(path))


def metals(
    wavelength: Float[Array, ""], temperature: Float[Array, ""], state: ChemicalState
) -> Float[Array, ""]:
    """Bound-free absorption by Mg I, Al I and Si I: cross-sections of the Opacity Project, levels in LTE.

    TOPbase (Cunto et al. 1993, A&A 275, L5), smoothed over 3 % of the wavelength; see `data/build.py`.
    """
    table = _bound_free()
    across = _linear_weights(jnp.log(wavelength), table["ln_wavelength"])
    along = _linear_weights(5040.0 / temperature, table["theta"])
    ln_cross_section = jnp.einsum("ewt,w,t->e", jnp.asarray(table["ln_cross_section"]), across, along)
    stimulated = -jnp.expm1(-HC_OVER_K_ANGSTROM / (wavelength * temperature))
    return jnp.sum(jnp.exp(state.ln_populations[table["element"], 0] + ln_cross_section)) * stimulated


def _linear_weights(x: Float[Array, ""], nodes: Float[np.ndarray, " nodes"]) -> Float[Array, " nodes"]:
    """Weights of uniform nodes in linear interpolation at x, which is held beyond the ends."""
    x = jnp.clip(x, nodes[0], nodes[-1])
    return jnp.maximum(1.0 - jnp.abs(x - nodes.astype(np.float32)) / (nodes[1] - nodes[0]), 0.0)


def absorption(
    wavelength: Float[Array, ""], temperature: Float[Array, ""], state: ChemicalState
) -> Float[Array, ""]:
    """True continuous absorption, cm^-1, at `wavelength` (A) in a layer of `temperature` (K)."""
    terms = (h_minus, hydrogen, helium_minus, h2_plus, metals)
    return reduce(operator.add, (term(wavelength, temperature, state) for term in terms))


def scattering(wavelength: Float[Array, ""], state: ChemicalState) -> Float[Array, ""]:
    """Thomson and Rayleigh scattering, cm^-1.

    H I: Dalgarno (1962); He I and H2: Dalgarno & Williams (1962); fits as in ATLAS (Kurucz 1970, SAO 309).
    """
    w2 = wavelength**2
    rayleigh_h = (5.799e-13 + (1.422e-6 + 2.784 / w2) / w2) / w2 / w2
    rayleigh_he = 5.484e-14 / w2 / w2 * (1.0 + (2.44e5 + 5.94e10 / (w2 - 2.90e5)) / w2) ** 2
    rayleigh_h2 = (8.14e-13 + (1.28e-6 + 1.61 / w2) / w2) / w2 / w2
    return (
        THOMSON * state.electrons
        + rayleigh_h * state.neutral_hydrogen
        + rayleigh_he * state.neutral_helium
        + rayleigh_h2 * state.molecular_hydrogen
    )
