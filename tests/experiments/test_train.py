"""Training from the command line: what it writes, that it learns, and that a kill changes nothing."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from experiments import train
from experiments.common import ROOT, settings
from jaxspec.amortised.storage import load_posterior
from jaxspec.commands.train import Settings, describe, make_network, start_from, starting_point
from jaxspec.errors import InputError
from jaxspec.training.metrics import read_metrics
from tests.experiments.conftest import configured
from tests.experiments.toys import TINY, TRAINING


def test_run_folder_holds_what_others_rely_on(trained):
    result, folder = trained
    for name in ("config.yaml", "provenance.json", "metrics.json", "metrics.jsonl", "loss.png"):
        assert (folder / name).stat().st_size > 0
    for plot in ("recovery", "coverage", "sbc"):
        assert (folder / f"{plot}_as_trained.png").stat().st_size > 10_000
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["seed"] == 1 and provenance["versions"]["jax"] != "not installed"
    metrics = json.loads((folder / "metrics.json").read_text())
    teff = metrics["as_trained"]["all"]["labels"]["teff"]
    assert {"bias", "scatter", "coverage_68", "calibration_error", "sbc_p"} <= set(teff)
    assert metrics["as_trained"]["checks"]["sharpness"]["with_prior"]["teff"] > 0.5
    assert load_posterior(folder / "posterior").provenance["name"] == result.metrics["name"]


def test_training_beats_the_prior(trained):
    result, _ = trained
    losses = [row["validation"] for row in result.metrics["history"] if "validation" in row]
    # Before training the flow is a normal of the prior's moments; a hundred steps tell more than that.
    assert losses[-1] < losses[0]
    prior = np.asarray(result.posterior.prior.sample(jax.random.key(0), 4000))
    iron = result.metrics["as_trained"]["all"]["labels"]["fe_h"]["scatter"]
    assert iron < 0.8 * 1.4826 * np.median(np.abs(prior[:, 2] - np.median(prior[:, 2])))


def losses(folder: Path) -> list[tuple]:
    keys = ("loss", "grad_norm", "learning_rate", "validation")
    return [
        (row["step"], key, row[key])
        for row in read_metrics(folder / "metrics.jsonl")
        for key in keys
        if key in row
    ]


def test_killed_run_resumes_to_the_same_numbers(trained, tmp_path):
    _, unbroken = trained
    command = [sys.executable, "-m", "experiments.train", *TRAINING, f"output={tmp_path / 'killed'}"]
    folder, log = tmp_path / "killed", tmp_path / "log.txt"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with log.open("w") as file:
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file, env=environment)
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and process.poll() is None:
            if any(path.name.isdigit() for path in (folder / "checkpoints").glob("*")):
                break
            time.sleep(0.02)
        killed_while_running = process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert killed_while_running, log.read_text()
    assert not (folder / "metrics.json").exists()
    train.run(configured("train", *TRAINING, f"output={folder}"), folder)
    assert losses(folder) == losses(unbroken)
    a, b = (np.load(f / "posterior" / "arrays.npz") for f in (folder, unbroken))
    assert all(np.array_equal(a[name], b[name]) for name in b.files)


@pytest.mark.slow
def test_training_can_start_from_stored_weights(trained, tmp_path):
    first, unbroken = trained
    short = [*TRAINING, "trainer.n_steps=40", f"start_from='{unbroken}'"]
    result = train.run(configured("train", *short, "+model.flow.min_bin=0.002"), tmp_path)
    rows = [[row["loss"] for row in r.metrics["history"] if "loss" in row] for r in (first, result)]
    # Ten steps in, where the first run was at its end and far from where it began; the steps count from 0.
    assert abs(rows[1][0] - rows[0][-1]) < 0.25 * (rows[0][0] - rows[0][-1])
    assert result.metrics["steps"] == 40
    np.testing.assert_array_equal(
        result.posterior.network.flow.location[...], first.posterior.network.flow.location[...]
    )
    weights = (unbroken / "posterior" / "arrays.npz").read_bytes()
    origin = {"path": str(unbroken), "sha256": hashlib.sha256(weights).hexdigest()}
    assert json.loads((tmp_path / "provenance.json").read_text())["start_from"] == origin
    assert load_posterior(tmp_path / "posterior").provenance["start_from"] == origin

    # Gone on with, the weights it began with are neither needed nor forgotten.
    again = [o for o in short if not o.startswith("start_from")] + ["start_from=nowhere"]
    resumed = train.run(configured("train", *again, "+model.flow.min_bin=0.002"), tmp_path)
    assert resumed.metrics["history"] == result.metrics["history"]
    assert resumed.posterior.provenance["start_from"] == origin


def test_a_network_with_a_fit_takes_the_encoder_of_one_without(trained, tmp_path):
    """It fits with what the simulations vary; nothing is trained here, as it is below."""
    first, unbroken = trained
    more = ["+model.fit_steps=0", "+data.nuisances.velocity_error=0.4", f"start_from='{unbroken}'"]
    wanted = settings(Settings, configured("train", *TRAINING, *more))
    assert describe(wanted).startswith("fitting residual encoder")
    network = make_network(wanted, first.task)
    assert network.config.linear_fit.steps == 0
    assert network.config.linear_fit.nuisances.velocity_error == 0.4
    stored, _ = starting_point(wanted, tmp_path)
    start_from(network, stored, first.task, "here")
    for of in ("mean", "scale"):
        np.testing.assert_array_equal(
            getattr(network.encoder, of)[...], getattr(first.posterior.network.encoder, of)[...]
        )


@pytest.mark.slow  # the stages are tested alone in amortised/test_fits, what starts them just above
def test_a_network_with_a_fit_starts_from_one_without(trained, tmp_path):
    """It takes the encoder, fits with what the simulations vary, and learns; what a kill between any two
    stages leaves behind leads to the same weights."""
    first, unbroken = trained
    short = [*TRAINING, "trainer.n_steps=60", "trainer.evaluate_every=10"]
    short += ["+model.fit_steps=0", "+data.nuisances.velocity_error=0.4"]
    short += ["fits.guess_steps=40", "fits.n_stars=512", f"start_from='{unbroken}'"]
    result = train.run(configured("train", *short), tmp_path)
    network = result.posterior.network
    assert network.config.linear_fit.steps == 0
    assert network.config.linear_fit.nuisances.velocity_error == 0.4
    np.testing.assert_array_equal(network.encoder.mean[...], first.posterior.network.encoder.mean[...])
    found = [row["validation"] for row in result.metrics["history"] if "validation" in row]
    assert found[-1] < found[0]
    assert describe(settings(Settings, configured("train", *short))).startswith("fitting residual encoder")

    with pytest.raises(InputError, match="guess_steps"):
        train.run(configured("train", *short, "fits.guess_steps=41"), tmp_path)
    for left in ("checkpoints", "metrics.jsonl", "posterior"):
        path = tmp_path / left
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    again = train.run(configured("train", *short), tmp_path)
    for a, b in zip(*(jax.tree.leaves(nnx.state(n.posterior.network)) for n in (result, again)), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("+model.flow.n_bins=5", r"array flow/layers/.*shape \(.*expected shape \("),
        ("+model.flow.n_layers=3", r"array flow/layers/.*no such array"),
        ("start_from=nowhere", "nowhere"),
    ],
)
def test_weights_of_another_network_are_refused(trained, tmp_path, override, named):
    _, folder = trained
    overrides = [*TRAINING, f"start_from='{folder}'", override]
    if override.endswith("n_layers=3"):
        overrides.remove("+model.flow.n_layers=2")
    with pytest.raises(InputError, match=named):
        train.run(configured("train", *overrides), tmp_path)


def test_folder_of_another_run_is_refused(trained):
    _, folder = trained
    with pytest.raises(InputError, match=r"trainer.batch"):
        train.run(configured("train", *TINY, "trainer.batch=64"), folder)
