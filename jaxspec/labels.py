"""What is inferred about a star: labels with units and bounds, and their map to unconstrained space.

Networks and flows work on the unconstrained vector `z`; people and files only ever see the labels. The map is
a sigmoid scaled to each label's hard bounds, so no posterior can leak outside them and its log-determinant is
exact.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import distrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from jaxspec.errors import InputError


@dataclass(frozen=True)
class Label:
    """One quantity of a star.

    `unit` is an astropy unit string; `low` and `high` are hard bounds in that unit; `solar` is the Sun's
    value where the quantity has one; `ucd` is the IVOA UCD1+ word written into tables.
    """

    name: str
    unit: str
    low: float
    high: float
    latex: str
    ucd: str
    description: str
    solar: float | None = None

    def __post_init__(self):
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low < self.high):
            raise InputError(
                f"label {self.name}",
                f"bounds [{self.low}, {self.high}]",
                "two finite numbers, low < high",
                "give hard bounds in the label's unit, of its logarithm where it has none",
            )

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

    Hashable, so that it can be a static field of a module or an argument of a jitted function.
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
            raise InputError(
                "label name", repr(name), f"one of {', '.join(self.names)}", "check the spelling"
            )
        return self.names.index(name)

    def select(self, names: Sequence[str]) -> "LabelSet":
        """The label set of these names, in this order."""
        return LabelSet(tuple(self.labels[self.index(name)] for name in names))

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


def _abundance(name: str, symbol: str, low: float, high: float, ucd: str = "phys.abund") -> Label:
    return Label(
        name,
        "dex",
        low,
        high,
        rf"$[\mathrm{{{symbol}/H}}]$",
        ucd,
        f"logarithmic {symbol} abundance relative to hydrogen and to the Sun",
        solar=0.0,
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
        ),
        _abundance("fe_h", "Fe", -2.8, 0.8, "phys.abund.Fe"),
        _abundance("al_h", "Al", -3.6, 1.6),
        _abundance("mg_h", "Mg", -3.6, 1.6),
        _abundance("ca_h", "Ca", -3.6, 1.6),
        _abundance("ni_h", "Ni", -3.6, 1.6),
        _abundance("ti_h", "Ti", -3.6, 1.6),
        _abundance("si_h", "Si", -3.6, 1.6),
        _abundance("m_h", "M", -4.0, 1.0, "phys.abund.Z"),
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


def label_set(*names: str) -> LabelSet:
    """A label set of known labels by name, e.g. `label_set("teff", "logg", "m_h", "ebv",
    "log_luminosity")`."""
    return LabelSet(tuple(LABELS.values())).select(names)


NINE_LABELS = label_set("teff", "logg", "fe_h", "al_h", "mg_h", "ca_h", "ni_h", "ti_h", "si_h")
