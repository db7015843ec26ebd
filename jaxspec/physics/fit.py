"""Abundances and other labels of one star by least squares on the exact synthesis.

Any of the labels and of the nuisances can be free; the rest is held. Each stretch of the spectrum gets a
polynomial continuum of its own, which is fitted too, so that its uncertainty is in the errors.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxspec.errors import InputError
from jaxspec.labels import LabelSet, element_label
from jaxspec.physics.exact import ExactModel
from jaxspec.physics.forward import Nuisances
from jaxspec.physics.linelists.text import atomic_numbers
from jaxspec.physics.turbulence import vmac_calibration, vmic_calibration

# By how much a step may change each nuisance (of labels: `Label.largest_step`), and the change that no longer
# matters.
LARGEST = {
    "vmic": 0.5,
    "vmac": 3.0,
    "vsini": 5.0,
    "velocity": 3.0,
    "resolution": 0.2,
}
CONVERGED = 0.02  # of the standard error
POSITIVE = ("vmic", "vmac", "vsini", "resolution")


class SpectrumFit(NamedTuple):
    """Where the fit ended, and how far the numbers can be trusted."""

    names: tuple[str, ...]  # of the free parameters
    values: Float[np.ndarray, " k"]
    errors: Float[np.ndarray, " k"]  # from the curvature of chi2 at the optimum, continuum marginalised
    covariance: Float[np.ndarray, "k k"]
    chi2: float
    degrees_of_freedom: int
    model: Float[np.ndarray, " p"]  # the fitted spectrum, continuum included
    normalised: Float[np.ndarray, " p"]  # the same without the continuum
    converged: bool
    approximation: str  # "LTE", or "NLTE" with the elements that depart from it

    @property
    def misfit(self) -> float:
        """sqrt(chi2 / degrees of freedom): where it is well above 1 the model is wrong, and so are errors."""
        return float(np.sqrt(self.chi2 / self.degrees_of_freedom))

    def __str__(self) -> str:
        rows = [f"{n:>10} {v:10.3f} +- {e:.3f}" for n, v, e in zip(self.names, self.values, self.errors,
                                                                   strict=True)]  # fmt: skip
        end = "" if self.converged else ", NOT CONVERGED"
        return "\n".join([*rows, f"{'misfit':>10} {self.misfit:10.2f} ({self.approximation}{end})"])


@dataclass(frozen=True)
class FitConfig:
    """How the fit goes.

    Attributes:
        continuum_degree: of each stretch's polynomial; -1 takes the spectrum as normalised.
        max_steps: Levenberg-Marquardt steps, after which it stops without having converged.
    """

    continuum_degree: int = 1
    max_steps: int = 25


def fit_spectrum(
    flux: Float[np.ndarray, " p"],
    ivar: Float[np.ndarray, " p"],
    model: ExactModel,
    labels: Mapping[str, float],
    free: Sequence[str],
    *,
    held: Mapping[str, float] | None = None,
    config: FitConfig = FitConfig(),
) -> SpectrumFit:
    """Fit the free labels and nuisances of one star to its spectrum.

    Levenberg-Marquardt with the synthesis' own derivatives; normal equations in float64 on the host. An
    element that is a label but neither free nor held at a value of its own follows `fe_h`: if `fe_h` is free
    it moves with it. Any element with lines in the model can be free or held, also one that is none of the
    model's labels: manganese as `mn_h`, say.

    Args:
        flux, ivar: on the model's pixels; those with `ivar == 0` are not read.
        labels: where to start and what to hold; `teff`, `logg` and `fe_h` at least.
        free: names of labels and of fields of `Nuisances` (vmic, vmac, vsini, velocity in km/s, resolution).
        held: values of nuisances, held or to start from; the calibrations of vmic and vmac otherwise, no
            rotation, at rest, and the nominal resolution.

    Raises InputError for names that are not known, for labels outside the atmospheres, and where there are
    fewer good pixels than parameters.
    """
    model = with_elements(model, tuple(dict.fromkeys([*free, *labels])))
    names, start, follow = _start(model, labels, free, held or {})
    flux, ivar = np.asarray(flux, float), np.asarray(ivar, float)
    good = ivar > 0
    basis = _continuum_basis(model, config.continuum_degree)
    n = len(free)
    if good.sum() <= n + len(basis):
        raise InputError(
            "ivar", f"{int(good.sum())} pixels with ivar > 0", f"more than {n + len(basis)} parameters",
            "give a wider range or hold more",
        )  # fmt: skip
    index = [names.index(name) for name in free]
    whole = jnp.asarray(start, jnp.float32)

    def evaluate(x):
        moved = jnp.asarray(x, jnp.float32)
        value, jacobian = _spectrum_and_jacobian(model, tuple(index), tuple(follow), whole, moved)
        value, jacobian = np.asarray(value, float), np.asarray(jacobian, float)
        continuum = _fit_continuum(flux, ivar, value, basis)
        residual = np.where(good, flux, 0.0) - np.where(good, continuum * value, 0.0)
        design = np.concatenate([jacobian * continuum, basis * value])
        return value, continuum, residual, np.where(good, design, 0.0), np.sum(ivar * residual**2)

    lowest = np.array([0.0 if name in POSITIVE else -np.inf for name in free])
    limit = LARGEST | {label.name: label.largest_step for label in model.label_set}
    largest = np.array([limit[name] for name in free])
    x, damping, converged = start[index], 1e-3, False
    state = evaluate(x)
    if not np.isfinite(state[4]):
        raise InputError(
            "labels", f"{dict(labels)}", "labels inside the model atmospheres", "start elsewhere"
        )
    for _ in range(config.max_steps):
        _, _, residual, design, chi2 = state
        normal, gradient = (design * ivar) @ design.T, (design * ivar) @ residual
        diagonal = np.maximum(np.diag(normal), 1e-12 * np.diag(normal).max())
        step = np.linalg.solve(normal + damping * np.diag(diagonal), gradient)[:n]
        step = step * min(1.0, np.min(largest / np.maximum(np.abs(step), 1e-30)))
        moved = np.maximum(x + step, lowest)
        error = np.sqrt(np.diag(_inverse(normal))[:n])
        small = np.all(np.abs(moved - x) < CONVERGED * error)
        trial = evaluate(moved)
        if np.isfinite(trial[4]) and trial[4] <= chi2 + 1e-6:
            x, state, damping = moved, trial, max(damping / 10, 1e-6)
        else:
            damping *= 10
        if small or damping > 1e6:
            converged = bool(small)
            break
    value, continuum, _, design, chi2 = state
    covariance = _inverse((design * ivar) @ design.T)[:n, :n]
    return SpectrumFit(
        tuple(free), x, np.sqrt(np.diag(covariance)), covariance, float(chi2),
        int(good.sum()) - n - len(basis), continuum * value, value, converged, model.model.approximation,
    )  # fmt: skip


def with_elements(model: Any, names: tuple[str, ...]) -> ExactModel:
    """The model with labels for all elements that `names` mention as `X_h`; other names are passed over.

    Raises: InputError for a model that is no exact synthesis, and an element without a line in it.
    """
    if not isinstance(model, ExactModel):
        raise InputError(
            "model",
            f"{type(model).__name__}, whose labels were fixed when it was trained",
            "an ExactModel",
            "make one with ExactModel.for_instrument or for_pixels",
        )
    symbols = {f"{symbol.lower()}_h": (symbol, z) for symbol, z in atomic_numbers().items()}
    new = tuple(name for name in names if name in symbols and name not in model.label_set.names)
    for name in new:
        symbol, z = symbols[name]
        if not any((np.asarray(lines.element) == z - 1).any() for lines in model.model.lines):
            raise InputError(
                "free or labels",
                f"{name!r}, but no line of {symbol} in the model",
                "an element with lines in these wavelengths",
                "leave it out, or give a model with more lines or other wavelengths",
            )
    return _extended(model, tuple(symbols[name] for name in new)) if new else model


@lru_cache(maxsize=8)  # one model for equal questions, and so one compiled program
def _extended(model: ExactModel, elements: tuple[tuple[str, int], ...]) -> ExactModel:
    labels = LabelSet((*model.label_set.labels, *(element_label(*element) for element in elements)))
    return dataclasses.replace(model, model=dataclasses.replace(model.model, label_set=labels))


@partial(jax.jit, static_argnums=(0, 1, 2))
def _spectrum_and_jacobian(model: ExactModel, index, follow, start, x):
    """The spectrum and its derivatives [k, p] by the parameters number `index`, which are `x`."""
    n_labels = len(model.label_set)

    def spectrum(x):
        full = start.at[np.array(index)].set(x)
        full = jnp.where(np.array(follow), full[model.label_set.index("fe_h")], full)
        return model(full[:n_labels], Nuisances(*full[n_labels:]))

    return jax.vmap(lambda v: jax.jvp(spectrum, (x,), (v,)), out_axes=(None, 0))(
        jnp.eye(len(index), dtype=x.dtype)
    )


def _start(model: ExactModel, star, free, held) -> tuple[list[str], np.ndarray, list[bool]]:
    """Names and first values of all labels and nuisances, and which of them follow iron."""
    known = [*model.label_set.names, *Nuisances._fields]
    for where, given in (("labels", star), ("free", free), ("held", held)):
        for name in given:
            if name not in known:
                raise InputError(where, repr(name), f"one of {', '.join(known)}", "check the spelling")
    for name in ("teff", "logg", "fe_h"):
        if name not in star:
            raise InputError("labels", f"no {name}", "teff, logg and fe_h at least", f"add {name}")
    first = {"vsini": 0.0, "velocity": 0.0, "resolution": 1.0}
    basic = [jnp.float32(star[name]) for name in ("teff", "logg", "fe_h")]
    model.model.grid.check(*basic)
    first |= {"vmic": float(vmic_calibration(*basic)), "vmac": float(vmac_calibration(*basic))}
    first |= {name: star["fe_h"] for name in model.label_set.names if name.endswith("_h")}
    given = {**star, **held}
    values = {**first, **given}
    start = np.array([values[name] for name in known], float)
    # vsini of 0 has no derivative: a star that rotates a little.
    if "vsini" in free:
        start[known.index("vsini")] = max(start[known.index("vsini")], 1.0)
    follow = [n.endswith("_h") and n not in given and n not in free for n in known]
    return known, start, follow


def _continuum_basis(model: ExactModel, degree: int) -> Float[np.ndarray, "c p"]:
    """Chebyshev polynomials on each stretch of pixels."""
    rows, first = [], 0
    for response in model.responses:
        n = response.resampler.n_pixels
        inside = slice(first, first + n)
        x = model.wavelength[inside]
        x = 2 * (x - x[0]) / (x[-1] - x[0]) - 1
        for column in np.polynomial.chebyshev.chebvander(x, degree).T if degree >= 0 else ():
            rows.append(np.zeros(len(model.wavelength)))
            rows[-1][inside] = column
        first += n
    return np.array(rows).reshape(-1, len(model.wavelength))


def _fit_continuum(flux, ivar, value, basis) -> Float[np.ndarray, " p"]:
    """The polynomial that makes the model fit best; 1 where there is none."""
    if not len(basis) or not np.all(np.isfinite(value)):
        return np.ones_like(value)
    design = basis * value
    normal = (design * ivar) @ design.T
    return np.linalg.solve(normal, (design * ivar) @ np.where(ivar > 0, flux, 0.0)) @ basis


def _inverse(matrix: Float[np.ndarray, "k k"]) -> Float[np.ndarray, "k k"]:
    """Inverse of a positive matrix of any scales."""
    scale = 1.0 / np.sqrt(np.maximum(np.diag(matrix), 1e-300))
    return np.linalg.pinv(matrix * np.outer(scale, scale), hermitian=True) * np.outer(scale, scale)
