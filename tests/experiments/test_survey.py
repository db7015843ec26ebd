"""Training on observed spectra: a made-up survey, from files and catalogue to metrics."""

import json

import jax
import numpy as np
import pytest

from experiments import train
from experiments.common import settings
from jaxspec.catalogues import read_gaia_eso
from jaxspec.commands.tasks import load_task
from jaxspec.commands.train import Settings
from jaxspec.errors import InputError
from jaxspec.io import SpectraStore, read_spectra
from jaxspec.labels import NINE_LABELS
from tests.experiments.conftest import configured
from tests.experiments.toys import TINY, observed
from tests.survey import write_survey
from tests.toy import TOY_INSTRUMENT

N = 96


def task_of(*overrides):
    how = settings(Settings, configured("train", *overrides))
    return load_task(how.data, how.instrument, how.forward, how.trainer.batch, how.seed)


UNTRUSTED, INCOMPLETE = (3, 4), (5,)


@pytest.fixture(scope="module")
def survey(trained, tmp_path_factory):
    """96 stars in the survey's layouts, a third of them fainter than S/N 25; catalogue labels carry
    errors."""
    folder = tmp_path_factory.mktemp("survey")
    simulator = trained[0].task.simulator
    rng = np.random.default_rng(8)
    truth = np.asarray(simulator.prior.sample(jax.random.key(11), N), np.float64)
    snr = np.where(np.arange(N) % 3 == 0, 12.0, 80.0).astype(np.float32)
    stars = observed(simulator, jax.random.key(12), truth.astype(np.float32), snr)
    errors = np.where(np.arange(9) == 0, 60.0, 0.06) * rng.uniform(0.5, 1.5, (N, 9))
    labels = truth + errors * rng.normal(size=(N, 9))
    labels[INCOMPLETE, 4] = np.nan
    tech = ["10106-11-02-00-A" if i in UNTRUSTED else "NONE" for i in range(N)]
    written = write_survey(
        folder, TOY_INSTRUMENT, np.asarray(stars.flux), np.asarray(stars.ivar), labels, errors,
        velocity=rng.normal(0, 30, N), tech=tech,
    )  # fmt: skip
    return written, truth, labels, errors


def overrides(written, *more):
    return [
        *TINY,
        "data=survey",
        f"data.spectra='{written.folder / 'spectra'}'",
        f"data.catalogue='{written.catalogue}'",
        "data.n_examples=48",
        "trainer.batch=16",
        "trainer.n_steps=40",
        "~evaluation.sets.as_trained",
        *more,
    ]


def test_stars_are_split_counted_and_joined(survey):
    written, _, labels, errors = survey
    task = task_of(*overrides(written))
    facts = task.facts
    assert facts["spectra"] == N and facts["refused"] == [] and facts["not_in_catalogue"] == 0
    assert facts["not_trusted"] == len(UNTRUSTED) and facts["labels_missing"] == len(INCOMPLETE)
    assert facts["train"] + facts["test"] + facts["noisy"] == N - len(UNTRUSTED) - len(INCOMPLETE)
    assert 25 <= facts["noisy"] <= 33 and facts["test"] > 3
    assert task.tests["noisy"].measured_snr.max() <= 25 < task.tests["test"].measured_snr.min()
    # Every row that training may see carries its own star's labels and errors, on the scale [X/H].
    batch = task.batches["source"](0)
    for row, error in zip(batch.labels, batch.errors, strict=True):
        star = np.argmin(np.abs(labels[:, 0] - row[0]))
        np.testing.assert_allclose(row, labels[star], atol=2e-3)
        np.testing.assert_allclose(error, errors[star], rtol=1e-4)
    tested = {float(t) for part in task.tests.values() for t in part.labels[:, 0]}
    seen = {float(t) for step in range(9) for t in task.batches["source"](step).labels[:, 0]}
    assert not tested & seen


@pytest.mark.slow
def test_training_on_a_survey_ends_in_metrics_of_both_tests(survey, tmp_path):
    written, _, _, _ = survey
    result = train.run(configured("train", *overrides(written)), tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert (
        set(metrics["test"]["all"]["labels"]) == set(NINE_LABELS.names) and metrics["noisy"]["all"]["n"] > 20
    )
    assert metrics["history"][-1]["validation"] < metrics["history"][1]["loss"]
    assert result.posterior.prior is None
    assert (tmp_path / "recovery_noisy.png").exists()
    checksums = json.loads((tmp_path / "provenance.json").read_text())["checksums"]
    assert len(checksums[str(written.catalogue)]) == 64


def test_a_store_gives_the_same_task_as_the_files(survey, tmp_path):
    written, _, _, _ = survey
    catalogue = read_gaia_eso(written.catalogue)
    velocity = dict(zip(catalogue.names, catalogue.velocity, strict=True))
    spectra, _ = read_spectra(written.folder / "spectra", TOY_INSTRUMENT, velocity=velocity, combine=True)
    path = tmp_path / "spectra.h5"
    with SpectraStore.create(path, TOY_INSTRUMENT.wavelength, capacity=N, labels={}) as store:
        store.append(spectra.flux, spectra.ivar, np.zeros((N, 0)), names=list(spectra.names))
    a = task_of(*overrides(written))
    b = task_of(*overrides(written, f"data.spectra='{path}'"))
    assert a.facts == b.facts
    for x, y in zip(a.batches["source"](3)[:4], b.batches["source"](3)[:4], strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


def test_too_few_stars_are_an_error_with_the_counts(survey):
    written, _, _, _ = survey
    with pytest.raises(InputError, match="stars to train on"):
        task_of(*overrides(written, "trainer.batch=80"))
