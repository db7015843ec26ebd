"""Seconds a synthetic spectrum and its derivatives take, and the same spectrum by PySME in the same run.

    pip install "jaxspec[bench]"
    python -m benchmarks.synthesis [--cores 1] [--step 0.02] [--no-peer]

Dwarfs and giants of three metallicities in both GIRAFFE windows, unbroadened. PySME (Wehrhahn, Piskunov &
Ryabchikova 2023, A&A 671, A171) gets the very lines, atmospheres, abundances and wavelengths; its adaptive
grid and line selection are left at their defaults. Compilation is stated apart; what PySME does only once
for a line list is in its first call and is not counted either. Beside the ratio of speeds stands the rms
difference of the normalised fluxes: two codes that differ in continuous opacities and hydrogen. Prints a
table and writes `outputs/benchmarks/synthesis.json`. Ten minutes.
"""

import argparse
import contextlib
import json
import os
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.accuracy import rms
from benchmarks.throughput import measure
from jaxspec.physics.chemistry import ChemicalState
from jaxspec.physics.constants import BOLTZMANN
from jaxspec.physics.hydrogen import hydrogen_lines
from jaxspec.physics.jacobian import flux_and_jacobian
from jaxspec.physics.lines import van_der_waals_width
from jaxspec.physics.model import StellarModel
from jaxspec.physics.synthesis import Window, chemistry_of
from jaxspec.runs import atomically, describe_device, versions

RANGES = ((5330.0, 5610.0), (8480.0, 8980.0))
# teff, logg, [Fe/H] = [X/H], vmic
STARS = {
    "Sun": (5777.0, 4.44, 0.0, 1.0),
    "dwarf, [Fe/H] -1": (5700.0, 4.4, -1.0, 1.0),
    "turn-off, [Fe/H] -2": (6200.0, 4.2, -2.0, 1.2),
    "giant": (4600.0, 2.2, 0.0, 1.4),
    "giant, [Fe/H] -1": (4700.0, 1.9, -1.0, 1.5),
    "giant, [Fe/H] -2": (4900.0, 1.7, -2.0, 1.7),
}


def labels_of(star: str) -> tuple[jax.Array, jax.Array]:
    teff, logg, m_h, vmic = STARS[star]
    return jnp.asarray([teff, logg] + [m_h] * 7, jnp.float32), jnp.float32(vmic)


def bench_jaxspec(
    model: StellarModel, batch: int, repeats: int
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Seconds of one spectrum, of one in a batch, and of one with derivatives; the spectra."""
    # Closures: where lines stand shapes the program.
    single = jax.jit(lambda labels, vmic: model(labels, vmic))
    many = jax.jit(lambda labels, vmic: jax.lax.map(lambda star: model(*star), (labels, vmic)))

    with_derivatives = jax.jit(lambda labels, vmic: flux_and_jacobian(model, labels, vmic))

    labels, vmic = labels_of("Sun")
    stars = jnp.broadcast_to(labels, (batch, labels.size)), jnp.broadcast_to(vmic, batch)
    report = {}
    for name, call, n in (
        ("spectrum", lambda: single(labels, vmic), 1),
        (f"spectrum in a batch of {batch}", lambda: many(*stars), batch),
        ("spectrum and its ten derivatives", lambda: with_derivatives(labels, vmic), 1),
    ):
        first, steady = measure(call, repeats if n == 1 else 1)
        report[name] = {"seconds": steady / n, "compile_seconds": first - steady}
    return report, {star: np.asarray(single(*labels_of(star)), float) for star in STARS}


def bench_peer(model: StellarModel, repeats: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The same by PySME."""
    spectra, seconds, first = {}, [], 0.0
    with peer() as (make_structure, synthesizer):
        for star in STARS:
            structure = make_structure(model, *labels_of(star))
            for k in range(1 + repeats):
                begun = time.perf_counter()
                structure = synthesizer.synthesize_spectrum(structure)
                if k or repeats == 0:
                    seconds.append(time.perf_counter() - begun)
                elif not spectra:
                    first = time.perf_counter() - begun
            spectra[star] = np.concatenate([np.asarray(x, float) for x in structure.synth])
    steady = float(np.median(seconds))
    return {"PySME": {"seconds": steady, "compile_seconds": max(first - steady, 0.0)}}, spectra


@contextlib.contextmanager
def peer():
    """PySME with its settings in a folder of its own, and a function that describes a star to it."""
    home = os.environ.get("HOME")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.environ["HOME"] = folder  # it writes its settings there when it is imported
        try:
            import pandas as pd
            from pysme.abund import Abund
            from pysme.abund import elements as their_elements
            from pysme.atmosphere.atmosphere import Atmosphere
            from pysme.linelist.linelist import LineList
            from pysme.sme import SME_Structure
            from pysme.synthesize import Synthesizer

            def lines(model: StellarModel) -> Any:
                return pd.DataFrame(line_table(model, their_elements))

            def make_structure(model: StellarModel, labels: jax.Array, vmic: jax.Array) -> Any:
                teff, logg, _ = (float(x) for x in model.label_set.stellar(labels))
                composition = model.composition(labels)
                atmosphere = model.grid(*model.label_set.stellar(labels))
                state = jax.jit(chemistry_of)(model.atoms, atmosphere, composition)
                ours = np.asarray(composition, float) / np.log(10.0) + 12.0
                known = dict(zip(their_elements, np.where(ours > -5.0, ours, np.nan), strict=False))
                pattern = {element: known.get(element, np.nan) for element in their_elements}
                temperature = np.asarray(atmosphere.temperature, float)
                electrons = np.asarray(state.electrons, float)
                structure = SME_Structure()
                structure.teff, structure.logg, structure.monh, structure.vmic = teff, logg, 0.0, float(vmic)
                structure.vmac, structure.vsini, structure.medium = 0.0, 0.0, "air"
                structure.abund = Abund(0.0, pattern, type="H=12")
                structure.linelist = LineList(lines(model), lineformat="short", medium="air")
                structure.atmo = Atmosphere(
                    teff=teff, logg=logg, abund=pattern, abund_format="H=12", vturb=float(vmic),
                    rhox=np.asarray(atmosphere.column_mass, float), temp=temperature,
                    rho=np.asarray(state.density, float), xne=electrons,
                    xna=np.asarray(atmosphere.pressure, float) / (BOLTZMANN * temperature) - electrons,
                    depth="RHOX", interp="RHOX", geom="PP", method="embedded",
                )  # fmt: skip
                structure.wran = [[window.low, window.high] for window in model.windows]
                structure.wave = [window.wavelength for window in model.windows]
                structure.vrad_flag = structure.cscale_flag = "none"
                return structure

            yield make_structure, Synthesizer()
        finally:
            os.environ["HOME"] = home or ""


def line_table(model: StellarModel, symbols: Sequence[str]) -> dict[str, Any]:
    """The model's lines in PySME's columns, hydrogen with its two quantum numbers in place of widths.

    A line that has Unsoeld's width times a factor is given that width at 10,000 K: both codes scale it with
    T^0.3 from there.
    """
    names = "species wlcent excit gflog gamrad gamqst gamvw atom_number ionization".split()
    columns: dict[str, list] = {name: [] for name in names}

    def add(*values):
        for column, value in zip(columns.values(), values, strict=True):
            column.append(value)

    hot, nothing = jnp.full(1, 1e4), jnp.zeros(1)
    gas = ChemicalState(
        electrons=nothing, ln_populations=jnp.zeros((1, 92, 3)), neutral_hydrogen=jnp.ones(1),
        ionised_hydrogen=nothing, neutral_helium=nothing, molecular_hydrogen=nothing, density=nothing,
    )  # fmt: skip
    for lines in model.lines:
        width = np.log10(np.asarray(van_der_waals_width(lines, model.atoms, hot, gas))[:, 0])
        for i in range(len(lines)):
            stage, damping = int(lines.stage[i]) + 1, float(lines.damping[i])
            radiative = np.log10(lines.gamma_rad[i]) if lines.gamma_rad[i] > 0 else 0.0
            widths = float(radiative), 0.0, damping if damping > 20 else float(width[i])
            species = f"{symbols[lines.element[i]]} {stage}"
            place = float(lines.wavelength[i]), float(lines.energy[i]), float(lines.log_gf[i])
            add(species, *place, *widths, 1.0, float(stage))
    for window in model.windows:
        for line in hydrogen_lines(window.low, window.high):
            energy = 13.598434 * (1.0 - 1.0 / line.lower**2)
            log_gf = float(np.log10(2.0 * line.lower**2 * line.oscillator_strength))
            add("H 1", line.wavelength, energy, log_gf, 0.0, float(line.lower), float(line.upper), 1.0, 1.0)
    order = np.argsort(columns["wlcent"], kind="stable")
    return {name: [values[i] for i in order] for name, values in columns.items()}


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Run, print, write; returns what is written."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cores", type=int, default=None, help="CPU cores to use; default: all")
    parser.add_argument("--step", type=float, default=0.02, help="pixels, A")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-peer", dest="peer", action="store_false", help="without PySME")
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmarks/synthesis.json"))
    args = parser.parse_args(arguments)
    if args.cores is not None:
        os.sched_setaffinity(
            0, sorted(os.sched_getaffinity(0))[: args.cores]
        )  # before JAX starts its threads
    model = StellarModel.create(tuple(Window(low, high, args.step) for low, high in RANGES))
    rows, ours = bench_jaxspec(model, args.batch, args.repeats)
    report = {
        "device": describe_device(), "cores": len(os.sched_getaffinity(0)), "versions": versions(),
        "pixels": len(model.wavelength), "lines": sum(len(lines) for lines in model.lines), "rows": rows,
    }  # fmt: skip
    print(f"{report['device']}, {report['cores']} used; {report['pixels']} pixels, {report['lines']} lines\n")
    if args.peer:
        more, theirs = bench_peer(model, args.repeats)
        rows |= more
        split = np.cumsum([len(window.wavelength) for window in model.windows])[:-1]
        report["rms_to_peer"] = {
            star: [rms(part) for part in np.split(ours[star] - theirs[star], split)] for star in STARS
        }
    print(f"{'':<34}{'seconds':>9}{'first call +':>14}{'x PySME':>9}")
    for name, row in rows.items():
        row["over_peer"] = rows["PySME"]["seconds"] / row["seconds"] if args.peer else None
        ratio = f"{row['over_peer']:.1f}" if args.peer else "-"
        print(f"{name:<34}{row['seconds']:>9.3f}{row['compile_seconds']:>14.1f}{ratio:>9}")
    for star, values in report.get("rms_to_peer", {}).items():
        print(f"rms difference, {star}: " + ", ".join(f"{100 * value:.2f} %" for value in values))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    atomically(args.output, lambda p: p.write_text(json.dumps(report, indent=2) + "\n"))
    print(f"\n{args.output}")
    return report


if __name__ == "__main__":
    main()
