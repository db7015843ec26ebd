"""A mock Galaxy whose chemistry is known: discs, a bulge, two accreted dwarfs and open clusters.

Each star is born at a time in the history of its own reservoir, a one-zone model (`enrichment`), so that its
[Mg/H] and [Fe/H] follow. The thin disc is a mixture over birth radii, which is what radial migration leaves
of it near the Sun. The other elements are sums of a core-collapse and a type Ia process (`Process`). Labels
are then measured with errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Shaped

from jaxspec.labels import NINE_LABELS
from jaxspec.populations.enrichment import (
    IRON,
    OXYGEN,
    SOLAR_FE,
    SOLAR_O,
    OneZone,
    birth_times,
    mass_fraction,
)
from jaxspec.populations.stars import Stars

COMPONENTS = ("thin", "thick", "bulge", "dwarf_a", "dwarf_b")
CLUSTER = "cluster"
# Share of the Sun's iron from core collapse: that of the yields and solar scale of `enrichment`.
IRON_CORE_COLLAPSE = float(IRON.core_collapse / OXYGEN.core_collapse * SOLAR_O / SOLAR_FE)


class Process(NamedTuple):
    """An element in the two-process model (Weinberg et al. 2019, ApJ 874, 102; 2022, ApJS 260, 32).

    Attributes:
        core_collapse: share of the Sun's element from core collapse; the rest is from type Ia supernovae.
        slope: exponent with which the core-collapse yield rises with metallicity.
    """

    core_collapse: float
    slope: float = 0.0


# Shares fitted by `two_process.fit_processes` to 600 dwarfs of Bensby, Feltzing & Oey (2014, A&A 562, A71)
# with Mg pure core collapse and the share of Fe above. The slope of Al is a round number: its yield rises
# with metallicity, which makes dwarfs poor in it.
PROCESSES: dict[str, Process] = {
    "mg_h": Process(1.0),
    "al_h": Process(0.83, 0.15),
    "si_h": Process(0.70),
    "ca_h": Process(0.67),
    "ti_h": Process(0.79),
    "ni_h": Process(0.42),
    "fe_h": Process(IRON_CORE_COLLAPSE),
}


@dataclass(frozen=True)
class MockConfig:
    """How many stars of which kind, and how well they are measured.

    Attributes:
        thin, thick, bulge, dwarf_a, dwarf_b: numbers of stars; the first dwarf is massive, as
            Gaia-Sausage-Enceladus, the second small.
        clusters: number of open clusters.
        members: stars of each, on average.
        internal_scatter: of the members of one cluster about its mean, each element alone [dex].
        error: median error of an abundance [dex]; that of an element is a fixed multiple near 1.
        error_spread: scatter of the natural logarithm of the errors from star to star.
        correlation: between the errors of two elements of one star.
        missing: share of single measurements that are missing.
        migration: scatter of birth radii of thin-disc stars about the Sun's [kpc].
    """

    thin: int = 2400
    thick: int = 900
    bulge: int = 300
    dwarf_a: int = 250
    dwarf_b: int = 120
    clusters: int = 100
    members: int = 12
    internal_scatter: float = 0.015
    error: float = 0.04
    error_spread: float = 0.25
    correlation: float = 0.3
    missing: float = 0.0
    migration: float = 2.5


DEFAULT = MockConfig()


class Mock(NamedTuple):
    """Measured stars and what they are: `truth [n, l]` labels without errors, `component [n]` by name,
    `cluster [n]` by number (-1: none)."""

    stars: Stars
    truth: Float[np.ndarray, "n l"]
    component: Shaped[np.ndarray, " n"]
    cluster: Int[np.ndarray, " n"]


ELEMENT_ERRORS = {"al_h": 1.2, "ti_h": 1.3, "ca_h": 1.0, "si_h": 0.9, "ni_h": 0.9, "mg_h": 0.9, "fe_h": 0.8}


def simulate(seed: int, config: MockConfig = DEFAULT) -> Mock:
    """A mock of the nine labels, stars in random order."""
    rng = np.random.default_rng(seed)
    iron, magnesium, component, cluster = [], [], [], []
    for name in COMPONENTS:
        count = getattr(config, name)
        fe, mg = _born(name, count, rng, config)
        iron.append(fe)
        magnesium.append(mg)
        component += [name] * count
        cluster += [-1] * count
    sizes = 2 + rng.poisson(max(config.members - 2, 0), config.clusters)
    fe, mg = _born("thin", config.clusters, rng, config)
    iron.append(np.repeat(fe, sizes))
    magnesium.append(np.repeat(mg, sizes))
    component += [CLUSTER] * int(sizes.sum())
    cluster += np.repeat(np.arange(config.clusters), sizes).tolist()
    truth = labels_of(np.concatenate(iron), np.concatenate(magnesium), rng)
    abundance = np.array([name.endswith("_h") for name in NINE_LABELS.names])
    together = np.array(cluster) >= 0
    scatter = rng.standard_normal((int(together.sum()), int(abundance.sum())))
    truth[np.ix_(together, abundance)] += config.internal_scatter * scatter
    order = rng.permutation(len(truth))
    truth = truth[order]
    stars = measure(truth, rng, config)
    return Mock(stars, truth, np.array(component)[order], np.array(cluster)[order])


def _born(name: str, n: int, rng: np.random.Generator, config: MockConfig) -> tuple[np.ndarray, np.ndarray]:
    """[Fe/H] and [Mg/H] of stars of one component.

    The thin disc's outflow rises outwards so that its gas ends with a gradient of -0.06 dex/kpc; its stars
    are those of the last 8 of 12 Gyr.
    """
    u = rng.random(n)
    own = np.exp(0.1 * rng.standard_normal(n))  # reservoirs are not all alike
    if name == "thin":
        radius = np.clip(8.0 + config.migration * rng.standard_normal(n), 2.0, 15.0)
        lost = 3.0 * 10.0 ** (0.06 * (radius - 8.0)) * own**0.4
        fall = np.clip(0.15 - 0.03 * (radius - 8.0), 0.01, 0.3)  # stars formed earlier inside
        zone = OneZone(1.5 * np.ones(n), 1.0 / fall, lost - 0.6 + 1.5 * fall)
        time = 4.0 + np.asarray(birth_times(OneZone(tau_sfh=7.0), jnp.asarray(u), 8.0))
    elif name == "thick":
        zone = OneZone(1.0 * own, 2.5 * np.ones(n), 2.5 * own)
        time = 0.1 + np.asarray(birth_times(OneZone(tau_sfh=2.5), jnp.asarray(u), 2.2))
    elif name == "bulge":
        zone = OneZone(0.35 * own, 2.0 * np.ones(n), 0.8 * own)
        time = 0.1 + np.asarray(birth_times(OneZone(tau_sfh=2.0), jnp.asarray(u), 3.0))
    elif name == "dwarf_a":
        zone = OneZone(8.0 * own, 3.0 * np.ones(n), 9.0 * own)
        time = 0.2 + np.asarray(birth_times(OneZone(tau_sfh=3.0), jnp.asarray(u), 4.0))
    else:
        zone = OneZone(15.0 * own, 3.0 * np.ones(n), 40.0 * own)
        time = 0.3 + np.asarray(birth_times(OneZone(tau_sfh=3.0), jnp.asarray(u), 3.5))
    oxygen, iron = (np.asarray(mass_fraction(zone, jnp.asarray(time), y)) for y in (OXYGEN, IRON))
    return np.log10(iron / SOLAR_FE), np.log10(oxygen / SOLAR_O)


def labels_of(
    fe_h: Float[np.ndarray, " n"], mg_h: Float[np.ndarray, " n"], rng: np.random.Generator
) -> Float[np.ndarray, "n l"]:
    """The nine labels of stars of these abundances: other elements by `PROCESSES`, Teff and log g along a
    red-giant branch, hotter where metal-poor."""
    n = len(fe_h)
    labels = np.empty((n, len(NINE_LABELS)))
    core = 10.0**mg_h
    late = np.maximum((10.0**fe_h - IRON_CORE_COLLAPSE * core) / (1.0 - IRON_CORE_COLLAPSE), 0.0)
    logg = rng.uniform(1.2, 3.3, n)
    teff = 4350.0 + 380.0 * (logg - 1.5) - 250.0 * fe_h + 60.0 * rng.standard_normal(n)
    for j, name in enumerate(NINE_LABELS.names):
        if name in PROCESSES:
            share, slope = PROCESSES[name]
            labels[:, j] = np.log10(share * core ** (1.0 + slope) + (1.0 - share) * late)
        else:
            labels[:, j] = {"teff": teff, "logg": logg}[name]
    return labels


def measure(truth: Float[np.ndarray, "n l"], rng: np.random.Generator, config: MockConfig) -> Stars:
    """Stars as a survey would report them."""
    n, names = len(truth), NINE_LABELS.names
    scale = np.array([config.error * ELEMENT_ERRORS.get(name, 1.0) for name in names])
    for name, of_one in (("teff", 60.0 / 0.04), ("logg", 0.1 / 0.04)):
        scale[names.index(name)] = config.error * of_one
    sigma = scale * np.exp(config.error_spread * rng.standard_normal((n, 1)))
    shared = config.correlation + (1.0 - config.correlation) * np.eye(len(names))
    noise = rng.standard_normal(truth.shape) @ np.linalg.cholesky(shared).T
    values = truth + sigma * noise
    gone = rng.random(values.shape) < config.missing
    gone[gone.all(1), 0] = False
    covariance = sigma[:, :, None] * sigma[:, None, :] * shared
    return Stars(names, np.where(gone, np.nan, values), covariance)
