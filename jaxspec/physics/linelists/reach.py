"""How strong and how wide the lines of a list get in stars: to what distance each must be computed.

A line is followed to where its opacity falls to `REACH_RATIO` of the continuous opacity, in the star of
`EXTREME_STARS` and the layer where that is farthest. So a weak line costs a few pixels, and the wings of the
Ca II triplet are complete: tens of A.
"""

from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from tqdm import tqdm

from jaxspec.physics import continuum_opacity, transfer
from jaxspec.physics.atmosphere import AtmosphereGrid
from jaxspec.physics.chemistry import AtomicData, ChemicalState, abundances
from jaxspec.physics.lines import LineList, line_strengths
from jaxspec.physics.synthesis import chemistry_of
from jaxspec.physics.voigt import voigt

# Where a line may be strongest or widest in the label range; every [X/Fe] at +0.8.
EXTREME_STARS = [
    (teff, logg, fe_h)
    for teff, logg in ((4000, 0.5), (4000, 2), (4000, 5), (4500, 1.5), (4500, 4.8), (5000, 2.5), (5000, 4.6),
                       (5777, 4.4), (5777, 3), (6400, 4), (7000, 4.2), (7000, 3))
    for fe_h in (0.5, -1.0)
]  # fmt: skip
ENHANCED = (12, 13, 14, 20, 22, 28)  # atomic numbers
VMIC = 1.5  # km/s
REACH_RATIO = 1e-3  # of line to continuous opacity, where a line's wing ends
SMALLEST_REACH = 0.25  # A
SEEN = (0.03, 1.5)  # optical depths of the continuum between which a line's centre is seen
WIDE = (1e-3, 1.5)  # likewise its wings
MARGIN = 1.2
CHUNK = 1024  # lines at once
NODE_RATIO = 1.1  # between the wavelengths for which the continuum is computed


class _Gas(NamedTuple):
    """Layers of all the stars, one after the other."""

    temperature: Float[Array, " layers"]
    state: ChemicalState


@cache
def _stars() -> tuple[list, AtomicData]:
    """Atmosphere and chemical state of each extreme star."""
    atoms, grid = AtomicData.load(), AtmosphereGrid.load()

    @jax.jit
    def star(teff, logg, fe_h):
        atmosphere = grid(teff, logg, fe_h)
        composition = abundances(fe_h, {z: fe_h + 0.8 for z in ENHANCED})
        return atmosphere, chemistry_of(atoms, atmosphere, composition)

    return [star(*map(jnp.float32, parameters)) for parameters in EXTREME_STARS], atoms


@jax.jit
def _continuum(wavelength, atmosphere, state):
    """Continuous opacity (cm^-1) and optical depth of every layer at one wavelength (A)."""

    def layer(t, s):
        return continuum_opacity.absorption(wavelength, t, s) + continuum_opacity.scattering(wavelength, s)

    total = jax.vmap(layer)(atmosphere.temperature, state)
    return total, jnp.cumsum(transfer.optical_depth(total / state.density, atmosphere.column_mass))


@cache
def _layers(
    node: float, thin: int
) -> tuple[_Gas, Float[np.ndarray, " layers"], Float[np.ndarray, " layers"]]:
    """The layers in which lines near wavelength `node` (A) form, with the continuum's opacity and depth."""
    stars, _ = _stars()
    found = [_continuum(jnp.float32(node), atmosphere, state) for atmosphere, state in stars]
    opacity, depth = (np.concatenate([np.asarray(x[i]) for x in found]) for i in (0, 1))
    # One and the same number of layers for every node, so that nothing is compiled anew.
    order = np.argsort(np.where((depth > WIDE[0]) & (depth < WIDE[1]), 0, 1), kind="stable")
    order = np.sort(order[: len(depth) // 2])[::thin]
    temperature = jnp.concatenate([atmosphere.temperature for atmosphere, _ in stars])
    state = jax.tree.map(lambda *x: jnp.concatenate(x), *(state for _, state in stars))
    return _Gas(*jax.tree.map(lambda x: x[order], (temperature, state))), opacity[order], depth[order]


def continuum_nodes(wavelength: Float[np.ndarray, " lines"]) -> tuple[float, ...]:
    """Wavelengths (A) in steps of `NODE_RATIO`, one of them near each line."""
    steps = np.unique(np.round(np.log(wavelength / 5000.0) / np.log(NODE_RATIO)))
    return tuple((5000.0 * NODE_RATIO**steps).tolist())


def line_reach(lines: LineList) -> Float[np.ndarray, " lines"]:
    """To what distance (A) each line is to be computed, at least `SMALLEST_REACH`.

    From a third of the layers, where it is up to a sixth less than among all of them, which `MARGIN` makes up
    for.
    """
    _, reach = _extremes(lines, continuum_nodes(lines.wavelength), thin=3, strength=False)
    return np.maximum(np.float32(MARGIN) * reach, np.float32(SMALLEST_REACH))


def strength_and_reach(
    lines: LineList, nodes: tuple[float, ...]
) -> tuple[Float[np.ndarray, " lines"], Float[np.ndarray, " lines"]]:
    """How strong and how wide each line gets among the extreme stars.

    Returns the largest ratio of line to continuous opacity, and the distance (A) where it is `REACH_RATIO`.
    The continuum is that at the nearest of `nodes` (A).
    """
    return _extremes(lines, nodes, thin=1, strength=True)


def _extremes(
    lines: LineList, nodes: tuple[float, ...], thin: int, strength: bool
) -> tuple[np.ndarray, np.ndarray]:
    nearest = np.argmin(np.abs(lines.wavelength[:, None] - np.array(nodes)), axis=1)
    strongest, reach = np.zeros((2, len(lines)), np.float32)
    parts = []
    for j in range(len(nodes)):
        index = np.flatnonzero(nearest == j)
        parts += [(nodes[j], index[i : i + CHUNK]) for i in range(0, len(index), CHUNK)]
    for node, part in tqdm(parts, desc="reach of lines", disable=None if len(parts) > 100 else True):
        # A full chunk, so that nothing is compiled anew; the last line stands in for those missing.
        full = lines[np.pad(part, (0, CHUNK - len(part)), mode="edge")]
        gas, continuum, depth = _layers(node, thin)
        found = line_strengths(full, _stars()[1], gas.temperature, gas.state, jnp.float32(VMIC))
        ratio = found.opacity / continuum
        if strength:
            central = ratio * voigt(found.damping, jnp.zeros_like(found.damping))
            seen = (depth > SEEN[0]) & (depth < SEEN[1])
            strongest[part] = np.max(np.where(seen, np.asarray(central), 0), axis=1)[: len(part)]
        wing = jnp.sqrt(ratio * found.damping / (np.sqrt(np.pi) * REACH_RATIO))
        core = jnp.sqrt(jnp.log(jnp.maximum(ratio / REACH_RATIO, 1.0)))
        distance = jnp.maximum(wing, core) * found.doppler * full.wavelength.astype(np.float32)[:, None]
        wide = (depth > WIDE[0]) & (depth < WIDE[1])
        reach[part] = np.max(np.where(wide, np.asarray(distance), 0), axis=1)[: len(part)]
    return strongest, reach
