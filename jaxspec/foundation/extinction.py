"""The extinction curve that the model has learnt: spectra of the same stars at two extinctions.

Nobody told it of dust. It is asked for the spectrum of a star of given labels at two values of A_K; the
ratio of both is the extinction between. The colour G - Ks (from G - J, J - H and H - Ks) and A_K itself give
the curve its zero point.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import astropy.units as u
import numpy as np
from jaxtyping import Float

from jaxspec.foundation.model import FoundationModel
from jaxspec.foundation.table import Table
from jaxspec.foundation.tasks import coefficients
from jaxspec.foundation.xp import (
    ARMS,
    BP_MODEL,
    COLOUR,
    MAGNITUDE,
    REACHED,
    RP_MODEL,
    Design,
    load_design,
    optional,
)

V_BAND = (545.0, 555.0)  # nm, where curves are 1


class Curve(NamedTuple):
    """An extinction curve.

    Attributes:
        wavelength: nm, those of both arms.
        ratio: A(wavelength) / A(550 nm), median over the stars.
        low, high: 16th and 84th percentile over the stars.
        a_v: A(550 nm) / A_K of the stars, median.
    """

    wavelength: Float[np.ndarray, " w"]
    ratio: Float[np.ndarray, " w"]
    low: Float[np.ndarray, " w"]
    high: Float[np.ndarray, " w"]
    a_v: float


def extinction_curve(
    model: FoundationModel,
    stars: Table,
    a_k: tuple[float, float] = (0.05, 0.35),
    design: Design | None = None,
) -> Curve:
    """The curve between two extinctions, from requests for the spectra of `stars` (their labels alone)."""
    design = load_design() if design is None else design
    basis = model.basis
    assert basis is not None, "the model knows no XP spectra"
    labels = stars.columns(["teff", "logg", "fe_h", "alpha_m"])
    names = [*coefficients(model.names, "bp"), *coefficients(model.names, "rp"), COLOUR, "g_j", "j_h", "h_k"]
    weights = g_weights(design)
    magnitudes = []
    for value in a_k:
        known = Table(
            (*labels.names, "a_k"),
            np.concatenate([labels.values, np.full((labels.n_stars, 1), value)], 1),
            np.concatenate([np.zeros_like(labels.values), np.zeros((labels.n_stars, 1))], 1),
            labels.source,
        )
        answer = model.predict(known, names)
        columns = dict(zip(answer.names, answer.median.T, strict=True))
        flux = {
            arm: basis.shape(arm, np.stack([columns[n] for n in coefficients(model.names, arm)], 1))
            for arm in ARMS
        }
        # The mean flux of RP is 1; that of BP follows from the colour.
        flux["bp"] = flux["bp"] * np.exp(-columns[COLOUR] / MAGNITUDE)[:, None]
        flux_all = np.concatenate([flux[arm] for arm in ARMS], 1)
        wavelength = np.concatenate([design.wavelength[basis.alone[arm]] for arm in ARMS])
        g = -MAGNITUDE * np.log(sum(flux[arm] @ weights[arm] for arm in ARMS))
        g_k = columns["g_j"] + columns["j_h"] + columns["h_k"]
        # Magnitudes on a scale on which Ks of the unreddened star is zero: K = A_K, G = A_K + (G - K).
        with np.errstate(invalid="ignore", divide="ignore"):
            monochromatic = -MAGNITUDE * np.log(np.where(flux_all > 0, flux_all, np.nan))
        magnitudes.append(monochromatic - g[:, None] + (g_k + value)[:, None])
    extinction = magnitudes[1] - magnitudes[0]
    v = np.nanmean(extinction[:, (wavelength > V_BAND[0]) & (wavelength < V_BAND[1])], 1)
    ratio = extinction / v[:, None]
    low, middle, high = np.nanquantile(ratio, (0.16, 0.5, 0.84), axis=0)
    return Curve(wavelength, middle, low, high, float(np.median(v) / (a_k[1] - a_k[0])))


def g_weights(design: Design) -> dict[str, Float[np.ndarray, " w"]]:
    """By arm, weights of the samples that stand alone whose sum is the flux in Gaia's G band, as `gaiaxpy`
    defines it; of 3,000 stars it gives G within 0.006 mag."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        band = optional("gaiaxpy.core.config").load_xpsampling_from_xml(
            system="GaiaDr3Vega", bp_model=BP_MODEL, rp_model=RP_MODEL
        )
    weights = {}
    for arm in ARMS:
        bases = design.bases[arm][:, design.alone[arm]]
        weights[arm] = np.linalg.pinv(bases.T, rcond=REACHED).T @ np.asarray(band[arm], float)[:, 0]
    return weights


def laws() -> dict[str, Any]:
    """Published laws by name: functions of R_V that make functions of the wavelength.

    Raises: InputError without the package `dust_extinction`.
    """
    averages = optional("dust_extinction.parameter_averages")
    return {name: getattr(averages, name) for name in ("F99", "F19", "G23")}


def compare(curve: Curve, within: tuple[float, float] = (400.0, 900.0)) -> dict[str, dict[str, float]]:
    """For each published law the R_V that fits best, and the largest and mean difference from it."""
    chosen = (curve.wavelength >= within[0]) & (curve.wavelength <= within[1]) & np.isfinite(curve.ratio)
    x = curve.wavelength[chosen] * u.nm
    out = {}
    for name, law in laws().items():
        best = None
        for r_v in np.arange(2.3, 4.51, 0.05):
            model = law(Rv=float(r_v))
            published = model(x) / np.mean(model(np.linspace(*V_BAND, 5) * u.nm))
            difference = np.abs(published - curve.ratio[chosen])
            if best is None or difference.mean() < best["mean"]:
                best = {
                    "r_v": float(r_v),
                    "mean": float(difference.mean()),
                    "largest": float(difference.max()),
                }
        assert best is not None
        out[name] = best
    return out
