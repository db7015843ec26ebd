"""Tables of stars to synthesise: read, and checked against the range that synthesis is made for."""

from __future__ import annotations

import re
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxspec.catalogues import Catalogue, read_label_table
from jaxspec.errors import InputError
from jaxspec.labels import NINE_LABELS
from jaxspec.physics import turbulence
from jaxspec.physics.atmosphere import AtmosphereGrid

# For what the line list, the atmospheres and the calibrations hold: [X/Fe] is limited, not only [X/H].
X_FE = (-0.6, 0.9)
STELLAR = ("teff", "logg", "fe_h")  # what atmospheres and calibrations of turbulence depend on


def read_stars(path: str) -> Catalogue:
    """The stars of a table: CSV, ECSV or FITS with a column for each label, and optionally `vmic`, `vsini`
    (km/s), `snr` per pixel and `source`.

    Raises: InputError naming the column and first row out of the range that synthesis is made for.
    """
    stars = read_label_table(path)
    fe_h = stars.labels[:, NINE_LABELS.index("fe_h")]
    for j, label in enumerate(NINE_LABELS):
        if label.name.endswith("_h") and label.name != "fe_h":
            x_fe = stars.labels[:, j] - fe_h
            bad = ~((x_fe >= X_FE[0]) & (x_fe <= X_FE[1]))
            if bad.any():
                row = int(np.flatnonzero(bad)[0])
                raise InputError(
                    f"{path} column {label.name} row {row}",
                    f"{stars.labels[row, j]:g} at fe_h {fe_h[row]:g} ({int(bad.sum())} such rows)",
                    f"{label.name} - fe_h between {X_FE[0]:g} and {X_FE[1]:g} dex",
                    "remove the row; columns are [X/H], not [X/Fe]",
                )
    atmospheres = AtmosphereGrid.load()
    for name, nodes in zip(STELLAR, (atmospheres.teff, atmospheres.logg, atmospheres.m_h), strict=True):
        values = stars.labels[:, NINE_LABELS.index(name)]
        bad = (values < nodes[0]) | (values > nodes[-1])
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise InputError(
                f"{path} column {name} row {row}",
                f"{values[row]:g} ({int(bad.sum())} such rows)",
                f"{nodes[0]:g} to {nodes[-1]:g}, where there are model atmospheres",
                "remove the row",
            )
    for name, values, high in (("vmic", stars.vmic, 5.0), ("vsini", stars.vsini, 200.0)):
        if (values > high).any():
            row = int(np.flatnonzero(values > high)[0])
            raise InputError(
                f"{path} column {name} row {row}",
                f"{values[row]:g} km/s",
                f"at most {high:g}",
                "give it in km/s, or remove the row",
            )
    if (stars.snr == 0).any():
        row = int(np.flatnonzero(stars.snr == 0)[0])
        raise InputError(
            f"{path} column snr row {row}",
            "0",
            "a positive S/N, or no value for no noise",
            "leave the cell empty for a noiseless spectrum",
        )
    return stars


def calibrated_vmic(stars: Catalogue) -> Float[np.ndarray, " s"]:
    """vmic (km/s) of every star: the table's own where it has one, else the calibration's."""
    return np.where(np.isfinite(stars.vmic), stars.vmic, calibrated(turbulence.vmic_calibration, stars))


def calibrated(calibration: Callable, stars: Catalogue) -> Float[np.ndarray, " s"]:
    """Value of a calibration by teff, logg and fe_h for every star."""
    columns = (stars.labels[:, NINE_LABELS.index(name)] for name in STELLAR)
    return np.asarray(calibration(*(jnp.asarray(column, jnp.float32) for column in columns)), np.float64)


def stem(name: str) -> str:
    """The name of a star as part of a file's name."""
    return re.sub(r"[^\w.+-]+", "_", name)
