"""Small tables and catalogues, made for tests of what reads and joins them."""

import numpy as np
from astropy.table import Table

from jaxspec.catalogues.catalogue import Catalogue
from jaxspec.catalogues.identifiers import identifiers
from jaxspec.catalogues.read import label_names, read_survey
from jaxspec.catalogues.spec import parse_file
from jaxspec.labels import NINE_LABELS, label_set

TWO = label_set("teff", "fe_h")
FOUR = label_set("teff", "logg", "fe_h", "mg_h")
ENTRY = {
    "columns": {"teff": "Teff", "logg": "logg", "fe_h": "feh", "mg_fe": "MgFe"},
    "errors": {"teff": "e_Teff", "logg": 0.1, "fe_h": "e_feh", "mg_fe": "e_MgFe"},
    "identifiers": {"hip": "HIP"},
}


def catalogue(title: str, labels=None, /, errors=(50.0, 0.05), **who) -> Catalogue:
    """A catalogue with these identifiers; by default all stars are alike."""
    extra = {k: who.pop(k) for k in ("magnitude", "band", "cluster", "anchor", "flags") if k in who}
    n = len(next(v for v in who.values() if np.ndim(v)))
    labels = np.tile([5500.0, 0.0], (n, 1)) if labels is None else np.asarray(labels, float)
    variance = np.where(np.isfinite(labels), np.square(errors), 0.0)
    flags = extra.pop("flags", np.zeros(n, np.int64))
    return Catalogue(
        title, TWO, identifiers(n, **who), labels, variance[:, :, None] * np.eye(2), flags, **extra
    )


def table(**change) -> Table:
    """Three stars of a generic survey, with these columns replaced (None: removed)."""
    made = Table(
        {
            "HIP": [1, 2, 3],
            "Teff": [5772.0, 4500.0, 6200.0],
            "e_Teff": [20.0, 40.0, 60.0],
            "logg": [4.44, 2.0, 4.1],
            "feh": [0.0, -0.5, -1.5],
            "e_feh": [0.03, 0.04, 0.05],
            "MgFe": [0.0, 0.3, 0.4],
            "e_MgFe": [0.04, 0.03, 0.12],
        }
    )
    for name, values in change.items():
        if values is None:
            made.remove_column(name)
        else:
            made[name] = values
    return made


def read(tmp_path, made=None, labels=FOUR, solar=None, **entry) -> Catalogue:
    """The catalogue of `made` written as FITS, by `ENTRY` with these entries replaced."""
    path = tmp_path / "t.fits"
    (table() if made is None else made).write(path, overwrite=True)
    content = {**ENTRY, "file": "t.fits", **entry}
    return read_survey(parse_file([content], tmp_path).tables[0], labels, solar)


def layout(tmp_path, made, name, labels=NINE_LABELS, **entry) -> tuple[Catalogue, list[str]]:
    """The catalogue of `made` read in a survey's own layout, and the names of its labels."""
    made.write(tmp_path / "s.fits", overwrite=True)
    content = {"file": "s.fits", "format": name, **entry}
    spec = parse_file([content], tmp_path).tables[0]
    return read_survey(spec, labels), label_names((spec,))
