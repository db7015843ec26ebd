"""A posterior network that fits: one or two Gauss-Newton steps of the forward model inside of it.

A network alone has to learn to thousandths what a label is for every spectrum. Here it only guesses; the
forward model, linearised at the guess, says how far the spectrum is from it, and gives a mean and a
covariance of the labels that are the best there are where noise is Gaussian and the model right (the one-step
estimator of Le Cam; van der Vaart 1998, Asymptotic Statistics, section 5.7). The flow then describes the
labels relative to this Gaussian: it starts at the Cramer-Rao bound, and learns what is not Gaussian and how
wrong the model is. `jaxspec.amortised.fits` trains such a network.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from jaxspec.fitting.likelihood import (
    N_NUISANCES,
    VSINI,
    LikelihoodConfig,
    nuisance_scale,
)
from jaxspec.fitting.modes import Fit
from jaxspec.flows.linear import MatrixBijector, unit_lower_inverse
from jaxspec.labels import LabelSet
from jaxspec.linear import cholesky, median_of
from jaxspec.networks.blocks import ResidualDense
from jaxspec.physics.forward import Nuisances
from jaxspec.simulation.nuisances import expected_nuisances
from jaxspec.simulation.simulator import SpectrumModel

# Rotation is guessed as the logarithm of vsini, in units of its scale, plus this.
SLOWEST = 0.3
# A peak that is far from where the model was linearised is uncertain by this part of the way.
FAR = 0.05
CACHED = 8
WIDTH, BLOCKS = 128, 1  # of the dense layers from the fit to the context


class ForwardArray(nnx.Variable):
    """An array of the forward model: neither trained nor stored with the weights."""


class Estimate(NamedTuple):
    """Outcome of the linearised fit of each spectrum.

    Attributes:
        labels: the mean, inside the bounds of the label set.
        covariance: of the labels.
        nuisances: in the units of the likelihood's `u`, with the square of vsini.
        nuisance_errors: their standard deviations.
        misfit: of each arm, relative to the stated errors: the robust scatter of residuals, the share that is
            beyond three times that, and how neighbouring residuals go together, half a resolution element
            and one apart.
    """

    labels: Float[Array, "b l"]
    covariance: Float[Array, "b l l"]
    nuisances: Float[Array, "b 5"]
    nuisance_errors: Float[Array, "b 5"]
    misfit: Float[Array, "b m"]


class Fitted(NamedTuple):
    """A fit as the flow is told of it.

    Attributes:
        features: what its layers make their context of: where the fit is, how certain and how good. The
            encoder's context is not among them: with a hundred thousand stars the flow learns those by heart
            by it, and is worse for others by 0.15 in ln q.
        centre: the unconstrained labels.
        root: Cholesky root of their covariance.
    """

    features: Float[Array, "b f"]
    centre: Float[Array, "b l"]
    root: Float[Array, "b l l"]


class LinearFit(nnx.Module):
    """From the context of an encoder and the spectrum (`fitted`) to the context of the flow, and to the
    Gaussian that it starts from.

    The result of a call is one array for each star: the `n_context` numbers that the flow's layers see, then
    mean and Cholesky root of the Gaussian, which `whitening` takes from it.
    """

    def __init__(
        self,
        config: LikelihoodConfig,
        label_set: LabelSet,
        forward: SpectrumModel,
        n_context: int,
        *,
        rngs: nnx.Rngs,
    ):
        forward.label_set.check_same(label_set.names, "labels of the network")
        n = len(label_set)
        self.config, self.label_set, self.n_context = config, label_set, n_context
        leaves, self.structure = jax.tree.flatten(forward)
        self.arrays = nnx.List([ForwardArray(jnp.asarray(leaf)) for leaf in leaves])
        self.guess = nnx.Linear(
            n_context, 2 * (n + N_NUISANCES), kernel_init=nnx.initializers.zeros, rngs=rngs
        )
        self.location = nnx.Variable(jnp.zeros(n))
        self.scale = nnx.Variable(jnp.ones(n))
        n_features = n + n * (n + 1) // 2 + 2 * N_NUISANCES + 4 * len(forward.instrument.arms)
        self.enter = nnx.Linear(n_features, WIDTH, rngs=rngs)
        self.blocks = nnx.List([ResidualDense(WIDTH, rngs=rngs) for _ in range(BLOCKS)])
        self.leave = nnx.Linear(WIDTH, n_context, rngs=rngs)

    @property
    def forward(self) -> SpectrumModel:
        """The forward model."""
        return jax.tree.unflatten(self.structure, [array[...] for array in self.arrays])

    def set_standardisation(self, location: Float[Array, " l"], scale: Float[Array, " l"]) -> None:
        """Location and scale of the unconstrained labels over the training set, before training."""
        self.location[...], self.scale[...] = location, scale

    def fitted(
        self, context: Float[Array, "b c"], flux: Float[Array, "b p"], ivar: Float[Array, "b p"]
    ) -> Fitted:
        """The fit of each spectrum, from the encoder's context."""
        estimate = self.estimate(context, flux, ivar)
        centre = self.label_set.to_unconstrained(estimate.labels)
        slope = jax.jvp(
            self.label_set.to_unconstrained, (estimate.labels,), (jnp.ones_like(estimate.labels),)
        )[1]
        covariance = estimate.covariance * slope[:, :, None] * slope[:, None, :]
        root = jax.lax.stop_gradient(cholesky(covariance))
        size = jnp.sqrt(jnp.sum(root**2, axis=-1))
        lower = np.tril_indices(root.shape[-1], -1)
        features = [
            (centre - self.location[...]) / self.scale[...],
            jnp.log(size / self.scale[...]),
            (root / size[..., None])[:, lower[0], lower[1]],
            jnp.sign(estimate.nuisances) * jnp.log1p(jnp.abs(estimate.nuisances)),
            jnp.log(estimate.nuisance_errors),
            estimate.misfit,
        ]
        return Fitted(jnp.concatenate([jnp.clip(x, -10.0, 10.0) for x in features], axis=-1), centre, root)

    def __call__(self, fitted: Fitted) -> Float[Array, "b k"]:
        y = self.enter(fitted.features)
        for block in self.blocks:
            y = block(y)
        root = fitted.root.reshape(fitted.root.shape[0], -1)
        return jnp.concatenate([self.leave(y), fitted.centre, root], axis=-1)

    def whitening(self, context: Float[Array, "b k"]) -> MatrixBijector:
        """From unconstrained labels to their distance from the Gaussian's mean in units of its root."""
        n = len(self.label_set)
        centre, root = jnp.split(context[:, self.n_context :], [n], axis=-1)
        root = root.reshape(-1, n, n)
        diagonal = jnp.diagonal(root, axis1=1, axis2=2)
        inverse = unit_lower_inverse(root / diagonal[:, None, :]) / diagonal[:, :, None]
        return MatrixBijector(inverse, root, -jnp.sum(jnp.log(diagonal), axis=-1), centre)

    def estimate(
        self, context: Float[Array, "b c"], flux: Float[Array, "b p"], ivar: Float[Array, "b p"]
    ) -> Estimate:
        """Labels and their covariance by the forward model, linearised at the guess after `config.steps`
        Gauss-Newton steps from it."""
        mean, log_sigma = jax.lax.stop_gradient(self._guess(context))
        n = len(self.label_set)
        z = self.location[...] + self.scale[...] * mean[:, :n]
        start = self.label_set.to_labels(z)
        # Where the fit finds nothing, the guess stands with its own error.
        slope = jax.jvp(self.label_set.to_labels, (z,), (self.scale[...] * jnp.exp(log_sigma[:, :n]),))[1]
        nuisances = mean[:, n:].at[:, VSINI].set(jnp.exp(mean[:, VSINI]) - SLOWEST)
        forward = self.forward
        stars = start, slope, nuisances, flux, ivar
        fit = lambda star: _estimate(forward, self.config, *star)  # noqa: E731
        n_stars = flux.shape[0]
        # A processor's caches hold a few stars' derivatives, an accelerator wants them all at once; so
        # does an export, for which the number of stars is a symbol.
        if not isinstance(n_stars, int) or jax.default_backend() != "cpu":
            return jax.vmap(fit)(stars)
        return jax.lax.map(fit, stars, batch_size=min(CACHED, n_stars))

    def guess_loss(
        self, context: Float[Array, "b c"], labels: Float[Array, "b l"], nuisances: Nuisances
    ) -> Float[Array, " b"]:
        """-ln of independent Gaussians about the guess of labels (unconstrained and standardised) and of
        nuisances (in units of their scatter), less a constant: what the guess is trained by."""
        z = (self.label_set.to_unconstrained(labels) - self.location[...]) / self.scale[...]
        expected = expected_nuisances(self.label_set.stellar(labels), self.config.nuisances)
        centre = jnp.stack(expected, axis=-1)
        u = (jnp.stack(nuisances, axis=-1) - centre) / nuisance_scale(self.config)
        u = u.at[:, VSINI].set(jnp.log(u[:, VSINI] + SLOWEST))
        mean, log_sigma = self._guess(context)
        pull = (jnp.concatenate([z, u], axis=-1) - mean) * jnp.exp(-log_sigma)
        return jnp.sum(0.5 * pull**2 + log_sigma, axis=-1)

    def _guess(self, context):
        """Mean and log of the standard deviation of labels (unconstrained, standardised) and nuisances."""
        mean, log_sigma = jnp.split(self.guess(context), 2, axis=-1)
        return jnp.clip(mean, -6.0, 6.0), jnp.clip(log_sigma, -7.0, 2.0)


def _estimate(forward, config, start, error, nuisances, flux, ivar):
    n = start.size
    fit = Fit(forward, start, flux, ivar, config)
    u = jnp.clip(jnp.concatenate([jnp.zeros(n), nuisances]), fit.low, fit.high)
    state = u, fit.continuum(u)
    for _ in range(config.steps):
        state = fit.step(state)
    u, linear = jax.lax.stop_gradient(state)
    found = fit.system(u, linear)
    peak = fit.peak(u, found)
    unit = jnp.asarray(forward.label_set.step)
    moved = jax.lax.stop_gradient(FAR * (peak.centre - u)[:n])
    covariance = (peak.covariance[:n, :n] + jnp.diag(moved**2)) * jnp.outer(unit, unit)
    errors = jnp.sqrt(jnp.maximum(jnp.diag(peak.covariance)[n:], 1e-6))
    # Rounding can make a label that hardly shows no covariance at all.
    fine = jnp.all(jnp.isfinite(peak.centre)) & jnp.all(jnp.diag(covariance) > 0.0)
    labels = start + unit * jnp.where(fine, jnp.clip(peak.centre[:n], fit.low[:n], fit.high[:n]), 0.0)
    return Estimate(
        labels,
        jnp.where(fine, covariance, jnp.diag(error**2)),
        jnp.where(fine, peak.centre[n:], nuisances),
        jnp.where(fine, errors, 1.0),
        misfit(fit, found.residual),
    )


def misfit(fit: Fit, residual: Float[Array, " p"]) -> Float[Array, " m"]:
    """See `Estimate`."""
    parts = []
    for arm, where in zip(fit.forward.instrument.arms, fit.slices, strict=True):
        ivar, r = fit.ivar[where], jax.lax.stop_gradient(residual[where])
        seen = ivar > 0.0
        z = r * jnp.sqrt(ivar)
        scale = jnp.where(jnp.any(seen), 1.4826 * median_of(jnp.abs(z), seen), 1.0)
        scale = jnp.maximum(scale, 1e-3)
        z = jnp.clip(z / scale, -3.0, 3.0)
        far = jnp.sum(jnp.abs(z) >= 3.0) / jnp.maximum(jnp.sum(seen), 1)
        centre = 0.5 * (arm.low + arm.high)
        element = max(round(centre / float(arm.resolution(centre)) / arm.step), 2)
        pairs = [
            jnp.sum(z[lag:] * z[:-lag]) / jnp.maximum(jnp.sum(seen[lag:] & seen[:-lag]), 1)
            for lag in (element // 2, element)
        ]
        parts += [jnp.log(scale), 10.0 * far, *pairs]
    return jnp.stack(parts)
