"""Gaia XP spectra as coefficients that a network can read, with their errors.

The archive stores each spectrum as 55 coefficients of BP and 55 of RP, whose bases the package `gaiaxpy` has
(De Angeli et al. 2023, A&A 674, A2; Montegriffo et al. 2023, A&A 674, A3). They are correlated, scale with
the brightness of the star, and cannot be recovered from spectra sampled every 2 nm. `XPBasis` therefore
defines others, which follow exactly from either form:

1. Each arm is sampled where it stands alone (BP 336-634 nm, RP 644-1020 nm), and divided by its mean flux.
2. Of the samples only the directions remain that the archive's bases reach well (39 of BP, 40 of RP): those
   whose singular value is above half a per cent of the largest. The rest is small but at the arms' ends.
3. These are rotated so that noise is uncorrelated and of unit size in a typical star, and ordered by signal
   over noise (the minimum noise fraction of Green et al. 1988, IEEE TGRS 26, 65). The last of each arm is
   the mean flux, which is 1 by now, and left out.

The ratio of the two mean fluxes is one more number, the colour `xp_colour`. A star without one arm lacks that
arm's numbers and the colour, and nothing else.
"""

from __future__ import annotations

import dataclasses
import importlib
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Float

from jaxspec.errors import InputError

ARMS = ("bp", "rp")
BP_MODEL, RP_MODEL = "v375wi", "v142r"  # the bases of Gaia DR3
COLOUR = "xp_colour"
MAGNITUDE = 2.5 / np.log(10.0)
REACHED = 5e-3  # a direction counts where its singular value is above this share of the largest


class Design(NamedTuple):
    """The archive's bases, sampled.

    Attributes:
        wavelength: nm (vacuum), 336 to 1020 in steps of 2.
        bases: by arm, `[55, 343]`: flux in W/m2/nm of each coefficient.
        alone: by arm, the samples that only this arm makes up.
    """

    wavelength: Float[np.ndarray, " w"]
    bases: dict[str, Float[np.ndarray, "c w"]]
    alone: dict[str, np.ndarray]


def optional(name: str) -> ModuleType:
    """A module of the extra `xp`.

    Raises: InputError when it is not installed.
    """
    try:
        import matplotlib

        # gaiaxpy sets matplotlib to LaTeX at import, after which figures need a TeX installation.
        with warnings.catch_warnings(), matplotlib.rc_context():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            name, "it is not installed", "a package of the extra xp", "run pip install 'jaxspec[xp]'"
        ) from error


def load_design() -> Design:
    """The bases of Gaia DR3 on the wavelengths of the archive's sampled spectra."""
    config = optional("gaiaxpy.core.config")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wavelength, merge = config.load_xpmerge_from_xml(bp_model=BP_MODEL, rp_model=RP_MODEL)
        bases = config.load_xpsampling_from_xml(bp_model=BP_MODEL, rp_model=RP_MODEL)
    return Design(
        np.asarray(wavelength, float),
        {arm: np.asarray(bases[arm], float) for arm in ARMS},
        {arm: np.asarray(merge[arm], float) == 1.0 for arm in ARMS},
    )


class Coefficients(NamedTuple):
    """Numbers of some stars.

    Attributes:
        names: of the columns.
        values, errors: `[n, c]`; NaN where a star lacks them.
    """

    names: tuple[str, ...]
    values: Float[np.ndarray, "n c"]
    errors: Float[np.ndarray, "n c"]

    def join(self, other: Coefficients) -> Coefficients:
        """Further columns of the same stars."""
        values, errors = (np.concatenate(pair, 1) for pair in zip(self[1:], other[1:], strict=True))
        return Coefficients(self.names + other.names, values, errors)


@dataclass(frozen=True, eq=False)
class XPBasis:
    """From the samples of each arm to coefficients.

    Attributes:
        alone: by arm, the samples used, `[343]`.
        mean: by arm, the mean of normalised flux, `[w]`.
        rotation: by arm, `[c, w]`, such that coefficients are rotation @ (flux / mean flux - mean).
        back, common: by arm, `[w, c]` and `[w]`: normalised flux is about common + back @ coefficients.
        noise: by arm, `[w, r]`, a root of the correlation of noise between samples, used where only the
            errors of samples are known.
        inflation: by arm, `[c]`, factors on the errors of coefficients that come from samples, found by
            `calibrated`.
    """

    alone: dict[str, np.ndarray]
    mean: dict[str, Float[np.ndarray, " w"]]
    rotation: dict[str, Float[np.ndarray, "c w"]]
    back: dict[str, Float[np.ndarray, "w c"]]
    common: dict[str, Float[np.ndarray, " w"]]
    noise: dict[str, Float[np.ndarray, "w r"]]
    inflation: dict[str, Float[np.ndarray, " c"]]

    @classmethod
    def fit(
        cls, flux: Float[np.ndarray, "n w"], error: Float[np.ndarray, "n w"], design: Design | None = None
    ) -> XPBasis:
        """The basis of a set of sampled spectra (some thousand, of all types).

        Only the errors of samples are published, not their correlation. It is taken as that of uncorrelated
        coefficients of equal errors; `calibrated` then sets the errors right coefficient by coefficient.
        """
        design = load_design() if design is None else design
        mean, rotation, back, common, noise, inflation = {}, {}, {}, {}, {}, {}
        for arm in ARMS:
            alone = design.alone[arm]
            bases = design.bases[arm][:, alone]
            noise[arm] = bases.T / np.linalg.norm(bases, axis=0)[:, None]
            norm = flux[:, alone].mean(1, keepdims=True)
            shape, shape_error = flux[:, alone] / norm, error[:, alone] / norm
            mean[arm] = np.median(shape, 0)
            left, singular, _ = np.linalg.svd(bases.T, full_matrices=False)
            reached = left[:, singular > REACHED * singular[0]]
            typical = reached.T @ (noise[arm] * np.median(shape_error, 0)[:, None])
            deviation = (shape - mean[arm]) @ reached
            largest = np.linalg.norm(deviation, axis=1)
            signal = np.cov(deviation[largest < np.quantile(largest, 0.99)].T)
            _, vectors = scipy.linalg.eigh(signal, typical @ typical.T)
            rotation[arm] = (reached @ vectors[:, :0:-1]).T  # the last is the mean flux
            # Vectors are orthonormal in the metric of the noise, so that this undoes the rotation.
            # By least squares over these spectra, since directions that are not reached are not empty.
            known = np.concatenate([deviation @ vectors[:, :0:-1], np.ones((len(flux), 1))], 1)
            solution = np.linalg.lstsq(known, shape, rcond=None)[0]
            back[arm], common[arm] = solution[:-1].T, solution[-1]
            inflation[arm] = np.ones(len(rotation[arm]))
        return cls(dict(design.alone), mean, rotation, back, common, noise, inflation)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the coefficients: bp_1, bp_2, ..., rp_1, ..., and the colour."""
        return (*self.of_arm("bp"), *self.of_arm("rp"), COLOUR)

    def of_arm(self, arm: str) -> tuple[str, ...]:
        """Names of the coefficients of one arm."""
        return tuple(f"{arm}_{i + 1}" for i in range(len(self.rotation[arm])))

    def from_samples(self, flux: Float[np.ndarray, "n w"], error: Float[np.ndarray, "n w"]) -> Coefficients:
        """Coefficients of spectra sampled at the archive's 343 wavelengths, on any scale of flux.

        Their errors follow from those of samples and a guess at the correlations, times `inflation`. Of two
        stars whose covariances are known they are mostly 0.6 to 1.4 times right.
        """
        n = len(flux)
        parts: dict[str, tuple] = {}
        for arm in ARMS:
            values, sigma = flux[:, self.alone[arm]], error[:, self.alone[arm]]
            root = np.empty((n, len(self.rotation[arm])))
            norm = values.mean(1)
            for rows in _blocks(n):  # [c, w] @ diag(error) @ [w, r] for each star
                scaled = self.rotation[arm][None] * (sigma[rows] / norm[rows, None])[:, None]
                root[rows] = np.linalg.norm(scaled @ self.noise[arm], axis=2)
            norm_error = np.linalg.norm((sigma / values.shape[1]) @ self.noise[arm], axis=1)
            shape = values / norm[:, None] - self.mean[arm]
            parts[arm] = (shape @ self.rotation[arm].T, root * self.inflation[arm], norm, norm_error)
        return self._put(parts, n)

    def from_coefficients(
        self,
        coefficients: dict[str, list[Float[np.ndarray, " c"] | None]],
        covariances: dict[str, list[Float[np.ndarray, "c c"] | None]],
        design: Design | None = None,
    ) -> Coefficients:
        """Coefficients of the archive's continuous spectra, with their full covariances.

        Args:
            coefficients, covariances: by arm, one for each star; None for an arm that was not observed.
        """
        design = load_design() if design is None else design
        n = len(coefficients["bp"])
        parts = {}
        for arm in ARMS:
            bases = design.bases[arm][:, self.alone[arm]]
            size = len(self.rotation[arm])
            values, sigma, norm, norm_error = (np.full(s, np.nan) for s in ((n, size), (n, size), n, n))
            for i, (row, covariance) in enumerate(zip(coefficients[arm], covariances[arm], strict=True)):
                if row is None or covariance is None:
                    continue
                flux = row @ bases
                norm[i] = flux.mean()
                norm_error[i] = np.sqrt(bases.mean(1) @ covariance @ bases.mean(1))
                values[i] = self.rotation[arm] @ (flux / norm[i] - self.mean[arm])
                # The mean flux is made of the same numbers, so that its error is in the shape, too.
                change = (
                    self.rotation[arm] - (self.rotation[arm] @ flux / norm[i])[:, None] / len(flux)
                ) / norm[i]
                jacobian = change @ bases.T
                sigma[i] = np.sqrt(np.einsum("kc,cd,kd->k", jacobian, covariance, jacobian))
            parts[arm] = (values, sigma, norm, norm_error)
        return self._put(parts, n)

    def _put(self, parts: dict[str, tuple], n: int) -> Coefficients:
        bp, rp = parts["bp"], parts["rp"]
        with np.errstate(invalid="ignore", divide="ignore"):
            colour = MAGNITUDE * np.log(rp[2] / bp[2])
            colour_error = MAGNITUDE * np.hypot(rp[3] / rp[2], bp[3] / bp[2])
        values = np.concatenate([bp[0], rp[0], colour[:, None]], 1)
        errors = np.concatenate([bp[1], rp[1], colour_error[:, None]], 1)
        return Coefficients(self.names, values, errors)

    def shape(self, arm: str, coefficients: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n w"]:
        """The normalised flux of an arm, from its coefficients."""
        return self.common[arm] + coefficients @ self.back[arm].T

    def calibrated(self, flux: Float[np.ndarray, "n w"], error: Float[np.ndarray, "n w"]) -> XPBasis:
        """The same basis with errors that are right on average.

        Every coefficient is predicted from all the others; the square of what is left grows with the square
        of the stated error, and its slope is the square of the factor by which that error is wrong.
        """
        ones = {arm: np.ones(len(self.rotation[arm])) for arm in ARMS}
        raw = dataclasses.replace(self, inflation=ones)
        table = raw.from_samples(flux, error)
        factors = {arm: np.ones(len(self.rotation[arm])) for arm in ARMS}
        for arm in ARMS:
            for k, name in enumerate(self.of_arm(arm)):
                factors[arm][k] = _factor(table, table.names.index(name))
        return dataclasses.replace(self, inflation=factors)


def _blocks(n: int, size: int = 256) -> Iterable[slice]:
    return (slice(start, start + size) for start in range(0, n, size))


def _factor(table: Coefficients, column: int) -> float:
    """By how much the stated errors of one coefficient have to be multiplied."""
    x = np.delete(table.values, column, 1)
    low, middle, high = np.quantile(x, (0.16, 0.5, 0.84), axis=0)
    x = np.arcsinh((x - middle) / (0.5 * (high - low)))
    x = np.concatenate([np.ones((len(x), 1)), x, x[:, :8] ** 2, x[:, 38:46] ** 2], 1)
    y, sigma = table.values[:, column], table.errors[:, column]
    weight = 1.0 / sigma
    for _ in range(3):  # robust least squares
        scaled = x * weight[:, None]
        normal = scaled.T @ scaled
        normal[np.diag_indices_from(normal)] *= 1.0 + 1e-6
        solution = np.linalg.solve(normal, scaled.T @ (y * weight))
        left = (y - x @ solution) / sigma
        scale = 1.4826 * np.median(np.abs(left))
        weight = 1.0 / (sigma * np.sqrt(1.0 + (left / (2.0 * scale)) ** 2))
    left = y - x @ solution
    edges = np.quantile(sigma, np.linspace(0.02, 0.98, 25))
    group = np.digitize(sigma, edges)
    spread = np.array([1.4826 * np.median(np.abs(left[group == g])) for g in range(1, 25)])
    stated = np.array([np.median(sigma[group == g]) for g in range(1, 25)])
    # spread^2 = a + c^2 stated^2, fitted in units of stated^2 so that each group counts alike.
    design = np.stack([1.0 / stated**2, np.ones(24)], 1)
    (floor, square), *_ = np.linalg.lstsq(design, (spread / stated) ** 2, rcond=None)
    if floor < 0.0:
        square = np.mean((spread / stated) ** 2)
    return float(np.sqrt(np.clip(square, 0.05, 4.0)))


def read_continuous(path: str | Path) -> tuple[np.ndarray, dict[str, list], dict[str, list]]:
    """Source ids, coefficients and covariances of a file of the archive (XP_CONTINUOUS as CSV, ECSV, FITS,
    VOTable or AVRO), which `gaiaxpy` reads.

    Raises: InputError for a file that it cannot read.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(str(path), "no such file", "spectra of the Gaia archive", "check the path")
    reader = optional("gaiaxpy.input_reader.input_reader")
    calibrator = optional("gaiaxpy.calibrator.calibrator")
    covariance_of = optional("gaiaxpy.spectrum.utils").get_covariance_matrix
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table, _ = reader.InputReader(path, calibrator._calibrate, False, disable_info=True).read()
    except Exception as error:  # of many kinds
        raise InputError(
            str(path),
            f"a file that gaiaxpy cannot read ({type(error).__name__}: {str(error)[:150]})",
            "an XP_CONTINUOUS file of the Gaia archive",
            "download it again with its own name and suffix",
        ) from error
    coefficients: dict[str, list] = {arm: [] for arm in ARMS}
    covariances: dict[str, list] = {arm: [] for arm in ARMS}
    for row in table.to_dict("records"):
        for arm in ARMS:
            values, scale = row.get(f"{arm}_coefficients"), row.get(f"{arm}_standard_deviation")
            if np.ndim(values) == 0 or scale is None or not np.isfinite(np.asarray(values, float)).all():
                coefficients[arm].append(None)
                covariances[arm].append(None)
                continue
            coefficients[arm].append(np.asarray(values, float))
            covariances[arm].append(np.asarray(covariance_of(row, arm), float) * float(scale) ** 2)
    return table["source_id"].to_numpy(np.int64), coefficients, covariances
