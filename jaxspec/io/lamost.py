"""Spectra of LAMOST, low and medium resolution (data-production descriptions of releases 1 to 11,
www.lamost.org; Luo et al. 2015, RAA 15, 1095).

Three layouts are in use:

- Low resolution until DR7: rows of the primary image, named by EXTEN0. The third row is the
  continuum-normalised flux in early releases ("Subcontinuum") and the wavelength in later ones; wavelengths
  are also log-linear by COEFF0 and COEFF1.
- Low resolution from DR8: a table COADD of one row whose cells are FLUX, IVAR, WAVELENGTH, ANDMASK, ORMASK
  and NORMALIZATION.
- Medium resolution: a table for each arm (COADD_B, COADD_R), and one for each arm and exposure
  (B-84420148, named by local modified Julian minute), with WAVELENGTH or LOGLAM and PIXMASK in exposures.

The second row ("Inverse") is the inverse variance: flux times its root agrees with the header's S/N. Pixels
that are bad in every exposure (ANDMASK, or PIXMASK of one exposure) are masked; those bad in some (ORMASK)
are good in the mean and are used.
"""

import re
from typing import Any

import numpy as np

from jaxspec.errors import InputError
from jaxspec.instruments import SPEED_OF_LIGHT
from jaxspec.io.fitsfile import FitsFile, number, text
from jaxspec.io.parts import (
    Part,
    cells,
    choose,
    columns_of,
    join,
    masked,
    pixel_rows,
    same_length,
    text_of,
    value_of,
    velocity_of_redshift,
)
from jaxspec.io.raw import RawSpectrum

LOW, MEDIUM = 1800.0, 7500.0  # nominal resolving powers
ROWS = {
    "flux": "flux",
    "inverse": "ivar",
    "invvar": "ivar",
    "ivar": "ivar",
    "wavelength": "wavelength",
    "wave": "wavelength",
    "subcontinuum": "normalised",
    "normalization": "normalised",
    "normalized": "normalised",
    "andmask": "andmask",
    "ormask": "ormask",
}
EXPOSURE = re.compile(r"^([BR])-?(\d+)$")


def is_lamost(file: FitsFile) -> bool:
    """Whether this is one of the layouts above, by the telescope or the names of rows and columns."""
    header = file.hdus[0].header
    ours = "LAMOST" in f"{text(header, 'TELESCOP')} {text(header, 'ORIGIN')}".upper()
    data = file.hdus[0].data
    rows = isinstance(data, np.ndarray) and data.ndim == 2 and len(data) > 2
    if rows and (ours or {"flux", "ivar"} <= set(_row_names(header) or ())):
        return True
    return any(
        {"flux", "ivar"} <= set(names) and (ours or {"wavelength", "andmask", "ormask"} <= set(names))
        for names in (columns_of(hdu) for hdu in file.hdus[1:])
    )


def read_lamost(file: FitsFile, select: str | None = None) -> RawSpectrum:
    """Flux, ivar and velocity of one LAMOST spectrum.

    The velocity is c Z of the header (of stars), on the heliocentric axis. Of a medium-resolution file the
    coadded arms are read, or with `select` one exposure ("84420148", its minute).

    Raises: InputError for rows that are not what EXTEN0 says, wavelengths that contradict COEFF0 and COEFF1,
    and medium-resolution files of several exposures without a coadded spectrum.
    """
    header = file.hdus[0].header
    notes: list[str] = []
    if isinstance(file.hdus[0].data, np.ndarray):
        if select is not None:
            choose(file.where, ["coadd"], select, "spectrum")
        part, headers, resolving_power, chosen = _from_rows(file, notes), [header], LOW, None
        product = "lamost-lrs"
    else:
        part, headers, resolving_power, chosen = _from_tables(file, select, notes)
        product = "lamost-lrs" if resolving_power == LOW else "lamost-mrs"
    vacuum = _flag("VACUUM", headers, file.where)
    if vacuum is None:
        notes.append("no VACUUM in the header: vacuum, as all LAMOST spectra are")
    helio = _flag("HELIO", headers, file.where)
    source = headers[0]
    kind = text_of(source, "CLASS").upper()
    z = value_of(source, "Z") if kind in ("", "STAR") else None
    velocity = velocity_of_redshift(z)
    error = value_of(source, "Z_ERR")
    if kind and kind != "STAR":
        notes.append(f"classified by the survey as {kind}, not as a star: its redshift is not used")
    meta: dict[str, Any] = {
        "object": text(source, "OBJNAME") or text(source, "OBJECT"),
        "instrument": "LAMOST",
        "date": text(source, "DATE-OBS"),
        "ra": value_of(source, "RA"),
        "dec": value_of(source, "DEC"),
        "identifiers": _present(
            source, "OBSID", "DESIG", "UID", "GP_ID", "LMJD", "PLANID", "SPID", "FIBERID"
        ),
        "release": text(source, "DATA_V"),
        "survey_labels": _present(source, "CLASS", "SUBCLASS", "Z", "Z_ERR"),
        "flags": _present(source, "FIBERTYP", "OBJTYPE"),
        "snr": value_of(source, "SNRG", "SN_G", "SNR"),
        "snr_bands": _present(
            source, "SNRU", "SNRG", "SNRR", "SNRI", "SNRZ", "SN_U", "SN_G", "SN_R", "SN_I", "SN_Z"
        ),
        "helio_rv": value_of(source, "HELIO_RV"),
    }
    return RawSpectrum(
        product=product,
        wavelength=part.wavelength,
        flux=part.flux,
        ivar=part.ivar,
        quality=part.quality,
        medium="air" if vacuum is False else "vacuum",
        frame={True: "barycentric", False: "topocentric", None: None}[helio],
        velocity=velocity,
        velocity_error=SPEED_OF_LIGHT * error if velocity is not None and error and error > 0 else None,
        barycentric_correction=_correction(source) if helio is False else None,
        resolving_power=resolving_power,
        star=text_of(source, "DESIG") or text_of(source, "OBSID") or None,
        meta=meta,
        notes=notes,
        selected=chosen,
    )


def _correction(header: Any) -> float | None:
    """The velocity to add on an uncorrected axis: minus HELIO_RV, whose sign is SDSS's (that of the
    shift to be taken out; astropy gives +26.8 km/s where a real header has -26.4)."""
    shift = value_of(header, "HELIO_RV")
    return None if shift is None else -shift


def _present(header: Any, *keys: str) -> dict[str, Any]:
    return {key.lower(): header[key] for key in keys if key in header and str(header[key]).strip()}


def _flag(key: str, headers: list[Any], where: str) -> bool | None:
    """A logical keyword of the headers, which must agree; None where none has it."""
    said = set()
    for header in headers:
        if key in header:
            value = str(header[key]).strip().upper()
            if value in ("T", "TRUE", "1"):
                said.add(True)
            elif value in ("F", "FALSE", "0"):
                said.add(False)
    if len(said) > 1:
        raise InputError(
            where, f"{key} = T in one header and F in another", "one value", "correct the headers"
        )
    return said.pop() if said else None


def _row_names(header: Any) -> list[str] | None:
    """Roles of the rows of the primary image, as EXTEN0 says; None without EXTEN0 or with a word unknown."""
    words = re.split(r"[\s,;/]+", text(header, "EXTEN0").lower())
    names = [ROWS.get(word) for word in words if word]
    return None if not names or None in names else [str(name) for name in names]


def _from_rows(file: FitsFile, notes: list[str]) -> Part:
    hdu = file.hdus[0]
    header, data, where = hdu.header, np.asarray(hdu.data, np.float64), f"{file.where}[PRIMARY]"
    names = _row_names(header)
    if names is None and text(header, "EXTEN0"):
        raise InputError(
            where,
            f"EXTEN0 = {text(header, 'EXTEN0')!r}",
            "names of rows among Flux, Inverse, Wavelength, Subcontinuum, Andmask, Ormask",
            "correct EXTEN0 or convert the file to a table",
        )
    if data.ndim != 2 or (names is not None and len(names) != len(data)):
        raise InputError(
            where,
            f"an image of {' x '.join(map(str, data.shape[::-1]))} pixels",
            f"{len(names or ROWS)} rows, as EXTEN0 = {text(header, 'EXTEN0')!r} says"
            if names
            else "rows of flux, inverse variance, wavelength and two masks",
            "the file is damaged: fetch it again",
        )
    if names is None:
        third = "wavelength" if _is_axis(data[2]) else "normalised"
        names = ["flux", "ivar", third, "andmask", "ormask"][: len(data)]
        notes.append(f"no EXTEN0: rows taken as {', '.join(names)}")
    if len(set(names)) < len(names):
        raise InputError(
            where, f"EXTEN0 = {text(header, 'EXTEN0')!r}", "each row named once", "correct EXTEN0"
        )
    row = dict(zip(names, data, strict=True))
    if missing := [name for name in ("flux", "ivar") if name not in row]:
        raise InputError(
            where,
            f"rows {', '.join(names)}",
            f"one of {' and '.join(missing)} among them",
            "fetch the file again",
        )
    if "normalised" in row and _is_axis(row["normalised"]):
        raise InputError(
            where,
            "wavelengths in the row that EXTEN0 names Subcontinuum",
            "the continuum-normalised flux there",
            "correct EXTEN0: 'Flux Inverse Wavelength Andmask Ormask'",
        )
    wavelength = None
    if "COEFF0" in header:
        steps = np.arange(data.shape[1])
        wavelength = 10.0 ** (number(header, "COEFF0", where) + number(header, "COEFF1", where) * steps)
    if "wavelength" in row:
        stated = row["wavelength"]
        if not _is_axis(stated):
            raise InputError(
                where,
                f"a row of wavelengths from {stated[0]:.5g} to {stated[-1]:.5g} that does not increase",
                "wavelengths in A",
                "correct EXTEN0: 'Subcontinuum' where the third row is a normalised flux",
            )
        # float32 keeps 0.0005 A; COEFF0 is written to five digits (0.04 A).
        if wavelength is not None and np.abs(wavelength - stated).max() > 0.2:
            raise InputError(
                where,
                f"wavelengths {stated[0]:.2f}-{stated[-1]:.2f} A in a row, {wavelength[0]:.2f}-"
                f"{wavelength[-1]:.2f} A by COEFF0 and COEFF1",
                "one axis",
                "one of them is damaged: fetch the file again",
            )
        wavelength = stated
    if wavelength is None:
        raise InputError(
            where,
            "neither a row of wavelengths nor COEFF0 and COEFF1",
            "wavelengths",
            "add COEFF0 and COEFF1 (log10 of A) to the header",
        )
    bad = row["andmask"] != 0 if "andmask" in row else None
    return Part("coadd", wavelength, *masked(row["flux"], row["ivar"], bad))


def _is_axis(values: np.ndarray) -> bool:
    return bool(np.all(np.diff(values) > 0) and values[0] > 2000 and values[-1] < 30000)


def _from_tables(
    file: FitsFile, select: str | None, notes: list[str]
) -> tuple[Part, list[Any], float, str | None]:
    """Joined arms, the headers that speak for them, the resolving power, and the choice made (None for the
    only one)."""
    tables: dict[str, list[tuple[str, Any]]] = {}
    for hdu in file.hdus[1:]:
        names = columns_of(hdu)
        if not ("flux" in names and {"wavelength", "loglam"} & set(names)):
            continue
        name = text(hdu.header, "EXTNAME").upper()
        exposure = EXPOSURE.match(name)
        key = exposure.group(2) if exposure else "coadd"
        tables.setdefault(key, []).append((name or "table", hdu))
    if not tables:
        raise InputError(
            file.where,
            "no table with FLUX and WAVELENGTH",
            "a table COADD, COADD_B or COADD_R",
            "the file is incomplete (some have no coadded spectrum): fetch it again",
        )
    keys = sorted(tables, key=lambda key: (key != "coadd", key))
    chosen = choose(file.where, keys, select, "exposure", default="coadd" if "coadd" in tables else None)
    if len(keys) > 1 and select is None:
        others = [key for key in keys if key != chosen]
        notes.append(
            f"coadded arms read; {len(others)} single exposures not used (select={others[0]!r}, ...)"
        )
    medium = any(name.startswith(("COADD_", "B-", "R-")) for items in tables.values() for name, _ in items)
    arms = [name for name, _ in tables[chosen]]
    if medium and len(arms) == 1:
        notes.append(f"arm {arms[0]} alone: the file holds no other of this choice")
    parts = [_arm(file, name, hdu) for name, hdu in tables[chosen]]
    headers = [file.hdus[0].header, *(hdu.header for _, hdu in tables[chosen])]
    return (
        join(parts, notes),
        headers,
        MEDIUM if medium else LOW,
        chosen if len(keys) > 1 else None,
    )


def _arm(file: FitsFile, name: str, hdu: Any) -> Part:
    names, where = columns_of(hdu), file.label(hdu)
    single = not pixel_rows(hdu, names["flux"])
    if single and len(hdu.data) != 1:
        raise InputError(
            where, f"{len(hdu.data)} rows", "one row for one spectrum", "split the file into single spectra"
        )
    if "ivar" not in names:
        raise InputError(where, f"columns {', '.join(names)}", "a column IVAR", "fetch the file again")
    row = 0 if single else None

    def column(key: str) -> np.ndarray:
        return cells(hdu, names[key], row, where)

    wavelength = column("wavelength") if "wavelength" in names else 10.0 ** column("loglam")
    flux, ivar = column("flux"), column("ivar")
    mask = next((key for key in ("andmask", "pixmask", "mask") if key in names), None)
    bad = np.zeros(len(flux), bool) if mask is None else column(mask) != 0
    same_length(where, wavelength=wavelength, flux=flux, ivar=ivar, mask=bad)
    order = np.argsort(wavelength, kind="stable")  # medium-resolution tables are not always in order
    return Part(name, wavelength[order], *masked(flux[order], ivar[order], bad[order]))
