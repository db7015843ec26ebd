"""Which star next, in which mode, for how long: a night's schedule that reaches the most science goals.

A goal is a set of labels and the precision wanted of each. What an exposure gives follows from its
signal-to-noise and the Cramer-Rao bound of the mode for such a star, what is already known included. A
mixed-integer program then places blocks in the night (SciPy's HiGHS), each at an airmass and under
conditions of its own.

Positions, twilight and Moon are astropy's; nothing is fetched from the network. Exposure times scale as
photons do, from a stated limit of each mode; they are planning values, not those of an observatory's
calculator.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import NamedTuple

import astropy.units as u
import jax
import jax.numpy as jnp
import numpy as np
from astropy.coordinates import AltAz, EarthLocation, SkyCoord, get_body
from astropy.table import Table
from astropy.time import Time
from astropy.utils import iers
from jaxtyping import Bool, Float
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from jaxspec.diagnostics.cramer_rao import (
    BoundConfig,
    design_and_precision,
    information_matrix,
    jacobian,
    marginal_covariance,
)
from jaxspec.diagnostics.information import USUAL, calibrated_nuisances
from jaxspec.errors import InputError
from jaxspec.labels import LabelSet
from jaxspec.physics.forward import SpectrumModel

PARANAL = EarthLocation.from_geodetic(-70.4042 * u.deg, -24.6272 * u.deg, 2635.0 * u.m)
SNR_GRID = (10.0, 20.0, 40.0, 80.0, 160.0, 320.0)
X_FE_SCATTER = 0.3  # dex, of each [X/Fe] before any spectrum


@dataclass(frozen=True)
class Mode:
    """An instrument's mode as an exposure-time model.

    Attributes:
        name: of the mode.
        arm: the part of the forward model's instrument that it records.
        magnitude: V of a star that gives a S/N of 10 per pixel in an hour, at the zenith, in the dark and in
            the stated seeing: for GIRAFFE's high resolution settings about 17.5 (planning value).
        sky: V of the dark sky in a fibre.
        read_noise: variance of the detector in units of the electrons of that star and hour.
        overhead: minutes beside the exposure (acquisition, read-out).
        extinction: of the atmosphere [mag per airmass].
        seeing: for which the magnitude is stated [arcsec]; worse seeing loses light in proportion.
    """

    name: str
    arm: str
    magnitude: float = 17.5
    sky: float = 21.5
    read_noise: float = 0.2
    overhead: float = 6.0
    extinction: float = 0.12
    seeing: float = 0.8

    def snr(
        self, v: float, minutes: float, airmass: float = 1.0, seeing: float = 0.8, moon: float = 0.0
    ) -> float:
        """Signal-to-noise per pixel of an exposure. `moon` brightens the sky [mag].

        Photon noise of star and sky, and read-out noise: S = e t, N^2 = e t + sky t + read.
        """
        unit = 100.0  # electrons of the limiting star in an hour, if only its photons made noise
        # The limit is stated with sky and read-out: solve for the electrons that give 10.
        dark = 10.0 ** (0.4 * (self.magnitude - self.sky))
        b = unit * (1.0 + dark)
        electrons = 0.5 * (b + np.sqrt(b**2 + 4.0 * unit * self.read_noise * unit))
        loss = 10.0 ** (-0.4 * self.extinction * (airmass - 1.0)) * min(1.0, (self.seeing / seeing) ** 2)
        star = electrons * 10.0 ** (0.4 * (self.magnitude - v)) * loss * minutes / 60.0
        sky = electrons * dark * 10.0 ** (0.4 * moon) * minutes / 60.0
        return float(star / np.sqrt(star + sky + self.read_noise * unit))

    def minutes(self, v: float, snr: float, airmass: float, seeing: float, moon: float) -> float:
        """Exposure for a S/N; found by bisection, infinite beyond ten hours."""
        low, high = 0.01, 600.0
        if self.snr(v, high, airmass, seeing, moon) < snr:
            return np.inf
        for _ in range(40):
            middle = np.sqrt(low * high)
            low, high = (low, middle) if self.snr(v, middle, airmass, seeing, moon) > snr else (middle, high)
        return high


GIRAFFE_MODES = (Mode("GIRAFFE HR10", "hr10"), Mode("GIRAFFE HR21", "hr21", magnitude=17.8, extinction=0.05))


@dataclass(frozen=True)
class Target:
    """A star and what is wanted of it.

    Attributes:
        name: of the star.
        ra, dec: ICRS [degrees].
        v: magnitude.
        labels: what it is thought to be, all labels of the model.
        goal: labels and the standard deviation wanted of each.
        known: labels and the standard deviation with which they are known already.
        weight: of the goal.
        window: the hours after the night's start between which it must begin; none: any.
    """

    name: str
    ra: float
    dec: float
    v: float
    labels: Mapping[str, float]
    goal: Mapping[str, float]
    known: Mapping[str, float] = field(default_factory=dict)
    weight: float = 1.0
    window: tuple[float, float] | None = None


@dataclass(frozen=True)
class Conditions:
    """Of the night: seeing [arcsec], and hours after its start that are lost to clouds."""

    seeing: float = 0.8
    clouds: tuple[tuple[float, float], ...] = ()


class Night(NamedTuple):
    """Slots of a dark night: their middles, airmass of each target `[t, s]`, brightness that the Moon adds to
    the sky [mag] `[t, s]`, and whether a target may be observed there."""

    start: Time
    minutes: float
    hours: Float[np.ndarray, " s"]
    airmass: Float[np.ndarray, "t s"]
    moon: Float[np.ndarray, "t s"]
    up: Bool[np.ndarray, "t s"]


class Block(NamedTuple):
    """One observation of a schedule."""

    target: str
    mode: str
    start: float  # hours after the night's start
    minutes: float  # overhead included
    snr: float  # that the goal needs
    airmass: float
    reason: str


def plan_night(
    targets: Sequence[Target],
    date: str,
    minutes: float = 10.0,
    site: EarthLocation = PARANAL,
    airmass: float = 2.0,
) -> Night:
    """The slots of the night that follows noon (UTC) of `date`, between astronomical twilights.

    Raises: InputError for a night without darkness.
    """
    # The package's own table of the Earth's rotation is good to far less than a slot, however old it is.
    quiet = {"auto_download": False, "iers_degraded_accuracy": "ignore", "auto_max_age": None}
    with ExitStack() as stack:
        for name, value in quiet.items():
            stack.enter_context(iers.conf.set_temp(name, value))
        noon = Time(f"{date}T12:00:00")
        times = noon + np.arange(0.0, 24.0 * 60.0, minutes) * u.min
        sun = get_body("sun", times, site).transform_to(AltAz(obstime=times, location=site)).alt.deg
        dark = np.flatnonzero(sun < -18.0)
        if not len(dark):
            raise InputError("date", date, "a night with astronomical darkness", "choose another")
        times = times[dark]
        frame = AltAz(obstime=times, location=site)
        moon = get_body("moon", times, site).transform_to(frame)
        lit = _illumination(times, site)
        levels, brighter, up = [], [], []
        for target in targets:
            place = SkyCoord(target.ra * u.deg, target.dec * u.deg).transform_to(frame)
            altitude = np.maximum(place.alt.deg, 1.0)
            # Pickering (2002, DIO 12, 1, 20): airmass down to the horizon.
            x = 1.0 / np.sin(np.radians(altitude + 244.0 / (165.0 + 47.0 * altitude**1.1)))
            away = place.separation(moon).deg
            levels.append(x)
            brighter.append(moonlight(lit, moon.alt.deg, away))
            up.append((x < airmass) & (place.alt.deg > 0.0) & (away > 30.0))
    hours = ((times - times[0]).to(u.hour)).value
    return Night(times[0], minutes, hours, np.array(levels), np.array(brighter), np.array(up))


def _illumination(times: Time, site: EarthLocation) -> np.ndarray:
    sun, moon = get_body("sun", times, site), get_body("moon", times, site)
    return 0.5 * (1.0 - np.cos(moon.separation(sun).radian))


def moonlight(illumination: np.ndarray, altitude: np.ndarray, away: np.ndarray) -> np.ndarray:
    """Magnitudes by which the Moon brightens the sky: about 3.5 for a full Moon 60 degrees away, less with
    its illumination and height (a fit by eye to Krisciunas & Schaefer 1991, PASP 103, 1033)."""
    high = np.clip(np.sin(np.radians(altitude)), 0.0, 1.0)
    return 3.5 * illumination**1.5 * np.sqrt(high) * np.clip(60.0 / np.maximum(away, 30.0), 0.6, 1.5)


# --- what a spectrum is worth


def goal_snr(
    forward: SpectrumModel,
    targets: Sequence[Target],
    modes: Sequence[Mode],
    config: BoundConfig = USUAL,
) -> Float[np.ndarray, "t m"]:
    """Lowest S/N per pixel at which a mode reaches each target's goal; infinite where none on the grid does.

    Between the S/N of a grid the bound is interpolated in the logarithm of both.
    """
    label_set, instrument = forward.label_set, forward.instrument
    n = len(label_set)
    out = np.full((len(targets), len(modes)), np.inf)
    for i, target in enumerate(targets):
        labels = jnp.asarray(_labels(target, label_set), jnp.float32)
        nuisances = jax.tree.map(
            lambda x: jnp.asarray(x, jnp.float32)[None], calibrated_nuisances(labels, label_set)
        )
        model, columns = (np.asarray(x[0], float) for x in jacobian(forward, labels[None], nuisances))
        design, precision = design_and_precision(model, columns, instrument, config, n)
        for name, sigma in target.known.items():
            precision[label_set.index(name), label_set.index(name)] += sigma**-2.0
        # What no spectrum says of an element is not infinitely unknown.
        rows = np.asarray(label_set.x_fe_matrix, float) / X_FE_SCATTER
        precision[:n, :n] += rows.T @ rows
        for j, mode in enumerate(modes):
            seen = np.zeros(instrument.n_pixels)
            seen[instrument.slices[mode.arm]] = 1.0
            information = information_matrix(design, seen)
            sigma_at = np.stack(
                [np.sqrt(np.diag(marginal_covariance(s**2 * information + precision, n))) for s in SNR_GRID]
            )
            needed = [_crossing(sigma_at[:, label_set.index(k)], wanted) for k, wanted in target.goal.items()]
            out[i, j] = max(needed, default=0.0)
    return out


def _labels(target: Target, label_set: LabelSet) -> np.ndarray:
    given = target.labels
    values = label_set.scaled_solar(given["teff"], given["logg"], given["fe_h"])
    for name, value in given.items():
        values[label_set.index(name)] = value
    return values


def _crossing(sigma: np.ndarray, wanted: float) -> float:
    log_snr, log_sigma = np.log(SNR_GRID), np.log(sigma)
    if sigma[0] <= wanted:
        return SNR_GRID[0]
    if sigma[-1] > wanted:
        return np.inf
    return float(np.exp(np.interp(-np.log(wanted), -log_sigma, log_snr)))


# --- schedules


class Options(NamedTuple):
    """Every way to reach a goal: target, mode, first slot, number of slots, S/N and exposure [min]."""

    target: np.ndarray
    mode: np.ndarray
    start: np.ndarray
    slots: np.ndarray
    minutes: np.ndarray


def options(
    targets: Sequence[Target],
    modes: Sequence[Mode],
    night: Night,
    needed: Float[np.ndarray, "t m"],
    conditions: Conditions = Conditions(),
    begin: float = 0.0,
) -> Options:
    """All blocks that fit into the night from the hour `begin` on and reach their goal."""
    n = len(night.hours)
    step = night.minutes / 60.0
    lost = np.zeros(n, bool)
    for low, high in conditions.clouds:
        lost |= (night.hours + step > low) & (night.hours < high)
    rows = []
    for i, target in enumerate(targets):
        free = night.up[i] & ~lost
        for j, mode in enumerate(modes):
            if not np.isfinite(needed[i, j]):
                continue
            for s in np.flatnonzero(free & (night.hours >= begin - 1e-9)):
                hour = night.hours[s]
                if target.window is not None and not target.window[0] <= hour <= target.window[1]:
                    continue
                exposure = mode.minutes(
                    target.v, needed[i, j], night.airmass[i, s], conditions.seeing, night.moon[i, s]
                )
                total = exposure + mode.overhead
                slots = int(np.ceil(total / night.minutes)) if np.isfinite(total) else n + 1
                if s + slots <= n and free[s : s + slots].all():
                    rows.append((i, j, s, slots, total))
    columns = np.array(rows, float).reshape(-1, 5).T
    target, mode, start, slots = columns[:4].astype(int)
    return Options(target, mode, start, slots, columns[4])


def schedule(
    targets: Sequence[Target],
    modes: Sequence[Mode],
    night: Night,
    needed: Float[np.ndarray, "t m"],
    conditions: Conditions = Conditions(),
    begin: float = 0.0,
    done: Sequence[str] = (),
    seconds: float = 20.0,
) -> list[Block]:
    """The blocks that reach the most goals (by weight) in the least time, by a mixed-integer program.

    Args:
        begin: hours after the start from which is planned: to replan when conditions change.
        done: targets that are not observed any more.
        seconds: after which the best schedule so far is taken.
    """
    active = [dataclasses.replace(t, weight=0.0) if t.name in done else t for t in targets]
    ways = options(active, modes, night, needed, conditions, begin)
    keep = np.array([active[i].weight > 0.0 for i in ways.target], bool)
    ways = Options(*[np.asarray(x)[keep] for x in ways])
    m = len(ways.target)
    if not m:
        return []
    n = len(night.hours)
    weight = np.array([active[i].weight for i in ways.target])
    # Less time is better, but never worth a goal.
    cost = -weight + 0.5 * weight.min() / n / max(len(targets), 1) * ways.slots
    rows = [ways.target]
    columns = [np.arange(m)]
    for offset in range(int(ways.slots.max())):
        inside = np.flatnonzero(ways.slots > offset)
        rows.append(len(targets) + ways.start[inside] + offset)
        columns.append(inside)
    row, column = np.concatenate(rows), np.concatenate(columns)
    matrix = coo_array((np.ones(len(row)), (row, column)), shape=(len(targets) + n, m)).tocsr()
    result = milp(
        cost,
        constraints=LinearConstraint(matrix, -np.inf, 1.0),
        integrality=np.ones(m),
        bounds=Bounds(0.0, 1.0),
        options={"time_limit": seconds, "mip_rel_gap": 1e-3},
    )
    # A solver that ran out of time may be worse than a list.
    found = [] if result.x is None else [np.flatnonzero(result.x > 0.5)]
    bright, quick = (
        np.argsort([t.v for t in active]),
        np.argsort([_quickest(ways, i) for i in range(len(active))]),
    )
    found += [_greedy(order, ways, n) for order in (bright, quick)]
    best = max(found, key=lambda chosen: float(weight[chosen].sum()))
    return blocks(targets, modes, night, needed, ways, best)


def in_order(
    order: Sequence[int] | np.ndarray,
    targets: Sequence[Target],
    modes: Sequence[Mode],
    night: Night,
    needed: Float[np.ndarray, "t m"],
    conditions: Conditions = Conditions(),
) -> list[Block]:
    """The plan of an observer who goes through a list: the next target that is up and whose goal can be
    reached, in its quickest mode, at once."""
    ways = options(targets, modes, night, needed, conditions)
    return blocks(targets, modes, night, needed, ways, _greedy(order, ways, len(night.hours)))


def _greedy(order: Sequence[int] | np.ndarray, ways: Options, n_slots: int) -> np.ndarray:
    """Places of the blocks that going through a list gives."""
    left, slot, chosen = [int(i) for i in order], 0, []
    while slot < n_slots:
        here = np.flatnonzero(ways.start == slot)
        for i in left:
            own = here[ways.target[here] == i]
            if len(own):
                best = own[np.argmin(ways.slots[own])]
                chosen.append(best)
                left.remove(i)
                slot += int(ways.slots[best])
                break
        else:
            slot += 1
    return np.array(chosen, int)


def _quickest(ways: Options, target: int) -> int:
    slots = ways.slots[ways.target == target]
    return int(slots.min()) if len(slots) else 10_000


def blocks(targets, modes, night, needed, ways: Options, chosen: np.ndarray) -> list[Block]:
    """The chosen ways as blocks, in time, each with its reason."""
    out = []
    for k in chosen[np.argsort(ways.start[chosen])]:
        i, j, s = ways.target[k], ways.mode[k], ways.start[k]
        goal = ", ".join(f"{name} to {sigma:g}" for name, sigma in targets[i].goal.items())
        others = [
            f"{modes[q].name} S/N {needed[i, q]:.0f}"
            for q in range(len(modes))
            if q != j and np.isfinite(needed[i, q])
        ]
        reason = f"{goal} needs S/N {needed[i, j]:.0f} in {modes[j].name}"
        reason += f" ({'; '.join(others)})" if others else ""
        out.append(
            Block(
                targets[i].name, modes[j].name, float(night.hours[s]), float(ways.minutes[k]),
                float(needed[i, j]), float(night.airmass[i, s]), reason,
            )
        )  # fmt: skip
    return out


def goals_per_hour(plan: Sequence[Block], targets: Sequence[Target], night: Night) -> float:
    """Weight of the goals met per hour of the night."""
    weight = {target.name: target.weight for target in targets}
    return sum(weight[block.target] for block in plan) / float(night.hours[-1] + night.minutes / 60.0)


def to_table(plan: Sequence[Block], night: Night) -> Table:
    """The schedule, one row a block."""
    names = ("target", "mode", "start_ut", "start_h", "minutes", "snr", "airmass", "reason")
    rows = [
        (b.target, b.mode, (night.start + b.start * u.hour).isot[:16], round(b.start, 2), round(b.minutes, 1),
         round(b.snr, 1), round(b.airmass, 2), b.reason)
        for b in plan
    ]  # fmt: skip
    return (
        Table(rows=rows, names=names) if rows else Table(names=names, dtype=["U1"] * 3 + [float] * 4 + ["U1"])
    )
