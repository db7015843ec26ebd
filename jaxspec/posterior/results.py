"""Results of inference: draws of the labels with what is needed to trust them, as a table and as a
DataTree."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import astropy.units as u
import numpy as np
import xarray as xr
from astropy.table import Column, QTable
from jaxtyping import Float, Int

import jaxspec
from jaxspec.errors import InputError
from jaxspec.labels import LabelSet, label_set
from jaxspec.posterior import flags as flag_bits
from jaxspec.settings import build
from jaxspec.simulation.prior import StellarPrior

# Root attribute of a file: the prior under which the draws are, as JSON, null for labels of a survey.
PRIOR = "training_prior"
# Statistics of an exact refinement (see `importance`) and of another prior: in a table, beside the labels.
REFINEMENT = {
    "prior_efficiency": ("effective share of the network's draws under the given prior", "stat.value"),
    "efficiency": ("effective share of the draws of the exact posterior", "stat.value"),
    "pareto_k": ("tail of the draws' weights, to be trusted below 0.6 to 0.7", "stat.param"),
    "r_hat": ("of tempered populations, where pareto_k is too large; agreed below 1.05", "stat.param"),
    "proposal": ("draws from 0 the network, 1 about the best fit, 2 adapted, 3 tempered", "meta.code"),
    "log_evidence": ("natural log of the evidence, given model and priors", "stat.likelihood"),
}


@dataclass(frozen=True)
class Posterior:
    """Posterior draws of a set of stars, on the host.

    Attributes:
        draws: labels in their own units, `[n_draws, n_star, n_label]`, in the order of `label_set`.
        log_prob: natural log of the posterior density of each draw per unit of all labels.
        label_set: names, units and bounds of the labels.
        names: one name per star (the file it came from).
        snr: median signal-to-noise per usable pixel.
        chi2: reduced chi-square against the forward model (see `jaxspec.fitting.check`); NaN where not
            checked.
        flags: bits of `jaxspec.posterior.flags.Flag`; 0 is safe.
        stats: further numbers per star (`[n_star]` each), written beside the draws.
        prior: density of the labels under which the draws are: that of the training, or another one (see
            `jaxspec.amortised.reweighting`); None where the network was trained on a survey.
        raw: draws as the network gave them, where `draws` are recalibrated.
    """

    draws: Float[np.ndarray, "n_draws n_star n_label"]
    log_prob: Float[np.ndarray, "n_draws n_star"]
    label_set: LabelSet
    names: tuple[str, ...]
    snr: Float[np.ndarray, " n_star"]
    chi2: Float[np.ndarray, " n_star"]
    flags: Int[np.ndarray, " n_star"]
    stats: dict[str, np.ndarray] = field(default_factory=dict)
    prior: StellarPrior | None = None
    raw: Float[np.ndarray, "n_draws n_star n_label"] | None = None

    def __post_init__(self):
        n_draws, n_star, n_label = self.draws.shape
        if n_label != len(self.label_set):
            raise InputError(
                "posterior.draws",
                f"{n_label} labels",
                f"{len(self.label_set)}",
                "use the label set of the draws",
            )
        for name, expected in (
            ("log_prob", (n_draws, n_star)),
            ("snr", (n_star,)),
            ("chi2", (n_star,)),
            ("flags", (n_star,)),
        ):
            if np.shape(getattr(self, name)) != expected:
                raise InputError(
                    f"posterior.{name}",
                    f"shape {np.shape(getattr(self, name))}",
                    f"{expected}",
                    "one value per star",
                )
        if len(self.names) != n_star:
            raise InputError("posterior.names", f"{len(self.names)} names", f"{n_star}", "name every star")

    def __len__(self) -> int:
        return len(self.names)

    def quantile(self, q: float) -> Float[np.ndarray, "n_star n_label"]:
        """Marginal quantile of every label."""
        return np.quantile(self.draws, q, axis=0).astype(np.float64)

    @property
    def median(self) -> Float[np.ndarray, "n_star n_label"]:
        """Marginal medians."""
        return self.quantile(0.5)

    @property
    def error(self) -> Float[np.ndarray, "n_star n_label"]:
        """Half the width of the central 68 % interval: one sigma where the posterior is Gaussian, and robust
        where it is not."""
        return 0.5 * (self.quantile(0.84) - self.quantile(0.16))

    @property
    def usable(self) -> np.ndarray:
        """Whether labels and errors of each star may be used, `[n_star]`: see `jaxspec.posterior.flags`."""
        return flag_bits.usable(self.flags)

    def select(self, which) -> Posterior:
        """The posterior of some of the stars (indices, slice or boolean mask)."""
        rows = np.atleast_1d(np.arange(len(self))[which])
        return dataclasses.replace(
            self,
            draws=self.draws[:, rows],
            log_prob=self.log_prob[:, rows],
            names=tuple(self.names[i] for i in rows),
            snr=self.snr[rows],
            chi2=self.chi2[rows],
            flags=self.flags[rows],
            stats={name: values[rows] for name, values in self.stats.items()},
            raw=None if self.raw is None else self.raw[:, rows],
        )

    def with_fit(
        self,
        chi2: Float[np.ndarray, " n_star"],
        bad: np.ndarray,
        bad_errors: np.ndarray,
        **stats: np.ndarray,
    ) -> Posterior:
        """The same posterior with the outcome of the check against the forward model: `chi2`, and `bad_fit`
        and `bad_errors` (1 or 0) among the statistics, by which `flag_stars` sets flags."""
        chi2 = np.asarray(chi2, np.float64)
        checked = np.isfinite(chi2)
        outcome = {
            name: (checked & np.asarray(value, bool)).astype(float)
            for name, value in (("bad_fit", bad), ("bad_errors", bad_errors))
        }
        return dataclasses.replace(self, chi2=chi2, stats={**self.stats, **stats, **outcome})

    def to_table(self) -> QTable:
        """One row per star: `source`, then `NAME, e_NAME, NAME_p16, NAME_p84` for each label, then `snr`,
        `chi2`, `flags`, `usable`. Where draws are recalibrated, `NAME_raw, e_NAME_raw` follow: what the
        network said; of an ensemble, `NAME_aleatoric, NAME_epistemic` (see `jaxspec.amortised.ensemble`); of
        networks with a second head (`NetworkConfig.point_weight`), `NAME_point, e_NAME_point`.

        Columns carry units, descriptions and, in `info.meta["ucd"]`, UCDs; `table.meta` has the meaning of
        each bit of `flags`.
        """
        table = QTable()
        width = max([len(name) for name in self.names] + [1])
        table["source"] = Column(
            np.asarray(self.names, f"U{width}"),
            description="name of the spectrum",
            meta={"ucd": "meta.id;meta.main"},
        )
        quantiles = {q: self.quantile(q) for q in (0.16, 0.5, 0.84)}
        for i, label in enumerate(self.label_set):
            columns = (
                (
                    label.name,
                    quantiles[0.5],
                    f"{label.description}: posterior median",
                    f"{label.ucd};stat.median",
                ),
                (
                    f"e_{label.name}",
                    self.error,
                    "half the width of the central 68 % interval",
                    f"stat.error;{label.ucd}",
                ),
                (
                    f"{label.name}_p16",
                    quantiles[0.16],
                    "16th percentile of the posterior",
                    f"{label.ucd};stat.min",
                ),
                (
                    f"{label.name}_p84",
                    quantiles[0.84],
                    "84th percentile of the posterior",
                    f"{label.ucd};stat.max",
                ),
            )
            for name, values, description, ucd in columns:
                _add(table, name, values[:, i].astype(np.float32), description, ucd, label.unit)
        _add(
            table,
            "snr",
            self.snr.astype(np.float32),
            "median signal-to-noise per usable pixel",
            "stat.snr",
            "",
        )
        _add(
            table,
            "chi2",
            self.chi2.astype(np.float32),
            "reduced chi-square, model error included",
            "stat.fit.chi2",
            "",
        )
        _add(table, "flags", self.flags.astype(np.int64), flag_bits.legend(), "meta.code.qual", None)
        what = "labels and errors may be used: no flag rejects them"
        _add(table, "usable", self.usable, what, "meta.code.qual", None)
        if self.raw is not None:
            network = dataclasses.replace(self, draws=self.raw, raw=None)
            for i, label in enumerate(self.label_set):
                for name, values, what, ucd in (
                    (f"{label.name}_raw", network.median, "median", f"{label.ucd};stat.median"),
                    (f"e_{label.name}_raw", network.error, "error", f"stat.error;{label.ucd}"),
                ):
                    what = f"{what} of the network, not recalibrated or refined"
                    _add(table, name, values[:, i].astype(np.float32), what, ucd, label.unit)
        for name, (what, ucd) in REFINEMENT.items():
            if name in self.stats:
                _add(table, name, self.stats[name].astype(np.float32), what, ucd, "")
        for label in self.label_set:
            for part, what in (
                ("aleatoric", "error that the spectrum leaves, as the networks state it"),
                ("epistemic", "standard deviation of the networks' means"),
            ):
                name = f"{label.name}_{part}"
                if name in self.stats:
                    values = self.stats[name].astype(np.float32)
                    _add(table, name, values, what, f"stat.error;{label.ucd}", label.unit)
            for name, what, ucd in (
                (f"{label.name}_point", "estimate of the network's second head", f"{label.ucd};stat.median"),
                (f"e_{label.name}_point", "its error", f"stat.error;{label.ucd}"),
            ):
                if name in self.stats:
                    _add(table, name, self.stats[name].astype(np.float32), what, ucd, label.unit)
        table.meta["LABELS"] = ",".join(self.label_set.names)
        table.meta["CREATOR"] = f"jaxspec {jaxspec.__version__}"
        table.meta.update(flag_bits.cards())
        return table

    def to_datatree(self, observed: dict[str, tuple] | None = None) -> xr.DataTree:
        """The draws in ArviZ's schema: groups `posterior` (one variable per label over `sample`, `star`),
        `sample_stats` (`lp`) and `constant_data` (S/N, chi2, flags and other numbers per star); amortised
        draws are independent, so `sample_dims` is `["sample"]`. The root holds the prior. Where
        draws are recalibrated, group `raw_posterior` holds those of the network.

        `observed` adds a group `observed_data`: name to (dimensions, values), e.g. `{"flux": (("star",
        "wavelength"), flux)}`.
        """
        star = np.asarray(self.names, dtype=object)
        attrs = {
            "created_at": datetime.now(UTC).isoformat(),
            "creation_library": "jaxspec",
            "creation_library_version": jaxspec.__version__,
            "creation_library_language": "Python",
            "inference_library": "jaxspec",
            "inference_library_version": jaxspec.__version__,
            "sample_dims": ["sample"],
            PRIOR: json.dumps(None if self.prior is None else dataclasses.asdict(self.prior)),
        }
        coords = {"sample": np.arange(self.draws.shape[0]), "star": star}

        def variables(draws):
            return {
                label.name: (
                    ("sample", "star"),
                    draws[:, :, i],
                    {"units": label.unit, "long_name": label.description, "ucd": label.ucd},
                )
                for i, label in enumerate(self.label_set)
            }

        constants = {
            "snr": ("star", self.snr, {"long_name": "median signal-to-noise per usable pixel"}),
            "chi2": ("star", self.chi2, {"long_name": "reduced chi-square, model error included"}),
            "flags": ("star", self.flags, {"long_name": flag_bits.legend()}),
            **{name: ("star", np.asarray(values)) for name, values in self.stats.items()},
        }
        lp = ("log posterior density of the draw per unit of all labels",)
        groups = {
            "/": xr.Dataset(attrs=attrs),
            "posterior": xr.Dataset(
                variables(self.draws), coords, {**attrs, "sampled_variables": list(self.label_set.names)}
            ),
            "sample_stats": xr.Dataset(
                {"lp": (("sample", "star"), self.log_prob, {"long_name": lp[0]})}, coords, attrs
            ),
            "constant_data": xr.Dataset(constants, {"star": star}),
        }
        if self.raw is not None:
            groups["raw_posterior"] = xr.Dataset(variables(self.raw), coords, attrs)
        if observed:
            groups["observed_data"] = xr.Dataset(observed, {"star": star})
        return xr.DataTree.from_dict(groups)

    @classmethod
    def load(cls, path: str | Path) -> Posterior:
        """Read a file of `to_datatree`, such as the `posterior.nc` of `experiments.infer`.

        Raises `InputError` for another kind of file, and for one that does
        not say which prior the network was trained with.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(str(path), "no such file", "the posterior.nc of an inference", "check the path")
        try:
            with xr.open_datatree(path, engine="h5netcdf") as tree:
                attrs = dict(tree.attrs)
                groups = {name: group.dataset for name, group in tree.children.items()}
                drawn = groups["posterior"]
                labels = label_set(*np.atleast_1d(drawn.attrs["sampled_variables"]).tolist())
                draws = np.stack([drawn[name].values for name in labels.names], axis=-1)
                log_prob = groups["sample_stats"]["lp"].values
                raw = None
                if "raw_posterior" in groups:
                    raw = np.stack([groups["raw_posterior"][name].values for name in labels.names], axis=-1)
                names = tuple(str(name) for name in np.atleast_1d(drawn["star"].values))
                stats = {str(k): v.values for k, v in groups["constant_data"].data_vars.items()}
            fixed = {name: stats.pop(name) for name in ("snr", "chi2", "flags")}
        except (OSError, KeyError, ValueError) as error:
            raise InputError(
                str(path),
                f"no posterior ({type(error).__name__}: {str(error)[:120]})",
                "a posterior.nc that experiments.infer wrote",
                "infer the spectra again, or give a table",
            ) from error
        if PRIOR not in attrs:
            raise InputError(
                f"{path}, attribute {PRIOR}",
                "none",
                "the prior that the network was trained with, to divide it out",
                "infer the spectra again with this version of jaxspec",
            )
        prior = json.loads(attrs[PRIOR])
        return cls(
            draws,
            log_prob,
            labels,
            names,
            **fixed,
            stats=stats,
            prior=None if prior is None else build(StellarPrior, prior, f"{path}, {PRIOR}, "),
            raw=raw,
        )


def _add(table, name, values, description, ucd, unit):
    table[name] = values if unit is None else u.Quantity(values, unit=unit, copy=False)
    table[name].info.description = description
    table[name].info.meta = {"ucd": ucd}
