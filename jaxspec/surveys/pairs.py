"""Pairs of simulated surveys that differ in a known way: what alignment is measured on.

Each kind of difference is one that real surveys have: another instrument, a model whose lines are wrong,
other stars, both, or nothing.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxspec.datasets import Dataset
from jaxspec.errors import InputError
from jaxspec.instruments import FWHM_PER_SIGMA, Arm, Instrument
from jaxspec.labels import LabelSet
from jaxspec.physics.forward import AlteredModel, Nuisances, SpectrumModel, load_forward_model
from jaxspec.runs import named_key
from jaxspec.simulation.nuisances import NuisanceConfig
from jaxspec.simulation.prior import StellarPrior
from jaxspec.simulation.residuals import ResidualModel
from jaxspec.simulation.simulator import Simulator, knots_to_pixels

KINDS = ("instrument", "model", "labels", "both", "same")
WINDOW = Instrument("giraffe_window", (Arm("hr10", 5500.0, 5600.0, 0.1, 21_500.0),))
"""A thousand pixels of HR10: small enough to train on in a minute."""

GIANT = 3.5  # log g that divides giants from dwarfs
BATCH = 256  # stars per compiled call

CLEAN = NuisanceConfig(
    resolution_mean=1.0, resolution_scatter=0.02, snr_range=(80.0, 300.0), only_arm=(), scattered_light=0.0,
    continuum_scatter=0.01, slope_probability=0.0, gap_probability=0.0, truncation_probability=0.0,
)  # fmt: skip
OTHER = dataclasses.replace(
    CLEAN, resolution_mean=0.7, resolution_scatter=0.0, scattered_light=0.04, continuum_scatter=0.04,
    slope_probability=0.3,
)  # fmt: skip
"""The other instrument: R lower by 30 %, 2 % of scattered light on average, another continuum."""


@dataclass(frozen=True)
class PairConfig:
    """Two simulated surveys.

    Attributes:
        kind: instrument (resolving power, scattered light, continuum), model (line strengths,
            microturbulence, sky residuals), labels (giants against dwarfs), both (instrument and labels) or
            same.
        n_source, n_target: stars to train with.
        n_test: stars of the target to judge by, and to compute evidence from.
        giants: share of giants in the source where stars differ; in the target it is 1 minus this.
        line_error: scatter of ln line strength, where the model differs.
        vmic: what it adds to the microturbulence [km/s], where the model differs.
        sky: largest residual of a sky line, as a fraction of the continuum, where the model differs.
        seed: of all random numbers.
    """

    kind: str = "instrument"
    n_source: int = 16_000
    n_target: int = 12_000
    n_test: int = 2_000
    giants: float = 0.85
    line_error: float = 0.25
    vmic: float = 0.4
    sky: float = 0.03
    seed: int = 0

    def __post_init__(self):
        if self.kind not in KINDS:
            raise InputError("pair.kind", repr(self.kind), f"one of {KINDS}", "choose one")
        if not 0.0 < self.giants < 1.0:
            raise InputError("pair.giants", f"{self.giants}", "a share between 0 and 1", "set it to 0.5, say")


class Pair(NamedTuple):
    """Source with labels, target, and stars of both to judge by. Labels of the target are its truth."""

    source: Dataset
    target: Dataset
    source_test: Dataset
    target_test: Dataset
    label_set: LabelSet


class WrongModel(AlteredModel):
    """A forward model whose line depths are wrong by a fixed factor that varies from line to line, and whose
    microturbulence is another."""

    factor: Float[Array, " p"]
    vmic: float = eqx.field(static=True)

    def __call__(self, labels: Float[Array, " l"], nuisances: Nuisances) -> Float[Array, " p"]:
        flux = self.forward(labels, nuisances._replace(vmic=nuisances.vmic + self.vmic))
        return jnp.maximum(flux, 1e-3) ** self.factor


@dataclass(frozen=True)
class MixedPrior:
    """A prior in which giants have a given share: what one survey selects.

    Attributes:
        base: the density of labels, giants and dwarfs apart.
        giants: share of stars with log g below 3.5.
    """

    base: StellarPrior
    giants: float

    @property
    def names(self) -> tuple[str, ...]:
        """The labels, in the order of all arrays."""
        return self.base.names

    def sample(self, key: jax.Array, n: int) -> Float[Array, "n l"]:
        """Draw `n` stars; which of the two kinds each is follows from the key too."""
        k_kind, k_stars = jax.random.split(key)
        pool = self.base.sample(k_stars, 16 * n)
        giant = self.base.label_set.column(pool, "logg") < GIANT
        wanted = jax.random.uniform(k_kind, (n,)) < self.giants
        # The next star of the pool of the wanted kind: of 16 n stars, hundreds are of either.
        order = jnp.argsort(giant, stable=True)  # dwarfs first
        n_dwarf = jnp.sum(~giant)
        rank = jnp.where(wanted, n_dwarf + jnp.cumsum(wanted) - 1, jnp.cumsum(~wanted) - 1)
        return pool[order[rank]]


def line_factor(instrument: Instrument, scatter: float, seed: int) -> Float[np.ndarray, " p"]:
    """exp of a random field with the correlation length of a line: the same wrong strengths in all stars."""
    pieces = []
    for number, arm in enumerate(instrument.arms):
        knots = knots_to_pixels(0.35, arm.step, arm.n_pixels)
        rng = np.random.default_rng([seed, number])
        pieces.append(np.exp(scatter * rng.normal(size=len(knots)) @ knots))
    return np.concatenate(pieces).astype(np.float32)


def sky_residuals(instrument: Instrument, size: float, seed: int, n_lines: int = 15) -> ResidualModel:
    """Residuals of sky lines at fixed places with random amplitudes in each star."""
    rng = np.random.default_rng([seed, 7])
    wavelength = instrument.wavelength
    pixel = np.sort(rng.choice(wavelength.size, n_lines, replace=False))
    centre = wavelength[pixel]
    width = (1.2 * centre / instrument.resolution[pixel] / FWHM_PER_SIGMA)[:, None]
    profile = np.exp(-0.5 * ((wavelength - centre[:, None]) / width) ** 2)
    shape = (size * rng.uniform(0.3, 1.0, n_lines))[:, None] * profile
    return ResidualModel(jnp.asarray(shape, jnp.float32), jnp.zeros(wavelength.size, jnp.float32))


def make_pair(config: PairConfig, forward: SpectrumModel | None = None) -> Pair:
    """Simulate both surveys; the same configuration gives the same stars.

    Args:
        forward: of the source; by default the shipped emulator on `WINDOW`.
    """
    forward = load_forward_model(WINDOW) if forward is None else forward
    prior = StellarPrior(names=forward.label_set.names)
    source, target = (Simulator(forward, prior, CLEAN) for _ in range(2))
    if config.kind in ("instrument", "both"):
        target = Simulator(forward, prior, OTHER)
    if config.kind == "model":
        factor = line_factor(forward.instrument, config.line_error, config.seed)
        wrong = WrongModel(forward, jnp.asarray(factor), config.vmic)
        sky = sky_residuals(forward.instrument, config.sky, config.seed)
        target = Simulator(wrong, prior, CLEAN, residuals=sky)
    mixed = (
        {"source": config.giants, "target": 1.0 - config.giants} if config.kind in ("labels", "both") else {}
    )

    def stars(simulator: Simulator, name: str, n: int) -> Dataset:
        draw = MixedPrior(prior, mixed[name.split()[0]]) if mixed else prior
        pieces = []
        for i in range(-(-n // BATCH)):
            k_labels, k_rest = jax.random.split(jax.random.fold_in(named_key(config.seed, name), i))
            observed = simulator.observe(k_rest, draw.sample(k_labels, BATCH))._replace(nuisances=None)
            pieces.append(jax.tree.map(np.asarray, observed))
        return jax.tree.map(lambda *x: np.concatenate(x)[:n], *pieces)

    return Pair(
        stars(source, "source", config.n_source),
        stars(target, "target", config.n_target),
        stars(source, "source test", config.n_test),
        stars(target, "target test", config.n_test),
        forward.label_set,
    )
