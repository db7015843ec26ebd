"""Small skies for the tests of the survey model."""

import numpy as np

from jaxspec.labels import label_set
from jaxspec.surveys.basis import Basis
from jaxspec.surveys.mixture import Mixture
from jaxspec.surveys.model import GroupPrior
from jaxspec.surveys.observations import Survey, diagonal
from jaxspec.surveys.quoted import QuotedErrors
from jaxspec.surveys.results import Calibration, Diagnostics
from jaxspec.surveys.scales import Scales

LABELS = label_set("teff", "logg")
TREND_LABELS = label_set("teff", "logg", "fe_h")


def survey(name="a", star=range(20), anchor=False, **change):
    """Stars on a smooth curve in Teff and log g, measured to 20 K and 0.03 dex with quoted errors of 60 K and
    0.1 dex."""
    star = np.asarray(star, int)
    rng = np.random.default_rng(len(name))
    values = np.array([5500.0, 4.2]) + np.array([300.0, 0.3]) * np.sin(star[:, None] * [1.0, 2.0])
    values = values + np.array([20.0, 0.03]) * rng.normal(size=values.shape)
    fields = {
        "values": values,
        "covariance": diagonal(np.tile([60.0, 0.1], (len(star), 1))),
        "flagged": np.zeros(len(star), bool),
        "anchor": anchor,
    }
    return Survey(name, star, **{**fields, **change})


def gaussian(size=3, seed=0):
    """Mean and covariance of a correlated Gaussian whose widths differ by a hundred."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(size, 2 * size)) * np.logspace(-1.0, 1.0, size)[:, None]
    return rng.normal(size=size), root @ root.T / (2 * size)


def calibration(trend="linear", n_draws=400, spread=0.02, seed=0):
    """A posterior of three surveys `a`, `b`, `anchor` made up draw by draw, without any fit: offsets of about
    a step, known to `spread` of one. Survey `b` does not measure fe_h; the anchor has no offset."""
    rng = np.random.default_rng(seed)
    basis = Basis(trend, 2)
    n, s, k = 3, 3, 1
    scales = Scales(
        np.array([5500.0, 4.0, 0.0]),
        np.array([100.0, 0.2, 0.1]),
        (0, 1),
        np.array([500.0, 0.8]),
        np.array([1000.0, 1.0]),
    )
    free = np.array([1.0, 1.0, 0.0])[:, None]

    def drawn(*shape):
        return rng.normal(0.0, 0.5, shape) + spread * rng.normal(size=(n_draws, *shape))

    correlated = np.array([[1.0, 0.4, 0.0], [0.4, 1.0, -0.2], [0.0, -0.2, 1.0]])
    size = np.array([0.3, 0.5, 0.0])
    terms = {
        "zero_point": drawn(s, n) * free,
        "trend": 0.3 * drawn(s, n, basis.size) * free[:, :, None],
        "scatter": np.tile(size[:, None, None] ** 2 * correlated, (n_draws, 1, 1, 1)),
        "inflation": np.tile(np.array([[1.2], [0.8], [1.0]]), (n_draws, 1, n)),
        "correlation": np.zeros((n_draws, s, n, n)),
        "outlier_centre": np.zeros((n_draws, s, n)),
        "outlier_width": np.full((n_draws, s, n), 30.0),
        "outlier_logit": np.full((n_draws, s), -20.0),
        "outlier_flag": np.full((n_draws, s), 2.0),
    }
    wide = 25.0 * np.eye(n)
    population = {
        "mean": np.zeros((n_draws, k, n)),
        "root": np.tile(np.linalg.cholesky(np.linalg.inv(wide)).T, (n_draws, k, 1, 1)),
        "log_det": np.full((n_draws, k), -np.linalg.slogdet(wide)[1]),
        "log_weight": np.zeros((n_draws, 1, k)),
        "group": np.zeros((n_draws, 0, 1)),
        "group_scatter": np.ones(n_draws),
    }
    measured = np.array([[True, True, True], [True, True, False], [True, True, True]])
    return Calibration(
        label_set=TREND_LABELS,
        names=("a", "b", "anchor"),
        is_anchor=np.array([False, False, True]),
        measured=measured,
        scales=scales,
        trend=trend,
        terms=terms,
        population=population,
        mixtures=tuple(Mixture(np.ones(1), np.full((1, n), 0.5), wide[None]) for _ in range(s)),
        quoted=tuple(
            QuotedErrors(rng.normal(size=(4, 2)), np.where(row, 0.25, np.nan) * np.ones((4, 1)))
            for row in measured
        ),
        group_prior=GroupPrior(np.stack([np.zeros(n), np.full(n, 25.0)]), (2,)),
        messages=("teff: made up",),
        diagnostics=Diagnostics("laplace", 0, float("nan"), 400.0, "", float("nan"), 0, 1.0),
    )


def offset_of_draws(result, s, theta):
    """Offsets `[d, n, l]` of a survey at model coordinates `theta [n, l]`, or `[d, n, l]`, draw by draw, from
    the definition."""
    u = theta[..., [0, 1]] * np.array([100.0 / 500.0, 0.2 / 0.8])
    values = Basis(result.trend, 2).values(u.reshape(-1, 2)).reshape(*theta.shape[:-1], -1)
    values = np.broadcast_to(values, (result.n_draws, *values.shape[-2:]))
    trend = np.einsum("dlp,dnp->dnl", result.terms["trend"][:, s], values)
    return result.terms["zero_point"][:, s, None] + trend
