"""The loop: it learns, it measures, it stops when it must, and it says why."""

import dataclasses
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.stopping import Stopped
from jaxspec.training import NonFiniteLossError, OptimiserConfig, TrainConfig, fit, loop
from jaxspec.training.metrics import MetricsLog, read_metrics
from tests.training.problem import CONFIG, batch_fn, evaluate, host_source, loss_fn, make_net

SHORT = dataclasses.replace(CONFIG, n_steps=12, evaluate_every=0)


def test_learns_and_reports(tmp_path):
    optimiser = OptimiserConfig(learning_rate=2e-2, warmup_steps=20, ema_decay=0.98)
    config = TrainConfig(n_steps=600, optimiser=optimiser, log_every=100, evaluate_every=300, progress=False)
    net = make_net()
    before = np.asarray(net.hidden.kernel[...]).copy()
    result = fit(
        net, loss_fn, config, key=jax.random.key(0), batch_fn=batch_fn, directory=tmp_path, evaluate=evaluate
    )
    assert result.finished and int(result.state.step) == 600
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert rows == result.history
    assert rows[0]["compile_seconds"] > 0
    losses = {row["step"]: row["loss"] for row in rows if "loss" in row}
    assert sorted(losses) == [100, 200, 300, 400, 500, 600]
    assert losses[600] < 0.1 * losses[100]
    held_out = {row["step"]: row["held_out"] for row in rows if "held_out" in row}
    assert sorted(held_out) == [300, 600] and held_out[600] == pytest.approx(
        evaluate(result.model)["held_out"]
    )
    assert all(row["examples_per_second"] > 0 for row in rows if row.get("step", 0) > 100 and "loss" in row)
    assert rows[-2]["learning_rate"] == pytest.approx(0.01 * 2e-2, rel=0.02)
    # What was given stays as it was; what is not a parameter is not trained.
    np.testing.assert_array_equal(net.hidden.kernel[...], before)
    np.testing.assert_array_equal(result.model.scale[...], net.scale[...])


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_a_checkpoint_and_the_run_goes_on_from_it(tmp_path, caplog, signum):
    """Stopped long before the first checkpoint is due, and resumed to the numbers of an unbroken run."""
    unbroken = fit(make_net(), loss_fn, CONFIG, key=jax.random.key(0), source=host_source, evaluate=evaluate)

    def interrupted(step):
        if step == 6:
            os.kill(os.getpid(), signum)
        return host_source(step)

    given = dict(key=jax.random.key(0), directory=tmp_path, evaluate=evaluate)
    with pytest.raises(Stopped, match=r"stopped at step \d of 60; the same command goes on") as stop:
        fit(make_net(), loss_fn, CONFIG, source=interrupted, **given)
    assert stop.value.status == 128 + signum
    (step,) = [int(p.name) for p in (tmp_path / "checkpoints").iterdir()]
    assert 7 <= step < CONFIG.checkpoint_every
    with caplog.at_level("INFO"):
        resumed = fit(make_net(), loss_fn, CONFIG, source=host_source, **given)
    assert f"going on from step {step} of 60" in caplog.text
    for a, b in zip(jax.tree.leaves(unbroken.state), jax.tree.leaves(resumed.state), strict=True):
        if not jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            np.testing.assert_array_equal(a, b)
    seen = [[(r["step"], r["loss"]) for r in x.history if "loss" in r] for x in (unbroken, resumed)]
    assert seen[0] == seen[1]


def test_the_first_checkpoint_goes_by_time(tmp_path, monkeypatch):
    """A long interval between checkpoints leaves no run of a minute with nothing to go on from."""
    monkeypatch.setattr(loop, "FIRST_CHECKPOINT", 0.0)
    config = dataclasses.replace(SHORT, checkpoint_every=1000, keep_checkpoints=5)
    fit(make_net(), loss_fn, config, key=jax.random.key(0), source=host_source, directory=tmp_path)
    assert sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir()) == [1, 12]


def test_non_finite_loss_stops_and_saves_the_batch(tmp_path):
    def source(step):
        batch = host_source(step)
        if step == 7:
            batch["x"][3, 1] = np.nan
        return batch

    with pytest.raises(NonFiniteLossError, match=r"step 7.*x \(rows 3") as error:
        fit(make_net(), loss_fn, SHORT, key=jax.random.key(0), source=source, directory=tmp_path)
    assert error.value.step == 7 and error.value.path.parent == tmp_path
    with np.load(error.value.path) as saved:
        np.testing.assert_array_equal(saved["batch.x"], source(7)["x"])
        assert saved["step"] == 7 and not np.isfinite(saved["loss"])


def test_non_finite_loss_of_a_simulated_batch(tmp_path):
    """The batch was made inside the compiled step; it is made again, bit for bit, from the key and the
    step."""

    def bad(key, step):
        batch = batch_fn(key, step)
        return {**batch, "y": jnp.where(step == 5, jnp.inf, batch["y"])}

    config = dataclasses.replace(SHORT, checkpoint_every=4)
    with pytest.raises(NonFiniteLossError, match="step 5") as error:
        fit(make_net(), loss_fn, config, key=jax.random.key(0), batch_fn=bad, directory=tmp_path)
    with np.load(error.value.path) as saved:
        assert np.isinf(saved["batch.y"]).all()
    # The checkpoint before it is good, so the run can be looked at and gone on with.
    result = fit(make_net(), loss_fn, config, key=jax.random.key(0), batch_fn=batch_fn, directory=tmp_path)
    assert int(result.state.step) == 12 and np.isfinite(result.history[-1]["loss"])


def test_time_budget_anneals_and_stops():
    """However slow the machine, the last steps are small ones, and the run says that it was cut short."""
    config = dataclasses.replace(SHORT, n_steps=10**6, max_seconds=2.0, sync_every=1, checkpoint_every=10**6)
    result = fit(make_net(), loss_fn, config, key=jax.random.key(0), batch_fn=batch_fn)
    assert not result.finished and 1 <= result.state.step < 10**6
    assert result.history[-1]["step"] == int(result.state.step) and result.history[-1]["seconds"] >= 2.0
    assert result.history[-1]["learning_rate"] < 0.3 * config.optimiser.learning_rate


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    fit(make_net(), loss_fn, SHORT, key=jax.random.key(0), batch_fn=batch_fn, directory=tmp_path)
    longer = dataclasses.replace(SHORT, n_steps=20)
    with pytest.raises(InputError, match="another configuration"):
        fit(make_net(), loss_fn, longer, key=jax.random.key(0), batch_fn=batch_fn, directory=tmp_path)
    with pytest.raises(InputError, match="exactly one"):
        fit(make_net(), loss_fn, SHORT, key=jax.random.key(0))
    with pytest.raises(InputError, match="deadlock"):
        TrainConfig(n_steps=1, sync_every=17)


def test_log_survives_a_torn_line(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3):
        log.write({"step": step, "loss": 1 / step})
    with log.path.open("a") as file:
        file.write('{"step": 4, "lo')
    assert [row["step"] for row in read_metrics(log.path)] == [1, 2, 3]
    assert [row["step"] for row in MetricsLog(log.path, step=2).rows] == [1, 2]
    assert MetricsLog(log.path, step=0).rows == []
