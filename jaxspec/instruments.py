"""Instruments: wavelength grid, resolving power, medium. A registry of real ones.

A pixel holds the flux averaged over `[centre - step/2, centre + step/2]`; the grid is linear in wavelength.
An instrument of one's own is a small file, whose path stands wherever a name does (`read_instrument`), or a
line of Python, for example the lower arm of UVES with the 580 nm setting:

    register(Instrument("uves_580", (Arm("lower", 4800.0, 5750.0, 0.02, 47_000.0),)))
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import ArrayLike

from jaxspec.errors import InputError
from jaxspec.settings import build

FWHM_PER_SIGMA = 2.0 * np.sqrt(
    2.0 * np.log(2.0)
)  # 2.354820: the full width at half maximum of a unit Gaussian
SPEED_OF_LIGHT = 299_792.458  # km/s, exact (SI)


def lsf_sigma(wavelength: ArrayLike, resolving_power: ArrayLike) -> np.ndarray | np.float64:
    """Gaussian width in A of the line-spread function: lambda / (2.3548 R), since R = lambda / FWHM.

    An infinite resolving power gives zero. Shapes broadcast.
    """
    return np.asarray(wavelength, np.float64) / (FWHM_PER_SIGMA * np.asarray(resolving_power, np.float64))


@dataclass(frozen=True)
class Arm:
    """One contiguous wavelength range recorded at one setting.

    `low` and `high` (A) are the outer edges of the first and last pixel and `step` (A) is the pixel width.
    `resolving_power` is R = lambda / FWHM: one number, or the coefficients `(c0, c1, ...)` of a polynomial
    c0 + c1 lambda + ... with lambda in A. `medium` says whether the wavelengths are in "air" or "vacuum".
    """

    name: str
    low: float
    high: float
    step: float
    resolving_power: float | tuple[float, ...]
    medium: str = "air"

    def __post_init__(self):
        where = f"arm {self.name}"
        if not (0 < self.low < self.high and 0 < self.step <= self.high - self.low):
            raise InputError(
                where,
                f"range [{self.low}, {self.high}] A with step {self.step} A",
                "0 < low < high with at least one step between",
                "give the outer pixel edges and the pixel width in A",
            )
        if self.medium not in ("air", "vacuum"):
            raise InputError(
                where, f"medium {self.medium!r}", '"air" or "vacuum"', "say which one the grid is in"
            )
        if not np.all(self.resolution(self.wavelength) > 1):
            raise InputError(
                where,
                f"resolving power {self.resolving_power}",
                "R = lambda / FWHM > 1 in all pixels",
                "give lambda / FWHM, such as 20000",
            )

    @property
    def n_pixels(self) -> int:
        return round((self.high - self.low) / self.step)

    @cached_property
    def edges(self) -> np.ndarray:
        """Pixel edges in A, float64 [n_pixels + 1]."""
        return _frozen(self.low + self.step * np.arange(self.n_pixels + 1))

    @cached_property
    def wavelength(self) -> np.ndarray:
        """Pixel centres in A, float64 [n_pixels]."""
        return _frozen(self.low + self.step * (np.arange(self.n_pixels) + 0.5))

    def resolution(self, wavelength: ArrayLike) -> np.ndarray | np.float64:
        """Resolving power at `wavelength` (A); same shape."""
        wavelength = np.asarray(wavelength, np.float64)
        return (
            np.polynomial.polynomial.polyval(wavelength, np.atleast_1d(self.resolving_power)) + 0 * wavelength
        )

    def sigma(self, wavelength: ArrayLike) -> np.ndarray | np.float64:
        """Gaussian width in A of the line-spread function at `wavelength` (A); same shape."""
        return lsf_sigma(wavelength, self.resolution(wavelength))


@dataclass(frozen=True)
class Instrument:
    """Arms recorded for the same star, in order of wavelength; one spectrum is their pixels one after the
    other.

    Hashable, so that it can be a static field of a module or an argument of a jitted function.
    """

    name: str
    arms: tuple[Arm, ...]

    def __post_init__(self):
        where = f"instrument {self.name}"
        if not self.arms or len({arm.name for arm in self.arms}) != len(self.arms):
            raise InputError(
                where,
                f"arms {[arm.name for arm in self.arms]}",
                "one or more arms, each name once",
                "rename them",
            )
        for left, right in zip(self.arms, self.arms[1:], strict=False):
            if left.high > right.low:
                raise InputError(
                    where,
                    f"arm {left.name} up to {left.high} A and arm {right.name} from {right.low} A",
                    "arms in order of wavelength that do not overlap",
                    "sort them, or make overlapping settings two instruments",
                )
        if len({arm.medium for arm in self.arms}) != 1:
            raise InputError(where, "arms in air and in vacuum", "one medium", "convert one of the grids")

    @property
    def medium(self) -> str:
        return self.arms[0].medium

    @property
    def n_pixels(self) -> int:
        return sum(arm.n_pixels for arm in self.arms)

    @cached_property
    def wavelength(self) -> np.ndarray:
        """Pixel centres in A of all arms, float64 [n_pixels]."""
        return _frozen(np.concatenate([arm.wavelength for arm in self.arms]))

    @cached_property
    def resolution(self) -> np.ndarray:
        """Resolving power in each pixel, float64 [n_pixels]."""
        return _frozen(np.concatenate([arm.resolution(arm.wavelength) for arm in self.arms]))

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Where each arm's pixels are in a spectrum, by the arm's name."""
        ends = np.cumsum([arm.n_pixels for arm in self.arms]).tolist()
        return {arm.name: slice(end - arm.n_pixels, end) for arm, end in zip(self.arms, ends, strict=True)}

    @cached_property
    def arm_index(self) -> np.ndarray:
        """Number of the arm each pixel belongs to, int [n_pixels]."""
        index = np.repeat(np.arange(len(self.arms)), [arm.n_pixels for arm in self.arms])
        index.setflags(write=False)
        return index

    def arm(self, name: str) -> Arm:
        """The arm of this name. Raises `InputError` when there is none."""
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise InputError(
            f"instrument {self.name}",
            f"arm {name!r}",
            f"one of {[arm.name for arm in self.arms]}",
            "check the name",
        )


def _frozen(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array


# GIRAFFE at the VLT, Medusa fibres. Resolving powers are ESO's for the gratings as refurbished in 2014/15
# (FLAMES user manual, table of high-resolution setups): HR10 21,500 and HR21 18,000. Spectra taken before
# have 19,800 and 16,200: make an arm with that number to be exact for them. Ranges and the 0.05 A pixel, in
# air, are those of the Gaia-ESO survey's spectra (Gilmore et al. 2022, A&A 666, A120; Randich et al. 2022,
# A&A 666, A121), trimmed to what every fibre covers.
GIRAFFE_HR10 = Arm("hr10", 5330.0, 5610.0, 0.05, 21_500.0)
GIRAFFE_HR21 = Arm("hr21", 8480.0, 8980.0, 0.05, 18_000.0)

INSTRUMENTS: dict[str, Instrument] = {}


def register(instrument: Instrument) -> Instrument:
    """Make an instrument known by its name to `get_instrument` and so to every configuration file."""
    if INSTRUMENTS.get(instrument.name, instrument) != instrument:
        raise InputError(
            f"instrument {instrument.name}",
            "another instrument of that name",
            "a new name",
            "rename the new one",
        )
    return INSTRUMENTS.setdefault(instrument.name, instrument)


register(Instrument("giraffe_hr10", (GIRAFFE_HR10,)))
register(Instrument("giraffe_hr21", (GIRAFFE_HR21,)))
register(Instrument("giraffe", (GIRAFFE_HR10, GIRAFFE_HR21)))

# To come. The emulator in the package does not reach them: see `conf/coverage/` and `experiments.emulator`.
# 4MOST's high-resolution spectrograph (ESO's page of the instrument: R > 18,500; de Jong et al. 2019, The
# Messenger 175, 3), 6,000 pixels in each arm.
register(
    Instrument(
        "4most_hrs",
        (
            Arm("blue", 3926.0, 4355.0, 0.0715, 18_500.0),
            Arm("green", 5160.0, 5730.0, 0.095, 18_500.0),
            Arm("red", 6100.0, 6790.0, 0.115, 18_500.0),
        ),
    )
)
# WEAVE's high-resolution fibres, with the blue or the green grating beside the red one (ING's page of the
# instrument, with its pixels; Jin et al. 2024, MNRAS 530, 2688).
WEAVE_RED = Arm("red", 5950.0, 6850.0, 0.1, 20_000.0)
register(Instrument("weave_hr_blue", (Arm("blue", 4040.0, 4650.0, 0.08, 20_000.0), WEAVE_RED)))
register(Instrument("weave_hr_green", (Arm("green", 4730.0, 5450.0, 0.09, 20_000.0), WEAVE_RED)))
# MOONS, RI arm at high resolution (Cirasuolo et al. 2020, The Messenger 180, 10).
register(Instrument("moons_ri", (Arm("ri", 7650.0, 8980.0, 0.35, 9_200.0),)))


def read_instrument(path: str | Path) -> Instrument:
    """An instrument from a YAML file:

        name: my_red                # by default the file's name
        arms:
          - {name: red, low: 6100.0, high: 6200.0, step: 0.05, resolving_power: 20000}

    `low`, `high` and `step` are in A; `resolving_power` may be a list, the coefficients of a polynomial in
    wavelength; `medium` is air unless it is stated.

    Raises: InputError naming the file and the entry.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        found = error.strerror or str(error)
        raise InputError(str(path), found, "an instrument's file", "check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        found = " ".join(str(error).split())[:200]
        raise InputError(str(path), found, "YAML with name and arms", "mend the line") from error
    if not isinstance(values, dict):
        raise InputError(str(path), type(values).__name__, "entries name and arms", "see read_instrument")
    try:
        return build(Instrument, {"name": path.stem, **values}, f"{path}, ")
    except TypeError as error:
        raise InputError(str(path), str(error), "numbers for low, high, step", "mend the entry") from error


def get_instrument(name: str) -> Instrument:
    """A registered instrument by its name, or that of a file (.yaml). Raises `InputError` listing the known
    ones."""
    if name.endswith((".yaml", ".yml")):
        return read_instrument(name)
    if name not in INSTRUMENTS:
        raise InputError(
            "instrument",
            repr(name),
            f"one of {', '.join(sorted(INSTRUMENTS))}, or a file",
            "write the name of one, or instrument=my.yaml with its arms",
        )
    return INSTRUMENTS[name]
