"""How well the grid of atmospheres predicts one of its own models, linear and cubic.

    python -m benchmarks.interpolation [--nodes 12] [--no-flux]

For nodes inside the grid, the grid is thinned in one dimension to every second node, the node itself left
out, and asked for it: a prediction in the middle of a cell twice as wide as the grid's. In the middle of the
grid's own cells the linear error is about a quarter of the one printed here, and the cubic one less than
that where the models change smoothly; both fall to nothing at the nodes. [alpha/M] has kinks at [M/H] = -1
and 0, at which no smooth interpolation in [M/H] can be right.

Prints the median over nodes of the rms errors of T and of log10 P between Rosseland depths (a few models
differ abruptly from their neighbours where convection sets in; the file has all), and of the normalised
flux of 5 A of HR10 and 8 A of HR21, with nothing but thermal broadening, damping and microturbulence and at
the resolution of GIRAFFE. Writes them to `outputs/benchmarks/interpolation.json`. Some three minutes on two
cores.
"""

import argparse
import json
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from benchmarks.accuracy import at_giraffe, rms
from jaxspec.physics.atmosphere import Atmosphere, AtmosphereGrid
from jaxspec.physics.chemistry import AtomicData, abundances
from jaxspec.physics.lines import LineList
from jaxspec.physics.model import LINE_MARGIN
from jaxspec.physics.synthesis import Window, chemistry_of, synthesize
from jaxspec.runs import atomically, describe_device, versions

DIMENSIONS = ("teff", "logg", "m_h")
METHODS = ("linear", "cubic")
WINDOWS = {"blue": Window(5402.0, 5407.0, 0.02), "red": Window(8538.0, 8546.0, 0.02)}
LOG_TAU = -6.875 + 0.125 * np.arange(72)  # of the layers of every model
REGIONS = {"< -4": (-9.0, -4.0), "-4..-2": (-4.0, -2.0), "-2..0": (-2.0, 0.0), "> 0": (0.0, 9.0)}
VMIC = 1.5  # km/s


def sample_nodes(n: int, filled: np.ndarray) -> list[tuple[int, int, int]]:
    """`n` nodes spread over the grid's inside, at most two steps from which no model is missing."""
    inside = []
    for node in np.ndindex(*(size - 4 for size in filled.shape)):
        around = tuple(slice(i, i + 5) for i in node)
        if not filled[around].any():
            inside.append(tuple(i + 2 for i in node))
    chosen = np.random.default_rng(0).permutation(len(inside))[:n]
    return [inside[i] for i in sorted(chosen)]


def thinned(grid: AtmosphereGrid, node: tuple[int, int, int], dimension: int, method: str) -> AtmosphereGrid:
    """Every second node along one dimension, without `node`."""
    keep = [slice(None)] * 3
    keep[dimension] = slice(1 - node[dimension] % 2, None, 2)
    axes = [getattr(grid, name)[k] for name, k in zip(DIMENSIONS, keep, strict=True)]
    return AtmosphereGrid(*axes, grid.log_structure[tuple(keep)], method)


def normalised_flux(window: Window):
    """(atmosphere, [M/H]) -> normalised flux, compiled."""
    atoms = AtomicData.load()
    lines = LineList.load(window.low - LINE_MARGIN, window.high + LINE_MARGIN)

    @jax.jit
    def flux(atmosphere: Atmosphere, m_h):
        state = chemistry_of(atoms, atmosphere, abundances(m_h))
        surface = synthesize(atoms, lines, window, atmosphere, state, jnp.float32(VMIC))
        return surface.flux / surface.continuum

    return flux


def compare(nodes: list[tuple[int, int, int]], flux: bool) -> list[dict[str, Any]]:
    """Errors of each node's prediction by dimension and method."""
    grid, rows = AtmosphereGrid.load(), []
    fluxes = {arm: normalised_flux(window) for arm, window in WINDOWS.items()} if flux else {}
    for node in tqdm(nodes, unit="node"):
        labels = [jnp.float32(getattr(grid, name)[i]) for name, i in zip(DIMENSIONS, node, strict=True)]
        truth = grid(*labels)
        true_flux = {arm: np.asarray(f(truth, labels[2]), float) for arm, f in fluxes.items()}
        for dimension, name in enumerate(DIMENSIONS):
            for method in METHODS:
                found = thinned(grid, node, dimension, method)(*labels)
                row = {
                    "node": [float(x) for x in labels], "dimension": name, "method": method,
                    "temperature": by_region(found.temperature - truth.temperature),
                    "log_pressure": by_region(jnp.log10(found.pressure / truth.pressure)),
                }  # fmt: skip
                for arm, f in fluxes.items():
                    difference = np.asarray(f(found, labels[2]), float) - true_flux[arm]
                    row[f"flux_{arm}"] = rms(difference)
                    row[f"flux_{arm}_giraffe"] = rms(at_giraffe(difference, WINDOWS[arm], arm))
                rows.append(row)
    return rows


def by_region(error) -> dict[str, float]:
    """rms of a layer's error between Rosseland depths."""
    error = np.asarray(error, float)
    return {name: rms(error[(low <= LOG_TAU) & (high > LOG_TAU)]) for name, (low, high) in REGIONS.items()}


def print_table(rows: list[dict[str, Any]]) -> None:
    fluxes = [key for key in rows[0] if key.startswith("flux")]
    columns = [f"T {name}" for name in REGIONS] + [f"P {name}" for name in REGIONS]
    columns += [key.removeprefix("flux_") for key in fluxes]
    print("\nmedian of rms; T in K and log10 P in 0.001 dex by log10 of the Rosseland depth; flux in 0.0001")
    print(f"{'at twice the spacing in':<24}" + "".join(f"{column:>13}" for column in columns))
    for dimension in DIMENSIONS:
        for method in METHODS:
            chosen = [r for r in rows if (r["dimension"], r["method"]) == (dimension, method)]
            values = [np.median(np.array([r["temperature"][name] for r in chosen])) for name in REGIONS]
            values += [
                1e3 * np.median(np.array([r["log_pressure"][name] for r in chosen])) for name in REGIONS
            ]
            values += [1e4 * np.median(np.array([r[key] for r in chosen])) for key in fluxes]
            print(f"{f'{dimension}, {method}':<24}" + "".join(f"{value:>13.2f}" for value in values))


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Compare, print, write; returns what is written."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=12)
    parser.add_argument("--no-flux", dest="flux", action="store_false", help="the structures alone")
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmarks/interpolation.json"))
    args = parser.parse_args(arguments)
    with resources.as_file(resources.files("jaxspec.physics.data") / "atlas9.npz") as path:
        filled = np.load(path)["filled"].any(axis=3)
    rows = compare(sample_nodes(args.nodes, filled), args.flux)
    print_table(rows)
    report = {"device": describe_device(), "versions": versions(), "rows": rows}
    atomically(args.output, lambda p: p.write_text(json.dumps(report, indent=2) + "\n"))
    print(f"\n{args.output}")
    return report


if __name__ == "__main__":
    main()
