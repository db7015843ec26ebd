"""Several networks of one kind as one posterior: what they do not agree on is the error that comes from the
training (epistemic), beside the error that the spectrum leaves (aleatoric).

Deep ensembles (Lakshminarayanan, Pritzel & Blundell 2017, arXiv:1612.01474): networks that were trained alike
from different random numbers, mixed in equal parts. Monte Carlo dropout (Gal & Ghahramani 2016,
arXiv:1506.02142): as many parts as wanted of one network that was trained with dropout.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, PRNGKeyArray

from jaxspec.amortised.amortised import AmortisedPosterior
from jaxspec.amortised.storage import load_weights
from jaxspec.errors import InputError
from jaxspec.instruments import Instrument
from jaxspec.labels import LabelSet
from jaxspec.posterior.flagging import LEAST_INSIDE
from jaxspec.posterior.limits import Limits
from jaxspec.posterior.results import Posterior
from jaxspec.runs import named_key
from jaxspec.simulation.prior import StellarPrior
from jaxspec.spectra import Spectra


def dropout_members(
    posterior: AmortisedPosterior, key: PRNGKeyArray, n: int
) -> tuple[AmortisedPosterior, ...]:
    """`n` parts of one network, each with other units left out of the head of its encoder: members of an
    `Ensemble`. A part is the same network for every spectrum.

    Raises: InputError for a network that was trained without dropout.
    """
    config = posterior.network.config.encoder
    if config.dropout == 0.0:
        raise InputError(
            "dropout",
            "a network that was trained without",
            "EncoderConfig.dropout above 0",
            "train with +model.encoder.dropout=0.1, or give several networks",
        )
    parts = []
    for i in range(n):
        network = nnx.clone(posterior.network)
        for j, block in enumerate(network.encoder.head):
            kernel = block.outer.kernel
            keep = network.encoder.keep(jax.random.fold_in(key, i), j, (kernel.shape[0], 1))
            kernel[...] = kernel[...] * keep
        parts.append(dataclasses.replace(posterior, network=network))
    return tuple(parts)


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Two or more networks for the same labels, instrument and prior; used as an `AmortisedPosterior` is.

    Limits and the S/N below which LOW_SNR is set are those of the first. Recalibrations of single members
    are not used: the mixture is wider than any of them.

    Raises: InputError for fewer than two members, and for members that do not belong together.
    """

    members: tuple[AmortisedPosterior, ...]

    def __post_init__(self):
        if len(self.members) < 2:
            raise InputError("ensemble", f"{len(self.members)} members", "two or more", "give more networks")
        for name in ("label_set", "instrument", "prior"):
            first = getattr(self.members[0], name)
            for i, member in enumerate(self.members[1:], start=2):
                if getattr(member, name) != first:
                    raise InputError(
                        f"ensemble, {name} of member {i}",
                        f"{getattr(member, name)}",
                        f"that of the first, {first}",
                        "mix networks that were trained alike",
                    )

    @property
    def label_set(self) -> LabelSet:
        """Names, units and bounds of the labels."""
        return self.members[0].label_set

    @property
    def instrument(self) -> Instrument:
        """Whose pixels the spectra must be on."""
        return self.members[0].instrument

    @property
    def prior(self) -> StellarPrior | None:
        """Density of the labels in training."""
        return self.members[0].prior

    @property
    def limits(self) -> Limits | None:
        """Limits that ordinary spectra do not exceed."""
        return self.members[0].limits

    @property
    def provenance(self):
        """That of the first member."""
        return self.members[0].provenance

    def prepare(self, spectra: Spectra) -> tuple[Float[np.ndarray, "s p"], Float[np.ndarray, "s p"]]:
        """As `AmortisedPosterior.prepare`."""
        return self.members[0].prepare(spectra)

    def flag(self, result: Posterior, ivar: Float[Array | np.ndarray, "n p"]) -> Posterior:
        """As `AmortisedPosterior.flag`."""
        return self.members[0].flag(result, ivar)

    def sample(self, key: PRNGKeyArray, spectra: Spectra, n: int = 1000, batch: int = 64) -> Posterior:
        """As `AmortisedPosterior.sample`, with what `sample_normalised` adds."""
        return self.sample_normalised(key, *self.prepare(spectra), n, batch, spectra.names)

    def sample_normalised(
        self,
        key: PRNGKeyArray,
        flux: Float[Array | np.ndarray, "s p"],
        ivar: Float[Array | np.ndarray, "s p"],
        n: int = 1000,
        batch: int = 64,
        names: tuple[str, ...] | None = None,
    ) -> Posterior:
        """`n` draws for each spectrum, as many of each member, and their log-density under the mixture.

        `stats` gains `NAME_aleatoric` and `NAME_epistemic` of each label: the root mean variance of the
        members' posteriors, and the standard deviation of their means, whose squares add up to the variance
        of the mixture. Members with `m` draws each disagree by chance by `aleatoric / sqrt(m)`. All
        other statistics are the members' means.
        """
        flux, ivar = np.asarray(flux, np.float32), np.asarray(ivar, np.float32)
        each = -(-n // len(self.members))
        found = [
            dataclasses.replace(member, recalibration=None).sample_normalised(
                jax.random.fold_in(key, i), flux, ivar, each, batch, names
            )
            for i, member in enumerate(self.members)
        ]
        # Draws of the members take turns, so that any part of them is of all.
        draws = np.stack([one.draws for one in found], axis=1).reshape(-1, *found[0].draws.shape[1:])[:n]
        # A member's density is that of its draws within the prior.
        inside = np.maximum([1.0 - one.stats["outside_prior"] for one in found], LEAST_INSIDE)
        log_prob = np.concatenate(
            [
                np.asarray(self._mixture(draws[:, rows], flux[rows], ivar[rows], np.log(inside[:, rows])))
                for rows in (slice(i, i + batch) for i in range(0, len(flux), batch))
            ],
            axis=1,
        )
        stats = {name: np.mean([one.stats[name] for one in found], axis=0) for name in found[0].stats}
        means = np.array([one.draws.mean(axis=0, dtype=float) for one in found])
        variances = np.array([one.draws.var(axis=0, dtype=float) for one in found])
        for j, name in enumerate(self.label_set.names):
            stats[f"{name}_aleatoric"] = np.sqrt(variances[:, :, j].mean(axis=0))
            stats[f"{name}_epistemic"] = means[:, :, j].std(axis=0)
        return self.flag(dataclasses.replace(found[0], draws=draws, log_prob=log_prob, stats=stats), ivar)

    def log_prob(
        self,
        labels: Float[Array | np.ndarray, "*k s l"],
        flux: Float[Array | np.ndarray, "s p"],
        ivar: Float[Array | np.ndarray, "s p"],
    ) -> Float[Array, "*k s"]:
        """Log-density of the mixture at given labels for normalised spectra."""
        return self._mixture(labels, flux, ivar, np.zeros((len(self.members), len(flux))))

    def _mixture(self, labels, flux, ivar, log_inside: Float[np.ndarray, "m s"]):
        each = [
            member.log_prob(labels, flux, ivar) - share
            for member, share in zip(self.members, log_inside, strict=True)
        ]
        return logsumexp(jnp.stack(each), axis=0) - jnp.log(len(each))


def load_ensemble(
    path: str | os.PathLike | Sequence[str | os.PathLike] | None = None, dropout: int = 0, seed: int = 0
) -> tuple[AmortisedPosterior | Ensemble, list[Path]]:
    """A posterior as `load_weights` reads it, or for a list of paths the ensemble of all; and the folders.

    Args:
        dropout: mix so many parts of every network (Monte Carlo dropout); 0 takes networks whole.
        seed: which parts.

    Raises: InputError when `dropout` is 1 or negative or a network was trained without, and as
        `load_weights`.
    """
    if dropout == 1 or dropout < 0:
        raise InputError("dropout", f"{dropout}", "0, or at least 2 parts of the network", "choose about 16")
    alone = path is None or isinstance(path, str | os.PathLike)
    paths = [path] if path is None or isinstance(path, str | os.PathLike) else path
    loaded = [load_weights(one) for one in paths]
    members, folders = [posterior for posterior, _ in loaded], [folder for _, folder in loaded]
    if dropout:
        key = named_key(seed, "dropout")
        members = [part for member in members for part in dropout_members(member, key, dropout)]
    return members[0] if alone and not dropout else Ensemble(tuple(members)), folders
