"""The prior over a star's labels: an explicit, normalised density that can be sampled, evaluated, and divided
out again.

Three factors, each deliberately broader than real stars, so that the data and not the prior decide:

1. `(teff, logg)`: uniform on a polygon of plausible dwarfs, turn-off stars, subgiants and giants. The polygon
   leaves out hot stars of low gravity and a wedge of cool stars of intermediate gravity, where no star of any
   age lives; every star of the Gaia benchmark set (Soubiran et al. 2024, A&A 682, A145) whose labels are in
   the range is inside.
2. `fe_h`: half uniform over the range, half a truncated Gaussian about the Milky Way disc.
3. `[X/Fe]` given `fe_h`: a mixture of a uniform box (any chemistry) and of two sequences, one of high and one
   of low [alpha/Fe], with the mean trends of Bensby et al. (2014, A&A 562, A71) and a scatter about twice the
   observed one. The elements are independent within a component; their correlation comes from the mixture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp, ndtr, ndtri
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from jaxspec.errors import InputError
from jaxspec.labels import NINE_LABELS, LabelSet, label_set

Corners = Sequence[Sequence[float]] | np.ndarray

# How much of the trend of [Mg/Fe] and its like each element has (see `alpha_sequences`).
ALPHA_SHARES = {"al_h": 0.70, "mg_h": 1.25, "ca_h": 0.80, "ni_h": 0.0, "ti_h": 0.85, "si_h": 0.85}

# The labels of the polygon's corners.
HR = ("teff", "logg")

# (teff [K], logg [dex]), counter-clockwise in (teff, logg). Concave: the notch at 4000-4600 K, log g 2.6-4.1
# holds no stars.
PLAUSIBLE_STARS = (
    (4000.0, 0.5),
    (5200.0, 0.5),
    (5700.0, 2.0),
    (6200.0, 3.0),
    (7000.0, 3.3),
    (7000.0, 4.8),
    (5800.0, 5.0),
    (4000.0, 5.0),
    (4000.0, 4.1),
    (4500.0, 3.9),
    (4500.0, 3.3),
    (4000.0, 2.6),
)


@dataclass(frozen=True)
class StellarPrior:
    """The density of the labels that simulated stars are drawn from.

    All lengths are in the labels' own units (K and dex). Hashable, so it can be closed over or be static
    under `jax.jit`.

    Attributes:
        polygon: corners of the plausible region in `(teff, logg)`, a simple polygon in either orientation.
        fe_h_range: lower and upper edge of [Fe/H].
        fe_h_uniform: weight of the uniform part of [Fe/H]; the rest is a Gaussian of `fe_h_mean`,
            `fe_h_scatter` truncated to the range.
        x_fe_range: lower and upper edge of each [X/Fe].
        x_fe_uniform: weight of the component in which all [X/Fe] are independent and uniform.
        x_fe_scatter: standard deviation [dex] of each [X/Fe] about its sequence.
        names: the labels, in the order of all arrays: teff, logg, fe_h and any of the elements of
            `ALPHA_SHARES`.
    """

    polygon: tuple[tuple[float, float], ...] = PLAUSIBLE_STARS
    fe_h_range: tuple[float, float] = (-2.5, 0.5)
    fe_h_uniform: float = 0.5
    fe_h_mean: float = -0.2
    fe_h_scatter: float = 0.35
    x_fe_range: tuple[float, float] = (-0.5, 0.8)
    x_fe_uniform: float = 0.4
    x_fe_scatter: float = 0.10
    names: tuple[str, ...] = NINE_LABELS.names

    def __post_init__(self):
        corners = np.asarray(self.polygon, float)
        if corners.ndim != 2 or corners.shape[0] < 3 or corners.shape[1] != 2:
            raise InputError(
                "prior.polygon",
                f"shape {corners.shape}",
                "three or more (teff, logg) corners",
                "give a list of pairs",
            )
        names, known = tuple(self.names), {*HR, "fe_h", *ALPHA_SHARES}
        if len(set(names)) != len(names) or not {*HR, "fe_h"} <= set(names) <= known:
            raise InputError(
                "prior.names",
                ", ".join(names),
                "teff, logg, fe_h and elements, each once",
                f"choose from {', '.join(NINE_LABELS.names)}",
            )
        object.__setattr__(self, "names", names)
        # JSON and Hydra give lists; the dataclass must stay hashable.
        object.__setattr__(self, "polygon", tuple((float(t), float(g)) for t, g in corners))
        for name in ("fe_h_range", "x_fe_range"):
            low, high = getattr(self, name)
            if not low < high:
                raise InputError(f"prior.{name}", f"({low}, {high})", "low < high", "swap the two")
            object.__setattr__(self, name, (float(low), float(high)))
        for name in ("fe_h_uniform", "x_fe_uniform"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise InputError(
                    f"prior.{name}", f"{getattr(self, name)}", "a weight in (0, 1]", "mend the weight"
                )

    @property
    def label_set(self) -> LabelSet:
        """The labels of `names`."""
        return label_set(*self.names)

    @property
    def low(self) -> np.ndarray:
        """Lower edge of the support of each label, `[l]` (for `[X/H]`: lowest [Fe/H] plus lowest [X/Fe])."""
        return self._edge(np.min(self.polygon, axis=0), self.fe_h_range[0], self.x_fe_range[0])

    @property
    def high(self) -> np.ndarray:
        """Upper edge of the support of each label, `[l]`."""
        return self._edge(np.max(self.polygon, axis=0), self.fe_h_range[1], self.x_fe_range[1])

    def _edge(self, point, fe_h, x_fe):
        edge = dict.fromkeys(self.names, fe_h + x_fe) | {"fe_h": fe_h} | dict(zip(HR, point, strict=True))
        return np.array([edge[name] for name in self.names])

    @partial(jax.jit, static_argnames=("self", "n"))
    def sample(self, key: PRNGKeyArray, n: int) -> Float[Array, "n l"]:
        """Draw `n` stars (K, dex): with the same key the same ones, whatever the order of the labels."""
        key_hr, key_fe, key_x = jax.random.split(key, 3)
        fe_h = self._sample_fe_h(key_fe, n)
        elements = [name for name in ALPHA_SHARES if name in self.names]
        x_fe = self._sample_x_fe(key_x, fe_h, elements)
        stars = jnp.concatenate(
            [_sample_polygon(key_hr, self.polygon, n), fe_h[:, None], x_fe + fe_h[:, None]], axis=1
        )
        return label_set(*HR, "fe_h", *elements).take(stars, self.names)

    @partial(jax.jit, static_argnames="self")
    def log_prob(self, labels: Float[Array, "*n l"]) -> Float[Array, "*n"]:
        """Natural log of the normalised density per (K dex^8); minus infinity outside the support."""
        fe_h = self.label_set.column(labels, "fe_h")
        hr = jnp.where(
            inside_polygon(self.label_set.take(labels, HR), self.polygon),
            -float(np.log(polygon_area(self.polygon))),
            -jnp.inf,
        )
        x_fe = self.label_set.x_fe(labels)
        return hr + self._log_prob_fe_h(fe_h) + self._log_prob_x_fe(x_fe, fe_h)

    @partial(jax.jit, static_argnames=("self", "slack"))
    def supports(self, labels: Float[Array, "*n l"], slack: float = 0.0) -> Bool[Array, "*n"]:
        """Whether a star is inside the training range, with [Fe/H] and [X/Fe] allowed `slack` dex beyond
        their edges."""
        fe_h, x_fe = self.label_set.column(labels, "fe_h"), self.label_set.x_fe(labels)
        within = inside_polygon(self.label_set.take(labels, HR), self.polygon)
        within &= (fe_h >= self.fe_h_range[0] - slack) & (fe_h <= self.fe_h_range[1] + slack)
        return within & jnp.all(
            (x_fe >= self.x_fe_range[0] - slack) & (x_fe <= self.x_fe_range[1] + slack), axis=-1
        )

    def _sample_fe_h(self, key, n):
        key_which, key_u = jax.random.split(key)
        u = jax.random.uniform(key_u, (n,))
        low, high = self.fe_h_range
        bump = _truncated_normal_ppf(u, self.fe_h_mean, self.fe_h_scatter, low, high)
        return jnp.where(
            jax.random.uniform(key_which, (n,)) < self.fe_h_uniform, low + u * (high - low), bump
        )

    def _log_prob_fe_h(self, fe_h):
        low, high = self.fe_h_range
        inside = (fe_h >= low) & (fe_h <= high)
        bump = _truncated_normal_log_prob(fe_h, self.fe_h_mean, self.fe_h_scatter, low, high)
        density = jnp.logaddexp(
            jnp.log(self.fe_h_uniform / (high - low)), jnp.log1p(-self.fe_h_uniform) + bump
        )
        return jnp.where(inside, density, -jnp.inf)

    def _sample_x_fe(self, key, fe_h, elements):
        key_which, key_u = jax.random.split(key)
        u = jax.random.uniform(key_u, (*fe_h.shape, len(elements)))
        low, high = self.x_fe_range
        which = jax.random.categorical(key_which, self._log_weights(fe_h), axis=-1)[..., None]
        high_alpha, low_alpha = alpha_sequences(fe_h, elements)
        choices = [_truncated_normal_ppf(u, m, self.x_fe_scatter, low, high) for m in (high_alpha, low_alpha)]
        return jnp.where(which == 0, low + u * (high - low), jnp.where(which == 1, choices[0], choices[1]))

    def _log_prob_x_fe(self, x_fe, fe_h):
        low, high = self.x_fe_range
        inside = jnp.all((x_fe >= low) & (x_fe <= high), axis=-1)
        uniform = jnp.full(fe_h.shape, -len(self.label_set.elements) * np.log(high - low))
        parts = [uniform]
        for mean in alpha_sequences(fe_h, self.label_set.elements):
            parts.append(
                jnp.sum(_truncated_normal_log_prob(x_fe, mean, self.x_fe_scatter, low, high), axis=-1)
            )
        return jnp.where(
            inside, logsumexp(self._log_weights(fe_h) + jnp.stack(parts, axis=-1), axis=-1), -jnp.inf
        )

    def _log_weights(self, fe_h):
        # The high-alpha sequence holds nearly all metal-poor and nearly no metal-rich stars; both stay
        # possible everywhere.
        high_alpha = 0.1 + 0.8 * jax.nn.sigmoid(-(fe_h + 0.5) / 0.2)
        rest = 1.0 - self.x_fe_uniform
        weights = [jnp.full_like(fe_h, self.x_fe_uniform), rest * high_alpha, rest * (1.0 - high_alpha)]
        return jnp.log(jnp.maximum(jnp.stack(weights, axis=-1), 1e-30))


def alpha_sequences(
    fe_h: Float[Array, "*n"], elements: Sequence[str] = tuple(ALPHA_SHARES)
) -> tuple[Float[Array, "*n m"], Float[Array, "*n m"]]:
    """Mean [X/Fe] of the high- and of the low-alpha sequence at `fe_h`, for `elements` (names of labels).

    Straight lines with a plateau through the running means of Bensby et al. (2014), where [Mg/Fe] carries the
    full trend, Al, Si, Ca and Ti part of it, and Ni none.
    """
    share = jnp.asarray([ALPHA_SHARES[name] for name in elements])
    high = jnp.clip(0.10 - 0.25 * fe_h, 0.05, 0.32)
    low = jnp.clip(0.03 - 0.12 * fe_h, -0.02, 0.12)
    return high[..., None] * share, low[..., None] * share


def inside_polygon(
    points: Float[Array, "*n 2"], polygon: tuple[tuple[float, float], ...]
) -> Bool[Array, "*n"]:
    """Whether each point is inside a simple polygon (even-odd rule); points on an edge may fall on either
    side."""
    a = jnp.asarray(polygon)
    b = jnp.roll(a, -1, axis=0)
    x, y = points[..., 0, None], points[..., 1, None]
    straddles = (a[:, 1] > y) != (b[:, 1] > y)
    rise = b[:, 1] - a[:, 1]
    crossing = a[:, 0] + (y - a[:, 1]) / jnp.where(rise == 0.0, 1.0, rise) * (b[:, 0] - a[:, 0])
    return jnp.sum(straddles & (x < crossing), axis=-1) % 2 == 1


def polygon_area(polygon: Corners) -> float:
    """Area of a simple polygon (shoelace formula)."""
    x, y = np.asarray(polygon).T
    return float(abs(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2.0)


def triangulate(polygon: Corners) -> np.ndarray:
    """Cut a simple polygon into triangles `[n - 2, 3, 2]` by clipping ears, so that it can be sampled without
    rejection."""
    points = [np.asarray(p, float) for p in polygon]

    def cross(a, b, c):
        return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])

    if sum(cross(points[0], points[i], points[i + 1]) for i in range(1, len(points) - 1)) < 0:
        points.reverse()
    triangles = []
    while len(points) > 3:
        for i in range(len(points)):
            a, b, c = points[i - 1], points[i], points[(i + 1) % len(points)]
            others = [p for p in points if p is not a and p is not b and p is not c]
            convex = cross(a, b, c) > 0
            if convex and not any(
                cross(a, b, p) >= 0 and cross(b, c, p) >= 0 and cross(c, a, p) >= 0 for p in others
            ):
                triangles.append((a, b, c))
                points.pop(i)
                break
        else:
            raise InputError(
                "prior.polygon",
                f"{polygon}",
                "a polygon that does not cross itself",
                "order the corners along the edge",
            )
    triangles.append((points[0], points[1], points[2]))
    return np.asarray(triangles)


def _sample_polygon(key, polygon, n):
    triangles = triangulate(polygon)
    area = [polygon_area(t) for t in triangles]
    key_which, key_uv = jax.random.split(key)
    which = jax.random.categorical(key_which, jnp.log(jnp.asarray(area)), shape=(n,))
    u, v = jax.random.uniform(key_uv, (2, n, 1))
    u, v = jnp.where(u + v > 1.0, 1.0 - u, u), jnp.where(u + v > 1.0, 1.0 - v, v)
    a, b, c = jnp.moveaxis(jnp.asarray(triangles, dtype=u.dtype)[which], 1, 0)
    return a + u * (b - a) + v * (c - a)


def _truncated_normal_ppf(u, mean, scatter, low, high):
    p_low, p_high = ndtr((low - mean) / scatter), ndtr((high - mean) / scatter)
    return jnp.clip(mean + scatter * ndtri(jnp.clip(p_low + u * (p_high - p_low), 1e-6, 1 - 1e-6)), low, high)


def _truncated_normal_log_prob(x, mean, scatter, low, high):
    mass = ndtr((high - mean) / scatter) - ndtr((low - mean) / scatter)
    return -0.5 * ((x - mean) / scatter) ** 2 - jnp.log(scatter * np.sqrt(2.0 * np.pi)) - jnp.log(mass)
