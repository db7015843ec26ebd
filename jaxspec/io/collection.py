"""Many files onto one instrument's grid, at rest: what networks and fits take in.

A file that cannot be used is refused by name and the others go on; the refusals come back with the spectra.
"""

import fnmatch
import glob
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxspec.errors import InputError
from jaxspec.instruments import SPEED_OF_LIGHT, Instrument
from jaxspec.io.combine import GridSpectrum, combine_stars
from jaxspec.io.grid import to_grid
from jaxspec.io.parts import SeveralSpectra, check_overlap
from jaxspec.io.spectrum import Assume, SpectrumFile, read_spectrum
from jaxspec.io.typed import argument
from jaxspec.spectra import Spectra
from jaxspec.velocity import RadialVelocity, radial_velocity

log = logging.getLogger(__name__)

SUFFIXES = (
    *(".fits", ".fit", ".fts", ".ftz", ".fz"),
    *(".txt", ".dat", ".asc", ".ascii", ".csv", ".tsv", ".tab", ".spec", ".s"),
    *(".ecsv", ".vot", ".xml", ".zip"),
)
COMPRESSED = (".gz", ".fz")


@dataclass(frozen=True)
class Template:
    """Spectra at rest to measure velocities against: `wavelength [q]` A (air), `flux [t, q]` of one or more
    stars.

    Best the model's own spectra of a few typical stars on the instrument's grid; the one that gives the
    smallest error counts.
    """

    wavelength: Float[np.ndarray, " q"]
    flux: Float[np.ndarray, "t q"]


def find_files(paths: str | Path | Sequence[str | Path]) -> list[Path]:
    """Files of a path, a glob pattern, a folder (its spectra by suffix or content) or a list of these,
    sorted, each once: under the first of its names.

    The log tells how many files of a folder are not looked at, and their suffixes. Raises `InputError` for a
    pattern or folder in which there is nothing; a plain path is kept whether it exists or not, to be refused
    by name when it is read.
    """
    found: dict[str, Path] = {}
    for item in [paths] if isinstance(paths, (str, Path)) else paths:
        path = Path(item).expanduser()
        rest = ""
        if path.is_dir():
            matches, rest = _of_folder(path)
        elif glob.has_magic(str(path)) and not path.exists():
            everything = sorted(Path(p) for p in glob.glob(str(path), recursive=True))
            matches = [p for p in everything if p.is_file()]
            if len(matches) < len(everything):
                rest = f"{len(everything) - len(matches)} folders"
        else:
            matches = [path]
        if not matches:
            raise InputError(
                str(item),
                f"no file that is read ({rest})" if rest else "no file",
                "at least one spectrum",
                "check the folder or pattern; a pattern has files of any suffix read",
            )
        if rest:
            log.warning("%s: not looked at: %s (name them or give a pattern to have them read)", item, rest)
        for match in matches:
            found.setdefault(full_path(match), match)
    return list(found.values())


def _of_folder(folder: Path) -> tuple[list[Path], str]:
    """Spectra of a folder, and in words what else there is."""
    matches: list[Path] = []
    others: Counter[str] = Counter()
    for path in sorted(folder.iterdir()):
        if path.name[0] == ".":
            others["hidden"] += 1
        elif path.is_dir():
            others["folders"] += 1
        elif is_spectrum_name(path) or _is_fits(path):
            matches.append(path)
        else:
            others[path.suffix or "no suffix"] += 1
    words = ", ".join(f"{n} {what}" for what, n in others.items())
    return matches, words


def is_spectrum_name(path: Path) -> bool:
    """Whether a file's suffix, below those of compression, is one of a spectrum's."""
    suffixes = [s.lower() for s in path.suffixes]
    while suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
        if not suffixes:
            return True  # star.gz: content decides
    return bool(suffixes) and suffixes[-1] in SUFFIXES


def _is_fits(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(9) == b"SIMPLE  ="
    except OSError:
        return False


def read_spectra(
    paths: str | Path | Sequence[str | Path],
    instrument: Instrument,
    *,
    template: Template | None = None,
    velocity: float | str | Mapping[str, float] | None = None,
    frame: str | None = None,
    medium: str | None = None,
    unit: str | None = None,
    snr: float | None = None,
    estimate_noise: bool = False,
    resolving_power: float | Mapping[str, float] | None = None,
    select: str | None = None,
    assume: Assume | None = None,
    snr_max: float | None = None,
    combine: bool = False,
) -> tuple[Spectra, list[InputError]]:
    """Read files onto the pixels of an instrument, at rest and at its resolution.

    Args:
        paths: a file, a glob pattern, a folder, or a list of them.
        template: to measure the radial velocity of a spectrum whose velocity is not known otherwise.
        velocity: km/s for all files; or a mapping from path, file or star name (or pattern) to km/s for those
            it names (a catalogue's, in the barycentric frame); or "measure" to measure it even where a file
            gives one.
        frame, medium, unit, snr, estimate_noise, assume: as for `read_spectrum`. With a template the frame
            may be unknown.
        resolving_power: R of the files, or a mapping as for `velocity`. A spectrum
            sharper than an arm is convolved to the arm's; one whose R is unknown is taken as it is.
        select: which spectrum of files that hold several, as for `read_spectrum`; "all" for a row of each
            star, arm or visit in a file that would be refused without a choice.
        snr_max: errors are raised to at least the local level / snr_max (oversampled or degraded files claim
            too much).
        combine: merge files of the same star into one row: two arms of a star come in two files. Files of
            one name whose positions or velocities contradict that are kept apart, and the log says so.

    Returns the spectra, one row a file (or star), and the errors of the files that were refused. Arms that a
    file does not cover have ivar 0. `Spectra.meta` holds a mapping per row: path, product, velocity and its
    error and origin, S/N, resolving power, masked pixel counts, everything assumed. Raises `InputError` when
    no file could be used.
    """
    rows: list[GridSpectrum] = []
    refused: list[InputError] = []
    options: dict[str, Any] = dict(
        template=template,
        velocity=velocity,
        frame=frame,
        medium=medium,
        unit=unit,
        snr=snr,
        estimate_noise=estimate_noise,
        resolving_power=resolving_power,
        select=select,
        assume=assume,
        snr_max=snr_max,
    )
    for item in iter_spectra(paths, instrument, **options):
        if isinstance(item, InputError):
            refused.append(item)
        else:
            rows.append(item)
    if refused:
        log.warning(
            "%d of %d files refused: %s",
            len(refused),
            len(refused) + len(rows),
            "; ".join(e.where for e in refused[:20]),
        )
    if not rows:
        raise InputError(
            refused[0].where,
            f"{refused[0].found} (and {len(refused) - 1} more files refused)"
            if len(refused) > 1
            else refused[0].found,
            refused[0].expected,
            refused[0].fix,
        )
    if combine:
        rows = combine_stars(rows, snr_max)
    elif len({row.name for row in rows}) < len(rows):
        rows = [replace(row, name=row.meta["path"]) for row in rows]
    spectra = Spectra.create(
        np.stack([row.flux for row in rows]),
        np.stack([row.ivar for row in rows]),
        instrument.wavelength,
        quality=np.stack([row.quality for row in rows]),
        names=[row.name for row in rows],
        meta=[row.meta for row in rows],
    )
    return spectra, refused


def iter_spectra(
    paths: str | Path | Sequence[str | Path], instrument: Instrument, **options: Any
) -> Iterator[GridSpectrum | InputError]:
    """`read_spectra` one file at a time, for sets that do not fit into memory: yields a spectrum or the
    file's error."""
    every = options.get("select") == "all"
    for path in find_files(paths):
        try:
            yield read_on_grid(
                path, instrument, **{**options, "select": None if every else options.get("select")}
            )
        except SeveralSpectra as error:
            if not every:
                log.error("refused: %s", error)
                yield error
                continue
            log.info("%s: %d spectra, all are read", path, len(error.choices))
            for choice in error.choices:
                try:
                    yield read_on_grid(path, instrument, **{**options, "select": choice})
                except InputError as refusal:
                    log.error("refused: %s", refusal)
                    yield refusal
        except InputError as error:
            log.error("refused: %s", error)
            yield error


def read_on_grid(
    path: str | Path,
    instrument: Instrument,
    *,
    template: Template | None = None,
    velocity: float | str | Mapping[str, float] | None = None,
    resolving_power: float | Mapping[str, float] | None = None,
    frame: str | None = None,
    snr_max: float | None = None,
    **options: Any,
) -> GridSpectrum:
    """One file on the instrument's grid; arguments as for `read_spectra`. Raises `InputError` naming the
    file."""
    assume = for_template(options.pop("assume", None), template)
    fixed = velocity if isinstance(velocity, (int, float)) else None
    power = resolving_power if isinstance(resolving_power, (int, float)) else None
    file = read_spectrum(
        Path(path), frame=frame, velocity=fixed, resolving_power=power, assume=assume, **options
    )
    if isinstance(resolving_power, Mapping):
        listed = _lookup(resolving_power, file)
        file = file if listed is None else replace(file, resolving_power=listed, lsf=None)
    return put_on_grid(file, instrument, template, velocity, snr_max)


def for_template(assume: Assume | None, template: Template | None) -> Assume:
    """What to assume of the frame where the velocity can be measured: nothing."""
    assume = assume or Assume()
    if template is not None and assume.frame is None:
        # Not a guess: whatever the frame is, the velocity is then measured on the spectrum itself.
        return replace(assume, frame="unknown")
    return assume


def put_on_grid(
    file: SpectrumFile,
    instrument: Instrument,
    template: Template | None = None,
    velocity: float | str | Mapping[str, float] | None = None,
    snr_max: float | None = None,
) -> GridSpectrum:
    """A spectrum that was read on the instrument's grid, at rest; arguments as for `read_spectra`.

    Raises: InputError naming the file.
    """
    if isinstance(velocity, str) and velocity != "measure":
        raise InputError(
            "argument velocity",
            repr(velocity),
            "km/s, a mapping or 'measure'",
            f"give {argument('velocity', 12.5)}",
        )
    if velocity == "measure" and template is None:
        raise InputError(
            "argument velocity",
            "'measure' without a template",
            "a template to measure with",
            "give template=",
        )
    fixed = velocity if isinstance(velocity, (int, float)) else None
    check_overlap(file.wavelength[file.ivar > 0], instrument, file.path)
    value, error, origin = _velocity(file, instrument, template, velocity, fixed)
    return to_grid(file, instrument, value, error, origin, snr_max)


def full_path(path: str | Path) -> str:
    """The one name of a file, however it was given: absolute, links followed."""
    return str(Path(path).expanduser().resolve())


def _lookup(table: Mapping[str, float], file: SpectrumFile) -> float | None:
    """The value for a file: by its path first, then by its name, its star or a pattern of these."""
    keys = (file.name, file.star, Path(file.name).stem)
    exact = [table[key] for key in (full_path(file.path), file.path, *keys) if key in table]
    patterns = [
        value for pattern, value in table.items() if any(fnmatch.fnmatch(key, pattern) for key in keys)
    ]
    return next((float(value) for value in exact + patterns if np.isfinite(value)), None)


def _velocity(
    file: SpectrumFile, instrument: Instrument, template, asked, fixed
) -> tuple[float, float | None, str]:
    """Velocity of the star on the file's axis, its error, and where it comes from."""
    if fixed is not None:
        return fixed, None, "argument"
    if isinstance(asked, Mapping):
        listed = _lookup(asked, file)
        if listed is not None and file.frame == "barycentric":
            return listed, None, "catalogue"
        if listed is not None and file.velocity is None and template is None:
            raise InputError(
                file.path,
                f"a catalogue velocity for a spectrum in the {file.frame} frame",
                "a spectrum in the barycentric frame",
                f"give {argument('frame', 'barycentric')} if it is, or a template to measure with",
            )
    if asked != "measure" and file.velocity is not None:
        return file.velocity, file.velocity_error, "rest frame" if file.frame == "rest" else "file"
    if template is None:
        file.rest_wavelength()  # raises the error that says what is missing
    measured = measure_velocity(file, instrument, template)
    log.info("%s: radial velocity measured as %.2f +- %.2f km/s", file.path, *measured)
    return measured.velocity, measured.error, "measured"


def measure_velocity(
    file: SpectrumFile, instrument: Instrument, template: Template, max_velocity: float = 500.0
) -> RadialVelocity:
    """Radial velocity against the best of the templates, arm by arm, then the weighted mean of the arms.

    Arms that disagree by more than 5 sigma and 5 km/s: the more precise one counts, and the log says so.
    Raises `InputError` naming the file when no arm gives a velocity.
    """
    values: list[RadialVelocity] = []
    reason: InputError | None = None
    for arm in instrument.arms:
        # The template ends with the arm, so keep to pixels it covers at every velocity tried.
        stretch = max_velocity / SPEED_OF_LIGHT
        inside = (file.wavelength > arm.low * (1 + stretch)) & (file.wavelength < arm.high * (1 - stretch))
        known = (template.wavelength >= arm.low) & (template.wavelength <= arm.high)
        if inside.sum() < 100 or known.sum() < 100:
            continue
        best: RadialVelocity | None = None
        x, y, weight = _binned(file.wavelength[inside], file.flux[inside], file.ivar[inside], arm.step)
        for flux in template.flux:
            try:
                found = radial_velocity(
                    x, y, weight, template.wavelength[known], flux[known], max_velocity=max_velocity
                )
            except InputError as error:
                reason = error
                continue
            if np.isfinite(found.error) and (best is None or found.error < best.error):
                best = found
        if best is not None:
            values.append(best)
    if not values:
        missing = (
            f"no measurable radial velocity ({reason.found})"
            if reason
            else "no pixels in any arm to measure a velocity with"
        )
        raise InputError(
            file.path,
            missing,
            "a spectrum that overlaps the instrument and looks like the templates",
            f"give {argument('velocity', 12.5)}, or check air/vacuum and the unit of the wavelengths",
        )
    values.sort(key=lambda v: v.error)
    if len(values) > 1:
        spread = abs(values[0].velocity - values[1].velocity)
        if spread > max(5.0, 5.0 * np.hypot(values[0].error, values[1].error)):
            log.warning(
                "%s: arms differ by %.1f km/s in velocity; the more precise one is used", file.path, spread
            )
            return values[0]
    weight = np.array([v.error**-2 for v in values])
    return RadialVelocity(
        float(np.average([v.velocity for v in values], weights=weight)), float(weight.sum() ** -0.5)
    )


def _binned(wavelength: np.ndarray, flux: np.ndarray, ivar: np.ndarray, step: float):
    """Weighted means of whole pixels up to the instrument's pixel width: finely sampled files cost time, not
    precision."""
    k = int(step / np.median(np.diff(wavelength)) + 0.01)
    if k < 2:
        return wavelength, flux, ivar
    n = len(flux) // k * k
    w, f, iv = (a[:n].reshape(-1, k) for a in (wavelength, flux, ivar))
    # Only bins without a masked pixel: the mean of a part of a bin would belong to another wavelength.
    whole = (iv > 0).all(1)
    total = np.where(whole, iv.sum(1), 0.0)
    return w.mean(1), np.where(whole, (f * iv).sum(1) / np.where(whole, total, 1.0), 0.0), total
