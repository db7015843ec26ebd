"""Spectra as text: two or three columns, wavelength, flux and (one-sigma) error, separated by blanks or
commas.

A line that starts with `#`, `%`, `;` or `!` is a comment; one line of column names may stand before the
numbers.
"""

import numpy as np

from jaxspec.errors import InputError
from jaxspec.io.raw import RawSpectrum, ivar_from_sigma
from jaxspec.io.wcs import to_angstrom

COMMENTS = ("#", "%", ";", "!")


def read_text(data: bytes, where: str, unit: str | None = None) -> RawSpectrum:
    """Wavelength, flux and error of a text spectrum. Nothing else is stated in such a file.

    Wavelengths are in A, or in `unit`. Raises `InputError` naming the line for anything but numbers, a
    changing number of columns or a last line that was cut off.
    """
    try:
        lines = data.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(
            where,
            f"byte {data[error.start]:#04x} at position {error.start}",
            "text or FITS",
            "the file is damaged or of a kind that is not supported",
        ) from None
    rows: list[list[float]] = []
    widths: list[int] = []
    header_seen = False
    for number, line in enumerate(lines, start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith(COMMENTS):
            continue
        # An empty cell must stay visible as one: "5330.0,,0.01" is not two columns.
        parts = [p.strip() for p in stripped.split(",")] if "," in stripped else stripped.split()
        try:
            row = [float(p) for p in parts]
        except ValueError:
            if not rows and not header_seen and all(p and not p[0].isdigit() for p in parts):
                header_seen = True
                continue
            raise InputError(
                f"{where} line {number}",
                repr(line[:80]),
                "numbers: wavelength, flux, error",
                "repair the line",
            ) from None
        if len(row) not in (2, 3) or (rows and len(row) != len(rows[0])):
            expected = f"{len(rows[0])} columns as above" if rows else "wavelength, flux and (optional) error"
            raise InputError(f"{where} line {number}", f"{len(row)} columns", expected, "repair the line")
        rows.append(row)
        widths.append(len(line.rstrip()))
    if not rows:
        raise InputError(
            where, "no numbers", "lines of wavelength, flux, error", "check that this is a spectrum"
        )
    if len(set(widths[:-1])) == 1 and widths[-1] < widths[0] and not data.endswith(b"\n"):
        raise InputError(
            f"{where} line {len(lines)}",
            "a line that is cut off",
            "a complete last line",
            "the file is truncated: fetch it again",
        )
    table = np.asarray(rows, np.float64)
    quality = np.zeros(len(table), np.int32)
    ivar = ivar_from_sigma(table[:, 2], quality, f"{where} column 3") if table.shape[1] == 3 else None
    if ivar is not None and not (ivar > 0).any():
        raise InputError(
            f"{where} column 3",
            "no error that is not 0 or NaN",
            "errors",
            "remove the column and give snr= or estimate_noise=True",
        )
    notes = [] if unit else ["no wavelength unit in a text file: read as Angstrom"]
    return RawSpectrum(
        product="text",
        wavelength=table[:, 0] * to_angstrom(unit or "Angstrom", where),
        flux=table[:, 1],
        ivar=ivar,
        quality=quality,
        notes=notes,
    )
