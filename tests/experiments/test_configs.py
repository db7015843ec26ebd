"""Every configuration composes, and means something to the library."""

import dataclasses
import importlib

import jax
import numpy as np
import pytest
from omegaconf import OmegaConf

from experiments.common import CONF, RUN, quote_paths, settings
from jaxspec.commands import demo, evaluate, infer, pretrain
from jaxspec.commands.tasks import SimulatedData, make_simulator
from jaxspec.commands.train import Settings, network_config
from jaxspec.errors import InputError
from jaxspec.fitting.check import FitConfig
from jaxspec.flows import FlowConfig
from jaxspec.settings import build
from jaxspec.simulation.nuisances import CONFIGS
from jaxspec.simulation.prior import StellarPrior
from jaxspec.simulation.simulator import simulate_many
from jaxspec.surveys.simulate import SimulationConfig
from jaxspec.surveys.spectral_sky import SpectralConfig
from tests.experiments.conftest import configured


def train_settings(*overrides: str) -> Settings:
    return settings(Settings, configured("train", *overrides))


EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_experiments_compose_into_valid_settings(experiment):
    here = ["data.spectra=x", "data.catalogue=y"] if experiment == "giraffe_survey" else []
    cfg = configured("train", f"experiment={experiment}", *here)
    how = settings(Settings, cfg)
    assert how.name == experiment
    assert how.trainer.config.n_steps == cfg.trainer.n_steps
    assert how.model.encoder.n_context > 0 and how.model.flow.n_layers > 0
    assert (cfg.data.kind == "simulated") == isinstance(how.data, SimulatedData)
    if cfg.data.kind == "simulated":
        assert (how.data.nuisances.line_error > 0) == (cfg.data.nuisances.base == "robust")
    for options in how.evaluation.sets.values():
        assert options.nuisances is None or options.nuisances.snr_range[0] > 0


def test_defaults_of_the_configuration_are_the_librarys():
    assert settings(Settings, configured("train")) == Settings()
    assert settings(evaluate.Settings, configured("evaluate")) == evaluate.Settings()
    assert settings(infer.Settings, configured("infer", "spectra=x")) == infer.Settings("x")
    assert settings(pretrain.Settings, configured("pretrain")) == pretrain.Settings()


@pytest.mark.parametrize("group", ["data", "model", "trainer", "evaluation"])
def test_every_member_of_a_group_can_be_chosen(group):
    for path in (CONF / group).glob("*.yaml"):
        assert configured("train", f"{group}={path.stem}")[group] is not None


def test_survey_stars_are_stars_that_networks_know():
    """The survey's prior is narrower than the one that networks are trained with, and inside of it."""
    sets = settings(evaluate.Settings, configured("evaluate", "evaluation=survey")).evaluation.sets
    assert {name.split("_")[0] for name in sets} == {"bright", "faint"}
    for options in sets.values():
        cfg = configured("train", "instrument=giraffe_hr10")
        data = settings(Settings, cfg).data
        simulator = make_simulator(data, cfg.instrument, cfg.forward, options.nuisances, options.prior)
        labels = simulator.prior.sample(jax.random.key(0), 4000)
        assert StellarPrior().supports(labels).mean() > 0.99
        assert np.std(labels[:, 2]) < 0.6 * np.std(StellarPrior().sample(jax.random.key(0), 4000)[:, 2])
        if options.snr is None:
            assert simulator.config.snr_range == tuple(options.nuisances.snr_range)
    snr = simulate_many(simulator, jax.random.key(1), 256, options.snr).measured_snr
    # Even over the last set's range; arms differ from the nominal S/N by 20 %, and it changes along an arm.
    low, high = options.snr
    assert 0.8 < np.median(snr) / (0.5 * (low + high)) < 1.2
    assert 0.5 * low < snr.min() and snr.max() < 2.0 * high
    # At the middle of the range alone the arms' differences would leave 0.35 of it.
    assert np.ptp(np.quantile(snr, [0.1, 0.9])) > 0.7 * (high - low)


@pytest.mark.parametrize(
    "name",
    ["infer", "synthesize", "demo", "emulator", "evaluate", "identify", "bound", "residuals", "pretrain"],
)
def test_other_scripts_compose(name):
    required = {
        "infer": ["spectra=x"], "synthesize": ["labels=x", "output=y"],
        "identify": ["labels=x"], "bound": ["labels=x"], "residuals": ["results=x"],
    }.get(name, [])  # fmt: skip
    assert configured(name, *required).name == name


def test_demo_is_the_small_quick_training_with_a_reader():
    cfg = configured("demo")
    known = {field.name for field in dataclasses.fields(Settings)} | set(RUN)
    rest = {k: v for k, v in OmegaConf.to_container(cfg).items() if k not in known}
    assert build(demo.Settings, rest) == demo.Settings()
    assert cfg.trainer.max_seconds < 300 and cfg.model.encoder.base == "small" and cfg.reader.medium == "air"


def test_override_reaches_the_library():
    assert network_config(train_settings()).point_weight == 0.0
    how = train_settings(
        "+data.nuisances.line_error=0.2", "+model.flow.n_layers=3", "+model.point_weight=0.3"
    )
    assert network_config(how).point_weight == 0.3
    assert how.data.nuisances.line_error == 0.2
    fitted = network_config(train_settings("experiment=giraffe_fitted")).linear_fit
    assert fitted.steps == 0 and fitted.nuisances.line_error == CONFIGS["robust"].line_error
    with pytest.raises(InputError, match=r"model\.fit_steps.*data=simulated"):
        network_config(
            train_settings("+model.fit_steps=0", "data=survey", "data.spectra=x", "data.catalogue=y")
        )
    assert network_config(how).flow.n_layers == 3


@pytest.mark.parametrize(
    ("node", "named"),
    [({"base": "default", "n_layer": 3}, "n_layer"), ({"base": "defualt"}, "defualt")],
)
def test_misspelt_settings_are_named(node, named):
    with pytest.raises(InputError, match=named):
        build(FlowConfig, node)


REQUIRED = {
    **{"infer": ["spectra=x"], "synthesize": ["labels=x", "output=y"], "identify": ["labels=x"]},
    **{"bound": ["labels=x"], "residuals": ["results=x"], "calibrate": ["surveys=x"]},
    "linelist": ["folder_of_spectra=x"],
}
COMMANDS = sorted(path.stem for path in (CONF.parent / "experiments").glob("*.py")
                  if (CONF / f"{path.stem}.yaml").exists())  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_unknown_keys_are_refused_by_every_command(name, tmp_path):
    """Before any work: `+unit=nm` was accepted and ignored."""
    script = importlib.import_module(f"experiments.{name}")
    cfg = configured(name, "+unit=nm", *REQUIRED.get(name, []))
    with pytest.raises(InputError, match=r"^unit: found no such setting"):
        script.run(cfg, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "key"), [(name, r[0].partition("=")[0]) for name, r in REQUIRED.items()])
def test_a_missing_value_is_a_sentence(name, key, tmp_path):
    script = importlib.import_module(f"experiments.{name}")
    with pytest.raises(InputError, match=rf"^{key}: found nothing; expected a value.*; write {key}=\S"):
        script.run(configured(name), tmp_path)


@pytest.mark.parametrize("name", ["model.encoder.widht=3", "data.prios={}", "evaluation.n_draw=5"])
def test_misspelt_overrides_are_named_with_their_group(name):
    with pytest.raises(InputError, match=name.split("=")[0]):
        train_settings(f"+{name}")


def test_a_small_model_is_not_trained_for_hours():
    """Each size has a trainer of its own; another one can still be chosen."""
    assert {p.stem for p in (CONF / "model").glob("*.yaml")} <= {p.stem for p in (CONF / "trainer").glob("*")}
    small = train_settings("model=small").trainer
    assert small.n_steps <= 5000 and small.max_seconds < 300
    assert train_settings("model=small", "trainer=long").trainer == train_settings().trainer


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("spectra=data/*.fits", "spectra='data/*.fits'"),
        ("spectra=a[0-9] b=c.txt", "spectra='a[0-9] b=c.txt'"),
        ("spectra=it's.fits", "spectra='it\\'s.fits'"),
        ("spectra=[a.fits,b.fits]", "spectra=[a.fits,b.fits]"),
        ("spectra='a.fits'", "spectra='a.fits'"),
        ("checkpoint=null", "checkpoint=null"),
        ("seed=3", "seed=3"),
        ("--multirun", "--multirun"),
    ],
)
def test_paths_survive_the_command_line(argument, expected):
    assert quote_paths([argument]) == [expected]


@pytest.mark.parametrize("path", ["data/*.fits", "a[0-9] b=c, d.txt", "it's (1).fits", "snow%20$x.fits"])
def test_quoted_paths_arrive_unchanged(path):
    assert configured("infer", *quote_paths([f"spectra={path}"])).spectra == path


def test_sweeps_over_paths_are_left_alone():
    assert quote_paths(["-m", "data.spectra=a,b"]) == ["-m", "data.spectra=a,b"]


def test_the_flow_for_real_stars():
    how = train_settings("experiment=giraffe_robust")
    flow = how.model.flow
    assert (flow.min_bin, flow.slope_clamp, flow.n_layers) == (0.25, 2.5, FlowConfig().n_layers)
    nuisances = how.data.nuisances
    assert nuisances.exact_model > 0
    # The check and the refinement believe of the resolving power what the network was taught.
    fit = FitConfig()
    assert (fit.resolution_mean, fit.resolution_prior) == (
        nuisances.resolution_mean,
        nuisances.resolution_scatter,
    )


def test_defaults_of_simulated_skies_are_the_librarys():
    """They are written out in conf/ so that `simulated.n_stars=800` may be said."""
    cfg = configured("calibrate", "surveys=simulated", "simulated.n_stars=800", "spectra.n_skies=3")
    assert build(SimulationConfig, OmegaConf.to_container(cfg.simulated)) == SimulationConfig(n_stars=800)
    assert build(SpectralConfig, OmegaConf.to_container(cfg.spectra)) == SpectralConfig(n_skies=3)
    for cls, node in ((SimulationConfig, cfg.simulated), (SpectralConfig, cfg.spectra)):
        assert set(node) == {field.name for field in dataclasses.fields(cls)}
