"""The trial of the agent on toy stars: its tables count what the stars say."""

import json

import numpy as np
import pytest

pytest.importorskip("pydantic")

from experiments import agent
from experiments.common import settings
from jaxspec.commands import agent_trial
from tests.agent.conftest import VaguePosterior
from tests.experiments.conftest import configured


def test_the_configuration_is_the_librarys():
    assert settings(agent_trial.Settings, configured("agent")) == agent_trial.Settings()


def test_a_small_trial(toy, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        agent_trial, "load_weights", lambda path: (VaguePosterior(toy.instrument, toy.label_set), tmp_path)
    )
    monkeypatch.setattr(agent_trial, "forward_model", lambda name, instrument: toy)
    cfg = configured(
        "agent", "n=1", "causes=[ordinary,emission]",
        "snr=[200,220]", "agent.refine=none", "agent.check=false", "agent.n_draws=100",
        f"output={tmp_path}",
    )  # fmt: skip
    metrics = agent.run(cfg, tmp_path)
    assert list(metrics) == ["infer", "rules", "everything"]
    found = metrics["rules"]
    assert found["n"] == 2 and found["confusion"]["emission"]["emission"] == 1
    assert metrics["rules"]["median_fits"] < metrics["everything"]["median_fits"]
    stored = json.loads((tmp_path / "agent_trial.json").read_text())
    assert len(stored["rows"]) == 6 and (tmp_path / "confusion.png").stat().st_size > 5_000
    assert "emission" in capsys.readouterr().out


def test_counting():
    def row(cause, said, pull, fits=3, flags=0):
        return {
            "cause": cause,
            "said": said,
            "pull": [pull, -pull],
            "n_fits": fits,
            "flags": flags,
            "fittable": True,
        }

    rows = [row("a", "a", 1.0), row("a", "b", 3.0), row("b", "b", 0.0, flags=8), row("b", "b", 0.0)]
    found = agent_trial.summary(rows)
    assert found["confusion"]["a"]["b"] == 1 and found["by_cause"]["b"]["precision"] == pytest.approx(2 / 3)
    # F1 of a: 2 * 0.5 * 1 / 1.5; of b: 2 * 1 * (2/3) / (5/3).
    assert found["macro_f1"] == pytest.approx(np.mean([2 / 3, 0.8]))
    assert found["by_cause"]["a"]["rms_pull"] == pytest.approx(np.sqrt(5.0))
    assert found["by_cause"]["b"]["flagged"] == 0.5 and found["accuracy"] == 0.75
