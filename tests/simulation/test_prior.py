"""The prior is what it says: normalised, sampled as evaluated, and wide enough for real stars."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from astropy.table import Table
from scipy import stats

from jaxspec.errors import InputError
from jaxspec.settings import build
from jaxspec.simulation.prior import (
    StellarPrior,
    inside_polygon,
    polygon_area,
    triangulate,
)

PRIOR = StellarPrior()


@pytest.fixture(scope="module")
def draws():
    return np.asarray(PRIOR.sample(jax.random.key(0), 60_000))


def test_density_integrates_to_one(rng):
    # Importance sampling from a box that contains the support: the mean of density / proposal is the
    # integral. A box in [X/Fe], not [X/H], is the same volume (the map has Jacobian 1) and wastes no points.
    n = 150_000
    low = np.array([4000.0, 0.5, -2.5] + [-0.5] * 6)
    high = np.array([7000.0, 5.0, 0.5] + [0.8] * 6)
    box = rng.uniform(low, high, (n, 9))
    # Half of the elements from a Gaussian about the sequences, or too few points fall on the peaks.
    centre, width = 0.1, 0.2
    element = rng.random(n) < 0.5
    narrow = stats.truncnorm((low[3:] - centre) / width, (high[3:] - centre) / width, centre, width)
    box[element, 3:] = narrow.rvs((element.sum(), 6), random_state=rng)
    proposal = 0.5 * np.prod(1.0 / (high - low)[3:]) + 0.5 * np.prod(narrow.pdf(box[:, 3:]), axis=1)
    proposal /= np.prod((high - low)[:3])
    box[:, 3:] += box[:, 2:3]
    weight = np.exp(np.asarray(PRIOR.log_prob(jnp.asarray(box, jnp.float32)), float)) / proposal
    error = weight.std() / np.sqrt(n)
    assert error < 0.02
    assert abs(weight.mean() - 1.0) < 4.0 * error


def test_samples_follow_the_density(draws):
    """E[1 / p] over samples is the volume of the support, where p is the sampled density; tested on the
    marginals."""
    log_prob = np.asarray(PRIOR.log_prob(jnp.asarray(draws)))
    assert np.isfinite(log_prob).all()
    # (teff, logg): uniform on the polygon, so cell counts follow the area of each cell.
    edges = [np.linspace(4000, 7000, 7), np.linspace(0.5, 5.0, 7)]
    counts = np.histogram2d(draws[:, 0], draws[:, 1], edges)[0]
    grid = np.stack(
        np.meshgrid(np.linspace(4002.5, 6997.5, 600), np.linspace(0.50375, 4.99625, 600), indexing="ij"), -1
    )
    inside = np.asarray(inside_polygon(jnp.asarray(grid), PRIOR.polygon))
    expected = inside.reshape(6, 100, 6, 100).mean((1, 3))
    expected *= len(draws) / expected.sum()
    pull = (counts - expected)[expected > 50] / np.sqrt(expected[expected > 50])
    assert np.abs(pull).max() < 5.0
    # [Fe/H]: against the evaluated density, by Kolmogorov and Smirnov at a false-alarm rate of 1e-4.
    x = np.linspace(-2.5, 0.5, 4001)
    density = np.exp(np.asarray(PRIOR._log_prob_fe_h(jnp.asarray(x))))
    cdf = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]) * np.diff(x))])
    assert abs(cdf[-1] - 1.0) < 1e-3
    assert stats.kstest(draws[:20_000, 2], lambda v: np.interp(v, x, cdf)).pvalue > 1e-4


def test_elements_follow_their_conditional_density(draws):
    # Between two nearby metallicities the conditional of one element is the mixture's marginal.
    rows = np.abs(draws[:, 2] + 0.6) < 0.05
    mg_fe = draws[rows, 4] - draws[rows, 2]
    x = np.linspace(-0.5, 0.8, 27)
    points = np.repeat(x[:, None], 6, 1)
    n_mc = 4_000
    others = np.random.default_rng(0).uniform(-0.5, 0.8, (n_mc, 6))
    density = []
    for value in points[:, 1]:
        others[:, 1] = value
        p = np.exp(np.asarray(PRIOR._log_prob_x_fe(jnp.asarray(others), jnp.full(n_mc, -0.6))))
        density.append(p.mean() * 1.3**5)
    counts, edges = np.histogram(mg_fe, x - 0.025, density=True)
    # Monte Carlo over narrow peaks in five dimensions is rough: the point is that the sequences sit where
    # they should.
    assert np.corrcoef(counts, density[:-1])[0, 1] > 0.9
    assert abs(edges[np.argmax(counts)] - x[np.argmax(density)]) < 0.11


def test_mg_and_si_are_correlated(draws):
    x_fe = draws[:, 3:] - draws[:, 2:3]
    assert np.corrcoef(x_fe[:, 1], x_fe[:, 5])[0, 1] > 0.05
    assert (x_fe.min(0) >= -0.5 - 1e-4).all() and (x_fe.max(0) <= 0.8 + 1e-4).all()


@pytest.mark.parametrize("slack", [0.0, 0.1])
def test_support(slack):
    sun = jnp.asarray([5777.0, 4.44] + [0.0] * 7)
    assert PRIOR.supports(sun, slack)
    assert PRIOR.supports(sun.at[2:].set(0.55), slack) == (slack > 0.05)
    assert not PRIOR.supports(sun.at[1].set(1.0), slack)
    assert PRIOR.log_prob(sun.at[1].set(1.0)) == -jnp.inf
    assert PRIOR.log_prob(sun.at[3].set(1.0)) == -jnp.inf


@pytest.mark.filterwarnings("ignore::astropy.units.UnitsWarning")
def test_benchmark_stars_are_plausible(data):
    """Every Gaia benchmark star in the range is well inside the polygon: 80 K and 0.1 dex in every
    direction."""
    stars = Table.read(data / "catalogues" / "gaia_benchmark_stars_v3.fits")
    teff, logg, fe_h = (
        np.ma.filled(np.ma.asarray(stars[c], float), np.nan) for c in ("teff", "logg", "fe_h")
    )
    margin = 80.0
    rows = (
        (teff > 4000 + margin)
        & (teff < 7000 - margin)
        & (logg > 0.6)
        & (logg < 4.9)
        & (fe_h > -2.5)
        & (fe_h < 0.5)
    )
    assert rows.sum() > 100
    for dt, dg in [(0, 0), (80, 0), (-80, 0), (0, 0.1), (0, -0.1)]:
        points = jnp.asarray(np.stack([teff[rows] + dt, logg[rows] + dg], -1))
        assert inside_polygon(points, PRIOR.polygon).all()


@pytest.mark.filterwarnings("ignore::astropy.units.UnitsWarning")
def test_abundances_of_real_stars_are_plausible(data):
    stars = Table.read(data / "catalogues" / "bensby2014.fits")
    columns = ["Teff", "logg", "Fe_H", "Al_Fe", "Mg_Fe", "Ca_Fe", "Ni_Fe", "Ti_Fe", "Si_Fe"]
    labels = np.stack([np.ma.filled(np.ma.asarray(stars[c], float), np.nan) for c in columns], -1)
    labels = labels[np.isfinite(labels).all(1)]
    labels[:, 3:] += labels[:, 2:3]
    assert len(labels) > 500
    log_prob = np.asarray(PRIOR.log_prob(jnp.asarray(labels, jnp.float32)))
    assert np.mean(np.isfinite(log_prob)) > 0.995
    # Real stars are typical of the prior, not its outliers: denser than most of its own draws.
    own = np.asarray(PRIOR.log_prob(PRIOR.sample(jax.random.key(1), 2000)))
    assert np.median(log_prob[np.isfinite(log_prob)]) > np.median(own)


def test_polygons(rng):
    assert polygon_area(((0, 0), (2, 0), (2, 1), (0, 1))) == 2.0
    triangles = triangulate(PRIOR.polygon)
    assert len(triangles) == len(PRIOR.polygon) - 2
    assert np.isclose(sum(polygon_area(t) for t in triangles), polygon_area(PRIOR.polygon), rtol=1e-12)
    with pytest.raises(InputError, match="polygon"):
        StellarPrior(polygon=((0.0, 0.0), (1.0, 1.0)))


def test_survives_json():
    import json

    assert build(StellarPrior, json.loads(json.dumps(dataclasses.asdict(PRIOR)))) == PRIOR
    with pytest.raises(InputError, match="colour"):
        build(StellarPrior, {"colour": 1.0})
