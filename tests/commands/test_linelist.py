"""Calibration of oscillator strengths: planted errors come back, and what is written is what is read."""

from importlib import resources

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from astropy.table import Table

from experiments.common import settings
from jaxspec.commands import linelist
from jaxspec.errors import InputError
from jaxspec.instruments import Arm
from jaxspec.physics.constants import SOLAR_ABUNDANCES
from jaxspec.physics.lines import LineList
from jaxspec.runs import Item
from tests.experiments.conftest import configured

NARROW = Arm("narrow", 5403.0, 5413.0, 0.05, 21500.0)
SUN = (5772.0, 4.438) + (0.0,) * 7


@pytest.fixture(scope="module")
def fit():
    return linelist.LineFit.create(NARROW, 0.03)


def strong_lines(fit) -> np.ndarray:
    """The strongest transitions about three wavelengths, well inside the arm and apart from each other."""
    lines = fit.lines
    strength = lines.log_gf + SOLAR_ABUNDANCES[lines.element] - lines.energy - 2.0 * (lines.stage == 0)
    chosen = [np.abs(lines.wavelength - w) < 0.5 for w in (5405.5, 5409.1, 5411.0)]
    return fit.transition[[np.argmax(np.where(near, strength, -np.inf)) for near in chosen]]


def test_planted_errors_of_log_gf_are_found(fit):
    planted = np.zeros(fit.transition.max() + 1, np.float32)
    planted[strong_lines(fit)] = [0.3, -0.25, 0.2]
    shape = jnp.asarray([3.0, 1.5, 0.9])
    ones = np.ones(NARROW.n_pixels)
    star = linelist.make_star(fit, SUN, ones, ones, 0.005)
    surface = linelist.synthesise(fit, jnp.asarray(planted), star)
    model = fit.response(
        fit.grid_response(surface), linelist.Nuisances(0.0, shape[0], jnp.float32(linelist.VSINI), *shape[1:])
    )
    star = linelist.make_star(fit, SUN, 100.0 * model, ones, 0.005)
    assert star.start[1] == pytest.approx(1.5, abs=0.3)

    change, prior = jnp.zeros(len(planted)), 0.25
    optimiser = optax.adam(optax.cosine_decay_schedule(0.1, 30))
    state, losses = optimiser.init(change), []
    for _ in range(30):
        loss, slope = linelist.loss_and_slope(fit, change, shape, star)
        losses.append(float(loss))
        update, state = optimiser.update(slope + change / prior**2, state)
        change = change + update
    assert losses[-1] < 0.05 * losses[0]
    found = np.asarray(change)[strong_lines(fit)]
    np.testing.assert_allclose(found, [0.3, -0.25, 0.2], atol=0.08)


def test_worst_places_name_the_lines_whose_log_gf_was_wrong(fit):
    planted = np.zeros(fit.transition.max() + 1, np.float32)
    wrong = strong_lines(fit)
    planted[wrong] = [0.3, -0.6, 0.2]
    ones = np.ones(NARROW.n_pixels)
    shape = jnp.asarray([3.0, 0.0, 0.9])
    star = linelist.make_star(fit, SUN, ones, ones, 0.005)._replace(start=shape)
    surface = linelist.synthesise(fit, jnp.asarray(planted), star)
    nuisances = linelist.Nuisances(0.0, shape[0], jnp.float32(linelist.VSINI), *shape[1:])
    star = star._replace(flux=3.0 * fit.response(fit.grid_response(surface), nuisances))
    places = linelist.worst_places(fit, star, shape, jnp.asarray(planted))
    assert len(places) == linelist.WORST
    assert np.all(np.diff(np.abs(places["before"])) <= 0)
    assert np.all(np.diff(np.sort(places["wavelength"])) >= linelist.APART - 1e-9)
    assert np.abs(places["after"]).max() < 0.1 * np.abs(places["before"]).max()
    first = {}
    for row in places[~np.ma.getmaskarray(places["line"])]:
        first.setdefault(round(float(row["line"]), 3), row)
    lines = {round(float(fit.lines.wavelength[fit.transition == t][0]), 3): planted[t] for t in wrong}
    assert set(first) == set(lines)
    for wavelength, row in first.items():
        assert abs(row["wavelength"] - wavelength) < linelist.APART
        assert row["change"] == pytest.approx(lines[wavelength])
        assert row["share"] == pytest.approx(1.0, abs=0.2)  # the continuum, fitted too, has the rest
        # a line that was too weak leaves the model too bright
        assert np.sign(row["before"]) == -np.sign(row["change"])


def test_components_of_one_transition_move_together():
    lines = LineList(
        wavelength=np.array([5400.00, 5400.03, 5400.05, 5400.03, 5401.0]),
        element=np.array([26, 26, 26, 26, 26]),
        stage=np.zeros(5, int),
        energy=np.array([1.0, 1.0, 1.0, 2.0, 1.0], np.float32),
        log_gf=np.zeros(5),
        damping=np.zeros(5),
        gamma_rad=np.zeros(5),
        reach=np.ones(5),
    )
    number = linelist.transitions(lines)
    assert number[0] == number[1] == number[2]
    assert len({number[0], number[3], number[4]}) == 3


def test_every_shipped_correction_belongs_to_a_line(tmp_path):
    """Nothing is dropped between file and list, and a line outside the observed window keeps its value."""
    published, calibrated = LineList.load(), LineList.load(calibrated=True)
    change = calibrated.log_gf - published.log_gf
    linelist.write_changes(tmp_path / "again.csv", published, change, 0.01)
    shipped = resources.files("jaxspec.physics.data") / "calibrated.csv"
    assert (tmp_path / "again.csv").read_text() == shipped.read_text()
    assert np.all(change[published.wavelength > 5615] == 0)
    assert 100 < np.sum(change != 0) < len(change)


def test_a_killed_fit_goes_on_and_other_stars_are_refused(fit, tmp_path, monkeypatch):
    """Log gf of a whole run and of one that was killed are the same; the stars' labels and spectra belong to
    the folder."""
    (tmp_path / "star.txt").write_text("a spectrum")
    overrides = [f"folder_of_spectra='{tmp_path}'", "n_steps=3", "every=1", "held_out=[]"]
    stars = "stars=[{{spectrum: star.txt, teff: {}, logg: 4.4, fe_h: 0.0, error: 0.01}}]"
    cfg = settings(linelist.Settings, configured("linelist", *overrides, stars.format(5772)))
    ones = np.ones(NARROW.n_pixels)
    star = linelist.make_star(fit, SUN, ones, ones, 0.01)
    monkeypatch.setattr(linelist.LineFit, "create", lambda *_: fit)
    monkeypatch.setattr(linelist, "read_star", lambda *_: star)
    monkeypatch.setattr(linelist, "worst_places", lambda *_: Table({"wavelength": [1.0]}))
    monkeypatch.setattr(linelist, "draw", lambda *_: None)
    linelist.run(cfg, tmp_path / "whole")

    save = Item.save

    def die(item, **arrays):
        save(item, **arrays)
        if arrays["step"] == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Item, "save", die)
    with pytest.raises(KeyboardInterrupt):
        linelist.run(cfg, tmp_path / "killed")
    monkeypatch.setattr(Item, "save", save)
    linelist.run(cfg, tmp_path / "killed")
    whole, killed = (
        np.load(tmp_path / name / "checkpoint" / "log_gf.npz")["state_0"] for name in ("whole", "killed")
    )
    np.testing.assert_array_equal(whole, killed)
    assert np.abs(whole).max() > 0.0

    with pytest.raises(InputError, match=r"stars\.0\.teff: found 5772"):
        other = configured("linelist", *overrides, stars.format(5800))
        linelist.run(settings(linelist.Settings, other), tmp_path / "killed")
    (tmp_path / "star.txt").write_text("another")
    with pytest.raises(InputError, match=r"spectra\.star\.txt"):
        linelist.run(cfg, tmp_path / "killed")
