"""The synthesis against spectra and finite differences of another code.

    python -m benchmarks.accuracy FOLDER [--every 16] [--no-derivatives]

FOLDER holds `stars.npz` and `derivatives.npz`: normalised fluxes of another code for given labels, with the
model atmosphere used for each star, and its spectra for one label changed at a time. Each star is
synthesised on the other code's own atmosphere, which tests opacities and transfer, and on ours, which adds
the interpolation in the grid: cubic as in all our models, and linear as the reference has it. Derivatives
are those of the linear one, so that they are the same quantity. Lines are as published. Prints rms
differences as they are and at the resolution of GIRAFFE, the largest difference of the continuum, and for
each derivative the correlation with the other code's and the ratio of sizes. Writes them to
`outputs/benchmarks/accuracy.json`. Two seconds a star on two cores, and five minutes for the derivatives.
"""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.ndimage import gaussian_filter1d
from tqdm import tqdm

from jaxspec.instruments import get_instrument
from jaxspec.physics.atmosphere import Atmosphere
from jaxspec.physics.model import StellarModel
from jaxspec.physics.synthesis import Window, chemistry_of, synthesize
from jaxspec.runs import atomically, describe_device, versions

ARMS = {"blue": get_instrument("giraffe").arms[0], "red": get_instrument("giraffe").arms[1]}
ATMOSPHERES = ("theirs", "cubic", "linear")
FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0))


def window_of(table: dict[str, np.ndarray], arm: str) -> Window:
    grid = table[f"wavelength_{arm}"]
    return Window(float(grid[0]), float(grid[-1]), float(np.round(grid[1] - grid[0], 6)))


def at_giraffe(values: np.ndarray, window: Window, arm: str) -> np.ndarray:
    """`values` as the instrument blurs them."""
    centre = 0.5 * (window.low + window.high)
    return gaussian_filter1d(values, centre / ARMS[arm].resolution(centre) / FWHM / window.step)


def compare_flux(table: dict[str, np.ndarray], every: int) -> list[dict[str, Any]]:
    """rms difference of the normalised flux and greatest relative difference of the continuum, star by
    star."""
    rows = []
    for arm in ARMS:
        window = window_of(table, arm)
        cubic, linear = (StellarModel.create((window,), interpolation=kind) for kind in ("cubic", "linear"))

        def theirs(structure, labels, vmic, model=cubic, window=window):
            atmosphere = Atmosphere(structure[:, 0], structure[:, 1], structure[:, 2])
            state = chemistry_of(model.atoms, atmosphere, model.composition(labels))
            return synthesize(model.atoms, model.lines[0], window, atmosphere, state, vmic)

        def ours(structure, labels, vmic, model):
            return model.surface_flux(labels, vmic)

        for name, function in zip(
            ATMOSPHERES, (theirs, partial(ours, model=cubic), partial(ours, model=linear)), strict=True
        ):
            function = jax.jit(function)
            for i in tqdm(
                range(0, len(table["labels"]), every), desc=f"{arm}, atmospheres {name}", unit="star"
            ):
                surface = function(
                    *(jnp.asarray(table[k][i], jnp.float32) for k in ("atm", "labels", "vmic"))
                )
                difference = np.asarray(surface.flux / surface.continuum) - table[f"flux_{arm}"][i]
                nodes = table[f"continuum_wavelength_{arm}"]
                continuum = np.interp(nodes, window.wavelength, np.asarray(surface.continuum))
                rows.append({
                    "star": i, "arm": arm, "atmosphere": name,
                    "rms": rms(difference), "rms_giraffe": rms(at_giraffe(difference, window, arm)),
                    "continuum": float(np.max(np.abs(continuum / table[f"continuum_{arm}"][i] - 1.0))),
                })  # fmt: skip
    return rows


def compare_derivatives(table: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Correlation and ratio of our derivative of the normalised flux with their finite difference, at GIRAFFE
    resolution; `sign == 0` is the star itself, 1 and -1 the two sides of the central difference.

    Where the star lies on a node of the atmospheres, whose slopes change there, each side is held to the
    derivative in its own middle.
    """
    stars, parameters = (table[k].astype(str) for k in ("star", "parameter"))
    names = [*table["label_names"].astype(str), "vmic"]
    rows = []
    for arm in ARMS:
        window = window_of(table, arm)
        model = StellarModel.create((window,), interpolation="linear")

        @jax.jit
        def slope(labels, vmic, direction, model=model):
            return jax.jvp(model, (labels, vmic), (direction[:-1], direction[-1]))[1]

        def flux(row, arm=arm):
            return table[f"flux_{arm}"][row].astype(float)

        for star in dict.fromkeys(stars):
            base = np.flatnonzero((stars == star) & (table["sign"] == 0))[0]
            at = np.append(table["labels"][base], table["vmic"][base]).astype(float)
            for j, name in enumerate(tqdm(names, desc=f"{arm}, derivatives of {star}", unit="label")):
                up, down = (
                    np.flatnonzero((stars == star) & (parameters == name) & (np.sign(table["sign"]) == s))[0]
                    for s in (1, -1)
                )
                step = float(table["step"][up])
                if _on_node(model, name, at[j]):
                    sides = {"+": (up, base, 0.5), "-": (base, down, -0.5)}
                else:
                    sides = {"": (up, down, 0.0)}
                for side, (high, low, middle) in sides.items():
                    direction = np.eye(len(names))[j]
                    point = jnp.asarray(at + middle * step * direction, jnp.float32)
                    ours = slope(point[:-1], point[-1], jnp.asarray(direction, jnp.float32))
                    ours = at_giraffe(np.asarray(ours, float), window, arm)
                    change = (flux(high) - flux(low)) / (step * (1.0 if side else 2.0))
                    theirs = at_giraffe(change, window, arm)
                    rows.append({
                        "star": star, "arm": arm, "parameter": name + side,
                        "largest": float(np.abs(theirs).max()),
                        "correlation": float(np.corrcoef(ours, theirs)[0, 1]),
                        "ratio": float(ours @ theirs / (theirs @ theirs)),
                    })  # fmt: skip
    return rows


def _on_node(model: StellarModel, name: str, value: float) -> bool:
    """Whether the label moves the atmosphere and the grid has a node at `value`."""
    nodes = {"teff": model.grid.teff, "logg": model.grid.logg, "fe_h": model.grid.m_h}
    return name in nodes and bool(np.isclose(nodes[name], value).any())


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(x**2)))


def print_flux(rows: list[dict[str, Any]]) -> None:
    head = "   (median at R of GIRAFFE; continuum)"
    print(f"\n{'rms of the flux, %':<36}{'median':>8}{'95 %':>8}{'worst':>8}{head}")
    for arm in ARMS:
        for atmosphere in ATMOSPHERES:
            chosen = [row for row in rows if row["arm"] == arm and row["atmosphere"] == atmosphere]
            values = 100.0 * np.array([row["rms"] for row in chosen])
            blurred = 100.0 * np.median([row["rms_giraffe"] for row in chosen])
            continuum = 100.0 * max(row["continuum"] for row in chosen)
            print(
                f"{f'{arm}, atmospheres {atmosphere} ({len(chosen)} stars)':<36}{np.median(values):>8.2f}"
                f"{np.percentile(values, 95):>8.2f}{values.max():>8.2f}   ({blurred:.2f}; {continuum:.1f})"
            )


def print_derivatives(rows: list[dict[str, Any]]) -> None:
    print(f"\n{'derivatives':<24}{'correlation':>12}{'ratio':>8}")
    for row in rows:
        name = f"{row['star']} {row['arm']} {row['parameter']}"
        print(f"{name:<24}{row['correlation']:>12.4f}{row['ratio']:>8.3f}")


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Compare, print, write; returns what is written."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--every", type=int, default=16, help="every so-manieth star")
    parser.add_argument("--no-derivatives", dest="derivatives", action="store_false")
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmarks/accuracy.json"))
    args = parser.parse_args(arguments)
    report = {"device": describe_device(), "versions": versions(), "reference": str(args.folder)}
    report["flux"] = compare_flux(dict(np.load(args.folder / "stars.npz")), args.every)
    print_flux(report["flux"])
    if args.derivatives:
        report["derivatives"] = compare_derivatives(dict(np.load(args.folder / "derivatives.npz")))
        print_derivatives(report["derivatives"])
    args.output.parent.mkdir(parents=True, exist_ok=True)
    atomically(args.output, lambda p: p.write_text(json.dumps(report, indent=2) + "\n"))
    print(f"\n{args.output}")
    return report


if __name__ == "__main__":
    main()
