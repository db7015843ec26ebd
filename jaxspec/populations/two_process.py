"""Method `two_process`: every star a sum of core-collapse and type Ia enrichment, grouped by the two.

The two-process model (Weinberg et al. 2019, ApJ 874, 102; 2022, ApJS 260, 32) says that an element's
abundance is q_cc A_cc + q_Ia A_Ia, with processes q of the element and amplitudes A of the star. With Mg
from core collapse alone and Fe from both, A_cc = 10^[Mg/H], and each element is a weighted mean

    10^[X/H] = (1 - c_X) 10^[Mg/H] + c_X 10^[Fe/H],

nearly linear in what is inferred of a star, its noiseless [Mg/H] and [Fe/H]: their likelihood is a Gaussian,
whose covariance marginalises over the star's errors. A mixture then groups the stars by these two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxspec.errors import InputError
from jaxspec.populations.members import Members
from jaxspec.populations.mixture_model import MixtureModel
from jaxspec.populations.stars import Stars

STEPS, ROUNDS = 6, 12  # of a star's fit; of all stars and all processes in turn
# Prior of an element's c and of its zero point [dex].
MIDDLE, WIDTH, ZERO_WIDTH = 0.5, 0.4, 0.1
FIT_STARS = 5000
SCATTER = 0.02  # of an element about the model, beside its errors [dex]


class Processes(NamedTuple):
    """Elements in the two-process model: `late [m]` is c and `zero [m]` an offset [dex] of each of
    `elements`."""

    elements: tuple[str, ...]
    late: Float[np.ndarray, " m"]
    zero: Float[np.ndarray, " m"]

    def core_collapse_share(self, iron: float) -> Float[np.ndarray, " m"]:
        """Share of the Sun's element from core collapse, where that of its iron is `iron`."""
        return 1.0 - self.late * (1.0 - iron)


class Amplitudes(NamedTuple):
    """[Mg/H] and [Fe/H] without noise `[n, 2]`, and their covariance `[n, 2, 2]`."""

    values: Float[np.ndarray, "n 2"]
    covariance: Float[np.ndarray, "n 2 2"]

    def ratio(self, iron: float) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """A_Ia / A_cc, 1 for the Sun, and its standard error; `iron`: share of the Sun's iron from core
        collapse."""
        relative = 10.0 ** (self.values[:, 1] - self.values[:, 0])
        slope = np.log(10.0) * relative / (1.0 - iron) * np.array([[-1.0], [1.0]])
        variance = np.einsum("an,nab,bn->n", slope, self.covariance, slope)
        return (relative - iron) / (1.0 - iron), np.sqrt(variance)


def predict(processes: Processes, values: Float[np.ndarray, "n 2"]):
    """[X/H] of each element `[n, m]`, and its derivatives by [Mg/H] and [Fe/H] `[n, m, 2]`."""
    magnesium, iron = 10.0 ** values[:, :1], 10.0 ** values[:, 1:]
    parts = np.stack([(1.0 - processes.late) * magnesium, processes.late * iron], axis=-1)
    total = np.maximum(parts.sum(-1), 1e-12)
    return np.log10(total) + processes.zero, parts / total[..., None]


def amplitudes(stars: Stars, processes: Processes) -> Amplitudes:
    """Maximum-likelihood amplitudes of each star, by Gauss-Newton steps, with their covariance.

    Stars that have too few elements keep a wide covariance about a start at [Mg/H] = [Fe/H].
    """
    stars = stars.select(processes.elements)
    there = stars.measured
    pairs = there[:, :, None] & there[:, None, :]
    eye = np.eye(len(processes.elements))
    total = np.where(pairs, stars.covariance + SCATTER**2 * eye, eye)
    weight = np.linalg.inv(total) * pairs
    filled = np.nan_to_num(stars.values)
    start = (filled - processes.zero * there).sum(1) / there.sum(1)
    values = np.stack([start, start], axis=1)
    weak = 0.1 * np.eye(2)  # a prior of 3 dex about the start
    for _ in range(STEPS):
        model, slope = predict(processes, values)
        information = np.einsum("nma,nmk,nkb->nab", slope, weight, slope) + weak
        pull = np.einsum("nma,nmk,nk->na", slope, weight, (filled - model) * there)
        pull -= (values - start[:, None]) @ weak
        step = np.linalg.solve(information, pull[..., None])[..., 0]
        values = values + np.clip(step, -0.5, 0.5)
    return Amplitudes(values, np.linalg.inv(information))


def fit_processes(stars: Stars) -> Processes:
    """Processes of the elements of `stars`, [X/H] or [X/Fe], from the stars themselves.

    Stars and processes are fitted in turn; Mg and Fe hold the scale.

    Raises: InputError where Mg or Fe is missing, and where no other element is there.
    """
    stars = stars.relative_to_hydrogen()
    elements = tuple(name for name in stars.labels if name.endswith("_h") and name != "m_h")
    for name in ("mg_h", "fe_h"):
        if name not in elements:
            fix = f"add {name}, or choose another method"
            raise InputError("labels", ", ".join(stars.labels), f"{name} among them", fix)
    stars = stars.select(elements)
    stars = stars.rows(stars.measured.sum(1) >= 2)
    if len(stars) > FIT_STARS:
        stars = stars.rows(np.linspace(0, len(stars) - 1, FIT_STARS).astype(int))
    held = {"mg_h": 0.0, "fe_h": 1.0}
    late = np.array([held.get(name, MIDDLE) for name in elements])
    processes = Processes(elements, late, np.zeros(len(elements)))
    free = [j for j, name in enumerate(elements) if name not in held]
    there, variance = stars.measured, stars.variance + SCATTER**2
    for _ in range(ROUNDS if free else 0):
        now = amplitudes(stars, processes)
        for j in free:
            rows = there[:, j]
            magnesium, iron = 10.0 ** now.values[rows].T
            mean = np.maximum((1.0 - late[j]) * magnesium + late[j] * iron, 1e-12)
            slopes = np.stack([(iron - magnesium) / mean / np.log(10.0), np.ones(rows.sum())], axis=1)
            rest = stars.values[rows, j] - np.log10(mean) - processes.zero[j]
            w = 1.0 / variance[rows, j]
            prior = np.array([WIDTH, ZERO_WIDTH]) ** -2.0
            off = np.array([MIDDLE - late[j], -processes.zero[j]])
            matrix = (slopes * w[:, None]).T @ slopes + np.diag(prior)
            step = np.linalg.solve(matrix, slopes.T @ (w * rest) + prior * off)
            late[j] = np.clip(late[j] + step[0], -0.3, 1.5)
            processes.zero[j] += step[1]
    return processes


@dataclass(frozen=True)
class TwoProcessModel:
    """Processes, and the groups of stars by their two amplitudes."""

    labels: tuple[str, ...]
    processes: Processes
    mixture: MixtureModel

    @classmethod
    def fit(cls, stars: Stars, groups: int | None = None, seed: int = 1) -> TwoProcessModel:
        """Fit the processes, then the mixture of amplitudes.

        Raises: InputError as `fit_processes` and `MixtureModel.fit`.
        """
        processes = fit_processes(stars)
        return cls(stars.labels, processes, MixtureModel.fit(_as_stars(stars, processes), groups, seed))

    @property
    def n_groups(self) -> int:
        """Number of groups."""
        return self.mixture.n_groups

    def amplitudes(self, stars: Stars) -> Amplitudes:
        """What the two processes gave to each star."""
        return amplitudes(stars.select(self.labels).relative_to_hydrogen(), self.processes)

    def members(self, stars: Stars) -> Members:
        """Memberships by the amplitudes."""
        return self.mixture.members(_as_stars(stars.select(self.labels), self.processes))

    def to_arrays(self) -> dict[str, np.ndarray]:
        """What is stored."""
        own = {"elements": np.array(self.processes.elements), "late": self.processes.late}
        return {**self.mixture.to_arrays(), **own, "zero": self.processes.zero}

    @classmethod
    def from_arrays(cls, labels: tuple[str, ...], arrays: Mapping[str, np.ndarray]) -> TwoProcessModel:
        """The model that `to_arrays` describes."""
        elements = tuple(str(name) for name in arrays["elements"])
        processes = Processes(elements, arrays["late"], arrays["zero"])
        return cls(labels, processes, MixtureModel.from_arrays(AMPLITUDES, arrays))


AMPLITUDES = ("mg_h", "fe_h")


def _as_stars(stars: Stars, processes: Processes) -> Stars:
    found = amplitudes(stars.relative_to_hydrogen(), processes)
    return Stars(AMPLITUDES, found.values, found.covariance, stars.names)
