"""Our own posteriors as tables of a survey: one likelihood a spectrum, with its full covariance."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr
from astropy.table import MaskedColumn, Table
from jaxtyping import Float

from jaxspec.catalogues.columns import open_table, strings
from jaxspec.catalogues.spec import FlagRule, TableSpec
from jaxspec.errors import InputError
from jaxspec.labels import LabelSet
from jaxspec.posterior.flags import Flag
from jaxspec.posterior.likelihoods import SUSPECT, likelihoods
from jaxspec.posterior.results import Posterior

FORMAT, SUFFIX = "posterior", ".nc"
SOURCE = "source"
# The Sun of the forward model.
SOLAR_SCALE = "grevesse2007"


class PosteriorRows(NamedTuple):
    """Rows of a posterior file: the completed entry, their facts as a `table` (`source`, `snr`, `chi2`,
    `flags`, `suspect`, further numbers and the columns of `stars:`), `values [n, k]` and `covariance
    [n, k, k]` of the labels `names`, and what was done."""

    spec: TableSpec
    table: Table
    names: tuple[str, ...]
    values: Float[np.ndarray, "n k"]
    covariance: Float[np.ndarray, "n k k"]
    notes: tuple[str, ...]

    def on(
        self, label_set: LabelSet, rows: np.ndarray
    ) -> tuple[Float[np.ndarray, "m l"], Float[np.ndarray, "m l l"]]:
        """Labels in the order of `label_set`, NaN where the file lacks one, and their covariance, of some
        rows."""
        n, k = int(rows.sum()), len(label_set)
        values, covariance = np.full((n, k), np.nan), np.zeros((n, k, k))
        shared = [name for name in label_set.names if name in self.names]
        there = np.array([label_set.index(name) for name in shared], int)
        own = np.array([self.names.index(name) for name in shared], int)
        values[:, there] = self.values[rows][:, own]
        covariance[:, there[:, None], there] = self.covariance[rows][:, own[:, None], own]
        missing = np.isnan(values)
        return values, np.where(missing[:, :, None] | missing[:, None, :], 0.0, covariance)


def is_posterior(spec: TableSpec) -> bool:
    """Whether the entry names a posterior: by `format: posterior`, or a netCDF file without a format."""
    return spec.format == FORMAT or (spec.format == "generic" and spec.file.suffix == SUFFIX)


def posterior_labels(spec: TableSpec) -> tuple[str, ...]:
    """Names of the labels in a posterior file. Raises `InputError` for another kind of file."""
    try:
        with xr.open_datatree(spec.file, engine="h5netcdf") as tree:
            return tuple(map(str, np.atleast_1d(tree["posterior"].attrs["sampled_variables"])))
    except (OSError, KeyError, ValueError):
        return Posterior.load(spec.file).label_set.names  # which says what is wrong


def read_posterior(spec: TableSpec) -> PosteriorRows:
    """Likelihoods of the spectra in a posterior file, one a row.

    Draws that were refined against the forward model are likelihoods already; from others the training prior
    stored with them is divided out. Spectra without usable pixels have no labels. A star is named by its
    spectrum's file name without suffix (`source`) unless `identifiers` and a table of `stars` say more.

    Raises `InputError` for entries that a posterior has no use for, a file that is no posterior or does not
    say its prior, one of a network that was trained on a survey's labels, and a table of stars that does not
    fit.
    """
    for entry in ("columns", "missing", "hdu"):
        if getattr(spec, entry):
            raise InputError(
                f"table {spec.name}, {entry}",
                "given for a posterior",
                "nothing: a posterior knows its labels and errors",
                "remove it",
            )
    posterior = Posterior.load(spec.file)
    refined = np.asarray(posterior.stats.get("refined", np.zeros(len(posterior)))) > 0
    if posterior.prior is None and not refined.all():
        raise InputError(
            str(spec.file),
            f"{int((~refined).sum())} spectra inferred by a network that was trained on a survey's labels",
            "a network trained on simulations: its prior can be divided out",
            "infer with another checkpoint, or give the labels.fits as a table",
        )
    likelihood = likelihoods(posterior)
    empty = (posterior.flags & int(Flag.NO_DATA)) != 0
    notes = [
        f"{int(refined.sum())} spectra refined, likelihoods already; the training prior divided out of "
        f"{int((~refined).sum())}"
    ]
    if empty.any():
        notes.append(f"{int(empty.sum())} spectra without usable pixels left out")
    table = Table({SOURCE: [_stem(name) for name in posterior.names]})
    for name, values in {**posterior.stats, "snr": posterior.snr, "chi2": posterior.chi2}.items():
        table[name] = values
    table["flags"], table["suspect"] = posterior.flags, likelihood.suspect.astype(np.int64)
    if spec.stars is not None:
        notes += _add_stars(table, spec)
    elif not spec.identifiers:
        notes.append("stars are named by their spectra")
    rule = FlagRule("suspect", meaning=f"the inference says {SUSPECT.name}")
    spec = replace(
        spec,
        identifiers=spec.identifiers or {"name": SOURCE},
        flags=spec.flags or (rule,),
        facts={"snr": "snr"},
        solar_scale=SOLAR_SCALE if spec.solar_scale is None else spec.solar_scale,
    )
    values = np.where(empty[:, None], np.nan, likelihood.values)
    return PosteriorRows(spec, table, posterior.label_set.names, values, likelihood.covariance, tuple(notes))


def _stem(name: str) -> str:
    """A spectrum's file name as a star's name."""
    file = Path(name).name
    known = (".fits", ".fit", ".gz", ".txt", ".csv", ".dat", ".ecsv", ".h5")
    while file.lower().endswith(known):
        file = file[: file.rfind(".")]
    return file.replace("_", " ").strip()


def _add_stars(table: Table, spec: TableSpec) -> list[str]:
    """Join the columns of the table of stars by `source`; what to know of it."""
    assert spec.stars is not None
    path = Path(spec.stars)
    stars = open_table(path)
    if SOURCE not in stars.colnames or not spec.identifiers:
        raise InputError(
            f"table {spec.name}, stars",
            f"columns {', '.join(stars.colnames[:8])}"
            + ("" if spec.identifiers else "; no identifiers in the entry"),
            f"a column {SOURCE!r} with the names of the spectra, and identifiers: its other columns",
            "name the column so, and add identifiers such as {gaia: source_id}",
        )
    row = {_stem(name): i for i, name in enumerate(strings(stars, SOURCE))}
    index = np.array([row.get(name, -1) for name in table[SOURCE]])
    if not (index >= 0).any():
        raise InputError(
            f"{path}, column {SOURCE}",
            f"none of the {len(table)} spectra of {spec.file.name}",
            f"names such as {table[SOURCE][0]!r}",
            "write the spectra's file names",
        )
    for name in stars.colnames:
        if name != SOURCE:
            table[name] = MaskedColumn(stars[name][index], unit=stars[name].unit)
            table[name].mask = np.ma.getmaskarray(table[name]) | (index < 0)
    missing = int((index < 0).sum())
    return [f"{missing} spectra that {path.name} does not have"] if missing else []
