"""A simulated sky of several surveys whose truth is known.

The stars are not drawn from the model that is fitted to them: dwarfs and giants, thin and thick disc, with
abundance ratios that bend with [Fe/H]. Surveys select by gravity, temperature and metallicity, miss labels
where lines are weak, quote errors that are wrong by a factor and do not say how one label's go with
another's, have scatter of their own that is correlated between labels, and report nonsense for some stars,
flagged or not.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from jaxspec.errors import InputError
from jaxspec.labels import NINE_LABELS, LabelSet
from jaxspec.surveys.observations import Sky, Survey, diagonal, make_sky

# Scatter of typical offsets between surveys, and typical quoted errors (K, dex; of `NINE_LABELS`).
_OFFSETS, _ERRORS = {"teff": 60.0, "logg": 0.12}, {"teff": 60.0, "logg": 0.10, "fe_h": 0.04}
OFFSET = np.array([_OFFSETS.get(name, 0.05) for name in NINE_LABELS.names])
ERROR = np.array([_ERRORS.get(name, 0.06) for name in NINE_LABELS.names])
# Trends with teff, logg and fe_h are planted per spread of these, about this star.
PIVOT = np.array([5300.0, 3.5, -0.3])
SPREAD = np.array([600.0, 0.9, 0.35])
# How much of the trend of [alpha/Fe] each element has.
ALPHA_STRENGTH = {"al_h": 0.8, "mg_h": 1.1, "ca_h": 0.7, "ni_h": 0.1, "ti_h": 0.9, "si_h": 0.9}


@dataclass(frozen=True)
class SimulationConfig:
    """How the sky is made.

    Attributes:
        n_stars: number of stars.
        n_surveys: number of surveys besides the anchor.
        overlap: fraction of stars that more than one survey sees.
        anchors: fraction of stars that are known absolutely; most surveys see them too.
        selection: strength of the surveys' selection; 0 gives every survey the same stars.
        outliers: fraction of rows with wild values; half of them flagged, and as many good rows again.
        missing: fraction of abundances that are missing at [Fe/H] of -0.5; more below.
        trends: size of planted trends over one spread, in units of the scatter of zero points.
        scatter: a survey's own scatter, as a fraction of typical errors.
        correlated: part of the scatter's correlations that quoted errors have; the tables do not say so.
        repeats: fraction of rows that are visited twice.
        n_groups: number of open clusters, of ten members each.
    """

    n_stars: int = 2000
    n_surveys: int = 4
    overlap: float = 0.10
    anchors: float = 0.01
    selection: float = 1.0
    outliers: float = 0.03
    missing: float = 0.03
    trends: float = 0.5
    scatter: float = 0.6
    correlated: float = 0.5
    repeats: float = 0.0
    n_groups: int = 0


@dataclass(frozen=True)
class Truth:
    """The planted truth, in the labels' units.

    Attributes:
        label_set: what the arrays' labels are.
        labels: of every star.
        zero_point: offset of each survey at `PIVOT`.
        trend: change of the offset over one `SPREAD` of each of teff, logg, fe_h.
        scatter: covariance of each survey's own scatter.
        inflation: true over quoted error of each survey.
        outlier: for each survey, which of its rows are outliers.
    """

    label_set: LabelSet
    labels: Float[np.ndarray, "n l"]
    zero_point: Float[np.ndarray, "s l"]
    trend: Float[np.ndarray, "s l j"]
    scatter: Float[np.ndarray, "s l l"]
    inflation: Float[np.ndarray, " s"]
    outlier: tuple[Bool[np.ndarray, " _"], ...]

    def offset(self, survey: int, labels: Float[np.ndarray, "n l"]) -> Float[np.ndarray, "n l"]:
        """The planted offset of a survey at the given labels."""
        u = _trend_inputs(self.label_set, labels)
        return self.zero_point[survey] + u @ self.trend[survey].T


def _trend_inputs(label_set: LabelSet, labels: Float[np.ndarray, "n l"]) -> Float[np.ndarray, "n 3"]:
    """teff, logg and fe_h from `PIVOT`, in units of `SPREAD`."""
    return (label_set.take(labels, ("teff", "logg", "fe_h")) - PIVOT) / SPREAD


def draw_stars(rng: np.random.Generator, n: int) -> Float[np.ndarray, "n 9"]:
    """True labels of `n` stars, in the order of `NINE_LABELS`."""
    thick = rng.random(n) < 0.3
    fe_h = np.where(thick, rng.normal(-0.6, 0.3, n), rng.normal(-0.1, 0.2, n))
    fe_h = np.clip(fe_h, -2.4, 0.5)
    giant = rng.random(n) < 0.45
    branch = rng.uniform(0.0, 1.0, n)
    teff = np.where(giant, 5150.0 - 900.0 * branch - 150.0 * fe_h, rng.normal(5700.0, 380.0, n))
    logg = np.where(giant, 3.4 - 2.2 * branch + 0.3 * fe_h, 4.45 - 0.35 * ((teff - 5300.0) / 700.0) ** 2)
    teff += rng.normal(0.0, 60.0, n)
    logg += rng.normal(0.0, 0.12, n)
    teff, logg = np.clip(teff, 4000.0, 6950.0), np.clip(logg, 0.6, 4.9)
    alpha = np.where(thick, 0.25 - 0.12 * np.maximum(fe_h + 0.6, 0.0) / 0.5, 0.03 - 0.12 * fe_h)
    alpha += rng.normal(0.0, 0.02, n)
    ratios = alpha[:, None] * list(ALPHA_STRENGTH.values())
    ratios += rng.normal(0.0, 0.03, ratios.shape)
    x_fe = dict(zip(ALPHA_STRENGTH, ratios.T, strict=True))
    x_fe["ca_h"] = x_fe["ca_h"] + 0.04 * np.tanh(2.0 * fe_h)
    stars = {"teff": teff, "logg": logg, "fe_h": fe_h} | {name: fe_h + x for name, x in x_fe.items()}
    return np.column_stack([stars[name] for name in NINE_LABELS.names])


def simulate_sky(
    seed: int, config: SimulationConfig = SimulationConfig(), label_set: LabelSet = NINE_LABELS
) -> tuple[Sky, Truth]:
    """A sky of `config` and what was planted in it. The same seed gives the same sky.

    The last survey is the anchor, named `anchor`, if `config.anchors` is above zero. `label_set` may leave
    out elements. Raises `InputError` if it has other labels, or lacks teff, logg or fe_h, on which trends are
    planted.
    """
    if not {"teff", "logg", "fe_h"} <= set(label_set.names):
        raise InputError(
            "label_set", f"{label_set.names}", "teff, logg, fe_h and elements", "add those that are missing"
        )
    columns = np.array([NINE_LABELS.index(name) for name in label_set.names])
    rng = np.random.default_rng(seed)
    labels = draw_stars(rng, config.n_stars)
    group = np.full(config.n_stars, -1)
    metals = [NINE_LABELS.index(name) for name in ("fe_h", *NINE_LABELS.elements)]
    for g in range(config.n_groups):
        members = np.arange(10 * g, 10 * g + 10)[:, None]
        common = labels[10 * g, metals] + rng.normal(0.0, 0.02, (10, len(metals)))
        labels[members, metals] = common
        group[members[:, 0]] = g
    n, n_labels = config.n_surveys, labels.shape[1]
    truth = Truth(
        label_set=NINE_LABELS,
        labels=labels,
        zero_point=rng.normal(0.0, OFFSET, (n, n_labels)),
        trend=rng.normal(0.0, config.trends * OFFSET[:, None], (n, n_labels, 3)),
        scatter=np.stack([_scatter(rng, config.scatter) for _ in range(n)]),
        inflation=np.exp(rng.normal(0.0, 0.2, n)),
        outlier=(),
    )
    seen = _assign(rng, labels, config)
    anchored = np.zeros(config.n_stars, bool)
    n_anchors = round(config.anchors * config.n_stars)
    anchored[rng.choice(config.n_stars, n_anchors, replace=False)] = True
    seen[anchored] |= rng.random((n_anchors, n)) < 0.6
    surveys, outliers = [], []
    for s in range(n):
        star = np.flatnonzero(seen[:, s])
        again = star[rng.random(len(star)) < config.repeats]
        survey, outlier = _observe(rng, s, star, again, truth, config)
        surveys.append(survey)
        outliers.append(outlier)
    if n_anchors:
        star = np.flatnonzero(anchored)
        error = np.tile(0.3 * ERROR, (n_anchors, 1))
        values = labels[star] + rng.normal(0.0, 1.0, error.shape) * error
        no_flags = np.zeros(n_anchors, bool)
        surveys.append(Survey("anchor", star, values, diagonal(error), no_flags, anchor=True))
    one, other = np.ix_(columns, columns)
    truth = Truth(
        label_set=label_set,
        labels=labels[:, columns],
        zero_point=truth.zero_point[:, columns],
        trend=truth.trend[:, columns],
        scatter=truth.scatter[:, one, other],
        inflation=truth.inflation,
        outlier=tuple(outliers),
    )
    surveys = [
        replace(s, values=s.values[:, columns], covariance=s.covariance[:, one, other]) for s in surveys
    ]
    return make_sky(label_set, surveys, config.n_stars, group), truth


def _scatter(rng, fraction: float) -> np.ndarray:
    """A survey's scatter: part of it common to all labels, as an error in Teff would be."""
    size = fraction * ERROR * np.exp(rng.normal(0.0, 0.2, len(ERROR)))
    common = rng.normal(0.0, 0.5, len(ERROR))
    correlation = np.outer(common, common) + np.diag(np.ones(len(ERROR)))
    norm = np.sqrt(np.diag(correlation))
    return np.outer(size, size) * correlation / np.outer(norm, norm)


def _assign(rng, labels, config: SimulationConfig) -> Bool[np.ndarray, "n s"]:
    """Which survey sees which star: one each, `overlap` of them two or three."""
    n, s = len(labels), config.n_surveys
    u = _trend_inputs(NINE_LABELS, labels)
    preference = u @ rng.normal(0.0, 0.5 * config.selection, (3, s)) + rng.gumbel(size=(n, s))
    order = np.argsort(-preference, axis=1)
    number = 1 + (rng.random(n) < config.overlap) * (1 + (rng.random(n) < 0.2))
    rank = np.argsort(order, axis=1)
    return rank < np.minimum(number, s)[:, None]


def _observe(rng, s: int, star, again, truth: Truth, config: SimulationConfig):
    """The table of one survey. Visits share the survey's scatter and not its noise."""
    labels = truth.labels[star]
    true = labels + truth.offset(s, labels)
    true += rng.multivariate_normal(np.zeros(labels.shape[1]), truth.scatter[s], len(star))
    rows = np.concatenate([np.arange(len(star)), np.searchsorted(star, again)])
    size = np.exp(rng.normal(0.0, 0.3, len(rows)))[:, None]
    error = ERROR * (0.7 + 0.2 * s) * size
    size = np.sqrt(np.diag(truth.scatter[s]))
    correlation = np.eye(len(size))
    if config.scatter > 0:
        correlation += config.correlated * (truth.scatter[s] / np.outer(size, size) - correlation)
    noise = rng.normal(size=error.shape) @ np.linalg.cholesky(correlation).T
    values = true[rows] + truth.inflation[s] * error * noise
    outlier = rng.random(len(rows)) < config.outliers
    values[outlier] += rng.normal(0.0, 6.0 * ERROR, (outlier.sum(), len(ERROR)))
    flagged = np.where(outlier, rng.random(len(rows)) < 0.5, rng.random(len(rows)) < config.outliers)
    chance = config.missing * np.exp(-1.5 * (NINE_LABELS.column(labels, "fe_h")[rows] + 0.5))
    lost = rng.random((len(rows), len(NINE_LABELS.elements))) < np.clip(chance, 0.0, 0.9)[:, None]
    for name, gone in zip(NINE_LABELS.elements, lost.T, strict=True):
        NINE_LABELS.column(values, name)[gone] = np.nan
    name = f"survey_{chr(97 + s)}"
    return Survey(name, star[rows], values, diagonal(error), flagged, errors_only=True), outlier
