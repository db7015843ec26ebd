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
from jaxspec.io.arrays import Array, combine
from jaxspec.io.fitsfile import FitsFile, number, optional_number, spectral_frame, text
from jaxspec.io.image import is_vector
from jaxspec.io.names import ERRORS, MASKS, Name, Role, understand
from jaxspec.io.raw import RawSpectrum
from jaxspec.io.typed import argument
from jaxspec.io.wcs import to_angstrom

NAMES = ("phase3spectrum", "spectrum")
UTYPES = {
    "data.spectralaxis.value": Role.WAVE,
    "data.fluxaxis.value": Role.FLUX,
    "data.fluxaxis.accuracy.staterror": Role.SIGMA,
    "data.fluxaxis.accuracy.qualitystatus": Role.MASK,
    "data.fluxaxis.accurancy.staterror": Role.SIGMA,  # ESO's spelling in GIRAFFE and ESPRESSO products
    "data.fluxaxis.accurancy.qualitystatus": Role.MASK,
}


@dataclass(frozen=True)
class Column:
    name: str
    utype: str  # without its namespace, lower case
    namespace: str  # "spec" for both forms of the IVOA name, or ESO's own "eso"
    ucd: str
    unit: str

    @property
    def understood(self) -> Name:
        """The role that the name itself states."""
        return understand(self.name)

    @property
    def set(self) -> str:
        """The set of columns in a table of two: FLUX / ERR or FLUX_REDUCED / ERR_REDUCED."""
        return self.understood.set


def find_table(file: FitsFile) -> Any | None:
    """The table extension that holds a spectrum; None when there is none.

    By the name that Phase 3 gives it, by utype where the name is another (or damaged), and, in a file without
    a 1-D image, by columns of wavelength and flux.
    """
    table = file.find(*NAMES)
    if table is not None and hasattr(table, "columns"):
        return table
    tables = [hdu for hdu in file.hdus[1:] if hasattr(hdu, "columns")]
    for hdu in tables:
        if any(_role_by_utype(c) == Role.WAVE for c in _columns(hdu)):
            return hdu
    if any(is_vector(hdu) for hdu in file.hdus):
        return None
    return next((hdu for hdu in tables if _has_spectrum(hdu)), table)


def read_phase3(file: FitsFile, unit: str | None = None) -> RawSpectrum:
    """Wavelength, flux, errors and masks of one spectrum in a table; `unit` is of wavelengths without one.

    Air or vacuum comes from the UCD of the wavelength column (`em.wl;obs.atmos` or `em.wl`), the frame from
    SPECSYS, the resolving power from SPEC_RES. What an error or mask leaves undefined marks its pixel
    (`arrays.combine`). When no pixel has an error the spectrum counts as one without errors.

    Raises `InputError` for missing columns or units, arrays of different lengths, several rows, and a
    wavelength range that contradicts TDMIN/TDMAX or WAVELMIN/WAVELMAX.
    """
    table = find_table(file)
    label = file.label(table)
    if table is None or not hasattr(table, "columns") or table.data is None:
        raise InputError(label, "no table", "a binary table with the spectrum", "fetch the file again")
    columns = _columns(table)
    flux_column = _choose(columns, Role.FLUX, label)
    wave_column = _choose(columns, Role.WAVE, label)
    logarithmic = _role(wave_column) == Role.LOG_WAVE
    stated = "Angstrom" if logarithmic else wave_column.unit or wave_column.understood.unit or unit
    if not stated:
        raise InputError(
            label,
            f"no unit (TUNIT) for column {wave_column.name}",
            "nm or Angstrom",
            f"add TUNIT to the header, or give {argument('unit', 'nm')}",
        )
    values = _cells(table, wave_column, label)
    if logarithmic:
        values = 10.0 ** np.clip(values, -300.0, 300.0)
    wavelength = values * to_angstrom(stated, f"{label} column {wave_column.name}")
    flux = _cells(table, flux_column, label)
    companions = [(c, r) for c, r in _partners(columns, flux_column) if _is_array(table, c)]
    arrays = [
        Array(c.name, r, _cells(table, c, label), f"{label} column {c.name}", c.unit) for c, r in companions
    ]
    lengths = {wave_column.name: len(wavelength), flux_column.name: len(flux)}
    lengths |= {array.name: len(array.values) for array in arrays}
    if len(set(lengths.values())) != 1:
        raise InputError(
            label,
            f"columns of different lengths {lengths}",
            "one length (NELEM)",
            "the file is damaged: fetch it again",
        )
    ivar, bits, unused = combine(flux, arrays, flux_column.unit)
    used = {wave_column.name, flux_column.name, *(array.name for array in arrays)}
    unused = [f"column {name}" for name in unused]
    unused += [f"column {c.name}{_what(c)}" for c in columns if c.name not in used]
    for hdu in file.hdus:
        if hdu is not table and hasattr(hdu, "columns") and _has_spectrum(hdu):
            unused.append(f"table {file.label(hdu).removeprefix(file.where)} (another spectrum)")
    # Where the error says "no value" the flux may be anything, NaN included; `clean` masks by the bits.
    _check_range(file, table, columns, wave_column, wavelength, label, stated)
    return _with_header(file, table, wave_column, flux_column, wavelength, flux, ivar, bits, unused)


def _with_header(file, table, wave_column, flux_column, wavelength, flux, ivar, bits, unused) -> RawSpectrum:
    header = file.hdus[0].header
    notes: list[str] = []

    def either(key: str) -> Any:
        return header if key in header else table.header

    frame, strange = spectral_frame(either("SPECSYS"))
    corrections = (optional_number(header, key, notes, -1000.0, 1000.0) for key in _correction_keys(header))
    correction = next((value for value in corrections if value is not None), None)
    resolving_power = optional_number(either("SPEC_RES"), "SPEC_RES", notes, 100.0, 1e6)
    ucd = wave_column.ucd.replace(" ", "").lower()
    medium = (
        "air"
        if ucd.startswith("em.wl;obs.atmos")
        else "vacuum"
        if ucd.split(";")[0] == "em.wl"
        else wave_column.understood.medium
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
        "snr": float("nan") if (snr := optional_number(header, "SNR", notes)) is None else snr,
    }
    standard = table.name.lower() in NAMES or any(_role_by_utype(c) == Role.WAVE for c in _columns(table))
    return RawSpectrum(
        product="eso-phase3" if standard else "table",
        wavelength=wavelength,
        flux=flux,
        ivar=ivar,
        quality=bits,
        medium=medium,
        frame=frame,
        velocity=0.0 if frame == "rest" else None,
        barycentric_correction=correction,
        resolving_power=resolving_power,
        star=text(either("OBJECT"), "OBJECT") or None,
        meta=meta,
        notes=notes,
        unused=unused,
        strange_frame=strange,
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


def _role_by_utype(column: Column) -> Role | None:
    return UTYPES.get(column.utype)


def _role_by_ucd(column: Column) -> Role | None:
    """Role by UCD and, where the UCD leaves it open, the name: variances have the UCD of errors."""
    ucd, name = column.ucd.replace(" ", "").lower(), column.understood.role
    if ucd.startswith("em.wl"):
        return Role.LOG_WAVE if name == Role.LOG_WAVE else Role.WAVE
    if ucd.startswith("stat.error") and ("phot.flux" in ucd or "phot.count" in ucd):
        return name if name in ERRORS else Role.SIGMA
    if ucd.startswith("stat.variance"):
        return name if name in ERRORS else Role.VARIANCE
    if ucd.startswith(("phot.flux", "phot.count")) and "background" not in ucd:
        # Many writers give every column the flux's UCD.
        return name if name in (*ERRORS, Role.OTHER) else Role.FLUX
    if ucd.startswith("meta.code.qual"):
        return Role.GOOD if name == Role.GOOD else Role.MASK
    return None


def _role(column: Column) -> Role | None:
    """Role of a column by the strongest of its declarations."""
    if column.utype:
        return _role_by_utype(column)
    return _role_by_ucd(column) or column.understood.role


def _what(column: Column) -> str:
    role = _role(column)
    return f" ({role})" if role not in (None, Role.OTHER) else ""


def _has_spectrum(table: Any) -> bool:
    roles = {_role(c) for c in _columns(table)}
    return Role.FLUX in roles and bool(roles & {Role.WAVE, Role.LOG_WAVE})


def _candidates(columns: list[Column], role: Role) -> list[Column]:
    """Columns of a role by the strongest declaration any of them makes; a column whose utype says another
    role never counts."""
    roles = (Role.WAVE, Role.LOG_WAVE) if role == Role.WAVE else (role,)
    by_utype = [c for c in columns if _role_by_utype(c) in roles]
    if by_utype:
        return by_utype
    silent = [c for c in columns if not c.utype]
    by_ucd = [c for c in silent if _role_by_ucd(c) in roles]
    if by_ucd:
        return by_ucd
    named = [c for c in silent if _role(c) in roles]
    return sorted(named, key=lambda c: (c.understood.rank, roles.index(_role(c))))


def _choose(columns: list[Column], role: Role, label: str) -> Column:
    found = _candidates(columns, role)
    if not found:
        example = "FLUX" if role == Role.FLUX else "WAVE"
        raise InputError(
            label,
            f"no {role} column among {', '.join(c.name for c in columns)}",
            f"a column with a {role} utype, UCD or a name such as {example}",
            f"rename the column that holds it {example}",
        )
    # The IVOA namespace marks the principal data; ESO's own holds the versions beside it.
    first = [c for c in found if c.namespace != "eso"] or found
    main = [c for c in first if "meta.main" in c.ucd.lower()] or first
    if role == Role.FLUX and len({c.name for c in main}) > 1:
        best = [c for c in main if c.understood.rank == main[0].understood.rank]
        main = [c for c in main if c.name.upper() == "FLUX"] or (best if best == main[:1] else main)
        if len({c.name for c in main}) > 1:
            raise InputError(
                label,
                f"several {role} columns ({', '.join(c.name for c in main)})",
                "one principal column",
                "name the one to use FLUX, or mark it with the UCD word meta.main",
            )
    return main[0]


def _partners(columns: list[Column], flux: Column) -> list[tuple[Column, Role]]:
    """Errors and masks that belong to the flux column: same namespace and same set of names; without another
    flux, errors of any set are its own."""
    single = len({c.name for c in columns if _role(c) == Role.FLUX}) == 1
    partners = []
    for role in (*ERRORS, *MASKS):
        found = [c for c in columns if _role(c) == role]
        same = [c for c in found if c.set == flux.set] or (found if single else [])
        main = [c for c in same if c.namespace == flux.namespace] or same
        # Errors of two namespaces belong to two calibrations of the flux; of one, all must agree.
        partners += [(c, role) for c in main]
    return partners


def _is_array(table: Any, column: Column) -> bool:
    """Whether a column holds one value a pixel, and not one for the whole spectrum."""
    values = table.data[column.name]
    return len(values) > 1 or np.size(values[0]) > 1


def _cells(table: Any, column: Column, label: str) -> np.ndarray:
    """Values of a column as float64, NaN where they are undefined (TNULL)."""
    values, cells = np.asarray(table.data[column.name]), table.columns[column.name]
    if values.dtype.kind == "O" and len(values) == 1:
        values = np.asarray(values[0])[None]
    if values.dtype.kind not in "fiub":
        raise InputError(label, f"column {column.name} of type {values.dtype}", "numbers", "check the file")
    if values.size != max(values.shape, default=0) or values.size < 2:
        raise InputError(
            label,
            f"column {column.name} with cells of shape {values.shape}",
            "one row whose cells are arrays, or one pixel a row",
            "split the file into single spectra first",
        )
    numbers = values.reshape(-1).astype(np.float64)
    if cells.null is not None and isinstance(cells.null, (int, np.integer)):
        scale, zero = cells.bscale or 1.0, cells.bzero or 0.0
        numbers[numbers == float(cells.null) * float(scale) + float(zero)] = np.nan
    return numbers


def _check_range(
    file: FitsFile,
    table: Any,
    columns: list[Column],
    wave: Column,
    wavelength: np.ndarray,
    label: str,
    unit: str,
) -> None:
    """The file states its range up to three times; a damaged axis or unit contradicts it."""
    header = file.hdus[0].header
    n = columns.index(wave) + 1
    factor = to_angstrom(unit, label)
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
            stated = number(source, key, label, np.nan) * scale
            if np.isnan(stated):
                continue
            if _role(wave) == Role.LOG_WAVE and key.startswith("TD"):
                stated = 10.0 ** min(stated / scale, 300.0)
            # Headers round these to a few digits and some are of the other medium (1.5 A apart).
            if abs(found - stated) > max(3.0, 1e-3 * found):
                raise InputError(
                    label,
                    f"wavelengths {finite.min():.2f}-{finite.max():.2f} A",
                    f"{key} = {stated:.2f} A",
                    "the wavelength column, its unit or the header is wrong",
                )
