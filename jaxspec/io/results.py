"""Writing results so that a reader never sees half a file: label tables as FITS, posteriors as netCDF."""

import io
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
from astropy.table import Column, MaskedColumn, QTable, Table
from astropy.utils.exceptions import AstropyUserWarning

from jaxspec.errors import InputError
from jaxspec.io.fitsfile import open_fits
from jaxspec.runs import atomically

log = logging.getLogger(__name__)

UCD_KEY = "ucd"
ENCODED = "PERCENT"  # card that names the columns written by `percent_encoded`
PRINTABLE = "".join(c for c in string.printable if c.isprintable() and c != "%")


def write_table(path: str | Path, table: Table, meta: Mapping[str, Any] | None = None) -> Path:
    """Write an astropy table (QTable) as one FITS binary table, atomically.

    Column units go to TUNITn, descriptions to TCOMMn and (cut to what a card holds) to the comments of
    TTYPEn, and UCD words (`column.info.meta["ucd"]`) to TUCDn. The FITS standard has no unit "dex", and
    astropy warns of every TUNITn outside it. Such a unit goes where astropy itself keeps it, in COMMENT cards
    from which `Table.read` and `QTable.read` take it, and for other readers to the end of the description:
    "surface gravity [dex]". `meta` is written as header cards of the table, and as long text where a value
    needs it. Checksums are added. FITS text is ASCII: a text column with other letters is written with
    percent signs (as in addresses of the web), the log says so, and `read_table` turns it back.

    Raises `InputError` for a column that FITS cannot hold.
    """
    table, encoded = _ascii_text(table, path)
    hdu = _table_hdu(table, path)
    hdu.name = "LABELS"
    for i, name in enumerate(table.colnames, start=1):
        info = table[name].info
        unit, description = _unit_text(info.unit), info.description or ""
        if unit and not _is_standard(unit):
            description = f"{description} [{unit}]".strip()
        elif unit:
            hdu.header.set(f"TUNIT{i}", unit, after=f"TFORM{i}")
        if description:
            hdu.header.comments[f"TTYPE{i}"] = _fit_comment(hdu.header, f"TTYPE{i}", description)
            hdu.header.set(f"TCOMM{i}", description.encode("ascii", "replace").decode(), after=f"TFORM{i}")
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


def _ascii_text(table: Table, path: str | Path) -> tuple[Table, list[str]]:
    """The table with text that FITS can hold, and the names of the columns that were changed for it."""
    wide = [n for n in table.colnames if table[n].dtype.kind == "U" and not _is_ascii(table[n])]
    if not wide:
        return table, wide
    table = table.copy(copy_data=False)
    for name in wide:
        log.warning("%s: column %s holds letters beyond ASCII; written as in %s", path, name, "%C3%A9")
        info = table[name].info
        kept = {"description": info.description, "meta": info.meta}
        table[name] = Column([percent_encoded(str(value)) for value in table[name]], **kept)
    return table, wide


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
            if hdu is None:
                raise KeyError("no table LABELS")
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
        unit = "" if table[name].unit is None else f"[{table[name].unit}]"
        description = str(header.get(f"TCOMM{i}", header.comments[f"TTYPE{i}"]))
        table[name].info.description = description.removesuffix(unit).strip() or None
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
            encoded = [percent_encoded(str(value)) for value in variable.values.flat]
            values = np.array(encoded, object).reshape(variable.shape)
            changed[name] = (variable.dims, values, variable.attrs)
    return dataset.assign_coords({k: v for k, v in changed.items() if k in dataset.coords}).assign(
        {k: v for k, v in changed.items() if k not in dataset.coords}
    )


def _is_utf8(value: Any) -> bool:
    return not isinstance(value, str) or not any("\ud800" <= letter <= "\udfff" for letter in value)


def _table_hdu(table: Table, path: str | Path) -> fits.BinTableHDU:
    """The columns as astropy writes them: plain ones with an empty unit, and quantities in those units that
    FITS does not know, which astropy then keeps in COMMENT cards."""
    plain = QTable()
    for name in table.colnames:
        column, unit = table[name], table[name].info.unit
        values = column.value if isinstance(column, u.Quantity) else column
        mask = getattr(values, "mask", None)
        bare = np.asarray(getattr(values, "unmasked", values))
        values = bare if mask is None else np.ma.MaskedArray(bare, mask)
        if values.dtype.kind == "O":
            raise InputError(
                f"column {name} for {path}",
                "Python objects",
                "numbers, booleans or text",
                "convert the column",
            )
        if unit is not None and not _is_standard(_unit_text(unit)) and values.dtype.kind == "f":
            plain[name] = np.ma.filled(values, np.nan) << u.Unit(unit)
        else:
            plain[name] = MaskedColumn(values) if mask is not None else Column(values)
        for attribute in ("description", "meta"):
            setattr(plain[name].info, attribute, getattr(table[name].info, attribute))
    if not plain.colnames:
        return fits.table_to_hdu(Table(table, copy=True))
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # That the unit is outside the standard; what is written is read again below and by the tests.
        warnings.simplefilter("ignore", u.UnitsWarning)
        warnings.filterwarnings("ignore", "The unit", AstropyUserWarning)
        plain.write(buffer, format="fits")
    with fits.open(io.BytesIO(buffer.getvalue()), memmap=False) as file:
        return file[1].copy()


def _unit_text(unit: u.UnitBase | u.function.FunctionUnitBase | str | None) -> str:
    if unit is None:
        return ""
    try:
        return u.Unit(unit).to_string(format="fits")
    except (ValueError, TypeError):
        return str(unit)


def _is_standard(unit: str) -> bool:
    """Whether the FITS standard knows the unit, as far as astropy does."""
    try:
        u.Unit(unit, format="fits")
    except (ValueError, TypeError):
        return False
    return True


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
