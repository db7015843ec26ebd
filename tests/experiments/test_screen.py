"""The command calibrates limits, stores them, and counts what is flagged."""

import dataclasses
import json
import shutil

import pytest

from experiments import screen
from jaxspec.amortised.storage import load_posterior, save_posterior
from jaxspec.artefacts import CONFIG
from jaxspec.commands import screen as commands
from jaxspec.errors import InputError
from tests.experiments.conftest import configured

TOY = ["forward=tests.experiments.toys.forward", "n=8", "n_draws=100", "refine=none"]


def test_limits_are_calibrated_stored_and_used(trained, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "run"
    shutil.copytree(trained[1], folder)
    assert load_posterior(folder / "posterior").limits is None
    weights = (folder / "posterior" / "arrays.npz").read_bytes()
    cfg = configured(
        "screen", *TOY, "calibrate=512", "false_alarms=0.02", f"checkpoint={folder}", f"output={tmp_path}"
    )
    found = screen.run(cfg, tmp_path)["shares"]
    stored = load_posterior(folder / "posterior")
    assert set(stored.limits.levels) == {"novelty", "chi2", "above", "structure", "wrong_errors"}
    assert (folder / "posterior" / "arrays.npz").read_bytes() == weights
    config = json.loads((folder / "posterior" / CONFIG).read_text())
    assert config["settings"]["limits"]["false_alarms"] == 0.02
    assert config["provenance"]["limits"]["simulations"] == 512
    # 40 ordinary stars, three or four flags of 2 % each; noise is flagged also by a flow of a hundred steps.
    assert len(found) == 11 and found[commands.ORDINARY]["flagged"] <= 0.3
    assert found["noise only"]["flagged"] == 1.0
    assert "double-lined binary" in capsys.readouterr().out
    assert (tmp_path / "screen.png").stat().st_size > 20_000
    assert json.loads((tmp_path / "screen.json").read_text())["shares"] == found
    # After a kill: what was stored is taken, what was not is done; what belongs to other settings is refused.
    (tmp_path / "screened" / "carbon star.npz").unlink()
    again = configured("screen", *TOY, f"checkpoint={folder}", f"output={tmp_path}")
    done = []
    monkeypatch.setattr(commands, "screen", lambda *a, f=commands.screen: done.append(a[3]) or f(*a))
    assert screen.run(again, tmp_path)["shares"] == found and done == ["carbon star"]
    other = configured("screen", *TOY, "snr=51", f"checkpoint={folder}", f"output={tmp_path}")
    with pytest.raises(InputError, match="an earlier run") as error:
        screen.run(other, tmp_path)
    assert error.value.where == f"{tmp_path / 'screened'}, snr"


def test_weights_without_a_reference_get_the_other_limits(trained, tmp_path, monkeypatch):
    posterior = dataclasses.replace(load_posterior(trained[1] / "posterior"), reference=None)
    save_posterior(posterior, tmp_path / "posterior")
    cfg = configured(
        "screen", *TOY, "calibrate=512", "false_alarms=0.02", f"checkpoint={tmp_path}", f"output={tmp_path}"
    )
    monkeypatch.setattr(commands, "FAULTS", ())
    screen.run(cfg, tmp_path)
    assert set(load_posterior(tmp_path / "posterior").limits.levels) == {
        "chi2", "above", "structure", "wrong_errors"
    }  # fmt: skip


@pytest.mark.parametrize("missing", ["configuration", "prior"])
def test_posteriors_of_surveys_are_refused(trained, tmp_path, missing):
    folder = tmp_path / "posterior"
    shutil.copytree(trained[1] / "posterior", folder)
    config = json.loads((folder / CONFIG).read_text())
    if missing == "prior":
        config["settings"]["prior"] = None
    else:
        del config["provenance"]["config"]
    (folder / CONFIG).write_text(json.dumps(config))
    with pytest.raises(InputError, match="simulations"):
        screen.run(configured("screen", *TOY, f"checkpoint={folder}", f"output={tmp_path}"), tmp_path)
