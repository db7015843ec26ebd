"""Writing results so that a reader never sees half a file: label tables as FITS, posteriors as netCDF."""

import logging
import string
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import astropy.units as u
import numpy as np
import xarray as xr
from astropy.io import fits
from astropy.table import QTable, Table

from jaxspec.errors import InputError
from jaxspec.io.fitsfile import open_fits
from jaxspec.runs import atomically

log = logging.getLogger(__name__)

UCD_KEY = "ucd"
ENCODED = "PERCENT"  # card that names the columns written by `percent_encoded`
PRINTABLE = "".join(c for c in string.printable if c.isprintable() and c != "%")


def write_table(path: str | Path, table: Table, meta: Mapping[str, Any] | None = None) -> Path:
    """Write an astropy table (QTable) as one FITS binary table, atomically.

    Column units go to TUNITn, descriptions to the comments of TTYPEn (cut to what a card holds), and UCD
    words (`column.info.meta["ucd"]`) to TUCDn. `meta` is written as header cards of the table, and as long
    text where a value needs it. Checksums are added. FITS text is ASCII: a text column with other letters is
    written with percent signs (as in addresses of the web), the log says so, and `read_table` turns it back.

    Raises `InputError` for a column that FITS cannot hold.
    """
    plain = Table(table, copy=True) if not len(table.colnames) else _without_mixins(table)
    encoded = [
        name for name in plain.colnames if plain[name].dtype.kind == "U" and not _is_ascii(plain[name])
    ]
    for name in encoded:
        log.warning("%s: column %s holds letters beyond ASCII; written as in %s", path, name, "%C3%A9")
        plain[name] = np.array([percent_encoded(str(value)) for value in plain[name]])
    for name in plain.colnames:
        if plain[name].dtype.kind == "O":
            raise InputError(
                f"column {name} for {path}",
                "Python objects",
                "numbers, booleans or text",
                "convert the column",
            )
    hdu = fits.table_to_hdu(plain)
    hdu.name = "LABELS"
    for i, name in enumerate(plain.colnames, start=1):
        info = table[name].info
        if info.unit is not None and str(info.unit):
            # Written here and not by astropy, which drops "dex": outside the FITS standard, yet what every
            # survey writes.
            hdu.header.set(f"TUNIT{i}", _unit_text(info.unit), after=f"TFORM{i}")
        if info.description:
            hdu.header.comments[f"TTYPE{i}"] = _fit_comment(hdu.header, f"TTYPE{i}", info.description)
        ucd = (info.meta or {}).get(UCD_KEY)
        if ucd:
            hdu.header.set(f"TUCD{i}", ucd, "UCD1+", after=f"TFORM{i}")
    if encoded:
        hdu.header[ENCODED] = (",".join(encoded), "columns with percent-encoded text")
    for key, value in {**_scalars(table.meta), **_scalars(meta or {})}.items():
        keyword = key.upper() if len(key) <= 8 else f"HIERARCH {key.upper()}"
        hdu.header[keyword] = value
    hdus = fits.HDUList([fits.PrimaryHDU(), hdu])
    return atomically(path, lambda partial: hdus.writeto(partial, overwrite=True, checksum=True))


def percent_encoded(text: str) -> str:
    """ASCII text of any text, a different one for each: letters beyond ASCII, control characters and percent
    signs become `%XX` of their UTF-8 bytes (of a file name that is no UTF-8, its own bytes)."""
    return quote(text, safe=PRINTABLE, errors="surrogateescape")


def _is_ascii(values: Any) -> bool:
    return all(str(value).isascii() and str(value).isprintable() for value in values)


def read_table(path: str | Path) -> QTable:
    """Read a table that `write_table` wrote: units (dex too), descriptions and UCDs as they were.

    Raises `InputError` naming the file when it cannot be read.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(
            str(path), error.strerror or str(error), "a readable file", "check the path"
        ) from error
    file = open_fits(data, str(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            hdu = file.find("LABELS")
            table, header = QTable.read(hdu, unit_parse_strict="silent"), hdu.header
        except Exception as error:  # astropy answers damaged tables with exceptions of many types
            found = f"{type(error).__name__}: {error}"
            raise InputError(str(path), found, "a table LABELS", "was it made by write_table?") from error
    for i, name in enumerate(table.colnames, start=1):
        if header.get(f"TUNIT{i}") == "dex":
            table[name] = np.asarray(table[name].value) * u.dex
        if table[name].dtype.kind == "S":
            table[name] = np.char.decode(np.asarray(table[name]), "utf-8")
        if name in str(header.get(ENCODED, "")).split(","):
            table[name] = np.array([unquote(str(v), errors="surrogateescape") for v in table[name]])
        table[name].info.description = header.comments[f"TTYPE{i}"] or None
        if f"TUCD{i}" in header:
            table[name].info.meta = {UCD_KEY: header[f"TUCD{i}"]}
    return table


def write_datatree(path: str | Path, tree: xr.DataTree) -> Path:
    """Write a DataTree (posterior in ArviZ's schema) as netCDF4 through h5netcdf, atomically; floats are
    compressed. Text that is no UTF-8 (file names of another age) is written with percent signs."""
    tree = tree.map_over_datasets(_writable_text)
    encoding = {
        node.path: {
            name: {"zlib": True, "complevel": 1}
            for name, v in node.ds.data_vars.items()
            if v.dtype.kind == "f" and v.size > 1000
        }
        for node in tree.subtree
    }
    encoding = {group: names for group, names in encoding.items() if names}
    return atomically(path, lambda partial: tree.to_netcdf(partial, engine="h5netcdf", encoding=encoding))


def _writable_text(dataset: xr.Dataset) -> xr.Dataset:
    """The dataset with its text as UTF-8 can hold it, each value still different from the others."""
    changed = {}
    for name, variable in dataset.variables.items():
        if variable.dtype.kind in "OU" and not all(_is_utf8(value) for value in variable.values.flat):
            log.warning("%s: file names that are no UTF-8 are written as in %s", name, "%E9")
            values = [percent_encoded(str(value)) for value in variable.values.flat]
            values = np.array(values, object).reshape(variable.shape)
            changed[name] = (variable.dims, values, variable.attrs)
    return dataset.assign_coords({k: v for k, v in changed.items() if k in dataset.coords}).assign(
        {k: v for k, v in changed.items() if k not in dataset.coords}
    )


def _is_utf8(value: Any) -> bool:
    return not isinstance(value, str) or not any("\ud800" <= letter <= "\udfff" for letter in value)


def _without_mixins(table: Table) -> Table:
    """Quantities as plain columns with a unit, text as fixed-width; descriptions are handled by the
    caller."""
    plain = Table()
    for name in table.colnames:
        column = table[name]
        values = column.value if isinstance(column, u.Quantity) else column
        masked = isinstance(values, np.ma.MaskedArray) or hasattr(values, "mask")
        plain[name] = values if masked else np.asarray(values)
    return plain


def _unit_text(unit: u.UnitBase) -> str:
    try:
        return unit.to_string(format="fits")
    except ValueError:
        return str(unit)


def _fit_comment(header: fits.Header, key: str, text: str) -> str:
    """The description, cut at a word to what fits behind the value on one card of 80 characters."""
    room = 80 - 10 - max(20, len(repr(str(header[key]))) + 1) - 3
    text = text.encode("ascii", "replace").decode()
    if len(text) <= room:
        return text
    return text[: room - 2].rsplit(" ", 1)[0] + ".."


def _scalars(meta: Mapping[str, Any]) -> dict[str, Any]:
    kept = {}
    for key, value in meta.items():
        if key.lower() in ("comments", "history", "extname"):
            continue
        if isinstance(value, (bool, int, float, str, np.bool_, np.integer, np.floating)):
            value = value.item() if isinstance(value, np.generic) else value
            if isinstance(value, float) and not np.isfinite(value):
                value = str(value)
            kept[key] = (
                value.encode("ascii", "replace").decode().replace("\n", " ")
                if isinstance(value, str)
                else value
            )
    return kept
