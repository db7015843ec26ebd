"""Calibrate oscillator strengths on observed spectra of stars whose labels are known.

The exact synthesis is fitted to all stars at once: the labels are held at published values, and each star's
broadening, velocity and continuum are fitted too. Each line's log gf moves under a Gaussian prior about the
published value, the components of one transition together; a robust likelihood keeps features that no line
can explain from bending their neighbours. Writes `calibrated.csv` (what changed and by how much; to ship it,
copy it to `jaxspec/physics/data/`), `metrics.json` with the misfit of every star before and after, held-out
stars included, and of the first star `worst.csv`, the lines behind its ten worst pixels, and a figure. About
10 s a step for four stars on two cores; a killed run goes on where it stopped when it is started again with
the same folder.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from astropy.table import Table
from jaxtyping import Array, Float
from tqdm import tqdm

from jaxspec.diagnostics.calibration import robust_scatter
from jaxspec.instruments import SPEED_OF_LIGHT, Arm, get_instrument
from jaxspec.io import read_spectra
from jaxspec.labels import NINE_LABELS
from jaxspec.linear import solve
from jaxspec.physics.atmosphere import Atmosphere
from jaxspec.physics.broadening import Resampler, VelocityGrid, lsf_variance
from jaxspec.physics.chemistry import ChemicalState
from jaxspec.physics.forward import ArmResponse, Nuisances
from jaxspec.physics.lines import LineList
from jaxspec.physics.model import StellarModel
from jaxspec.physics.synthesis import Window, chemistry_of, synthesize
from jaxspec.physics.turbulence import vmac_calibration, vmic_calibration
from jaxspec.runs import (
    atomically,
    begin,
    checksum,
    package_data,
    resumable,
    tree_arrays,
    tree_from,
    versions,
    write_json,
)

log = logging.getLogger(__name__)

INPUT, OUTPUT = "folder_of_spectra", "folder"
VSINI = 1.6  # km/s; degenerate with the fitted macroturbulence in slow rotators
VELOCITY_STEP = 2.0  # km/s
HUBER = 3.0  # errors, beyond which a pixel pulls no harder
CONTINUUM_DEGREE = 9
WORST, APART = 10, 0.3  # places of the first star that are explained, and A between them


@dataclass(frozen=True)
class KnownStar:
    """A star of known labels, and the file of its spectrum.

    Attributes:
        spectrum: its file, in the folder of spectra.
        teff: effective temperature [K].
        logg: surface gravity [dex].
        fe_h: metallicity [dex].
        error: part of the continuum that the model misses for reasons other than log gf: small for the Sun.
        al_h, mg_h, ca_h, ni_h, ti_h, si_h: abundances [dex]; none: as iron.
        resolving_power: of the spectrum; none: as its file says.
    """

    spectrum: str
    teff: float
    logg: float
    fe_h: float
    error: float = 0.012
    al_h: float | None = None
    mg_h: float | None = None
    ca_h: float | None = None
    ni_h: float | None = None
    ti_h: float | None = None
    si_h: float | None = None
    resolving_power: float | None = None

    @property
    def labels(self) -> list[float]:
        """In the order of the nine labels."""
        values = {name: getattr(self, name) for name in NINE_LABELS.names}
        return [self.fe_h if value is None else value for value in values.values()]


# Labels of `benchmark_stars.csv`, with its sources.
STARS = (
    KnownStar("hr10/sun_uves.txt", 5772.0, 4.438, 0.0, 0.005),
    KnownStar(
        "hr10/delta_eri_uves.txt", 5026.0, 3.83, 0.09,
        mg_h=0.179, si_h=0.139, ca_h=0.025, ti_h=0.038, ni_h=0.092,
    ),
    KnownStar(
        "hr10/procyon_uves_1.txt", 6582.0, 3.98, -0.02,
        mg_h=-0.037, si_h=-0.033, ca_h=0.036, ti_h=-0.069, ni_h=-0.112,
    ),
    KnownStar(
        "uves/hd_175305_narval.fits", 4902.0, 2.53, -1.45,
        mg_h=-1.1, si_h=-1.15, ca_h=-1.15, ti_h=-1.2, al_h=-1.2, resolving_power=47_000.0,
    ),
)  # fmt: skip
HELD_OUT = (
    KnownStar("hr10/sun_vesta_harps.txt", 5772.0, 4.438, 0.0),
    KnownStar("hr10/mu_ara_uves.txt", 5902.0, 4.30, 0.35, si_h=0.327, ca_h=0.32, ti_h=0.388, ni_h=0.416),
    KnownStar("hr10/16_cyg_a_harps.txt", 5849.0, 4.28, 0.08),
    KnownStar("hr10/beta_vir_harps_1.txt", 6093.0, 4.08, 0.13),
    KnownStar("hr10/alpha_cen_b_uves.txt", 5207.0, 4.53, 0.24),
)


@dataclass(frozen=True)
class Settings:
    """Whose spectra, and how log gf is fitted.

    Attributes:
        folder_of_spectra: where the stars' spectra are.
        instrument: a registered instrument, whose first arm is fitted.
        step: of the synthesis [A].
        prior: standard deviation of the corrections [dex].
        n_steps: of the fit.
        learning_rate: of Adam [dex].
        every: steps between fits of broadening and velocity, and checkpoints.
        smallest: smaller corrections are not written [dex].
        stars: that log gf is fitted to; the first is drawn.
        held_out: stars that the result is judged by.
    """

    folder_of_spectra: str
    instrument: str = "giraffe_hr10"
    step: float = 0.03
    prior: float = 0.25
    n_steps: int = 80
    learning_rate: float = 0.08
    every: int = 20
    smallest: float = 0.01
    stars: tuple[KnownStar, ...] = STARS
    held_out: tuple[KnownStar, ...] = HELD_OUT


class Star(NamedTuple):
    """An observed star and what stays fixed in its synthesis."""

    flux: Float[Array, " p"]
    seen: Float[Array, " p"]  # 1 where a pixel counts, else 0
    error: Float[Array, ""]  # of the model, in units of the continuum
    atmosphere: Atmosphere
    state: ChemicalState
    vmic: Float[Array, ""]
    start: Float[Array, " 3"]  # vmac, velocity (km/s), resolution factor


@dataclass(frozen=True, eq=False)
class LineFit:
    """Synthesis of one arm's window through its instrument, as a function of corrections to log gf.

    It is a static argument of the compiled functions below: where lines stand shapes the program.
    """

    model: StellarModel
    lines: LineList
    transition: np.ndarray  # index of each line's correction
    grid_response: Resampler
    response: ArmResponse
    basis: Float[Array, "c p"]
    wavelength: Float[np.ndarray, " p"]
    window: Window

    @staticmethod
    def create(arm: Arm, step: float) -> LineFit:
        """For one arm, synthesised in steps of `step` A."""
        window = Window(arm.low - 2.0, arm.high + 2.0, step)
        model = StellarModel.create((window,))
        n = int(np.log((window.high - 1.0) / (window.low + 1.0)) * SPEED_OF_LIGHT / VELOCITY_STEP)
        grid = VelocityGrid(window.low + 1.0, VELOCITY_STEP, n)
        centre = 0.5 * (arm.low + arm.high)
        response = ArmResponse(
            grid, float(lsf_variance(arm.resolution(centre))), 0.0, arm.step / centre * SPEED_OF_LIGHT,
            Resampler.create(grid.position(arm.wavelength), grid.n),
        )  # fmt: skip
        fine = Resampler.create((grid.wavelength - window.low) / step, len(window.wavelength))
        x = np.linspace(-1.0, 1.0, arm.n_pixels)
        basis = jnp.asarray(np.polynomial.chebyshev.chebvander(x, CONTINUUM_DEGREE).T, jnp.float32)
        lines = model.lines[0]
        return LineFit(model, lines, transitions(lines), fine, response, basis, arm.wavelength, window)

    def surface(self, change: Float[Array, " t"], star: Star) -> Float[Array, " n"]:
        """Unbroadened, normalised flux."""
        lines = eqx.tree_at(lambda x: x.log_gf, self.lines, self.lines.log_gf + change[self.transition])
        flux = synthesize(self.model.atoms, lines, self.window, star.atmosphere, star.state, star.vmic)
        return flux.flux / flux.continuum

    def residual(self, surface: Float[Array, " n"], shape: Float[Array, " 3"], star: Star) -> Array:
        """Observed minus model, in units of the fitted continuum."""
        nuisances = Nuisances(0.0, jnp.abs(shape[0]), jnp.float32(VSINI), shape[1], shape[2])
        model = self.response(self.grid_response(surface), nuisances)
        fixed = jax.lax.stop_gradient(model)
        design = fixed * self.basis
        weight = star.seen
        for _ in range(4):
            normal = (design * weight) @ design.T + 1e-6 * jnp.eye(len(design))
            continuum = solve(normal, (design * weight) @ star.flux) @ self.basis
            weight = star.seen / (1 + ((star.flux - fixed * continuum) / (2 * star.error)) ** 2)
            continuum, weight = jax.lax.stop_gradient((continuum, weight))
        return star.seen * (star.flux / continuum - model)

    def loss(self, surface, shape, star: Star) -> Float[Array, ""]:
        """Huber's loss, in units of the error."""
        z = jnp.abs(self.residual(surface, shape, star) / star.error)
        return jnp.sum(jnp.where(z < HUBER, 0.5 * z**2, HUBER * (z - 0.5 * HUBER)))


def transitions(lines: LineList) -> np.ndarray:
    """The components of one transition (hyperfine, isotopic) share a number.

    They have the same species and lower level and stand within 0.1 A of the next.
    """
    order = np.lexsort((lines.wavelength, lines.energy, lines.stage, lines.element))
    key = np.stack([lines.element, lines.stage, np.round(lines.energy, 3)])[:, order]
    new = np.any(np.diff(key) != 0, axis=0) | (np.diff(lines.wavelength[order]) > 0.1)
    number = np.empty(len(lines), np.int32)
    number[order] = np.concatenate([[0], np.cumsum(new)])
    return number


@partial(jax.jit, static_argnames="fit")
def fit_shape(fit: LineFit, surface, star: Star, start: Float[Array, " 3"]) -> Float[Array, " 3"]:
    """Macroturbulence, velocity and resolution of a star at given oscillator strengths."""
    optimiser = optax.adam(optax.cosine_decay_schedule(0.05, 150))
    scale = jnp.asarray([1.0, 1.0, 0.2])

    def step(carry, _):
        shape, state = carry
        update, state = optimiser.update(jax.grad(lambda x: fit.loss(surface, x, star))(shape), state)
        return (shape + scale * update, state), None

    return jax.lax.scan(step, (start, optimiser.init(start)), None, length=150)[0][0]


@partial(jax.jit, static_argnames="fit")
def coarse_velocity(fit: LineFit, surface, star: Star, velocity: Float[Array, " v"]) -> Float[Array, ""]:
    losses = jax.lax.map(lambda v: fit.loss(surface, star.start.at[1].set(v), star), velocity)
    return velocity[jnp.argmin(losses)]


@partial(jax.jit, static_argnames="fit")
def synthesise(fit: LineFit, change, star: Star) -> Float[Array, " n"]:
    return fit.surface(change, star)


@partial(jax.jit, static_argnames="fit")
def loss_and_slope(fit: LineFit, change, shape, star: Star) -> tuple[Array, Array]:
    return jax.value_and_grad(lambda c: fit.loss(fit.surface(c, star), shape, star))(change)


def make_star(fit: LineFit, labels, flux, seen, error: float) -> Star:
    """A star of known labels; its broadening and velocity are found at the published oscillator strengths."""
    labels = jnp.asarray(labels, jnp.float32)
    stellar = fit.model.label_set.stellar(labels)
    atmosphere = fit.model.grid(*stellar)
    state = chemistry_of(fit.model.atoms, atmosphere, fit.model.composition(labels))
    start = jnp.asarray([vmac_calibration(*stellar), 0.0, 0.85], jnp.float32)
    flux, seen = jnp.asarray(flux, jnp.float32), jnp.asarray(seen, jnp.float32)
    vmic = vmic_calibration(*stellar)
    star = Star(flux, seen, jnp.float32(error), atmosphere, state, vmic, start)
    surface = synthesise(fit, jnp.zeros(fit.transition.max() + 1), star)
    velocity = coarse_velocity(fit, surface, star, jnp.arange(-80.0, 80.5, 2.0))
    return star._replace(start=fit_shape(fit, surface, star, start.at[1].set(velocity)))


def read_star(fit: LineFit, settings: Settings, row: KnownStar) -> Star:
    """One star with its spectrum."""
    spectra, _ = read_spectra(
        f"{settings.folder_of_spectra}/{row.spectrum}", get_instrument(settings.instrument),
        velocity=0.0, medium="air", frame="rest", estimate_noise=True, resolving_power=row.resolving_power,
    )  # fmt: skip
    seen = np.asarray(spectra.ivar[0]) > 0
    return make_star(fit, row.labels, np.where(seen, spectra.flux[0], 1.0), seen, row.error)


def misfit(fit: LineFit, change, shape, star: Star) -> dict[str, float]:
    """rms and robust scatter (1.4826 MAD) of the residual over the pixels that count."""
    residual = np.asarray(fit.residual(synthesise(fit, change, star), shape, star))[np.asarray(star.seen) > 0]
    robust = robust_scatter(residual)
    return {"rms": float(np.sqrt(np.mean(residual**2))), "robust": float(robust)}


def stated(settings: Settings) -> dict[str, Any]:
    """All that the corrections depend on, the spectra themselves included."""
    fixed = ("instrument", "step", "prior", "n_steps", "learning_rate", "every", "stars", "held_out")
    rows = [*settings.stars, *settings.held_out]
    spectra = {row.spectrum: checksum(f"{settings.folder_of_spectra}/{row.spectrum}") for row in rows}
    values = {name: getattr(settings, name) for name in fixed}
    return {**values, "spectra": spectra, "data": package_data()}


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """Fit, measure, write; returns the metrics.

    Raises: InputError for spectra that cannot be read, and for a folder in which other stars, or with other
        settings, were fitted.
    """
    rows = [*settings.stars, *settings.held_out]
    (item,) = resumable(["log_gf"], stated(settings), folder / "checkpoint")
    begin(folder, settings, [f"{settings.folder_of_spectra}/{row.spectrum}" for row in rows])
    fit = LineFit.create(get_instrument(settings.instrument).arms[0], settings.step)
    stars = [read_star(fit, settings, row) for row in tqdm(rows, desc="stars", unit="star")]
    n = int(fit.transition.max()) + 1
    optimiser = optax.adam(optax.cosine_decay_schedule(settings.learning_rate, settings.n_steps), b2=0.98)
    change = jnp.zeros(n)
    before = [misfit(fit, change, star.start, star) for star in stars]
    state, shapes, first = optimiser.init(change), [star.start for star in stars], 0
    if item.done:
        saved = item.load()
        (change, state, shapes), first = tree_from((change, state, shapes), saved), int(saved["step"])
        log.info("going on at step %d", first)
    for step in tqdm(
        range(first, settings.n_steps), initial=first, total=settings.n_steps, desc="log gf", unit="step"
    ):
        loss, slope = 0.5 * jnp.sum((change / settings.prior) ** 2), change / settings.prior**2
        for k in range(len(settings.stars)):
            part, direction = loss_and_slope(fit, change, shapes[k], stars[k])
            loss, slope = loss + part, slope + direction
        update, state = optimiser.update(slope, state)
        change = change + update
        if (step + 1) % settings.every == 0 or step + 1 == settings.n_steps:
            shapes = [
                fit_shape(fit, synthesise(fit, change, star), star, shape)
                for star, shape in zip(stars, shapes, strict=True)
            ]
            item.save(step=step + 1, **tree_arrays((change, state, shapes)))
            log.info("step %d: loss %.0f", step + 1, float(loss))

    after = [misfit(fit, change, shape, star) for shape, star in zip(shapes, stars, strict=True)]
    summary: list[dict[str, Any]] = [
        {"spectrum": row.spectrum, "held_out": k >= len(settings.stars), "before": b, "after": a}
        for k, (row, b, a) in enumerate(zip(rows, before, after, strict=True))
    ]
    for row in summary:
        log.info(
            "%-32s rms %.4f -> %.4f, robust %.4f -> %.4f%s", row["spectrum"], row["before"]["rms"],
            row["after"]["rms"], row["before"]["robust"], row["after"]["robust"],
            " (held out)" if row["held_out"] else "",
        )  # fmt: skip
    each = np.asarray(change)[fit.transition]
    write_changes(folder / "calibrated.csv", fit.lines, each, settings.smallest)
    metrics = {"stars": summary, "versions": versions()}
    write_json(folder / "metrics.json", metrics)
    places = worst_places(fit, stars[0], shapes[0], change)
    atomically(folder / "worst.csv", lambda p: places.write(p, format="ascii.csv", overwrite=True))
    draw(fit, stars[0], shapes[0], change, folder / "first_star.png")
    return metrics


def worst_places(fit: LineFit, star: Star, shape: Float[Array, " 3"], change: Float[Array, " t"]) -> Table:
    """Where the published list misses a star by most, how far the calibrated one does, and which line did it.

    One row a place, the worst first: `wavelength` (A); observed minus model in units of the continuum,
    `before` and `after`; and of the one line nearby whose `change` of log gf moved this pixel most, its
    `line` (A), `species` (10 Z + stage), `energy` (eV), `log_gf` as published, and what `share` of the
    pixel's move is its own. Where no line nearby was changed, these are masked.
    """
    before = np.array(fit.residual(synthesise(fit, 0 * change, star), star.start, star))
    surface = synthesise(fit, change, star)
    after = np.asarray(fit.residual(surface, shape, star))
    size = np.abs(before)
    rows: list[dict[str, Any]] = []
    while len(rows) < WORST and size.max() > 0:
        pixel = int(np.argmax(size))
        at = fit.wavelength[pixel]
        size[np.abs(fit.wavelength - at) < APART] = 0
        near = np.unique(fit.transition[np.abs(fit.lines.wavelength - at) < APART])
        row = {"wavelength": at, "before": before[pixel], "after": after[pixel]}
        moved = after[pixel] - np.asarray(fit.residual(synthesise(fit, 0 * change, star), shape, star))[pixel]
        best = 0.0
        for t in near[np.abs(np.asarray(change)[near]) > 0]:
            without = fit.residual(synthesise(fit, change.at[t].set(0.0), star), shape, star)
            own = after[pixel] - float(without[pixel])
            if abs(own) > abs(best):
                best = own
                i = np.flatnonzero(fit.transition == t)
                i = i[np.argmax(fit.lines.log_gf[i])]
                row |= {
                    "line": fit.lines.wavelength[i],
                    "species": (fit.lines.element[i] + 1) * 10 + fit.lines.stage[i],
                    "energy": fit.lines.energy[i], "log_gf": fit.lines.log_gf[i],
                    "change": float(change[t]), "share": own / moved,
                }  # fmt: skip
        rows.append(row)
    table = Table(rows)
    for name in set(table.colnames) - {"species"}:
        table[name].info.format = ".3f"
    return table


def write_changes(path: Path, lines: LineList, change: np.ndarray, smallest: float) -> None:
    """Lines whose log gf moved by at least `smallest`."""
    text = ["wavelength,species,energy,log_gf,change"]
    for i in np.flatnonzero(np.abs(np.round(change, 3)) >= smallest - 1e-6):
        species = (lines.element[i] + 1) * 10 + lines.stage[i]
        text.append(
            f"{lines.wavelength[i]:.3f},{species},{lines.energy[i]:.3f},{lines.log_gf[i]:.3f},{change[i]:+.3f}"
        )
    atomically(path, lambda p: Path(p).write_text("\n".join(text) + "\n"))


def draw(fit: LineFit, star: Star, shape, change, path: Path) -> None:
    """Residuals of a star before and after."""
    figure, axes = plt.subplots(2, 1, figsize=(13, 6), layout="constrained", sharex=True)
    for axis, x, name in ((axes[0], 0 * change, "published"), (axes[1], change, "calibrated")):
        axis.plot(fit.wavelength, 100 * fit.residual(synthesise(fit, x, star), shape, star), lw=0.5)
        axis.set(ylabel="observed - model (%)", title=name, ylim=(-12, 12))
    axes[1].set_xlabel("wavelength (Å)")
    figure.savefig(path, dpi=130)
    plt.close(figure)
