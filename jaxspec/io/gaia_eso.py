"""Single-spectrum FITS files of the Gaia-ESO survey (GIRAFFE, CASU pipeline; Gilmore et al. 2022, A&A 666,
A120).

Primary: flux in counts with a linear air axis. `final_ivar`: its inverse variance. `normalised_spectrum`,
`normalised_ivar`: the same divided by the pipeline's continuum. `Fibinfo`: one row with the target, the
velocity of the best template and the heliocentric correction. `velclass`: one row with the final radial
velocity, S/N and class.

Flux and `final_ivar` are what we read: `normalised_ivar` is *not* the inverse variance of the normalised
spectrum (it is `final_ivar` times the continuum to the first power, which makes S/N 1 of a spectrum of S/N
130), and our own normaliser wants the counts anyway. The axis is written four times, and all four must agree:
the primary's own header checksum is stale in genuine files, because IRAF edited the header after it was
computed.
"""

from typing import Any

import numpy as np

from jaxspec.errors import InputError
from jaxspec.io.fitsfile import FitsFile, optional_number, text
from jaxspec.io.raw import RawSpectrum
from jaxspec.io.typed import argument
from jaxspec.io.wcs import axis_from_header

MARKS = ("final_ivar", "normalised_spectrum", "normalised_ivar", "velclass", "fibinfo")
SETUPS = {"H548.8": "hr10", "H875.7": "hr21"}


def is_gaia_eso(file: FitsFile) -> bool:
    """Whether any extension of this layout is there (a damaged file has lost some)."""
    return any(file.find(name) is not None for name in MARKS)


def read_gaia_eso(file: FitsFile) -> RawSpectrum:
    """Flux, ivar and velocity of one Gaia-ESO spectrum.

    The wavelength axis is air (CTYPE1 = AWAV). `velclass.VEL` is the star's velocity on this very axis, so it
    takes the spectrum to rest whatever the frame; the frame is barycentric when the pipeline applied a
    correction (`Fibinfo.Helio_cor` not zero), topocentric otherwise, and unknown without `Fibinfo`. Without
    VEL (missing table, NaN, sentinel) the velocity stays unknown. Raises `InputError` for a missing
    `final_ivar`, axes that disagree, or flux that is not the normalised spectrum times a smooth continuum.
    """
    primary, header = file.hdus[0], file.hdus[0].header
    where = f"{file.where}[PRIMARY]"
    flux = file.vector(primary)
    ivar_hdu = file.find("final_ivar")
    if ivar_hdu is None:
        raise InputError(
            file.where,
            "no extension final_ivar",
            "the Gaia-ESO layout with final_ivar",
            "fetch the complete file",
        )
    ivar = file.vector(ivar_hdu)
    axis = axis_from_header(header, len(flux), where)
    notes = list(axis.notes)
    if file.edited:
        notes.append(
            f"header edited after its CHECKSUM was written: {', '.join(file.edited)} (data sums are right)"
        )
    for name in ("final_ivar", "normalised_spectrum", "normalised_ivar"):
        hdu = file.find(name)
        if hdu is None:
            continue
        label = file.label(hdu)
        other = axis_from_header(hdu.header, len(flux), label)
        if len(file.vector(hdu)) != len(flux):
            raise InputError(
                label,
                f"{len(file.vector(hdu))} pixels",
                f"{len(flux)}, as the flux has",
                "fetch the file again",
            )
        if np.abs(other.wavelength - axis.wavelength).max() > 1e-4 or other.medium != axis.medium:
            raise InputError(
                label,
                f"an axis {other.wavelength[0]:.4f}-{other.wavelength[-1]:.4f} A ({other.medium})",
                f"that of the flux, {axis.wavelength[0]:.4f}-{axis.wavelength[-1]:.4f} A ({axis.medium})",
                "one of the headers is damaged: fetch the file again",
            )
    _check_normalised(file, flux)

    fibre, velclass = _row(file, "fibinfo", notes), _row(file, "velclass", notes)
    velocity, error = _value(velclass, "VEL"), _value(velclass, "EVEL")
    if velocity is not None and abs(velocity) > 2000:
        raise InputError(
            f"{file.where}[velclass]",
            f"VEL = {velocity} km/s",
            "a stellar radial velocity",
            f"give {argument('velocity', 12.5)} instead",
        )
    helio = _value(fibre, "Helio_cor")
    setup = text(header, "HIERARCH ESO INS EXP MODE") or text(header, "ESO INS EXP MODE")
    # Names differ between tables of one and the same genuine file; Fibinfo belongs to the fibre, so it goes
    # first.
    star = next(
        (
            str(r[key]).strip()
            for r, key in ((fibre, "Cname"), (velclass, "Cname"), (fibre, "OBJECT"))
            if r is not None and key in r and str(r[key]).strip()
        ),
        None,
    )
    meta: dict[str, Any] = {
        "object": text(header, "OBJECT"),
        "instrument": text(header, "INSTRUME"),
        "setup": setup,
        "date": text(header, "DATE-OBS"),
        "exposure_s": _or_nan(optional_number(header, "EXPTIME", notes)),
        "ges_type": text(header, "GES_TYPE"),
        "ges_field": text(header, "GES_FLD"),
        "helio_cor": helio,
        "snr": _value(velclass, "S_N"),
        "class": None if velclass is None or "SPCLASS" not in velclass else str(velclass["SPCLASS"]).strip(),
    }
    good = ivar > 0
    if good.any() and meta["snr"] and meta["snr"] > 0:
        ours = float(np.median(flux[good] * np.sqrt(ivar[good])))
        if not 1 / 3 < ours / meta["snr"] < 3:
            notes.append(
                f"S/N from flux and final_ivar is {ours:.1f}, the file's velclass says {meta['snr']:.1f}"
            )
    return RawSpectrum(
        product="gaia-eso",
        wavelength=axis.wavelength,
        flux=flux,
        ivar=ivar,
        quality=np.zeros(len(flux), np.int32),
        medium=axis.medium,
        frame=None if helio is None else ("barycentric" if helio != 0 else "topocentric"),
        velocity=velocity,
        velocity_error=error if velocity is not None else None,
        native="giraffe" if text(header, "INSTRUME").upper().startswith("GIRAFFE") else None,
        star=star,
        meta=meta,
        notes=notes,
    )


def _check_normalised(file: FitsFile, flux: np.ndarray) -> None:
    """Flux / normalised flux must be a smooth continuum: a second witness for the pixel values."""
    hdu = file.find("normalised_spectrum")
    if hdu is None:
        return
    label = file.label(hdu)
    normalised = file.vector(hdu)
    both = np.isfinite(flux) & np.isfinite(normalised) & (normalised > 0.05) & (flux > 0)
    if both.sum() < 100:
        return
    ratio = flux[both] / normalised[both]
    step = np.abs(np.diff(ratio)) / np.median(ratio)
    if np.median(step) > 0.02:
        raise InputError(
            label,
            "a ratio flux / normalised flux that jumps from pixel to pixel",
            "a smooth continuum",
            "one of the arrays is damaged: fetch the file again",
        )


def _row(file: FitsFile, name: str, notes: list[str]) -> dict[str, Any] | None:
    """The only row of a table extension as a dict; None when there is none or its header is not as it was
    written.

    Column names and formats are in the header: after a change there, a number may be another column's.
    """
    hdu = file.find(name)
    if hdu is None:
        return None
    label = file.label(hdu)
    if hdu.name in file.edited:
        notes.append(f"table {name} not used: its header does not match its CHECKSUM")
        return None
    if not hasattr(hdu, "columns") or hdu.data is None:
        raise InputError(label, "no table", "a table of one row", "fetch the file again")
    if len(hdu.data) != 1:
        raise InputError(
            label,
            f"{len(hdu.data)} rows",
            "one row for one spectrum",
            "split the file into single spectra first",
        )
    return {column: hdu.data[column][0] for column in hdu.columns.names}


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _value(row: dict[str, Any] | None, key: str) -> float | None:
    """A number of a row, or None where it is missing, not finite or one of the survey's sentinels."""
    if row is None or key not in row:
        return None
    value = float(row[key])
    return value if np.isfinite(value) and value > -9990.0 else None
