"""The toy survey for experiments: an instrument known by name and a function that makes its forward model."""

import jax
import numpy as np

from jaxspec.instruments import Instrument, register
from tests.toy import TOY_INSTRUMENT, ToyForwardModel

register(TOY_INSTRUMENT)


def forward(instrument: Instrument) -> ToyForwardModel:
    """What `forward=tests.experiments.toys.forward` calls."""
    return ToyForwardModel(instrument)


def observed(simulator, key, labels, snr):
    """Spectra of any number of stars by `simulator.observe`, 64 at a time as the commands do it: one program
    for all tests."""
    n, pieces = len(labels), []
    for i in range(-(-n // 64)):
        rows = np.arange(64 * i, 64 * (i + 1)) % n
        piece = simulator.observe(jax.random.fold_in(key, i), labels[rows], np.asarray(snr)[rows])
        pieces.append(jax.tree.map(np.asarray, piece))
    return jax.tree.map(lambda *x: np.concatenate(x)[:n], *pieces)


# A network that compiles in seconds and learns something in a hundred steps; without evaluation and report.
TRAINING = [
    "forward=tests.experiments.toys.forward",
    "instrument=toy",
    "model=small",
    "+model.encoder.n_context=16",
    "+model.encoder.projection_width=32",
    "+model.encoder.stem_channels=0",
    "+model.encoder.head_width=32",
    "+model.encoder.n_segments=4",
    "+model.flow.n_layers=2",
    "+model.flow.width=32",
    "trainer=demo",
    "trainer.batch=32",
    "trainer.n_steps=100",
    "trainer.max_seconds=null",
    "trainer.log_every=10",
    "trainer.evaluate_every=50",
    "trainer.checkpoint_every=20",
    "trainer.progress=false",
    "data.n_examples=256",
    "data.n_validation=64",
    "evaluation=none",
]
# The same, evaluated. Tests draw 100 times where they can: each other number is another program to compile.
TINY = [
    *(o for o in TRAINING if not o.startswith("evaluation")),
    "evaluation=quick",
    "evaluation.n_draws=100",
    "evaluation.n_bound=16",
    "evaluation.sets.as_trained.n=128",
]
