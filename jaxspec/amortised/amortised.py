"""An amortised posterior: a trained network with all it takes to use it on a spectrum, saved in one
folder."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from jaxspec.amortised.network import PosteriorNetwork
from jaxspec.errors import InputError
from jaxspec.instruments import Instrument
from jaxspec.labels import LabelSet
from jaxspec.posterior.flagging import LEAST_INSIDE, flag_stars
from jaxspec.posterior.limits import Limits, observed_arms
from jaxspec.posterior.recalibration import Recalibration
from jaxspec.posterior.results import Posterior
from jaxspec.simulation.preparation import prepare_many
from jaxspec.simulation.prior import StellarPrior
from jaxspec.spectra import Spectra, median_snr

# Draws outside the prior are replaced. Half as many again as are asked for are made at once, and the
# same again for stars that lack some, unless a smaller share of their draws than `LEAST_INSIDE` is inside.
OVERSAMPLING = 1.5


@dataclass(frozen=True)
class Reference:
    """Where the contexts of training spectra lie, to recognise an input unlike any of them.

    Attributes:
        mean, inverse_root: `(context - mean) @ inverse_root` is white on the training distribution, `[c]` and
            `[c, c]`.
        limit: distance (root mean square of the whitened context) that one in a thousand training spectra
            exceeds.
    """

    mean: Float[np.ndarray, " c"]
    inverse_root: Float[np.ndarray, "c c"]
    limit: float

    @classmethod
    def fit(cls, context: Float[np.ndarray, "n c"], quantile: float = 0.999) -> Reference:
        """From the contexts of some thousand simulated spectra."""
        context = np.asarray(context, np.float64)
        n, c = context.shape
        if n < 2 * c:
            raise InputError(
                "reference", f"{n} spectra for {c} dimensions", f"at least {2 * c}", "simulate more"
            )
        mean = context.mean(axis=0)
        covariance = np.cov(context.T) + 1e-6 * np.trace(np.cov(context.T)) / c * np.eye(c)
        inverse_root = np.linalg.cholesky(np.linalg.inv(covariance))
        distance = _distance(context, mean, inverse_root)
        return cls(mean, inverse_root, float(np.quantile(distance, quantile)))

    def distance(self, context: Float[np.ndarray, "n c"]) -> Float[np.ndarray, " n"]:
        """Distance in units of the limit: above 1 the input is unlike the training set."""
        return _distance(np.asarray(context, np.float64), self.mean, self.inverse_root) / self.limit


@dataclass(frozen=True, eq=False)
class AmortisedPosterior:
    """Posterior of the labels for any spectrum of one instrument, in milliseconds.

    Attributes:
        network: encoder and flow.
        instrument: whose pixels the spectra must be on.
        prior: what the network was trained with; None for a network trained on a survey.
        reference: where training spectra lie; None switches that part of OUT_OF_RANGE off.
        snr_limit: S/N per pixel below which LOW_SNR is set.
        limits: what the statistics of ordinary spectra do not exceed, by S/N; None judges all by the same.
        recalibration: what is made of the network's draws, by S/N; None leaves them as they are.
        provenance: free-form facts about the training (JSON), saved along.
    """

    network: PosteriorNetwork
    instrument: Instrument
    prior: StellarPrior | None = None
    reference: Reference | None = None
    snr_limit: float = 10.0
    limits: Limits | None = None
    recalibration: Recalibration | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label_set(self) -> LabelSet:
        """Names, units and bounds of the labels."""
        return self.network.label_set

    def sample(self, key: PRNGKeyArray, spectra: Spectra, n: int = 1000, batch: int = 64) -> Posterior:
        """Posterior draws for observed spectra, which are normalised here as the training spectra were.

        Args:
            key: the same key, spectra, `n` and `batch` give the same draws.
            spectra: at rest, on this instrument's pixels, on any flux scale.
            n: draws per star.
            batch: stars per compiled call.

        Raises: InputError when the spectra are on other pixels.
        """
        return self.sample_normalised(key, *self.prepare(spectra), n, batch, spectra.names)

    def prepare(self, spectra: Spectra) -> tuple[Float[np.ndarray, "s p"], Float[np.ndarray, "s p"]]:
        """Normalised flux and ivar of observed spectra.

        Raises: InputError when the spectra are on other pixels.
        """
        grid = self.instrument.wavelength
        if spectra.wavelength.shape != grid.shape or not np.allclose(
            spectra.wavelength, grid, rtol=0.0, atol=1e-3
        ):
            raise InputError(
                "spectra.wavelength",
                f"{spectra.wavelength.size} pixels from {spectra.wavelength[0]:.2f} A",
                f"the {grid.size} pixels of instrument {self.instrument.name!r}",
                "rebin the spectra onto it first (jaxspec.resampling.rebin)",
            )
        return prepare_many(spectra.flux, spectra.ivar, self.instrument)

    def sample_normalised(
        self,
        key: PRNGKeyArray,
        flux: Float[Array | np.ndarray, "s p"],
        ivar: Float[Array | np.ndarray, "s p"],
        n: int = 1000,
        batch: int = 64,
        names: tuple[str, ...] | None = None,
    ) -> Posterior:
        """As `sample` for spectra that went through `prepare` already, or that were simulated."""
        return self.sample_given(key, self.contexts(flux, ivar, batch), flux, ivar, n, batch, names)

    def contexts(
        self, flux: Float[Array | np.ndarray, "s p"], ivar: Float[Array | np.ndarray, "s p"], batch: int = 64
    ) -> Float[np.ndarray, "s k"]:
        """What the network makes of normalised spectra, before any draw."""
        pieces = []
        for start in range(0, flux.shape[0], batch):
            f, v = flux[start : start + batch], ivar[start : start + batch]
            padding = ((0, _padded_size(len(f), batch) - len(f)), (0, 0))
            context = self._context(None, jnp.pad(f, padding, constant_values=1.0), jnp.pad(v, padding))
            pieces.append(np.asarray(context)[: len(f)])
        return np.concatenate(pieces)

    def sample_given(
        self,
        key: PRNGKeyArray,
        context: Float[np.ndarray, "s k"],
        flux: Float[Array | np.ndarray, "s p"],
        ivar: Float[Array | np.ndarray, "s p"],
        n: int = 1000,
        batch: int = 64,
        names: tuple[str, ...] | None = None,
    ) -> Posterior:
        """As `sample_normalised`, with the `contexts` of these spectra worked out before."""
        n_star = flux.shape[0]
        pieces = []
        for i, start in enumerate(range(0, n_star, batch)):
            rows = context[start : start + batch]
            size = len(rows)
            padding = ((0, _padded_size(size, batch) - size), (0, 0))
            rows = np.pad(rows, padding, "edge")
            pieces.append(self._sample_batch(jax.random.fold_in(key, i), rows, n, size))
        draws, log_prob, outside = (
            np.concatenate(p, axis=axis) for p, axis in zip(zip(*pieces, strict=True), (1, 1, 0), strict=True)
        )
        ivar = np.asarray(ivar)
        snr = median_snr(np.asarray(flux), ivar)
        arms = observed_arms(ivar, self.instrument)
        stats = {"outside_prior": outside.astype(np.float64)}
        if self.reference is not None:
            stats["novelty"] = self.reference.distance(self.network.summary(context))
            if self.limits is not None:
                stats["novelty"] = stats["novelty"] / self.limits.at("novelty", snr, arms)
        if self.network.point_head is not None:
            for kind, values in zip(("{}_point", "e_{}_point"), self._point(context), strict=True):
                for j, name in enumerate(self.label_set.names):
                    stats[kind.format(name)] = np.asarray(values[:, j], float)
        names = tuple(str(i) for i in range(n_star)) if names is None else tuple(names)
        unknown = np.full(n_star, np.nan)
        flags = np.zeros(n_star, np.int64)
        result = Posterior(draws, log_prob, self.label_set, names, snr, unknown, flags, stats, self.prior)
        if self.recalibration is not None:
            result = self.recalibration.apply(result, arms)
        return self.flag(result, ivar)

    def flag(self, result: Posterior, ivar: Float[Array | np.ndarray, "n p"]) -> Posterior:
        """`result` with the flags that its draws and statistics deserve now (see `flag_stars`); call it after
        a refinement and after the check."""
        return flag_stars(result, ivar, self.instrument, self.prior, self.snr_limit)

    def log_prob(
        self,
        labels: Float[Array | np.ndarray, "*k s l"],
        flux: Float[Array | np.ndarray, "s p"],
        ivar: Float[Array | np.ndarray, "s p"],
    ) -> Float[Array, "*k s"]:
        """Log-density of the network itself, not recalibrated, at given labels for normalised spectra."""
        return _compiled_log_prob(*self._split, labels, flux, ivar)

    def with_reference(
        self, flux: Float[Array | np.ndarray, "n p"], ivar: Float[Array | np.ndarray, "n p"], batch: int = 64
    ) -> AmortisedPosterior:
        """The same posterior with its `Reference` fitted to normalised training spectra; with the dropout of
        the training, so that it holds for any part of the network."""
        context = [
            self.network.summary(
                np.asarray(self._context(jax.random.key(i), flux[i : i + batch], ivar[i : i + batch]))
            )
            for i in range(0, flux.shape[0], batch)
        ]
        return dataclasses.replace(self, reference=Reference.fit(np.concatenate(context)))

    # The network's arrays are arguments of the compiled functions, not constants in them.
    @cached_property
    def _split(self):
        return nnx.split(self.network)

    def _context(self, key, flux, ivar):
        return _compiled_context(*self._split, key, flux, ivar)

    def _point(self, context):
        return _compiled_point(*self._split, context)

    def _sample_batch(self, key, context, n, size):
        """Draws of the first `size` stars, their log-densities, the share outside of the prior.

        The posterior is zero where the prior is. A star whose share inside is too small keeps draws outside.
        """
        m = n if self.prior is None else int(np.ceil(OVERSAMPLING * n))
        first = _compiled_sample(*self._split, key, context, m, self.prior)
        draws, log_prob, inside = (np.asarray(x)[:, :size] for x in first)
        found, drawn = inside.sum(axis=0), np.full(size, m)
        # Those inside come first; what is left over gives way to further ones.
        order = np.argsort(~inside, axis=0, kind="stable")[:n]
        draws = np.take_along_axis(draws, order[..., None], axis=0)
        log_prob = np.take_along_axis(log_prob, order, axis=0)
        kept = np.minimum(found, n)
        for i in itertools.count(1):
            # Three standard deviations above what was found, as the share is an estimate.
            hopeful = found + 3.0 * np.sqrt(found + 1.0) > LEAST_INSIDE * drawn
            short = np.flatnonzero((kept < n) & hopeful & (drawn < m / LEAST_INSIDE))
            if short.size == 0:
                break
            rows = np.resize(short, 1 << (short.size - 1).bit_length())
            more = _compiled_sample(*self._split, jax.random.fold_in(key, i), context[rows], m, self.prior)
            more_draws, more_log_prob, more_inside = map(np.asarray, more)
            for column, star in enumerate(short):
                fine = np.flatnonzero(more_inside[:, column])
                free = slice(kept[star], min(kept[star] + fine.size, n))
                used = fine[: free.stop - free.start]
                draws[free, star] = more_draws[used, column]
                log_prob[free, star] = more_log_prob[used, column]
                kept[star], found[star], drawn[star] = free.stop, found[star] + fine.size, drawn[star] + m
        share = found / drawn
        log_prob = log_prob - np.log(np.maximum(share, LEAST_INSIDE)).astype(log_prob.dtype)
        return draws, log_prob, 1.0 - share


def _padded_size(n: int, batch: int) -> int:
    """Few shapes, few compilations: short batches are filled up to a power of two."""
    return batch if n >= batch else 1 << (n - 1).bit_length()


def _distance(context, mean, inverse_root):
    return np.sqrt(np.mean(((context - mean) @ inverse_root) ** 2, axis=1))


@partial(jax.jit, static_argnums=0)
def _compiled_log_prob(graph, state, labels, flux, ivar):
    return nnx.merge(graph, state).log_prob(labels, flux, ivar)


@partial(jax.jit, static_argnums=0)
def _compiled_context(graph, state, key, flux, ivar):
    return nnx.merge(graph, state).context(flux, ivar, key)


@partial(jax.jit, static_argnums=0)
def _compiled_point(graph, state, context):
    return nnx.merge(graph, state).point_estimate(context)


@partial(jax.jit, static_argnums=(0, 4, 5))
def _compiled_sample(graph, state, key, context, n, prior):
    """Draws, log-densities, and which draws the prior supports."""
    draws, log_prob = nnx.merge(graph, state).sample_given(key, context, n)
    inside = jnp.ones(log_prob.shape, bool) if prior is None else prior.supports(draws)
    return draws, log_prob, inside
