"""The wavelength axis of a 1-D image from its header.

Axes of FITS Papers I to III (Greisen & Calabretta 2002, A&A 395, 1061; Greisen et al. 2006, A&A 446, 747) are
read by astropy's own WCS: `AWAV`, `WAVE`, matrices `CD` and `PC`, `-LOG` and all algorithms that need no
second table. IRAF's (`LINEAR`, `LOG-LINEAR`, `DC-FLAG`, units and labels in `WATj_001`) are linear axes for
astropy, and IRAF's exponent is taken here. What a header states twice must agree.
"""

import re
import warnings
from dataclasses import dataclass
from typing import Any

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from jaxspec.errors import InputError
from jaxspec.io.fitsfile import number, text
from jaxspec.io.typed import argument

ANGSTROM = {
    "angstrom": 1.0,
    "angstroms": 1.0,
    "ang": 1.0,
    "a": 1.0,
    "å": 1.0,
    "0.1nm": 1.0,
    "nm": 10.0,
    "nanometer": 10.0,
    "nanometers": 10.0,
    "nanometre": 10.0,
    "um": 1e4,
    "micron": 1e4,
    "microns": 1e4,
    "m": 1e10,
}
PLAIN = ("LINEAR", "LAMBDA", "WAVELENGTH", "AIR", "VAC", "VACUUM", "ANGSTROM", "AWAV", "WAVE")
IRAF_LOG = ("LOG-LINEAR", "LOGLINEAR", "LOG", "LOG10")
# Keywords by which writers state the medium: yes or no, and in words.
IN_VACUUM, IN_AIR = ("VACUUM", "INVACUUM"), ("AIR", "INAIR")
IN_WORDS = ("AIRORVAC", "AIRVAC", "AIR_VAC", "AIR-VAC", "VACAIR", "VACORAIR", "MEDIUM", "WAVEMED", "WAVETYPE")
YES, NO = ("1", "t", "true", "y", "yes"), ("0", "f", "false", "n", "no")


@dataclass(frozen=True)
class Axis:
    """wavelength [p] in A as the file gives it; medium "air", "vacuum" or None when the header does not
    say."""

    wavelength: np.ndarray
    medium: str | None
    notes: tuple[str, ...]


def to_angstrom(unit: str, where: str) -> float:
    """Factor from a unit's name to Angstrom; raises `InputError` for a unit that is none of a
    wavelength's."""
    key = unit.strip().lower().replace(" ", "")
    if key in ANGSTROM:
        return ANGSTROM[key]
    try:
        return float(u.Unit(unit.strip()).to(u.AA))
    except (ValueError, TypeError):
        raise InputError(
            where,
            f"wavelength unit {unit!r}",
            "Angstrom, nm, um or m",
            f"correct the header, or give {argument('unit', 'nm')}",
        ) from None


def axis_from_header(header: fits.Header, n: int, where: str, unit: str | None = None) -> Axis:
    """Wavelengths of `n` pixels. `unit` overrides a missing unit (an explicit one in the header is kept and
    must agree).

    The axis is the one that is `n` pixels long: an image of one column has its wavelengths along the second.
    A header without any unit is read as Angstrom, which IRAF's own convention is, and the note says so;
    `check_wavelength` refuses it afterwards unless the axis then falls inside 2000-30000 A.

    Raises `InputError` for an axis that is no wavelength, that needs more than this header (`-TAB`), or that
    the header states in two ways which disagree.
    """
    j = next((i for i in (1, 2, 3, 4) if _stated(header, f"NAXIS{i}") and header[f"NAXIS{i}"] == n), 1)
    _check_repeats(header, j, where)
    ctype = text(header, f"CTYPE{j}").upper()
    kind, algorithm = _kind(ctype, where, f"CTYPE{j}")
    stated = _unit(header, j, where)
    if stated and unit and to_angstrom(stated, where) != to_angstrom(unit, where):
        raise InputError(
            where, f"unit {stated!r} in the header and unit={unit!r}", "one of them", "leave unit= out"
        )
    notes = [] if stated or unit else ["no wavelength unit in the header: read as Angstrom"]
    factor = to_angstrom(stated or unit or "Angstrom", where)
    start, pixel = number(header, f"CRVAL{j}", where), number(header, f"CRPIX{j}", where)
    step = _step(header, j, n, where)
    logarithmic = _iraf_log(header, ctype, algorithm, where)
    card: dict[str, Any] = {"CRPIX1": pixel, "CRVAL1": start, "CDELT1": step}
    if algorithm:
        # In Angstrom and with its unit, which all but linear axes depend on. A logarithm knows no medium.
        name = kind if kind in ("AWAV", "WAVE") else "WAVE"
        card |= {"CTYPE1": f"{name}-{algorithm}", "CUNIT1": "Angstrom"}
        card |= {"CRVAL1": start * factor, "CDELT1": step * factor}
        card |= {f"PV1_{key.split('_')[1]}": header[key] for key in header if key.startswith(f"PV{j}_")}
        card |= {key: header[key] for key in ("RESTWAV", "RESTFRQ") if _stated(header, key)}
    values = _pixels(card, n, where)
    if logarithmic:
        values = 10.0 ** np.clip(values, -300.0, 300.0)
    values = values * (1e10 if algorithm else factor)
    return Axis(values, _medium(header, j, kind, where), tuple(notes))


def _pixels(cards: dict[str, Any], n: int, where: str) -> np.ndarray:
    """World coordinates of pixels 1 to n by astropy's WCS of one axis."""
    header = fits.Header()
    header["WCSAXES"] = 1
    header.update(cards)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values = WCS(header).wcs_pix2world(np.arange(1, n + 1, dtype=float), 1)[0]
    except Exception as error:  # wcslib has an exception for each of its many complaints
        message = str(error).strip().splitlines()
        raise InputError(
            where,
            f"an axis that astropy cannot use ({message[-1] if message else type(error).__name__})",
            "a wavelength axis after FITS Paper III",
            "correct the header",
        ) from error
    return np.asarray(values, float)


def _kind(ctype: str, where: str, key: str) -> tuple[str, str]:
    """The kind of axis (such as AWAV) and the algorithm code behind it (such as LOG, often none)."""
    if ctype in IRAF_LOG:
        return "LOG", ""
    kind, _, algorithm = ctype.partition("-")
    kind, algorithm = kind.strip(), algorithm.strip("- ")
    if kind in ("PIXEL", "PIXELS"):
        raise InputError(
            where, "an axis in pixels", "a wavelength-calibrated spectrum", "calibrate the spectrum first"
        )
    if algorithm == "TAB":
        raise InputError(
            where,
            f"{key} = {ctype!r}: wavelengths in a look-up table",
            "an axis that the header alone gives",
            "write the spectrum as a table with columns WAVE, FLUX and ERR",
        )
    if algorithm == "WAV" and kind in PLAIN:
        algorithm = ""  # linear in wavelength, said twice
    known = re.fullmatch(r"LOG|[A-Z]2[A-Z]|GR[IA]", algorithm) or not algorithm
    kind = "AIR" if kind.startswith("AIR") else re.sub(r"[^A-Z].*", "", kind)
    if kind not in ("", *PLAIN) or not known or (algorithm and algorithm != "LOG" and len(kind) != 4):
        raise InputError(
            where,
            f"{key} = {ctype!r}",
            "a wavelength axis (AWAV, WAVE, LINEAR, LOG-LINEAR)",
            "correct the header",
        )
    return kind, algorithm


def _step(header: fits.Header, j: int, n: int, where: str) -> float:
    """Wavelength a pixel: CD, or CDELT times PC."""
    refused = [k for k in header if re.fullmatch(rf"(CPDIS|CQDIS|CPERR){j}|(D[PQ]){j}(\..*)?", k)]
    skew = [k for k in header if re.fullmatch(rf"(CD|PC){j}_[1-9]", k) and not k.endswith(f"_{j}")]
    for key in [*refused, *(k for k in [*skew, f"CROTA{j}"] if _stated(header, k))]:
        if key in refused or number(header, key, where) != 0.0:
            raise InputError(
                where, f"{key} = {header[key]!r}", "an axis of its own without distortion", "resample it"
            )
    names = {"PC": (f"PC{j}_{j}", f"PC{j:03d}{j:03d}"), "CD": (f"CD{j}_{j}", f"CD{j:03d}{j:03d}")}
    keys = {name: next((k for k in tried if _stated(header, k)), None) for name, tried in names.items()}
    delta = number(header, f"CDELT{j}", where) if _stated(header, f"CDELT{j}") else None
    steps: dict[str, float] = {}
    if keys["CD"]:
        steps[keys["CD"]] = number(header, keys["CD"], where)
    if keys["PC"]:
        pc = number(header, keys["PC"], where)
        steps[f"CDELT{j} x {keys['PC']}"] = (1.0 if delta is None else delta) * pc
    elif delta is not None and not (keys["CD"] and delta == 1.0):  # 1 is the default beside a CD matrix
        steps[f"CDELT{j}"] = delta
    if not steps:
        raise InputError(
            where,
            f"neither CDELT{j} nor CD{j}_{j}",
            "a step of the wavelength axis",
            f"add CDELT{j} to the header",
        )
    step = next(iter(steps.values()))
    if any(abs(other - step) * n > 0.01 * abs(step) for other in steps.values()):
        stated = " but ".join(f"{key} = {value!r}" for key, value in reversed(steps.items()))
        raise InputError(where, stated, "the same step in both", "correct the header")
    if step <= 0:
        raise InputError(
            where, f"wavelength step {step!r}", "a positive step", "flip the spectrum or correct the header"
        )
    return step


def _iraf_log(header: fits.Header, ctype: str, algorithm: str, where: str) -> bool:
    """Whether the axis is the decimal logarithm of the wavelength, as IRAF says it."""
    flag = number(header, "DC-FLAG", where) if _stated(header, "DC-FLAG") else None
    if flag is not None and flag not in (0.0, 1.0):
        raise InputError(
            where,
            f"DC-FLAG = {flag:g}",
            "0 (linear) or 1 (logarithmic)",
            "calibrate the spectrum and resample it to a linear or logarithmic axis (IRAF's dispcor)",
        )
    named = ctype in IRAF_LOG
    if (named and flag == 0.0) or (algorithm and flag == 1.0):
        raise InputError(
            where,
            f"CTYPE1 = {ctype!r} but DC-FLAG = {flag:g}",
            "one kind of axis",
            "correct or delete DC-FLAG",
        )
    return named or flag == 1.0


def _stated(header: fits.Header, key: str) -> bool:
    """Whether a card is there and says something."""
    return key in header and _says(header[key])


def _says(value: object) -> bool:
    """Whether a card's value is neither undefined nor blank."""
    undefined = value is None or isinstance(value, fits.card.Undefined)
    return not undefined and not (isinstance(value, str) and not value.strip())


def _check_repeats(header: fits.Header, j: int, where: str) -> None:
    """Refuse a keyword of the axis that stands twice with different values: each reader takes another one."""
    of_axis = rf"(CTYPE|CRVAL|CRPIX|CDELT|CUNIT|CROTA|CNAME){j}|(CD|PC|PV){j}_\d+|WAT[0{j}]_\d+"
    pattern = re.compile(rf"{of_axis}|DC-FLAG|SPECSYS|{'|'.join((*IN_VACUUM, *IN_AIR, *IN_WORDS))}")
    for key in dict.fromkeys(k for k in header if pattern.fullmatch(k)):
        values = [header[(key, i)] for i in range(header.count(key))]
        values = [v for v in values if _says(v)]
        if any(v != values[0] for v in values):
            raise InputError(
                where,
                f"{key} stands in the header with {' and '.join(map(repr, values[:3]))}",
                "one value",
                f"delete the wrong {key}",
            )


def _attributes(header: fits.Header, j: int) -> dict[str, str]:
    """IRAF's attributes of the axis (`units`, `label`), which run on from card to card."""
    cards = sorted(key for key in header if re.fullmatch(rf"WAT{j}_\d+", key))
    # A card of 68 characters loses the blanks at its end.
    joined = "".join(str(header[key]).ljust(68) if key != cards[-1] else str(header[key]) for key in cards)
    found = re.findall(r"(\w+)\s*=\s*(\"[^\"]*\"|.*?)(?=\s+\w+\s*=|$)", joined)
    return {name.lower(): value.strip().strip('"') for name, value in found}


def _unit(header: fits.Header, j: int, where: str) -> str:
    unit, other = text(header, f"CUNIT{j}"), _attributes(header, j).get("units", "")
    if unit and other and to_angstrom(unit, where) != to_angstrom(other, where):
        raise InputError(
            where,
            f"CUNIT{j} = {unit!r} but WAT{j}_001 has units={other}",
            "one unit",
            "correct the header",
        )
    return unit or other


def _medium(header: fits.Header, j: int, kind: str, where: str) -> str | None:
    """ "air", "vacuum" or None, from all keywords that state it; comments count where no keyword does."""
    said: dict[str, str] = {}
    if kind in ("AWAV", "AIR"):
        said[f"CTYPE{j} = {text(header, f'CTYPE{j}')!r}"] = "air"
    if kind in ("WAVE", "VAC", "VACUUM"):
        said[f"CTYPE{j} = {text(header, f'CTYPE{j}')!r}"] = "vacuum"
    for key in header:
        name = key.rsplit(" ", 1)[-1]  # of HIERARCH keywords the last word
        if name in IN_VACUUM + IN_AIR and (answer := _yes_or_no(header[key])) is not None:
            said[f"{key} = {header[key]!r}"] = "vacuum" if answer == (name in IN_VACUUM) else "air"
        elif name in (*IN_WORDS, f"CNAME{j}") and (medium := _in_words(str(header[key]))):
            said[f"{key} = {header[key]!r}"] = medium
    label = _attributes(header, j).get("label", "")
    if medium := _in_words(label):
        said[f"WAT{j}_001 label={label!r}"] = medium
    if len(set(said.values())) > 1:
        raise InputError(where, " but ".join(said), "one medium", "correct or delete the wrong keyword")
    if not said:
        keys = [key for key in (f"CTYPE{j}", f"CRVAL{j}", f"CUNIT{j}") if key in header]
        comments = {medium for key in keys if (medium := _in_words(str(header.comments[key])))}
        return comments.pop() if len(comments) == 1 else None
    return next(iter(said.values()))


def _in_words(words: str) -> str | None:
    air, vacuum = (re.search(rf"(?<![a-z])({x})", words.lower()) for x in ("air(?![a-z])", "vac"))
    return None if bool(air) == bool(vacuum) else "air" if air else "vacuum"


def _yes_or_no(value: Any) -> bool | None:
    word = str(value).strip().lower().removesuffix(".0")
    return True if word in YES else False if word in NO else None
