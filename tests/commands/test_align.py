"""The command from two files of arrays to a decision, and what it refuses."""

import json

import numpy as np
import pytest

from jaxspec.amortised.network import NetworkConfig
from jaxspec.commands import align
from jaxspec.commands.align_data import load_data
from jaxspec.errors import InputError
from jaxspec.flows import FlowConfig
from jaxspec.networks import EncoderConfig
from jaxspec.surveys.pairs import PairConfig

TINY = NetworkConfig(
    EncoderConfig(
        n_context=6, bin_pixels=1, projection_width=8, weight_bins=8, stem_channels=0, n_segments=2,
        head_width=8, head_blocks=1,
    ),
    FlowConfig(coupling="affine", n_layers=1, width=8, depth=1),
)  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two surveys of 400 stars; the second has a pattern on top, and its labels in a second file only."""
    folder, rng = tmp_path_factory.mktemp("surveys"), np.random.default_rng(0)
    pattern, odd = rng.normal(size=(2, 16)) * 0.05, rng.normal(size=16) * 0.05
    for name, shift in (("a", 0.0), ("b", 1.0)):
        z = rng.normal(size=(400, 2))
        flux = 1.0 + z @ pattern + shift * odd + 0.02 * rng.normal(size=(400, 16))
        arrays = {"flux": flux, "ivar": np.full(flux.shape, 2500.0)}
        np.savez(folder / f"{name}_unlabelled.npz", **arrays)
        labels = np.stack([5500.0 + 300.0 * z[:, 0], 3.0 + 0.5 * z[:, 1]], axis=1)
        np.savez(folder / f"{name}.npz", labels=labels, names=["teff", "logg"], **arrays)
    return folder


def settings(files, target, **more):
    return align.Settings(
        str(files / "a.npz"),
        str(files / target),
        **{"n_steps": 8, "batch": 32, "n_draws": 40, "model": TINY, **more},
    )


@pytest.fixture(scope="module")
def run(files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return align.run(settings(files, "b.npz", method="coral,none"), folder), folder


def test_metrics_hold_every_method_and_baseline(run):
    _, folder = run
    stored = json.loads((folder / "metrics.json").read_text())
    assert stored["methods"].keys() == {"none", "coral", "ceiling"}
    assert stored["baselines"].keys() == {
        "source_mean", "ridge_on_pixels", "none_standardised", "none_under_shift"
    }  # fmt: skip
    scores = stored["methods"]["coral"]["labels"]["teff"]
    assert {"bias", "scatter", "rmse", "coverage_68", "coverage_95", "gap_closed"} <= scores.keys()
    assert {"auc", "auc_weighted", "probe_r2"} <= stored["methods"]["coral"].keys()
    assert stored["gate"]["reason"] and stored["gate"]["method"] in ("none", "coral")
    assert (folder / "align.png").stat().st_size > 5000
    assert "ridge_on_pixels" in (folder / "align.md").read_text()
    # Eight steps teach a network nothing: a linear regression is far better, and its offset is the pattern's.
    ridge, mean = (stored["baselines"][k]["labels"]["logg"] for k in ("ridge_on_pixels", "source_mean"))
    assert ridge["scatter"] < 0.5 * mean["scatter"] and mean["rmse"] == pytest.approx(0.5, rel=0.2)


def test_a_second_run_goes_on_with_what_is_there(run, files):
    metrics, folder = run
    before = (folder / "trained" / "coral_seed0.npz").stat().st_mtime_ns
    again = align.run(settings(files, "b.npz", method="none,coral"), folder)
    assert (folder / "trained" / "coral_seed0.npz").stat().st_mtime_ns == before
    assert again["methods"]["coral"] == metrics["methods"]["coral"]
    with pytest.raises(InputError, match=r"n_steps.*8 of an earlier run"):
        align.run(settings(files, "b.npz", n_steps=9), folder)


def test_without_labels_of_the_target_only_the_gate_speaks(files, tmp_path):
    metrics = align.run(settings(files, "b_unlabelled.npz", method="none"), tmp_path)
    assert metrics["methods"].keys() == {"none"} and "baselines" not in metrics
    assert metrics["gate"]["method"] == "none" and not (tmp_path / "align.png").exists()


def test_no_adaptation_is_always_trained():
    assert align.Settings(method=" cdan, coral+weights").names == ("none", "cdan", "coral+weights")
    with pytest.raises(InputError, match="method"):
        align.Settings(method="wasserstein")


def test_surveys_that_are_none_are_named(files):
    with pytest.raises(InputError, match="one of"):
        load_data("simulated", "dust", PairConfig(), 0)
    with pytest.raises(InputError, match="no such file"):
        load_data("x.npz", "y.npz", PairConfig(), 0)
    with pytest.raises(InputError, match="labels"):
        load_data(str(files / "a_unlabelled.npz"), str(files / "b.npz"), PairConfig(), 0)
    with pytest.raises(InputError, match="source=simulated"):
        load_data("gaia", "apogee", PairConfig(), 0)


def test_splits_share_no_star(files):
    data = load_data(str(files / "a.npz"), str(files / "b.npz"), PairConfig(), 0)
    assert (data.source.n_stars, data.source_test.n_stars) == (320, 80)
    assert (data.target.n_stars, data.target_test.n_stars) == (240, 160)
    for a, b in ((data.source, data.source_test), (data.target, data.target_test)):
        assert not set(map(bytes, np.asarray(a.flux))) & set(map(bytes, np.asarray(b.flux)))
