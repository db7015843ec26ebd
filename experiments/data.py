"""Training data: simulated on the fly (`data=simulated`) or an observed survey (`data=survey`), as one
`Task`."""

import logging
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float
from omegaconf import DictConfig, OmegaConf

from experiments.common import build, forward_model
from jaxspec.amortised.amortised import AmortisedPosterior, median_snr
from jaxspec.amortised.network import noisy_label_loss, training_loss
from jaxspec.catalogues import Catalogue, join, read_gaia_eso, read_label_table
from jaxspec.errors import InputError
from jaxspec.instruments import Instrument, get_instrument
from jaxspec.io import Assume, SpectraStore, read_spectra
from jaxspec.labels import NINE_LABELS, LabelSet
from jaxspec.runs import named_key
from jaxspec.simulation.nuisances import CONFIGS, NuisanceConfig
from jaxspec.simulation.preparation import prepare_many
from jaxspec.simulation.prior import StellarPrior
from jaxspec.simulation.residuals import ResidualModel
from jaxspec.simulation.simulator import Simulator
from jaxspec.training import ArraySource

log = logging.getLogger(__name__)
STORES = (".h5", ".hdf5")
Arrays = Array | np.ndarray


class Examples(NamedTuple):
    """Normalised spectra of stars with known labels; `errors` is 0 where labels are exact."""

    labels: Float[Arrays, "n l"]
    errors: Float[Arrays, "n l"]
    flux: Float[Arrays, "n p"]
    ivar: Float[Arrays, "n p"]

    @property
    def snr(self) -> np.ndarray:
        return median_snr(np.asarray(self.flux), np.asarray(self.ivar))


@dataclass(frozen=True)
class Task:
    """What `experiments.train` needs to know: the loss, the batches, and stars to standardise and to test
    with."""

    instrument: Instrument
    label_set: LabelSet
    prior: StellarPrior | None
    loss: Callable
    batches: dict[str, Callable]  # batch_fn or source of `jaxspec.training.fit`
    examples: Examples  # of the training distribution
    validation: Examples
    simulator: Simulator | None = None
    trained: Any = nnx.Param  # which weights, see `jaxspec.training.fit`
    tests: dict[str, Examples] = field(default_factory=dict)  # a survey's own
    facts: dict[str, Any] = field(default_factory=dict)


def load_task(cfg: DictConfig) -> Task:
    """The data of a configuration."""
    kinds = {"simulated": simulated, "survey": survey}
    if cfg.data.kind not in kinds:
        raise InputError(
            "data.kind", repr(cfg.data.kind), f"one of {sorted(kinds)}", "use data=simulated or data=survey"
        )
    return kinds[cfg.data.kind](cfg)


# --- simulated


def make_simulator(cfg: DictConfig, nuisances: Any = None, prior: Any = None) -> Simulator:
    """The simulator of a configuration; with another prior where given; with other nuisances where given, and
    then without the errors that were learned from real spectra."""
    forward = forward_model(cfg.forward, cfg.instrument)
    learned = cfg.data.get("residuals") if nuisances is None else None
    return Simulator(
        forward,
        build(StellarPrior, cfg.data.prior if prior is None else prior),
        build(NuisanceConfig, cfg.data.nuisances if nuisances is None else nuisances, CONFIGS),
        residuals=None if learned is None else ResidualModel.load(learned, forward.instrument),
    )


def trained_simulator(posterior: AmortisedPosterior, where: Path) -> tuple[dict[str, Any], Simulator]:
    """What stored weights were trained with: the configuration, and the simulator that it describes.

    Raises: InputError when they do not say so, or were trained on a survey.
    """
    stored = posterior.provenance.get("config")
    if stored is None or posterior.prior is None:
        raise InputError(
            str(where), "no simulations that it was trained on", "weights of experiments.train", "train them"
        )
    return stored, make_simulator(OmegaConf.create(stored))


def simulated(cfg: DictConfig) -> Task:
    """Spectra simulated inside the training step. Their labels are exact, so the loss is the flow's own."""
    simulator, size = make_simulator(cfg), cfg.trainer.batch
    return Task(
        instrument=simulator.instrument,
        label_set=simulator.forward.label_set,
        prior=simulator.prior,
        loss=training_loss,
        batches={"batch_fn": lambda key, step: simulator.simulate(key, size)},
        examples=simulate(simulator, named_key(cfg.seed, "examples"), cfg.data.n_examples),
        validation=simulate(simulator, named_key(cfg.seed, "validation"), cfg.data.n_validation),
        simulator=simulator,
    )


def simulate(simulator: Simulator, key, n: int) -> Examples:
    """`n` simulated stars on the host, a batch at a time."""
    return simulate_fully(simulator, key, n)[0]


def simulate_fully(
    simulator: Simulator, key, n: int, snr: float | Sequence[float] | None = None, batch: int = 64
):
    """As `simulate`, with the nuisances behind the spectra: `(Examples, Nuisances)`. At one S/N per pixel, or
    evenly over the range of two; without either as the simulator has it."""
    pieces = []
    for i in range(-(-n // batch)):
        key_labels, key_rest, key_snr = jax.random.split(jax.random.fold_in(key, i), 3)
        labels = simulator.prior.sample(key_labels, batch)
        wanted = None
        if snr is not None:
            low, high = np.broadcast_to(np.asarray(snr, np.float32), 2)
            wanted = jax.random.uniform(key_snr, (batch,), minval=low, maxval=high)
        pieces.append(jax.tree.map(np.asarray, simulator.observe(key_rest, labels, wanted)))
    all_ = jax.tree.map(lambda *x: np.concatenate(x)[:n], *pieces)
    return Examples(all_.labels, np.zeros_like(all_.labels), all_.flux, all_.ivar), all_.nuisances


# --- survey


def survey(cfg: DictConfig) -> Task:
    """Observed spectra and catalogue labels with errors, joined by name.

    Stars brighter than `snr_min` with all labels are split into training and test by a hash of their names,
    so that the split survives new stars; fainter ones are the test "noisy". Nothing is dropped without being
    counted.
    """
    data, instrument, label_set = cfg.data, get_instrument(cfg.instrument), NINE_LABELS
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
    facts = {
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
    if facts["train"] < cfg.trainer.batch:
        raise InputError(
            f"{data.spectra} with {data.catalogue}",
            f"{facts['train']} stars to train on (of {len(names)} spectra: {facts})",
            f"at least one batch of {cfg.trainer.batch}",
            "check names and flags, lower data.snr_min, or use trainer.batch= of a smaller size",
        )

    def examples(part: np.ndarray, limit: int | None = None) -> Examples:
        chosen = np.flatnonzero(part)[:limit]
        return Examples(
            labels[chosen].astype(np.float32), errors[chosen].astype(np.float32), *rows(spectrum[chosen])
        )

    train = np.flatnonzero(parts["train"])
    source = ArraySource({"i": train}, cfg.trainer.batch, seed=cfg.seed)

    def batch(step: int) -> Examples:
        i = source(step)["i"]
        return Examples(labels[i].astype(np.float32), errors[i].astype(np.float32), *rows(spectrum[i]))

    def loss(network, batch: Examples, key):
        return noisy_label_loss(network, *batch, key, n_draws=data.loss.n_draws, method=data.loss.method)

    tests = {name: examples(parts[name]) for name in ("test", "noisy")}
    return Task(
        instrument=instrument,
        label_set=label_set,
        prior=None,
        loss=loss,
        batches={"source": batch},
        examples=examples(parts["train"], data.n_examples),
        validation=examples(parts["test"] if facts["test"] else parts["train"], data.n_validation),
        tests={name: value for name, value in tests.items() if len(value.labels)},
        facts=facts,
    )


def _catalogue(data: DictConfig, label_set: LabelSet) -> Catalogue:
    if data.format == "gaia_eso":
        return read_gaia_eso(data.catalogue, label_set, solar=data.solar)
    if data.format == "table":
        return read_label_table(data.catalogue, label_set)
    raise InputError("data.format", repr(data.format), "gaia_eso or table", "correct it")


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


def open_store(path: str | Path, instrument: Instrument) -> SpectraStore:
    """A store whose spectra are on the instrument's pixels."""
    store = SpectraStore.open(path)
    grid = store.wavelength
    if grid.shape != instrument.wavelength.shape or not np.allclose(
        grid, instrument.wavelength, rtol=0, atol=1e-3
    ):
        raise InputError(
            str(path),
            f"{grid.size} pixels from {grid[0]:.2f} A",
            f"the {instrument.n_pixels} pixels of {instrument.name}",
            "make the store for this instrument",
        )
    return store


def _snr(rows: Callable, index: np.ndarray, batch: int = 64) -> np.ndarray:
    pieces = [median_snr(*rows(index[i : i + batch])) for i in range(0, len(index), batch)]
    return np.concatenate(pieces) if pieces else np.zeros(0)


def _share(name: str) -> float:
    """A number in [0, 1) that belongs to a name."""
    return zlib.crc32(name.encode()) / 2**32
