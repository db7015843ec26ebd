"""Optical spectra of SDSS, BOSS and SDSS-V, and the Milky Way Mapper's files of both instruments
(data.sdss.org/datamodel: spec-lite, spec-full, mwmStar, mwmVisit; Dawson et al. 2013; SDSS DR19, astra).

- spec: HDU 1 is the coadded spectrum, one pixel a row (flux, loglam, ivar, and_mask, or_mask, wdisp), in
  vacuum and heliocentric; a later table (SPECOBJ, SPALL) has the pipeline's class, redshift and labels; full
  files add the single exposures, which are not read.
- mwmStar, mwmVisit: four tables (BOSS/APO, BOSS/LCO, APOGEE/APO, APOGEE/LCO), some empty, one spectrum a row,
  at rest, in vacuum. mwmVisit has no column of wavelengths: they are log-linear by CRVAL and CDELT of the
  table.

Only pixels that are bad in every exposure are masked (and_mask); of mwm files, whose flags are those of any
exposure, only the bits that spoil the mean (`BOSS_FATAL`), and APOGEE's own.
"""

from typing import Any

import numpy as np

from jaxspec.errors import InputError
from jaxspec.instruments import SPEED_OF_LIGHT
from jaxspec.io import apogee
from jaxspec.io.fitsfile import FitsFile, number, spectral_frame, text
from jaxspec.io.parts import (
    cells,
    choose,
    columns_of,
    labels_of,
    masked,
    pixel_rows,
    same_length,
    text_of,
    value_of,
    velocity_of_redshift,
)
from jaxspec.io.raw import RawSpectrum

# SPPIXMASK: bits 4-12 describe the fibre (MANYBADCOLUMNS ... SMEARMEDSN) and would mask every pixel of it.
BOSS_FIBRE = sum(1 << bit for bit in range(4, 13))
# FULLREJECT, NOSKY, BRIGHTSKY, NODATA: nothing is left in the mean.
BOSS_FATAL = sum(1 << bit for bit in (18, 22, 23, 24))
BOSS_R = 1800.0  # nominal; files with WDISP have it pixel by pixel
MANY_OUTLIERS = 1 << 4  # of ZWARNING: set for most bright stars, whose noise the templates cannot match
SPEC_LABELS = {
    "teff": ("ELODIE_TEFF",),
    "logg": ("ELODIE_LOGG",),
    "fe_h": ("ELODIE_FEH",),
}
MWM_LABELS = {
    "teff": ("teff", "xcsao_teff", "doppler_teff"),
    "e_teff": ("e_teff", "xcsao_e_teff", "doppler_e_teff"),
    "logg": ("logg", "xcsao_logg", "doppler_logg"),
    "e_logg": ("e_logg", "xcsao_e_logg", "doppler_e_logg"),
    "fe_h": ("fe_h", "xcsao_fe_h", "doppler_fe_h"),
    "e_fe_h": ("e_fe_h", "xcsao_e_fe_h", "doppler_e_fe_h"),
}


def is_spec(file: FitsFile) -> bool:
    """Whether HDU 1 is a table with flux, loglam and ivar."""
    return len(file) > 1 and {"flux", "loglam", "ivar"} <= columns_of(file.hdus[1]).keys()


def is_mwm(file: FitsFile) -> bool:
    """Whether the tables are those of mwmStar, mwmVisit or astra's own files."""
    header = file.hdus[0].header
    tables = [columns_of(hdu).keys() for hdu in file.hdus[1:]]
    known = any({"flux", "ivar", "pixel_flags"} <= names or "model_flux" in names for names in tables)
    return known and (
        "V_ASTRA" in header or "SDSS_ID" in header or any("sdss_id" in names for names in tables)
    )


def read_spec(file: FitsFile, select: str | None = None) -> RawSpectrum:
    """The coadded spectrum of a spec file; the velocity is c Z of the pipeline, of stars it is sure of.

    Raises: InputError for columns of other types or lengths.
    """
    choose(file.where, ["coadd"], select, "spectrum")
    hdu, header = file.hdus[1], file.hdus[0].header
    names, where = columns_of(hdu), file.label(hdu)
    single = not pixel_rows(hdu, names["flux"])
    if single and len(hdu.data) != 1:
        raise InputError(where, f"{len(hdu.data)} rows of arrays", "one spectrum", "split the file first")
    columns = {
        key: cells(hdu, names[key], 0 if single else None, where)
        for key in ("flux", "loglam", "ivar", "and_mask", "or_mask", "wdisp")
        if key in names
    }
    same_length(where, **columns)
    notes: list[str] = []
    bad = None
    if "and_mask" in columns:
        bad = (columns["and_mask"].astype(np.int64) & ~BOSS_FIBRE) != 0
    elif "or_mask" in columns:
        bad = (columns["or_mask"].astype(np.int64) & BOSS_FATAL) != 0
        notes.append("no AND_MASK: of OR_MASK the bits FULLREJECT, NOSKY, BRIGHTSKY and NODATA mask a pixel")
    else:
        notes.append("neither AND_MASK nor OR_MASK: pixels are judged by ivar alone")
    wavelength = 10.0 ** columns["loglam"]
    lsf = None
    if "wdisp" in columns and (columns["wdisp"] > 0).any():
        # WDISP is a Gaussian sigma in pixels of the coadded grid.
        step = np.gradient(columns["loglam"])
        lsf = np.where(columns["wdisp"] > 0, columns["wdisp"] * step * np.log(10.0) * wavelength, np.nan)
    values = masked(columns["flux"], columns["ivar"], bad)
    exposures = sum({"flux", "loglam", "ivar"} <= columns_of(h).keys() for h in file.hdus[2:])
    if exposures:
        notes.append(f"coadded spectrum read; {exposures} single exposures not used")
    row: Any = next((h.data[0] for h in file.hdus[2:] if "zwarning" in columns_of(h) and len(h.data)), {})
    kind, warned = text_of(row, "CLASS").upper(), value_of(row, "ZWARNING")
    z = value_of(row, "Z") if kind == "STAR" else None
    if kind and kind != "STAR":
        notes.append(f"classified by the survey as {kind}, not as a star: its redshift is not used")
    if warned and int(warned) & ~MANY_OUTLIERS:
        notes.append(f"ZWARNING = {int(warned)}: the survey's redshift is not used")
        z = None
    error = value_of(row, "Z_ERR")
    velocity = velocity_of_redshift(z)
    vacuum, ours = header.get("VACUUM"), _is_sdss(file)
    if not ours:
        notes.append("SDSS columns in a file that does not name SDSS: medium and frame are the header's")
    frame, strange = ("barycentric", None) if ours else spectral_frame(header)
    return RawSpectrum(
        product="sdss-spec",
        wavelength=wavelength,
        flux=values[0],
        ivar=values[1],
        quality=values[2],
        medium={True: "vacuum", False: "air"}.get(vacuum, "vacuum" if ours else None),
        frame=frame,
        strange_frame=strange,
        velocity=velocity,
        velocity_error=SPEED_OF_LIGHT * error if velocity is not None and error and error > 0 else None,
        resolving_power=BOSS_R if ours else None,
        lsf=lsf,
        star=_star(header, row),
        meta={
            "object": _star(header, row),
            "instrument": text(header, "INSTRUME") or "BOSS",
            "date": text(header, "DATE-OBS"),
            "ra": value_of(header, "PLUG_RA", "RADEG", "RA"),
            "dec": value_of(header, "PLUG_DEC", "DECDEG", "DEC"),
            "snr": value_of(row, "SN_MEDIAN_ALL", "SN_MEDIAN"),
            "identifiers": {
                key.lower(): text_of(source, key)
                for key in (
                    "PLATEID",
                    "PLATE",
                    "FIELD",
                    "MJD",
                    "FIBERID",
                    "FIBER",
                    "CATALOGID",
                    "SDSS_ID",
                    "THING_ID",
                )
                for source in (row, header)
                if text_of(source, key)
            },
            "flags": {"zwarning": int(warned) if warned is not None else None},
            "survey_labels": {
                **labels_of(row, SPEC_LABELS),
                "class": kind,
                "subclass": text_of(row, "SUBCLASS"),
                "z": value_of(row, "Z"),
            },
        },
        notes=notes,
    )


def _is_sdss(file: FitsFile) -> bool:
    """Whether the header or a later table shows that SDSS's own pipeline wrote the file."""
    header = file.hdus[0].header
    said = any(key in header for key in ("VERS2D", "RUN2D", "PLATEID", "CARTID", "EXPID01"))
    tables = any("zwarning" in columns_of(hdu) for hdu in file.hdus[2:])
    return said or tables or "SDSS" in text(header, "TELESCOP").upper()


def _star(header: Any, row: Any) -> str | None:
    identifier = text_of(row, "SDSS_ID", "THING_ID") or text_of(header, "SDSS_ID")
    if identifier and identifier not in ("0", "-1", "-999"):
        return f"SDSS {identifier}"
    where = [text_of(row, k) or text_of(header, k) for k in ("PLATE", "MJD", "FIBERID")]
    where = where if all(where) else [text_of(header, k) for k in ("PLATEID", "MJD", "FIBERID")]
    return "SDSS " + "-".join(where) if all(where) else text_of(header, "OBJECT", "CATALOGID") or None


def read_mwm(file: FitsFile, select: str | None = None) -> RawSpectrum:
    """One spectrum of a Milky Way Mapper file: `select` is the table and, of several rows, the visit's date
    ("boss/apo", "apogee/lco/59804").

    Raises: InputError for a file without any spectrum, for one that holds only model spectra, and for several
    spectra without `select`.
    """
    entries: dict[str, tuple[Any, int]] = {}
    models = False
    for hdu in file.hdus[1:]:
        names = columns_of(hdu)
        models |= "model_flux" in names and "flux" not in names
        if not {"flux", "ivar"} <= names.keys() or hdu.data is None:
            continue
        table = text(hdu.header, "EXTNAME").lower() or "spectra"
        for row in range(len(hdu.data)):
            key = (
                table if len(hdu.data) == 1 else f"{table}/{text_of(hdu.data[row], 'mjd', 'MJD') or row + 1}"
            )
            entries[key if key not in entries else f"{key}-{row + 1}"] = (hdu, row)
    if not entries:
        raise InputError(
            file.where,
            "model spectra only (model_flux)" if models else "tables without any spectrum",
            "an observed spectrum (flux, ivar)",
            "give the mwmStar or mwmVisit file of this star",
        )
    chosen = choose(file.where, list(entries), select.lower() if select else None, "spectrum")
    hdu, index = entries[chosen]
    names, where, row = columns_of(hdu), f"{file.label(hdu)} row {index + 1}", hdu.data[index]
    flux, ivar = (cells(hdu, names[key], index, where) for key in ("flux", "ivar"))
    notes: list[str] = []
    if "wavelength" in names:
        wavelength = cells(hdu, names["wavelength"], index, where)
    else:
        keys = [key if key in hdu.header else f"{key}1" for key in ("CRVAL", "CDELT", "CRPIX")]
        start, step = number(hdu.header, keys[0], where), number(hdu.header, keys[1], where)
        wavelength = 10.0 ** (
            start + step * (np.arange(1, len(flux) + 1) - number(hdu.header, keys[2], where, 1.0))
        )
    infrared = np.median(wavelength) > 12000
    bits = apogee.BAD_BITS if infrared else BOSS_FATAL
    flags = next((names[key] for key in ("pixel_flags", "bitmask", "or_mask") if key in names), None)
    if flags is None:
        bad = np.zeros(len(flux), bool)
        notes.append("no pixel_flags: pixels are judged by ivar alone")
    else:
        bad = (cells(hdu, flags, index, where).astype(np.int64) & bits) != 0
    same_length(where, wavelength=wavelength, flux=flux, ivar=ivar, pixel_flags=bad)
    values = masked(flux, ivar, bad)
    header = file.hdus[0].header
    identifier = text_of(header, "SDSS_ID") or text_of(row, "sdss_id")
    return RawSpectrum(
        product="sdss-mwm",
        wavelength=wavelength,
        flux=values[0],
        ivar=values[1],
        quality=values[2],
        medium="air" if "air" in text(hdu.header, "CUNIT").lower() else "vacuum",
        frame="rest",
        velocity=0.0,
        resolving_power=apogee.RESOLVING_POWER if infrared else BOSS_R,
        star=f"SDSS {identifier}" if identifier else None,
        meta={
            "object": identifier,
            "instrument": "APOGEE" if infrared else "BOSS",
            "ra": value_of(header, "RA"),
            "dec": value_of(header, "DEC"),
            "snr": value_of(row, "snr"),
            "velocity_barycentric": value_of(row, "v_rad", "xcsao_v_rad", "v_rel"),
            "identifiers": {
                key.lower(): text_of(header, key)
                for key in ("SDSS_ID", "GAIA3_ID", "GAIA2_ID", "APOGEEID", "TIC_ID")
            },
            "release": text_of(header, "V_ASTRA"),
            "flags": {
                key: value
                for key in ("spectrum_flags", "zwarning_flags", "nmf_flags", "in_stack", "result_flags")
                if (value := value_of(row, key)) is not None
            },
            "survey_labels": labels_of(row, MWM_LABELS),
            "table": text(hdu.header, "EXTNAME"),
        },
        notes=notes,
        selected=chosen.replace("/", "-") if len(entries) > 1 else None,
    )
