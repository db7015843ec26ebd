"""Results of a calibration: draws of every survey's terms, how far to trust them, and a file of both."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import xarray as xr
from astropy.table import QTable
from jaxtyping import Bool, Float

import jaxspec
from jaxspec import artefacts
from jaxspec.errors import InputError
from jaxspec.labels import LabelSet, label_set
from jaxspec.runs import atomically
from jaxspec.surveys.basis import Basis
from jaxspec.surveys.mixture import Mixture
from jaxspec.surveys.model import GroupPrior
from jaxspec.surveys.quoted import QuotedErrors
from jaxspec.surveys.scales import Scales, trend_names

KIND, ATTRIBUTE = "calibration", "artefact"
REMAKE = "fit again: experiments.calibrate output=FOLDER"

# Terms of the surveys and of the population that are kept draw by draw, with the names of their axes.
TERMS = {
    "zero_point": ("survey", "label"),
    "trend": ("survey", "label", "basis"),
    "scatter": ("survey", "label", "label_"),
    "inflation": ("survey", "label"),
    "correlation": ("survey", "label", "label_"),
    "outlier_centre": ("survey", "label"),
    "outlier_width": ("survey", "label"),
    "outlier_logit": ("survey",),
    "outlier_flag": ("survey",),
}
POPULATION = {
    "mean": ("component", "label"),
    "root": ("component", "label", "label_"),
    "log_det": ("component",),
    "log_weight": ("class", "component"),
    "group": ("group", "element"),
    "group_scatter": (),
}


@dataclass(frozen=True)
class Diagnostics:
    """Whether the draws can be trusted.

    Attributes:
        method: `nuts`, `laplace` or `svi`.
        divergences: number of divergent transitions after warm-up.
        r_hat: largest split R-hat of any parameter; NaN for methods without chains.
        ess: smallest effective sample size of any parameter.
        worst: the parameter with that smallest size.
        acceptance: mean acceptance probability.
        steps: leapfrog steps taken after warm-up.
        seconds: wall time of the fit.
        more: numbers of one method, such as the p-values of `variational_sbc`.
    """

    method: str
    divergences: int
    r_hat: float
    ess: float
    worst: str
    acceptance: float
    steps: int
    seconds: float
    more: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Calibration:
    """The posterior of the survey model, on the host.

    Attributes:
        label_set: the labels.
        names: names of the surveys.
        is_anchor: which of them are anchors.
        measured: labels that each survey measures.
        scales: coordinates of everything below.
        trend: kind of the trends' basis.
        terms: draws `[n_draws, ...]` of what belongs to surveys, in model coordinates (see `SurveyTerms`).
        population: draws of the population (see `PopulationTerms`).
        mixtures: what the stars of each survey look like on its own scale, noise taken off.
        quoted: what errors each survey quotes for which stars.
        group_prior: what members of groups may be.
        messages: what is convention, and what rests on little.
        diagnostics: whether to trust the draws.
    """

    label_set: LabelSet
    names: tuple[str, ...]
    is_anchor: Bool[np.ndarray, " s"]
    measured: Bool[np.ndarray, "s l"]
    scales: Scales
    trend: str
    terms: dict[str, np.ndarray]
    population: dict[str, np.ndarray]
    mixtures: tuple[Mixture, ...]
    quoted: tuple[QuotedErrors, ...]
    group_prior: GroupPrior
    messages: tuple[str, ...]
    diagnostics: Diagnostics

    @property
    def basis(self) -> Basis:
        """The functions that trends are made of."""
        return Basis(self.trend, len(self.scales.inputs))

    @property
    def typical_error(self) -> Float[np.ndarray, "s l"]:
        """Median quoted variances of each survey, model units; NaN where a label is not measured."""
        return np.stack([quoted.typical for quoted in self.quoted])

    @property
    def n_draws(self) -> int:
        return len(self.terms["zero_point"])

    def index(self, name: str) -> int:
        """Position of a survey by name. Raises `InputError` for an unknown one."""
        if name not in self.names:
            raise InputError(
                "survey name", repr(name), f"one of {', '.join(self.names)}", "check the spelling"
            )
        return self.names.index(name)

    @property
    def coefficients(self) -> Float[np.ndarray, "d s l p1"]:
        """Draws of zero points and trends side by side, model coordinates."""
        return np.concatenate([self.terms["zero_point"][..., None], self.terms["trend"]], axis=-1)

    def offset(
        self, survey: str, labels: Float[np.ndarray, "n l"]
    ) -> tuple[Float[np.ndarray, "n l"], Float[np.ndarray, "n l"]]:
        """Mean and standard deviation of a survey's offset (survey minus common scale) at true labels, in
        the labels' units."""
        u = self.scales.to_model(np.asarray(labels, float)) @ self.scales.input_matrix.T
        x = np.concatenate([np.ones((len(u), 1)), self.basis.values(u)], axis=1)
        draws = self.coefficients[:, self.index(survey)]
        mean = x @ draws.mean(axis=0).T
        d = (draws - draws.mean(axis=0)).reshape(len(draws), -1)
        covariance = (d.T @ d / len(draws)).reshape(*draws.shape[1:], *draws.shape[1:])
        variance = np.einsum("na,lalb,nb->nl", x, covariance, x)
        return mean * self.scales.step, np.sqrt(np.maximum(variance, 0.0)) * self.scales.step

    def offsets(self) -> QTable:
        """One row per survey, label and term: columns `survey`, `label`, `term`, `mean`, `sd`, `unit`.

        Terms are `zero_point`, the offset at the pivot (in `meta`); the slopes `teff`, per 1000 K, and
        `logg` and `fe_h`, per dex, at the pivot; `scatter`, the survey's own; `inflation`, the factor on its
        quoted errors; and per survey, with no label, the `outlier_rate` of rows without flags. Surveys' terms
        for labels that they do not measure are left out, as are those of anchors.
        """
        rows: list[tuple[str, str, str, float, float, str]] = []
        slope_at_pivot = self.basis.slopes(np.zeros((1, len(self.scales.inputs))))[0]
        terms = trend_names(self.label_set, self.scales)
        for s in np.flatnonzero(~self.is_anchor):
            for i in np.flatnonzero(self.measured[s]):
                label, step = self.label_set.labels[i], self.scales.step[i]
                slopes = (
                    self.terms["trend"][:, s, i] @ slope_at_pivot * (self.scales.natural / self.scales.spread)
                )
                draws = np.column_stack([self.terms["zero_point"][:, s, i], slopes]) * step
                units = [label.unit] + [
                    f"{label.unit} / ({n:g} {self.label_set.labels[j].unit})"
                    for n, j in zip(self.scales.natural, self.scales.inputs, strict=True)
                ]
                scatter = np.sqrt(self.terms["scatter"][:, s, i, i]) * step
                inflation = self.terms["inflation"][:, s, i]
                for term, values, unit in zip(
                    (*terms, "scatter", "inflation"),
                    (*draws.T, scatter, inflation),
                    (*units, label.unit, ""),
                    strict=True,
                ):
                    rows.append((self.names[s], label.name, term, values.mean(), values.std(), unit))
            rate = 1.0 / (1.0 + np.exp(-self.terms["outlier_logit"][:, s]))
            rows.append((self.names[s], "", "outlier_rate", rate.mean(), rate.std(), ""))
        table = QTable(rows=rows, names=("survey", "label", "term", "mean", "sd", "unit"))
        table.meta["pivot"] = {
            label.name: float(p) for label, p in zip(self.label_set, self.scales.pivot, strict=True)
        }
        table.meta["messages"] = list(self.messages)
        table.meta["creator"] = f"jaxspec {jaxspec.__version__}"
        return table

    def save(self, path: str | Path) -> None:
        """Write everything to one netCDF file, draws in ArviZ's groups; its attribute `artefact` says what it
        is (see `jaxspec.artefacts`)."""
        scales, path = self.scales, Path(path)
        settings = {
            "labels": self.label_set.names,
            "surveys": self.names,
            "inputs": scales.inputs,
            "trend": self.trend,
            "shared": self.group_prior.labels,
            "messages": self.messages,
            "diagnostics": vars(self.diagnostics),
        }
        posterior = {name: (("draw", *axes), self.terms[name]) for name, axes in TERMS.items()}
        for name, axes in POPULATION.items():
            posterior[f"population_{name}"] = (("draw", *axes), self.population[name])
        constants = {
            "is_anchor": ("survey", self.is_anchor),
            "measured": (("survey", "label"), self.measured),
            "pivot": ("label", scales.pivot),
            "step": ("label", scales.step),
            "spread": ("input", scales.spread),
            "natural": ("input", scales.natural),
            "group_moments": (("moment", "label"), self.group_prior.moments),
        }
        for s, mixture in enumerate(self.mixtures):
            k = f"mixture_component_{s}"
            constants[f"mixture_{s}_weight"] = (k, mixture.weight)
            constants[f"mixture_{s}_mean"] = ((k, "label"), mixture.mean)
            constants[f"mixture_{s}_covariance"] = ((k, "label", "label_"), mixture.covariance)
        for s, quoted in enumerate(self.quoted):
            row = f"quoted_row_{s}"
            constants[f"quoted_{s}_inputs"] = ((row, "input"), quoted.inputs)
            constants[f"quoted_{s}_variance"] = ((row, "label"), quoted.variance)
        config = artefacts.describe(KIND, settings, artefacts.domain(self.label_set))
        config["arrays"] = {"sha256": _checksum(xr.Dataset(posterior), xr.Dataset(constants))}
        attrs = {
            "created_at": config["created_at"],
            "creation_library": "jaxspec",
            "creation_library_version": jaxspec.__version__,
            "sample_dims": ["draw"],
            ATTRIBUTE: artefacts.to_json(config),
        }
        tree = xr.DataTree.from_dict(
            {
                "/": xr.Dataset(attrs=attrs),
                "posterior": xr.Dataset(posterior),
                "constant_data": xr.Dataset(constants),
            }
        )
        atomically(path, lambda temporary: tree.to_netcdf(temporary, engine="h5netcdf"))

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read what `save` wrote.

        Raises: InputError for another kind of file, a newer format, arrays that are damaged, and entries that
        this version does not know.
        """
        try:
            with xr.open_datatree(Path(path), engine="h5netcdf") as tree:
                attrs = dict(tree.attrs)
                draws, constants = (tree[x].to_dataset().load() for x in ("posterior", "constant_data"))
            # Files of format 1 have their settings alone.
            meta = json.loads(attrs[ATTRIBUTE if ATTRIBUTE in attrs else "calibration"])
        except Exception as error:  # h5netcdf answers damage with errors of many types
            raise InputError(
                f"{path}", f"no calibration ({error})", "a file that Calibration.save wrote", REMAKE
            ) from error
        config = meta
        if ATTRIBUTE in attrs:
            artefacts.check(f"{path}", meta, KIND, REMAKE)
            artefacts.check_sha256(f"{path}", _checksum(draws, constants), meta["arrays"]["sha256"])
            meta = meta["settings"]
        with artefacts.understood(f"{path}", config, REMAKE):
            posterior = {k: v.values for k, v in draws.data_vars.items()}
            constant = {k: v.values for k, v in constants.data_vars.items()}
            mixtures = tuple(
                Mixture(*(constant[f"mixture_{s}_{part}"] for part in ("weight", "mean", "covariance")))
                for s in range(len(meta["surveys"]))
            )
            scales = Scales(
                constant["pivot"],
                constant["step"],
                tuple(meta["inputs"]),
                constant["spread"],
                constant["natural"],
            )
            return cls(
                label_set=label_set(*meta["labels"]),
                names=tuple(meta["surveys"]),
                is_anchor=constant["is_anchor"].astype(bool),
                measured=constant["measured"].astype(bool),
                scales=scales,
                trend=meta["trend"],
                terms={name: posterior[name] for name in TERMS},
                population={name: posterior[f"population_{name}"] for name in POPULATION},
                mixtures=mixtures,
                quoted=tuple(
                    QuotedErrors(constant[f"quoted_{s}_inputs"], constant[f"quoted_{s}_variance"])
                    for s in range(len(meta["surveys"]))
                ),
                group_prior=GroupPrior(constant["group_moments"], tuple(meta["shared"])),
                messages=tuple(meta["messages"]),
                diagnostics=Diagnostics(**meta["diagnostics"]),
            )


def _checksum(*groups: xr.Dataset) -> str:
    return artefacts.contents(
        {str(name): np.asarray(x.values, float) for group in groups for name, x in group.data_vars.items()}
    )
