"""Errors of spectra, learned from the results of inference and used in training."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from experiments import infer, residuals
from experiments.common import settings
from jaxspec.commands import residuals as commands
from jaxspec.commands.evaluate import TestSet, bounds, other_simulator
from jaxspec.commands.tasks import make_simulator
from jaxspec.commands.train import Settings, data_inputs
from jaxspec.errors import InputError
from jaxspec.io import SpectraStore
from jaxspec.simulation.nuisances import PURE
from jaxspec.simulation.residuals import without_outliers
from jaxspec.simulation.simulator import simulate_many
from tests.experiments.conftest import configured
from tests.experiments.toys import TINY, observed
from tests.toy import TOY_INSTRUMENT


@pytest.fixture(scope="module")
def inferred(trained, tmp_path_factory):
    """Forty stars whose red arm has errors of 3 % that the model does not know."""
    folder = tmp_path_factory.mktemp("inferred")
    simulator = trained[0].task.simulator
    labels = simulator.prior.sample(jax.random.key(13), 40)
    stars = observed(simulator, jax.random.key(14), labels, np.full(40, 100.0, np.float32))
    flux, ivar = np.array(stars.flux), np.array(stars.ivar)
    red = TOY_INSTRUMENT.slices["red"]
    flux[:, red] += 0.03 * np.random.default_rng(5).normal(size=flux[:, red].shape)
    names = [f"s{i}" for i in range(40)]
    with SpectraStore.create(folder / "stars.h5", TOY_INSTRUMENT.wavelength, capacity=40, labels={}) as store:
        store.append(flux, ivar, np.zeros((40, 0)), names=names)
    options = ["forward=tests.experiments.toys.forward", "n_draws=100", "refine=false", "literature=null",
               "plots.corners=0", "plots.spectra=0", "+fit.chi2_max=5"]  # fmt: skip
    cfg = configured("infer", f"spectra={folder}/stars.h5", f"checkpoint={trained[1]}", *options)
    infer.run(cfg, folder / "results")
    return folder / "results"


def test_errors_are_learned_and_trained_with(inferred, tmp_path, capsys):
    cfg = configured("residuals", f"results={inferred}", "instrument=toy", f"output={tmp_path}")
    found = residuals.run(cfg, tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["spectra"] == 40 and 10 <= metrics["used"] < 40
    # A flow of a hundred steps leaves lines too: the sum is what the spectra have beyond their noise.
    residual, ivar, flags = commands.read(inferred / "posterior.nc", TOY_INSTRUMENT)
    fit = (flags & int(commands.UNFIT)) == 0
    assert np.sum(fit) == metrics["used"]
    residual, ivar = residual[fit], without_outliers(residual[fit], ivar[fit])
    for arm, (shared, own) in metrics["rms"].items():
        where = TOY_INSTRUMENT.slices[arm]
        r, w = residual[:, where], ivar[:, where]
        excess = np.mean(r[w > 0.0] ** 2 - 1.0 / w[w > 0.0])
        assert shared**2 + own**2 == pytest.approx(excess, rel=0.25)
    assert metrics["rms"]["red"][1] > 0.029
    assert "taken" in capsys.readouterr().out and (tmp_path / "residuals.png").stat().st_size > 10_000

    path = str(tmp_path / "residuals")
    train = settings(Settings, configured("train", *TINY, f"+data.residuals={path}"))
    assert data_inputs(train) == [path]
    where = train.instrument, train.forward
    simulator = make_simulator(train.data, *where)
    np.testing.assert_array_equal(simulator.residuals.scatter, found.scatter)
    # Nobody can know the labels of such stars as well as those of others.
    stars = simulate_many(simulator, jax.random.key(2), 4)
    plain = make_simulator(dataclasses.replace(train.data, residuals=None), *where)
    more, usual = (
        bounds(made, stars, 4, jax.random.key(3))["bound_with_prior"] for made in (simulator, plain)
    )
    assert np.all(more > usual)
    # Held-out simulations of an exact model stay exact.
    exact = TestSet(1, nuisances=PURE)
    assert make_simulator(train.data, *where, PURE).residuals is None
    assert other_simulator(simulator, exact).residuals is None
    assert other_simulator(simulator, TestSet(1)).residuals is not None


def test_results_without_spectra_are_refused(inferred, tmp_path):
    (tmp_path / "posterior.nc").write_bytes(b"nothing")
    for path, instrument, message in (
        (tmp_path, "toy", "no spectra with their models"),
        (tmp_path / "absent", "toy", "absent"),
        (inferred, "giraffe", "1100 pixels"),
    ):
        with pytest.raises(InputError, match=message):
            residuals.run(
                configured("residuals", f"results={path}", f"instrument={instrument}"), tmp_path / "out"
            )
