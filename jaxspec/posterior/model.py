"""The interface of anything that gives posteriors of spectra, as inference, evaluation and reports use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from jaxspec.instruments import Instrument
from jaxspec.labels import LabelSet
from jaxspec.posterior.limits import Limits
from jaxspec.posterior.results import Posterior
from jaxspec.simulation.prior import StellarPrior
from jaxspec.spectra import Spectra


@runtime_checkable
class PosteriorModel(Protocol):
    """A conditional density of labels given a spectrum, with all it takes to use it: `AmortisedPosterior`,
    `Ensemble`, and whatever else has these members.

    Attributes (some are properties):
        label_set: names, units and bounds of the labels.
        instrument: on whose pixels spectra must be.
        prior: of the training; None where there was none.
        limits: what the statistics of ordinary spectra do not exceed; None where they were not calibrated.
        provenance: facts about the training.
    """

    @property
    def label_set(self) -> LabelSet: ...

    @property
    def instrument(self) -> Instrument: ...

    @property
    def prior(self) -> StellarPrior | None: ...

    @property
    def limits(self) -> Limits | None: ...

    @property
    def provenance(self) -> Mapping[str, Any]: ...

    def prepare(self, spectra: Spectra) -> tuple[Float[np.ndarray, "s p"], Float[np.ndarray, "s p"]]:
        """Normalised flux and ivar of observed spectra."""
        ...

    def sample_normalised(
        self,
        key: PRNGKeyArray,
        flux: Float[Array | np.ndarray, "s p"],
        ivar: Float[Array | np.ndarray, "s p"],
        n: int = 1000,
        batch: int = 64,
        names: tuple[str, ...] | None = None,
    ) -> Posterior:
        """`n` draws of the labels for each normalised spectrum, with flags."""
        ...

    def log_prob(
        self,
        labels: Float[Array | np.ndarray, "*k s l"],
        flux: Float[Array | np.ndarray, "s p"],
        ivar: Float[Array | np.ndarray, "s p"],
    ) -> Float[Array, "*k s"]:
        """Log-density at given labels."""
        ...

    def flag(self, result: Posterior, ivar: Float[Array | np.ndarray, "s p"]) -> Posterior:
        """`result` with the flags that it deserves now."""
        ...
