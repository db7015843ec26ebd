"""Nights are planned as arithmetic and the sky say, and never worse than by a list."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from astropy.time import Time

from jaxspec.agent.observing import (
    SNR_GRID,
    Conditions,
    Mode,
    Night,
    Target,
    goal_snr,
    goals_per_hour,
    in_order,
    moonlight,
    options,
    plan_night,
    schedule,
    to_table,
)
from jaxspec.errors import InputError

SOLAR = {"teff": 5772.0, "logg": 4.44, "fe_h": 0.0}
MODES = (Mode("blue mode", "blue"), Mode("red mode", "red", magnitude=17.8, extinction=0.05))


def target(name="a", v=14.0, goal=None, **more):
    return Target(name, 0.0, -25.0, v, SOLAR, goal or {"fe_h": 0.1}, **more)


def flat_night(n_targets, n_slots=24, minutes=10.0):
    """All targets at the zenith all night, in the dark."""
    shape = (n_targets, n_slots)
    hours = np.arange(n_slots) * minutes / 60.0
    return Night(
        Time("2026-06-15T23:00:00"), minutes, hours, np.ones(shape), np.zeros(shape), np.ones(shape, bool)
    )


def test_exposures_follow_photons():
    mode = MODES[0]
    assert mode.snr(17.5, 60.0) == pytest.approx(10.0)
    # A bright star is limited by its own photons: S/N grows with the root of time and of light.
    assert mode.snr(10.0, 40.0) / mode.snr(10.0, 10.0) == pytest.approx(2.0, rel=1e-2)
    assert mode.snr(10.0, 10.0) / mode.snr(12.5, 10.0) == pytest.approx(np.sqrt(10.0), rel=1e-2)
    # A faint one by sky and read-out: the root becomes a proportion.
    assert mode.snr(23.0, 60.0) / mode.snr(24.0, 60.0) == pytest.approx(10**0.4, rel=0.02)
    assert mode.snr(17.0, 60.0, moon=3.0) < mode.snr(17.0, 60.0, airmass=1.5) < mode.snr(17.0, 60.0)
    assert mode.snr(mode.magnitude, mode.minutes(17.5, 10.0, 1.0, 0.8, 0.0)) == pytest.approx(10.0, rel=1e-3)
    assert mode.minutes(22.0, 300.0, 1.0, 0.8, 0.0) == np.inf
    # The seeing squared is the share of light in the fibre.
    assert mode.minutes(10.0, 100.0, 1.0, 1.6, 0.0) / mode.minutes(
        10.0, 100.0, 1.0, 0.8, 0.0
    ) == pytest.approx(4.0, rel=0.02)


def test_goals_need_the_bound(toy):
    """The S/N that a goal needs is where the Cramer-Rao bound crosses it; what is known already counts."""
    from jaxspec.diagnostics.cramer_rao import BoundConfig, cramer_rao
    from jaxspec.diagnostics.information import calibrated_nuisances

    hard, known = target(goal={"fe_h": 0.05}), target(goal={"fe_h": 0.05}, known={"fe_h": 0.02})
    needed = goal_snr(toy, [hard, known, target(goal={"fe_h": 1e-6})], MODES)
    assert np.isfinite(needed[0]).all() and (needed[1] == SNR_GRID[0]).all() and np.isinf(needed[2]).all()
    labels = toy.label_set.scaled_solar(*SOLAR.values())[None].astype(np.float32)
    nuisances = jax.tree.map(lambda x: np.asarray(x)[None], calibrated_nuisances(jnp.asarray(labels[0])))
    ivar = np.zeros((1, toy.instrument.n_pixels))
    ivar[0, toy.instrument.slices["red"]] = needed[0, 1] ** 2
    rows = toy.label_set.x_fe_matrix / 0.3
    bound = cramer_rao(toy, labels, nuisances, ivar, BoundConfig(), rows.T @ rows, batch=1)
    assert bound.sigma[0][toy.label_set.index("fe_h")] == pytest.approx(0.05, rel=0.05)


def test_the_sky(toy):
    """Vega is low from Paranal and a star at the zenith is not; the full Moon of 2026-06-29 brightens."""
    south = Target("south", 250.0, -24.6, 12.0, SOLAR, {"fe_h": 0.1})
    vega = Target("vega", 279.23, 38.78, 12.0, SOLAR, {"fe_h": 0.1})
    night = plan_night([south, vega], "2026-06-15", 30.0)
    assert 9.0 < night.hours[-1] < 12.0 and night.start.isot.startswith("2026-06-15T23")
    assert night.airmass[0].min() == pytest.approx(1.0, abs=0.01)
    # 90 - 24.63 - 38.78 degrees above the horizon in culmination.
    assert night.airmass[1].min() == pytest.approx(1.0 / np.sin(np.radians(26.6)), rel=0.02)
    assert not night.up[1].any()
    bright = plan_night([south], "2026-06-29", 60.0)
    assert bright.moon.max() > 1.0 > night.moon.max()
    assert moonlight(np.ones(1), np.array([-5.0]), np.array([60.0]))[0] == 0.0
    with pytest.raises(InputError, match="astronomical darkness"):
        from astropy.coordinates import EarthLocation

        plan_night([south], "2026-06-21", 60.0, EarthLocation.from_geodetic(25.0, 65.0))


def test_a_schedule_is_the_best_there_is():
    """Against every order of every subset, on a night short enough to try them all."""
    rng = np.random.default_rng(3)
    targets = [
        target(str(i), v, weight=w)
        for i, (v, w) in enumerate(zip(rng.uniform(13, 17, 5), (1, 2, 1, 3, 1), strict=True))
    ]
    needed = rng.uniform(15.0, 60.0, (5, 2))
    night = flat_night(5, 14)
    plan = schedule(targets, MODES, night, needed)
    ways = options(targets, MODES, night, needed)
    quickest = [ways.slots[ways.target == i].min() if (ways.target == i).any() else 99 for i in range(5)]
    best = max(
        sum(targets[i].weight for i in chosen)
        for n in range(6)
        for chosen in itertools.combinations(range(5), n)
        if sum(quickest[i] for i in chosen) <= 14
    )
    assert sum(targets[int(b.target)].weight for b in plan) == best
    ends = [b.start + b.minutes / 60.0 for b in plan]
    assert all(end <= b.start + 1e-6 for end, b in zip(ends, plan[1:], strict=False))
    assert len({b.target for b in plan}) == len(plan)
    assert "fe_h to 0.1 needs S/N" in plan[0].reason
    table = to_table(plan, night)
    assert len(table) == len(plan) and table["start_ut"][0] == "2026-06-15T23:00"
    assert len(to_table([], night)) == 0


def test_a_plan_is_never_worse_than_a_list():
    rng = np.random.default_rng(5)
    for _ in range(4):
        targets = [target(str(i), rng.uniform(13.5, 17.0)) for i in range(20)]
        needed, night = rng.uniform(10.0, 60.0, (20, 2)), flat_night(20, 40)
        planned = goals_per_hour(schedule(targets, MODES, night, needed), targets, night)
        for order in (np.argsort([t.v for t in targets]), rng.permutation(20)):
            assert planned >= goals_per_hour(in_order(order, targets, MODES, night, needed), targets, night)


def test_clouds_and_windows_change_the_plan():
    targets = [target("a"), target("b", window=(2.0, 2.4)), target("c")]
    needed, night = np.full((3, 2), 30.0), flat_night(3)
    plan = {b.target: b for b in schedule(targets, MODES, night, needed)}
    assert set(plan) == {"a", "b", "c"} and 2.0 <= plan["b"].start <= 2.4
    cloudy = Conditions(clouds=((1.9, 3.0),))
    again = schedule(targets, MODES, night, needed, cloudy, begin=1.0, done=["a"])
    assert {b.target for b in again} == {"c"} and all(b.start >= 1.0 for b in again)
    assert schedule(targets, MODES, night, np.full((3, 2), np.inf)) == []
