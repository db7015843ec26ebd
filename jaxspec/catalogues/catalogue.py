"""A table of labelled stars after the door: labels with covariances, identifiers, flags, and where they came
from."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from jaxspec.catalogues.cells import is_nameless
from jaxspec.catalogues.identifiers import Identifiers
from jaxspec.errors import InputError
from jaxspec.labels import LabelSet


@dataclass(frozen=True)
class Catalogue:
    """One table of labelled stars, n rows, every number in jaxspec's units and on one solar scale.

    Every reader of this package returns it: it is what surveys are calibrated from, what a network is trained
    on, and what spectra are synthesised for.

    - `labels [n, l]`: in the order of `label_set`; NaN where not measured, or an upper limit only.
      `covariance [n, l, l]`: of the quoted errors; NaN on the diagonal of labels whose error is not known, 0
      in rows and columns of labels that are not measured.
    - `flags [n]`: bits, 0 is safe; `flag_meaning` says what each bit stands for.
    - `names`, `files`: what the table calls the star, and the file of its spectrum without folder; "" where
      not given, empty for a table without any.
    - `facts`: further numbers of each row `[n]`: `snr`, and `velocity`, `vmic`, `vsini` in km/s.
    - `magnitude [n]`: in `band`, to check matches with; NaN where not known.
    - `cluster [n]`: name of the open cluster, "" for none.
    - `errors_only`: the table has errors; what `covariance` has beside its diagonal is a guess.
    - `anchor`: the labels are absolute. `solar`: the solar scale the abundances are on now, in words.
    - `notes`: what was converted, left out or assumed, one sentence each. `provenance`: the file, its
      SHA-256, its rows, and the Sun's A(X) where they are known.
    """

    name: str
    label_set: LabelSet
    identifiers: Identifiers
    labels: Float[np.ndarray, "n l"]
    covariance: Float[np.ndarray, "n l l"]
    flags: Int[np.ndarray, " n"]
    flag_meaning: dict[int, str] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    facts: Mapping[str, Float[np.ndarray, " n"]] = field(default_factory=dict)
    magnitude: Float[np.ndarray, " n"] | None = None
    band: str = ""
    cluster: Shaped[np.ndarray, " n"] | None = None
    anchor: bool = False
    errors_only: bool = True
    solar: str = "not stated"
    notes: tuple[str, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def errors(self) -> Float[np.ndarray, "n l"]:
        """Quoted errors, NaN where the label is not measured or its error is not known."""
        variance = np.diagonal(self.covariance, axis1=1, axis2=2)
        return np.where(np.isfinite(self.labels), np.sqrt(variance), np.nan)

    @property
    def complete(self) -> Bool[np.ndarray, " n"]:
        """Stars with a finite value and error for every label."""
        return np.isfinite(self.labels).all(1) & np.isfinite(self.errors).all(1)

    @property
    def trusted(self) -> Bool[np.ndarray, " n"]:
        """Stars whose labels the table's own flags do not call into question."""
        return self.flags == 0

    @property
    def snr(self) -> Float[np.ndarray, " n"]:
        """Signal-to-noise ratio, NaN where not given."""
        return self._fact("snr")

    @property
    def velocity(self) -> Float[np.ndarray, " n"]:
        """Radial velocity [km/s], NaN where not given."""
        return self._fact("velocity")

    @property
    def vmic(self) -> Float[np.ndarray, " n"]:
        """Microturbulence [km/s], NaN where not given."""
        return self._fact("vmic")

    @property
    def vsini(self) -> Float[np.ndarray, " n"]:
        """Projected rotation velocity [km/s], NaN where not given."""
        return self._fact("vsini")

    def _fact(self, name: str) -> np.ndarray:
        return self.facts[name] if name in self.facts else np.full(len(self), np.nan)

    def rows(self, which: np.ndarray) -> "Catalogue":
        """The catalogue of these rows (indices or a mask)."""
        index = np.arange(len(self))[which]
        picked: dict[str, Any] = {
            name: None if getattr(self, name) is None else getattr(self, name)[index]
            for name in ("labels", "covariance", "flags", "magnitude", "cluster")
        }
        texts: dict[str, Any] = {
            name: tuple(getattr(self, name)[i] for i in index) if getattr(self, name) else ()
            for name in ("names", "files")
        }
        facts = {name: values[index] for name, values in self.facts.items()}
        return replace(self, identifiers=self.identifiers.rows(index), facts=facts, **picked, **texts)

    def check_unique(self) -> None:
        """Raise `InputError` when two rows are of one star and file: a join by name would take either."""
        seen: dict[tuple[str, str], int] = {}
        files = self.files or ("",) * len(self)
        names = ("" if is_nameless(name) else name for name in self.names)
        for i, key in enumerate(zip(names, files, strict=True)):
            if key in seen and any(key):
                raise InputError(
                    f"{self.provenance.get('file', self.name)} rows {seen[key]} and {i}",
                    f"the same star {key[0]!r} twice",
                    "one row for a star (and file)",
                    "remove one of them",
                )
            seen[key] = i
