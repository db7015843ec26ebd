"""A made-up Gaia-ESO survey on disk: spectra in the survey's two FITS layouts and a catalogue in the public
release's columns.

Every test of `data=survey` starts here, because the real catalogue cannot be shipped. The spectra are the
caller's arrays, exactly: a radial velocity only stretches the wavelength axis.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table

from jaxspec.catalogues.layouts.gaia_eso import COLUMNS
from jaxspec.catalogues.solar import GREVESSE2007
from jaxspec.instruments import SPEED_OF_LIGHT, Instrument
from jaxspec.labels import NINE_LABELS

SENTINEL = np.float32(-9.999995e08)
SETUPS = {"hr10": "H548.8", "hr21": "H875.7"}
GES_SETUPS = {"hr10": "HR10", "hr21": "HR21"}


@dataclass(frozen=True)
class Survey:
    """Where everything was written; `names` are the stars' CNAMEs in the order of the arrays given."""

    folder: Path
    catalogue: Path
    files: tuple[Path, ...]
    names: tuple[str, ...]


def write_survey(
    folder: Path,
    instrument: Instrument,
    flux: np.ndarray,
    ivar: np.ndarray,
    labels: np.ndarray,
    errors: np.ndarray,
    *,
    velocity: np.ndarray | None = None,
    layout: str | Sequence[str] = ("gaia-eso", "phase3"),
    tech: Sequence[str] | None = None,
    peculi: Sequence[str] | None = None,
    counts: float = 5000.0,
) -> Survey:
    """Write n stars: one file for each arm of a star that has any pixel with ivar > 0, and `catalogue.fits`.

    `flux, ivar [n, p]` on `instrument.wavelength` at rest; `labels, errors [n, 9]` in the order of
    `NINE_LABELS`, where NaN is written as the survey's sentinel. `layout` alternates over the stars.
    `velocity [n]` km/s defaults to 0.
    """
    spectra = folder / "spectra"
    spectra.mkdir(parents=True, exist_ok=True)
    n = len(flux)
    velocity = np.zeros(n) if velocity is None else np.asarray(velocity, float)
    layouts = [layout] if isinstance(layout, str) else list(layout)
    names = tuple(f"{10 + i // 60:02d}{i % 60:02d}1234-{i % 80:02d}05432" for i in range(n))
    files, file_names, snr = [], [], []
    for i in range(n):
        mine = []
        for arm in instrument.arms:
            pixels = instrument.slices[arm.name]
            if not (ivar[i, pixels] > 0).any():
                continue
            kind = layouts[i % len(layouts)]
            path = spectra / (
                f"gar_{names[i]}_{SETUPS.get(arm.name, arm.name)}.fit"
                if kind == "gaia-eso"
                else f"ges_{names[i]}_{arm.name}.fits"
            )
            write = write_gaia_eso if kind == "gaia-eso" else write_phase3
            write(
                path,
                arm.wavelength,
                counts * flux[i, pixels],
                ivar[i, pixels] / counts**2,
                names[i],
                velocity[i],
                SETUPS.get(arm.name, arm.name),
            )
            mine.append(path)
        good = ivar[i] > 0
        snr.append(float(np.median(flux[i, good] * np.sqrt(ivar[i, good]))) if good.any() else np.nan)
        files += mine
        file_names.append("|".join(p.name for p in mine))
    table = _catalogue(
        names,
        file_names,
        snr,
        velocity,
        np.asarray(labels, float),
        np.asarray(errors, float),
        instrument,
        tech,
        peculi,
    )
    catalogue = folder / "catalogue.fits"
    table.write(catalogue, overwrite=True)
    return Survey(folder, catalogue, tuple(files), names)


def write_gaia_eso(
    path: Path, wavelength, flux, ivar, name: str, velocity: float = 0.0, setup: str = "H548.8"
) -> None:
    """One spectrum in the single-spectrum layout of the survey's GIRAFFE pipeline, with its checksums."""
    stretch = np.sqrt((1 + velocity / SPEED_OF_LIGHT) / (1 - velocity / SPEED_OF_LIGHT))
    axis = {
        "CTYPE1": "AWAV",
        "CUNIT1": "Angstrom",
        "CRVAL1": float(wavelength[0] * stretch),
        "CRPIX1": 1.0,
        "CD1_1": float((wavelength[-1] - wavelength[0]) / (len(wavelength) - 1) * stretch),
    }
    primary = fits.PrimaryHDU(np.asarray(flux, np.float32))
    primary.header.update(
        {
            "ORIGIN": "ESO",
            "TELESCOP": "ESO-VLT-U2",
            "INSTRUME": "GIRAFFE",
            "OBJECT": "MADE_UP",
            "EXPTIME": 1200.0,
            "DATE-OBS": "2013-01-01T00:00:00.000",
            "GES_TYPE": "GE_MW",
            "GES_FLD": "MADE_UP",
            **axis,
        }
    )
    primary.header["HIERARCH ESO INS EXP MODE"] = setup
    hdus: list = [primary]
    continuum = float(np.median(flux))
    for extname, data in (
        ("final_ivar", ivar),
        ("normalised_spectrum", flux / continuum),
        ("normalised_ivar", ivar * continuum),
    ):
        hdu = fits.ImageHDU(np.asarray(data, np.float32), name=extname)
        hdu.header.update(axis)
        hdus.append(hdu)
    good = ivar > 0
    snr = float(np.median(flux[good] * np.sqrt(ivar[good])))
    fibinfo = Table(
        {
            "Nspec": [1],
            "OBJECT": ["MADE_UP"],
            "Cname": [name],
            "RA": [150.0],
            "DEC": [30.0],
            "RV_redshift": np.array([velocity], np.float32),
            "Helio_cor": np.array([12.5], np.float32),
        }
    )
    velclass = Table(
        {
            "Nspec": [1],
            "OBJECT": ["MADE_UP"],
            "Cname": [name],
            "VEL": [float(velocity)],
            "EVEL": [0.3],
            "S_N": [snr],
            "RV_SB1": np.array([-9999], np.int32),
            "SPCLASS": ["STAR"],
        }
    )
    for extname, table in (("Fibinfo", fibinfo), ("velclass", velclass)):
        hdus.append(fits.BinTableHDU(table, name=extname))
    fits.HDUList(hdus).writeto(path, overwrite=True, checksum=True)


def write_phase3(
    path: Path,
    wavelength,
    flux,
    ivar,
    name: str,
    velocity: float = 0.0,
    setup: str = "H548.8",
    *,
    unit: str = "nm",
    extname: str = "phase3spectrum",
    columns: tuple[str, str, str, str] = ("WAVE", "FLUX_REDUCED", "ERR_REDUCED", "QUAL_REDUCED"),
    utypes: tuple[str, str, str, str] | None = (
        "spec:Data.SpectralAxis.Value",
        "spec:Data.FluxAxis.Value",
        "spec:Data.FluxAxis.Accurancy.StatError",
        "spec:Data.FluxAxis.Accurancy.QualityStatus",
    ),
    ucds: tuple[str, str, str, str] | None = (
        "em.wl;obs.atmos",
        "phot.flux.density;em.wl;stat.uncalib",
        "stat.error;phot.flux.density",
        "meta.code.qual",
    ),
    missing: float = np.nan,
    header: dict | None = None,
) -> None:
    """One spectrum as an ESO Phase 3 table; pixels with ivar 0 get the error `missing` (NaN or 0) and a
    quality flag."""
    stretch = np.sqrt((1 + velocity / SPEED_OF_LIGHT) / (1 - velocity / SPEED_OF_LIGHT))
    wave = np.asarray(wavelength, float) * stretch
    sigma = np.where(ivar > 0, 1.0 / np.sqrt(np.where(ivar > 0, ivar, 1.0)), missing)
    n = len(wave)
    arrays = (
        wave / 10.0 if unit == "nm" else wave,
        np.asarray(flux, np.float32),
        np.asarray(sigma, np.float32),
        (np.asarray(ivar) == 0).astype(np.int32),
    )
    formats, units = (f"{n}D", f"{n}E", f"{n}E", f"{n}J"), (unit, "adu", "adu", None)
    cells = [
        fits.Column(name=c, format=f, unit=u, array=[a])
        for c, f, u, a in zip(columns, formats, units, arrays, strict=True)
    ]
    table = fits.BinTableHDU.from_columns(cells, name=extname)
    for i in range(4):
        if utypes:
            table.header[f"TUTYP{i + 1}"] = utypes[i]
        if ucds:
            table.header[f"TUCD{i + 1}"] = ucds[i]
    table.header.update(
        {
            "NELEM": n,
            "TDMIN1": float(arrays[0][0]),
            "TDMAX1": float(arrays[0][-1]),
            "VOCLASS": "SPECTRUM v2.0",
        }
    )
    primary = fits.PrimaryHDU()
    primary.header.update(
        {
            "ORIGIN": "ESO",
            "TELESCOP": "ESO-VLT-U2",
            "INSTRUME": "GIRAFFE",
            "PRODCATG": "SCIENCE.SPECTRUM",
            "OBJECT": name,
            "SPECSYS": "BARYCENT",
            "DISPELEM": setup,
            "WAVELMIN": wave[0] / 10,
            "WAVELMAX": wave[-1] / 10,
            "FLUXCAL": "UNCALIBRATED",
            "CONTNORM": False,
        }
    )
    for key, value in (header or {}).items():
        if value is None:
            primary.header.remove(key, ignore_missing=True)
        else:
            primary.header[key] = value
    fits.HDUList([primary, table]).writeto(path, overwrite=True, checksum=True)


def _catalogue(names, files, snr, velocity, labels, errors, instrument, tech, peculi) -> Table:
    n = len(names)

    def real(values) -> np.ndarray:
        return np.where(np.isfinite(values), values, SENTINEL).astype(np.float32)

    setups = "|".join(GES_SETUPS.get(a.name, a.name.upper()) for a in instrument.arms)
    table = Table(
        {
            "CNAME": list(names),
            "GES_FLD": ["MADE_UP"] * n,
            "OBJECT": [f"OBJ{i}" for i in range(n)],
            "FILENAME": list(files),
            "GES_TYPE": ["GE_MW"] * n,
            "SETUP": [setups] * n,
            "REC_SETUP": [setups] * n,
            "REC_WG": ["WG10"] * n,
            "INSTRUMENT": ["GIRAFFE"] * n,
            "RA": np.full(n, 150.0),
            "DEC": np.full(n, 30.0),
            "SNR": real(np.asarray(snr)),
        }
    )
    table["VRAD"], table["E_VRAD"] = real(velocity), real(np.full(n, 0.3))
    for j, label in enumerate(NINE_LABELS.names):
        column = COLUMNS[label][0]
        offset = 0.0 if column in ("TEFF", "LOGG", "FEH") else GREVESSE2007[label]
        table[column], table[f"E_{column}"] = real(labels[:, j] + offset), real(errors[:, j])
        table[f"NN_{column}"] = np.full(n, -1, np.int16)
        if offset:
            table[f"UPPER_{column}"] = np.zeros(n, np.int16)
    for column in ("TI2", "CA2"):
        table[column], table[f"E_{column}"] = real(np.full(n, np.nan)), real(np.full(n, np.nan))
    table["XI"], table["E_XI"] = real(np.full(n, 1.2)), real(np.full(n, 0.2))
    table["VSINI"], table["E_VSINI"] = real(np.full(n, np.nan)), real(np.full(n, np.nan))
    table["LIM_VSINI"] = np.full(n, -1, np.int16)
    table["PECULI"] = list(peculi) if peculi is not None else ["NONE"] * n
    table["REMARK"] = ["NONE"] * n
    table["TECH"] = list(tech) if tech is not None else ["NONE"] * n
    return table
