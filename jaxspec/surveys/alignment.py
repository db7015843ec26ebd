"""Alignment of surveys whose spectra differ: losses that make a network's summary of a spectrum alike in all.

A network learns labels where they are good, and reads another survey's spectra without labels. The losses
here pull the two distributions of its summaries together; `training.fit` minimises them. It helps where the
*instruments* differ. Where the *stars* differ it does harm (Elsemueller et al. 2025, arXiv:2502.04949),
unless the stars are weighted (`jaxspec.surveys.label_shift`); `jaxspec.surveys.gate` decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jaxspec.amortised.network import PosteriorNetwork
from jaxspec.errors import InputError
from jaxspec.networks.metadata import MetadataConfig, MetadataTokens
from jaxspec.networks.reversal import reverse_gradient
from jaxspec.settings import PRESETS

METHODS = ("none", "dann", "cdan", "mmd", "coral")


@dataclass(frozen=True)
class AlignmentConfig:
    """One way to align surveys.

    Attributes:
        method: none; dann (a discriminator of the summaries is misled; Ganin & Lempitsky 2015); cdan (a
            discriminator of the summaries times what the network believes of the labels; Long et al. 2018,
            arXiv:1705.10667); mmd (mean discrepancy with several Gaussian kernels; Long et al. 2015,
            arXiv:1502.02791); coral (covariances agree; Sun & Saenko 2016, arXiv:1607.01719).
        strength: weight of the alignment at the end of its schedule.
        start: share of the training without alignment.
        width: hidden units of the discriminator.
        n_features: random features of the product in cdan.
        n_draws: posterior draws that stand for a star's labels in cdan.
        entropy: cdan trusts stars with narrow posteriors more.
    """

    method: str = "cdan"
    strength: float = 1.0
    start: float = 0.1
    width: int = 128
    n_features: int = 256
    n_draws: int = 4
    entropy: bool = True

    def __post_init__(self):
        if self.method not in METHODS:
            raise InputError("alignment.method", repr(self.method), f"one of {METHODS}", "choose one")
        if self.strength < 0.0 or not 0.0 <= self.start < 1.0:
            found = f"strength {self.strength}, start {self.start}"
            raise InputError(
                "alignment", found, "strength >= 0 and start in [0, 1)", "set strength=1 and start=0"
            )
        for name in ("width", "n_features", "n_draws"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"alignment.{name}", f"{getattr(self, name)}", "1 or more", "set it to 1 or more"
                )


ALIGNMENTS: dict[str, AlignmentConfig] = {
    "none": AlignmentConfig("none", strength=0.0),
    "dann": AlignmentConfig("dann"),
    "cdan": AlignmentConfig("cdan"),
    "mmd": AlignmentConfig("mmd", strength=10.0),
    "coral": AlignmentConfig("coral", strength=30.0),
}
PRESETS[AlignmentConfig] = ALIGNMENTS


class AlignmentBatch(NamedTuple):
    """Stars of all surveys, as a loss sees them.

    Attributes:
        labels: of stars without labels any that are within the bounds: they are not read.
        flux, ivar: normalised spectra, all on one grid.
        labelled: whether the labels are known.
        survey: number of the survey.
        weight: ratio of the wanted density of labels to that of the star's survey; 1 without label shift.
        strength: of the alignment at this step, the same for all.
        metadata: facts beside the pixels, NaN where unknown; None without.
    """

    labels: Float[Any, "b l"]
    flux: Float[Any, "b p"]
    ivar: Float[Any, "b p"]
    labelled: Bool[Any, " b"]
    survey: Int[Any, " b"]
    weight: Float[Any, " b"]
    strength: Float[Any, " b"]
    metadata: Float[Any, "b m"] | None = None


class Discriminator(nnx.Module):
    """Which survey a star is from, as logits, given its summary and (for cdan) its labels.

    The condition is continuous: a star's posterior is embedded as the mean of random Fourier features of its
    draws, which is its kernel mean (Rahimi & Recht 2007; Muandet et al. 2017, arXiv:1605.09522). Its product
    with the summary is taken in random projections of both (Long et al. 2018, equation 7). The summary itself
    stands beside it: a label that says nothing then leaves what is unconditional.
    """

    def __init__(
        self, config: AlignmentConfig, n_context: int, n_labels: int, n_surveys: int, rngs: nnx.Rngs
    ):
        self.config = config
        n_in = n_context
        if config.method == "cdan":
            n_in, normal = n_context + config.n_features, jax.random.normal
            k = iter(jax.random.split(rngs.params(), 4))
            n_fourier = config.n_features
            # Plain variables, not parameters: random and never trained.
            self.project = nnx.Variable(normal(next(k), (n_context, n_fourier)) / jnp.sqrt(n_context))
            self.frequency = nnx.Variable(normal(next(k), (n_labels, n_fourier)))
            self.phase = nnx.Variable(2.0 * jnp.pi * jax.random.uniform(next(k), (n_fourier,)))
            self.project_labels = nnx.Variable(
                normal(next(k), (n_fourier, n_fourier)) * jnp.sqrt(2.0 / n_fourier)
            )
        self.layers = nnx.List(
            [nnx.Linear(a, config.width, rngs=rngs) for a in (n_in, config.width)]
            + [nnx.Linear(config.width, n_surveys, rngs=rngs)]
        )

    def __call__(
        self, summary: Float[Array, "b c"], draws: Float[Array, "n b l"] | None = None
    ) -> Float[Array, "b s"]:
        """Logits. `draws` are standardised labels of each star."""
        x = summary
        if self.config.method == "cdan":
            assert draws is not None
            fourier = jnp.mean(jnp.cos(draws @ self.frequency[...] + self.phase[...]), axis=0)
            product = (summary @ self.project[...]) * (fourier @ self.project_labels[...])
            x = jnp.concatenate([summary, product], axis=-1)
        for layer in self.layers[:-1]:
            x = jax.nn.leaky_relu(layer(x), 0.1)
        return self.layers[-1](x)


class AlignedNetwork(nnx.Module):
    """A `PosteriorNetwork` with what alignment adds to it: a discriminator, and tokens of the metadata.

    Args:
        n_surveys: two or more.

    Raises: InputError for fewer surveys, or a network with a linear fit.
    """

    def __init__(
        self,
        posterior: PosteriorNetwork,
        config: AlignmentConfig,
        n_surveys: int = 2,
        metadata: MetadataConfig | None = None,
        *,
        rngs: nnx.Rngs,
    ):
        if n_surveys < 2 or posterior.linear_fit is not None:
            found = f"{n_surveys} surveys, linear fit: {posterior.linear_fit is not None}"
            raise InputError(
                "AlignedNetwork",
                found,
                "two surveys or more, no linear fit",
                "give two, and model.linear_fit=none",
            )
        self.posterior, self.config, self.n_surveys = posterior, config, n_surveys
        n_context = posterior.config.encoder.n_context
        self.tokens = None if metadata is None else MetadataTokens(metadata, n_context, rngs=rngs)
        self.discriminator = (
            Discriminator(config, n_context, len(posterior.label_set), n_surveys, rngs)
            if config.method in ("dann", "cdan")
            else None
        )

    def context(
        self,
        flux: Float[Array, "b p"],
        ivar: Float[Array, "b p"],
        metadata: Float[Array, "b m"] | None = None,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "b c"]:
        """The summary of each spectrum and its metadata; with a `key`, with dropout of both."""
        context = self.posterior.context(flux, ivar, key)
        if self.tokens is None:
            return context
        if metadata is None:
            metadata = jnp.full((flux.shape[0], len(self.tokens.config.columns)), jnp.nan)
        return context + self.tokens(metadata, None if key is None else jax.random.fold_in(key, 2))

    def distance(
        self, key: PRNGKeyArray, context: Float[Array, "b c"], batch: AlignmentBatch
    ) -> Float[Array, ""]:
        """The alignment's term of the loss, its gradient's sign included."""
        summary = standardised(context)
        strength = jnp.mean(batch.strength)
        sizes = jax.nn.one_hot(batch.survey, self.n_surveys)
        shares = sizes * batch.weight[:, None]
        if self.discriminator is None:
            measure = {"mmd": mmd, "coral": coral}[self.config.method]
            pairs = list(combinations(range(self.n_surveys), 2))
            each = [measure(summary, summary, shares[:, i], shares[:, j]) for i, j in pairs]
            return strength * sum(each[1:], each[0]) / len(pairs)
        draws, trust = None, jnp.ones(len(summary))
        if self.config.method == "cdan":
            flow = self.posterior.flow
            z, _ = flow.sample_and_log_prob(key, jax.lax.stop_gradient(context), self.config.n_draws)
            draws = jax.lax.stop_gradient((z - flow.location[...]) / flow.scale[...])
            if self.config.entropy:
                trust = entropy_weight(draws)
        logits = self.discriminator(reverse_gradient(summary, strength), draws)
        each_star = -jax.nn.log_softmax(logits)[jnp.arange(len(summary)), batch.survey]
        shares = shares * trust[:, None]
        # Every survey counts the same, however many stars it has in the batch.
        total = jnp.sum(shares * each_star[:, None], axis=0) / jnp.maximum(jnp.sum(shares, axis=0), 1e-9)
        return jnp.mean(total)


def alignment_loss(network: AlignedNetwork, batch: AlignmentBatch, key: PRNGKeyArray) -> Float[Array, ""]:
    """The loss of `PosteriorNetwork` over the stars with labels, weighted, and the alignment of all stars."""
    k_loss, k_drop, k_align = jax.random.split(key, 3)
    context = network.context(batch.flux, batch.ivar, batch.metadata, k_drop)
    weight = jnp.where(batch.labelled, batch.weight, 0.0)
    each = network.posterior.loss_given(k_loss, batch.labels, context)
    supervised = jnp.sum(jnp.where(batch.labelled, weight * each, 0.0)) / jnp.maximum(weight.sum(), 1e-9)
    if network.config.method == "none":
        return supervised
    return supervised + network.distance(k_align, context, batch)


def standardised(context: Float[Array, "b c"]) -> Float[Array, "b c"]:
    """Summaries with mean 0 and variance 1 over the batch: making all of them small wins no alignment."""
    centred = context - context.mean(axis=0)
    return centred / jnp.sqrt(jnp.mean(centred**2, axis=0) + 1e-6)


def entropy_weight(draws: Float[Array, "n b l"]) -> Float[Array, " b"]:
    """1 + exp(-entropy), as Long et al. (2018, section 3.2) weight stars, with the relative width of the
    posterior (geometric mean over the labels, 1 that of the training set) in place of exp(entropy) of
    classes; at most 6. One draw says nothing of a width: all weigh 1."""
    if draws.shape[0] < 2:
        return jnp.ones(draws.shape[1])
    log_width = 0.5 * jnp.mean(jnp.log(jnp.var(draws, axis=0, ddof=1) + 1e-4), axis=-1)
    return 1.0 + jnp.minimum(jnp.exp(-log_width), 5.0)


def mmd(
    a: Float[Array, "n c"],
    b: Float[Array, "m c"],
    weight_a: Float[Array, " n"],
    weight_b: Float[Array, " m"],
) -> Float[Array, ""]:
    """Squared maximum mean discrepancy of two weighted samples (Gretton et al. 2012, JMLR 13, 723, equation
    5), the mean over five Gaussian kernels whose variances are 1/4 to 4 times the mean squared distance."""
    p, q = (w / jnp.maximum(jnp.sum(w), 1e-9) for w in (weight_a, weight_b))
    aa, ab, bb = squared_distance(a, a), squared_distance(a, b), squared_distance(b, b)
    scale = jax.lax.stop_gradient(p @ ab @ q + p @ aa @ p + q @ bb @ q) / 3.0 + 1e-9
    total = jnp.zeros(())
    for factor in (0.25, 0.5, 1.0, 2.0, 4.0):
        k_aa, k_ab, k_bb = (jnp.exp(-d / (factor * scale)) for d in (aa, ab, bb))
        total += p @ k_aa @ p - 2.0 * p @ k_ab @ q + q @ k_bb @ q
    return total / 5.0


def squared_distance(a: Float[Array, "n c"], b: Float[Array, "m c"]) -> Float[Array, "n m"]:
    """Squared Euclidean distance of every two rows."""
    squares = jnp.sum(a**2, axis=1)[:, None] + jnp.sum(b**2, axis=1)[None] - 2.0 * a @ b.T
    return jnp.maximum(squares, 0.0)


def coral(
    a: Float[Array, "n c"],
    b: Float[Array, "m c"],
    weight_a: Float[Array, " n"],
    weight_b: Float[Array, " m"],
) -> Float[Array, ""]:
    """Squared Frobenius distance of the covariances of two weighted samples, over 4 c^2 (Sun & Saenko 2016,
    equation 1), plus that of the means over 4 c, which the paper leaves out: a shift of the mean is the
    simplest difference between two instruments."""
    (mean_a, cov_a), (mean_b, cov_b) = _moments(a, weight_a), _moments(b, weight_b)
    c = a.shape[1]
    return jnp.sum((cov_a - cov_b) ** 2) / (4.0 * c**2) + jnp.sum((mean_a - mean_b) ** 2) / (4.0 * c)


def _moments(x, weight):
    p = weight / jnp.maximum(jnp.sum(weight), 1e-9)
    mean = p @ x
    centred = x - mean
    return mean, (centred * p[:, None]).T @ centred
