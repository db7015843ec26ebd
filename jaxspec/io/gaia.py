"""Mean spectra of Gaia DR3 as the archive's DataLink service writes them, as CSV, ECSV, VOTable and FITS:
those of the Radial Velocity Spectrometer (`rvs_mean_spectrum`; Gaia DR3 documentation 20.12.1, Seabroke et
al. 2022) and the sampled low-resolution ones (`xp_sampled_mean_spectrum`; 20.12.4, Montegriffo et al. 2023).

With the structure INDIVIDUAL or COMBINED there is one pixel a row: wavelength (nm), flux, flux_error. With
RAW there is one star a row, flux and flux_error are arrays of 2401 values and the wavelengths are not
written: they are 846 to 870 nm in steps of 0.01 nm. All are normalised, in vacuum, at rest. XP spectra are
alike, with 336 to 1020 nm in steps of 2 nm, in W/m2/nm and not at rest. The service packs several files as a
zip.

Pixels that no transit covers have no flux (NaN, null, or an empty cell) and are masked. Neighbouring pixels
are correlated: the grid of RVS is 2.5 times finer than the detector's pixels.
"""

import io
import json
import warnings
import zipfile
from typing import Any

import numpy as np
from astropy.io import ascii
from astropy.io.votable import parse_single_table
from astropy.table import Table

from jaxspec.errors import InputError
from jaxspec.io.fitsfile import FitsFile, text
from jaxspec.io.parts import choose, columns_of, masked
from jaxspec.io.raw import RawSpectrum
from jaxspec.io.wcs import to_angstrom

GRID = 846.0 + 0.01 * np.arange(2401)  # nm
XP_GRID = 336.0 + 2.0 * np.arange(343)  # nm
RESOLVING_POWER = 11500.0  # nominal (Cropper et al. 2018, A&A 616, A5)
XP_RESOLVING_POWER = 50.0  # within a factor of two over the range (Montegriffo et al. 2023, table 1)
NEEDED = {"flux", "flux_error"}
COEFFICIENTS = {"bp_coefficients", "rp_coefficients"}
OTHERS = ("solution_id", "ra", "dec", "combined_transits", "combined_ccds", "deblended_ccds")


def is_gaia_text(data: bytes) -> bool:
    """Whether text, as CSV, ECSV or VOTable, names the columns of Gaia's sampled spectra."""
    head = data[:65536].decode("utf-8", "replace").lstrip("\ufeff")
    if head.lstrip().startswith("<"):
        return "<VOTABLE" in head[:4096].upper() and ("flux_error" in head or "bp_coefficients" in head)
    lines = [line for line in head.splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        return False
    names = {name.strip().strip('"').lower() for name in lines[0].split("," if "," in lines[0] else None)}
    known = "source_id" in names or "source_id" in head.lower()
    return known and (names >= NEEDED or bool(names & COEFFICIENTS))


def is_gaia_fits(file: FitsFile) -> bool:
    """Whether a table of this FITS file has Gaia's columns and a source_id, as a column or in a header."""
    return _gaia_table(file) is not None


def _gaia_table(file: FitsFile) -> Any | None:
    for hdu in file.hdus[1:]:
        names = columns_of(hdu)
        known = "source_id" in names or "SOURCE_ID" in hdu.header or "SOURCE_ID" in file.hdus[0].header
        if known and (names.keys() >= NEEDED or names.keys() & COEFFICIENTS):
            return hdu
    return None


def read_gaia_fits(file: FitsFile, select: str | None = None) -> RawSpectrum:
    """`read_gaia_text` of a FITS table; SOURCE_ID and the other columns may be in the header."""
    hdu = _gaia_table(file)
    assert hdu is not None
    where, units = file.label(hdu), {}
    columns: dict[str, Any] = {}
    for i, name in enumerate(hdu.columns.names, start=1):
        columns[name.lower()] = np.asarray(hdu.data[name])
        units[name.lower()] = text(hdu.header, f"TUNIT{i}")
    for key in ("source_id", *OTHERS):
        for header in (hdu.header, file.hdus[0].header):
            if key not in columns and key.upper() in header:
                columns[key] = header[key.upper()]
    return _spectrum(columns, units.get("wavelength", ""), where, select)


def read_gaia_text(data: bytes, where: str, select: str | None = None) -> RawSpectrum:
    """One RVS or XP spectrum of the archive's CSV, ECSV or VOTable.

    `select` is the source_id where the file holds several stars. Raises `InputError` for such a file without
    it, for columns that are not there, wavelengths of neither instrument, and for the coefficients of XP.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table, parameters = _table(data)
    except Exception as error:
        raise InputError(
            where,
            f"{type(error).__name__}: {error}",
            "a table as the Gaia archive writes it (CSV, ECSV or VOTable)",
            "the file is damaged: fetch it again",
        ) from error
    columns: dict[str, Any] = {str(name).lower(): table[name] for name in table.colnames}
    for key, value in parameters.items():
        columns.setdefault(key, value)
    unit = str(table[_name(table, "wavelength")].unit or "") if "wavelength" in columns else ""
    return _spectrum(columns, unit, where, select)


def _name(table: Table, name: str) -> str:
    return next(column for column in table.colnames if column.lower() == name)


def _table(data: bytes) -> tuple[Table, dict[str, Any]]:
    content = data.removeprefix(b"\xef\xbb\xbf")
    if content.lstrip().startswith(b"<"):
        votable = parse_single_table(io.BytesIO(content), verify="ignore")
        parameters = {
            p.name.lower(): np.asarray(p.value).item() for p in votable.params if np.size(p.value) == 1
        }
        return votable.to_table(use_names_over_ids=True), parameters
    lines = content.decode("utf-8").splitlines()
    if lines and lines[0].startswith("# %ECSV"):
        try:
            return ascii.read(lines, format="ecsv"), {}
        except Exception:  # the bulk download's arrays are text that ECSV's own types do not describe
            lines = [line for line in lines if not line.startswith("#")]
    # Whole numbers must stay so: a source_id is larger than a float64 can hold.
    table = ascii.read(
        [line for line in lines if not line.startswith("#")],
        format="csv",
        fill_values=[("null", "0"), ("", "0"), ("NaN", "0"), ("nan", "0")],
        fast_reader=False,
    )
    return table, {}


def _spectrum(columns: dict[str, Any], unit: str, where: str, select: str | None) -> RawSpectrum:
    if COEFFICIENTS & columns.keys():
        raise InputError(
            where,
            "coefficients of XP spectra",
            "fluxes at wavelengths",
            "sample them first (gaiaxpy.calibrate), or fetch XP_SAMPLED or RVS from the archive",
        )
    if missing := NEEDED - columns.keys():
        raise InputError(
            where,
            f"columns {', '.join(columns)}",
            f"also {', '.join(sorted(missing))}",
            "fetch the file again",
        )
    if "source_id" not in columns:
        raise InputError(
            where, "no source_id", "the star's source_id as a column or parameter", "fetch it again"
        )
    sources = np.atleast_1d(np.asarray(columns["source_id"])).astype(str)
    rows = np.ndim(columns["flux"]) == 2 or np.asarray(columns["flux"]).dtype.kind in "OUS"
    choices = list(dict.fromkeys(source.strip() for source in sources))
    chosen = choose(where, choices, select, "source_id")
    mine = np.array([source.strip() == chosen for source in sources])
    if rows:
        if mine.sum() != 1:
            raise InputError(
                where, f"source_id {chosen} in {mine.sum()} rows", "one row a star", "remove the others"
            )
        index = int(np.flatnonzero(mine)[0])
        flux, error = (_array(columns[key][index], f"{where} column {key}") for key in ("flux", "flux_error"))
        if "wavelength" in columns:
            wavelength = _array(columns["wavelength"][index], f"{where} column wavelength")
        elif len(flux) in (len(GRID), len(XP_GRID)):
            wavelength = GRID if len(flux) == len(GRID) else XP_GRID
        else:
            raise InputError(
                where,
                f"{len(flux)} flux values without wavelengths",
                f"{len(GRID)} (RVS) or {len(XP_GRID)} (sampled XP), whose grids are known",
                "fetch the file again",
            )
    else:
        if "wavelength" not in columns:
            raise InputError(
                where, "no column wavelength", "wavelength, flux, flux_error", "fetch the file again"
            )
        inside = mine if len(mine) == len(columns["flux"]) else np.ones(len(columns["flux"]), bool)
        flux, error, wavelength = (
            _numbers(columns[key], f"{where} column {key}")[inside]
            for key in ("flux", "flux_error", "wavelength")
        )
    wavelength = wavelength * to_angstrom(unit or "nm", f"{where} column wavelength")
    rvs = bool(8400 < wavelength.min() and wavelength.max() < 8750)
    if not rvs and not (
        len(wavelength) > 100 and 3200 < wavelength.min() < 5000 and 9000 < wavelength.max() < 11000
    ):
        raise InputError(
            where,
            f"wavelengths {wavelength.min():.6g}-{wavelength.max():.6g} A",
            "those of RVS, 8460-8700 A, or of XP, 3360-10200 A (the archive's files are in nm)",
            "correct the unit of the column wavelength",
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        ivar = np.where(error > 0, error, np.nan) ** -2.0
    flux, ivar, quality = masked(flux, ivar)
    others = {key: _scalar(columns[key], mine) for key in OTHERS if key in columns}
    return RawSpectrum(
        product="gaia-rvs" if rvs else "gaia-xp",
        wavelength=wavelength,
        flux=flux,
        ivar=ivar,
        quality=quality,
        medium="vacuum",
        frame="rest" if rvs else "barycentric",
        velocity=0.0 if rvs else None,
        resolving_power=RESOLVING_POWER if rvs else XP_RESOLVING_POWER,
        star=f"Gaia DR3 {chosen}",
        meta={
            "instrument": "Gaia RVS" if rvs else "Gaia XP",
            "identifiers": {"source_id": int(chosen) if chosen.isdigit() else chosen},
            **{key: others.pop(key) for key in ("ra", "dec") if key in others},
            "flags": others,
        },
        notes=[
            "Gaia's mean spectrum: normalised; neighbouring pixels are correlated (grid 2.5 times too fine)"
            if rvs
            else "Gaia's sampled XP spectrum: errors are correlated over many pixels"
        ],
        selected=chosen if len(choices) > 1 else None,
    )


def _numbers(values: Any, where: str) -> np.ndarray:
    """A column as float64 with NaN where it is masked."""
    array = np.ma.asarray(values)
    if array.dtype.kind not in "fiu":
        raise InputError(where, f"values such as {array.reshape(-1)[0]!r}", "numbers", "fetch the file again")
    return np.ma.filled(array.astype(np.float64), np.nan)


def _array(cell: Any, where: str) -> np.ndarray:
    """One cell's array: numbers, or text as "[0.98, null, ...]" or "(0.98, NaN, ...)"."""
    if isinstance(cell, (str, np.str_, bytes)):
        words = str(cell, "ascii") if isinstance(cell, bytes) else str(cell)
        inner = words.strip().strip('"').strip("[](){}")
        try:
            values = json.loads("[" + inner.replace("NaN", "null").replace("nan", "null") + "]")
            return np.array([np.nan if value is None else float(value) for value in values])
        except (ValueError, TypeError) as error:
            raise InputError(
                where, f"the cell {words[:40]!r}", "an array of numbers", "fetch the file again"
            ) from error
    return _numbers(np.ma.asarray(cell, dtype=None), where).reshape(-1)


def _scalar(values: Any, mine: np.ndarray) -> Any:
    array = np.ma.asarray(values)
    first = array.reshape(-1)[np.flatnonzero(mine)[0] if array.size == mine.size else 0]
    return None if np.ma.is_masked(first) else np.asarray(first).item()


def read_zip(data: bytes, where: str, select: str | None) -> tuple[bytes, str, str | None]:
    """The bytes of one file of a zip (as DataLink packs several), its name, and the choice made.

    Raises `InputError` for a damaged or empty zip, and `SeveralSpectra` for several files and no `select`.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/") and "__MACOSX" not in name]
            if not names:
                raise InputError(where, "an empty zip", "a spectrum in it", "fetch it again")
            name = choose(where, names, select, "file")
            return archive.read(name), name, name if len(names) > 1 else None
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            where, f"{type(error).__name__}: {error}", "a sound zip", "fetch it again"
        ) from error
