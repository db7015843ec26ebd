"""Training data, simulated on the fly or an observed survey, as one `Task`."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from jaxspec.amortised.amortised import AmortisedPosterior
from jaxspec.amortised.network import noisy_label_loss, training_loss
from jaxspec.catalogues import Catalogue, join, read_gaia_eso, read_label_table
from jaxspec.datasets import Dataset
from jaxspec.errors import InputError
from jaxspec.instruments import Instrument, get_instrument
from jaxspec.io import Assume, read_spectra
from jaxspec.labels import NINE_LABELS, LabelSet
from jaxspec.physics.forward import forward_model
from jaxspec.reading import STORES, open_store
from jaxspec.runs import named_key
from jaxspec.settings import build
from jaxspec.simulation.nuisances import PURE, NuisanceConfig
from jaxspec.simulation.preparation import prepare_many
from jaxspec.simulation.prior import StellarPrior
from jaxspec.simulation.residuals import ResidualModel
from jaxspec.simulation.simulator import Simulator, simulate_many
from jaxspec.spectra import median_snr
from jaxspec.training import ArraySource

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SimulatedData:
    """Stars from the prior, spectra from the forward model, noise and flaws drawn on the fly: no two batches
    are the same.

    Attributes:
        kind: simulated.
        prior: density of the labels.
        nuisances: distributions of everything else; `base` is pure or robust.
        residuals: file of errors that were learned from real spectra; none: without.
        n_examples: spectra that fix the standardisation and say what ordinary input looks like.
        n_validation: spectra of the validation loss.
    """

    kind: str = "simulated"
    prior: StellarPrior = field(default_factory=StellarPrior)
    nuisances: NuisanceConfig = PURE
    residuals: str | None = None
    n_examples: int = 2048
    n_validation: int = 512


@dataclass(frozen=True)
class NoisyLabels:
    """How labels with errors are learned from; see `noisy_label_loss`.

    Attributes:
        method: deconvolve or convolve.
        n_draws: draws of the true label for each star and step.
    """

    method: str = "deconvolve"
    n_draws: int = 16


@dataclass(frozen=True)
class SurveyData:
    """Observed spectra with a catalogue of labels and errors, joined by name.

    Attributes:
        kind: survey.
        spectra: a folder, a glob pattern or a store (.h5).
        catalogue: the survey's label table.
        format: gaia_eso (columns of the public release) or table (columns by label name, `e_<label>`).
        solar: scale on which the catalogue's log eps becomes [X/H].
        snr_min: brighter stars train and test; fainter ones are the noisy test.
        test_fraction: share of the brighter stars that is held out.
        only_trusted: leave out stars whose flags say that the labels failed.
        loss: how labels with errors are learned from.
        n_examples, n_validation: as of `SimulatedData`.
    """

    spectra: str
    catalogue: str
    kind: str = "survey"
    format: str = "gaia_eso"
    solar: str = "grevesse2007"
    snr_min: float = 25.0
    test_fraction: float = 0.2
    only_trusted: bool = True
    loss: NoisyLabels = NoisyLabels()
    n_examples: int = 2048
    n_validation: int = 512


@dataclass(frozen=True)
class Task:
    """The task of a training: the loss, the batches, and stars to standardise and to test with."""

    instrument: Instrument
    label_set: LabelSet
    prior: StellarPrior | None
    loss: Callable
    batches: dict[str, Any]  # batch_fn or source of `jaxspec.training.fit`
    examples: Dataset  # of the training distribution
    validation: Dataset
    simulator: Simulator | None = None
    trained: Any = nnx.Param  # which weights, see `jaxspec.training.fit`
    tests: dict[str, Dataset] = field(default_factory=dict)  # a survey's own
    facts: dict[str, Any] = field(default_factory=dict)


def load_task(data: SimulatedData | SurveyData, instrument: str, forward: str, batch: int, seed: int) -> Task:
    """The data of a training: `batch` stars a step, all random numbers from `seed`."""
    if isinstance(data, SimulatedData):
        return simulated(data, instrument, forward, batch, seed)
    return survey(data, instrument, batch, seed)


# --- simulated


def make_simulator(
    data: SimulatedData,
    instrument: str,
    forward: str,
    nuisances: NuisanceConfig | None = None,
    prior: StellarPrior | None = None,
) -> Simulator:
    """The simulator of a training; with another prior where given; with other nuisances where given, and then
    without the errors that were learned from real spectra."""
    model = forward_model(forward, instrument)
    learned = data.residuals if nuisances is None else None
    return Simulator(
        model,
        data.prior if prior is None else prior,
        data.nuisances if nuisances is None else nuisances,
        residuals=None if learned is None else ResidualModel.load(learned, model.instrument),
    )


def trained_simulator(posterior: AmortisedPosterior, where: Path) -> tuple[Mapping[str, Any], Simulator]:
    """The configuration that stored weights were trained with, and the simulator that it describes.

    Raises: InputError when they do not say so, or were trained on a survey.
    """
    stored = posterior.provenance.get("config")
    if stored is None or posterior.prior is None:
        raise InputError(
            str(where), "no simulations that it was trained on", "weights of experiments.train", "train them"
        )
    data = build(SimulatedData, stored["data"], "data.")
    return stored, make_simulator(data, stored["instrument"], stored["forward"])


def simulated(data: SimulatedData, instrument: str, forward: str, batch: int, seed: int) -> Task:
    """Spectra simulated inside the training step. Their labels are exact, so the loss is the flow's own."""
    simulator = make_simulator(data, instrument, forward)
    return Task(
        instrument=simulator.instrument,
        label_set=simulator.forward.label_set,
        prior=simulator.prior,
        loss=training_loss,
        batches={"batch_fn": lambda key, step: simulator.simulate(key, batch)},
        examples=simulate_many(simulator, named_key(seed, "examples"), data.n_examples),
        validation=simulate_many(simulator, named_key(seed, "validation"), data.n_validation),
        simulator=simulator,
    )


# --- survey


def survey(data: SurveyData, instrument: str | Instrument, batch: int, seed: int) -> Task:
    """Observed spectra and catalogue labels with errors, joined by name.

    Stars brighter than `snr_min` with all labels are split into training and test by a hash of their names,
    so that the split survives new stars; fainter ones are the test "noisy". Nothing is dropped without being
    counted.
    """
    instrument = get_instrument(instrument) if isinstance(instrument, str) else instrument
    label_set = NINE_LABELS
    catalogue = _catalogue(data, label_set)
    names, rows, refused = _spectra(data.spectra, instrument, catalogue)
    spectrum, entry = join(names, catalogue)
    matched = catalogue.rows(entry)
    inside = np.all((matched.labels > label_set.low) & (matched.labels < label_set.high), axis=1)
    usable = matched.complete & inside & (matched.trusted | (not data.only_trusted))
    spectrum, labels, errors = spectrum[usable], matched.labels[usable], matched.errors[usable]

    snr = _snr(rows, spectrum)
    bright = snr > data.snr_min
    held_out = np.array([_share(names[i]) < data.test_fraction for i in spectrum], bool)
    parts = {"train": bright & ~held_out, "test": bright & held_out, "noisy": ~bright & (snr > 0)}
    facts: dict[str, Any] = {
        "spectra": len(names),
        "refused": [str(error) for error in refused],
        "not_in_catalogue": len(names) - len(entry),
        "labels_missing": int((~matched.complete).sum()),
        "labels_out_of_bounds": int((matched.complete & ~inside).sum()),
        "not_trusted": int((matched.complete & inside & ~matched.trusted).sum()) if data.only_trusted else 0,
        "no_signal": int((~(snr > 0)).sum()),
        **{name: int(part.sum()) for name, part in parts.items()},
    }
    log.info("survey: %s", ", ".join(f"{k} {len(v) if isinstance(v, list) else v}" for k, v in facts.items()))
    if facts["train"] < batch:
        raise InputError(
            f"{data.spectra} with {data.catalogue}",
            f"{facts['train']} stars to train on (of {len(names)} spectra: {facts})",
            f"at least one batch of {batch}",
            "check names and flags, lower data.snr_min, or use trainer.batch= of a smaller size",
        )

    def stars(chosen: np.ndarray) -> Dataset:
        flux, ivar = rows(spectrum[chosen])
        return Dataset(labels[chosen].astype(np.float32), flux, ivar, errors[chosen].astype(np.float32))

    def examples(part: np.ndarray, limit: int | None = None) -> Dataset:
        return stars(np.flatnonzero(part)[:limit])

    train = np.flatnonzero(parts["train"])
    source = ArraySource({"i": train}, batch, seed=seed)

    def loss(network, stars: Dataset, key):
        return noisy_label_loss(network, stars, key, n_draws=data.loss.n_draws, method=data.loss.method)

    tests = {name: examples(parts[name]) for name in ("test", "noisy")}
    return Task(
        instrument=instrument,
        label_set=label_set,
        prior=None,
        loss=loss,
        batches={"source": lambda step: stars(source(step)["i"])},
        examples=examples(parts["train"], data.n_examples),
        validation=examples(parts["test"] if facts["test"] else parts["train"], data.n_validation),
        tests={name: value for name, value in tests.items() if len(value.labels)},
        facts=facts,
    )


def _catalogue(data: SurveyData, label_set: LabelSet) -> Catalogue:
    if data.format == "gaia_eso":
        return read_gaia_eso(data.catalogue, label_set, solar=data.solar)
    if data.format == "table":
        return read_label_table(data.catalogue, label_set)
    raise InputError("data.format", repr(data.format), "gaia_eso or table", "write data.format=table")


def _spectra(path: str, instrument: Instrument, catalogue: Catalogue):
    """Names of the spectra, a function of row numbers that returns their normalised flux and ivar, and what
    was refused. A folder is held in memory; a store is read row by row."""
    if Path(path).suffix in STORES:
        store = open_store(path, instrument)
        return store.names, lambda i: prepare_many(*store.read(i), instrument), []
    known = np.isfinite(catalogue.velocity)
    velocity = {name: v for name, v, k in zip(catalogue.names, catalogue.velocity, known, strict=True) if k}
    spectra, refused = read_spectra(
        path,
        instrument,
        velocity=velocity or None,
        combine=True,
        assume=Assume(medium="air", origin="data=survey"),
    )
    flux, ivar = prepare_many(spectra.flux, spectra.ivar, instrument)
    return list(spectra.names), lambda i: (flux[i], ivar[i]), refused


def _snr(rows: Callable, index: np.ndarray, batch: int = 64) -> np.ndarray:
    pieces = [median_snr(*rows(index[i : i + batch])) for i in range(0, len(index), batch)]
    return np.concatenate(pieces) if pieces else np.zeros(0)


def _share(name: str) -> float:
    """A number in [0, 1) that belongs to a name."""
    return zlib.crc32(name.encode()) / 2**32
