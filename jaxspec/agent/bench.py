"""The bench: what stays the same while an agent works on a star, and the state that its steps change.

A `Bench` holds the models and one star's spectrum; a `State` is a value. Every tool maps bench, state and
arguments to a new state, so that a trace of the arguments is enough to go through all of it again.
"""

from __future__ import annotations

import dataclasses
import zlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from jaxspec.agent import looks
from jaxspec.agent.evidence import Data, Errors, Evidence, fit, make_data, without_ends
from jaxspec.agent.hypotheses import ORDINARY, PRIORS, Hypothesis, LabelPrior, Star, make
from jaxspec.errors import InputError
from jaxspec.inference import Inference, InferenceConfig, infer
from jaxspec.instruments import Instrument
from jaxspec.posterior.model import PosteriorModel
from jaxspec.reading import TEMPLATES, make_template
from jaxspec.resampling import rebin_to_instrument
from jaxspec.runs import named_key
from jaxspec.simulation.preparation import prepare_many
from jaxspec.simulation.prior import StellarPrior
from jaxspec.simulation.simulator import SpectrumModel
from jaxspec.spectra import Spectra, doppler_shift

# Share of the scatter that a second velocity must explain.
TWO_VELOCITIES = 0.05
# Regions of the HR diagram that a run may say its stars lie in, inside the training's.
_DWARFS = ((4500.0, 3.9), (7000.0, 3.9), (7000.0, 4.8), (5800.0, 5.0), (4500.0, 5.0))
_GIANTS = ((4000.0, 0.5), (5200.0, 0.5), (5700.0, 2.0), (6000.0, 3.3), (4500.0, 3.3), (4000.0, 2.6))
STELLAR_PRIORS: dict[str, StellarPrior | None] = {
    "training": None,
    "dwarfs": StellarPrior(polygon=_DWARFS),
    "giants": StellarPrior(polygon=_GIANTS),
}


@dataclass(frozen=True)
class AgentConfig:
    """How the agent works on a star.

    Attributes:
        seed: of all random numbers.
        n_draws: draws of the labels.
        refine: of `infer`: none, robust or exact.
        check: compare the best model of `infer` with the spectrum; without it stars are flagged NOT_CHECKED.
        prior: what the run says of its stars: training, dwarfs or giants.
        errors: of the model and of pixels, the same for all hypotheses.
        ordinary: prior probability that nothing is wrong with a star; the causes share the rest.
        memory: remember the fits that were made of the star, and take them again where nothing changed.
    """

    seed: int = 1
    n_draws: int = 500
    refine: str = "robust"
    check: bool = True
    prior: str = "training"
    errors: Errors = Errors()
    ordinary: float = 0.9
    memory: bool = True

    def __post_init__(self):
        if self.prior not in PRIORS:
            raise InputError("prior", repr(self.prior), f"one of {', '.join(PRIORS)}", "choose one of these")
        if not 0.0 < self.ordinary < 1.0:
            raise InputError("ordinary", f"{self.ordinary}", "a probability", "write ordinary=0.9, say")


@dataclass(frozen=True)
class Setup:
    """Settings of the data and the model that the agent may change.

    Attributes:
        velocity: taken out of the spectrum [km/s].
        masked: windows [A] that are not used.
        dropped: names of arms that are not used.
        degree: of the continuum; none: the hypothesis's own.
        widths: standard deviations of the priors of nuisances, where they are not the usual ones.
        prior: name of the prior of the labels.
    """

    velocity: float = 0.0
    masked: tuple[tuple[float, float], ...] = ()
    dropped: tuple[str, ...] = ()
    degree: int | None = None
    widths: tuple[tuple[str, float], ...] = ()
    prior: str = "training"


@dataclass(frozen=True)
class Try:
    """One fit of the star: the agent's memory is a list of these."""

    hypothesis: str
    setup: Setup
    evidence: Evidence


@dataclass(frozen=True)
class Conclusion:
    """The agent's conclusion about a star.

    Attributes:
        cause: one of `hypotheses.CAUSES`.
        p_cause: its probability among what was compared.
        labels_from: infer, the name of a hypothesis, or none.
        reason: in words.
    """

    cause: str
    p_cause: float
    labels_from: str
    reason: str = ""


@dataclass(frozen=True)
class State:
    """Everything that the steps on a star have changed.

    Attributes:
        setup: as it is now.
        tries: all fits, in their order.
        inferred: the last result of `infer`, and the setup it was made with.
        conclusion: None until there is one.
        pictures: names of files that were drawn.
        n_fits: fits that were made, those of `infer` included.
        facts: what was measured on the way, by name.
    """

    setup: Setup
    tries: tuple[Try, ...] = ()
    inferred: tuple[Setup, Inference] | None = None
    conclusion: Conclusion | None = None
    pictures: tuple[str, ...] = ()
    n_fits: int = 0
    facts: dict[str, Any] = field(default_factory=dict)

    def tried(self, hypothesis: str, setup: Setup) -> Evidence | None:
        """The fit of a hypothesis under a setup, if it was made."""
        for row in reversed(self.tries):
            if row.hypothesis == hypothesis and row.setup == setup:
                return row.evidence
        return None

    def current(self) -> dict[str, Evidence]:
        """All fits under the setup as it is now, by hypothesis."""
        return {row.hypothesis: row.evidence for row in self.tries if row.setup == self.setup}

    def best(self) -> Evidence | None:
        """The fit of the highest evidence under the setup as it is now."""
        fits = self.current().values()
        return max(fits, key=lambda fitted: fitted.log_evidence) if fits else None


class Bench:
    """The models and one star's spectrum.

    Args:
        flux, ivar: on the instrument's pixels, on any scale, `[p]`.
        meta: facts of the file.
        folder: of pictures; None: none are drawn.
    """

    def __init__(
        self,
        star: Star,
        posterior: PosteriorModel,
        name: str,
        flux: Float[np.ndarray, " p"],
        ivar: Float[np.ndarray, " p"],
        config: AgentConfig = AgentConfig(),
        meta: dict[str, Any] | None = None,
        folder: Path | None = None,
    ):
        self.star, self.posterior, self.name, self.config = star, posterior, name, config
        self.flux, self.ivar = np.asarray(flux, float), np.asarray(ivar, float)
        self.meta, self.folder = dict(meta or {}), folder
        self._prepared: dict[Any, tuple[np.ndarray, np.ndarray]] = {}
        self._shifts: dict[Any, tuple[looks.Peaks, float, int | None]] = {}

    @property
    def forward(self) -> SpectrumModel:
        return self.star.forward

    @property
    def instrument(self) -> Instrument:
        return self.star.instrument

    def start(self) -> State:
        """The state before the first step."""
        return State(Setup(prior=self.config.prior))

    @cached_property
    def templates(self) -> Float[np.ndarray, "t p"]:
        """The model's own spectra of typical stars."""
        return templates(self.star)

    def spectrum(self, setup: Setup) -> tuple[Float[np.ndarray, " p"], Float[np.ndarray, " p"]]:
        """Flux and ivar under a setup, not normalised: at rest, without what is masked or dropped."""
        flux, ivar = self.flux, self.ivar
        wavelength = self.instrument.wavelength
        if setup.velocity:
            at_rest = doppler_shift(wavelength, -setup.velocity)
            flux, ivar = rebin_to_instrument(at_rest, flux, ivar, self.instrument)
        ivar = np.array(ivar)
        for low, high in setup.masked:
            ivar[(wavelength >= low) & (wavelength <= high)] = 0.0
        for arm in setup.dropped:
            ivar[self.instrument.slices[arm]] = 0.0
        return flux, ivar

    def data(self, setup: Setup) -> Data:
        """The normalised spectrum under a setup, as hypotheses see it."""
        key = (setup.velocity, setup.masked, setup.dropped)
        if key not in self._prepared:
            flux, ivar = self.spectrum(setup)
            normal = prepare_many(
                flux[None].astype(np.float32), ivar[None].astype(np.float32), self.instrument
            )
            self._prepared = {key: (np.asarray(normal[0][0], float), np.asarray(normal[1][0], float))}
        return make_data(*self._prepared[key], self.instrument, self.config.errors)

    def hypothesis(self, name: str, setup: Setup, arm: str | None = None) -> Hypothesis:
        """A hypothesis with what the setup says of continuum, nuisances and prior."""
        prior: LabelPrior = PRIORS[setup.prior]
        hypothesis = make(name, self.star, prior, arm)
        if setup.degree is not None and hypothesis.taper:
            hypothesis = dataclasses.replace(hypothesis, degree=setup.degree)
        widths = dict(setup.widths)
        parameters = tuple(p._replace(sigma=widths.get(p.name, p.sigma)) for p in hypothesis.parameters)
        return dataclasses.replace(hypothesis, parameters=parameters)

    def infer(self, setup: Setup) -> Inference:
        """The network's posterior under a setup, refined and checked."""
        flux, ivar = self.spectrum(setup)
        spectra = Spectra.create(
            flux[None], ivar[None], self.instrument.wavelength, names=[self.name], where=self.name
        )
        prior = STELLAR_PRIORS[setup.prior]
        how = InferenceConfig(self.config.n_draws, self.config.refine, prior, check=self.config.check)
        return infer(spectra, self.posterior, how, key=self.key("infer"), forward=self.forward)

    def key(self, purpose: str) -> Any:
        """A random key of this star and purpose."""
        return jax.random.fold_in(named_key(self.config.seed, purpose), zlib.crc32(self.name.encode()))

    def compare(self, name: str, state: State) -> Evidence:
        """The best fit of a hypothesis under the state's setup, from every start that `starts` gives."""
        data = self.data(state.setup)
        peaks, shift, _ = self.shifts(state.setup)
        data = without_ends(data, max(abs(shift), abs(peaks.first), abs(peaks.second)))
        arm = None
        if name == "fringes":
            model = self.ordinary_model(state)
            seen = looks.ripples(data, model)
            arm = max(seen, key=lambda ripple: ripple.power).arm if seen else None
        hypothesis = self.hypothesis(name, state.setup, arm)
        fits = [fit(self.star, hypothesis, data, x) for x in starts(self, state, hypothesis)]
        best = max(fits, key=lambda fitted: fitted.log_evidence)
        if name == "binary":
            # Which star is the brighter one is a choice that no step of a fit undoes.
            swapped = fit(self.star, hypothesis, data, exchanged(self.star, best.theta))
            best = max(best, swapped, key=lambda fitted: fitted.log_evidence)
        return best

    def shifts(self, setup: Setup) -> tuple[looks.Peaks, float, int | None]:
        """Velocities in the cross-correlation that count (two, 0 where they explain no more than one; and the
        best single one), and the template that it was found with. They decide which pixels all hypotheses
        leave out."""
        key = (setup.velocity, setup.masked, setup.dropped)
        if key not in self._shifts:
            data = self.data(setup)
            single = looks.velocity(data, self.templates)
            place = None if single is None else single[2]
            peaks = looks.two_velocities(data, self.templates[place or 0])
            if peaks.gain < TWO_VELOCITIES:
                peaks = peaks._replace(first=0.0, second=0.0)
            shift = single[0] if single is not None and single[1] < 10.0 else 0.0
            self._shifts = {key: (peaks, shift, place)}
        return self._shifts[key]

    def ordinary_model(self, state: State) -> Float[np.ndarray, " p"]:
        """The best model of an ordinary star so far; before there is one, a template."""
        fitted = state.tried(ORDINARY, state.setup)
        return self.templates[0] if fitted is None else fitted.model


def templates(star: Star) -> Float[np.ndarray, "t p"]:
    """The model's own spectra of typical stars, once for a forward model."""
    if not hasattr(star, "_templates"):
        star._templates = make_template(star.forward).flux  # type: ignore[attr-defined]
    return star._templates  # type: ignore[attr-defined]


def exchanged(star: Star, theta: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """Parameters of a binary with the roles of its stars exchanged."""
    n, label_set = star.n_label, star.label_set
    first = [label_set.index("teff"), label_set.index("logg"), n + 2, n + 3]
    second = [n + 5, n + 6, n + 7, n + 8]
    out = np.array(theta)
    out[first], out[second] = theta[second], theta[first]
    out[-1] = min(1.0 / theta[-1], 1.0)
    return out


def starts(bench: Bench, state: State, hypothesis: Hypothesis) -> list[Float[np.ndarray, " k"]]:
    """Where fits of a hypothesis begin: the labels of the best fit or of `infer` so far, and what a look at
    the spectrum says of the rest."""
    star, n = bench.star, bench.star.n_label
    data = bench.data(state.setup)
    ordinary = state.tried(ORDINARY, state.setup)
    usual = np.zeros(n + 5)
    usual[n + 2], usual[n + 4] = 9.0, 1.0
    if ordinary is not None:
        usual = np.array(ordinary.theta[: n + 5])
    elif state.inferred is not None and np.isfinite(state.inferred[1].labels).all():
        usual[:n] = state.inferred[1].labels[0, :]
    else:
        usual[:n] = star.label_set.scaled_solar(5500.0, 4.0, -0.3)
    own = np.array([p.mean for p in hypothesis.parameters[n + 5 :]])
    first = np.concatenate([usual, own])
    rotating = np.array(first)
    rotating[n + 2] = 250.0
    if hypothesis.name == ORDINARY:
        return [first, rotating]
    if hypothesis.name == "wrong prior":
        giant = np.array(first)
        giant[:n] = star.label_set.scaled_solar(4700.0, 2.2, -0.4)
        dwarf = np.array(first)
        dwarf[:n] = star.label_set.scaled_solar(5700.0, 4.4, -0.2)
        return [first, giant, dwarf]
    if hypothesis.name == "wrong resolving power":
        out = []
        for factor in (0.55, 1.5):
            blunt = np.array(first)
            blunt[n + 2], blunt[n + 4] = 4.0, factor
            out.append(blunt)
        return out
    if hypothesis.name == "fringes":
        seen = looks.ripples(data, bench.ordinary_model(state))
        if seen:
            first[-1] = 1.0 / max(seen, key=lambda ripple: ripple.power).period
        return [first]
    peaks, shift, template = bench.shifts(state.setup)
    if hypothesis.name == "wrong velocity":
        out = []
        for labels in [] if template is None else [star.label_set.scaled_solar(*TEMPLATES[template])]:
            moved = np.array(first)
            moved[:n] = labels
            out.append(moved)
        for moved in (out := [*out, np.array(first)]):
            moved[n + 2], moved[n + 3] = 9.0, shift
        return out
    if hypothesis.name == "binary":
        out = []
        pairs = [(peaks.first, peaks.second)] if peaks.first != peaks.second else [(0.0, 80.0), (0.0, -80.0)]
        for one, two in pairs:
            pair = np.array(first)
            pair[n + 2], pair[n + 3] = 9.0, one
            pair[n + 5 :] = [5500.0, 4.3, 9.0, two, np.clip(peaks.ratio or 0.5, 0.2, 0.9)]
            out.append(pair)
            solar = np.array(pair)
            solar[:n] = star.label_set.scaled_solar(5600.0, 4.0, -0.3)
            out.append(solar)
        return out
    if hypothesis.name == "hot star":
        out = []
        for vsini2 in (900.0, 10000.0):
            hot = np.array(first)
            hot[:n] = star.label_set.scaled_solar(6950.0, 4.0, -0.2)
            hot[n + 2] = vsini2
            out.append(hot)
        return out
    return [first]
