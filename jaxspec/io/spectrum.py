"""One spectrum from one file: whatever product it is, in air wavelengths, with its velocity frame said out
loud.

The reader is chosen by what is in the file, not by its name. What the file does not state (air or vacuum,
velocity frame) must be said by the caller, either for this file (`medium=`, `frame=`, `velocity=`; these win
over the header, with a warning when they contradict it) or for every file that is silent (`Assume`, whose use
is logged with the file's name and its origin).
"""

import gzip
import logging
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxspec.errors import InputError
from jaxspec.instruments import SPEED_OF_LIGHT
from jaxspec.io.combine import header_position
from jaxspec.io.fitsfile import FitsFile, open_fits
from jaxspec.io.gaia_eso import is_gaia_eso, read_gaia_eso
from jaxspec.io.image import read_image
from jaxspec.io.noise import estimate_sigma
from jaxspec.io.parts import FWHM
from jaxspec.io.phase3 import find_table, read_phase3
from jaxspec.io.quality import Quality, check_wavelength, clean, counts
from jaxspec.io.raw import RawSpectrum
from jaxspec.io.surveys import read_survey, read_survey_text, unpack
from jaxspec.io.text import read_text
from jaxspec.io.typed import argument
from jaxspec.spectra import doppler_shift, vacuum_to_air

log = logging.getLogger(__name__)

FRAMES = ("rest", "barycentric", "topocentric")
MEDIA = ("air", "vacuum")


@dataclass(frozen=True)
class Assume:
    """Assumptions where a file says nothing; `origin` says who decided it and goes to the log and to
    `meta["assumed"]`.

    `medium` "air" or "vacuum"; `frame` "rest", "barycentric", "topocentric", or "unknown" when the velocity
    will be measured on the spectrum anyway; `unit` of wavelengths without one; `resolving_power` R;
    `estimate_noise` for files without errors.
    """

    medium: str | None = None
    frame: str | None = None
    unit: str | None = None
    resolving_power: float | None = None
    estimate_noise: bool = False
    origin: str = "configuration"


@dataclass(frozen=True)
class SpectrumFile:
    """One spectrum as observed.

    - `wavelength [p]`: A, air, float64, increasing, in the given `frame`.
    - `flux, ivar [p]`: float64; 0 in masked pixels. `quality [p]`: `Quality` bits that say why.
    - `frame`: "rest", "barycentric", "topocentric" or "unknown".
    - `velocity`, `velocity_error`: the star's radial velocity on this axis in km/s; 0 at rest, None when
      unknown.
    - `resolving_power`: R, or None when unknown. `native`: instrument whose own resolution it then is.
    - `lsf [p]`: Gaussian sigma of the line-spread function in A where the file has it, else None.
    - `star`: the name the file gives the star (else the file's stem); `product`: which reader took it.
    - `meta`: header facts plus "medium" as in the file, "notes" (decisions), "assumed" (what was not in the
      file and who said it).
    """

    path: str
    name: str
    star: str
    product: str
    wavelength: Float[np.ndarray, " p"]
    flux: Float[np.ndarray, " p"]
    ivar: Float[np.ndarray, " p"]
    quality: Int[np.ndarray, " p"]
    frame: str
    velocity: float | None
    velocity_error: float | None
    resolving_power: float | None
    native: str | None
    meta: dict[str, Any] = field(default_factory=dict)
    lsf: Float[np.ndarray, " p"] | None = None

    def resolving_power_in(self, low: float, high: float) -> float | None:
        """Resolving power between two wavelengths in A: the median of `lsf` there, else `resolving_power`."""
        inside = (self.wavelength >= low) & (self.wavelength <= high)
        stated = self.meta.get("assumed", {}).get("resolving_power")
        if self.lsf is None or stated or not (good := inside & (self.lsf > 0)).any():
            return self.resolving_power
        return float(np.median(self.wavelength[good] / self.lsf[good]) / FWHM)

    @property
    def snr(self) -> float:
        """Median signal-to-noise per pixel over the good pixels."""
        good = self.ivar > 0
        return float(np.median(self.flux[good] * np.sqrt(self.ivar[good])))

    def rest_wavelength(self, velocity: float | None = None) -> Float[np.ndarray, " p"]:
        """Air wavelengths at rest, with the file's velocity or the one given (km/s).

        Raises `InputError` when neither is known.
        """
        velocity = self.velocity if velocity is None else velocity
        if velocity is None:
            raise InputError(
                self.path,
                f"a spectrum in the {self.frame} frame without a velocity",
                "the star's radial velocity",
                f"give {argument('velocity', 12.5)}, frame='rest', or a template to measure it with",
            )
        return doppler_shift(self.wavelength, -velocity)


def read_spectrum(
    path: str | Path,
    *,
    frame: str | None = None,
    medium: str | None = None,
    velocity: float | None = None,
    unit: str | None = None,
    snr: float | None = None,
    estimate_noise: bool = False,
    resolving_power: float | None = None,
    select: str | None = None,
    assume: Assume | None = None,
) -> SpectrumFile:
    """Read one spectrum: a survey's product (see docs/products.md), an ESO Phase 3 or other table, a 1-D
    FITS image, or text in columns.

    Errors and masks are found by their names (`jaxspec.io.names`). What a file holds and is not used is told
    in a warning and in `meta["not_used"]`.

    Args:
        path: the file; `.gz` of any of these is opened too.
        frame: "rest", "barycentric", "topocentric", or "unknown" (the velocity will be measured later).
        medium: "air" or "vacuum"; the result is always in air.
        velocity: the star's radial velocity in km/s in that frame.
        unit: of wavelengths, when the file has none ("Angstrom", "nm", "um").
        snr: signal-to-noise per pixel of a file without errors: sigma = local level / snr.
        estimate_noise: take the noise of a file without errors from its pixel-to-pixel differences (DER_SNR).
        resolving_power: R of a file that does not give it.
        select: which spectrum of a file that holds several (a target, visit, exposure, or file of a zip).
            Without it such a file is refused by an error that lists them, or its combined spectrum is read
            and a note says so.
        assume: what to take where both the file and the arguments are silent.

    Raises `InputError`, which names the file, for anything that is not a sound spectrum or whose medium,
    frame or noise are unknown.
    """
    assume = assume or Assume()
    path = Path(path)
    where = str(path)
    _check_choice("frame", frame, (*FRAMES, "unknown"))
    _check_choice("frame", assume.frame, (*FRAMES, "unknown"))
    _check_choice("medium", medium, MEDIA)
    _check_choice("medium", assume.medium, MEDIA)
    if select == "all":
        raise InputError(
            "argument select", "'all' for one spectrum", "the name of one", "use read_spectra to read all"
        )
    _check_number("snr", snr, 1e-2, 1e5)
    _check_number("velocity", velocity, -2000.0, 2000.0)
    _check_number("resolving_power", resolving_power, 100.0, 1e6)
    if frame == "rest" and velocity:
        raise InputError(
            "argument velocity",
            f"{velocity} km/s together with frame='rest'",
            "one of them",
            "drop the wrong one",
        )
    data = _read_bytes(path)
    try:
        with warnings.catch_warnings():
            # astropy warns about cards it cannot parse; what matters of them is checked by the readers.
            warnings.simplefilter("ignore")
            raw = _dispatch(data, where, unit, assume.unit, select)
        return _complete(
            raw, path, frame, medium, velocity, unit, snr, estimate_noise, resolving_power, assume
        )
    except InputError:
        raise
    except Exception as error:
        # A damaged header reaches every part of a parser; whatever it trips over, the user must learn the
        # file's name.
        raise InputError(
            where,
            f"{type(error).__name__} while reading: {error}",
            "a sound spectrum",
            "the file is probably damaged: fetch it again (if it is sound, please report this)",
        ) from error


def _read_bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (OSError, EOFError, ValueError) as error:
        what = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError(
            str(path), what, "a readable file", "check the path and permissions, or fetch it again"
        ) from error
    except Exception as error:  # zlib.error derives from nothing more telling
        raise InputError(
            str(path), f"{type(error).__name__}: {error}", "a sound gzip file", "fetch it again"
        ) from error
    if not data.strip(b"\0 \r\n\t"):
        raise InputError(str(path), "an empty file", "a spectrum", "fetch it again")
    return data


def _dispatch(
    data: bytes, where: str, unit: str | None, default_unit: str | None, select: str | None = None
) -> RawSpectrum:
    packed = unpack(data, where, select)
    if packed is not None:
        data, member, chosen = packed
        raw = _dispatch(data, f"{where}:{member}", unit, default_unit, None if chosen else select)
        raw.selected = chosen or raw.selected
        return raw
    if data[:8] == b"\x89HDF\r\n\x1a\n":
        raise InputError(
            where, "an HDF5 file", "one spectrum", "open stores of spectra with jaxspec.io.SpectraStore"
        )
    if data[:6] != b"SIMPLE":
        if b"\0" in data[:4096] and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise InputError(
                where, "binary data", "FITS or text", "the file is damaged or of a kind that is not supported"
            )
        known = read_survey_text(data, where, select)
        if known is not None:
            return known
        _only_one(where, select)
        return read_text(data, where, unit or default_unit)
    file = open_fits(data, where)
    known = read_survey(file, select)
    if known is not None:
        return known
    _only_one(where, select)
    if is_gaia_eso(file):
        return read_gaia_eso(file)  # its star's name is a position; the header has the field's
    raw = _read_fits(file, unit, default_unit)
    positions = (header_position(hdu.header) for hdu in file.hdus)
    raw.meta.setdefault("position", next((p for p in positions if p is not None), None))
    return raw


def _read_fits(file: FitsFile, unit: str | None, default_unit: str | None) -> RawSpectrum:
    if find_table(file) is not None:
        return read_phase3(file, unit or default_unit)
    try:
        return read_image(file, unit)
    except InputError:
        if unit is None and default_unit is not None:
            return read_image(file, default_unit)
        raise


def complete(
    raw: RawSpectrum,
    name: str,
    *,
    frame: str | None = None,
    medium: str | None = None,
    velocity: float | None = None,
    snr: float | None = None,
    estimate_noise: bool = False,
    resolving_power: float | None = None,
    assume: Assume | None = None,
) -> SpectrumFile:
    """A spectrum that comes from elsewhere than a file, as `read_spectrum` returns one; `name` stands for the
    file, the other arguments are as there."""
    assume = assume or Assume()
    _check_choice("frame", frame, (*FRAMES, "unknown"))
    _check_choice("medium", medium, MEDIA)
    return _complete(
        raw, Path(name), frame, medium, velocity, None, snr, estimate_noise, resolving_power, assume
    )


def _only_one(where: str, select: str | None) -> None:
    if select is not None:
        raise InputError(where, f"select={select!r} for a file of one spectrum", "no choice", "drop select=")


def _complete(
    raw, path, frame, medium, velocity, unit, snr, estimate_noise, resolving_power, assume
) -> SpectrumFile:
    """Fill in what the file leaves open from the arguments, then from the assumptions; refuse what is still
    open."""
    where = str(path)
    assumed: dict[str, str] = {}

    def decide(what: str, in_file: Any, argument: Any, assumption: Any) -> Any:
        if argument is not None:
            if in_file is not None and argument != in_file:
                log.warning("%s: %s=%s given, although the file states %s", where, what, argument, in_file)
            assumed[what] = f"{argument} from an argument"
            return argument
        if in_file is not None:
            return in_file
        if assumption is not None:
            assumed[what] = f"{assumption} from {assume.origin}"
            log.warning(
                "%s: states no %s; %s, from %s",
                where,
                what.replace("_", " "),
                "its velocity has to be measured" if assumption == "unknown" else f"taken as {assumption}",
                assume.origin,
            )
        return assumption

    found_medium = decide("medium", raw.medium, medium, assume.medium)
    if found_medium is None:
        raise InputError(
            where,
            "no statement whether wavelengths are in air or vacuum",
            "air or vacuum (83 km/s apart)",
            f"give {argument('medium', 'vacuum')}, or air",
        )
    in_file = raw.frame or ("unknown" if raw.velocity is not None else None)
    found_frame = decide("frame", in_file, frame, assume.frame)
    if found_frame is None and velocity is None:
        raise InputError(
            where,
            f"a frame that is not known, {raw.strange_frame}"
            if raw.strange_frame
            else "no statement of the velocity frame",
            "rest, barycentric or topocentric",
            f"give {argument('frame', 'barycentric')}, or frame='unknown' to have the velocity measured",
        )
    found_frame = found_frame or "unknown"
    notes = list(raw.notes)
    if raw.strange_frame:
        notes.append(f"frame of the header not used: {raw.strange_frame}")
    for item in raw.unused:
        log.warning("%s: not used: %s", where, item)
        notes.append(f"not used: {item}")
    wavelength, (values, errors, bits) = _with_wavelength(raw, notes)
    check_wavelength(wavelength, where)
    flux, ivar, quality = clean(values, errors, bits, where)
    if ivar is None:
        missing = f"no errors (not used: {'; '.join(raw.unused)})" if raw.unused else "no errors"
        ivar, how = _noise(flux, quality, snr, estimate_noise or assume.estimate_noise, where, missing)
        assumed["noise"] = how
        log.warning("%s: %s; %s", where, "no errors were used" if raw.unused else "holds no errors", how)
    elif snr is not None:
        log.warning("%s: snr=%s not used, the file has its own errors", where, snr)
    masked = counts(quality)
    if masked:
        log.info("%s: pixels masked: %s", where, masked)
    if found_medium == "vacuum":
        wavelength = vacuum_to_air(wavelength)

    star_velocity, error = raw.velocity, raw.velocity_error
    if frame is not None and frame != "unknown" and frame != raw.frame:
        star_velocity, error = None, None  # the file's own velocity belongs to the frame it stated
    if velocity is not None:
        star_velocity, error = velocity, None
        assumed["velocity"] = f"{velocity} km/s from an argument"
    if found_frame == "rest":
        star_velocity, error = 0.0, None
    if found_frame == "topocentric" and raw.barycentric_correction is not None:
        # v_barycentric = v_topocentric + correction, to first order in v/c, so the axis is stretched by it.
        wavelength = wavelength * (1.0 + raw.barycentric_correction / SPEED_OF_LIGHT)
        found_frame = "barycentric"
        if star_velocity is not None and velocity is None:
            star_velocity += raw.barycentric_correction  # the file's velocity was that on its own axis
        notes.append(
            f"barycentric correction of {raw.barycentric_correction:+.3f} km/s from the header applied"
        )
    r = decide(
        "resolving_power",
        raw.resolving_power,
        resolving_power,
        assume.resolving_power if raw.native is None else None,
    )
    for note in notes:
        log.info("%s: %s", where, note)
    return SpectrumFile(
        path=where,
        name=path.name if raw.selected is None else f"{path.name}#{raw.selected}",
        star=raw.star or path.name.removesuffix(".gz").rsplit(".", 1)[0],
        product=raw.product,
        wavelength=np.asarray(wavelength, np.float64),
        flux=flux,
        ivar=ivar,
        quality=quality,
        frame=found_frame,
        velocity=star_velocity,
        velocity_error=error,
        resolving_power=r,
        native=raw.native,
        lsf=raw.lsf,
        meta={
            **raw.meta,
            "medium": found_medium,
            "masked": masked,
            "notes": notes,
            "not_used": list(raw.unused),
            "assumed": assumed,
        },
    )


def _with_wavelength(raw: RawSpectrum, notes: list[str]) -> tuple[np.ndarray, tuple]:
    """The pixels whose wavelength is defined, or all of them where most are not: flux, ivar and quality."""
    arrays = (raw.flux, raw.ivar, raw.quality)
    known = np.isfinite(raw.wavelength)
    # Without its wavelength, a pixel has no place; a single one beside good pixels is damage all the same.
    if known.all() or known.mean() < 0.5:
        return raw.wavelength, arrays
    notes.append(f"{int((~known).sum())} pixels without a wavelength left out")
    return raw.wavelength[known], tuple(None if a is None else a[known] for a in arrays)


def _noise(flux, quality, snr, estimate, where, missing) -> tuple[np.ndarray, str]:
    good = quality == 0
    if snr is not None:
        sigma = np.full(len(flux), float(np.median(flux[good])) / snr)
        how = f"noise from the given S/N of {snr:g} per pixel"
    elif estimate:
        sigma = estimate_sigma(flux, good)
        reached = np.median(flux[good] / sigma[good])
        how = f"noise estimated from pixel differences (DER_SNR), S/N {reached:.0f} per pixel"
    else:
        raise InputError(
            where,
            missing,
            "an error or inverse variance for each pixel",
            f"give {argument('snr', 80)}, or estimate_noise=True to take it from pixel-to-pixel differences",
        )
    quality[good & (flux < -10.0 * sigma)] |= Quality.NEGATIVE
    return np.where(quality == 0, sigma**-2.0, 0.0), how


def _check_choice(name: str, value: str | None, known: tuple[str, ...]) -> None:
    if value is not None and value not in known:
        raise InputError(
            f"argument {name}", repr(value), f"one of {', '.join(known)}", f"give {argument(name, known[0])}"
        )


EXAMPLES = {"snr": 80, "velocity": 12.5, "resolving_power": 20000}


def _check_number(name: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not (np.isfinite(value) and low <= value <= high):
        raise InputError(
            f"argument {name}",
            repr(value),
            f"a number between {low:g} and {high:g}",
            f"give {argument(name, EXAMPLES[name])}, say",
        )
