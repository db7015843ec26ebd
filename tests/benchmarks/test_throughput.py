"""The benchmark measures what it says, at the size it says."""

import json

import numpy as np
import pytest

from benchmarks import throughput
from tests.toy import TOY_INSTRUMENT, ToyForwardModel


def test_spectra_have_17000_pixels():
    assert throughput.INSTRUMENT.n_pixels == 17_000


@pytest.mark.slow
def test_report_has_a_rate_for_every_operation(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(throughput, "INSTRUMENT", TOY_INSTRUMENT)
    monkeypatch.setattr(throughput, "load_forward_model", ToyForwardModel)
    monkeypatch.setattr(throughput, "SIZES", {"small": ("small", "small")})
    output = tmp_path / "throughput.json"
    arguments = "--batch 8 --draws 20 --repeats 2 --sizes small --no-peer --train-seconds 0".split()
    report = throughput.main([*arguments, "--output", str(output)])
    rows = {row["operation"]: row for row in report["rows"]}
    assert set(rows) == {"simulate", "train step, small", "log_prob, small", "sample, small"}
    for row in rows.values():
        n = 8 * (20 if row["unit"] == "draws" else 1)
        assert row["per_second"] == pytest.approx(1e3 * n / row["milliseconds"])
        assert row["compile_seconds"] > 0 and row["gflop"] > 0
    # A training step holds a density and its gradient.
    assert rows["train step, small"]["gflop"] > 1.5 * rows["log_prob, small"]["gflop"]
    assert json.loads(output.read_text())["rows"] == report["rows"]
    assert "spectra" in capsys.readouterr().out


def test_ratios_are_to_the_faster_peer():
    rows = [
        {"operation": name, "per_second": rate}
        for name, rate in (
            ("sample, base", 100.0),
            ("sample, FrEIA a", 20.0),
            ("sample, FrEIA b", 50.0),
            ("simulate", 7.0),
        )
    ]
    throughput.with_ratios(rows)
    assert [row["over_freia"] for row in rows] == [2.0, 0.4, 1.0, None]


def test_peer_is_a_density_with_a_sampler():
    torch = pytest.importorskip("torch")
    pytest.importorskip("FrEIA")
    from benchmarks.peer import Peer

    torch.manual_seed(0)
    peer = Peer(n_label=2, strides=(16, 16, 4)).eval()
    flux = torch.ones(1, 6000) + 0.01 * torch.randn(1, 6000)
    with torch.no_grad():
        axis = torch.linspace(-9, 9, 121)
        grid = torch.cartesian_prod(axis, axis)
        condition = peer.condition(flux).expand(len(grid), -1)
        u, log_det = peer.flow(grid, c=[condition])
        log_density = -0.5 * (u**2).sum(-1) - np.log(2 * np.pi) + log_det
        density = torch.exp(log_density)
        draws = peer.sample(flux, 4000)
        one = peer.log_prob(grid[:5], flux.expand(5, -1))
    assert float(density.sum()) * 0.15**2 == pytest.approx(1.0, abs=0.02)
    np.testing.assert_allclose(one, log_density[:5], rtol=1e-3)
    mean = (grid * density[:, None]).sum(0) * 0.15**2
    np.testing.assert_allclose(draws.mean(0), mean, atol=5 * float(draws.std()) / 4000**0.5 + 0.02)
