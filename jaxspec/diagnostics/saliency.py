"""Where the network looked: how each pixel's flux moves the mean and the width of a posterior, and whether
those pixels are where the lines are.

Maps are derivatives through the whole network, encoder and flow, at fixed draws of the flow's noise. They are
given as the change for one standard deviation of the pixel's noise, which is what the pixel can do to the
answer, so that maps of the mean compare pixel by pixel with the best linear estimate's.

A map can be pretty and wrong. `score` therefore holds it against the lines that make the spectrum: the share
of its largest pixels that are on lines of the label's own element, beside the share of all pixels that are
(what a map without knowledge gets), and beside the best linear filter's.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from jaxspec.amortised.amortised import AmortisedPosterior
from jaxspec.errors import InputError
from jaxspec.instruments import Instrument
from jaxspec.labels import LabelSet
from jaxspec.physics.identify import IdentifiedLines
from jaxspec.spectra import vacuum_to_air

METHODS = ("gradient", "smooth", "integrated")


class Saliency(NamedTuple):
    """Of each star `s`, label `l` and pixel `p`, in the label's unit: what the pixel does to the posterior's
    `mean [s, l, p]` and to its standard deviation, `width [s, l, p]`. Masked pixels have 0.

    `width` is None for networks with a linear fit inside: the fit's covariance follows the guess at which the
    forward model was linearised, and derivatives do not go through that (they would be of third order).
    """

    mean: Float[np.ndarray, "s l p"]
    width: Float[np.ndarray, "s l p"] | None


def saliency(
    posterior: AmortisedPosterior,
    flux: Float[np.ndarray, "s p"],
    ivar: Float[np.ndarray, "s p"],
    key: PRNGKeyArray,
    method: str = "smooth",
    n_draws: int = 128,
    n_steps: int = 16,
    baseline: Float[np.ndarray, "s p"] | None = None,
) -> Saliency:
    """Maps of some stars, whose flux has gone through `posterior.prepare`.

    Args:
        method: `gradient`, the derivative at the spectrum itself times the pixel's error; `smooth`, its mean
            over spectra with the noise drawn once more (SmoothGrad, Smilkov et al. 2017, arXiv:1706.03825);
            `integrated`, the mean derivative on the straight way from `baseline` times the pixel's distance
            from it, which adds up over pixels to the difference of the two answers (integrated gradients,
            Sundararajan et al. 2017, arXiv:1703.01365, equation 1).
        n_draws: of the flow, behind the mean and the width.
        n_steps: spectra that `smooth` and `integrated` average over.
        baseline: by default the mean spectrum of the training set.

    Raises InputError for unknown methods and shapes that do not match.
    """
    if method not in METHODS:
        raise InputError("method", repr(method), f"one of {', '.join(METHODS)}", "check the spelling")
    flux, ivar = np.asarray(flux, np.float32), np.asarray(ivar, np.float32)
    n_pixels = posterior.instrument.n_pixels
    if flux.shape != ivar.shape or flux.shape[1] != n_pixels:
        raise InputError(
            "flux, ivar",
            f"shapes {flux.shape} and {ivar.shape}",
            f"[stars, {n_pixels}] for both",
            "use posterior.prepare",
        )
    if baseline is None:
        baseline = np.broadcast_to(np.asarray(posterior.network.encoder.mean[...]), flux.shape)
    graph, state = nnx.split(posterior.network)
    found = []
    for i in range(len(flux)):
        seen = ivar[i] > 0.0
        start = np.where(seen, flux[i], 1.0)
        error = np.where(seen, 1.0 / np.sqrt(np.where(seen, ivar[i], 1.0)), 0.0)
        draws, noise = jax.random.split(jax.random.fold_in(key, i))
        if method == "gradient":
            points, scale = start[None], error
        elif method == "smooth":
            points, scale = start + error * np.asarray(jax.random.normal(noise, (n_steps, n_pixels))), error
        else:
            scale = np.where(seen, start - baseline[i], 0.0)
            share = (np.arange(n_steps) + 0.5)[:, None] / n_steps
            points = start - (1.0 - share) * scale
        slope = _mean_slope(graph, state, draws, jnp.asarray(points, jnp.float32), ivar[i], n_draws)
        found.append(np.asarray(slope) * scale)
    maps = np.stack(found)
    return Saliency(maps[:, 0], maps[:, 1] if posterior.network.linear_fit is None else None)


@partial(jax.jit, static_argnums=(0, 5))
def _mean_slope(graph, state, key, points: Float[Array, "k p"], ivar: Float[Array, " p"], n_draws: int):
    """Derivatives of mean and standard deviation by the flux, `[2, l, p]`, averaged over spectra."""
    network = nnx.merge(graph, state)

    def answer(flux):
        draws, _ = network.sample_given(key, network.context(flux[None], ivar[None]), n_draws)
        return jnp.stack([jnp.mean(draws[:, 0], axis=0), jnp.std(draws[:, 0], axis=0)])

    slope = jax.jacrev(answer)

    def add(total, point):
        return total + slope(point), None

    shape = (2, len(network.label_set), points.shape[1])
    return jax.lax.scan(add, jnp.zeros(shape, points.dtype), points)[0] / len(points)


def near_lines(
    label_set: LabelSet, lines: IdentifiedLines, instrument: Instrument, smallest_width: float = 5.0
) -> dict[str, Bool[np.ndarray, " p"]]:
    """For each label that is an abundance, pixels within one resolution element of a line of its element, of
    any ionisation, that alone with the continuum is at least `smallest_width` mA wide."""
    wavelength = instrument.wavelength
    wavelength = wavelength if instrument.medium == "air" else vacuum_to_air(wavelength)
    of = np.array([species.split()[0] for species in lines.species], "U2")
    wide = lines.equivalent_width >= smallest_width
    near = {}
    for label in label_set:
        if label.element is None:
            continue
        ends = np.concatenate([[-np.inf], np.sort(lines.wavelength[wide & (of == label.element)]), [np.inf]])
        after = np.searchsorted(ends, wavelength)
        nearest = np.minimum(wavelength - ends[after - 1], ends[after] - wavelength)
        near[label.name] = nearest <= wavelength / instrument.resolution
    return near


def share_near(
    values: Float[np.ndarray, " p"],
    near: Bool[np.ndarray, " p"],
    seen: Bool[np.ndarray, " p"],
    top: float = 0.01,
) -> float:
    """Share of the largest `|values|`, a fraction `top` of the seen pixels, that lie near lines."""
    index = np.flatnonzero(seen)
    if not len(index):
        raise InputError("seen", "no pixel", "one or more", "leave the star out")
    n = max(1, round(top * len(index)))
    largest = index[np.argsort(-np.abs(values[index]), kind="stable")[:n]]
    return float(near[largest].mean())


class Score(NamedTuple):
    """How much of a map is on lines of the label's own element: `share` of the largest pixels, `chance`, the
    share of all pixels, and `filter`, the share of the largest pixels of the best linear estimate."""

    share: float
    chance: float
    filter: float


def score(
    label_set: LabelSet,
    near: Mapping[str, Bool[np.ndarray, " p"]],
    influence: Float[np.ndarray, "l p"],
    best: Float[np.ndarray, "l p"],
    seen: Bool[np.ndarray, " p"],
    top: float = 0.01,
) -> dict[str, Score]:
    """Scores of one star's map for each label that has lines.

    Args:
        near: pixels near lines by label, see `near_lines`.
        influence: one of the maps of `saliency`.
        best: the same of the best linear estimate: the square root of `Information.marginal`, whose squares
            are each pixel's part of what is known about a label when nothing else is known.
        seen: pixels that count.
        top: fraction of the pixels that are called largest.
    """
    found = {}
    for name, own in near.items():
        i = label_set.index(name)
        share, filtered = (share_near(values[i], own, seen, top) for values in (influence, best))
        found[name] = Score(share, float(own[seen].mean()), filtered)
    return found
