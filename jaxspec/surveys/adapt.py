"""From surveys with and without labels to a network that reads all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float, PRNGKeyArray

from jaxspec.amortised.network import NetworkConfig, PosteriorNetwork
from jaxspec.datasets import Dataset
from jaxspec.errors import InputError
from jaxspec.labels import LabelSet
from jaxspec.networks.metadata import MetadataConfig
from jaxspec.surveys.alignment import AlignedNetwork, AlignmentBatch, AlignmentConfig, alignment_loss
from jaxspec.training import ArraySource, TrainConfig, fit

Augment = Callable[[np.random.Generator, Dataset], Dataset]


@dataclass(frozen=True, eq=False)
class Survey:
    """Stars of one survey, on the pixels of all.

    Attributes:
        name: for messages.
        data: labels are read where `labelled` is true, and the spectra always.
        labelled: whether the labels train the network.
        weight: of each star, its density of labels as wanted over that of the survey; None: all alike.
        metadata: facts beside the pixels, NaN where unknown.
        augment: changes a batch of stars each time it is drawn, from a random generator.
    """

    name: str
    data: Dataset
    labelled: bool
    weight: Float[np.ndarray, " n"] | None = None
    metadata: Float[np.ndarray, "n m"] | None = None
    augment: Augment | None = None


class AlignmentSource:
    """Batches of `size` stars of each survey: `source(step)`, which follows from the step alone."""

    def __init__(
        self,
        surveys: Sequence[Survey],
        label_set: LabelSet,
        config: AlignmentConfig,
        n_steps: int,
        size: int = 128,
        seed: int = 0,
    ):
        check_surveys(surveys, label_set)
        self.surveys, self.config, self.n_steps, self.seed = tuple(surveys), config, n_steps, seed
        labelled = np.concatenate([np.asarray(s.data.labels) for s in surveys if s.labelled])
        self.filler = labelled.mean(axis=0).astype(np.float32)
        self.rows = []
        for number, survey in enumerate(surveys):
            index = np.arange(survey.data.n_stars)
            self.rows.append(ArraySource(index, min(size, len(index)), seed=1000 * seed + number))

    def strength(self, step: int) -> float:
        """Of the alignment: 0 until `start`, then 2 / (1 + exp(-10 p)) - 1 of its whole (Ganin & Lempitsky
        2015, section 5), with p the share of the rest that is done."""
        p = (step / self.n_steps - self.config.start) / (1.0 - self.config.start)
        return self.config.strength * float(2.0 / (1.0 + np.exp(-10.0 * max(p, 0.0))) - 1.0)

    def __call__(self, step: int) -> AlignmentBatch:
        pieces = []
        for number, (survey, rows) in enumerate(zip(self.surveys, self.rows, strict=True)):
            which = rows(step)
            flux, ivar = (np.asarray(x[which], np.float32) for x in (survey.data.flux, survey.data.ivar))
            labels = np.asarray(survey.data.labels[which], np.float32)
            if survey.augment is not None:
                rng = np.random.default_rng([self.seed, step, number])
                changed = survey.augment(rng, Dataset(labels, flux, ivar))
                flux, ivar = np.asarray(changed.flux, np.float32), np.asarray(changed.ivar, np.float32)
            n = len(which)
            if not survey.labelled:
                labels = np.tile(self.filler, (n, 1))
            weight = np.ones(n) if survey.weight is None else survey.weight[which]
            meta = None if survey.metadata is None else survey.metadata[which].astype(np.float32)
            pieces.append(
                AlignmentBatch(
                    labels, flux, ivar, np.full(n, survey.labelled), np.full(n, number, np.int32),
                    weight.astype(np.float32), np.full(n, self.strength(step), np.float32), meta,
                )
            )  # fmt: skip
        return jax.tree.map(lambda *x: np.concatenate(x), *pieces)


def check_surveys(surveys: Sequence[Survey], label_set: LabelSet) -> None:
    """Raises InputError unless there are two surveys or more on one grid, one of them with labels."""
    if len(surveys) < 2 or not any(s.labelled for s in surveys):
        found = ", ".join(f"{s.name} ({'with' if s.labelled else 'without'} labels)" for s in surveys)
        raise InputError(
            "surveys", found or "none", "two or more, one with labels", "give a source and a target"
        )
    pixels = {s.name: s.data.flux.shape[1] for s in surveys}
    if len(set(pixels.values())) > 1:
        raise InputError("surveys", f"pixels {pixels}", "one grid", "rebin the spectra onto it")
    columns = {s.name: None if s.metadata is None else s.metadata.shape[1] for s in surveys}
    if len(set(columns.values())) > 1:
        raise InputError(
            "surveys", f"columns of metadata {columns}", "the same in all", "give all, NaN if unknown"
        )
    for survey in surveys:
        if survey.labelled:
            label_set.validate(survey.data.labels, f"labels of {survey.name}")


def align(
    surveys: Sequence[Survey],
    label_set: LabelSet,
    alignment: AlignmentConfig,
    network: NetworkConfig,
    trainer: TrainConfig,
    *,
    key: PRNGKeyArray,
    size: int = 128,
    seed: int = 0,
    metadata: MetadataConfig | None = None,
    directory: str | Path | None = None,
) -> AlignedNetwork:
    """Train a network on the labelled surveys, aligned with the others.

    Inputs are standardised by the labelled surveys, so that all methods see the same pixels.

    Args:
        size: stars of each survey in a batch.
        directory: of checkpoints: a run that was killed goes on there.

    Raises: InputError as `check_surveys` does.
    """
    source = AlignmentSource(surveys, label_set, alignment, trainer.n_steps, size, seed)
    wavelength = surveys[0].data.flux.shape[1]
    posterior = PosteriorNetwork(network, label_set, wavelength, rngs=nnx.Rngs(seed))
    batches = [source(step) for step in range(max(1, 4096 // (size * len(surveys))))]
    every = jax.tree.map(lambda *x: np.concatenate(x), *batches)
    known = every.labelled
    posterior.set_statistics(
        jnp.asarray(every.labels[known]), jnp.asarray(every.flux[known]), jnp.asarray(every.ivar[known])
    )
    model = AlignedNetwork(posterior, alignment, len(surveys), metadata, rngs=nnx.Rngs(seed + 1))
    if model.tokens is not None:
        if every.metadata is None:
            raise InputError("align: metadata", "surveys without any", f"{metadata}", "give Survey.metadata")
        model.tokens.set_standardisation(every.metadata)
    return fit(model, alignment_loss, trainer, key=key, source=source, directory=directory).model


def summaries(
    network: AlignedNetwork,
    data: Dataset,
    metadata: Float[np.ndarray, "n m"] | None = None,
    batch: int = 512,
) -> Float[np.ndarray, "n c"]:
    """The context of each star."""
    graph, state = nnx.split(network)
    return np.concatenate(
        [np.asarray(_context(graph, state, *part)) for part in _batches(data, metadata, batch)]
    )[: data.n_stars]


def posterior_draws(
    network: AlignedNetwork,
    data: Dataset,
    key: PRNGKeyArray,
    n: int = 200,
    metadata: Float[np.ndarray, "n m"] | None = None,
    batch: int = 512,
) -> Float[np.ndarray, "d n l"]:
    """`n` draws of the labels of each star."""
    graph, state = nnx.split(network)
    pieces = [
        np.asarray(_draws(graph, state, jax.random.fold_in(key, i), n, *part))
        for i, part in enumerate(_batches(data, metadata, batch))
    ]
    return np.concatenate(pieces, axis=1)[:, : data.n_stars]


def log_densities(
    network: AlignedNetwork,
    data: Dataset,
    metadata: Float[np.ndarray, "n m"] | None = None,
    batch: int = 512,
) -> Float[np.ndarray, " n"]:
    """ln of the posterior density at the labels of each star."""
    graph, state = nnx.split(network)
    labels = np.asarray(data.labels, np.float32)
    pieces = []
    for i, part in enumerate(_batches(data, metadata, batch)):
        rows = labels[i * batch : (i + 1) * batch]
        padded = np.concatenate([rows, np.tile(rows[:1], (len(part[0]) - len(rows), 1))])
        pieces.append(np.asarray(_log_density(graph, state, padded, *part)))
    return np.concatenate(pieces)[: data.n_stars]


def _batches(data, metadata, batch):
    """Flux, ivar and metadata of `batch` stars at a time; the last is filled up, so that one program serves
    all."""
    for start in range(0, data.n_stars, batch):
        flux = np.asarray(data.flux[start : start + batch], np.float32)
        ivar = np.asarray(data.ivar[start : start + batch], np.float32)
        short = ((0, batch - len(flux)), (0, 0))
        meta = None
        if metadata is not None:
            meta = np.pad(np.asarray(metadata[start : start + batch], np.float32), short)
        yield np.pad(flux, short, constant_values=1.0), np.pad(ivar, short), meta


@partial(jax.jit, static_argnums=0)
def _context(graph, state, flux, ivar, metadata):
    return nnx.merge(graph, state).context(flux, ivar, metadata)


@partial(jax.jit, static_argnums=(0, 3))
def _draws(graph, state, key, n, flux, ivar, metadata):
    network = nnx.merge(graph, state)
    return network.posterior.sample_given(key, network.context(flux, ivar, metadata), n)[0]


@partial(jax.jit, static_argnums=0)
def _log_density(graph, state, labels, flux, ivar, metadata):
    network = nnx.merge(graph, state)
    context = network.context(flux, ivar, metadata)
    posterior = network.posterior
    z = posterior.label_set.to_unconstrained(labels)
    return posterior.flow.log_prob(z, context) - posterior.label_set.log_det(z)
