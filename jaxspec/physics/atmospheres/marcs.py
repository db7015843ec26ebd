"""MARCS `.mod` files (Gustafsson et al. 2008, A&A 486, 951; layout and units: marcs.astro.uu.se)."""

import numpy as np
from jaxtyping import Float

from jaxspec.physics.atmospheres.text import N_ELEMENTS, AtmosphereFile, Text, make_atmosphere

FIRST = ("lgTauR", "T", "Pg")
SECOND = ("lgTauR", "Mu", "RHOX")


def read_marcs(text: Text) -> AtmosphereFile:
    """A MARCS model, plane-parallel or spherical; see `read_atmosphere`."""
    (teff,), (gravity,) = text.stated(r"Teff \[K\]"), text.stated(r"Surface gravity \[cm/s2\]")
    (vmic,), (mass,) = text.stated("Microturbulence parameter"), text.stated(r"No mass|Mass \[Msun\]")
    m_h, alpha_m = text.stated(r"Metallicity \[Fe/H\]", 2)
    if gravity <= 0:
        raise text.wrong(text.find("Surface gravity"), f"gravity {gravity:g}", "a positive number")
    layers = int(text.stated("Number of depth points")[0])
    first = text.find("^Model structure") + 1
    second = first + 1 + layers
    structure, more = _table(text, first, layers, FIRST), _table(text, second, layers, SECOND)
    for k in np.flatnonzero(structure["lgTauR"] != more["lgTauR"]).tolist():
        found, expected = f"lgTauR {more['lgTauR'][k]:g}", f"{structure['lgTauR'][k]:g}"
        raise text.wrong(second + 1 + k, found, f"{expected} as in line {first + k + 2}")
    # Temperature and pressure stand in the first table: an error names the line there.
    rank = np.arange(1.0, layers + 1)
    make_atmosphere(text, first + 1, rank, structure["T"], structure["Pg"])
    return AtmosphereFile(
        make_atmosphere(text, second + 1, more["RHOX"], structure["T"], structure["Pg"], more["Mu"]),
        "marcs",
        "spherical" if mass > 0 else "plane-parallel",
        teff,
        float(np.log10(gravity)),
        m_h,
        alpha_m,
        vmic,
        _abundances(text),
    )


def _abundances(text: Text) -> Float[np.ndarray, " 92"]:
    """A(X), -99 where an element is left out."""
    i = text.find("Logarithmic chemical number abundances")
    values: list[float] = []
    while len(values) < N_ELEMENTS:
        i += 1
        values += text.numbers(i, f"abundances from the {len(values) + 1}. of {N_ELEMENTS} on")
    if len(values) > N_ELEMENTS:
        raise text.wrong(i, f"{len(values)} abundances", f"{N_ELEMENTS}")
    return np.array(values)


def _table(text: Text, i: int, layers: int, needed: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Columns by name of the table whose names stand in line `i`."""
    names = text.line(i).split()
    if not {"k", *needed} <= set(names):
        expected = f"the names of columns, among them {', '.join(needed)}, as {layers} layers are announced"
        raise text.wrong(i, text.quoted(i), expected, "correct the number of layers, or fetch the file again")
    table = text.table(i + 1, layers, len(names))
    if table.shape[1] != len(names):
        raise text.wrong(i + 1, f"{table.shape[1]} columns", f"{len(names)}, as named above")
    columns = dict(zip(names, table.T, strict=True))
    for k in np.flatnonzero(columns["k"] != np.arange(1, layers + 1)).tolist():
        raise text.wrong(i + 1 + k, f"layer {columns['k'][k]:g}", f"layer {k + 1}")
    return columns
