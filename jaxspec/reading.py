"""Spectra of any file on the pixels of one instrument: velocities and resolving powers that a file does not
state are measured against the forward model's own spectra."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxspec.errors import InputError
from jaxspec.instruments import Instrument
from jaxspec.io import Assume, SpectraStore, Template, find_files, read_spectra, read_spectrum
from jaxspec.io.collection import for_template, full_path, put_on_grid
from jaxspec.io.grid import GridSpectrum
from jaxspec.io.raw import RawSpectrum
from jaxspec.io.sharpness import judge_resolving_power
from jaxspec.io.spectrum import complete
from jaxspec.physics import turbulence
from jaxspec.physics.forward import Nuisances
from jaxspec.simulation.simulator import SpectrumModel
from jaxspec.spectra import Spectra

log = logging.getLogger(__name__)

STORES = (".h5", ".hdf5")
# Stars to measure velocities against: teff, logg, [Fe/H] with solar ratios (plus 0.3 dex of alpha below -1).
TEMPLATES = (
    (5772, 4.44, 0.0),
    (6500, 4.2, -0.1),
    (4800, 2.6, -0.1),
    (4600, 4.6, 0.0),
    (5800, 4.0, -2.0),
    (4700, 1.8, -2.0),
)


@dataclass(frozen=True)
class ReaderConfig:
    """Assumptions where a file says nothing. Every use of it is logged with the file's name.

    Attributes:
        medium: of wavelengths: air (the ground-based optical convention) or vacuum.
        velocity: of all files [km/s]; none: from the file, else measured by cross-correlation.
        measure_velocity: measure it even where the file gives one.
        frame: of all files: rest, barycentric or topocentric.
        unit: of wavelengths without a unit: Angstrom (none), nm or um.
        resolving_power: R of all files; none: from the file, else judged from the width of the lines.
        snr: per pixel, of files without errors; none: from pixel-to-pixel differences.
        snr_max: larger S/N is lowered to this, the largest of the training spectra.
        combine: merge files of the same star into one row.
        select: which spectrum of files that hold several (a target, visit or exposure); all: every one.
    """

    medium: str = "air"
    velocity: float | None = None
    measure_velocity: bool = False
    frame: str | None = None
    unit: str | None = None
    resolving_power: float | None = None
    snr: float | None = None
    snr_max: float | None = 300.0
    combine: bool = False
    select: str | None = None


def read_for(
    paths: str | Path | Sequence[str | Path],
    forward: SpectrumModel,
    config: ReaderConfig = ReaderConfig(),
    origin: str = "ReaderConfig",
) -> tuple[Spectra, list[InputError]]:
    """Spectra at rest on the pixels of the forward model's instrument, and the errors of the files that were
    refused.

    Args:
        paths: a file, a glob pattern, a folder, a list of them, or one store (.h5).
        origin: of the assumptions, as the log and `Spectra.meta` name it.

    Raises: InputError when no file could be used.
    """
    files, instrument = find_files(paths), forward.instrument
    if len(files) == 1 and files[0].suffix in STORES:
        with open_store(files[0], instrument) as store:
            flux, ivar = store.read(np.arange(len(store)))
            return Spectra.create(flux, ivar, instrument.wavelength, names=store.names), []
    template = make_template(forward)
    assume = Assume(medium=config.medium, unit=config.unit, estimate_noise=config.snr is None, origin=origin)
    given: dict[str, Any] = dict(frame=config.frame, snr=config.snr)
    resolving_power: float | dict[str, float] | None = config.resolving_power
    if resolving_power is None:
        one = {**given, "select": None if config.select == "all" else config.select}
        resolving_power = judge_all(files, instrument, template, assume, one)
    return read_spectra(
        files,
        instrument,
        template=template,
        velocity="measure" if config.measure_velocity else config.velocity,
        resolving_power=resolving_power,
        assume=assume,
        snr_max=config.snr_max,
        combine=config.combine,
        select=config.select,
        **given,
    )


def make_template(forward: SpectrumModel) -> Template:
    """The model's own spectra of typical stars, for radial velocities and line widths."""
    rows = []
    for teff, logg, fe_h in TEMPLATES:
        alpha = 0.3 if fe_h < -1.0 else 0.0
        enhanced = {"mg_h": alpha, "ca_h": alpha, "ti_h": alpha, "si_h": alpha}
        values = {"teff": teff, "logg": logg}
        rows.append([values.get(name, fe_h + enhanced.get(name, 0.0)) for name in forward.label_set.names])
    labels = jnp.asarray(rows, jnp.float32)
    stellar = forward.label_set.stellar(labels)
    one = jnp.ones(len(labels))
    nuisances = Nuisances(
        turbulence.vmic_calibration(*stellar),
        turbulence.vmac_calibration(*stellar),
        2.0 * one,
        0.0 * one,
        one,
    )
    flux = jax.jit(jax.vmap(forward))(labels, nuisances)
    return Template(forward.instrument.wavelength, np.asarray(flux, np.float64))


def place_spectrum(
    raw: RawSpectrum, name: str, template: Template, instrument: Instrument, config: ReaderConfig
) -> GridSpectrum:
    """One spectrum in memory on the instrument's pixels and at rest, as `read_for` has it from a file.

    Args:
        raw: wavelengths in A.
        name: stands for the file.
        template: of `make_template`.

    Raises: InputError naming it.
    """
    assume = Assume(medium=config.medium, estimate_noise=config.snr is None, origin="request")
    given: dict[str, Any] = dict(frame=config.frame, snr=config.snr)
    power = config.resolving_power
    if power is None:
        with _quiet():
            file = complete(raw, name, assume=dataclasses.replace(assume, frame="unknown"), **given)
            if file.resolving_power is None and file.native is None:
                power = judge_resolving_power(file, instrument, template)
    fixed = None if config.measure_velocity else config.velocity
    assume = for_template(assume, template)
    file = complete(raw, name, assume=assume, velocity=fixed, resolving_power=power, **given)
    velocity = "measure" if config.measure_velocity else fixed
    return put_on_grid(file, instrument, template, velocity, config.snr_max)


def judge_all(
    files: list[Path], instrument: Instrument, template: Template, assume: Assume, given: dict
) -> dict[str, float]:
    """Resolving power by absolute path, of files that do not state it and are clearly sharper than the
    instrument."""
    powers = {}
    for path in files:
        try:
            with _quiet():
                file = read_spectrum(path, assume=dataclasses.replace(assume, frame="unknown"), **given)
                if file.resolving_power is not None or file.native is not None:
                    continue
                power = judge_resolving_power(file, instrument, template)
        except InputError:
            continue  # refused by name when it is read for good
        if power is not None:
            powers[full_path(path)] = power
            log.warning(
                "%s: states no resolving power; R = %.0f judged from the width of its lines", path, power
            )
    return powers


def open_store(path: str | Path, instrument: Instrument) -> SpectraStore:
    """A store whose spectra are on the instrument's pixels.

    Raises: InputError for a store on other pixels.
    """
    store = SpectraStore.open(path)
    grid = store.wavelength
    if grid.shape != instrument.wavelength.shape or not np.allclose(
        grid, instrument.wavelength, rtol=0, atol=1e-3
    ):
        raise InputError(
            str(path),
            f"{grid.size} pixels from {grid[0]:.2f} A",
            f"the {instrument.n_pixels} pixels of {instrument.name}",
            "make the store for this instrument",
        )
    return store


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the reader's log: the files are read again, aloud."""
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
