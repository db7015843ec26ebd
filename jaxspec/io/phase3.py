"""ESO Phase 3 spectra: a binary table of one row whose cells are arrays (ESO SDP standard, ESO-044286).

Columns are chosen by what they declare: first the utype (`TUTYPn`), then the UCD (`TUCDn`), then the name.
The utype goes first because a sky background can carry the very UCD of another product's flux. Flux, error
and quality must belong together (a calibrated flux beside an error in counts is wrong by the whole
calibration), so they are paired by namespace and name.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxspec.errors import InputError
from jaxspec.io.fitsfile import FitsFile, number, spectral_frame, text
from jaxspec.io.quality import Quality
from jaxspec.io.raw import RawSpectrum, ivar_from_sigma
from jaxspec.io.wcs import to_angstrom

NAMES = ("phase3spectrum", "spectrum")
WAVE, FLUX, ERROR, QUALITY = "wavelength", "flux", "error", "quality"
UTYPES = {
    "data.spectralaxis.value": WAVE,
    "data.fluxaxis.value": FLUX,
    "data.fluxaxis.accuracy.staterror": ERROR,
    "data.fluxaxis.accuracy.qualitystatus": QUALITY,
    "data.fluxaxis.accurancy.staterror": ERROR,  # ESO's spelling in GIRAFFE and ESPRESSO products
    "data.fluxaxis.accurancy.qualitystatus": QUALITY,
}
COLUMN_NAMES = {
    WAVE: ("WAVE", "WAVELENGTH", "LAMBDA"),
    FLUX: ("FLUX", "FLUX_REDUCED"),
    ERROR: ("ERR", "ERR_REDUCED", "ERR_FLUX", "FLUX_ERROR", "ERROR", "SIGMA"),
    QUALITY: ("QUAL", "QUAL_REDUCED", "QUALITY"),
}


@dataclass(frozen=True)
class Column:
    name: str
    utype: str  # without its namespace, lower case
    namespace: str  # "spec" for both forms of the IVOA name, or ESO's own "eso"
    ucd: str
    unit: str

    @property
    def suffix(self) -> str:
        """What tells apart two sets of columns in one table: FLUX / ERR and FLUX_REDUCED / ERR_REDUCED."""
        return "_REDUCED" if self.name.upper().endswith("_REDUCED") else ""


def find_table(file: FitsFile) -> Any | None:
    """The table extension that holds a Phase 3 spectrum; None when there is none.

    By name, and by utype where the name is another (or damaged).
    """
    table = file.find(*NAMES)
    if table is not None:
        return table
    for hdu in file.hdus[1:]:
        if hasattr(hdu, "columns") and any(_role_by_utype(c) == WAVE for c in _columns(hdu)):
            return hdu
    return None


def read_phase3(file: FitsFile) -> RawSpectrum:
    """Wavelength, flux, error and quality of one Phase 3 spectrum.

    Air or vacuum comes from the UCD of the wavelength column (`em.wl;obs.atmos` or `em.wl`), the frame from
    SPECSYS, the resolving power from SPEC_RES. An error of NaN or 0 means "no value" there: that pixel gets
    ivar 0. When no pixel has an error the spectrum counts as one without errors. `QUAL` that is not 0 masks
    its pixel.

    Raises `InputError` for missing columns or units, arrays of different lengths, several rows, and a
    wavelength range that contradicts TDMIN/TDMAX or WAVELMIN/WAVELMAX.
    """
    table = find_table(file)
    label = file.label(table)
    if not hasattr(table, "columns") or table.data is None:
        raise InputError(label, "no table", "a binary table with the spectrum", "fetch the file again")
    columns = _columns(table)
    flux_column = _choose(columns, FLUX, label)
    wave_column = _choose(columns, WAVE, label)
    error_column = _partner(columns, ERROR, flux_column)
    quality_column = _partner(columns, QUALITY, flux_column)
    if not wave_column.unit:
        raise InputError(
            label,
            f"no unit (TUNIT) for column {wave_column.name}",
            "nm or Angstrom",
            "add TUNIT to the header",
        )
    wavelength = _cells(table, wave_column, label) * to_angstrom(
        wave_column.unit, f"{label} column {wave_column.name}"
    )
    flux = _cells(table, flux_column, label)
    bits = np.zeros(len(flux), np.int32)
    arrays = {wave_column.name: wavelength, flux_column.name: flux}
    ivar, notes = None, []
    if error_column is not None:
        sigma = _cells(table, error_column, label)
        arrays[error_column.name] = sigma
    if quality_column is not None:
        quality = _cells(table, quality_column, label)
        arrays[quality_column.name] = quality
    lengths = {name: len(values) for name, values in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise InputError(
            label,
            f"columns of different lengths {lengths}",
            "one length (NELEM)",
            "the file is damaged: fetch it again",
        )
    if error_column is not None:
        if np.all(np.isnan(sigma) | (sigma == 0)):
            notes.append(f"column {error_column.name} holds no value at all (NaN or 0)")
        else:
            if (
                error_column.unit
                and flux_column.unit
                and error_column.unit.lower() != flux_column.unit.lower()
            ):
                raise InputError(
                    label,
                    f"errors in {error_column.unit!r} for a flux in {flux_column.unit!r}",
                    "an error in the unit of the flux",
                    "correct the units in the header",
                )
            ivar = ivar_from_sigma(sigma, bits, f"{label} column {error_column.name}")
    if quality_column is not None:
        bits[quality != 0] |= Quality.FLAGGED
    # Where the error says "no value" the flux may be anything, NaN included; `clean` masks by the bits.
    _check_range(file, table, columns, wave_column, wavelength, label)
    return _with_header(file, table, wave_column, flux_column, wavelength, flux, ivar, bits, notes)


def _with_header(file, table, wave_column, flux_column, wavelength, flux, ivar, bits, notes) -> RawSpectrum:
    header, where = file.hdus[0].header, file.where

    def either(key: str) -> Any:
        return header if key in header else table.header

    frame = spectral_frame(either("SPECSYS"), where)
    correction = next((number(header, key, where) for key in _correction_keys(header)), None)
    resolving_power = number(either("SPEC_RES"), "SPEC_RES", where, 0.0)
    if resolving_power and not 100 < resolving_power < 1e6:
        raise InputError(
            where,
            f"SPEC_RES = {resolving_power}",
            "a resolving power between 100 and 1e6",
            "correct the header",
        )
    ucd = wave_column.ucd.replace(" ", "").lower()
    medium = (
        "air" if ucd.startswith("em.wl;obs.atmos") else "vacuum" if ucd.split(";")[0] == "em.wl" else None
    )
    if edited := file.edited:
        notes.append(
            f"header edited after its CHECKSUM was written: {', '.join(edited)} (data sums are right)"
        )
    meta = {
        "object": text(header, "OBJECT"),
        "instrument": text(header, "INSTRUME"),
        "setup": text(header, "DISPELEM"),
        "date": text(header, "DATE-OBS"),
        "program": text(header, "PROG_ID"),
        "flux_column": flux_column.name,
        "flux_unit": flux_column.unit,
        "snr": number(header, "SNR", where, float("nan")),
    }
    return RawSpectrum(
        product="eso-phase3",
        wavelength=wavelength,
        flux=flux,
        ivar=ivar,
        quality=bits,
        medium=medium,
        frame=frame,
        velocity=0.0 if frame == "rest" else None,
        barycentric_correction=correction,
        resolving_power=resolving_power or None,
        star=text(header, "OBJECT") or None,
        meta=meta,
        notes=notes,
    )


def _correction_keys(header) -> list[str]:
    """Keywords of the correction to the barycentre, the GIRAFFE pipeline's first: BARYCORR, then HELICORR."""
    keys = [k for name in ("BARYCORR", "HELICORR") for k in header if k == name or k.endswith(f" {name}")]
    return [k for k in keys if isinstance(header[k], (int, float))]


def _columns(table: Any) -> list[Column]:
    found = []
    for i, name in enumerate(table.columns.names, start=1):
        utype = text(table.header, f"TUTYP{i}")
        namespace, _, rest = utype.partition(":") if ":" in utype else ("spec", ":", utype)
        rest = rest.lower().removeprefix("spectrum.")
        found.append(
            Column(
                name, rest, namespace.lower(), text(table.header, f"TUCD{i}"), text(table.header, f"TUNIT{i}")
            )
        )
    return found


def _role_by_utype(column: Column) -> str | None:
    return UTYPES.get(column.utype)


def _role_by_ucd(column: Column) -> str | None:
    ucd = column.ucd.replace(" ", "").lower()
    if ucd.startswith("em.wl"):
        return WAVE
    if ucd.startswith("stat.error") and "phot.flux" in ucd:
        return ERROR
    if (
        ucd.startswith("phot.flux")
        and "background" not in ucd
        and not column.name.upper().startswith(("BG", "SKY"))
    ):
        return FLUX
    return QUALITY if ucd.startswith("meta.code.qual") else None


def _candidates(columns: list[Column], role: str) -> list[Column]:
    """Columns of a role by the strongest declaration any of them makes; a column whose utype says another
    role never counts."""
    by_utype = [c for c in columns if _role_by_utype(c) == role]
    if by_utype:
        return by_utype
    silent = [c for c in columns if not c.utype]
    by_ucd = [c for c in silent if _role_by_ucd(c) == role]
    if by_ucd:
        return by_ucd
    names = COLUMN_NAMES[role]
    return sorted((c for c in silent if c.name.upper() in names), key=lambda c: names.index(c.name.upper()))


def _choose(columns: list[Column], role: str, label: str) -> Column:
    found = _candidates(columns, role)
    if not found:
        raise InputError(
            label,
            f"no {role} column among {', '.join(c.name for c in columns)}",
            f"a column with a {role} utype, UCD or one of the names {', '.join(COLUMN_NAMES[role])}",
            "check the file",
        )
    # The IVOA namespace marks the principal data; ESO's own holds the versions beside it.
    first = [c for c in found if c.namespace != "eso"] or found
    main = [c for c in first if "meta.main" in c.ucd.lower()] or first
    if (
        len(main) > 1
        and len({c.name for c in main}) > 1
        and role == FLUX
        and not any(c.name.upper() == "FLUX" for c in main)
    ):
        raise InputError(
            label,
            f"several {role} columns ({', '.join(c.name for c in main)})",
            "one principal column",
            "mark one with the UCD word meta.main",
        )
    return next((c for c in main if c.name.upper() == "FLUX"), main[0]) if role == FLUX else main[0]


def _partner(columns: list[Column], role: str, flux: Column) -> Column | None:
    """The error or quality column that belongs to the flux column: same namespace and same kind of name."""
    found = [c for c in _candidates(columns, role) if c.suffix == flux.suffix]
    same = [c for c in found if c.namespace == flux.namespace]
    return next(iter(same or found), None)


def _cells(table: Any, column: Column, label: str) -> np.ndarray:
    values = np.asarray(table.data[column.name])
    if values.dtype.kind not in "fiub":
        raise InputError(label, f"column {column.name} of type {values.dtype}", "numbers", "check the file")
    if values.ndim == 2 and values.shape[0] == 1:
        return values[0].astype(np.float64)
    if values.ndim == 1 and len(values) > 1:
        return values.astype(np.float64)  # one pixel a row: not the standard, but unambiguous
    raise InputError(
        label,
        f"column {column.name} with cells of shape {values.shape}",
        "one row whose cells are arrays",
        "split the file into single spectra first",
    )


def _check_range(
    file: FitsFile, table: Any, columns: list[Column], wave: Column, wavelength: np.ndarray, label: str
) -> None:
    """The file states its range up to three times; a damaged axis or unit contradicts it."""
    header = file.hdus[0].header
    n = columns.index(wave) + 1
    factor = to_angstrom(wave.unit, label)
    nelem = number(table.header, "NELEM", label, float(len(wavelength)))
    if nelem != len(wavelength):
        raise InputError(
            label, f"{len(wavelength)} pixels", f"NELEM = {nelem:.0f}", "the file is damaged: fetch it again"
        )
    finite = wavelength[np.isfinite(wavelength)]
    if not finite.size:
        return
    for low_key, high_key, source, scale in (
        (f"TDMIN{n}", f"TDMAX{n}", table.header, factor),
        ("WAVELMIN", "WAVELMAX", header, 10.0),
    ):
        for key, found in ((low_key, finite.min()), (high_key, finite.max())):
            if key not in source:
                continue
            stated = number(source, key, label) * scale
            # Headers round these to a few digits and some are of the other medium (1.5 A apart).
            if abs(found - stated) > max(3.0, 1e-3 * found):
                raise InputError(
                    label,
                    f"wavelengths {finite.min():.2f}-{finite.max():.2f} A",
                    f"{key} = {stated:.2f} A",
                    "the wavelength column, its unit or the header is wrong",
                )
