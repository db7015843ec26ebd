"""The physics answer to surveys that differ in interstellar dust: redden the near stars."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from jaxspec.datasets import Dataset
from jaxspec.errors import InputError

R_V = (2.5, 4.0)  # between which the curve is interpolated in 1 / R_V


def extinction_curves(wavelength: Float[np.ndarray, " p"]) -> Float[np.ndarray, "2 p"]:
    """A(lambda) / A_V at both ends of `R_V` from the law of Gordon et al. (2023, ApJ 950, 86).

    Args:
        wavelength: vacuum, in A; 912 A to 32 um.

    Raises: InputError when `dust_extinction` is not installed.
    """
    try:
        import astropy.units as u
        from dust_extinction.parameter_averages import G23
    except ImportError as error:
        raise InputError("reddening", str(error), "dust_extinction", "pip install 'jaxspec[xp]'") from error
    x = np.asarray(wavelength, np.float64) * u.AA
    return np.stack([np.asarray(G23(Rv=r)(x), np.float64) for r in R_V])


@dataclass(frozen=True, eq=False)
class Reddening:
    """Reddens stars at random, each time they are drawn: an `Augment` of `jaxspec.surveys.adapt.Survey`.

    Attributes:
        curves: of `extinction_curves` on the spectra's pixels.
        a_v: range of the extinction [mag], evenly drawn.
        r_v: mean and scatter of R_V, kept within 2.5 to 4.
    """

    curves: Float[np.ndarray, "2 p"]
    a_v: tuple[float, float] = (0.0, 8.0)
    r_v: tuple[float, float] = (3.1, 0.2)

    def __call__(self, rng: np.random.Generator, data: Dataset) -> Dataset:
        """The batch, reddened, over its new median flux; errors keep their ratio to the flux, and grow by as
        much as a fainter star's would, up to threefold."""
        n = data.n_stars
        a_v = rng.uniform(*self.a_v, n)
        r_v = np.clip(rng.normal(*self.r_v, n), *R_V)
        factor = self.transmission(a_v, r_v)
        flux = np.asarray(data.flux) * factor
        median = np.median(flux, axis=1, keepdims=True)
        # Some of the reddened stars are as bright as the near ones, others fainter.
        fainter = rng.uniform(1.0, 3.0, (n, 1))
        sigma = np.where(np.asarray(data.ivar) > 0, 1.0 / np.sqrt(np.maximum(data.ivar, 1e-30)), np.inf)
        sigma = sigma * np.maximum(factor, 0.3) / median
        noise = sigma * np.sqrt(fainter**2 - 1.0) * rng.normal(size=flux.shape)
        flux = flux / median + np.where(np.isfinite(noise), noise, 0.0)
        return data._replace(
            flux=flux.astype(np.float32), ivar=(1.0 / (fainter * sigma) ** 2).astype(np.float32)
        )

    def transmission(
        self, a_v: Float[np.ndarray, " n"], r_v: Float[np.ndarray, " n"]
    ) -> Float[np.ndarray, "n p"]:
        """Share of the light that passes. The law is linear in 1 / R_V."""
        share = (1.0 / r_v - 1.0 / R_V[0]) / (1.0 / R_V[1] - 1.0 / R_V[0])
        curve = (1.0 - share)[:, None] * self.curves[0] + share[:, None] * self.curves[1]
        return 10.0 ** (-0.4 * a_v[:, None] * curve)
