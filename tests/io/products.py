"""Files as surveys write them, small, after their data models: what the tests of their readers read.

`star(wavelength)` is a smooth continuum with lines at known wavelengths in vacuum; every writer takes the
true flux and errors, so that a test knows what must come out.
"""

import numpy as np
from astropy.io import fits

LINES = np.array([4862.7, 5185.05, 5897.56, 6564.6, 8544.4, 8664.5, 15753.3, 15770.1, 16723.5])  # vacuum, A
C = 299792.458


def star(wavelength: np.ndarray, velocity: float = 0.0, level: float = 1000.0) -> np.ndarray:
    """Flux at vacuum wavelengths of a star that moves at `velocity` km/s."""
    rest = wavelength / (1 + velocity / C)
    depth = sum(0.4 * np.exp(-0.5 * ((rest - line) / (line / 2000)) ** 2) for line in LINES)
    return level * (1 + 0.1 * np.sin(rest / 700)) * (1 - np.clip(depth, 0, 0.7))


def write(path, *hdus):
    fits.HDUList(list(hdus)).writeto(path, overwrite=True, output_verify="ignore")
    return path


def header(**cards) -> fits.Header:
    made = fits.Header()
    for key, value in cards.items():
        made[key] = value
    return made


def table(columns: dict, name: str = "", rows: bool = False, **cards) -> fits.BinTableHDU:
    """A binary table: of one pixel a row, or (`rows`) with one array in each row."""
    made = []
    for key, values in columns.items():
        values = np.asarray(values)
        kind = {"f": "D", "i": "K", "b": "L"}.get(values.dtype.kind)
        if values.dtype.kind in "US":
            form = f"{max(1, values.dtype.itemsize // (4 if values.dtype.kind == 'U' else 1))}A"
        else:
            form = f"{values.shape[1]}{kind}" if rows and values.ndim == 2 else kind
        made.append(fits.Column(name=key, format=form, array=values))
    return fits.BinTableHDU.from_columns(made, name=name, header=header(**cards))
