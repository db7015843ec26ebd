"""Errors of the model, learned from real spectra: a random error for simulated spectra.

Residuals of spectra at rest (observed minus the best model and its continuum) are factors that many pixels
share, a scatter of each pixel by itself, and the noise that is stated:

    r_i = C a_i + s e_i + n_i,    a, e ~ N(0, 1),    n_i ~ N(0, 1 / ivar_i)

which is factor analysis with known noise (Rubin & Thayer 1982, Psychometrika 47, 69), fitted by expectation
and maximisation. There is no mean: what all spectra have alike becomes a factor of random sign, so that
networks learn not to believe those pixels rather than to correct them, as labels were read from them.
"""

from __future__ import annotations

from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from tqdm import tqdm

from jaxspec import artefacts
from jaxspec.errors import InputError
from jaxspec.instruments import Instrument

FOLDS, STEPS, FEWEST = 5, 60, 10
NUMBERS = (0, 1, 2, 3, 5, 8, 12)
CLIP = 6.0
"""Residuals beyond so many of their pixel's widths are cosmic rays or faults, and not learned."""


class ResidualModel(eqx.Module):
    """Random errors of a spectrum on an instrument's pixels, in units of the continuum.

    Attributes:
        components: factors that pixels share.
        scatter: standard deviation of what each pixel has by itself.
    """

    components: Float[Array, "k p"]
    scatter: Float[Array, " p"]

    def draw(self, key: PRNGKeyArray, n: int) -> Float[Array, "n p"]:
        """Errors of `n` spectra."""
        key_shared, key_own = jax.random.split(key)
        shared = jax.random.normal(key_shared, (n, len(self.components))) @ self.components
        return shared + self.scatter * jax.random.normal(key_own, (n, self.scatter.size))

    def log_density(
        self, residual: Float[np.ndarray, "n p"], ivar: Float[np.ndarray, "n p"]
    ) -> Float[np.ndarray, " n"]:
        """ln of the density of residuals with stated noise; pixels with `ivar == 0` do not count."""
        c, s2 = np.asarray(self.components, float), np.square(np.asarray(self.scatter, float))
        weight, mean, covariance = _factors(c, s2, residual, ivar)
        used = weight > 0.0
        left = np.where(used, residual, 0.0) - mean @ c
        log_weight = np.log(np.where(used, weight, 1.0))
        squares = np.sum(weight * left**2, axis=1) + np.sum(mean**2, axis=1)
        _, log_det = np.linalg.slogdet(covariance)
        each = log_weight.sum(axis=1) + log_det - squares
        return 0.5 * (each - used.sum(axis=1) * np.log(2.0 * np.pi))

    def save(self, folder: str | Path, instrument: Instrument) -> Path:
        """Write the model into a folder (see `jaxspec.artefacts`), which is returned."""
        arrays = {name: np.asarray(getattr(self, name), np.float32) for name in ("components", "scatter")}
        arms = [(arm.low, arm.high) for arm in instrument.arms]
        where = artefacts.domain(instrument=instrument.name, wavelength=arms)
        arrays["wavelength"] = instrument.wavelength
        return artefacts.save(folder, KIND, arrays, {"instrument": instrument.name}, where)

    @classmethod
    def load(cls, path: str | Path, instrument: Instrument) -> ResidualModel:
        """Read what `save` wrote, or a single file `residuals.npz` of before.

        Raises: InputError for another kind of file, and for one of other pixels.
        """
        path = Path(path)
        arrays = _read_file(path) if path.is_file() else artefacts.load(path, KIND, REMAKE).arrays
        grid = arrays["wavelength"]
        if grid.shape != instrument.wavelength.shape or not np.allclose(
            grid, instrument.wavelength, rtol=0, atol=1e-3
        ):
            raise InputError(
                str(path),
                f"{grid.size} pixels from {grid[0]:.2f} A",
                f"the {instrument.n_pixels} pixels of {instrument.name}",
                "learn it from spectra of this instrument",
            )
        return cls(*(jnp.asarray(arrays[name]) for name in ("components", "scatter")))


KIND = "residuals"
REMAKE = "learn them again with experiments.residuals"


def _read_file(path: Path) -> dict[str, np.ndarray]:
    """Arrays of a model in one file, as it was stored before there were folders."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in ("components", "scatter", "wavelength")}
    except Exception as error:  # zipfile and zlib have errors of their own
        raise InputError(
            str(path),
            f"no errors of spectra ({type(error).__name__}: {str(error)[:120]})",
            "the folder `residuals` of experiments.residuals",
            f"check the path, or {REMAKE}",
        ) from error


def fit_residuals(
    residual: Float[np.ndarray, "n p"], ivar: Float[np.ndarray, "n p"]
) -> tuple[ResidualModel, dict[int, float]]:
    """Learn the errors of spectra from their residuals (`without_outliers`); pixels with `ivar == 0` are not
    read.

    Returns: the model, and by number of factors the mean ln density of left-out spectra (a fifth at a time)
        over that of the stated noise alone, per pixel. The number with the highest is taken; -1 stands for
        no error at all.

    Raises: InputError for fewer than ten spectra.
    """
    residual = np.asarray(residual, float)
    ivar = np.asarray(ivar, float)
    n = len(residual)
    if n < FEWEST:
        raise InputError("residuals", f"{n} spectra", f"{FEWEST} or more", "give more spectra")
    fold = np.random.default_rng(0).permutation(n) % FOLDS
    pixels = np.sum(ivar > 0.0)
    numbers = [k for k in NUMBERS if k <= np.sum(fold != 0) // 2]
    nothing = ResidualModel(jnp.zeros((0, residual.shape[1])), jnp.zeros(residual.shape[1]))
    alone = nothing.log_density(residual, ivar).sum()
    gain = {-1: 0.0}
    gain |= dict.fromkeys(numbers, -float(alone / pixels))
    for k, i in tqdm([(k, i) for k in numbers for i in range(FOLDS)], unit="fit", desc="residuals"):
        kept, out = fold != i, fold == i
        found = _fit(residual[kept], ivar[kept], k)
        gain[k] += float(found.log_density(residual[out], ivar[out]).sum() / pixels)
    best = max(gain, key=gain.__getitem__)
    return (_fit(residual, ivar, best) if best >= 0 else nothing), gain


def without_outliers(
    residual: Float[np.ndarray, "n p"], ivar: Float[np.ndarray, "n p"]
) -> Float[np.ndarray, "n p"]:
    """`ivar` with 0 for residuals beyond `CLIP` times the noise and their pixel's usual width."""
    used = ivar > 0.0
    usual = 1.4826 * np.nanmedian(np.where(used | ~used.any(axis=0), np.abs(residual), np.nan), axis=0)
    noise = 1.0 / np.where(used, ivar, 1.0)
    return np.where(np.abs(residual) > CLIP * np.sqrt(usual**2 + noise), 0.0, ivar)


def _fit(residual, ivar, k):
    used = ivar > 0.0
    r = np.where(used, residual, 0.0)
    excess = np.sum(np.where(used, r**2, 0.0), axis=0) / np.maximum(used.sum(axis=0), 1)
    for _ in range(10):
        excess = _scatter(excess, r**2, ivar)
    _, size, right = np.linalg.svd(r, full_matrices=False)
    c = size[:k, None] * right[:k] / np.sqrt(len(r))
    # Of what is beyond the noise, half is each pixel's own to begin with.
    s2 = 0.5 * excess
    for _ in range(STEPS):
        weight, mean, covariance = _factors(c, s2, r, ivar)
        unsure = 0.0
        if k:
            second = mean[:, :, None] * mean[:, None, :] + covariance
            # The prior of a factor at a pixel: as wide as all that the pixel has beyond the noise.
            normal = (weight.T @ second.reshape(-1, k * k)).reshape(-1, k, k)
            normal += np.eye(k) / (excess + 1e-10)[:, None, None]
            c = np.linalg.solve(normal, ((weight * r).T @ mean)[..., None])[..., 0].T
            unsure = covariance.reshape(-1, k * k) @ _pairs(c)
        s2 = _scatter(s2, (r - mean @ c) ** 2 + unsure, ivar)
        if k:
            # The scale of factors, which thousands of pixels pin down, would change by tiny steps: they are
            # given unit variance at once (parameter expansion; Liu, Rubin & Wu 1998, Biometrika 85, 755).
            c = np.linalg.cholesky(second.mean(axis=0)).T @ c
    return ResidualModel(jnp.asarray(c, jnp.float32), jnp.asarray(np.sqrt(s2), jnp.float32))


def _scatter(s2, squares, ivar):
    """A better variance of each pixel beyond the noise, from squared residuals: one step of scoring."""
    weight = np.square(np.where(ivar > 0.0, ivar / (1.0 + s2 * ivar), 0.0))
    noise = 1.0 / np.where(ivar > 0.0, ivar, 1.0)
    total = np.sum(weight, axis=0)
    return np.maximum(np.sum(weight * (squares - noise), axis=0) / np.where(total > 0.0, total, 1.0), 0.0)


def _factors(c, s2, residual, ivar):
    """Inverse variance of what each pixel has by itself `[n, p]`, and mean `[n, k]` and covariance
    `[n, k, k]` of the factors of each spectrum."""
    weight = np.where(ivar > 0.0, ivar / (1.0 + s2 * ivar), 0.0)
    precision = np.eye(len(c)) + (weight @ _pairs(c).T).reshape(len(weight), len(c), len(c))
    covariance = np.linalg.inv(precision)
    seen = (weight * np.where(weight > 0.0, residual, 0.0)) @ c.T
    return weight, np.einsum("nkj,nj->nk", covariance, seen), covariance


def _pairs(c):
    """Products of every two factors, pixel by pixel: `[k k, p]`."""
    return (c[:, None] * c).reshape(len(c) ** 2, c.shape[1])
