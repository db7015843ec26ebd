"""From a request to labels: the work of the server, without HTTP."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from jaxspec.amortised.amortised import AmortisedPosterior
from jaxspec.errors import InputError
from jaxspec.inference import Inference, InferenceConfig, infer_prepared
from jaxspec.instruments import Instrument
from jaxspec.io.raw import RawSpectrum
from jaxspec.io.spectrum import FRAMES, MEDIA
from jaxspec.labels import LabelSet
from jaxspec.posterior.limits import Limits as PosteriorLimits
from jaxspec.posterior.results import Posterior
from jaxspec.reading import ReaderConfig, make_template, place_spectrum
from jaxspec.runs import named_key
from jaxspec.serving.protocol import Request
from jaxspec.simulation.prior import StellarPrior
from jaxspec.simulation.simulator import SpectrumModel
from jaxspec.spectra import Spectra, validate

QUANTILES = (0.16, 0.5, 0.84)
MEASURE = "measure"
INPUTS = {"flux": ("FP64", ["n", "p"]), "ivar": ("FP64", ["n", "p"]), "wavelength": ("FP64", ["p"])}
OPTIONAL = {"velocity": ("FP64", ["n"])}
OUTPUTS = {
    "labels": ("FP64", ["n", "l"]),
    "errors": ("FP64", ["n", "l"]),
    "quantiles": ("FP64", ["n", len(QUANTILES), "l"]),
    "flags": ("INT64", ["n"]),
    "snr": ("FP64", ["n"]),
    "chi2": ("FP64", ["n"]),
    "velocity": ("FP64", ["n"]),
}
ON_DEMAND = {"draws": ("FP32", ["n", "d", "l"]), "log_prob": ("FP32", ["n", "d"])}
PARAMETERS = ("seed", "velocity", "medium", "frame", "resolving_power")
# What clients of the protocol send along, and a server may leave unread.
UNREAD = ("timeout", "priority", "sequence_id", "sequence_start", "sequence_end")


@dataclass(frozen=True)
class Limits:
    """Limits of a request.

    Attributes:
        stars: spectra of one request.
        pixels: of one spectrum.
    """

    stars: int = 64
    pixels: int = 200_000


@dataclass(frozen=True)
class Job:
    """A request that was understood: spectra at rest on the instrument's pixels, and the key to draw by."""

    spectra: Spectra
    key: PRNGKeyArray
    wanted: tuple[str, ...]


@dataclass(frozen=True)
class WithContext:
    """A posterior model that draws from contexts worked out before, for the spectra that they are of."""

    posterior: AmortisedPosterior
    context: Float[np.ndarray, "s k"]

    @property
    def label_set(self) -> LabelSet:
        """Of the posterior, as all that follows."""
        return self.posterior.label_set

    @property
    def instrument(self) -> Instrument:
        return self.posterior.instrument

    @property
    def prior(self) -> StellarPrior | None:
        return self.posterior.prior

    @property
    def limits(self) -> PosteriorLimits | None:
        return self.posterior.limits

    @property
    def provenance(self) -> Mapping[str, Any]:
        return self.posterior.provenance

    def prepare(self, spectra: Spectra) -> tuple[Float[np.ndarray, "s p"], Float[np.ndarray, "s p"]]:
        return self.posterior.prepare(spectra)

    def log_prob(
        self,
        labels: Float[Array | np.ndarray, "*k s l"],
        flux: Float[Array | np.ndarray, "s p"],
        ivar: Float[Array | np.ndarray, "s p"],
    ) -> Float[Array, "*k s"]:
        return self.posterior.log_prob(labels, flux, ivar)

    def flag(self, result: Posterior, ivar: Float[Array | np.ndarray, "s p"]) -> Posterior:
        return self.posterior.flag(result, ivar)

    def sample_normalised(
        self,
        key: PRNGKeyArray,
        flux: Float[Array | np.ndarray, "s p"],
        ivar: Float[Array | np.ndarray, "s p"],
        n: int = 1000,
        batch: int = 64,
        names: tuple[str, ...] | None = None,
    ) -> Posterior:
        """As the posterior's own."""
        return self.posterior.sample_given(key, self.context, flux, ivar, n, batch, names)


class Engine:
    """Answers requests, with the numbers of `jaxspec.infer` and the command, for the same
    spectrum and seed.

    Args:
        posterior: one network.
        config: draws, refinement and check, the same for all requests.
        reader: what to take where a request says nothing.
    """

    def __init__(
        self,
        posterior: AmortisedPosterior,
        forward: SpectrumModel,
        config: InferenceConfig,
        reader: ReaderConfig,
        limits: Limits = Limits(),
    ):
        self.posterior, self.forward, self.config = posterior, forward, config
        self.reader, self.limits = reader, limits
        self.template = make_template(forward)

    def warm_up(self) -> None:
        """Compile what a request of one spectrum needs, on the model's own."""
        flux = np.asarray(self.template.flux[:1], np.float64)
        spectra = Spectra.create(flux, np.full(flux.shape, 1e4), self.template.wavelength)
        self.work([Job(spectra, named_key(1, "inference"), tuple(OUTPUTS))])

    def read(self, request: Request) -> Job:
        """Check a request, and put its spectra on the instrument's pixels.

        Raises: InputError naming the input or parameter that cannot be used.
        """
        flux, ivar, wavelength, velocity = self._arrays(request)
        reader, seed = self._options(request)
        rows = []
        for i in range(len(flux)):
            name = f"spectrum {i}"
            config = reader if velocity is None else dataclasses.replace(reader, velocity=float(velocity[i]))
            grid, light, weight = (x.astype(np.float64) for x in (wavelength, flux[i], ivar[i]))
            raw = RawSpectrum("request", grid, light, weight, np.zeros(len(wavelength), np.int32))
            rows.append(place_spectrum(raw, name, self.template, self.posterior.instrument, config))
        wanted = tuple(OUTPUTS) if request.outputs is None else tuple(request.outputs)
        for name in wanted:
            if name not in OUTPUTS | ON_DEMAND:
                raise InputError(
                    "outputs", repr(name), f"one of {', '.join(OUTPUTS | ON_DEMAND)}", "leave it out"
                )
        spectra = Spectra.create(
            np.stack([row.flux for row in rows]),
            np.stack([row.ivar for row in rows]),
            self.posterior.instrument.wavelength,
            names=[row.name for row in rows],
            meta=[row.meta for row in rows],
        )
        return Job(spectra, named_key(seed, "inference"), wanted)

    def work(self, jobs: list[Job]) -> list[tuple[dict[str, np.ndarray], dict[str, Any]] | Exception]:
        """Outputs and response parameters of each job, or what went wrong with it alone. Normalisation and
        network run on all spectra at once; every job draws by its own key, as if it were alone."""
        flux = np.concatenate([np.asarray(job.spectra.flux) for job in jobs])
        ivar = np.concatenate([np.asarray(job.spectra.ivar) for job in jobs])
        # Few shapes, few compilations.
        rest = (1 << (len(flux) - 1).bit_length()) - len(flux)
        padded = np.pad(flux, ((0, rest), (0, 0)), constant_values=1.0), np.pad(ivar, ((0, rest), (0, 0)))
        grid = self.posterior.instrument.wavelength
        flux, ivar = self.posterior.prepare(Spectra.create(*padded, grid))
        context = self.posterior.contexts(flux, ivar)
        results: list[Any] = []
        start = 0
        for job in jobs:
            rows = slice(start, start + job.spectra.n_stars)
            start = rows.stop
            known = WithContext(self.posterior, context[rows])
            try:
                result = infer_prepared(
                    job.key, known, self.forward, job.spectra, flux[rows], ivar[rows], self.config
                )
                results.append(self._outputs(job, result))
            except Exception as error:
                results.append(error)
        return results

    def _outputs(self, job: Job, result: Inference) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        posterior = result.posterior
        made = {
            "labels": lambda: np.asarray(result.labels, float),
            "errors": lambda: np.asarray(result.errors, float),
            "quantiles": lambda: np.moveaxis(np.quantile(posterior.draws, QUANTILES, axis=0), 0, 1),
            "flags": lambda: np.asarray(posterior.flags, np.int64),
            "snr": lambda: np.asarray(posterior.snr, float),
            "chi2": lambda: np.asarray(posterior.chi2, float),
            "velocity": lambda: np.asarray(posterior.stats["velocity"], float),
            "draws": lambda: np.moveaxis(np.asarray(posterior.draws, np.float32), 0, 1),
            "log_prob": lambda: np.moveaxis(np.asarray(posterior.log_prob, np.float32), 0, 1),
        }
        assumed = [{k: str(v) for k, v in meta.get("assumed", {}).items()} for meta in job.spectra.meta]
        parameters = {
            "label_names": ",".join(result.label_set.names),
            "approximation": result.approximation,
            "refine": self.config.refine,
            "assumed": "; ".join(
                f"spectrum {i}, {k}: {v}" for i, said in enumerate(assumed) for k, v in said.items()
            ),
        }
        return {name: made[name]() for name in job.wanted}, parameters

    def _arrays(self, request: Request):
        inputs, limits = dict(request.inputs), self.limits
        for name in inputs:
            if name not in INPUTS | OPTIONAL:
                raise InputError("inputs", repr(name), f"{', '.join(INPUTS | OPTIONAL)}", "leave it out")
        for name in INPUTS:
            if name not in inputs:
                raise InputError(f"input {name}", "nothing", "an array of numbers", "send it")
        flux, ivar = (np.atleast_2d(np.asarray(inputs[k], np.float64)) for k in ("flux", "ivar"))
        wavelength = np.asarray(inputs["wavelength"], np.float64)
        if flux.ndim != 2 or not 1 <= len(flux) <= limits.stars:
            raise InputError(
                "input flux",
                f"shape {list(flux.shape)}",
                f"[n, p] with 1 to {limits.stars} spectra",
                "send fewer",
            )
        if not 2 <= flux.shape[1] <= limits.pixels:
            raise InputError(
                "input flux",
                f"{flux.shape[1]} pixels",
                f"2 to {limits.pixels}",
                "cut the spectra to the arms",
            )
        for name, array, shape in (("ivar", ivar, flux.shape), ("wavelength", wavelength, flux.shape[1:])):
            if array.shape != shape:
                raise InputError(
                    f"input {name}",
                    f"shape {list(array.shape)}",
                    f"{list(shape)}, as flux has",
                    "send it whole",
                )
        validate(flux, ivar, wavelength, "inputs")
        velocity = inputs.get("velocity")
        if velocity is not None:
            velocity = np.asarray(velocity, np.float64).reshape(-1)
            if velocity.shape != (len(flux),) or not np.isfinite(velocity).all():
                raise InputError(
                    "input velocity",
                    f"{velocity[:4]}",
                    f"{len(flux)} finite numbers [km/s]",
                    "send one a spectrum",
                )
        return flux, ivar, wavelength, velocity

    def _options(self, request: Request) -> tuple[ReaderConfig, int]:
        given = {k: v for k, v in request.parameters.items() if k not in UNREAD}
        for name, value in given.items():
            if name not in PARAMETERS:
                raise InputError("parameters", repr(name), f"{', '.join(PARAMETERS)}", "leave it out")
            expected = {"seed": (int,), "resolving_power": (int, float), "velocity": (int, float, str)}
            if not isinstance(value, expected.get(name, (str,))) or isinstance(value, bool):
                raise InputError(
                    f"parameter {name}", repr(value)[:80], "a value of another type", "see the metadata"
                )
            if isinstance(value, float) and not np.isfinite(value):
                raise InputError(f"parameter {name}", str(value), "a finite number", "leave it out")
        for name, choices in (("medium", MEDIA), ("frame", FRAMES)):
            if given.get(name, choices[0]) not in choices:
                raise InputError(
                    f"parameter {name}", repr(given[name])[:80], " or ".join(choices), f"use {choices[0]!r}"
                )
        if given.get("resolving_power", 1.0) <= 0:
            raise InputError(
                "parameter resolving_power",
                str(given["resolving_power"]),
                "a positive number",
                "use 20000, say",
            )
        seed = given.pop("seed", 1)
        if not 0 <= seed < 1 << 31:
            raise InputError("parameter seed", str(seed), f"0 to {(1 << 31) - 1}", "choose another")
        velocity = given.pop("velocity", None)
        if isinstance(velocity, str):
            if velocity != MEASURE:
                raise InputError(
                    "parameter velocity",
                    repr(velocity),
                    f"km/s or {MEASURE!r}",
                    f"use 12.5, say, or {MEASURE!r}",
                )
            if "velocity" in request.inputs:
                raise InputError(
                    "parameter velocity", repr(velocity), "nothing beside the input velocity", "leave one out"
                )
            return dataclasses.replace(self.reader, measure_velocity=True, velocity=None, **given), seed
        if velocity is not None:
            given["velocity"] = float(velocity)
        return dataclasses.replace(self.reader, **given), seed
