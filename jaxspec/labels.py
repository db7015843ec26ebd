"""The labels of a star: names with units and bounds, and their map to unconstrained space.

Networks and flows work on the unconstrained vector `z`; people and files only ever see the labels. The map is
a sigmoid scaled to each label's hard bounds, so no posterior can leak outside them and its log-determinant is
exact.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import distrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from jaxspec.errors import InputError
from jaxspec.settings import build

# By how much surveys usually differ in a quantity of this unit.
SURVEY_STEPS = {"K": 100.0, "dex": 0.1, "mag": 0.05}


@dataclass(frozen=True)
class Label:
    """One quantity of a star, with everything about it that the library states label by label.

    Attributes:
        name: by which arrays, tables and settings know it.
        unit: an astropy unit string; all other numbers are in it.
        low, high: hard bounds.
        latex: for plots.
        ucd: the IVOA UCD1+ word written into tables.
        description: one line, for tables.
        solar: the Sun's value, where the quantity has one.
        atomic_number: of the element whose abundance this is.
        step: unit in which fits count: about the error of a good spectrum. A fortieth of the bounds if none
            is given.
        long_step: unit of a refinement, which begins further away; by default four steps.
        largest_step: most that one step of a fit of the exact synthesis may change it; by default ten steps.
        ridge: precision, per square of `step`, of the weak prior that steadies a fit where a spectrum says
            nothing.
        systematic: standard deviation of what no likelihood of one spectrum can show where the forward model
            misses the spectrum: how benchmark stars in HR10 scatter about their published labels.
        survey_step: by how much surveys usually differ; by default what is usual for the unit.
    """

    name: str
    unit: str
    low: float
    high: float
    latex: str
    ucd: str
    description: str
    solar: float | None = None
    atomic_number: int | None = None
    step: float | None = None
    long_step: float | None = None
    largest_step: float | None = None
    ridge: float = 0.0
    systematic: float = 0.0
    survey_step: float | None = None

    def __post_init__(self):
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low < self.high):
            raise InputError(
                f"label {self.name}",
                f"bounds [{self.low}, {self.high}]",
                "two finite numbers, low < high",
                "give hard bounds in the label's unit, of its logarithm where it has none",
            )
        fortieth = (self.high - self.low) / 40.0
        step = fortieth if self.step is None else self.step
        defaults = {
            "step": step,
            "long_step": 4.0 * step,
            "largest_step": 10.0 * step,
            "survey_step": SURVEY_STEPS.get(self.unit, fortieth),
        }
        for name, default in defaults.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, default)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Label":
        """The label of a stored configuration (`dataclasses.asdict`). What the file does not say, because it
        is older than a field, is that of the label of its name in `LABELS`.

        Raises: InputError for an entry that labels do not have.
        """
        known = LABELS.get(values.get("name", ""))
        return build(cls, {**({} if known is None else dataclasses.asdict(known)), **values}, "label.")

    @property
    def element(self) -> str | None:
        """Symbol of the element whose abundance this is, None for other labels."""
        element = self.name.removesuffix("_h").capitalize()
        return element if self.name.endswith("_h") and self.name != "m_h" else None


class ScaledSigmoid(distrax.Bijector):
    """y = low + (high - low) sigmoid(z), elementwise, exact to the last bits near both bounds.

    Written out instead of chained from an affine map and a sigmoid because `low + width * u` loses `1 - u`
    near the upper bound, and because the result must stay strictly between the bounds after rounding: a label
    that rounds onto its bound would have no finite `z`.
    """

    def __init__(self, low: ArrayLike, high: ArrayLike):
        super().__init__(event_ndims_in=0)
        self._low = np.asarray(low, np.float64)
        self._high = np.asarray(high, np.float64)

    def _bounds(self, dtype) -> tuple[np.ndarray, np.ndarray]:
        return self._low.astype(dtype), self._high.astype(dtype)

    def forward(self, x: Array | np.ndarray) -> Array:
        low, high = self._bounds(x.dtype)
        width = high - low
        # Measured from the nearer bound, so that the distance to it keeps its relative precision.
        y = jnp.where(x < 0, low + width * jax.nn.sigmoid(x), high - width * jax.nn.sigmoid(-x))
        return jnp.clip(y, np.nextafter(low, high), np.nextafter(high, low))

    def forward_log_det_jacobian(self, x: Array | np.ndarray) -> Array:
        low, high = self._bounds(x.dtype)
        return np.log(high - low) - jax.nn.softplus(x) - jax.nn.softplus(-x)

    def forward_and_log_det(self, x: Array | np.ndarray) -> tuple[Array, Array]:
        return self.forward(x), self.forward_log_det_jacobian(x)

    def inverse(self, y: Array | np.ndarray) -> Array:
        low, high = self._bounds(y.dtype)
        return jnp.log(y - low) - jnp.log(high - y)

    def inverse_log_det_jacobian(self, y: Array | np.ndarray) -> Array:
        low, high = self._bounds(y.dtype)
        return np.log(high - low) - jnp.log(y - low) - jnp.log(high - y)

    def inverse_and_log_det(self, y: Array | np.ndarray) -> tuple[Array, Array]:
        return self.inverse(y), self.inverse_log_det_jacobian(y)

    def same_as(self, other: distrax.Bijector) -> bool:
        return (
            isinstance(other, ScaledSigmoid)
            and np.array_equal(self._low, other._low)
            and np.array_equal(self._high, other._high)
        )


def _floating(values: ArrayLike) -> Array:
    values = jnp.asarray(values)
    return values if jnp.issubdtype(values.dtype, jnp.floating) else values.astype(jnp.float_)


@dataclass(frozen=True)
class LabelSet:
    """An ordered set of labels: the meaning of the last axis of every label array.

    Hashable, so that it can be a static field of a module or an argument of a jitted function. Nothing
    outside this module knows where in an array a label stands: `column`, `take`, `stellar` and `x_fe` find
    labels by name, in any order of the set, at no cost inside a compiled function.
    """

    labels: tuple[Label, ...]

    def __post_init__(self):
        if not self.labels or len(set(self.names)) != len(self.labels):
            raise InputError(
                "label set",
                f"names {self.names}",
                "one or more labels, each name once",
                "remove the repetition",
            )

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(label.name for label in self.labels)

    @cached_property
    def low(self) -> np.ndarray:
        """Lower hard bounds, float64 [n_labels]."""
        return _frozen([label.low for label in self.labels])

    @cached_property
    def high(self) -> np.ndarray:
        """Upper hard bounds, float64 [n_labels]."""
        return _frozen([label.high for label in self.labels])

    @cached_property
    def step(self) -> np.ndarray:
        """Units in which fits count (see `Label`), float64 [n_labels]."""
        return self.per_label("step")

    def per_label(self, attribute: str) -> np.ndarray:
        """A number that every label has, such as `systematic`, as float64 [n_labels]."""
        return _frozen([getattr(label, attribute) for label in self.labels])

    @property
    def elements(self) -> tuple[str, ...]:
        """Names of the abundances [X/H] of elements other than iron, in the set's order."""
        return tuple(label.name for label in self.labels if label.element not in (None, "Fe"))

    @cached_property
    def x_fe_matrix(self) -> np.ndarray:
        """The matrix that makes [X/Fe] of labels: one row for each of `elements`, float64 [m, n_labels]."""
        matrix = np.zeros((len(self.elements), len(self)))
        for row, name in enumerate(self.elements):
            matrix[row, self.index(name)], matrix[row, self.index("fe_h")] = 1.0, -1.0
        return _frozen(matrix)

    @cached_property
    def bijector(self) -> distrax.Bijector:
        """Distrax bijector from unconstrained `z [..., n]` to labels `[..., n]`; one event is one label
        vector."""
        return distrax.Block(ScaledSigmoid(self.low, self.high), 1)

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[Label]:
        return iter(self.labels)

    def __getitem__(self, name: str) -> Label:
        return self.labels[self.index(name)]

    def index(self, name: str) -> int:
        """Position of a label on the last axis. Raises `InputError` for a name that is not in the set."""
        if name not in self.names:
            fix = "check the spelling"
            if name.endswith("_h"):
                fix += (
                    "; emulators and networks know the labels that they were trained with. Other elements: "
                    "fit the exact synthesis (jaxspec.physics.fit.fit_spectrum), or train an emulator and a "
                    "network for a label set that has it"
                )
            raise InputError("label name", repr(name), f"one of {', '.join(self.names)}", fix)
        return self.names.index(name)

    def check_same(self, names: Sequence[str], where: str) -> None:
        """Raise `InputError` unless these are the set's labels in the same order: arrays could not be told
        from each other."""
        if tuple(names) != self.names:
            raise InputError(where, ", ".join(names), ", ".join(self.names), "use one label set for both")

    def select(self, names: Sequence[str]) -> "LabelSet":
        """The label set of these names, in this order."""
        return LabelSet(tuple(self.labels[self.index(name)] for name in names))

    # What these give is of the labels' own kind, NumPy's or JAX's: hence `Any`.
    def column(self, labels: Float[Array | np.ndarray, "*batch n"], name: str) -> Float[Any, "*batch"]:
        """One label of labels `[..., n]`, in its unit."""
        return labels[..., self.index(name)]

    def take(
        self, labels: Float[Array | np.ndarray, "*batch n"], names: Sequence[str]
    ) -> Float[Any, "*batch m"]:
        """The labels of these names, in their order: `[..., m]` of labels `[..., n]`."""
        place = [self.index(name) for name in names]
        first = place[0] if place else 0
        # A slice where they stand together, which a compiled function gets for nothing.
        together = place == list(range(first, first + len(place)))
        return labels[..., first : first + len(place)] if together else labels[..., np.array(place)]

    def stellar(self, labels: Float[Array | np.ndarray, "*batch n"]) -> tuple[Float[Any, "*batch"], ...]:
        """teff [K], logg and fe_h [dex] of labels `[..., n]`, on which atmospheres and turbulence depend."""
        return tuple(self.column(labels, name) for name in ("teff", "logg", "fe_h"))

    def x_fe(self, labels: Float[Array | np.ndarray, "*batch n"]) -> Float[Any, "*batch m"]:
        """[X/Fe] of each of `elements`, from labels `[..., n]`."""
        return self.take(labels, self.elements) - self.column(labels, "fe_h")[..., None]

    def scaled_solar(self, teff: float, logg: float, fe_h: float) -> np.ndarray:
        """Labels of a star in which every metal follows iron, float64 [n_labels].

        Raises: InputError for a set with a label that this does not give.
        """
        value = {"teff": teff, "logg": logg, "m_h": fe_h, "fe_h": fe_h, **dict.fromkeys(self.elements, fe_h)}
        for name in self.names:
            if name not in value:
                expected = "only teff, logg and abundances"
                raise InputError("label set", name, expected, f"select a label set without {name}")
        return np.array([value[name] for name in self.names], np.float64)

    def to_unconstrained(self, labels: ArrayLike) -> Float[Array, "*batch n"]:
        """Labels `[..., n]` to `z [..., n]`. A label on its bound gives an infinite `z`, one outside gives
        NaN: call `validate` first on anything that comes from outside."""
        return self.bijector.inverse(_floating(labels))

    def to_labels(self, z: ArrayLike) -> Float[Array, "*batch n"]:
        """Unconstrained `z [..., n]` to labels `[..., n]`, always strictly inside the bounds."""
        return self.bijector.forward(_floating(z))

    def log_det(self, z: ArrayLike) -> Float[Array, "*batch"]:
        """log |d labels / d z| at `z [..., n]`, summed over the labels: subtract it from a log-density in `z`
        to have the log-density in label space."""
        return self.bijector.forward_log_det_jacobian(_floating(z))

    def validate(self, labels: ArrayLike, where: str = "labels") -> None:
        """Raise `InputError` naming the first label `[..., n]` that is not finite or not inside its bounds.

        Runs on the host; not for use inside `jit`.
        """
        values = np.asarray(labels, np.float64)
        if values.ndim == 0 or values.shape[-1] != len(self):
            raise InputError(
                where,
                f"an array of shape {values.shape}",
                f"a last axis of {len(self)} labels ({', '.join(self.names)})",
                "order the columns like the label set",
            )
        bad = ~((values > self.low) & (values < self.high))
        if bad.any():
            place = tuple(int(i) for i in np.argwhere(bad)[0])
            label = self.labels[place[-1]]
            row = f" in row {place[:-1] if len(place) > 2 else place[0]}" if len(place) > 1 else ""
            raise InputError(
                f"{where}, label {label.name}{row}",
                f"{values[place]} {label.unit}",
                f"a value between {label.low} and {label.high} {label.unit}",
                f"remove the {bad.reshape(-1, len(self)).any(-1).sum()} such rows or widen the bounds",
            )


def _frozen(values) -> np.ndarray:
    array = np.asarray(values, np.float64)
    array.setflags(write=False)
    return array


def _abundance(
    symbol: str, atomic_number: int | None, low: float, high: float, ucd: str = "phys.abund", **numbers: float
) -> Label:
    return Label(
        f"{symbol.lower()}_h",
        "dex",
        low,
        high,
        rf"$[\mathrm{{{symbol}/H}}]$",
        ucd,
        f"logarithmic {symbol} abundance relative to hydrogen and to the Sun",
        solar=0.0,
        atomic_number=atomic_number,
        **{"step": 0.05, "long_step": 0.2, "largest_step": 0.5, "systematic": 0.06, **numbers},
    )


# Solar Teff and log g: nominal values of IAU 2015 Resolution B3 (Prsa et al. 2016, AJ 152, 41): 5772 K and
# log10(GM/R^2) = 4.438. Bounds stand a little outside the range 4000-7000 K, 0.5-5.0, [Fe/H] -2.5 to 0.5,
# [X/Fe] -0.5 to 0.8 for which spectra are simulated, so that the posterior of a star at its edge is not cut.
LABELS: dict[str, Label] = {
    label.name: label
    for label in (
        Label(
            "teff",
            "K",
            3800.0,
            7200.0,
            r"$T_\mathrm{eff}$",
            "phys.temperature.effective",
            "effective temperature",
            solar=5772.0,
            step=100.0,
            long_step=300.0,
            largest_step=200.0,
            ridge=1e-3,
            systematic=100.0,
        ),
        Label(
            "logg",
            "dex",
            0.2,
            5.2,
            r"$\log g$",
            "phys.gravity",
            "log10 of the surface gravity in cm/s2",
            solar=4.438,
            step=0.1,
            long_step=0.5,
            largest_step=0.5,
            ridge=1e-3,
            systematic=0.15,
            survey_step=0.2,
        ),
        _abundance("Fe", 26, -2.8, 0.8, "phys.abund.Fe", ridge=1e-2, systematic=0.05),
        _abundance("Al", 13, -3.6, 1.6),
        _abundance("Mg", 12, -3.6, 1.6),
        _abundance("Ca", 20, -3.6, 1.6),
        _abundance("Ni", 28, -3.6, 1.6),
        _abundance("Ti", 22, -3.6, 1.6),
        _abundance("Si", 14, -3.6, 1.6),
        _abundance("M", None, -4.0, 1.0, "phys.abund.Z"),
        Label("ebv", "mag", -0.05, 3.0, r"$E(B-V)$", "phot.color.excess", "interstellar reddening"),
        Label(
            "log_luminosity",
            "dex",
            -4.0,
            6.5,
            r"$\log L/\mathrm{L}_\odot$",
            "phys.luminosity",
            "log10 of the bolometric luminosity in nominal solar luminosities",
            solar=0.0,
        ),
    )
}


def element_label(symbol: str, atomic_number: int) -> Label:
    """The label of any element's abundance: the known one, or one of the same kind and bounds."""
    known = LABELS.get(f"{symbol.lower()}_h")
    return known or _abundance(symbol, atomic_number, -3.6, 1.6)


def label_set(*names: str) -> LabelSet:
    """A label set of known labels by name, e.g. `label_set("teff", "logg", "m_h", "ebv",
    "log_luminosity")`."""
    return LabelSet(tuple(LABELS.values())).select(names)


NINE_LABELS = label_set("teff", "logg", "fe_h", "al_h", "mg_h", "ca_h", "ni_h", "ti_h", "si_h")
