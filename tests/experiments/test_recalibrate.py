"""The command recalibrates a trained flow, stores that with the weights, and inference uses it."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from experiments import recalibrate
from jaxspec.amortised.storage import load_posterior
from jaxspec.artefacts import CONFIG
from jaxspec.commands.tasks import trained_simulator
from tests.experiments.conftest import configured


@pytest.mark.parametrize(
    ("n", "n_draws", "worst", "gain"),
    [
        # Few stars know each level to some hundredths only: enough for a map that does nothing, or harm.
        (1000, 100, 0.09, 0.9),
        # A flow of a hundred steps is wrong by more than that; 2,000 stars know each level to 0.012.
        pytest.param(2000, 200, 0.03, 0.6, marks=pytest.mark.slow),
    ],
)
def test_recalibration_is_judged_stored_and_used(trained, tmp_path, capsys, n, n_draws, worst, gain):
    folder = tmp_path / "run"
    shutil.copytree(trained[1], folder)
    posterior = folder / "posterior"
    weights = (posterior / "arrays.npz").read_bytes()
    size = [f"n={n}", f"n_test={n // 2}", f"n_draws={n_draws}"]
    settings = [*size, f"checkpoint={folder}", f"output={tmp_path}"]
    found = recalibrate.run(configured("recalibrate", *settings), tmp_path)
    before, after = (
        np.array([x["calibration_error"] for x in found[name]["labels"].values()])
        for name in ("network", "recalibrated")
    )
    assert after.max() < worst and after.mean() < gain * before.mean()
    assert "calibration error" in capsys.readouterr().out
    assert (tmp_path / "report.html").stat().st_size > 50_000
    assert (posterior / "arrays.npz").read_bytes() == weights
    config = json.loads((posterior / CONFIG).read_text())
    assert config["provenance"]["recalibration"]["simulations"] == n
    # What is stored is what later draws go through, with the network's own beside them.
    stored = load_posterior(posterior)
    _, simulator = trained_simulator(stored, posterior)
    stars = simulator.simulate(jax.random.key(5), 64)
    result = stored.sample_normalised(jax.random.key(6), stars.flux, stars.ivar, 100)
    alone = dataclasses.replace(stored, recalibration=None)
    plain = alone.sample_normalised(jax.random.key(6), stars.flux, stars.ivar, 100)
    np.testing.assert_array_equal(result.raw, plain.draws)
    assert not np.allclose(result.draws, result.raw, rtol=0.02, atol=0.05)
    # And again: the network's own draws are recalibrated, not those that were recalibrated before.
    again = recalibrate.run(configured("recalibrate", *settings), tmp_path)
    assert again["network"] == found["network"]
