"""Sets of stars whose populations are known: the mock Galaxy, and published tables.

Each is a `Known`: stars with the labels to group them by, and the class of each star to judge by. Where the
class comes from motions, or from another survey's chemistry, `note` says so.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from jaxspec.catalogues.columns import numbers, open_table, strings
from jaxspec.errors import InputError
from jaxspec.populations.mock import CLUSTER, DEFAULT, MockConfig, simulate
from jaxspec.populations.stars import Stars

ABUNDANCES = ("fe_h", "mg_h", "si_h", "ca_h", "ti_h", "al_h", "ni_h")
ROUNDED = 0.01  # an error of 0 in a table that rounds to hundredths [dex]


class Known(NamedTuple):
    """Stars with classes.

    Attributes:
        name: of the set.
        stars: with the labels by which they are grouped.
        truth: index of each star's class in `classes`, -1 where it is not known.
        classes: names.
        groups: how many are asked for.
        note: where the classes come from.
    """

    name: str
    stars: Stars
    truth: Int[np.ndarray, " n"]
    classes: tuple[str, ...]
    groups: int
    note: str


def mock_discs(seed: int, config: MockConfig = DEFAULT, labels: Sequence[str] = ABUNDANCES) -> Known:
    """Thin and thick disc of the mock."""
    none = {name: 0 for name in ("bulge", "dwarf_a", "dwarf_b", "clusters")}
    made = simulate(seed, dataclasses.replace(config, **none))
    classes = ("thin", "thick")
    truth = np.array([classes.index(name) for name in made.component])
    stars = made.stars.select(labels).relative_to_iron()
    return Known("mock discs", stars, truth, classes, 2, "the component that made the star")


def mock_accreted(seed: int, config: MockConfig = DEFAULT) -> Known:
    """All components of the mock but the clusters: thin and thick disc, bulge, and two dwarfs."""
    made = simulate(seed, dataclasses.replace(config, clusters=0))
    classes = ("thin", "thick", "bulge", "dwarf_a", "dwarf_b")
    truth = np.array([classes.index(name) for name in made.component])
    stars = made.stars.select(ABUNDANCES).relative_to_iron()
    return Known("mock Galaxy", stars, truth, classes, 5, "the component that made the star")


def mock_clusters(seed: int, config: MockConfig = DEFAULT) -> tuple[Stars, Int[np.ndarray, " n"]]:
    """Stars of the mock's clusters among as many field stars of the thin disc, and the cluster of each (-1:
    field)."""
    sizes = config.clusters * config.members
    none = {name: 0 for name in ("thick", "bulge", "dwarf_a", "dwarf_b")}
    made = simulate(seed, dataclasses.replace(config, **none, thin=sizes))
    stars = made.stars.select(ABUNDANCES).relative_to_iron()
    return stars, np.where(made.component == CLUSTER, made.cluster, -1)


def bensby(path: str | Path) -> Known:
    """600 nearby dwarfs of Bensby, Feltzing & Oey (2014): thick disc where the ratio of kinematic
    probabilities `td_d` is above 2, thin disc where it is below 0.5. Six stars have ratios above 1e20, which
    read as no value: they are grouped, but not judged."""
    columns = {"fe_h": ("Fe_H", "e_Fe_H")}
    columns |= {f"{e.lower()}_fe": (f"{e}_Fe", f"e_{e}_Fe") for e in ("Mg", "Si", "Ca", "Ti", "Al", "Ni")}
    table = open_table(Path(path))
    stars = _stars(table, columns, Path(path), _text(table, "HIP"))
    ratio = numbers(table, "td_d", Path(path))[0]
    truth = np.where(ratio > 2.0, 1, np.where(ratio < 0.5, 0, -1))
    return Known("Bensby 2014", stars, truth, ("thin", "thick"), 2, "motions: td_d > 2 against < 0.5")


def harps(path: str | Path) -> Known:
    """996 HARPS dwarfs of Delgado Mena et al. (2017): thick and thin disc by their motions (`popB`)."""
    columns = {"fe_h": ("feh", "erfeh"), "mg_fe": ("MgFe", "errMg"), "si_fe": ("SiFe", "errSi")}
    columns |= {"ca_fe": ("CaFe", "errCa"), "ti_fe": ("TiIFe", "errTiI"), "al_fe": ("AlFe", "errAl")}
    table = open_table(Path(path))
    stars = _stars(table, columns, Path(path), _text(table, "Star"))
    population = np.array(_text(table, "popB"))
    truth = np.where(population == "thick", 1, np.where(population == "thin", 0, -1))
    return Known("HARPS 2017", stars, truth, ("thin", "thick"), 2, "motions: popB thick against thin")


def apogee(path: str | Path) -> Known:
    """APOGEE DR17 giants and dwarfs: high- and low-alpha by the line of Weinberg et al. (2019, ApJ 874, 102),
    [Mg/Fe] = 0.12 - 0.13 [Fe/H] below solar and 0.12 above. The line is drawn by eye through the same
    abundances: agreement with it is not truth."""
    columns = {name: (name, f"e_{name}") for name in ("fe_h", "mg_fe", "o_fe")}
    table = open_table(Path(path))
    stars, kept = _measured(table, columns, Path(path))
    fe_h, mg_fe = stars.values[:, 0], stars.values[:, 1]
    line = 0.12 - 0.13 * np.minimum(fe_h, 0.0)
    truth = np.where(np.isnan(fe_h) | np.isnan(mg_fe), -1, (mg_fe > line).astype(int))
    note = f"a line in [Mg/Fe] against [Fe/H]; {len(table) - kept.sum()} rows without labels left out"
    return Known("APOGEE DR17", stars, truth, ("low alpha", "high alpha"), 2, note)


def _stars(table, columns, path: Path, names: Sequence[str]) -> Stars:
    stars, kept = _measured(table, columns, path)
    return dataclasses.replace(stars, names=tuple(name for name, k in zip(names, kept, strict=True) if k))


def _measured(table, columns, path: Path) -> tuple[Stars, np.ndarray]:
    """Stars of value and error columns, and which rows they are. 9.99 is no value; 0 with an error of 0 is an
    empty cell."""
    values = np.stack([numbers(table, value, path)[0] for value, _ in columns.values()], axis=1)
    errors = np.stack([numbers(table, error, path)[0] for _, error in columns.values()], axis=1)
    gone = (np.abs(values) > 9.0) | ((values == 0.0) & (errors == 0.0)) | ~np.isfinite(errors)
    values = np.where(gone, np.nan, values)
    kept = ~np.isnan(values).all(1)
    errors = np.where(np.isnan(values), np.nan, np.maximum(errors, ROUNDED if (errors == 0).any() else 0.0))
    return Stars.with_errors(tuple(columns), values[kept], errors[kept]), kept


def _text(table, name: str) -> tuple[str, ...]:
    return strings(table, name, blanks=False)


FILES = {
    "bensby": (bensby, "bensby2014.fits"),
    "harps": (harps, "delgadomena2017_harps.fits"),
    "apogee": (apogee, "apogee_dr17_snr200.fits.gz"),
}


def published(name: str, catalogue: str | None = None) -> Known:
    """A published set by name, from `catalogue` or from `catalogues/` in the folder `$JAXSPEC_DATA`.

    Raises: InputError where neither is there.
    """
    read, file = FILES[name]
    if catalogue is None:
        folder = os.environ.get("JAXSPEC_DATA")
        if not folder:
            fix = f"set it, or give catalogue=PATH of {file}"
            raise InputError("$JAXSPEC_DATA", "not set", "the folder of reference data", fix)
        catalogue = str(Path(folder) / "catalogues" / file)
    return read(Path(catalogue))
