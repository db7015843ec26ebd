"""The main job as one function: posteriors of the labels of observed spectra.

    spectra, refused = read_spectra("night1/*.fits")
    result = infer(spectra)
    result.table()

Spectra are normalised, the network's draws refined against the forward model, the best model compared with
the spectrum, and the flags set. Commands, evaluations, benchmarks and notebooks all call it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jax
import numpy as np
import xarray as xr
from astropy.table import QTable
from jaxtyping import Array, Float, PRNGKeyArray

from jaxspec.amortised.reweighting import sample_under
from jaxspec.amortised.storage import load_weights
from jaxspec.errors import InputError
from jaxspec.fitting.check import Fit, FitConfig, check_posterior
from jaxspec.fitting.importance import ImportanceConfig, importance_sample
from jaxspec.fitting.likelihood import LikelihoodConfig
from jaxspec.fitting.refine import RefineConfig, refine_posterior
from jaxspec.instruments import Instrument
from jaxspec.labels import LabelSet
from jaxspec.physics.forward import load_forward_model
from jaxspec.posterior.model import PosteriorModel
from jaxspec.posterior.results import Posterior
from jaxspec.reading import ReaderConfig, read_for
from jaxspec.runs import named_key
from jaxspec.simulation.nuisances import PURE
from jaxspec.simulation.prior import StellarPrior
from jaxspec.simulation.simulator import SpectrumModel
from jaxspec.spectra import Spectra

NONE, ROBUST, EXACT = REFINEMENTS = ("none", "robust", "exact")


@dataclass(frozen=True)
class InferenceConfig:
    """How spectra are inferred.

    Attributes:
        n_draws: draws of each star.
        refine: `robust` fits the labels of bright stars to the forward model, starting from the network and
            allowing for errors of the model; `exact` weights the draws to the forward model's own posterior,
            as if it were right; `none` keeps the network's draws.
        prior: density of the stars where more is known of them than in training; none: that of the training.
        fit: of the check, and of the robust refinement.
        exact: of the exact refinement; none: as little is known of the resolving power as in the check.
        check: compare the best model with the spectrum. Without it stars are flagged NOT_CHECKED.
    """

    n_draws: int = 2000
    refine: str = ROBUST
    prior: StellarPrior | None = None
    fit: FitConfig = field(default_factory=FitConfig)
    exact: ImportanceConfig | None = None
    check: bool = True

    def __post_init__(self):
        object.__setattr__(self, "refine", refinement(self.refine))
        if self.n_draws < 1:
            raise InputError("n_draws", f"{self.n_draws}", "1 or more", "write n_draws=1000, say")


def refinement(value: str | bool) -> str:
    """The name of a refinement; `true` is robust and `false` none.

    Raises: InputError for another name.
    """
    name = {True: ROBUST, False: NONE, "true": ROBUST, "false": NONE}.get(value, value)
    if name not in REFINEMENTS:
        raise InputError("refine", repr(value), "none, robust or exact", "write refine=robust, say")
    return name


@dataclass(frozen=True, eq=False)
class Inference:
    """Posteriors of a set of spectra, with all that they were made from.

    Attributes:
        posterior: draws of the labels, with statistics and flags.
        flux, ivar: the normalised spectra that network and check saw, `[n, p]`.
        fit: outcome of the check; None without it.
        wavelength: of the pixels [A], `[p]`.
        approximation: of the forward model, "LTE" or "NLTE (...)".
        spectra: the spectra as read; None where they were normalised already.
    """

    posterior: Posterior
    flux: Float[np.ndarray, "n p"]
    ivar: Float[np.ndarray, "n p"]
    fit: Fit | None
    wavelength: Float[np.ndarray, " p"]
    approximation: str
    spectra: Spectra | None = None

    def __len__(self) -> int:
        return len(self.posterior)

    @property
    def label_set(self) -> LabelSet:
        """Names, units and bounds of the labels."""
        return self.posterior.label_set

    @property
    def labels(self) -> Float[np.ndarray, "n l"]:
        """Posterior medians, in the labels' units."""
        return self.posterior.median

    @property
    def errors(self) -> Float[np.ndarray, "n l"]:
        """Half the width of the central 68 % interval."""
        return self.posterior.error

    @property
    def flags(self) -> np.ndarray:
        """Bits of `jaxspec.posterior.flags.Flag`, `[n]`; 0 is safe."""
        return self.posterior.flags

    @property
    def usable(self) -> np.ndarray:
        """Whether labels and errors of each star may be used, `[n]`: no flag rejects them."""
        return self.posterior.usable

    def table(self) -> QTable:
        """One row a star: the table that `jaxspec infer` writes as `labels.fits`."""
        return self.posterior.to_table()

    def datatree(self, with_spectra: bool = True) -> xr.DataTree:
        """The draws in ArviZ's schema, as `jaxspec infer` writes them to `posterior.nc`, on demand with the
        spectra and their best models."""
        observed = None
        if with_spectra:
            dims = ("star", "wavelength")
            observed = {
                "wavelength": (("wavelength",), self.wavelength),
                "flux": (dims, self.flux),
                "ivar": (dims, self.ivar),
            }
            if self.fit is not None:
                observed["model"] = (dims, self.fit.model)
        tree = self.posterior.to_datatree(observed)
        tree.attrs["approximation"] = self.approximation
        return tree


def read_spectra(
    paths: str | Path | Sequence[str | Path],
    posterior: PosteriorModel | None = None,
    *,
    forward: SpectrumModel | None = None,
    config: ReaderConfig | None = None,
) -> tuple[Spectra, list[InputError]]:
    """Read files for `infer`: at rest, on the instrument's pixels. A file that cannot be used is refused by
    name, and the others go on.

    Args:
        paths: a file, a glob pattern, a folder, a list of them, or one store (.h5).
        posterior: whose instrument; by default that of the shipped weights.
        forward: to measure velocities with; by default the shipped one.

    Returns: the spectra, and the errors of the files that were refused.

    Raises: InputError when no file could be used.
    """
    posterior = load_weights(None)[0] if posterior is None else posterior
    forward = load_forward_model(posterior.instrument) if forward is None else forward
    return read_for(paths, forward, config or ReaderConfig())


def infer(
    spectra: Spectra,
    posterior: PosteriorModel | None = None,
    config: InferenceConfig = InferenceConfig(),
    *,
    key: PRNGKeyArray | None = None,
    forward: SpectrumModel | None = None,
) -> Inference:
    """Posteriors of the labels of observed spectra.

    Args:
        spectra: at rest, on the instrument's pixels, on any flux scale (see `read_spectra`).
        posterior: weights; by default the shipped ones.
        config: draws, refinement, prior and check.
        key: by default that of `jaxspec infer` with `seed=1`. The same key gives the same numbers.
        forward: the forward model; by default the shipped one for the instrument.

    Raises: InputError when the spectra are on other pixels.
    """
    posterior = load_weights(None)[0] if posterior is None else posterior
    forward = load_forward_model(posterior.instrument) if forward is None else forward
    key = named_key(1, "inference") if key is None else key
    flux, ivar = posterior.prepare(spectra)
    return infer_prepared(key, posterior, forward, spectra, flux, ivar, config)


def infer_prepared(
    key: PRNGKeyArray,
    posterior: PosteriorModel,
    forward: SpectrumModel,
    spectra: Spectra,
    flux: Float[np.ndarray, "n p"],
    ivar: Float[np.ndarray, "n p"],
    config: InferenceConfig = InferenceConfig(),
) -> Inference:
    """`infer` of observed spectra of which `prepare` has made `flux` and `ivar` already."""
    raised = _raised(spectra, posterior.instrument)
    result = infer_normalised(key, posterior, forward, flux, ivar, config, spectra.names, raised)
    velocity = np.full(len(result), np.nan)
    if spectra.meta:
        velocity = np.array([meta.get("velocity", np.nan) for meta in spectra.meta], float)
    stats = {**result.posterior.stats, "velocity": velocity}
    return dataclasses.replace(
        result, posterior=dataclasses.replace(result.posterior, stats=stats), spectra=spectra
    )


def _raised(spectra: Spectra, instrument: Instrument) -> Float[np.ndarray, "n a"]:
    """Factors by which the reader raised the errors of each arm to keep S/N below `snr_max`."""
    factors = [meta.get("errors_raised", {}) for meta in spectra.meta or [{}] * spectra.n_stars]
    return np.array([[row.get(arm.name, 1.0) for arm in instrument.arms] for row in factors], float)


def infer_normalised(
    key: PRNGKeyArray,
    posterior: PosteriorModel,
    forward: SpectrumModel,
    flux: Float[Array | np.ndarray, "n p"],
    ivar: Float[Array | np.ndarray, "n p"],
    config: InferenceConfig = InferenceConfig(),
    names: tuple[str, ...] | None = None,
    raised: Float[np.ndarray, "n a"] | None = None,
) -> Inference:
    """`infer` of spectra that are normalised already (simulations, or the result of `prepare`). `raised` are
    the factors by which the reader raised the errors of each arm."""
    draws = sample_under(config.prior, posterior, key, flux, ivar, config.n_draws, names)
    refined = refine(jax.random.fold_in(key, 1), forward, draws, flux, ivar, config)
    fit = None
    if config.check:
        limits = posterior.limits
        refined, fit = check_posterior(forward, refined, flux, ivar, config.fit, limits=limits, raised=raised)
    flux, ivar = np.asarray(flux), np.asarray(ivar)
    flagged = posterior.flag(refined, ivar)
    return Inference(flagged, flux, ivar, fit, posterior.instrument.wavelength, forward.approximation)


def refine(
    key: PRNGKeyArray,
    forward: SpectrumModel,
    draws: Posterior,
    flux: Float[Array | np.ndarray, "n p"],
    ivar: Float[Array | np.ndarray, "n p"],
    config: InferenceConfig = InferenceConfig(),
) -> Posterior:
    """A network's draws, refined as `config.refine` says; the flags stay as they were."""
    if config.refine == ROBUST:
        return refine_posterior(key, forward, draws, flux, ivar, RefineConfig(fit=config.fit))
    if config.refine == EXACT:
        exact = config.exact or ImportanceConfig(LikelihoodConfig(_as_in_the_check(config.fit)))
        return importance_sample(key, forward, draws, flux, ivar, exact)
    return draws


def _as_in_the_check(fit: FitConfig):
    return dataclasses.replace(
        PURE, resolution_mean=fit.resolution_mean, resolution_scatter=fit.resolution_prior
    )
