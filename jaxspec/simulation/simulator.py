"""Simulated observations: stars from the prior, spectra from the forward model, and what a survey does to
them, in one compiled function."""

from __future__ import annotations

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from jaxspec.datasets import Dataset
from jaxspec.instruments import Instrument
from jaxspec.physics import turbulence
from jaxspec.physics.forward import SpectrumModel
from jaxspec.simulation.nuisances import PURE, Calibration, NuisanceConfig, draw_nuisances
from jaxspec.simulation.preparation import prepare
from jaxspec.simulation.prior import StellarPrior
from jaxspec.simulation.residuals import ResidualModel

CONTINUUM_DEGREE = 5
MAX_COSMICS = 12
KNOTS_PER_LENGTH = 2


class Simulator(eqx.Module):
    """Draws stars and their observed spectra. Pure: the same key gives the same batch; call it inside
    `jax.jit` or through `simulate`.

    Attributes:
        forward: maps labels and nuisances of one star to noiseless flux on its instrument's pixels.
        prior: the density the labels are drawn from.
        config: the distributions of everything else.
        vmic_calibration, vmac_calibration: functions of (teff [K], logg, fe_h) in km/s.
        residuals: errors of spectra learned from real ones, beside those of the configuration; or None.
    """

    forward: SpectrumModel
    prior: StellarPrior = eqx.field(static=True)
    config: NuisanceConfig = eqx.field(static=True)
    vmic_calibration: Calibration = eqx.field(static=True)
    vmac_calibration: Calibration = eqx.field(static=True)
    residuals: ResidualModel | None

    def __init__(
        self,
        forward: SpectrumModel,
        prior: StellarPrior | None = None,
        config: NuisanceConfig = PURE,
        vmic_calibration: Calibration = turbulence.vmic_calibration,
        vmac_calibration: Calibration = turbulence.vmac_calibration,
        residuals: ResidualModel | None = None,
    ):
        if prior is not None:
            forward.label_set.check_same(prior.names, "labels of the prior")
        self.forward = forward
        self.prior = StellarPrior(names=forward.label_set.names) if prior is None else prior
        self.config = config
        self.vmic_calibration = vmic_calibration
        self.vmac_calibration = vmac_calibration
        self.residuals = residuals

    @property
    def instrument(self) -> Instrument:
        """The instrument whose pixels the spectra are on."""
        return self.forward.instrument

    @eqx.filter_jit
    def simulate(self, key: PRNGKeyArray, n: int) -> Dataset:
        """Draw `n` stars from the prior and observe them."""
        key_labels, key_rest = jax.random.split(key)
        return self.observe(key_rest, self.prior.sample(key_labels, n))

    @eqx.filter_jit
    def observe(
        self, key: PRNGKeyArray, labels: Float[Array, "n l"], snr: Float[Array, " n"] | None = None
    ) -> Dataset:
        """Observe stars of given labels, at given nominal S/N per pixel or at random ones."""
        keys = jax.random.split(key, 5)
        n = labels.shape[0]
        stellar = self.forward.label_set.stellar(labels)
        nuisances = draw_nuisances(
            keys[0], stellar, self.config, self.vmic_calibration, self.vmac_calibration
        )
        flux = jax.vmap(self.forward)(labels, nuisances)
        flux = perturb(keys[1], flux, self.instrument, self.config, self.residuals)
        if snr is None:
            low, high = np.log(self.config.snr_range)
            snr = jnp.exp(jax.random.uniform(keys[2], (n,), minval=low, maxval=high))
        flux, ivar = observe(keys[3], flux, snr, self.instrument, self.config)
        flux, ivar = prepare(flux, ivar, self.instrument)
        return Dataset(labels, flux, ivar, snr=snr, nuisances=nuisances)


def simulate_many(
    simulator: Simulator,
    key: PRNGKeyArray,
    n: int,
    snr: float | Sequence[float] | None = None,
    batch: int = 64,
) -> Dataset:
    """`n` simulated stars on the host, `batch` per compiled call.

    Args:
        snr: of all stars per pixel, or the ends of a range over which it is even; by default as the
            simulator's configuration draws it.
    """
    pieces = []
    for i in range(-(-n // batch)):
        key_labels, key_rest, key_snr = jax.random.split(jax.random.fold_in(key, i), 3)
        labels = simulator.prior.sample(key_labels, batch)
        wanted = None
        if snr is not None:
            low, high = np.broadcast_to(np.asarray(snr, np.float32), 2)
            wanted = jax.random.uniform(key_snr, (batch,), minval=low, maxval=high)
        pieces.append(jax.tree.map(np.asarray, simulator.observe(key_rest, labels, wanted)))
    return jax.tree.map(lambda *x: np.concatenate(x)[:n], *pieces)


def perturb(
    key: PRNGKeyArray,
    flux: Float[Array, "n p"],
    instrument: Instrument,
    config: NuisanceConfig,
    residuals: ResidualModel | None = None,
) -> Float[Array, "n p"]:
    """Make the model wrong as real line lists are: a new random error of every line's depth for every star;
    and as it was found to be, if `residuals` say so. The share `exact_model` of stars is left as it is."""
    exact = jax.random.uniform(jax.random.fold_in(key, len(instrument.arms)), (len(flux), 1))
    exact = exact < config.exact_model
    perturbed = flux
    if config.line_error or config.core_error or config.missing_lines:
        perturbed = perturb_lines(key, flux, instrument, config)
    if residuals is not None:
        perturbed += residuals.draw(jax.random.fold_in(key, len(instrument.arms) + 1), len(flux))
    return jnp.where(exact, flux, perturbed)


def perturb_lines(
    key: PRNGKeyArray, flux: Float[Array, "n p"], instrument: Instrument, config: NuisanceConfig
) -> Float[Array, "n p"]:
    """Random errors of every line's depth for every star.

    `1 - flux` is multiplied by `1 + eps`, where `eps` is a heavy-tailed random field with the correlation
    length of one line, plus a smooth one that acts on strong lines; then lines that the list lacks are put
    in. The amplitudes of a star are uniform between 0 and the configured maximum, so that the network meets
    perfect and poor models alike.
    """
    n = flux.shape[0]
    amplitude = jax.random.uniform(key, (3, n, 1))
    pieces = []
    for i, (arm, where) in enumerate(zip(instrument.arms, instrument.slices.values(), strict=True)):
        keys = jax.random.split(jax.random.fold_in(key, i), 5)
        n_pixels, depth = where.stop - where.start, 1.0 - flux[:, where]

        def field(knots, length, step=arm.step, n_pixels=n_pixels):
            return _interpolate_knots(knots, _stride(length, step), n_pixels)

        shape = (n, _n_knots(config.line_error_length, arm.step, n_pixels))
        # A Student-like tail: a few dozen lines are wrong by a factor, most by some per cent.
        heavy = jax.random.normal(keys[0], shape) * jnp.exp(0.6 * jax.random.normal(keys[1], shape) - 0.36)
        wide = jax.random.normal(keys[2], (n, _n_knots(config.core_error_length, arm.step, n_pixels)))
        absent = jnp.where(
            jax.random.uniform(keys[3], shape) < 0.03, jax.random.exponential(keys[4], shape), 0.0
        )
        eps = config.line_error * amplitude[0] * field(heavy, config.line_error_length)
        eps += config.core_error * amplitude[1] * depth * field(wide, config.core_error_length)
        extra = config.missing_lines * amplitude[2] * field(absent, config.line_error_length)
        perturbed = depth * jnp.maximum(1.0 + eps, 0.0) + extra * (1.0 - depth)
        # Depths saturate: a line cannot remove more light than there is.
        pieces.append(1.0 - jnp.minimum(perturbed, 0.5 * (1.0 + depth)))
    return jnp.concatenate(pieces, axis=1)


def observe(
    key: PRNGKeyArray,
    flux: Float[Array, "n p"],
    snr: Float[Array, " n"],
    instrument: Instrument,
    config: NuisanceConfig,
) -> tuple[Float[Array, "n p"], Float[Array, "n p"]]:
    """Turn noiseless normalised flux into what is read from a file: continuum shape, noise, cosmic rays,
    masks, missing arms."""
    key_which, key_arms = jax.random.split(key)
    observed = _observed_arms(key_which, flux.shape[0], len(instrument.arms), config)
    pieces = [
        _observe_arm(jax.random.fold_in(key_arms, i), flux[:, where], snr, observed[:, i, None], config)
        for i, where in enumerate(instrument.slices.values())
    ]
    return jnp.concatenate([p[0] for p in pieces], axis=1), jnp.concatenate([p[1] for p in pieces], axis=1)


def _observed_arms(key, n, n_arms, config):
    if n_arms == 1 or sum(config.only_arm) == 0.0:
        return jnp.ones((n, n_arms), bool)
    p = np.zeros(n_arms)
    p[: len(config.only_arm)] = config.only_arm[:n_arms]
    which = jax.random.choice(key, n_arms + 1, (n, 1), p=jnp.asarray(np.append(p, 1.0 - p.sum())))
    return (which == n_arms) | (which == jnp.arange(n_arms))


def _observe_arm(key, flux, snr, observed, config):
    n, p = flux.shape
    keys = iter(jax.random.split(key, 12))
    basis = jnp.asarray(
        np.polynomial.chebyshev.chebvander(np.linspace(-1, 1, p), CONTINUUM_DEGREE)[:, 1:].T, flux.dtype
    )

    stray = config.scattered_light * jax.random.uniform(next(keys), (n, 1))
    flux = (flux + stray) / (1.0 + stray)

    coefs = config.continuum_scatter * jax.random.normal(next(keys), (n, CONTINUUM_DEGREE))
    slope = config.slope * jax.random.normal(next(keys), (n,))
    coefs = coefs.at[:, 0].add(
        jnp.where(jax.random.uniform(next(keys), (n,)) < config.slope_probability, slope, 0.0)
    )
    continuum = jnp.maximum(1.0 + coefs @ basis, 0.1)

    # ln sigma: the star's S/N, the arm's, a smooth shape along the arm, and a share of the noise that follows
    # the light.
    k_arm, k_shape, k_photon, k_noise, k_stated = jax.random.split(next(keys), 5)
    shape = config.snr_shape * jax.random.normal(k_shape, (n, 2)) @ basis[:2]
    log_sigma = -jnp.log(snr)[:, None] + config.snr_arm_scatter * jax.random.normal(k_arm, (n, 1)) + shape
    photon = jax.random.uniform(k_photon, (n, 1))
    sigma = jnp.exp(log_sigma) * jnp.sqrt(photon * jnp.maximum(flux, 0.02) + 1.0 - photon)
    stated = sigma * jnp.exp(config.ivar_misstated * jax.random.normal(k_stated, (n, 1)))
    flux = flux + sigma * jax.random.normal(k_noise, (n, p))

    rows = jnp.arange(n)[:, None]
    k_where, k_count, k_size, k_masked = jax.random.split(next(keys), 4)
    where = jax.random.randint(k_where, (n, MAX_COSMICS), 0, p)
    exists = jax.random.uniform(k_count, (n, MAX_COSMICS)) < min(config.cosmics / MAX_COSMICS, 1.0)
    size = jnp.where(
        exists, 8.0 * sigma[rows, where] + 0.5 * jax.random.exponential(k_size, where.shape), 0.0
    )
    neighbour = jnp.minimum(where + 1, p - 1)
    flux = flux.at[rows, where].add(size).at[rows, neighbour].add(0.4 * size)
    masked = exists & (jax.random.uniform(k_masked, where.shape) < config.cosmic_masked)

    good = _unmasked(next(keys), n, p, config)
    keep = jnp.where(masked, 0.0, 1.0)
    good = good.at[rows, where].multiply(keep).at[rows, neighbour].multiply(keep)
    ivar = jnp.where(observed, good, 0.0) / (continuum * stated) ** 2
    return flux * continuum, ivar


def _unmasked(key, n, p, config):
    """1 for a good pixel and 0 for one that is masked: gaps, cut ends, single bad pixels."""
    k_gap, k_end, k_fraction, k_bad = jax.random.split(key, 4)
    u = jax.random.uniform(k_gap, (3, n, 2, 1))
    pixel = jnp.arange(p, dtype=u.dtype)
    start = u[0] * p
    length = jnp.where(u[1] < config.gap_probability, u[2] * config.gap_length * p, 0.0)
    good = jnp.all((pixel < start) | (pixel >= start + length), axis=1)
    u = jax.random.uniform(k_end, (2, n, 2, 1))
    cut = jnp.where(u[0] < config.truncation_probability, u[1] * config.truncation_length * p, 0.0)
    good &= (pixel >= cut[:, 0]) & (pixel < p - cut[:, 1])
    good = good.astype(u.dtype)
    n_bad = int(config.bad_pixels * p)
    if n_bad == 0:
        return good
    # Scattering a few hundred positions costs far less than a random number for every pixel.
    fraction = jax.random.uniform(k_fraction, (n, 1))
    u = jax.random.uniform(k_bad, (n, n_bad))
    keep = jnp.where(jnp.arange(n_bad, dtype=u.dtype) < fraction * n_bad, 0.0, 1.0)
    return good.at[jnp.arange(n)[:, None], (u * p).astype(int)].multiply(keep)


def _stride(length, step):
    return max(round(length / step / KNOTS_PER_LENGTH), 1)


def _n_knots(length, step, n_pixels):
    return -(-n_pixels // _stride(length, step)) + 1


def knots_to_pixels(length: float, step: float, n_pixels: int) -> Float[np.ndarray, "k p"]:
    """What a unit at each knot of a random field of correlation `length` (`perturb_lines`) gives the pixels,
    `step` apart; both in the same unit."""
    knots = np.eye(_n_knots(length, step, n_pixels), dtype=np.float32)
    return np.asarray(_interpolate_knots(knots, _stride(length, step), n_pixels))


def _interpolate_knots(knots, stride, n_pixels):
    """Straight lines between knots `stride` pixels apart: `[n, k]` to `[n, n_pixels]`."""
    t = jnp.arange(stride) / stride
    lines = knots[:, :-1, None] * (1.0 - t) + knots[:, 1:, None] * t
    return lines.reshape(knots.shape[0], -1)[:, :n_pixels]
