"""Stored weights are evaluated on the stars that training held out, and on refined draws on demand."""

import dataclasses
import hashlib
import json

import pytest
from flax import nnx

from experiments import evaluate
from jaxspec.amortised.network import PosteriorNetwork
from jaxspec.amortised.storage import copy_weights, load_posterior, save_posterior
from jaxspec.errors import InputError
from tests.experiments.conftest import configured

SETS = (
    "evaluation=quick",
    "evaluation.n_draws=100",
    "evaluation.n_bound=16",
    "evaluation.sets.as_trained.n=128",
)


def test_stored_weights_give_the_numbers_of_their_training(trained, tmp_path):
    result, folder = trained
    disc = "+evaluation.sets.disc={n: 64, prior: {fe_h_uniform: 0.02, fe_h_scatter: 0.15}, prior_known: true}"
    metrics = evaluate.run(configured("evaluate", *SETS, disc, f"checkpoint={folder}"), tmp_path)
    again, then = metrics["as_trained"], result.metrics["as_trained"]
    assert again["nll"] == pytest.approx(then["nll"], abs=1e-4)
    for name, values in again["all"]["labels"].items():
        assert values["scatter"] == pytest.approx(then["all"]["labels"][name]["scatter"], rel=1e-3)
    # A narrower prior leaves fewer draws, and less to be uncertain about.
    assert 0.05 < metrics["disc"]["prior_efficiency"] < 0.95
    assert metrics["disc"]["all"]["labels"]["fe_h"]["error"] < 0.9 * again["all"]["labels"]["fe_h"]["error"]
    assert json.loads((tmp_path / "metrics.json").read_text())["as_trained"]["all"]["n"] == 128
    assert (tmp_path / "recovery_as_trained.png").stat().st_size > 10_000
    checks = metrics["as_trained"]["checks"]
    assert {"ranks", "coverage", "tarp", "lc2st", "bins", "sharpness"} <= set(checks)
    # The page says what was evaluated: these very weights.
    page = (tmp_path / "report.html").read_text()
    weights = (folder / "posterior" / "arrays.npz").read_bytes()
    assert hashlib.sha256(weights).hexdigest() in page and checks["ranks"]["verdict"] in page


@pytest.mark.slow
def test_several_networks_are_evaluated_as_one(trained, tmp_path):
    """Here one twice: an ensemble of networks that agree is as good as each."""
    result, folder = trained
    both = configured("evaluate", *SETS, f"checkpoint=[{folder},{folder}/posterior]")
    metrics = evaluate.run(both, tmp_path)
    assert metrics["as_trained"]["nll"] == pytest.approx(result.metrics["as_trained"]["nll"], abs=1e-4)
    assert metrics["weights"] == [str(folder / "posterior")] * 2


@pytest.mark.slow
def test_parts_of_a_network_with_dropout_are_evaluated_as_one(trained, tmp_path):
    result, folder = trained
    alone = configured("evaluate", *SETS, f"checkpoint={folder}", "dropout=4")
    with pytest.raises(InputError, match="trained without"):
        evaluate.run(alone, tmp_path / "refused")
    stored = load_posterior(folder / "posterior")
    config = stored.network.config
    config = dataclasses.replace(config, encoder=dataclasses.replace(config.encoder, dropout=0.1))
    network = PosteriorNetwork(config, stored.label_set, stored.instrument.wavelength, rngs=nnx.Rngs(0))
    copy_weights(stored.network, network, "dropout")
    save_posterior(dataclasses.replace(stored, network=network), tmp_path / "posterior")
    parts = configured("evaluate", *SETS, f"checkpoint={tmp_path}", "dropout=4")
    nll = evaluate.run(parts, tmp_path / "out")["as_trained"]["nll"]
    assert 1e-4 < abs(nll - result.metrics["as_trained"]["nll"]) < 2.0
    for wrong in (1, -2):
        with pytest.raises(InputError, match="at least 2 parts"):
            evaluate.run(configured("evaluate", *SETS, f"dropout={wrong}"), tmp_path / "refused")


@pytest.mark.slow
def test_refined_draws_are_better_at_high_signal(trained, tmp_path):
    """A flow of a hundred steps is poor; the fit that starts from it is not."""
    _, folder = trained
    sets = (
        *SETS,
        "evaluation.sets.as_trained.n=24",
        "evaluation.n_bound=0",
        "++evaluation.sets.as_trained.snr=150",
        "++evaluation.sets.as_trained.nuisances={base: pure}",
    )
    scatter = {}
    for refine in (False, True, "exact"):
        cfg = configured("evaluate", *sets, f"checkpoint={folder}", f"refine={refine}")
        values = evaluate.run(cfg, tmp_path / str(refine))["as_trained"]
        scatter[refine] = values["all"]["labels"]["fe_h"]["scatter"]
    assert scatter[True] < 0.5 * scatter[False] and scatter["exact"] < 0.5 * scatter[False]
    assert 0.0 < values["efficiency"] < 1.0 and values["trusted"] > 0.5
    with pytest.raises(InputError, match="refine"):
        evaluate.run(configured("evaluate", *sets, f"checkpoint={folder}", "refine=more"), tmp_path)


def test_weights_that_do_not_say_what_they_are_for_are_refused(trained, tmp_path):
    _, folder = trained
    posterior = dataclasses.replace(load_posterior(folder / "posterior"), provenance={})
    save_posterior(posterior, tmp_path / "posterior")
    with pytest.raises(InputError, match="no configuration of its training"):
        evaluate.run(configured("evaluate", *SETS, f"checkpoint={tmp_path}"), tmp_path / "out")
