"""Roles of a spectrum's arrays, by their names: one table for columns, extensions and text files alike.

A name is split into words. Words that only say which flux is meant (`FLUX_REDUCED`, `norm_ivar`) make up its
*set*: a flux and its errors must be of one set. What is left decides the role. An array that is not known is
never used, and the user is told.
"""

import re
from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """The role of an array. `OTHER` is known but neither flux nor errors: a sky, a model, a resolution."""

    WAVE = "wavelength"
    LOG_WAVE = "log10 wavelength"
    FLUX = "flux"
    SIGMA = "error"
    VARIANCE = "variance"
    IVAR = "inverse variance"
    MASK = "mask"  # not zero is bad
    GOOD = "mask of good pixels"  # zero is bad
    OTHER = "other"


ERRORS = (Role.SIGMA, Role.VARIANCE, Role.IVAR)
MASKS = (Role.MASK, Role.GOOD)

# Words as they stand in names once case and everything but letters and digits are gone.
WORDS: dict[Role, str] = {
    Role.WAVE: """wave waves wavelength wavelengths lambda lambdas lam wl wlen wvl wav waveobs wavelen awav
        awave spectralaxis wavegrid wavelengthgrid""",
    Role.LOG_WAVE: """loglam loglambda logwave logwavelength loglamda log10lambda log10wave log10wavelength
        log10lam""",
    Role.FLUX: """flux fluxes sci data spectrum spec flam flambda fnu intensity counts signal science coadd
        normalized normalised fluxdensity""",
    Role.SIGMA: """err errs error errors sigma sigmas sig std stdev stddev sd standarddeviation
        stddevuncertainty stdevuncertainty uncert uncerts uncertainty uncertainties unc noise rms rmse e
        ferr staterror staterr onesigma dflux deltaflux df""",
    Role.VARIANCE: """var vars variance variances varianceuncertainty stat sigma2 sigmasq sigmasquared errsq
        errorsq mse stdsq vari sig2 sigsq""",
    Role.IVAR: """ivar ivars invvar invvars inversevariance inversevariances inversevar invvariance
        invariance inverror2 inversesigmasq inverseerrsq inverseerrorsq iv invmse invsigma2 inversesigma2
        inversestdsq""",
    Role.MASK: """mask masks masked maskbits bitmask badmask badpix badpixel badpixels badpixelmask bpm bad
        flag flags qual quality qualities dq dqi dqflags dataquality pixmask pixelmask pixelflags pixflags
        andmask maskflag qualityflag qualityflags""",
    Role.GOOD: "good goodpix goodpixel goodpixels goodmask goodpixelmask valid validmask",
    Role.OTHER: """sky bg bkg bgflux background skyflux cont continuum model template telluric tell
        transmission response sens sensitivity throughput blaze resolution res lsf wdisp disp dispersion snr
        sn s2n order orders fibermap fibre fiber fibinfo weight weights wht exptime exposure nexp time cov
        covar covariance correlation ormask preview""",
}
ROLES = {word: role for role, words in WORDS.items() for word in words.split()}
# Variances or the errors of a second flux: who knows.
AMBIGUOUS = frozenset(("err2", "error2", "std2", "unc2", "noise2"))
# Words that tell one set of flux and errors from another.
SETS = {
    "reduced": "reduced", "red": "reduced",
    "norm": "norm", "normalised": "norm", "normalized": "norm", "n": "norm",
    "raw": "raw", "calibrated": "calibrated", "cal": "calibrated", "corrected": "corrected",
    "corr": "corrected", "smoothed": "smoothed", "smooth": "smoothed", "unsmoothed": "unsmoothed",
    "rest": "rest",
}  # fmt: skip
# Words that change nothing.
FILLERS = frozenset(
    """flux spec spectrum sci data array arr ext pix pixel pixels final stat total the of per in obs observed
    value values col column 1d extension fluxes flam flambda""".split()
)
# Flux names that leave no doubt, the best first.
CERTAIN = ("flux", "fluxes", "fluxreduced", "sci", "science", "data", "spectrum", "spec")
MEDIA = {"air": "air", "awav": "air", "awave": "air", "vac": "vacuum", "vacuum": "vacuum"}
UNITS = {
    "angstrom": "Angstrom", "angstroms": "Angstrom", "ang": "Angstrom", "aa": "Angstrom", "a": "Angstrom",
    "nm": "nm", "nanometer": "nm", "nanometers": "nm", "nanometre": "nm", "um": "um", "micron": "um",
    "microns": "um", "mum": "um",
}  # fmt: skip


@dataclass(frozen=True)
class Name:
    """A name understood: its `role` (None when it says nothing), its `set`, and the `medium` and `unit` that
    a wavelength's name may hold."""

    text: str
    role: Role | None
    set: str = ""
    medium: str | None = None
    unit: str | None = None

    @property
    def rank(self) -> int:
        """Order among names of a flux; `len(CERTAIN)` when others may be meant as well."""
        key = _key(self.text)
        return CERTAIN.index(key) if key in CERTAIN else len(CERTAIN)


def understand(text: str) -> Name:
    """The parts of a column's or extension's name: `FLUX_ERROR`, `e_flux`, `wavelength [nm]`, `1/sigma^2`."""
    bracket = re.search(r"[(\[]\s*([^)\]]*?)\s*[)\]]", text)
    inside = bracket.group(1) if bracket else ""
    plain = text[: bracket.start()] + text[bracket.end() :] if bracket else text
    plain = re.sub(r"^\s*1\s*/", "inverse ", plain.lower().replace("²", "sq"))
    plain = re.sub(r"(\^|\*\*)\s*2", "sq", plain)
    key = _key(plain)
    unit = UNITS.get(_key(inside)) or (inside if inside and _key(inside) not in MEDIA else None)
    medium = MEDIA.get(_key(inside))
    if key in ROLES:
        return Name(text, ROLES[key], medium=medium or MEDIA.get(key), unit=unit)
    if key in AMBIGUOUS:
        return Name(text, None)
    # A number glued to a word is one of its own: FLUX2.
    plain = re.sub(r"([a-z])(\d+)(?![a-z0-9])", r"\1 \2", plain)
    words = [w for w in re.split(r"[^a-z0-9]+", plain) if w]
    for word in words:
        medium = medium or MEDIA.get(word)
        if word in UNITS and len(words) > 1 and ROLES.get(words[0]) in (Role.WAVE, Role.LOG_WAVE):
            unit = unit or UNITS[word]
    group = "".join(sorted({SETS[w] if w in SETS else w for w in words if w in SETS or w.isdigit()}))
    rest = [w for w in words if w not in SETS and not w.isdigit() and w not in MEDIA]
    if ROLES.get(rest[0] if rest else "") in (Role.WAVE, Role.LOG_WAVE):
        rest = [w for w in rest if w not in UNITS]
    return Name(text, _role(rest, words), group, medium, unit)


def _role(rest: list[str], words: list[str]) -> Role | None:
    key = "".join(rest)
    if key in ROLES:
        return ROLES[key]
    # An error of the sky or of the wavelengths is not one of the flux.
    foreign = (Role.OTHER, Role.WAVE, Role.LOG_WAVE)
    if len(rest) > 1 and any(ROLES.get(w) in foreign for w in rest):
        return Role.OTHER
    key = "".join(w for w in rest if w not in FILLERS)
    if not key:
        return Role.FLUX if any(ROLES.get(w) == Role.FLUX for w in words) else None
    if key in ROLES:
        return ROLES[key]
    # Glued: fluxerr, errflux, specivar, normflux.
    for filler in ("flux", "spectrum", "spec"):
        for part in (key.removeprefix(filler), key.removesuffix(filler)):
            if part != key and ROLES.get(part) is not None and ROLES[part] != Role.WAVE:
                return ROLES[part]
    return Role.FLUX if key in ("normflux", "fluxnorm", "rawflux", "calflux", "mainflux") else None


def _key(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", text.lower())
