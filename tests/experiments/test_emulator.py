"""Training an emulator: for GIRAFFE, for other instruments, and with lines of one's own."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import emulator
from experiments.common import CONF, settings
from jaxspec.commands.emulator import Settings, chunks_of
from jaxspec.errors import InputError
from jaxspec.instruments import SPEED_OF_LIGHT, Arm, Instrument, get_instrument
from jaxspec.physics.broadening import VelocityGrid, lsf_variance
from jaxspec.physics.exact import ExactModel
from jaxspec.physics.forward import Nuisances, forward_model
from jaxspec.physics.linelists import read_line_list
from jaxspec.runs import begin, checksum
from tests.experiments.conftest import configured

INSTRUMENTS = {
    "giraffe": ["giraffe"],
    "4most_hrs": ["4most_hrs"],
    "weave_hr": ["weave_hr_blue", "weave_hr_green"],
    "moons_ri": ["moons_ri"],
}
# Wavelength, species, lower level, log gf, factor on Unsoeld's width.
LINES = """made up
  5366.40      26.0     3.00    -1.00    0.0
  5367.47      26.0     4.40     0.40    0.0
  5369.00      28.0     3.50    -0.50    0.0
"""
SMALL = (
    "windows=[{low: 5362.0, high: 5374.0, step: 0.04, grid_start: 5364.0, grid_points: 224}]",
    *("calibrated=false", "n_stars=64", "n_test=32", "processes=1"),
    *("n_components=12", "widths=[32]", "n_steps=300", "batch_size=32"),
)


def test_every_configuration_has_an_instrument():
    assert sorted(INSTRUMENTS) == sorted(path.stem for path in (CONF / "coverage").glob("*.yaml"))


@pytest.mark.parametrize(
    ("coverage", "instrument"), [(name, i) for name, known in INSTRUMENTS.items() for i in known]
)
def test_windows_reach_beyond_the_arms(coverage, instrument):
    """The grid by what interpolation and 80 km/s of velocity need, the synthesis by five widths more."""
    cfg = configured("emulator", f"coverage={coverage}", "lines=x")
    for arm in get_instrument(instrument).arms:
        (window,) = (w for w in cfg.windows if w.low < arm.low and arm.high < w.high)
        grid = VelocityGrid(window.grid_start, cfg.velocity_step, window.grid_points).wavelength
        shift = 80.0 / SPEED_OF_LIGHT
        assert grid[2] < arm.low * (1 - shift) and arm.high * (1 + shift) < grid[-3]
        five = 5 * cfg.base_sigma / SPEED_OF_LIGHT
        assert window.low < grid[0] * (1 - five) and grid[-1] * (1 + five) < window.high
        assert window.step / window.high * SPEED_OF_LIGHT < 2.0 < 2 * cfg.base_sigma
        assert lsf_variance(arm.resolution(0.5 * (arm.low + arm.high))) > cfg.base_sigma**2


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("emulator")
    (folder / "lines.moog").write_text(LINES)
    cfg = configured("emulator", *SMALL, f"lines='{folder / 'lines.moog'}'")
    emulator.run(cfg, folder / "run")
    return cfg, folder


@pytest.mark.slow
def test_lines_of_ones_own_are_in_the_spectra(trained):
    """The emulator's spectrum is the synthesis with that list, far nearer than the lines are deep."""
    cfg, folder = trained
    arm = Arm("short", 5366.0, 5370.0, 0.05, 20_000.0)
    forward = forward_model(str(folder / "run" / "emulator"), Instrument("short", (arm,)))
    exact = ExactModel.for_pixels([arm.wavelength], 20_000.0, lines=read_line_list(cfg.lines))
    sun = jnp.asarray([5777.0, 4.44] + 7 * [0.0], jnp.float32)
    nuisances = Nuisances(*(jnp.asarray(v) for v in (1.0, 3.0, 1.6, 0.0, 1.0)))
    expected = np.asarray(jax.jit(lambda x: exact(x, nuisances))(sun))
    found = np.asarray(forward(sun, nuisances))
    assert 0.3 < 1 - expected.min()
    assert np.abs(found - expected).max() < 0.15 * (1 - expected.min())


def test_the_list_is_on_record(trained):
    cfg, folder = trained
    provenance = json.loads((folder / "run" / "provenance.json").read_text())
    assert provenance["checksums"] == {cfg.lines: checksum(cfg.lines)}
    assert json.loads((folder / "run" / "metrics.json").read_text())["calibrated"] is False


def test_a_run_records_the_emulator_it_used(trained, tmp_path):
    weights = str(trained[1] / "run" / "emulator")
    begin(tmp_path, {"forward": weights})
    provenance = json.loads((tmp_path / "provenance.json").read_text())
    assert provenance["checksums"] == {weights: checksum(weights)}


def test_spectra_of_other_settings_are_not_gone_on_with(trained):
    cfg, folder = trained
    other = configured("emulator", *SMALL, f"lines='{cfg.lines}'", "vmic_spread=0.1")
    with pytest.raises(InputError, match=r"vmic_spread: found 0\.6 of an earlier run; expected 0\.1"):
        emulator.run(other, folder / "run")
    (folder / "lines.moog").write_text(LINES.replace("-1.00", "-1.10"))
    with pytest.raises(InputError, match="spectra, lines: found"):
        emulator.run(cfg, folder / "run")
    (folder / "lines.moog").write_text(LINES)


def test_more_stars_go_on_with_fewer(trained):
    cfg, folder = trained
    more = settings(Settings, configured("emulator", *SMALL, f"lines='{cfg.lines}'", "n_stars=96"))
    chunks = chunks_of(more, folder / "run" / "spectra")
    assert [item.done for item in chunks] == [True, True, False]


def test_calibrated_log_gf_are_for_the_shipped_lines(trained, tmp_path):
    cfg, _ = trained
    with pytest.raises(InputError, match="calibrated: found true beside lines=FILE"):
        emulator.run(configured("emulator", *SMALL, "calibrated=true", f"lines='{cfg.lines}'"), tmp_path)
