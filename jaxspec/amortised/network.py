"""The network behind an amortised posterior: encoder and conditional flow as one density of the labels given
a spectrum, and its objectives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.scipy.special import logsumexp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from jaxspec.amortised.linear_fit import Fitted, LinearFit
from jaxspec.datasets import Dataset
from jaxspec.errors import InputError
from jaxspec.fitting.likelihood import LikelihoodConfig
from jaxspec.flows import FlowConfig, MatchingFlow, make_flow
from jaxspec.labels import LabelSet
from jaxspec.networks import EncoderConfig, input_statistics, make_encoder
from jaxspec.physics.forward import Nuisances
from jaxspec.simulation.simulator import SpectrumModel


@dataclass(frozen=True)
class NetworkConfig:
    """Shape of a `PosteriorNetwork`.

    Attributes:
        encoder, flow: their shapes.
        error_floor: added in quadrature to every pixel's error (fraction of the continuum), alike in training
            and inference: it keeps spectra of S/N beyond the trained range from looking infinitely sharp, and
            says that the model is never better than this.
        point_weight: with one, the network also learns one estimate of each label with its error, from the
            same context: so much of their loss is added to the flow's.
        linear_fit: with one, the flow starts from the Gaussian that the forward model, linearised at the
            network's guess, gives after so many `steps` (see `jaxspec.amortised.linear_fit`).
    """

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    error_floor: float = 0.0025
    point_weight: float = 0.0
    linear_fit: LikelihoodConfig | None = None

    def __post_init__(self):
        if not self.point_weight >= 0.0:
            raise InputError(
                "NetworkConfig.point_weight", str(self.point_weight), "0 or more", "use 0.1 for a small part"
            )


class PosteriorNetwork(nnx.Module):
    """q(labels | flux, ivar): densities are per unit of all labels, so posteriors of different label sets or
    networks compare.

    All fluxes here are already normalised by `jaxspec.continuum.normalise`.

    Args:
        grid: wavelengths of the pixels (A); their number alone is enough for the residual encoder.
        forward: the forward model, for networks with a `linear_fit`.

    Raises: InputError when a forward model is needed and not given.
    """

    def __init__(
        self,
        config: NetworkConfig,
        label_set: LabelSet,
        grid: Float[np.ndarray, " p"] | int,
        *,
        rngs: nnx.Rngs,
        forward: SpectrumModel | None = None,
    ):
        self.config = config
        self.label_set = label_set
        self.encoder = make_encoder(config.encoder, grid, rngs=rngs)
        self.flow = make_flow(
            config.flow, n_dim=len(label_set), n_context=config.encoder.n_context, rngs=rngs
        )
        n_context, n_point = config.encoder.n_context, 2 * len(label_set)
        self.point_head = (
            nnx.Linear(n_context, n_point, kernel_init=nnx.initializers.zeros, rngs=rngs)
            if config.point_weight > 0.0
            else None
        )
        if config.linear_fit is None:
            self.linear_fit = None
        elif forward is None:
            raise InputError(
                "PosteriorNetwork: linear_fit", "no forward model", "the one to fit with", "pass forward="
            )
        else:
            self.linear_fit = LinearFit(config.linear_fit, label_set, forward, n_context, rngs=rngs)

    def set_statistics(
        self, labels: Float[Array, "m l"], flux: Float[Array, "n p"], ivar: Float[Array, "n p"]
    ) -> None:
        """Fix the standardisation of labels and pixels from examples of the training set; call once, before
        training."""
        z = self.label_set.to_unconstrained(labels)
        if self.linear_fit is None:
            self.flow.set_standardisation(jnp.mean(z, axis=0), jnp.std(z, axis=0))
        else:
            self.linear_fit.set_standardisation(jnp.mean(z, axis=0), jnp.std(z, axis=0))
        self.encoder.set_input_statistics(*input_statistics(flux, ivar))

    def context(
        self, flux: Float[Array, "b p"], ivar: Float[Array, "b p"], key: PRNGKeyArray | None = None
    ) -> Float[Array, "b k"]:
        """What the encoder, and the linear fit if there is one, make of a spectrum; with a `key`, with
        dropout."""
        if self.linear_fit is not None:
            return self.linear_fit(self.fitted(flux, ivar, key))
        return self.encoder(flux, floored_ivar(ivar, self.config.error_floor), key)

    def fitted(
        self, flux: Float[Array, "b p"], ivar: Float[Array, "b p"], key: PRNGKeyArray | None = None
    ) -> Fitted:
        """The linear fits of a network that has them; with a `key`, with dropout."""
        assert self.linear_fit is not None
        ivar = floored_ivar(ivar, self.config.error_floor)
        return self.linear_fit.fitted(self.encoder(flux, ivar, key), flux, ivar)

    def summary(self, context: Float[Array | np.ndarray, "*b k"]) -> Float[Any, "*b c"]:
        """The part of a context that layers see, without the linear fit's Gaussian."""
        return context[..., : self.config.encoder.n_context]

    def log_prob(
        self,
        labels: Float[Array, "*k b l"],
        flux: Float[Array, "b p"],
        ivar: Float[Array, "b p"],
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "*k b"]:
        """Log-density of labels; leading axes are several label vectors for each of the same `b` spectra.
        With a `key`, with dropout."""
        return self.log_prob_given(labels, self.context(flux, ivar, key))

    def log_prob_given(
        self, labels: Float[Array, "*k b l"], context: Float[Array, "b k"]
    ) -> Float[Array, "*k b"]:
        """As `log_prob`, from the context alone."""
        z = self.label_set.to_unconstrained(labels)
        y, log_det = self._whitened(z, context)
        return self.flow.log_prob(y, self.summary(context)) + log_det - self.label_set.log_det(z)

    def loss(
        self,
        key: PRNGKeyArray | None,
        labels: Float[Array, "b l"],
        flux: Float[Array, "b p"],
        ivar: Float[Array, "b p"],
    ) -> Float[Array, " b"]:
        """Loss of training on exact labels: -`log_prob`, or the regression of a flow that is trained
        by matching (plus the same constant, so that both are in the labels' units). Without a `key` there is
        no dropout."""
        return self.loss_given(key, labels, self.context(flux, ivar, _dropout_key(key)))

    def loss_given(
        self, key: PRNGKeyArray | None, labels: Float[Array, "b l"], context: Float[Array, "b k"]
    ) -> Float[Array, " b"]:
        """As `loss`, from the context alone."""
        z = self.label_set.to_unconstrained(labels)
        y, log_det = self._whitened(z, context)
        loss = self.flow.loss(key, y, self.summary(context)) - log_det + self.label_set.log_det(z)
        return loss if self.point_head is None else loss + self.point_loss(labels, 0.0, context)

    def log_share(
        self,
        key: PRNGKeyArray,
        context: Float[Array, "b k"],
        supports: Callable[[Float[Array, "n b l"]], Bool[Array, "n b"]],
        n: int,
        least: float,
    ) -> Float[Array, " b"]:
        """ln of the share of draws that a prior `supports`: what a density cut off there gains inside.

        The share is that of `n` draws, and `least` where it is smaller: no gradient then. Otherwise that of
        the share is unbiased (REINFORCE, Williams 1992, Machine Learning 8, 229, with the mean of the other
        draws as the baseline); it reaches the flow's weights only, not the Gaussian of a linear fit.
        """
        summary = self.summary(context)
        y, _ = self.flow.sample_and_log_prob(key, jax.lax.stop_gradient(summary), n)
        y = jax.lax.stop_gradient(y)
        z = y if self.linear_fit is None else self.linear_fit.whitening(context).inverse_and_log_det(y)[0]
        inside = supports(self.label_set.to_labels(z)).astype(y.dtype)
        share = jnp.mean(inside, axis=0)
        slope = jnp.sum((inside - share) * self.flow.log_prob(y, summary), axis=0) / (n - 1)
        slope = jnp.where(share > least, slope / jnp.maximum(share, least), 0.0)
        return jnp.log(jnp.maximum(share, least)) + slope - jax.lax.stop_gradient(slope)

    def guess_loss(
        self,
        key: PRNGKeyArray | None,
        labels: Float[Array, "b l"],
        nuisances: Nuisances,
        flux: Float[Array, "b p"],
        ivar: Float[Array, "b p"],
    ) -> Float[Array, " b"]:
        """How far the guess that a linear fit starts from is from the true labels and nuisances (each
        `[b]`): see `LinearFit.guess_loss`. Without a `key` there is no dropout."""
        assert self.linear_fit is not None
        ivar = floored_ivar(ivar, self.config.error_floor)
        return self.linear_fit.guess_loss(self.encoder(flux, ivar, _dropout_key(key)), labels, nuisances)

    def _whitened(self, z, context):
        """The flow's own coordinates, and the log-determinant on the way there."""
        if self.linear_fit is None:
            return z, 0.0
        return self.linear_fit.whitening(context).forward_and_log_det(z)

    def point_loss(
        self,
        labels: Float[Array, "*k b l"],
        errors: Float[Array, "b l"] | float,
        context: Float[Array, "b k"],
    ) -> Float[Array, "*k b"]:
        """`point_weight` times -ln of independent Gaussians about the head's estimates, for labels with
        Gaussian errors (Kendall & Gal 2017, arXiv:1703.04977, equation 5)."""
        mean, sigma = self.point_estimate(context)
        variance = sigma**2 + errors**2
        each = 0.5 * (labels - mean) ** 2 / variance + 0.5 * jnp.log(2.0 * jnp.pi * variance)
        return self.config.point_weight * jnp.sum(each, axis=-1)

    def point_estimate(self, context: Float[Array, "b k"]) -> tuple[Float[Array, "b l"], Float[Array, "b l"]]:
        """The head's estimate of each label and its standard deviation; for networks with a `point_weight`
        only. Estimates are Gaussian in the labels themselves and know nothing of their ranges."""
        assert self.point_head is not None
        fixed = self.flow if self.linear_fit is None else self.linear_fit
        location, scale = fixed.location[...], fixed.scale[...]
        low, middle, high = (self.label_set.to_labels(location + sign * scale) for sign in (-1.0, 0.0, 1.0))
        mean, log_sigma = jnp.split(self.point_head(self.summary(context)), 2, axis=-1)
        return middle + 0.5 * (high - low) * mean, 0.5 * (high - low) * jnp.exp(log_sigma)

    def sample(
        self, key: PRNGKeyArray, flux: Float[Array, "b p"], ivar: Float[Array, "b p"], n: int
    ) -> tuple[Float[Array, "n b l"], Float[Array, "n b"]]:
        """`n` draws of the labels for every spectrum, and their log-densities."""
        return self.sample_given(key, self.context(flux, ivar), n)

    def sample_given(
        self, key: PRNGKeyArray, context: Float[Array, "b k"], n: int
    ) -> tuple[Float[Array, "n b l"], Float[Array, "n b"]]:
        """As `sample`, from the context alone."""
        noise = jax.random.normal(key, (n, context.shape[0], len(self.label_set)), context.dtype)
        return self.transform(noise, context)

    def transform(
        self, noise: Float[Array, "n b l"], context: Float[Array, "b k"]
    ) -> tuple[Float[Array, "n b l"], Float[Array, "n b"]]:
        """The draws that standard normal `noise` becomes, and their log-densities: sampling without the
        random numbers."""
        z, log_prob = self.flow.transform(noise, self.summary(context))
        if self.linear_fit is not None:
            z, log_det = self.linear_fit.whitening(context).inverse_and_log_det(z)
            log_prob = log_prob - log_det
        return self.label_set.to_labels(z), log_prob - self.label_set.log_det(z)


def _dropout_key(key):
    return None if key is None else jax.random.fold_in(key, 1)


def floored_ivar(ivar: Float[Array, "*n p"], floor: float) -> Float[Array, "*n p"]:
    """Inverse variance with `floor` added to the error in quadrature; masked pixels stay masked."""
    return ivar / (1.0 + ivar * floor**2)


def negative_log_likelihood(
    network: PosteriorNetwork, batch: Dataset, key: PRNGKeyArray | None = None
) -> Float[Array, ""]:
    """Mean of -ln q(labels | spectrum): how good the network is, whatever it was trained by. `key` is not
    used."""
    return -jnp.mean(network.log_prob(batch.labels, batch.flux, batch.ivar))


def training_loss(
    network: PosteriorNetwork, batch: Dataset, key: PRNGKeyArray | None = None
) -> Float[Array, ""]:
    """Mean of `PosteriorNetwork.loss`: the objective whose minimum is the posterior when labels are exact
    (simulations). For flows of layers it is `negative_log_likelihood`."""
    return jnp.mean(network.loss(key, batch.labels, batch.flux, batch.ivar))


def noisy_label_loss(
    network: PosteriorNetwork,
    batch: Dataset,
    key: PRNGKeyArray,
    n_draws: int = 16,
    method: str = "deconvolve",
) -> Float[Array, ""]:
    """Objective for catalogue labels y with Gaussian errors e, as in a survey of observed spectra.

    A catalogue label is already the true one plus an error, so a flow fitted to y as it stands learns the
    posterior convolved with e, and fitting it to labels jittered once more ("convolve", what published
    networks do) convolves twice. "deconvolve" maximises the likelihood of what was observed, ln of the
    integral over x of q(x | spectrum) N(y; x, e^2), by Monte Carlo over x ~ N(y, e^2) with a log-mean-exp: q
    is then the posterior of the true label, and stars with large errors weigh less by themselves. The
    estimate is a lower bound, tight for many draws (Burda et al. 2016, arXiv:1509.00519); with one draw it is
    "convolve".

    Args:
        batch: its errors are in the labels' units; an error of 0 means exact.
        n_draws: draws per star and step.
        method: "deconvolve" or "convolve".

    Returns: the mean loss over the batch.

    Raises: InputError for an unknown method, and for a flow that is trained by matching: its regression
        knows no errors of the labels, and its likelihood is too slow to train by; and for a network with a
        linear fit, whose guess only simulations teach.
    """
    if network.linear_fit is not None:
        raise InputError(
            "noisy_label_loss: network",
            "a network with a linear fit",
            "one without",
            "train it on simulations (data=simulated), or without model.fit_steps",
        )
    if isinstance(network.flow, MatchingFlow):
        raise InputError(
            "noisy_label_loss: network.flow",
            "a flow that is trained by matching",
            "one that is trained by its likelihood, since the labels have errors",
            "use spline, affine or autoregressive",
        )
    if method not in ("deconvolve", "convolve"):
        raise InputError("noisy_label_loss: method", repr(method), '"deconvolve" or "convolve"', "choose one")
    labels, flux, ivar = batch.labels, batch.flux, batch.ivar
    errors = jnp.zeros_like(labels) if batch.errors is None else batch.errors
    draws = labels + errors * jax.random.normal(key, (n_draws, *labels.shape), labels.dtype)
    # A draw beyond a hard bound has no density; the closest label has, and the bounds are wider than the
    # catalogue's range.
    width = np.asarray(network.label_set.high - network.label_set.low)
    low, high = (
        jnp.asarray(b, labels.dtype)
        for b in (network.label_set.low + 1e-3 * width, network.label_set.high - 1e-3 * width)
    )
    draws = jnp.clip(draws, low, high)
    log_prob = network.log_prob(draws, flux, ivar, _dropout_key(key))
    loss = -log_prob if method == "convolve" else jnp.log(float(n_draws)) - logsumexp(log_prob, axis=0)
    if network.point_head is None:
        return jnp.mean(loss)
    context = network.context(flux, ivar, _dropout_key(key))
    # Of Gaussians the integral is known: the errors add in quadrature.
    if method == "convolve":
        return jnp.mean(loss) + jnp.mean(network.point_loss(draws, 0.0, context))
    return jnp.mean(loss) + jnp.mean(network.point_loss(labels, errors, context))
