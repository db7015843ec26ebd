"""A sweep over encoders and flows: its leaderboard, and what a second start does again."""

import csv
import dataclasses
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
import yaml
from omegaconf import OmegaConf

from experiments import leaderboard, train
from experiments.common import CONF, ROOT, settings
from jaxspec import commands
from jaxspec.commands.evaluate import negative_log_likelihood
from jaxspec.commands.train import Settings, network_config, read_settings
from jaxspec.diagnostics import calibration
from jaxspec.flows.config import COUPLINGS
from jaxspec.networks import config as networks
from tests.experiments.conftest import configured
from tests.experiments.toys import TINY

TOY = [o for o in TINY if not o.startswith(("trainer.n_steps", "trainer.evaluate_every"))] + [
    "trainer.n_steps=20",
    "trainer.evaluate_every=20",
    "trainer.checkpoint_every=10",
    "+model.encoder.token_width=8",
    "+model.encoder.token_blocks=1",
    "+model.flow.solver_steps=2",
    "flow=affine",
]
KINDS = ("residual", "transformer")


def overrides(folder: Path) -> list[str]:
    return [*TOY, f"encoder={','.join(KINDS)}", f"output={folder}"]


def run_jobs(folder: Path) -> None:
    """What Hydra does with `overrides`, within this process and with an evaluation that draws no plots."""

    def evaluate(posterior, task, config, _, **how):
        stars, key = task.validation, jax.random.key(0)
        draws = posterior.sample_normalised(key, stars.flux, stars.ivar, config.n_draws).draws
        values = calibration.summarise(stars.labels, draws, stars.measured_snr, posterior.label_set.names)
        return {"as_trained": {**values, "nll": negative_log_likelihood(posterior, stars)}}

    OmegaConf.save({"hydra": {"overrides": {"task": overrides(folder)}}}, folder / "multirun.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commands.train, "evaluate", evaluate)
        for i, kind in enumerate(KINDS):
            train.job(configured("train", *TOY, f"encoder={kind}", f"output={folder}"), folder / str(i))


def read(path: Path) -> dict:
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """The folder of a finished sweep of two jobs."""
    folder = tmp_path_factory.mktemp("sweep")
    run_jobs(folder)
    return folder


def test_leaderboard_is_sorted_and_complete(swept):
    rows = read(swept / "leaderboard.json")["rows"]
    assert {row["encoder"] for row in rows} == set(KINDS)
    assert [row["nll"] for row in rows] == sorted(row["nll"] for row in rows)
    for row in rows:
        metrics = read(swept / str(row["job"]) / "metrics.json")
        assert row["nll"] == metrics["as_trained"]["nll"] and row["encoder"] == KINDS[row["job"]]
        assert (row["flow"], row["steps"], row["status"], row["seed"]) == ("affine", 20, "finished", 1)
        # Twenty steps teach little: errors as stated are still nearly those of the prior.
        assert 0.3 < row["sharpness"] < 1.3 and 0 < row["calibration_error"] < 0.5
        assert row["parameters"] > 1000 and row["trained_per_second"] > 1 and row["inferred_per_second"] > 1
    with (swept / "leaderboard.csv").open() as file:
        assert [float(row["nll"]) for row in csv.DictReader(file)] == [row["nll"] for row in rows]


def test_second_start_does_only_what_is_missing(swept, caplog):
    """One job was killed in mid-training: it goes on to the same numbers, and the other is left alone."""
    before = read(swept / "1/metrics.json")
    stamp = (swept / "0/metrics.json").stat().st_mtime_ns
    # As a kill between steps 10 and 20 leaves it.
    (swept / "1/metrics.json").unlink()
    (swept / "1/checkpoints/20").rename(swept / "lost")
    status = {row["job"]: row["status"] for row in leaderboard.read_rows(swept)}
    assert status == {0: "finished", 1: "unfinished"}

    with caplog.at_level(logging.INFO):
        run_jobs(swept)
    assert [r.getMessage() for r in caplog.records].count("finished before: left alone") == 1
    assert "job 2 of 2: transformer encoder, affine flow, seed 1" in caplog.text
    assert (swept / "0/metrics.json").stat().st_mtime_ns == stamp
    assert (swept / "1/checkpoints/20").is_dir()
    after = read(swept / "1/metrics.json")
    assert after["leaderboard"]["nll"] == before["leaderboard"]["nll"]
    # The log up to the checkpoint is the first run's own, times included: nothing was done again.
    kept = [[row for row in m["history"] if row["step"] <= 10] for m in (before, after)]
    assert kept[0] == kept[1] != []


def test_the_command_line_finds_the_same_jobs(swept):
    """Started by Hydra, the same sweep leaves all of them alone and prints the table after each."""
    command = [sys.executable, "-m", "experiments.train", "--multirun", *overrides(swept)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("finished before: left alone") == 2
    assert done.stdout.count("leaderboard of") == 2 and "job 2 of 2: transformer encoder" in done.stdout


def test_another_configuration_is_not_finished(swept):
    wanted = read_settings(yaml.safe_load((swept / "0/config.yaml").read_text()))
    assert leaderboard.is_finished(wanted, swept / "0")
    assert not leaderboard.is_finished(wanted, swept / "1")
    evaluation = dataclasses.replace(wanted.evaluation, n_draws=30)
    for other in ({"seed": 2}, {"evaluation": evaluation}):
        assert not leaderboard.is_finished(dataclasses.replace(wanted, **other), swept / "0")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["encoder=a,b", "flow=c,d,e", "seed=range(1,4)", "+x=[1,2]"], 18),
        (["seed=1"], 1),
        (["seed=choice(1,2)", "output='a,b'"], 2),
    ],
)
def test_jobs_are_counted(tmp_path, overrides, expected):
    OmegaConf.save({"hydra": {"overrides": {"task": overrides}}}, tmp_path / "multirun.yaml")
    assert leaderboard.count_jobs(tmp_path) == expected


def test_unfinished_and_failed_jobs_come_last(tmp_path):
    for job, name, content in (
        ("0", leaderboard.FAILURE, {"status": "failed", "error": "loss nan"}),
        ("1", "metrics.json", {"leaderboard": {"nll": 3.0, "status": "finished"}}),
        ("2", "config.yaml", {}),
        ("10", "metrics.json", {"leaderboard": {"nll": -2.0, "status": "time up"}}),
    ):
        (tmp_path / job).mkdir()
        (tmp_path / job / name).write_text(json.dumps(content))
    rows = leaderboard.update(tmp_path)
    assert [row["job"] for row in rows] == [10, 1, 0, 2]
    assert [row["status"] for row in rows] == ["time up", "finished", "failed", "unfinished"]
    lines = leaderboard.format_rows(rows).splitlines()
    assert len(lines) == 5 and len({len(line) for line in lines}) == 1


def test_every_encoder_and_flow_is_known_by_name():
    for group, names in (("encoder", networks.KINDS), ("flow", COUPLINGS)):
        assert {path.stem for path in (CONF / group).glob("*.yaml")} == set(names)
        for name in names:
            config = network_config(
                settings(Settings, configured("train", "experiment=giraffe_robust", f"{group}={name}"))
            )
            assert (config.encoder.kind if group == "encoder" else config.flow.coupling) == name
            assert config.flow.min_bin == 0.25
