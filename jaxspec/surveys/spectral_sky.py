"""Skies of spectra: two surveys observe simulated stars, one of them with differences that are planted in its
spectra, and a flow turns both into likelihoods of the labels.

What such differences do to labels is measured: the mean offset and its trends, label by label, over a large
sample of other stars (`measure_offset`). A fit to a sky must find them again.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jaxspec.amortised.amortised import AmortisedPosterior
from jaxspec.errors import InputError
from jaxspec.labels import NINE_LABELS, LabelSet
from jaxspec.physics import turbulence
from jaxspec.physics.forward import AlteredModel, Nuisances
from jaxspec.simulation.nuisances import NuisanceConfig, draw_nuisances
from jaxspec.simulation.preparation import prepare
from jaxspec.simulation.simulator import SpectrumModel, observe
from jaxspec.surveys.likelihoods import from_posterior
from jaxspec.surveys.observations import Sky, Survey, diagonal, make_sky
from jaxspec.surveys.results import Calibration
from jaxspec.surveys.simulate import ERROR, draw_stars

NAMES = ("nominal", "planted")
# Where offsets are compared: teff [K], logg, [Fe/H].
STARS = {
    "dwarf": (5700.0, 4.4, -0.1),
    "poor dwarf": (5700.0, 4.4, -0.6),
    "subgiant": (5100.0, 3.4, -0.3),
    "giant": (4600.0, 2.2, -0.3),
}
# Stars further than this from the trend are outliers, in robust standard deviations.
CLIP = 4.0


@dataclass(frozen=True)
class SpectralConfig:
    """How the skies are made.

    Attributes:
        n_skies: number of skies, each of other stars.
        n_stars: stars of one sky; those in one survey only tell about the population alone.
        overlap: fraction of them that both surveys observe.
        anchors: fraction that is known absolutely, with the errors of `simulate_sky`; both surveys observe
            four in ten of these, and either alone three.
        n_reference: further stars, on which the planted offsets are measured.
        snr: range of the log-uniform signal-to-noise per pixel.
        n_draws: draws of the flow for each spectrum.
        slope: change of the planted survey's continuum over an arm.
        ripple: amplitude of four waves of that continuum along an arm.
        resolution: its resolving power over the nominal one.
        line_error: scatter of ln gf between its line list and the model's: every line's optical depth is
            wrong by its own factor, the same in all stars.
        line_length: length [A] over which lines share that factor.
    """

    n_skies: int = 12
    n_stars: int = 200
    overlap: float = 0.35
    anchors: float = 0.15
    n_reference: int = 1000
    snr: tuple[float, float] = (40.0, 150.0)
    n_draws: int = 300
    slope: float = 0.02
    ripple: float = 0.01
    resolution: float = 0.93
    line_error: float = 0.15
    line_length: float = 0.5

    def __post_init__(self):
        if not 0 < self.overlap + self.anchors <= 1 or not 0 < self.anchors * self.n_stars:
            raise InputError(
                "spectra",
                f"overlap {self.overlap}, anchors {self.anchors}",
                "parts of the stars, anchors among them",
                "write overlap=0.35 and anchors=0.15, say",
            )
        if self.n_reference < 50:
            raise InputError(
                "spectra.n_reference", f"{self.n_reference}", "50 stars or more", "raise it: trends need them"
            )


class PlantedModel(AlteredModel):
    """A forward model as another spectrograph and another line list would have it.

    Flux is raised to the power `strength [p]`, which scales optical depths as oscillator strengths do: weak
    lines in proportion, saturated ones less. It is then multiplied by `continuum [p]`. `resolution` is the
    resolving power over the nominal one.
    """

    strength: Float[Array, " p"]
    continuum: Float[Array, " p"]
    resolution: Float[Array, ""]

    def __call__(self, labels: Float[Array, " l"], nuisances: Nuisances) -> Float[Array, " p"]:
        nuisances = nuisances._replace(resolution=nuisances.resolution * self.resolution)
        flux = jnp.maximum(self.forward(labels, nuisances), 1e-3)
        return flux**self.strength * self.continuum


def plant(forward: SpectrumModel, config: SpectralConfig, seed: int) -> PlantedModel:
    """The model with the differences of `config`; the same seed gives the same ones."""
    rng = np.random.default_rng(seed)
    strength, continuum = [], []
    for arm in forward.instrument.arms:
        wavelength = arm.wavelength
        knots = np.arange(wavelength[0], wavelength[-1] + config.line_length, config.line_length)
        error = np.exp(config.line_error * rng.normal(size=len(knots)))
        strength.append(np.interp(wavelength, knots, error))
        x = (wavelength - wavelength[0]) / (wavelength[-1] - wavelength[0])
        wave = np.sin(2.0 * np.pi * (4.0 * x + rng.random()))
        continuum.append(1.0 + config.slope * (x - 0.5) + config.ripple * wave)
    return PlantedModel(
        forward,
        jnp.asarray(np.concatenate(strength), jnp.float32),
        jnp.asarray(np.concatenate(continuum), jnp.float32),
        jnp.asarray(config.resolution, jnp.float32),
    )


class Pool(NamedTuple):
    """Stars with their true `labels [n, l]`, and what each survey of `NAMES` says of every one of them."""

    labels: Float[np.ndarray, "n l"]
    surveys: tuple[Survey, ...]

    def first(self, n: int) -> "Pool":
        """The first n stars."""
        rows = np.arange(n)
        return Pool(self.labels[:n], tuple(pick(survey, rows, rows) for survey in self.surveys))


def draw_supported(posterior: AmortisedPosterior, n: int, seed: int) -> Float[np.ndarray, "n l"]:
    """Labels of `n` stars of the solar neighbourhood (`draw_stars`) that the flow was trained for, in the
    order of its label set."""
    rng = np.random.default_rng(seed)
    labels = NINE_LABELS.take(draw_stars(rng, n + n // 10 + 20), posterior.label_set.names)
    if posterior.prior is not None:
        labels = labels[np.asarray(posterior.prior.supports(jnp.asarray(labels, jnp.float32)))]
    return labels[:n]


def observe_pool(
    posterior: AmortisedPosterior,
    forward: SpectrumModel,
    labels: Float[np.ndarray, "n l"],
    config: SpectralConfig,
    seed: int,
    batch: int = 64,
) -> Pool:
    """Spectra of all stars by both surveys, and their likelihoods through the flow, its training prior
    divided out.

    Turbulence and rotation are the star's own; velocity, resolution, S/N and noise are the visit's.
    """
    same = replace(config, slope=0.0, ripple=0.0, resolution=1.0, line_error=0.0)
    models = (plant(forward, same, seed), plant(forward, config, seed))  # one compilation for both
    nuisances = NuisanceConfig(snr_range=config.snr, only_arm=(0.0, 0.0), resolution_scatter=0.02)
    key = jax.random.key(seed)
    surveys = []
    for s, model in enumerate(models):
        pieces = []
        for start in range(0, len(labels), batch):
            rows = np.arange(start, min(start + batch, len(labels)))
            full = np.resize(rows, batch)  # one shape, one compilation
            keys = jax.random.split(jax.random.fold_in(key, start), 5)
            flux, ivar = _observe(
                model, keys[0], keys[1 + s], jnp.asarray(labels[full], jnp.float32), nuisances
            )
            found = posterior.sample_normalised(keys[3 + s], flux, ivar, config.n_draws, batch)
            pieces.append(from_posterior(NAMES[s], found.select(slice(0, len(rows))), rows))
        surveys.append(_join(pieces))
    return Pool(np.asarray(labels, float), tuple(surveys))


@eqx.filter_jit
def _observe(
    model: SpectrumModel,
    key_star: PRNGKeyArray,
    key: PRNGKeyArray,
    labels: Float[Array, "n l"],
    config: NuisanceConfig,
) -> tuple[Float[Array, "n p"], Float[Array, "n p"]]:
    """Normalised flux and ivar of one visit to each star."""
    calibrations = turbulence.vmic_calibration, turbulence.vmac_calibration
    keys = jax.random.split(key, 3)
    stellar = model.label_set.stellar(labels)
    star = draw_nuisances(key_star, stellar, config, *calibrations)
    visit = draw_nuisances(keys[0], stellar, config, *calibrations)
    star = star._replace(velocity=visit.velocity, resolution=visit.resolution)
    low, high = np.log(config.snr_range)
    snr = jnp.exp(jax.random.uniform(keys[1], (labels.shape[0],), minval=low, maxval=high))
    flux = jax.vmap(model)(labels, star)
    return prepare(*observe(keys[2], flux, snr, model.instrument, config), model.instrument)


def _join(pieces: list[Survey]) -> Survey:
    names = ("star", "values", "covariance", "flagged")
    arrays: dict[str, Any] = {name: np.concatenate([getattr(p, name) for p in pieces]) for name in names}
    return replace(pieces[0], **arrays)


def pick(survey: Survey, rows: Int[np.ndarray, " m"], star: Int[np.ndarray, " m"]) -> Survey:
    """These rows of a survey, as measurements of the stars `star` of a sky."""
    return replace(
        survey,
        star=np.asarray(star),
        values=survey.values[rows],
        covariance=survey.covariance[rows],
        flagged=survey.flagged[rows],
    )


def cut_sky(
    pool: Pool, rows: Int[np.ndarray, " n"], label_set: LabelSet, config: SpectralConfig, seed: int
) -> Sky:
    """A sky of these stars of the pool: which survey sees which is drawn, and the anchors' errors are."""
    rng = np.random.default_rng(seed)
    n = len(rows)
    n_anchors, n_both = round(config.anchors * n), round(config.overlap * n)
    order = rng.permutation(n)
    anchored, both, rest = np.split(order, [n_anchors, n_anchors + n_both])
    ends = np.round(np.array([0.4, 0.7]) * n_anchors).astype(int)
    anchors = np.split(anchored, ends)  # both, the first survey, the second
    halves = np.array_split(rest, 2)
    seen = [np.sort(np.concatenate([anchors[0], anchors[1 + s], both, halves[s]])) for s in range(2)]
    surveys = [pick(pool.surveys[s], rows[star], star) for s, star in enumerate(seen)]
    star = np.sort(anchored)
    error = np.tile(0.3 * NINE_LABELS.take(ERROR, label_set.names), (n_anchors, 1))
    values = pool.labels[rows[star]] + error * rng.normal(size=error.shape)
    gold = Survey("anchor", star, values, diagonal(error), np.zeros(n_anchors, bool), anchor=True)
    return make_sky(label_set, [*surveys, gold], n)


class Offset(NamedTuple):
    """Mean offset of a survey's labels, as coefficients of p functions of the stars.

    - `coefficients [l, p]`, `covariance [l, p, p]`: of their sampling errors.
    - `scatter [l]`: robust standard deviation about it, noise included; `outliers`: stars left out.
    """

    coefficients: Float[np.ndarray, "l p"]
    covariance: Float[np.ndarray, "l p p"]
    scatter: Float[np.ndarray, " l"]
    outliers: int

    def at(self, x: Float[np.ndarray, "m p"]) -> tuple[Float[np.ndarray, "m l"], Float[np.ndarray, "m l"]]:
        """The offset where the functions have the values `x`, and its standard deviation."""
        return x @ self.coefficients.T, np.sqrt(np.einsum("mi,lij,mj->ml", x, self.covariance, x))


def measure_offset(x: Float[np.ndarray, "n p"], labels: Float[np.ndarray, "n l"], survey: Survey) -> Offset:
    """The offset of a survey that observed stars of known labels, row by row.

    A combination of the functions `x`, fitted to each label with weights of the inverse variance, quoted and
    found; flagged rows, and those beyond `CLIP` in any label, are left out. Errors are the sandwich of White
    (1980, Econometrica 48, 817), which holds for any scatter.
    """
    difference = survey.values - labels
    quoted = np.diagonal(survey.covariance, axis1=1, axis2=2)
    keep: Bool[np.ndarray, " n"] = ~survey.flagged
    weight, scatter = np.ones(difference.shape), np.ones(difference.shape[1])
    residual, coefficients = difference, np.zeros((difference.shape[1], x.shape[1]))
    for _ in range(6):
        for j in range(difference.shape[1]):
            root = np.sqrt(weight[keep, j])
            solved = np.linalg.lstsq(x[keep] * root[:, None], difference[keep, j] * root, rcond=None)
            coefficients[j] = solved[0]
        residual = difference - x @ coefficients.T
        scatter = 1.4826 * np.median(np.abs(residual[keep]), axis=0)
        keep = ~survey.flagged & (np.abs(residual) < CLIP * np.hypot(scatter, np.sqrt(quoted))).all(axis=1)
        excess = np.maximum(scatter**2 - np.median(quoted[keep], axis=0), 0.0)
        weight = 1.0 / (quoted + excess)
    covariance = np.zeros((difference.shape[1], x.shape[1], x.shape[1]))
    for j in range(difference.shape[1]):
        bread = np.linalg.inv(np.einsum("n,ni,nj->ij", weight[keep, j], x[keep], x[keep]))
        score = x[keep] * (weight[keep, j] * residual[keep, j])[:, None]
        covariance[j] = bread @ (score.T @ score) @ bread
    return Offset(coefficients, covariance, scatter, int((~keep & ~survey.flagged).sum()))


class Recovery(NamedTuple):
    """Offsets inferred from one sky beside the planted ones, for each survey of `NAMES`, star of `STARS` and
    label, in the labels' units; and what the planted ones were taken from. Leading axes are skies."""

    planted: Float[np.ndarray, "*k 2 m l"]
    planted_error: Float[np.ndarray, "*k 2 m l"]
    inferred: Float[np.ndarray, "*k 2 m l"]
    error: Float[np.ndarray, "*k 2 m l"]
    offsets: tuple[Offset, ...]

    @property
    def z(self) -> Float[np.ndarray, "*k 2 m l"]:
        """Difference over both errors."""
        return (self.inferred - self.planted) / np.hypot(self.error, self.planted_error)


def compare(result: Calibration, reference: Pool) -> Recovery:
    """What a fit inferred, at four kinds of stars, beside what is measured on stars of known labels with the
    same trends: a straight line through a curved offset depends on where the stars are."""

    def functions(labels):
        u = result.scales.to_model(labels) @ result.scales.input_matrix.T
        return np.concatenate([np.ones((len(u), 1)), result.basis.values(u)], axis=1)

    places = np.array([result.label_set.scaled_solar(*star) for star in STARS.values()])
    x = functions(reference.labels)
    offsets = tuple(measure_offset(x, reference.labels, survey) for survey in reference.surveys)
    at_places = functions(places)
    planted, planted_error = map(np.stack, zip(*(offset.at(at_places) for offset in offsets), strict=True))
    inferred, error = map(np.stack, zip(*(result.offset(name, places) for name in NAMES), strict=True))
    return Recovery(planted, planted_error, inferred, error, offsets)
